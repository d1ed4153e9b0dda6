//! The strict pass over a zip archive's directory.
//!
//! `PyTorch` files and npz files are zip archives. Two readers of one archive may see different contents if names
//! stand twice, entries overlap, or bytes follow the end; so all that is refused, and what is left reads the same
//! way everywhere. Sizes are bounded before anything is expanded.
//!
//! # References
//! PKWARE, ".ZIP File Format Specification", version 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.

use super::SourceFault;
use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;

/// How the bytes of an entry are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Stored,
    Deflated,
}

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) crc32: u32,
    /// Its size when it is expanded, as the directory claims.
    pub(crate) expanded: u64,
    /// Its bytes, counted from the start of the archive.
    pub(crate) data: Range<usize>,
}

/// The longest directory that is read.
const MAX_DIRECTORY_BYTES: u64 = 8 << 20;

/// All entries together may expand to this many times the archive's length …
const MAX_RATIO: u64 = 64;
/// … and to so many bytes more: small arrays of zeros shrink further than honest weights.
const FREE_EXPANSION: u64 = 16 << 20;

const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const END64: [u8; 4] = *b"PK\x06\x06";
const END64_BYTES: usize = 56;
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR64_BYTES: usize = 20;
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const CENTRAL_BYTES: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;

/// Flags of an entry.
const ENCRYPTED: u16 = 1;
const NAME_IS_UTF8: u16 = 1 << 11;

/// Kinds of extra fields.
const ZIP64: u16 = 1;
const UNICODE_PATH: u16 = 0x7075;

/// Reads the directory of an archive and checks it in full.
pub(crate) fn read_directory(bytes: &[u8]) -> Result<Vec<Entry>, SourceFault> {
    let (directory, count) = find_directory(bytes)?;
    if directory.len() as u64 > MAX_DIRECTORY_BYTES {
        let what = "its zip directory".to_owned();
        return Err(SourceFault::TooLarge { what, got: directory.len() as u64, limit: MAX_DIRECTORY_BYTES });
    }
    let (mut entries, mut names, mut places) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut rest = &bytes[directory.clone()];
    while !rest.is_empty() {
        let (raw, after) = Raw::parse(rest)?;
        let (entry, header_start) = raw.locate(&bytes[..directory.start])?;
        if !names.insert(entry.name.clone()) {
            return Err(SourceFault::Duplicate { name: entry.name });
        }
        places.push((header_start, entry.data.end, entries.len()));
        entries.push(entry);
        rest = after;
    }
    if entries.len() as u64 != count {
        return Err(damaged(format!("it has {} entries and speaks of {count}", entries.len())));
    }
    places.sort_unstable();
    if let Some(pair) = places.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Err(SourceFault::Overlap { name: entries[pair[1].2].name.clone() });
    }
    let expanded = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.expanded));
    let limit = (bytes.len() as u64).saturating_mul(MAX_RATIO).saturating_add(FREE_EXPANSION);
    if expanded > limit {
        return Err(SourceFault::Expands { expanded, limit });
    }
    Ok(entries)
}

fn damaged(reason: impl Into<String>) -> SourceFault {
    SourceFault::malformed("its zip directory", reason)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The place of the directory and the number of its entries.
fn find_directory(bytes: &[u8]) -> Result<(Range<usize>, u64), SourceFault> {
    let end_at = bytes.len().checked_sub(END_BYTES).filter(|&at| bytes[at..].starts_with(&END));
    // A comment after the record could hold a second record, for readers that search for one.
    let end_at = end_at.ok_or_else(|| damaged("the file does not end with the end record; it is cut short, or bytes follow"))?;
    let end = &bytes[end_at..];
    let (disks, comment) = (u32_at(end, 4), u16_at(end, 20));
    if disks != 0 || comment != 0 || u16_at(end, 8) != u16_at(end, 10) {
        return Err(damaged("the end record speaks of a comment or of several disks"));
    }
    let mut found = (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    let mut stop = end_at;
    let locator_at = end_at.checked_sub(LOCATOR64_BYTES).filter(|&at| bytes[at..].starts_with(&LOCATOR64));
    if let Some(locator_at) = locator_at {
        let at = usize::try_from(u64_at(bytes, locator_at + 8)).ok();
        let at = at.filter(|&at| at.checked_add(END64_BYTES) == Some(locator_at) && bytes[at..].starts_with(&END64));
        stop = at.ok_or_else(|| damaged("the zip64 end record is not where it should be"))?;
        let record = &bytes[stop..];
        let wide = (u64_at(record, 32), u64_at(record, 40), u64_at(record, 48));
        let agree = |narrow: u64, full: u64, saturated: u64| narrow == full || narrow == saturated;
        let (limit16, limit32) = (u64::from(u16::MAX), u64::from(u32::MAX));
        if !(agree(found.0, wide.0, limit16) && agree(found.1, wide.1, limit32) && agree(found.2, wide.2, limit32)) {
            return Err(damaged("the two end records disagree"));
        }
        found = wide;
    }
    let (count, len, start) = found;
    if start.checked_add(len) != Some(stop as u64) {
        return Err(damaged("it does not reach up to the end record"));
    }
    Ok((start as usize..stop, count))
}

/// An entry as the directory has it.
struct Raw {
    name: String,
    method: u16,
    crc32: u32,
    compressed: u64,
    expanded: u64,
    header: u64,
}

impl Raw {
    /// Parses the first entry of a directory; returns what follows it.
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), SourceFault> {
        if !bytes.starts_with(&CENTRAL) || bytes.len() < CENTRAL_BYTES {
            return Err(damaged("an entry does not begin as it should"));
        }
        let (name_len, extra_len) = (usize::from(u16_at(bytes, 28)), usize::from(u16_at(bytes, 30)));
        let len = CENTRAL_BYTES + name_len + extra_len + usize::from(u16_at(bytes, 32));
        let variable = bytes.get(CENTRAL_BYTES..len).ok_or_else(|| damaged("an entry is cut short"))?;
        let (name, extra) = (&variable[..name_len], &variable[name_len..name_len + extra_len]);
        let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && !name.contains('\0'));
        let name = name.ok_or_else(|| damaged("the name of an entry is not text"))?.to_owned();
        let flags = u16_at(bytes, 8);
        // Readers would take the name from another field, or decode it by another alphabet.
        if fields(extra).any(|(id, _)| id == UNICODE_PATH) || (flags & NAME_IS_UTF8 == 0 && !name.is_ascii()) {
            return Err(damaged(format!("`{name}` may have another name as well")));
        }
        if flags & ENCRYPTED != 0 {
            let what = format!("the entry `{name}` is encrypted and");
            return Err(SourceFault::NotRead { what, hint: "save it without a password" });
        }
        let mut wide = wide_fields(extra);
        let mut widen = |narrow: u32| {
            if narrow == u32::MAX {
                wide.next().ok_or_else(|| damaged(format!("`{name}` lacks its zip64 sizes")))
            } else {
                Ok(u64::from(narrow))
            }
        };
        let expanded = widen(u32_at(bytes, 24))?;
        let compressed = widen(u32_at(bytes, 20))?;
        let header = widen(u32_at(bytes, 42))?;
        let raw = Self { method: u16_at(bytes, 10), crc32: u32_at(bytes, 16), compressed, expanded, header, name };
        Ok((raw, &bytes[len..]))
    }

    /// Finds the entry's bytes behind its local header, which must agree with the directory; returns the header's
    /// place as well.
    fn locate(self, bytes: &[u8]) -> Result<(Entry, usize), SourceFault> {
        let name = self.name;
        let method = match self.method {
            0 if self.compressed == self.expanded => Method::Stored,
            0 => return Err(damaged(format!("`{name}` is stored and has two sizes"))),
            8 => Method::Deflated,
            other => {
                let what = format!("the entry `{name}` is compressed by method {other}, which is");
                return Err(SourceFault::NotRead { what, hint: "save it uncompressed, or with deflate" });
            }
        };
        let start = usize::try_from(self.header).ok().filter(|&at| at < bytes.len());
        let local = start.and_then(|at| bytes.get(at..)).filter(|local| local.len() >= LOCAL_BYTES && local.starts_with(&LOCAL));
        let (Some(start), Some(local)) = (start, local) else {
            return Err(damaged(format!("`{name}` does not begin where the directory says")));
        };
        let (name_len, extra_len) = (usize::from(u16_at(local, 26)), usize::from(u16_at(local, 28)));
        let same_name = local.get(LOCAL_BYTES..LOCAL_BYTES + name_len) == Some(name.as_bytes());
        if !same_name || u16_at(local, 8) != self.method || u16_at(local, 6) & ENCRYPTED != 0 {
            return Err(damaged(format!("`{name}` has another header than the directory says")));
        }
        let data_start = start + LOCAL_BYTES + name_len + extra_len;
        let data_end = usize::try_from(self.compressed).ok().and_then(|len| data_start.checked_add(len));
        let data_end = data_end.filter(|&end| end <= bytes.len());
        let data_end = data_end.ok_or_else(|| damaged(format!("`{name}` reaches beyond the entries")))?;
        let entry = Entry { name, method, crc32: self.crc32, expanded: self.expanded, data: data_start..data_end };
        Ok((entry, start))
    }
}

/// The extra fields of an entry.
fn fields(mut extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + len)?;
        extra = &extra[4 + len..];
        Some((id, field))
    })
}

/// The 64-bit sizes in the extra fields of an entry, in their fixed order.
fn wide_fields(extra: &[u8]) -> impl Iterator<Item = u64> {
    let wide = fields(extra).find(|(id, _)| *id == ZIP64).map_or([].as_slice(), |(_, field)| field);
    wide.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

impl Entry {
    /// A stream of the entry's expanded bytes, which yields no more than the directory claims.
    pub(crate) fn stream<'a>(&self, archive: &'a [u8]) -> Box<dyn Read + 'a> {
        let data = &archive[self.data.clone()];
        match self.method {
            Method::Stored => Box::new(data),
            Method::Deflated => Box::new(flate2::read::DeflateDecoder::new(data).take(self.expanded)),
        }
    }

    /// The entry's expanded bytes, which must be as many as claimed, none more, and have the checksum.
    pub(crate) fn read(&self, archive: &[u8]) -> Result<Vec<u8>, SourceFault> {
        let fail = |reason: &str| SourceFault::malformed(format!("its entry `{}`", self.name), reason);
        let mut bytes = Vec::new();
        let size = usize::try_from(self.expanded).map_err(|_| fail("it does not fit in memory"))?;
        bytes.try_reserve_exact(size).map_err(|_| fail("it does not fit in memory"))?;
        let data = &archive[self.data.clone()];
        match self.method {
            Method::Stored => bytes.extend_from_slice(data),
            Method::Deflated => {
                let mut decoder = flate2::read::DeflateDecoder::new(data);
                let read = decoder.by_ref().take(self.expanded).read_to_end(&mut bytes);
                read.map_err(|error| fail(&error.to_string()))?;
                let ended = decoder.read(&mut [0]).map_err(|error| fail(&error.to_string()))? == 0;
                if bytes.len() != size || !ended {
                    return Err(fail("it does not expand to the size that the directory claims"));
                }
            }
        }
        // A checksum of 0 is what PyTorch writes with `compute_crc32=False`.
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        if self.crc32 != 0 && crc.sum() != self.crc32 {
            return Err(fail("its checksum is another one"));
        }
        Ok(bytes)
    }
}
