//! Builders of small files, sound ones and such as no honest tool writes.

use std::io::Write;
use std::path::{Path, PathBuf};
use weft_zoo::{Error, Source, SourceFault, open_sources};

/// Writes a file and opens it.
pub(crate) fn open(name: &str, bytes: &[u8]) -> Result<Vec<Source>, Error> {
    let dir = tempfile::tempdir().unwrap();
    open_in(dir.path(), name, bytes)
}

pub(crate) fn open_in(dir: &Path, name: &str, bytes: &[u8]) -> Result<Vec<Source>, Error> {
    let path: PathBuf = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    open_sources(&path)
}

/// The fault for which a file is refused.
pub(crate) fn fault(name: &str, bytes: &[u8]) -> SourceFault {
    match open(name, bytes) {
        Err(Error::Source { path, fault, .. }) => {
            assert!(path.ends_with(name), "{}", path.display());
            fault
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("`{name}` was read"),
    }
}

/// Opens every beginning of a file whose length is a multiple of 64, and that of one byte less than the whole; each
/// is refused, or no tensor of it can be read.
pub(crate) fn truncations(name: &str, whole: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let sound = open_in(dir.path(), name, whole).unwrap_or_else(|error| panic!("{error}"));
    assert!(!sound.is_empty());
    for len in (0..whole.len()).step_by(64).chain([whole.len() - 1]) {
        let opened = open_in(dir.path(), name, &whole[..len]);
        let reason = opened.err().unwrap_or_else(|| panic!("{len} bytes of {name} were read")).to_string();
        assert!(reason.len() < 1000, "{reason}");
    }
}

/// A safetensors file of a header and data.
pub(crate) fn safetensors(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat()
}

/// An entry of a zip archive as it shall be written, true or not.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) method: u16,
    pub(crate) data: Vec<u8>,
    pub(crate) expanded: u32,
    pub(crate) crc32: u32,
    pub(crate) flags: u16,
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Entry {
    pub(crate) fn stored(name: &str, data: &[u8]) -> Self {
        let (data, crc32) = (data.to_vec(), crc(data));
        Self { name: name.to_owned(), method: 0, expanded: data.len() as u32, data, crc32, flags: 0 }
    }

    pub(crate) fn deflated(name: &str, data: &[u8]) -> Self {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        let compressed = encoder.finish().unwrap();
        Self { name: name.to_owned(), method: 8, data: compressed, expanded: data.len() as u32, crc32: crc(data), flags: 0 }
    }
}

/// A zip archive. `shift` moves what the directory says of each place.
pub(crate) fn zip_shifted(entries: &[Entry], shift: &dyn Fn(usize) -> u32) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (i, entry) in entries.iter().enumerate() {
        let at = (bytes.len() as u32).wrapping_sub(shift(i));
        let middle = |out: &mut Vec<u8>| {
            for field in [20, entry.flags, entry.method, 0, 0] {
                out.extend(field.to_le_bytes());
            }
            for field in [entry.crc32, entry.data.len() as u32, entry.expanded] {
                out.extend(field.to_le_bytes());
            }
            out.extend((entry.name.len() as u16).to_le_bytes());
            out.extend([0, 0]);
        };
        bytes.extend(b"PK\x03\x04");
        middle(&mut bytes);
        bytes.extend(entry.name.as_bytes());
        bytes.extend(&entry.data);
        directory.extend(b"PK\x01\x02\x14\x00");
        middle(&mut directory);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let (start, len, count) = (bytes.len() as u32, directory.len() as u32, (entries.len() as u16).to_le_bytes());
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count, count].concat());
    bytes.extend([len.to_le_bytes(), start.to_le_bytes()].concat());
    bytes.extend([0, 0]);
    bytes
}

pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    zip_shifted(entries, &|_| 0)
}

/// An array of f32 as NumPy writes it.
pub(crate) fn npy(shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A pickle of `{name: tensor}` with one axis each; storage `i` is the `i`-th.
pub(crate) fn pickle(tensors: &[(&str, u16)]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (i, (name, len)) in tensors.iter().enumerate() {
        tensor(&mut out, name, i, *len, *len, 1);
    }
    out.extend(b"u.");
    out
}

/// The key and the value of a tensor of `len` values, `stride` apart, in a storage of `stored`.
pub(crate) fn tensor(out: &mut Vec<u8>, name: &str, storage: usize, stored: u16, len: u16, stride: u8) {
    text(out, name);
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(out, &storage.to_string());
    text(out, "cpu");
    out.push(b'M');
    out.extend(stored.to_le_bytes());
    out.extend(b"tQK\x00M");
    out.extend(len.to_le_bytes());
    out.extend([0x85, b'K', stride, 0x85, 0x89]);
    out.extend(b"ccollections\nOrderedDict\n)RtR");
}

pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The entries of a checkpoint of `PyTorch`.
pub(crate) fn checkpoint(pickle: &[u8], storages: &[&[u8]]) -> Vec<Entry> {
    let mut entries = vec![Entry::stored("net/data.pkl", pickle), Entry::stored("net/version", b"3\n")];
    entries.extend(storages.iter().enumerate().map(|(i, data)| Entry::stored(&format!("net/data/{i}"), data)));
    entries
}

/// A folder of an adapter.
pub(crate) fn adapter(config: &str, tensors: &[(&str, &[usize])]) -> (tempfile::TempDir, Result<Vec<Source>, Error>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    let values = vec![0.5; 4096];
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| ((*name).to_owned(), shape.to_vec(), &values[..shape.iter().product::<usize>()]))
        .collect();
    weft_zoo::write_tensors(&dir.path().join("adapter_model.safetensors"), &tensors, &weft_zoo::Metadata::new()).unwrap();
    let opened = open_sources(dir.path());
    (dir, opened)
}

/// A llama2.c binary of a header and so many values.
pub(crate) fn llama2c(header: [i32; 7], values: usize) -> Vec<u8> {
    let floats = (0..values).flat_map(|i| (i as f32).to_le_bytes());
    header.iter().flat_map(|field| field.to_le_bytes()).chain(floats).collect()
}

/// The number of values behind a header, by the format's own list.
pub(crate) fn llama2c_values([dim, hidden, layers, heads, kv_heads, vocab, seq]: [i32; 7]) -> usize {
    let kv = dim / heads * kv_heads;
    let layer = 2 * dim + 2 * dim * dim + 2 * kv * dim + 3 * hidden * dim;
    let classifier = if vocab < 0 { -vocab * dim } else { 0 };
    (vocab.abs() * dim + layers * layer + dim + seq * (dim / heads) + classifier) as usize
}

/// A PNG of RGBA pixels in base64, as a data URL.
pub(crate) fn png_url(width: u32, height: u32, pixels: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    format!("data:image/PNG;base64,{}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes))
}

/// The JSON of one automaton layer.
pub(crate) fn layer(data: &str, shape: [u64; 2], layout: [u64; 2]) -> String {
    let zero = "[2.0, 0.0]";
    format!(r#"{{"scale": 2.55, "data": "{data}", "shape": {shape:?}, "quant_scale_zero": {zero}, "layout": {layout:?}}}"#)
}

pub(crate) fn hexells(names: &[&str], layers: &[String]) -> Vec<u8> {
    format!(r#"{{"model_names": {names:?}, "layers": [{}]}}"#, layers.join(",")).into_bytes()
}
