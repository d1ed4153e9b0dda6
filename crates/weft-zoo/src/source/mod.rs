//! Weights as the world keeps them: one reader for every format.
//!
//! [`open_sources`] tells a format by its content, checks the file's whole structure and lists its tensors; values are
//! read one tensor at a time, from a memory map where the format allows. Nothing is executed, and what is refused is
//! refused by name. Names come without the prefixes of wrappers ([`normalized_names`]), 8-bit tensors with the scales
//! that stand beside them. A new format is one file here, one arm in `detect.rs`, one test and one fuzz target.

pub(crate) mod archive;
mod detect;
mod dtype;
mod fault;
mod hash;
mod hexells;
mod llama2c;
mod names;
mod npz;
mod peft;
mod pickle;
mod pytorch;
mod safetensors;
mod scale;
mod sharded;

pub use detect::open_sources;
pub use dtype::SourceDtype;
pub(crate) use dtype::f16_to_f32;
pub use fault::SourceFault;
pub(crate) use hash::sha256_of_digests;
pub use hash::sha256_of_file;
pub use names::{NormalizedNames, normalized_names};
pub(crate) use peft::Config as PeftConfig;
pub use peft::{Adapter, AdapterKind, AdapterModule};
pub use scale::Scale;

use crate::mapped::MappedFile;
use crate::tensors::{Metadata, first_non_finite};
use crate::{Error, Result, TensorFault};
use archive::Entry;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A format of files of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SourceFormat {
    /// One safetensors file.
    Safetensors,
    /// Several files, safetensors or `PyTorch`'s, and the index that says which tensor lies where.
    Sharded,
    /// A checkpoint that `torch.save` wrote.
    PyTorch,
    /// A zip archive of `NumPy` arrays.
    Npz,
    /// A folder of the PEFT library: a low-rank adapter and its settings.
    Peft,
    /// A binary of llama2.c.
    Llama2c,
    /// The JSON file of texture automata that hexells publishes.
    Hexells,
}

impl SourceFormat {
    /// Every format, in the order in which errors list them.
    pub const ALL: [Self; 7] =
        [Self::Safetensors, Self::Sharded, Self::PyTorch, Self::Npz, Self::Peft, Self::Llama2c, Self::Hexells];

    /// A short name, as catalogues record it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Sharded => "sharded",
            Self::PyTorch => "pytorch",
            Self::Npz => "npz",
            Self::Peft => "peft",
            Self::Llama2c => "llama2c",
            Self::Hexells => "hexells",
        }
    }
}

impl std::fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "a safetensors file",
            Self::Sharded => "a sharded checkpoint (`*.index.json`)",
            Self::PyTorch => "a PyTorch checkpoint (`.pt`, `.pth`, `.bin`, `.ckpt`)",
            Self::Npz => "an npz archive of arrays",
            Self::Peft => "an adapter folder of PEFT (`adapter_config.json`)",
            Self::Llama2c => "a llama2.c binary",
            Self::Hexells => "hexells' JSON of automata",
        })
    }
}

/// The tensors of one network or adapter as they stand in a file; values are read when they are asked for.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    format: SourceFormat,
    member: Option<String>,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, SourceTensor>,
    /// Tensors that belong to others: scales.
    companions: BTreeMap<String, SourceTensor>,
    metadata: Metadata,
    stripped: Vec<String>,
    adapter: Option<Adapter>,
}

/// A tensor of a [`Source`], without its values.
#[derive(Debug, Clone)]
pub struct SourceTensor {
    /// Its extents, outermost first.
    pub shape: Vec<usize>,
    /// The type of its elements in the file.
    pub dtype: SourceDtype,
    /// What its 8-bit values are multiplied by.
    pub scale: Option<Scale>,
    /// The name that it has in the file, prefixes included.
    pub stored_name: String,
    place: Place,
}

impl SourceTensor {
    fn new(stored_name: String, shape: Vec<usize>, dtype: SourceDtype, place: Place) -> Self {
        Self { shape, dtype, scale: None, stored_name, place }
    }

    /// The number of values; it fits, because they fill bytes of a file.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the values can be read as weights: floats, or 8 bits with scales.
    #[must_use]
    pub fn is_weight(&self) -> bool {
        self.dtype.is_float() || self.scale.is_some()
    }
}

/// Where the values of a tensor lie.
#[derive(Debug, Clone)]
enum Place {
    /// Bytes of a mapped file, row by row.
    Mapped { file: Arc<MappedFile>, range: Range<usize> },
    /// An array of an npz archive, behind a header of so many bytes, perhaps column by column.
    Npy { file: Arc<MappedFile>, entry: Entry, skip: usize, by_columns: bool },
    /// A tensor that crate `pytorch-reader` reads.
    Torch(pytorch_reader::Tensor),
    /// Values that were decoded already.
    Values(Arc<[f32]>),
}

impl Source {
    fn new(path: &Path, format: SourceFormat, tensors: BTreeMap<String, SourceTensor>) -> Self {
        Self {
            path: path.to_owned(),
            format,
            member: None,
            files: vec![path.to_owned()],
            tensors,
            companions: BTreeMap::new(),
            metadata: Metadata::new(),
            stripped: Vec::new(),
            adapter: None,
        }
    }

    /// Takes the prefixes of wrappers away from all names.
    fn normalized(mut self) -> Self {
        let normalized = normalized_names(self.tensors.keys().map(String::as_str));
        if !normalized.stripped.is_empty() {
            let named = |(new, old): (String, String)| Some((new, self.tensors.remove(&old)?));
            self.tensors = normalized.names.into_iter().filter_map(named).collect();
            self.stripped.extend(normalized.stripped);
        }
        self
    }

    /// The file or folder that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of this network in a file that holds many.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> SourceFormat {
        self.format
    }

    /// Every file that the tensors and settings come from.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The tensors by name, less those that are scales of others.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, SourceTensor> {
        &self.tensors
    }

    /// What the file says beside its tensors, as text.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What was taken away from the front of every name: keys of nested dictionaries and prefixes of wrappers.
    #[must_use]
    pub fn stripped(&self) -> &[String] {
        &self.stripped
    }

    /// What kind of adapter it is, for a [`SourceFormat::Peft`].
    #[must_use]
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Reads the weights of a tensor, row-major; those of 8 bits are multiplied by their scales.
    ///
    /// Values are not checked: [`Source::first_non_finite`] does.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a name that is not there, for integers and 8-bit values without scales, and for values
    /// that cannot be brought into memory.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.read_into(name, &mut values)?;
        Ok(values)
    }

    /// As [`Source::read`], into a buffer that may be used again; what it held is lost.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read_into(&self, name: &str, values: &mut Vec<f32>) -> Result<()> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.fault(name, TensorFault::Missing))?;
        if !tensor.is_weight() {
            return Err(self.fault(name, TensorFault::Dtype { dtype: tensor.dtype }));
        }
        self.fill(name, tensor, values)?;
        if let Some(scale) = &tensor.scale {
            let mut factors = Vec::new();
            let companion = self.companions.get(scale.tensor());
            let companion = companion.ok_or_else(|| self.fault(scale.tensor(), TensorFault::Missing))?;
            self.fill(scale.tensor(), companion, &mut factors)?;
            scale.apply(&tensor.shape, &factors, values);
        }
        Ok(())
    }

    /// Gives the memory back that reading tensors has mapped, so that many open sources take little; nothing is lost by it.
    pub fn release(&self) {
        // Tensors of a file follow each other, as a rule.
        let mut last = std::ptr::null();
        for tensor in self.tensors.values().chain(self.companions.values()) {
            if let Place::Mapped { file, .. } | Place::Npy { file, .. } = &tensor.place
                && Arc::as_ptr(file) != last
            {
                file.release();
                last = Arc::as_ptr(file);
            }
        }
    }

    /// Converts a stretch of a tensor's weights straight from the map; `false`, and nothing done, where a format or a scale
    /// allows no such thing.
    pub(crate) fn read_stretch(&self, name: &str, start: usize, out: &mut [f32]) -> bool {
        let Some(tensor) = self.tensors.get(name).filter(|tensor| tensor.scale.is_none() && tensor.dtype.is_float()) else {
            return false;
        };
        let Place::Mapped { file, range } = &tensor.place else { return false };
        let size = tensor.dtype.size() as usize;
        let bytes = &file.bytes()[range.clone()][size * start..size * (start + out.len())];
        tensor.dtype.convert(bytes, out);
        true
    }

    /// Reads the values of a tensor of any type as numbers, without scales.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a name that is not there, or values that cannot be brought into memory.
    pub fn read_raw(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.fault(name, TensorFault::Missing))?;
        let mut values = Vec::new();
        self.fill(name, tensor, &mut values)?;
        Ok(values)
    }

    /// The first weight that is NaN or infinite: its tensor, in the order of names, and its index there.
    ///
    /// # Errors
    /// As [`Source::read`]; tensors that are no weights are left out.
    pub fn first_non_finite(&self) -> Result<Option<(String, usize)>> {
        let mut values = Vec::new();
        for (name, _) in self.tensors.iter().filter(|(_, tensor)| tensor.is_weight()) {
            self.read_into(name, &mut values)?;
            if let Some(index) = first_non_finite(&values) {
                return Ok(Some((name.clone(), index)));
            }
        }
        Ok(None)
    }

    fn fault(&self, tensor: &str, fault: TensorFault) -> Error {
        Error::Tensor { path: self.path.clone(), tensor: tensor.to_owned(), fault }
    }

    /// Brings the values as they are stored into memory.
    fn fill(&self, name: &str, tensor: &SourceTensor, values: &mut Vec<f32>) -> Result<()> {
        let len = tensor.num_values();
        let stored = |reason: &dyn ToString| self.fault(name, TensorFault::Stored { reason: reason.to_string() });
        values.clear();
        values.try_reserve_exact(len).map_err(|_| self.fault(name, TensorFault::Memory { values: len }))?;
        match &tensor.place {
            Place::Mapped { file, range } => {
                values.resize(len, 0.0);
                tensor.dtype.convert(&file.bytes()[range.clone()], values);
            }
            Place::Npy { file, entry, skip, by_columns } => {
                let bytes = entry.read(file.bytes()).map_err(|fault| stored(&fault))?;
                values.resize(len, 0.0);
                tensor.dtype.convert(&bytes[*skip..], values);
                if *by_columns {
                    *values = npz::rows_from_columns(values, &tensor.shape);
                }
            }
            Place::Torch(torch) => {
                let bytes = torch.read().map_err(|error| stored(&error))?;
                values.resize(len, 0.0);
                tensor.dtype.convert(&bytes, values);
            }
            Place::Values(decoded) => values.extend_from_slice(decoded),
        }
        Ok(())
    }
}
