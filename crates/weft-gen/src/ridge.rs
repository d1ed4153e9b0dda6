//! Ridge regression from conditions to codes: the least that a conditional generator has to beat.

use crate::{Error, Generator, Result, TrainingSet};
use weft_codec::Ridge;
use weft_core::{Condition, Population, Schema, Seed};

/// Penalties that are tried.
const PENALTIES: [f64; 6] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
/// Of how many training checkpoints one is left out to choose the penalty.
const LEFT_OUT: usize = 8;

/// Decodes what a linear map makes of a condition. All samples of one condition are the same network.
#[derive(Debug)]
pub struct RidgeGenerator {
    set: TrainingSet,
    schema: Schema,
    ridge: Ridge,
}

impl RidgeGenerator {
    /// Fits the map to the conditions and codes of all training checkpoints; the penalty is the one that does best on an eighth of them,
    /// drawn by the seed.
    ///
    /// # Errors
    /// A condition that the schema does not encode, a schema without fields, or fewer than two checkpoints.
    pub fn fit(set: TrainingSet, schema: Schema, seed: Seed) -> Result<Self> {
        let (f, k) = (schema.encoded_len(), set.code_len());
        let encoded =
            set.conditions.iter().map(|c| schema.encode(&c.restricted_to(&schema))).collect::<weft_core::Result<Vec<_>>>()?;
        let n = encoded.len();
        if f == 0 || n < 2 {
            let got = format!("{f} numbers of {n} checkpoints");
            return Err(Error::Setting { setting: "conditions", expected: "a field or more, of two checkpoints or more", got });
        }
        let order = seed.permutation(n);
        let (left_out, kept) = order.split_at((n / LEFT_OUT).max(1));
        let rows = |chosen: &[u32]| -> (Vec<f32>, Vec<f32>) {
            let features = chosen.iter().flat_map(|&i| encoded[i as usize].iter().copied()).collect();
            (features, chosen.iter().flat_map(|&i| set.codes[i as usize * k..(i as usize + 1) * k].iter().copied()).collect())
        };
        let ((x, y), (unseen_x, unseen_y)) = (rows(kept), rows(left_out));
        let mut best = (f64::INFINITY, PENALTIES[0]);
        for penalty in PENALTIES {
            let predicted = Ridge::fit((&x, f), (&y, k), penalty)?.predict(&unseen_x);
            let error = predicted.iter().zip(&unseen_y).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            if error < best.0 {
                best = (error, penalty);
            }
        }
        let ridge = Ridge::fit((&encoded.concat(), f), (&set.codes, k), best.1)?;
        Ok(Self { set, schema, ridge })
    }
}

impl Generator for RidgeGenerator {
    fn name(&self) -> &'static str {
        "ridge"
    }

    fn sample(&self, n: usize, condition: &Condition, _: Seed) -> Result<Population> {
        let code = self.ridge.predict(&self.schema.encode(&condition.restricted_to(&self.schema))?);
        self.set.decode(&code.repeat(n))
    }

    fn flops_per_sample(&self) -> f64 {
        2.0 * (self.set.code_len() * (self.schema.encoded_len() + self.set.codec.dim())) as f64
    }
}
