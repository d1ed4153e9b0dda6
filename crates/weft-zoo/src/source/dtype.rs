//! Element types that files declare, and their conversion to `f32`.

/// The type of a tensor's elements as they stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceDtype {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision: 5 exponent and 10 fraction bits.
    F16,
    /// The upper half of single precision: 8 exponent and 7 fraction bits.
    Bf16,
    /// 8 bits: 4 exponent (bias 7) and 3 fraction bits, no infinity.
    F8E4m3,
    /// 8 bits: 5 exponent and 2 fraction bits, the upper half of half precision.
    F8E5m2,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// A byte that is 0 or 1.
    Bool,
}

const NAMES: [(SourceDtype, &str); 15] = [
    (SourceDtype::F64, "F64"),
    (SourceDtype::F32, "F32"),
    (SourceDtype::F16, "F16"),
    (SourceDtype::Bf16, "BF16"),
    (SourceDtype::F8E4m3, "F8_E4M3"),
    (SourceDtype::F8E5m2, "F8_E5M2"),
    (SourceDtype::I64, "I64"),
    (SourceDtype::I32, "I32"),
    (SourceDtype::I16, "I16"),
    (SourceDtype::I8, "I8"),
    (SourceDtype::U64, "U64"),
    (SourceDtype::U32, "U32"),
    (SourceDtype::U16, "U16"),
    (SourceDtype::U8, "U8"),
    (SourceDtype::Bool, "BOOL"),
];

impl std::fmt::Display for SourceDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAMES.iter().find(|(dtype, _)| dtype == self).map_or("", |(_, name)| name))
    }
}

impl SourceDtype {
    /// Parses a name of the safetensors format.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        NAMES.iter().find(|(_, name)| *name == text).map(|(dtype, _)| *dtype)
    }

    /// Bytes a value.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F8E4m3 | Self::F8E5m2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether values of this type are weights by themselves: floats of 16 bits and more.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Whether values of this type are weights once they are multiplied by a scale.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::F8E4m3 | Self::F8E5m2 | Self::I8 | Self::U8)
    }

    /// Converts little-endian values, the last ones rounding where `f32` is too narrow; `out` has one place for each.
    pub(crate) fn convert(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Self::Bf16 => each(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            Self::F16 => each(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b))),
            Self::F8E4m3 => each(bytes, out, |[b]| f8_e4m3_to_f32(b)),
            // The format is half precision without its lower byte.
            Self::F8E5m2 => each(bytes, out, |[b]| f16_to_f32(u16::from(b) << 8)),
            Self::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
            Self::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
            Self::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
            Self::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
            Self::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
            Self::U8 => each(bytes, out, |[b]| f32::from(b)),
            Self::Bool => each(bytes, out, |[b]| f32::from(u8::from(b != 0))),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (value, chunk) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = convert(*chunk);
    }
}

/// IEEE 754 half precision: 1 sign, 5 exponent and 10 fraction bits.
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = ((half >> 10) & 0x1f, f32::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(exponent) - 15),
    };
    sign * magnitude
}

/// The `E4M3` format: bias 7, no infinity, NaN where all bits below the sign are set.
///
/// # References
/// Micikevicius et al., "FP8 formats for deep learning" (2022), table 1.
fn f8_e4m3_to_f32(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = ((byte >> 3) & 0xf, f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2f32.powi(i32::from(exponent) - 7),
    };
    sign * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_golden() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
        ];
        for (bits, expected) in cases {
            assert_eq!(f16_to_f32(bits).to_bits(), f32::to_bits(expected), "{bits:#x}");
        }
        assert!(f16_to_f32(0x7c00).is_infinite() && f16_to_f32(0x7e00).is_nan() && f16_to_f32(0x8000).is_sign_negative());
    }

    #[test]
    fn conversions() {
        let check = |dtype: SourceDtype, bytes: &[u8], expected: f32| {
            let mut out = [0.0];
            dtype.convert(bytes, &mut out);
            assert_eq!(out[0].to_bits(), expected.to_bits(), "{dtype}");
            assert_eq!(dtype.size(), bytes.len() as u64);
            assert_eq!(SourceDtype::parse(&dtype.to_string()), Some(dtype));
        };
        check(SourceDtype::F64, &1.5f64.to_le_bytes(), 1.5);
        check(SourceDtype::F32, &(-2.25f32).to_le_bytes(), -2.25);
        check(SourceDtype::Bf16, &[0x80, 0x3f], 1.0);
        check(SourceDtype::F16, &[0x00, 0x3c], 1.0);
        check(SourceDtype::I64, &(-3i64).to_le_bytes(), -3.0);
        check(SourceDtype::I32, &7i32.to_le_bytes(), 7.0);
        check(SourceDtype::I16, &(-2i16).to_le_bytes(), -2.0);
        check(SourceDtype::I8, &[0x80], -128.0);
        check(SourceDtype::U64, &9u64.to_le_bytes(), 9.0);
        check(SourceDtype::U32, &u32::MAX.to_le_bytes(), 4_294_967_296.0);
        check(SourceDtype::U16, &[1, 1], 257.0);
        check(SourceDtype::U8, &[255], 255.0);
        check(SourceDtype::Bool, &[7], 1.0);
    }

    /// Values of the formats' own definition: the largest, the smallest normal and subnormal number, NaN.
    #[test]
    fn eight_bits_golden() {
        let check = |dtype: SourceDtype, byte: u8, expected: f32| {
            let mut out = [0.0];
            dtype.convert(&[byte], &mut out);
            assert_eq!(out[0].to_bits(), expected.to_bits(), "{dtype} {byte:#x}");
        };
        check(SourceDtype::F8E4m3, 0x7e, 448.0);
        check(SourceDtype::F8E4m3, 0xfe, -448.0);
        check(SourceDtype::F8E4m3, 0x38, 1.0);
        check(SourceDtype::F8E4m3, 0x08, 2f32.powi(-6));
        check(SourceDtype::F8E4m3, 0x01, 2f32.powi(-9));
        check(SourceDtype::F8E4m3, 0x80, -0.0);
        check(SourceDtype::F8E5m2, 0x7b, 57344.0);
        check(SourceDtype::F8E5m2, 0x3c, 1.0);
        check(SourceDtype::F8E5m2, 0x04, 2f32.powi(-14));
        check(SourceDtype::F8E5m2, 0x01, 2f32.powi(-16));
        check(SourceDtype::F8E5m2, 0x7c, f32::INFINITY);
        assert!(f8_e4m3_to_f32(0x7f).is_nan() && f8_e4m3_to_f32(0xff).is_nan() && f16_to_f32(0x7d00).is_nan());
    }
}
