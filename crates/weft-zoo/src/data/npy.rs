//! The npy format: a magic string, a header that is a literal of Python, and one array.
//!
//! The header is parsed as what `NumPy` writes and nothing else; no expression is evaluated, and arrays of objects
//! (which would need pickle) are refused like any other unknown type.

use crate::source::f16_to_f32;

/// The element types that arrays come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl Element {
    fn parse(descr: &str) -> Option<Self> {
        Some(match descr {
            "|u1" | "|b1" => Self::U8,
            "<u2" => Self::U16,
            "<u4" => Self::U32,
            "<u8" => Self::U64,
            "|i1" => Self::I8,
            "<i2" => Self::I16,
            "<i4" => Self::I32,
            "<i8" => Self::I64,
            "<f2" => Self::F16,
            "<f4" => Self::F32,
            "<f8" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes a value.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The values, which an `f64` holds exactly up to 2⁵³.
    pub(crate) fn values(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            Self::I8 => bytes.iter().map(|&b| f64::from(b.cast_signed())).collect(),
            Self::U16 => each(bytes, |b| f64::from(u16::from_le_bytes(b))),
            Self::I16 => each(bytes, |b| f64::from(i16::from_le_bytes(b))),
            Self::U32 => each(bytes, |b| f64::from(u32::from_le_bytes(b))),
            Self::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Self::U64 => each(bytes, |b| u64::from_le_bytes(b) as f64),
            Self::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
            Self::F16 => each(bytes, |b| f64::from(f16_to_f32(u16::from_le_bytes(b)))),
            Self::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Self::F64 => each(bytes, f64::from_le_bytes),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
}

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NpyHeader {
    pub(crate) element: Element,
    pub(crate) shape: Vec<u64>,
    /// Whether the first axis runs fastest.
    pub(crate) by_columns: bool,
}

/// The longest header that is read.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Reads a stream up to the array's data.
pub(crate) fn read_header(stream: &mut impl std::io::Read) -> Result<NpyHeader, String> {
    let mut exact = |len: usize| {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).map(|()| bytes).map_err(|e| format!("its header cannot be read: {e}"))
    };
    let start = exact(8)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err("it does not begin with the magic string of npy".to_owned());
    }
    let len = match start[6] {
        1 => exact(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
        2 | 3 => exact(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
        version => return Err(format!("its npy version is {version}")),
    };
    if len > MAX_HEADER_BYTES {
        return Err(format!("its header would be {len} bytes long"));
    }
    let text = String::from_utf8(exact(len)?).map_err(|_| "its header is not text".to_owned())?;
    parse_literal(&text)
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (4000, 40), }`.
fn parse_literal(text: &str) -> Result<NpyHeader, String> {
    let fail = || format!("its header is `{}`", text.trim_end());
    let value = |key: &str| {
        let (_, after) = text.split_once(&format!("'{key}':"))?;
        Some(after.trim_start())
    };
    let descr = value("descr").and_then(|v| v.strip_prefix('\'')).and_then(|v| v.split_once('\'')).ok_or_else(fail)?.0;
    let element = Element::parse(descr).ok_or_else(|| format!("arrays of type `{descr}` are not read"))?;
    let order = value("fortran_order").ok_or_else(fail)?;
    let by_columns = order.starts_with("True");
    if !by_columns && !order.starts_with("False") {
        return Err(fail());
    }
    let axes = value("shape").and_then(|v| v.strip_prefix('(')).and_then(|v| v.split_once(')')).ok_or_else(fail)?.0;
    let axes = axes.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let shape = axes.map(str::parse).collect::<Result<_, _>>().map_err(|_| fail())?;
    Ok(NpyHeader { element, shape, by_columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_numpy() {
        let check = |text: &str, element, shape: &[u64]| {
            assert_eq!(parse_literal(text), Ok(NpyHeader { element, shape: shape.to_vec(), by_columns: text.contains("True") }));
        };
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (4000, 40), }   \n", Element::F32, &[4000, 40]);
        check("{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }", Element::U8, &[7]);
        check("{'descr': '<f2', 'fortran_order': True, 'shape': (2, 3), }", Element::F16, &[2, 3]);
        check("{'shape': (), 'fortran_order': False, 'descr': '<i8'}", Element::I64, &[]);
    }

    #[test]
    fn other_headers_are_refused() {
        let refused = [
            ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "`|O`"),
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "`>f4`"),
            ("{'descr': '<f4', 'fortran_order': 1, 'shape': (2, 2), }", "header"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "header"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "header"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "header"),
            ("", "header"),
        ];
        for (text, expected) in refused {
            assert!(parse_literal(text).unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn values_of_each_type() {
        assert_eq!(Element::I16.values(&(-2i16).to_le_bytes()), [-2.0]);
        assert_eq!(Element::I8.values(&[255]), [-1.0]);
        assert_eq!(Element::F64.values(&0.1f64.to_le_bytes()), [0.1]);
        assert_eq!(Element::F16.values(&[0, 0xc0]), [-2.0]);
        assert_eq!(Element::U32.values(&7u32.to_le_bytes()), [7.0]);
    }
}
