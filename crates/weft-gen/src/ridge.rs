//! Ridge regression from conditions to codes: the least that a conditional generator has to beat.

use crate::{Error, Generator, Result, TrainingSet, schema};
use std::collections::BTreeMap;
use weft_codec::{Codec, Ridge};
use weft_core::{Condition, Population, Schema, Seed, Value};

/// Penalties that are tried.
const PENALTIES: [f64; 6] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
/// Of how many groups of training checkpoints one is left out to choose the penalty.
const LEFT_OUT: usize = 8;

/// Decodes what a linear map makes of a condition. All samples of one condition are the same network.
#[derive(Debug)]
pub struct RidgeGenerator {
    set: TrainingSet,
    schema: Schema,
    ridge: Ridge,
}

impl RidgeGenerator {
    /// Fits the map to the conditions and codes of all training checkpoints; the penalty is the one that does best on an eighth of the
    /// conditions, drawn by the seed and left out whole: what the map is for are conditions that it did not see.
    ///
    /// Checkpoints are of one condition if all that they say is the same, numbers aside, or as the set groups them. Where that makes one of
    /// all, each is left out alone.
    /// Errors are those of normalized weights, to which codes add by their variance: alike, the many that conditions say nothing of would
    /// drown the others, and the largest penalty would win.
    ///
    /// # Errors
    /// A condition that the schema does not encode, a schema without fields, or fewer than two checkpoints.
    pub fn fit(set: TrainingSet, schema: Schema, seed: Seed) -> Result<Self> {
        let (f, k) = (schema.encoded_len(), set.code_len());
        let conditions: Vec<Condition> = set.conditions.iter().map(|c| c.restricted_to(&schema)).collect();
        let encoded = schema::encode_all(&schema, &conditions)?;
        let n = conditions.len();
        if f == 0 || n < 2 {
            let got = format!("{f} numbers of {n} checkpoints");
            return Err(Error::Setting { setting: "conditions", expected: "a field or more, of two checkpoints or more", got });
        }
        let [left_out, kept] = leave_out(&conditions, set.groups.as_deref().map(Vec::as_slice), seed);
        let rows = |chosen: &[u32]| -> (Vec<f32>, Vec<f32>) {
            let features = chosen.iter().flat_map(|&i| encoded[i as usize * f..(i as usize + 1) * f].iter().copied()).collect();
            (features, chosen.iter().flat_map(|&i| set.codes[i as usize * k..(i as usize + 1) * k].iter().copied()).collect())
        };
        let ((x, y), (unseen_x, unseen_y)) = (rows(&kept), rows(&left_out));
        let variance = match &*set.codec {
            Codec::Pca(pca) => pca.spectrum()[..k].to_vec(),
            Codec::Identity(_) => vec![1.0; k],
        };
        let squares = |(code, (a, b)): (usize, (&f32, &f32))| f64::from(variance[code % k]) * f64::from(a - b).powi(2);
        let mut best = (f64::INFINITY, PENALTIES[0]);
        for penalty in PENALTIES {
            let predicted = Ridge::fit((&x, f), (&y, k), penalty)?.predict(&unseen_x);
            let error = predicted.iter().zip(&unseen_y).enumerate().map(squares).sum::<f64>();
            if error < best.0 {
                best = (error, penalty);
            }
        }
        // There is no need of a part beside the whole.
        drop((x, y));
        let ridge = Ridge::fit((&encoded, f), (&set.codes, k), best.1)?;
        Ok(Self { set, schema, ridge })
    }
}

/// Checkpoints that are left out and those that are kept, of two or more.
fn leave_out(conditions: &[Condition], known: Option<&[u32]>, seed: Seed) -> [Vec<u32>; 2] {
    let mut groups: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (i, condition) in conditions.iter().enumerate() {
        let said = || condition.iter().filter(|(_, value)| !matches!(value, Value::Scalar(_))).collect::<Vec<_>>();
        let group = known.map_or_else(|| format!("{:?}", said()), |groups| groups[i].to_string());
        groups.entry(group).or_default().push(i as u32);
    }
    let mut groups: Vec<Vec<u32>> = groups.into_values().collect();
    if let [all] = &groups[..] {
        groups = all.iter().map(|&i| vec![i]).collect();
    }
    let order = seed.permutation(groups.len());
    let (left_out, kept) = order.split_at((groups.len() / LEFT_OUT).max(1));
    [left_out, kept].map(|chosen| chosen.iter().flat_map(|&group| &groups[group as usize]).copied().collect())
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
        2.0 * (self.set.code_len() * self.schema.encoded_len()) as f64 + self.set.codec.decode_flops()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_left_out_whole() {
        let class = |i: usize| i % 16;
        let condition = |i: usize| Condition::unknown().with("step", i as f64).with("word", Value::Category(class(i).to_string()));
        let conditions: Vec<Condition> = (0..80).map(condition).collect();
        for seed in 0..20 {
            let [left_out, kept] = leave_out(&conditions, None, Seed::new(seed));
            assert_eq!((left_out.len(), kept.len()), (10, 70));
            assert!(left_out.iter().all(|&a| kept.iter().all(|&b| class(a as usize) != class(b as usize))), "seed {seed}");
        }
    }

    #[test]
    fn groups_that_are_known_are_left_out_whole() {
        let vector = |i: usize| Condition::unknown().with("examples", Value::Vector(vec![i as f32]));
        let conditions: Vec<Condition> = (0..80).map(vector).collect();
        let groups: Vec<u32> = (0..80).map(|i| i % 16).collect();
        let [left_out, kept] = leave_out(&conditions, Some(&groups), Seed::new(1));
        assert_eq!((left_out.len(), kept.len()), (10, 70));
        assert!(left_out.iter().all(|&a| kept.iter().all(|&b| groups[a as usize] != groups[b as usize])));
    }

    #[test]
    fn each_is_alone_where_numbers_are_all_that_is_said() {
        let conditions: Vec<Condition> = (0..17).map(|i| Condition::unknown().with("step", f64::from(i % 2))).collect();
        let order = Seed::new(3).permutation(17);
        assert_eq!(leave_out(&conditions, None, Seed::new(3)), [order[..2].to_vec(), order[2..].to_vec()]);
    }
}
