//! What can be wrong with files and zoos.

use crate::adapter::AdapterFault;
use crate::onnx::OnnxFault;
use crate::source::{SourceDtype, SourceFault, SourceFormat};
use std::path::{Path, PathBuf};
use weft_core::Digest;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A file, zoo or data set that cannot be read, or a write that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A safetensors file whose header is not what the format allows.
    #[error("`{}` is not a valid safetensors file: {fault}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// An ONNX model that is not read, or cannot take the weights that it should.
    #[error("ONNX model `{}`: {fault}", path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: OnnxFault,
    },
    /// A file of a known format that breaks the format's rules, or holds what is not read.
    #[error("`{}` cannot be read as {format}: {fault}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// The format that it was taken for.
        format: SourceFormat,
        /// What is wrong.
        fault: SourceFault,
    },
    /// An adapter that cannot be read, converted or written.
    #[error("adapter `{}`: {fault}", path.display())]
    Adapter {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        fault: Box<AdapterFault>,
    },
    /// A file or folder of no format that is known.
    #[error("`{}` is of no format that is read: {reason}; {known} are read", path.display())]
    UnknownFormat {
        /// The file or folder.
        path: PathBuf,
        /// What was found there.
        reason: String,
        /// The formats that there are.
        known: String,
    },
    /// A checkpoint that does not fit the architecture.
    #[error("`{}`, tensor `{tensor}`: {fault}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        fault: TensorFault,
    },
    /// Metadata of a checkpoint that cannot be understood.
    #[error("`{}`: metadata `{key}` is `{got}`, expected {expected}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry's key.
        key: String,
        /// Its value.
        got: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A TOML file that does not parse or declares something impossible.
    #[error("`{}`: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column where it knows them.
        reason: String,
    },
    /// JSON text in a catalogue or in metadata that does not parse.
    #[error("not a valid {what}: {reason}")]
    Json {
        /// What the text should be.
        what: &'static str,
        /// The parser's message.
        reason: String,
    },
    /// A value that the domain types refuse.
    #[error("{origin}")]
    Domain {
        /// Where the value stands.
        origin: String,
        /// Why it was refused.
        source: weft_core::Error,
    },
    /// The folder is not a zoo.
    #[error("`{}` is not a zoo: it has no `{missing}`", path.display())]
    NotAZoo {
        /// The folder.
        path: PathBuf,
        /// What a zoo would have there.
        missing: &'static str,
    },
    /// There is something already where a zoo was to be created.
    #[error("cannot create a zoo in `{}`: {reason}", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What is there.
        reason: String,
    },
    /// The zoo was written by another version.
    #[error("`{}` has format version {got}, this program reads version {expected}", path.display())]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// The version found.
        got: i64,
        /// The version that this program writes.
        expected: i64,
    },
    /// SQLite refused an operation on a catalogue.
    #[error("catalogue `{}`", path.display())]
    Catalogue {
        /// The catalogue.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A catalogue row that no version of this program writes.
    #[error("catalogue `{}`: checkpoint row {row}: {reason}", path.display())]
    Row {
        /// The catalogue.
        path: PathBuf,
        /// The row's number.
        row: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// Test checkpoints were asked for in order to fit something.
    #[error("checkpoint {} of run `{run}` belongs to the test split: nothing may be fitted on it", digest.short())]
    TestSplit {
        /// The checkpoint.
        digest: Digest,
        /// Its run.
        run: String,
    },
    /// A quarantined checkpoint was asked for.
    #[error("checkpoint {} of run `{run}` is quarantined: {reason}", digest.short())]
    Quarantined {
        /// The checkpoint.
        digest: Digest,
        /// Its run.
        run: String,
        /// Why it is.
        reason: String,
    },
    /// An expression that chooses or sorts checkpoints cannot be understood.
    #[error("column {column}: {reason}")]
    Query {
        /// Where it goes wrong, counted in characters from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A checkpoint whose stored weights are not those that its digest names.
    #[error("shard `{}`, row {row}: the weights have digest {}, the catalogue says {}", shard.display(), got.short(), expected.short())]
    Corrupt {
        /// The shard.
        shard: PathBuf,
        /// The checkpoint's row in it.
        row: usize,
        /// The digest in the catalogue.
        expected: Digest,
        /// The digest of what is there.
        got: Digest,
    },
    /// An entry names a row that its shard has not.
    #[error("shard `{}` has {rows} rows, the catalogue asks for row {row}", shard.display())]
    ShardRow {
        /// The shard.
        shard: PathBuf,
        /// The row asked for.
        row: usize,
        /// The rows that there are.
        rows: usize,
    },
    /// Records that do not belong to the population beside them, or to the zoo.
    #[error("run `{run}`: {reason}")]
    Record {
        /// The record's run.
        run: String,
        /// Why it cannot be appended.
        reason: String,
    },
    /// Tensors that are not those of an architecture.
    #[error("`{}` does not fit the architecture `{architecture}`:{}", path.display(), listed(faults, *total))]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The architecture's name.
        architecture: String,
        /// The first faults, by tensor.
        faults: Vec<(String, TensorFault)>,
        /// How many there are.
        total: usize,
    },
    /// A file whose architecture cannot be told.
    #[error("`{}`: {reason}; {hint}", path.display())]
    NotInferred {
        /// The file.
        path: PathBuf,
        /// What is known, and what is not.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// Neither a file nor the name of an architecture.
    #[error("`{}` is neither an architecture file nor the name of a built-in architecture; known: {known}", name.display())]
    UnknownArchitecture {
        /// What was given.
        name: PathBuf,
        /// The names known.
        known: String,
    },
    /// A population of another architecture than the zoo's.
    #[error("the zoo holds `{expected}` networks, got `{got}`")]
    Architecture {
        /// The zoo's architecture.
        expected: String,
        /// The population's.
        got: String,
    },
    /// Two zoos hold networks of different architectures.
    #[error("the zoo `{}` does not hold networks like those of `{}`: {reason}", zoo.display(), expected.display())]
    Differs {
        /// The zoo that differs.
        zoo: PathBuf,
        /// The zoo that it was compared with.
        expected: PathBuf,
        /// The first difference.
        reason: String,
    },
    /// The number of records is not the number of networks.
    #[error("{networks} networks with {records} records")]
    Count {
        /// Networks given.
        networks: usize,
        /// Records given.
        records: usize,
    },
    /// A data set that is not where it should be.
    #[error("data set `{dataset}`: looked for {wanted} in `{}`, which is not there; {hint}", path.display())]
    DataMissing {
        /// The data set's name.
        dataset: String,
        /// What was looked for.
        wanted: String,
        /// The folder or file where it was looked for.
        path: PathBuf,
        /// How to get it.
        hint: String,
    },
    /// A file of a data set that is not what its name promises.
    #[error("`{}` is not {expected}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file is not what it was when it was examined.
    #[error("`{}` changed while it was imported: {reason}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// A file that is read whole and longer than such a file may be.
    #[error("`{}` has more than {limit} bytes, which is the most that is read of such a file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// A decoder that is not written for Transformers.
    #[error("the base `{name}` cannot be written for Transformers: {reason}")]
    Llama {
        /// What it is called.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file with other content is where one was to be written.
    #[error("`{}` is there already with other content; move it away, or write to another folder", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The ONNX model that a checkpoint came from is not known, or not where it should be.
    #[error("checkpoint {}: no original ONNX model: {reason}; `--graph FILE` names a model for all", digest.short())]
    NoOriginal {
        /// The checkpoint.
        digest: Digest,
        /// What is known.
        reason: String,
    },
    /// A file is not the one that a checkpoint came from.
    #[error("`{}` is not the file that checkpoint {} came from: it has SHA-256 {got}, the catalogue says {expected}", path.display(), digest.short())]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// The checkpoint.
        digest: Digest,
        /// The SHA-256 in the catalogue.
        expected: String,
        /// The SHA-256 of what is there.
        got: String,
    },
    /// The layout that a catalogue records of a checkpoint's file cannot be written.
    #[error("checkpoint {}: the recorded layout of its file cannot be written: {reason}; export it under the architecture's own names", digest.short())]
    Layout {
        /// The checkpoint.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of an import is out of range.
    #[error("`{setting}` must be {expected}, got {got}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// The user asked for a stop.
    #[error("interrupted")]
    Interrupted,
}

/// Faults one below the other, and how many more there are.
fn listed(faults: &[(String, TensorFault)], total: usize) -> String {
    let lines = faults.iter().map(|(tensor, fault)| format!("\n  tensor `{tensor}`: {fault}"));
    let more = total.saturating_sub(faults.len());
    let rest = (more > 0).then(|| format!("\n  and {more} more"));
    lines.chain(rest).collect()
}

impl Error {
    /// Whether the disk had no room left, for a file or for the catalogue.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Catalogue { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }
}

/// A breach of the safetensors format, found before any tensor is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The file ends before its header or its tensors do.
    #[error("it has {got} bytes, its header speaks of {expected}")]
    Truncated {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that there are.
        got: u64,
    },
    /// The header is longer than any honest one.
    #[error("its header would be {got} bytes long, at most {limit} are read")]
    TooLong {
        /// Bytes that the header claims.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// The header is not the JSON that it should be.
    #[error("its header is not valid: {reason}")]
    Json {
        /// The parser's message.
        reason: String,
    },
    /// A name stands twice.
    #[error("`{key}` stands twice in its header")]
    DuplicateKey {
        /// The repeated name.
        key: String,
    },
    /// A tensor has an element type that is not read here.
    #[error("tensor `{tensor}` has dtype `{dtype}`; floats of 64, 32, 16 and 8 bits, integers and BOOL are read")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: String,
    },
    /// A shape whose number of bytes is not the tensor's length.
    #[error("tensor `{tensor}` of shape {shape:?} does not fill the {bytes} bytes that it claims")]
    Size {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// The length of its data.
        bytes: u64,
    },
    /// Two tensors claim the same bytes, or one ends before it begins.
    #[error("tensor `{tensor}` overlaps another")]
    Overlap {
        /// The later tensor.
        tensor: String,
    },
    /// Bytes that no tensor claims.
    #[error("{bytes} bytes before tensor `{tensor}` belong to no tensor")]
    Hole {
        /// The tensor after the hole.
        tensor: String,
        /// Its length.
        bytes: u64,
    },
    /// Bytes after the last tensor.
    #[error("{bytes} bytes after the last tensor belong to no tensor")]
    Trailing {
        /// Their number.
        bytes: u64,
    },
}

/// Why a tensor does not fit an architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFault {
    /// The architecture has it, the file has not.
    #[error("missing")]
    Missing,
    /// The file has it, the architecture has not.
    #[error("not a tensor of the architecture `{architecture}`")]
    Extra {
        /// The architecture's name.
        architecture: String,
    },
    /// It has another shape.
    #[error("shape {got:?}, expected {expected:?}")]
    Shape {
        /// The declared shape.
        expected: Vec<usize>,
        /// The file's shape.
        got: Vec<usize>,
    },
    /// Its values are no weights.
    #[error("dtype {dtype} is not read as weights; floats are, and 8 bits with a tensor of scales beside them")]
    Dtype {
        /// Its element type.
        dtype: SourceDtype,
    },
    /// The scales of a quantized tensor do not fit it.
    #[error("its scales `{scale}`: {reason}")]
    Scale {
        /// The tensor of scales.
        scale: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Its values cannot be brought into memory as the file stands.
    #[error("{reason}")]
    Stored {
        /// What is wrong.
        reason: String,
    },
    /// It stands for a tensor that another one stands for already.
    #[error("it is the same tensor as `{other}`")]
    Twice {
        /// The other.
        other: String,
    },
    /// It is there to repeat another tensor and does not.
    #[error("value {index} is not that of `{of}`, which it must repeat: the output layer is tied to the embedding")]
    Repeat {
        /// The tensor that it should repeat.
        of: String,
        /// The first value that differs.
        index: usize,
    },
    /// A weight is NaN or infinite.
    #[error("value {index} is not finite")]
    NonFinite {
        /// Its index in the tensor.
        index: usize,
    },
    /// It does not fit in memory.
    #[error("{values} values do not fit in memory")]
    Memory {
        /// The number of values.
        values: usize,
    },
}

impl Error {
    /// Wraps an IO error with the path and what was tried.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
