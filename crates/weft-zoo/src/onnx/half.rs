//! Sixteen-bit floats, both ways (IEEE 754 binary16, and the upper half of binary32 known as bfloat16).

/// Rounds to half precision, ties to even; what is too large becomes infinite.
pub(super) fn f16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    // 65520 is half-way between the largest half and the next power of two: from there on the result is infinite.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Subnormal: adding ½ makes the processor round to a multiple of 2⁻²⁴, in the fraction's lowest bits.
        let shifted = (f32::from_bits(magnitude) + 0.5).to_bits();
        return sign | (shifted - 0.5f32.to_bits()) as u16;
    }
    let rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

/// Rounds to bfloat16, ties to even.
pub(super) fn bf16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::f16_to_f32;

    #[test]
    fn every_half_comes_back() {
        for half in 0..=u16::MAX {
            let value = f16_to_f32(half);
            if value.is_nan() {
                assert_eq!(f16_from_f32(value) & 0x7c00, 0x7c00);
            } else {
                assert_eq!(f16_from_f32(value), half, "{half:#x}");
            }
        }
    }

    #[test]
    fn between_two_halves_the_nearer_wins_and_ties_go_to_even() {
        for half in 0..0x7bffu16 {
            let (low, high) = (f16_to_f32(half), f16_to_f32(half + 1));
            let middle = f32::midpoint(low, high);
            assert_eq!(f16_from_f32(middle), half + (half & 1), "{half:#x}");
            assert_eq!(f16_from_f32(middle.next_down()), half, "{half:#x}");
            assert_eq!(f16_from_f32(middle.next_up()), half + 1, "{half:#x}");
        }
        assert_eq!(f16_from_f32(65519.99), 0x7bff);
        assert_eq!(f16_from_f32(-65520.0), 0xfc00);
    }

    #[test]
    fn bfloat() {
        assert_eq!(bf16_from_f32(1.0), 0x3f80);
        assert_eq!(bf16_from_f32(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(bf16_from_f32(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(bf16_from_f32(f32::MAX), 0x7f80);
        assert!(bf16_from_f32(f32::NAN) & 0x7f > 0);
    }
}
