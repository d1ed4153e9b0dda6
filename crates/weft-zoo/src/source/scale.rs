//! Weights of 8 bits and the tensors that scale them.
//!
//! Three conventions of published checkpoints are understood, with `q` the stored value and `s` the scale:
//!
//! | scale of `X` | shape | weight |
//! |---|---|---|
//! | `X_scale`, `X.scale` | one value, or one a row (`[rows]`, `[rows, 1, …]`) | `q · s` |
//! | `X_scale_inv` | one value, or one a block of 128 × 128 (`[⌈rows/128⌉, ⌈columns/128⌉]`) | `q · s` |
//! | `P.SCB`, where `X` is `P.weight` of I8 | one a row | `q · s / 127` |
//!
//! (`scale_inv` is the inverse of what the weight was multiplied by when it was made, so it multiplies again.)
//!
//! # References
//! Dettmers et al., "`LLM.int8()`" (2022), section 3; DeepSeek-AI, "DeepSeek-V3 Technical Report" (2024), section 3.3.2.

use super::{Place, Source, SourceDtype};
use crate::{Error, Result, TensorFault};

/// Rows and columns of a block that shares a scale.
const BLOCK: usize = 128;

/// The largest value of 8 signed bits, which `LLM.int8()` gives to the largest weight of a row.
const INT8_MAX: f32 = 127.0;

/// What the 8-bit values of a tensor are multiplied by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scale {
    /// One value for the whole tensor.
    Whole {
        /// The tensor that holds it.
        tensor: String,
    },
    /// One value for each index of the first axis.
    Rows {
        /// The tensor that holds them.
        tensor: String,
    },
    /// One value for each index of the first axis, by a 127th.
    RowsOver127 {
        /// The tensor that holds them.
        tensor: String,
    },
    /// One value for each block of 128 × 128.
    Blocks {
        /// The tensor that holds them.
        tensor: String,
    },
}

impl Scale {
    /// The name of the tensor of scales.
    #[must_use]
    pub fn tensor(&self) -> &str {
        match self {
            Self::Whole { tensor } | Self::Rows { tensor } | Self::RowsOver127 { tensor } | Self::Blocks { tensor } => tensor,
        }
    }

    /// Multiplies values by their factors; shapes were checked when the scale was found.
    pub(super) fn apply(&self, shape: &[usize], factors: &[f32], values: &mut [f32]) {
        if values.is_empty() {
            return;
        }
        let row_len = shape.iter().skip(1).product::<usize>().max(1);
        if let Self::Whole { .. } = self {
            return values.iter_mut().for_each(|value| *value *= factors[0]);
        }
        let rows = values.chunks_mut(row_len).enumerate();
        let by = |row: &mut [f32], factor: f32| row.iter_mut().for_each(|value| *value *= factor);
        match self {
            Self::Whole { .. } | Self::Rows { .. } => rows.for_each(|(i, row)| by(row, factors[i])),
            Self::RowsOver127 { .. } => rows.for_each(|(i, row)| by(row, factors[i] / INT8_MAX)),
            Self::Blocks { .. } => {
                let across = row_len.div_ceil(BLOCK);
                for (i, row) in rows {
                    let factors = &factors[i / BLOCK * across..];
                    row.chunks_mut(BLOCK).zip(factors).for_each(|(block, factor)| by(block, *factor));
                }
            }
        }
    }
}

impl Source {
    /// Finds the scales of 8-bit tensors and takes them out of the list of tensors.
    pub(super) fn with_scales(mut self) -> Result<Self> {
        let quantized: Vec<String> =
            self.tensors.iter().filter(|(_, tensor)| tensor.dtype.is_quantized()).map(|(name, _)| name.clone()).collect();
        let mut used = Vec::new();
        for name in quantized {
            let Some((scale, others)) = self.find_scale(&name)? else { continue };
            used.push(scale.tensor().to_owned());
            used.extend(others);
            if let Some(tensor) = self.tensors.get_mut(&name) {
                tensor.scale = Some(scale);
            }
        }
        for name in used {
            if let Some(tensor) = self.tensors.remove(&name) {
                self.companions.insert(name, tensor);
            }
        }
        Ok(self)
    }

    /// The scale of a tensor, and other tensors that come with it.
    fn find_scale(&self, name: &str) -> Result<Option<(Scale, Vec<String>)>> {
        let tensor = &self.tensors[name];
        let int8 = name.strip_suffix("weight").filter(|_| tensor.dtype == SourceDtype::I8);
        let candidates = [Some(format!("{name}_scale")), Some(format!("{name}.scale")), Some(format!("{name}_scale_inv"))];
        let candidates = candidates.into_iter().chain([int8.map(|module| format!("{module}SCB"))]).flatten();
        let mut found = candidates.filter(|candidate| self.tensors.contains_key(candidate));
        let Some(scale_name) = found.next() else { return Ok(None) };
        let fail = |reason: String| self.fault(name, TensorFault::Scale { scale: scale_name.clone(), reason });
        if let Some(second) = found.next() {
            return Err(fail(format!("`{second}` is there as well")));
        }
        for zero_point in ["_zero_point", ".zero_point"].map(|suffix| format!("{name}{suffix}")) {
            if self.tensors.contains_key(&zero_point) {
                return Err(fail(format!("values with a zero point (`{zero_point}`) are not read")));
            }
        }
        let scale = &self.tensors[&scale_name];
        if !scale.dtype.is_float() {
            return Err(fail(format!("they are of dtype {}", scale.dtype)));
        }
        let (shape, got) = (&tensor.shape[..], &scale.shape[..]);
        let one = got.iter().all(|&axis| axis == 1);
        let a_row = shape.len() >= 2 && got.first() == shape.first() && got[1..].iter().all(|&axis| axis == 1);
        let blocks = matches!(shape, [rows, columns] if got == [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)]);
        let owned = scale_name.clone();
        let (kind, others) = if scale_name.ends_with("SCB") {
            (a_row.then_some(Scale::RowsOver127 { tensor: owned }), self.int8_layout(name, &scale_name)?)
        } else if scale_name.ends_with("_scale_inv") && !one {
            (blocks.then_some(Scale::Blocks { tensor: owned }), Vec::new())
        } else if one {
            (Some(Scale::Whole { tensor: owned }), Vec::new())
        } else {
            (a_row.then_some(Scale::Rows { tensor: owned }), Vec::new())
        };
        let kind = kind.ok_or_else(|| fail(format!("their shape {got:?} does not fit {shape:?}")))?;
        Ok(Some((kind, others)))
    }

    /// The tensor beside weights of `LLM.int8()` that says how they are laid out; only row by row is read.
    fn int8_layout(&self, name: &str, scale: &str) -> Result<Vec<String>> {
        let layout_name = format!("{name}_format");
        let Some(layout) = self.tensors.get(&layout_name) else { return Ok(Vec::new()) };
        let mut value = Vec::new();
        // Only a tensor of one value is read here: nothing else may be read while a file is opened.
        if layout.num_values() == 1 && !matches!(layout.place, Place::Npy { .. }) {
            self.fill(&layout_name, layout, &mut value)?;
        }
        if value == [0.0] {
            return Ok(vec![layout_name]);
        }
        let reason = format!("`{layout_name}` does not say that the values lie row by row");
        Err(Error::Tensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
            fault: TensorFault::Scale { scale: scale.to_owned(), reason },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_reach_their_values() {
        let tensor = || "s".to_owned();
        let check = |scale: Scale, shape: &[usize], factors: &[f32], expected: &[f32]| {
            let mut values = vec![1.0; shape.iter().product()];
            scale.apply(shape, factors, &mut values);
            assert_eq!(values, expected);
        };
        check(Scale::Whole { tensor: tensor() }, &[2, 2], &[3.0], &[3.0; 4]);
        check(Scale::Rows { tensor: tensor() }, &[2, 2], &[3.0, 4.0], &[3.0, 3.0, 4.0, 4.0]);
        check(Scale::RowsOver127 { tensor: tensor() }, &[2, 1], &[127.0, 254.0], &[1.0, 2.0]);
        check(Scale::Rows { tensor: tensor() }, &[0, 2], &[], &[]);
        check(Scale::Rows { tensor: tensor() }, &[0, usize::MAX, 2], &[], &[]);
        let mut expected = vec![1.0; 129 * 130];
        for (i, value) in expected.iter_mut().enumerate() {
            *value = [[1.0, 2.0], [3.0, 4.0]][i / 130 / 128][i % 130 / 128];
        }
        check(Scale::Blocks { tensor: tensor() }, &[129, 130], &[1.0, 2.0, 3.0, 4.0], &expected);
    }
}
