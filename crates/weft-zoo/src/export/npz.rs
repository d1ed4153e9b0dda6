//! npz archives as `numpy.savez` writes them: a zip archive of stored `.npy` arrays.
//!
//! Equal tensors give equal bytes: every entry has the first date that zip knows, and the order is the caller's. Every
//! entry carries 64-bit sizes, so that there is one form for small archives and for those beyond 4 GiB.
//!
//! # References
//! PKWARE, ".ZIP File Format Specification", version 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3;
//! `NumPy`, "A simple file format for arrays", format version 1.0.

use crate::Result;
use crate::atomic::AtomicFile;
use crate::tensors::little_endian;
use std::path::Path;

/// Values that are encoded at a time.
const BLOCK: usize = 1 << 16;

/// The version of the specification that brought 64-bit sizes.
const VERSION: u16 = 45;

/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;

/// 1 January 1980, midnight.
const DATE: [u8; 4] = [0, 0, 0x21, 0];

/// The kind of the extra field with 64-bit sizes.
const ZIP64: u16 = 1;

/// An entry that was written.
struct Written {
    name: String,
    crc32: u32,
    size: u64,
    at: u64,
}

/// Writes an archive into a temporary file of `folder`. Names must be unique and shorter than 2¹⁶ − 4 bytes, and shapes
/// fit their values.
pub(super) fn stage(folder: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<AtomicFile> {
    let mut file = AtomicFile::create_in(folder)?;
    let (mut at, mut buffer, mut entries) = (0, Vec::new(), Vec::with_capacity(tensors.len()));
    for (name, shape, values) in tensors {
        let header = npy_header(shape);
        // The checksum stands before the data, so the data are encoded twice; that is cheaper than keeping them.
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        values.chunks(BLOCK).for_each(|chunk| crc.update(little_endian(chunk, &mut buffer)));
        let size = header.len() as u64 + 4 * values.len() as u64;
        let entry = Written { name: format!("{name}.npy"), crc32: crc.sum(), size, at };
        let local = entry.local();
        at += local.len() as u64 + size;
        file.write(&local)?;
        file.write(&header)?;
        for chunk in values.chunks(BLOCK) {
            file.write(little_endian(chunk, &mut buffer))?;
        }
        entries.push(entry);
    }
    let directory: Vec<u8> = entries.iter().flat_map(Written::central).collect();
    file.write(&directory)?;
    file.write(&ends(entries.len() as u64, directory.len() as u64, at))?;
    Ok(file)
}

/// What stands before the data of an array of `f32`, padded so that they begin at a multiple of 64 bytes.
fn npy_header(shape: &[usize]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if axes.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}", axes.join(", "));
    let before = 10;
    let padding = (before + text.len() + 1).next_multiple_of(64) - (before + text.len() + 1);
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.bytes());
    header
}

impl Written {
    /// The local header.
    fn local(&self) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04".to_vec();
        self.common(&mut bytes);
        put16(&mut bytes, [20]);
        bytes.extend(self.name.bytes());
        put16(&mut bytes, [ZIP64, 16]);
        put64(&mut bytes, [self.size; 2]);
        bytes
    }

    /// The entry of the directory.
    fn central(&self) -> Vec<u8> {
        let mut bytes = b"PK\x01\x02".to_vec();
        put16(&mut bytes, [VERSION]);
        self.common(&mut bytes);
        // Extra field, comment, disk, internal attributes; external attributes and place.
        put16(&mut bytes, [28, 0, 0, 0]);
        put32(&mut bytes, [0, u32::MAX]);
        bytes.extend(self.name.bytes());
        put16(&mut bytes, [ZIP64, 24]);
        put64(&mut bytes, [self.size, self.size, self.at]);
        bytes
    }

    /// What both have: version, flags, method, date, checksum, sizes, length of the name.
    fn common(&self, bytes: &mut Vec<u8>) {
        put16(bytes, [VERSION, FLAGS, 0]);
        bytes.extend(DATE);
        put32(bytes, [self.crc32, u32::MAX, u32::MAX]);
        put16(bytes, [self.name.len() as u16]);
    }
}

/// The three records at the end.
fn ends(count: u64, directory_len: u64, directory_at: u64) -> Vec<u8> {
    let mut bytes = b"PK\x06\x06".to_vec();
    put64(&mut bytes, [44]);
    put16(&mut bytes, [VERSION, VERSION]);
    put32(&mut bytes, [0, 0]);
    put64(&mut bytes, [count, count, directory_len, directory_at]);
    bytes.extend(b"PK\x06\x07");
    put32(&mut bytes, [0]);
    put64(&mut bytes, [directory_at + directory_len]);
    put32(&mut bytes, [1]);
    bytes.extend(b"PK\x05\x06");
    put16(&mut bytes, [0, 0, u16::MAX, u16::MAX]);
    put32(&mut bytes, [u32::MAX, u32::MAX]);
    put16(&mut bytes, [0]);
    bytes
}

fn put16(bytes: &mut Vec<u8>, values: impl IntoIterator<Item = u16>) {
    bytes.extend(values.into_iter().flat_map(u16::to_le_bytes));
}

fn put32(bytes: &mut Vec<u8>, values: impl IntoIterator<Item = u32>) {
    bytes.extend(values.into_iter().flat_map(u32::to_le_bytes));
}

fn put64(bytes: &mut Vec<u8>, values: impl IntoIterator<Item = u64>) {
    bytes.extend(values.into_iter().flat_map(u64::to_le_bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `numpy.save` of `NumPy` 2 writes before the data.
    #[test]
    fn headers_are_those_of_numpy() {
        let check = |shape: &[usize], expected: &str| {
            let header = npy_header(shape);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(header[8]) + 256 * usize::from(header[9]) + 10, header.len());
            assert!(header.ends_with(b" \n"));
            assert_eq!(std::str::from_utf8(&header[10..]).unwrap().trim_end(), expected);
        };
        check(&[4000, 40], "{'descr': '<f4', 'fortran_order': False, 'shape': (4000, 40), }");
        check(&[7], "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }");
        check(&[], "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
    }
}
