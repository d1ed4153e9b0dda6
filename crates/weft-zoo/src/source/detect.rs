//! What format a file or folder is of: by its content first, by its name where the content does not tell.

use super::archive::read_directory;
use super::{Source, SourceFormat, hexells, llama2c, npz, peft, pytorch, safetensors, sharded};
use crate::mapped::MappedFile;
use crate::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::{Path, PathBuf};

/// The longest JSON file that is looked into.
const MAX_JSON_BYTES: usize = 25 << 20;

/// The files that a folder is looked through for, the likeliest first.
const FOLDER_FILES: [&str; 6] = [
    peft::CONFIG,
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
];

/// Opens a file or folder of weights; most hold one network, some many.
///
/// The whole structure is checked here, values are read later. Names come without the prefixes of wrappers, see
/// [`Source::stripped`].
///
/// # Errors
/// [`Error::UnknownFormat`] for what is of no format that is read, [`Error::Header`] for a breach of safetensors,
/// [`Error::Source`] for one of another format, [`Error::Tensor`] for scales that do not fit, [`Error::Io`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), weft_zoo::Error> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// # let path = dir.path().join("net.safetensors");
/// weft_zoo::write_tensors(&path, &[("module.a".to_owned(), vec![2], &[1.0, 2.0])], &Default::default())?;
/// let sources = weft_zoo::open_sources(&path)?;
/// assert_eq!(sources[0].stripped(), ["module."]);
/// assert_eq!(sources[0].read("a")?, [1.0, 2.0]);
/// # Ok(())
/// # }
/// ```
pub fn open_sources(path: &Path) -> Result<Vec<Source>> {
    let (path, format) = if path.is_dir() { file_of_folder(path)? } else { (path.to_owned(), detect(path)?) };
    let path = path.as_path();
    match format {
        SourceFormat::Safetensors => safetensors::open(path).map(|source| vec![source]),
        SourceFormat::Sharded => sharded::open(path).map(|source| vec![source]),
        SourceFormat::PyTorch => pytorch::open(path).and_then(Source::with_scales).map(|source| vec![source]),
        SourceFormat::Npz => npz::open(path).map(|source| vec![source]),
        SourceFormat::Peft => peft::open(path).map(|source| vec![source]),
        SourceFormat::Llama2c => llama2c::open(path).map(|source| vec![source]),
        SourceFormat::Hexells => hexells::open(path),
    }
}

fn file_of_folder(folder: &Path) -> Result<(PathBuf, SourceFormat)> {
    let found = FOLDER_FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let found = found.ok_or_else(|| unknown(folder, format!("the folder has none of `{}`", FOLDER_FILES.join("`, `"))))?;
    let format = detect(&found)?;
    // An adapter is its folder.
    Ok(if format == SourceFormat::Peft { (folder.to_owned(), format) } else { (found, format) })
}

fn unknown(path: &Path, reason: String) -> Error {
    let known: Vec<String> = SourceFormat::ALL.iter().map(ToString::to_string).collect();
    Error::UnknownFormat { path: path.to_owned(), reason, known: known.join(", ") }
}

fn detect(path: &Path) -> Result<SourceFormat> {
    let file = MappedFile::open(path)?;
    let bytes = file.bytes();
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ends_with = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    // Two names that say what the content is.
    if ends_with(&[".index.json"]) {
        return Ok(SourceFormat::Sharded);
    }
    if name == peft::CONFIG {
        return Ok(SourceFormat::Peft);
    }
    let torch_name = ends_with(&[".pt", ".pth", ".bin", ".ckpt"]);
    // A length below 4 GiB and a JSON object; text has no zeros there.
    let is_safetensors = bytes.get(4..9) == Some(b"\0\0\0\0{");
    if is_safetensors || ends_with(&[".safetensors"]) {
        return Ok(SourceFormat::Safetensors);
    }
    if bytes.starts_with(b"PK") {
        return of_archive(path, bytes, torch_name, ends_with(&[".npz"]));
    }
    // A pickle begins with its protocol; the archive of the oldest PyTorch is a tar file.
    if matches!(bytes, [0x80, 2..=5, ..]) || bytes.get(257..262) == Some(b"ustar") {
        return Ok(SourceFormat::PyTorch);
    }
    if looks_like_json(bytes) {
        return of_json(path, bytes);
    }
    match llama2c::recognize(bytes) {
        Ok(()) => Ok(SourceFormat::Llama2c),
        Err(_) if ends_with(&[".npz"]) => Ok(SourceFormat::Npz),
        Err(_) if ends_with(&[".pt", ".pth", ".ckpt"]) => Ok(SourceFormat::PyTorch),
        Err(fault) if ends_with(&[".bin"]) => {
            let reason = format!("it is no archive and no pickle, as PyTorch writes them; as a llama2.c binary, {fault}");
            Err(unknown(path, reason))
        }
        Err(_) => Err(unknown(path, "its first bytes are not those of a known format".to_owned())),
    }
}

fn looks_like_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&byte| byte == b'{')
}

/// A zip archive: `PyTorch`'s if there is a pickle, npz if there are arrays alone.
fn of_archive(path: &Path, bytes: &[u8], torch_name: bool, npz_name: bool) -> Result<SourceFormat> {
    let by_name = if torch_name { Some(SourceFormat::PyTorch) } else { npz_name.then_some(SourceFormat::Npz) };
    match read_directory(bytes) {
        Ok(entries) if entries.iter().any(pytorch::is_pickle) => Ok(SourceFormat::PyTorch),
        Ok(entries) if !entries.is_empty() && entries.iter().all(|entry| entry.name.ends_with(npz::ARRAY)) => Ok(SourceFormat::Npz),
        Ok(_) => by_name.ok_or_else(|| unknown(path, "it is a zip archive without `data.pkl` and without arrays".to_owned())),
        // The reader of the format that its name promises says what is wrong.
        Err(fault) => by_name.ok_or_else(|| unknown(path, format!("{fault}"))),
    }
}

/// The keys that tell JSON files apart.
#[derive(Deserialize)]
struct Keys {
    weight_map: Option<IgnoredAny>,
    peft_type: Option<IgnoredAny>,
    model_names: Option<IgnoredAny>,
}

fn of_json(path: &Path, bytes: &[u8]) -> Result<SourceFormat> {
    if bytes.len() > MAX_JSON_BYTES {
        return Err(unknown(path, format!("it is JSON of more than {MAX_JSON_BYTES} bytes")));
    }
    let keys: Keys = serde_json::from_slice(bytes).map_err(|error| unknown(path, format!("it is no valid JSON: {error}")))?;
    match keys {
        Keys { weight_map: Some(_), .. } => Ok(SourceFormat::Sharded),
        Keys { peft_type: Some(_), .. } => Ok(SourceFormat::Peft),
        Keys { model_names: Some(_), .. } => Ok(SourceFormat::Hexells),
        _ => Err(unknown(path, "it is JSON with neither `weight_map` nor `peft_type` nor `model_names`".to_owned())),
    }
}
