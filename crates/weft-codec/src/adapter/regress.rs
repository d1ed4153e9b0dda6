//! Ridge regression from features to updates: what a description of an adapter tells linearly of its update.
//!
//! With centered features `x̃ᵢ` and their products `K = X̃X̃ᵀ`, the update that features `x` ask for is a combination of the adapters,
//!
//! ```text
//! ΔŴ(x) = Σᵢ cᵢ(x)·ΔWᵢ        c(x) = 1/n + (K + μ)⁻¹·X̃(x − x̄),
//! ```
//!
//! the minimum of `Σᵢ ‖ΔWᵢ − M − Θ(x̃ᵢ)‖² + μ·‖Θ‖²` over linear maps `Θ` to updates. No update is formed, none of their directions is dropped, and no
//! factor matters. The penalty `μ` is the one with the least error on groups of adapters that are left out, which the
//! fit on all of them tells: residuals of a group are `(1 − H_gg)⁻¹·(ΔW − H·ΔW)_g` for the matrix `H` of weights, and their squares follow from the inner
//! products. A penalty without end gives the mean of all updates.

use super::Grams;
use crate::linalg::{SymmetricSum, rows_of};
use crate::persist::take;
use crate::{Error, Result};
use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef};
use std::collections::BTreeMap;

/// The tensors of a map.
const MEAN: &str = "feature-mean";
const SLOPES: &str = "slopes";
const CHOICE: &str = "penalty-and-told";
/// Penalties that are tried: powers of `√10` times the mean square of centered features.
const EXPONENTS: std::ops::RangeInclusive<i32> = -8..=8;

/// A linear map from features to updates, as weights of adapters.
#[derive(Debug, Clone)]
pub struct UpdateRidge {
    feature_mean: Vec<f64>,
    /// `[n, f]`.
    slopes: Mat<f64>,
    penalty: Option<f64>,
    told: f64,
}

impl UpdateRidge {
    /// The most adapters that it is fitted on: time is cubic in their number.
    pub const MOST: usize = 4096;

    /// Fits the map; `groups` numbers the adapters that are left out together, such as those of one description.
    ///
    /// # Shapes
    /// `features` `[n, f]`, `groups` `[n]`, for the products of `n` adapters.
    ///
    /// # Errors
    /// [`Error::NumAdapters`] for fewer than two adapters or more than 4096; [`Error::Length`] if there are not features and a group for
    /// each; [`Error::Setting`] for features that are not finite; [`Error::Eigen`] if their products have no eigenvalues.
    ///
    /// # References
    /// Hoerl & Kennard 1970; Saunders, Gammerman & Vovk 1998 (the dual form); Golub, Heath & Wahba 1979, section 2 (what is left out).
    pub fn fit((features, f): (&[f32], usize), grams: &Grams, groups: &[u32]) -> Result<Self> {
        let n = grams.num_adapters();
        if !(2..=Self::MOST).contains(&n) {
            return Err(Error::NumAdapters { what: "a regression on descriptions", needed: "2 to 4096", got: n });
        }
        if f == 0 || features.len() != n * f {
            return Err(Error::Length { what: "features", row: f, got: features.len() });
        }
        if groups.len() != n {
            return Err(Error::Length { what: "groups", row: n, got: groups.len() });
        }
        if let Some(bad) = features.iter().find(|x| !x.is_finite()) {
            return Err(Error::Setting { setting: "feature", expected: "finite", got: bad.to_string() });
        }
        let wide: Vec<f64> = features.iter().map(|&x| f64::from(x)).collect();
        let wide = MatRef::from_row_major_slice(&wide, n, f);
        let feature_mean: Vec<f64> = (0..f).map(|j| (0..n).map(|i| wide[(i, j)]).sum::<f64>() / n as f64).collect();
        let centered = Mat::from_fn(n, f, |i, j| wide[(i, j)] - feature_mean[j]);
        let mut products = SymmetricSum::zeros(n);
        products.add(centered.as_ref());
        let scale = (0..n).map(|i| products.at(i, i)).sum::<f64>() / n as f64;
        let (values, vectors) = products.eigen()?;
        let left_out = LeftOut::new(grams, groups);
        let of_mean = left_out.error(&Mat::from_fn(n, n, |_, _| 1.0 / n as f64))?;
        let (mut penalty, mut least) = (None, of_mean);
        // Features that do not vary tell nothing.
        for exponent in EXPONENTS.filter(|_| scale > 0.0) {
            let tried = scale * 10f64.powf(f64::from(exponent) / 2.0);
            let shrunk = spectral(&values, &vectors, |value| value / (value + tried));
            let error = left_out.error(&Mat::from_fn(n, n, |i, j| shrunk[(i, j)] + 1.0 / n as f64))?;
            if error < least {
                (penalty, least) = (Some(tried), error);
            }
        }
        let slopes = match penalty {
            Some(penalty) => spectral(&values, &vectors, |value| (value + penalty).recip()) * &centered,
            None => Mat::zeros(n, f),
        };
        let told = if of_mean > 0.0 { 1.0 - least / of_mean } else { 0.0 };
        Ok(Self { feature_mean, slopes, penalty, told })
    }

    /// The weights by which features combine the adapters, `[f]` → `[n]`; they sum to 1.
    ///
    /// # Panics
    /// If there is another number of features.
    #[must_use]
    pub fn weights(&self, features: &[f32]) -> Vec<f64> {
        assert_eq!(features.len(), self.feature_mean.len(), "features of this map");
        let n = self.slopes.nrows();
        let moved: Vec<f64> = features.iter().zip(&self.feature_mean).map(|(&x, mean)| f64::from(x) - mean).collect();
        let slope = |i: usize| moved.iter().enumerate().map(|(j, x)| self.slopes[(i, j)] * x).sum::<f64>();
        let slopes: Vec<f64> = (0..n).map(slope).collect();
        // The sum is 0 up to rounding.
        let rest = slopes.iter().sum::<f64>() / n as f64;
        slopes.into_iter().map(|slope| 1.0 / n as f64 + slope - rest).collect()
    }

    /// The number of features, `f`.
    #[must_use]
    pub fn num_features(&self) -> usize {
        self.feature_mean.len()
    }

    /// The penalty `μ`; none if the mean of all updates was the best of all.
    #[must_use]
    pub fn penalty(&self) -> Option<f64> {
        self.penalty
    }

    /// The part of the variance about the mean that features tell of groups that are left out, at the penalty that is best for them; 0 where
    /// they tell nothing. The choice makes it a little too good.
    #[must_use]
    pub fn told(&self) -> f64 {
        self.told
    }
}

impl UpdateRidge {
    /// The map as tensors `(name, shape, values)`, rounded to f32, from which [`UpdateRidge::from_tensors`] makes it again.
    #[must_use]
    pub fn to_tensors(&self) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
        let (n, f) = (self.slopes.nrows(), self.slopes.ncols());
        let slopes = (0..n * f).map(|at| self.slopes[(at / f, at % f)] as f32).collect();
        let mean = self.feature_mean.iter().map(|&x| x as f32).collect();
        let penalty = self.penalty.map_or(-1.0, |penalty| penalty as f32);
        vec![(MEAN, vec![f], mean), (SLOPES, vec![n, f], slopes), (CHOICE, vec![2], vec![penalty, self.told as f32])]
    }

    /// Makes the map of its tensors, for `n` adapters.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::Tensor`] for tensors that no map has.
    pub fn from_tensors(n: usize, mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<Self> {
        let (mean_shape, mean) = take(&mut tensors, MEAN)?;
        let (shape, slopes) = take(&mut tensors, SLOPES)?;
        let (choice_shape, choice) = take(&mut tensors, CHOICE)?;
        let f = mean.len();
        let faults = [
            (MEAN, &mean_shape, mean_shape != [f] || f == 0, &mean),
            (SLOPES, &shape, shape != [n, f], &slopes),
            (CHOICE, &choice_shape, choice_shape != [2], &choice),
        ];
        for (tensor, shape, unfit, values) in faults {
            if unfit || !values.iter().all(|x| x.is_finite()) {
                let reason = "it must fit the adapters and the features, and hold finite values";
                return Err(Error::Tensor { tensor, shape: shape.clone(), reason });
            }
        }
        let slopes = Mat::from_fn(n, f, |i, j| f64::from(slopes[i * f + j]));
        let penalty = Some(f64::from(choice[0])).filter(|&penalty| penalty >= 0.0);
        let feature_mean = mean.into_iter().map(f64::from).collect();
        Ok(Self { feature_mean, slopes, penalty, told: f64::from(choice[1]) })
    }
}

/// `U·diag(f(λ))·Uᵀ`.
fn spectral(values: &[f64], vectors: &Mat<f64>, of: impl Fn(f64) -> f64) -> Mat<f64> {
    let scaled = Mat::from_fn(vectors.nrows(), values.len(), |i, k| vectors[(i, k)] * of(values[k]));
    scaled * vectors.transpose()
}

/// Errors on groups of adapters that are left out.
struct LeftOut {
    gram: Mat<f64>,
    groups: Vec<Vec<usize>>,
}

impl LeftOut {
    fn new(grams: &Grams, groups: &[u32]) -> Self {
        let n = grams.num_adapters();
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        groups.iter().enumerate().for_each(|(i, &group)| members.entry(group).or_default().push(i));
        Self { gram: rows_of(&grams.total(), n).to_owned(), groups: members.into_values().collect() }
    }

    /// `Σ ‖ΔWᵢ − ΔŴᵢ‖²`, where what is made for an adapter is fitted without its group; `weights` are those of the fit on all, `[n, n]`.
    fn error(&self, weights: &Mat<f64>) -> Result<f64> {
        let n = weights.nrows();
        // All in one group: there is nothing to learn from when it is left out.
        if self.groups.len() < 2 {
            return Ok(0.0);
        }
        let residual = Mat::from_fn(n, n, |i, j| f64::from(u8::from(i == j)) - weights[(i, j)]);
        let mut sum = 0.0;
        for group in &self.groups {
            let own = Mat::from_fn(group.len(), group.len(), |a, b| residual[(group[a], group[b])]);
            let rows = Mat::from_fn(group.len(), n, |a, j| residual[(group[a], j)]);
            let left_out = own.partial_piv_lu().solve(&rows);
            let energies = &left_out * &self.gram;
            sum += (0..group.len()).flat_map(|a| (0..n).map(move |j| (a, j))).map(|at| energies[at] * left_out[at]).sum::<f64>();
        }
        if sum.is_finite() { Ok(sum.max(0.0)) } else { Err(Error::Eigen { size: n }) }
    }
}

/// What combinations of adapters reach whose weights sum to 1.
#[derive(Debug, Clone)]
pub struct Combinations {
    /// The mean of each adapter's products with all, and of these.
    means: Vec<f64>,
    mean: f64,
    /// Eigenvalues of the centered products that are no rounding, largest first, and their vectors as columns.
    values: Vec<f64>,
    vectors: Mat<f64>,
}

impl Combinations {
    /// Of adapters with these inner products; it takes `O(n³)`.
    ///
    /// # Errors
    /// [`Error::NumAdapters`] if there is none, [`Error::Eigen`] if the products have no eigenvalues.
    pub fn of(grams: &Grams) -> Result<Self> {
        let n = grams.num_adapters();
        if n == 0 {
            return Err(Error::NumAdapters { what: "combinations", needed: "1 or more", got: 0 });
        }
        let gram = grams.total();
        let means: Vec<f64> = gram.chunks_exact(n).map(|row| row.iter().sum::<f64>() / n as f64).collect();
        let mean = means.iter().sum::<f64>() / n as f64;
        let mut centered = SymmetricSum::zeros(n);
        let entries = centered.lower_mut().iter_mut().zip(&gram).enumerate();
        entries.for_each(|(at, (entry, x))| *entry = x - means[at / n] - means[at % n] + mean);
        let (mut values, vectors) = centered.eigen()?;
        let floor = 1e-10 * values[0];
        values.retain(|&value| value > floor);
        Ok(Self { means, mean, values, vectors })
    }

    /// The squared distance of an update from the nearest combination: no generator of combinations gets below. `products` are the update's with the adapters, `[n]`,
    /// and `energy` with itself.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of products.
    pub fn beyond(&self, products: &[f64], energy: f64) -> Result<f64> {
        let n = self.means.len();
        if products.len() != n {
            return Err(Error::Length { what: "inner products", row: n, got: products.len() });
        }
        let mean_product = products.iter().sum::<f64>() / n as f64;
        let own: Vec<f64> = products.iter().zip(&self.means).map(|(x, of)| x - of - mean_product + self.mean).collect();
        let along = |(k, value): (usize, &f64)| (0..n).map(|i| self.vectors[(i, k)] * own[i]).sum::<f64>().powi(2) / value;
        let within: f64 = self.values.iter().enumerate().map(along).sum();
        Ok((energy - 2.0 * mean_product + self.mean - within).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AdapterSet, Adapters, Factors, Module, combine};
    use super::*;
    use weft_core::Seed;
    use weft_core::products::Here;

    /// Adapters of rank 1 a module whose updates are what `of` makes of features, each in a gauge of its own.
    fn adapters(rows: &[Vec<f32>], of: impl Fn(&[f32]) -> [f32; 6]) -> AdapterSet {
        let module = Module { name: "q".to_owned(), fan_out: 2, fan_in: 3 };
        let factors = |(i, row): (usize, &Vec<f32>)| {
            let w = of(row);
            // `ΔW = B·A` with `B` a multiple of the identity: rank 2, and the gauge is the multiple.
            let g = 0.5 + i as f32;
            vec![Factors { rank: 2, scaling: 1.0, b: vec![g, 0.0, 0.0, g], a: w.iter().map(|w| w / g).collect() }]
        };
        AdapterSet::new(vec![module], rows.iter().enumerate().map(factors).collect()).unwrap()
    }

    fn features(n: usize, seed: u64) -> Vec<Vec<f32>> {
        Seed::new(seed).normals(n * 2).chunks_exact(2).map(<[f32]>::to_vec).collect()
    }

    fn linear(x: &[f32]) -> [f32; 6] {
        [1.0 + x[0], 2.0 - x[1], x[0] + x[1], 0.5, -x[0], 3.0 * x[1]]
    }

    #[test]
    fn a_linear_map_to_updates_is_found_whatever_the_gauge() {
        let (rows, fresh) = (features(24, 1), features(5, 2));
        let set = adapters(&rows, linear);
        let grams = Grams::of(&set, &Here).unwrap();
        let groups: Vec<u32> = (0..24).collect();
        let ridge = UpdateRidge::fit((&rows.concat(), 2), &grams, &groups).unwrap();
        assert!(ridge.told() > 0.999 && ridge.penalty().is_some(), "{} at {:?}", ridge.told(), ridge.penalty());
        let tensors = ridge.to_tensors().into_iter().map(|(name, shape, values)| (name.to_owned(), (shape, values)));
        let read = UpdateRidge::from_tensors(24, tensors.clone().collect()).unwrap();
        assert!((read.told() - ridge.told()).abs() < 1e-6 && read.penalty().is_some());
        assert!(read.weights(&fresh[0]).iter().zip(ridge.weights(&fresh[0])).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(UpdateRidge::from_tensors(23, tensors.clone().collect()).is_err());
        assert!(UpdateRidge::from_tensors(24, tensors.skip(1).collect()).is_err());
        for x in &fresh {
            let weights = ridge.weights(x);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let made = combine(&set, Some(&grams), (1, &|_, _| weights.clone()), (2, 1.0)).unwrap();
            let factors = &made.adapters.adapter(0)[0];
            for (at, expected) in linear(x).iter().enumerate() {
                let got: f32 = (0..2).map(|p| factors.b[at / 3 * 2 + p] * factors.a[p * 3 + at % 3]).sum();
                assert!((got - expected).abs() < 2e-3, "{got}, not {expected}");
            }
        }
    }

    #[test]
    fn what_is_left_out_is_what_a_fit_without_it_gives() {
        // Noise beside the linear part, and pairs that go together.
        let rows = features(12, 3);
        let noise = Seed::new(4).normals(12 * 6);
        let noisy: Vec<Vec<f32>> = rows.iter().enumerate().map(|(i, x)| [x.as_slice(), &[i as f32]].concat()).collect();
        let of = |x: &[f32]| {
            let (w, at) = (linear(x), x[2] as usize * 6);
            std::array::from_fn(|p| w[p] + 0.7 * noise[at + p])
        };
        let set = adapters(&noisy, of);
        let grams = Grams::of(&set, &Here).unwrap();
        let groups: Vec<u32> = (0..12).map(|i| i / 2).collect();
        let n = 12;
        let (gram, mu) = (grams.total(), 3.0);
        let weights_without = |kept: &[usize], x: &[f32]| -> Vec<f64> {
            let m = kept.len() as f64;
            let mean = [0, 1].map(|j| kept.iter().map(|&i| f64::from(rows[i][j])).sum::<f64>() / m);
            let at = |i: usize, j: usize| f64::from(rows[kept[i]][j]) - mean[j];
            let kernel = Mat::from_fn(kept.len(), kept.len(), |a, b| {
                at(a, 0) * at(b, 0) + at(a, 1) * at(b, 1) + if a == b { mu } else { 0.0 }
            });
            let moved = [0, 1].map(|j| f64::from(x[j]) - mean[j]);
            let side = Mat::from_fn(kept.len(), 1, |a, _| at(a, 0) * moved[0] + at(a, 1) * moved[1]);
            let solved = kernel.partial_piv_lu().solve(&side);
            (0..kept.len()).map(|a| 1.0 / m + solved[(a, 0)]).collect()
        };
        let expected: f64 = (0..n)
            .map(|i| {
                let kept: Vec<usize> = (0..n).filter(|&j| groups[j] != groups[i]).collect();
                let mut c = vec![0.0; n];
                kept.iter().zip(weights_without(&kept, &rows[i])).for_each(|(&j, w)| c[j] = w);
                c[i] -= 1.0;
                (0..n * n).map(|at| c[at / n] * c[at % n] * gram[at]).sum::<f64>()
            })
            .sum();
        let mean = [0, 1].map(|j| rows.iter().map(|x| f64::from(x[j])).sum::<f64>() / n as f64);
        let centered = Mat::from_fn(n, 2, |i, j| f64::from(rows[i][j]) - mean[j]);
        let mut products = SymmetricSum::zeros(n);
        products.add(centered.as_ref());
        let (values, vectors) = products.eigen().unwrap();
        let shrunk = spectral(&values, &vectors, |value| value / (value + mu));
        let got = LeftOut::new(&grams, &groups).error(&Mat::from_fn(n, n, |i, j| shrunk[(i, j)] + 1.0 / n as f64)).unwrap();
        assert!((got / expected - 1.0).abs() < 1e-9, "{got}, not {expected}");
    }

    #[test]
    fn features_that_tell_nothing_give_the_mean() {
        let rows = features(16, 5);
        let set = adapters(&features(16, 6), linear);
        let grams = Grams::of(&set, &Here).unwrap();
        let groups: Vec<u32> = (0..16).collect();
        let constant = UpdateRidge::fit((&[1.0; 16], 1), &grams, &groups).unwrap();
        assert_eq!((constant.penalty(), constant.told()), (None, 0.0));
        assert!(constant.weights(&[7.0]).iter().all(|w| (w - 1.0 / 16.0).abs() < 1e-12));
        let unrelated = UpdateRidge::fit((&rows.concat(), 2), &grams, &groups).unwrap();
        assert!(unrelated.told() < 0.15, "{}", unrelated.told());
        let one_group = UpdateRidge::fit((&rows.concat(), 2), &grams, &[0; 16]).unwrap();
        assert_eq!(one_group.penalty(), None, "nothing says that anything is told");
    }

    #[test]
    fn what_combinations_do_not_reach_is_known() {
        let rows = features(5, 7);
        let set = adapters(&rows, linear);
        let grams = Grams::of(&set, &Here).unwrap();
        let reached = Combinations::of(&grams).unwrap();
        // Of two dimensions about the mean all is reached, and a direction of its own is left.
        let inside = adapters(&features(1, 8), linear);
        let outside = adapters(&features(1, 8), |x| {
            let mut w = linear(x);
            w[3] += 2.0;
            w
        });
        for (update, expected) in [(&inside, 0.0), (&outside, 4.0)] {
            let products = super::super::CrossGrams::of(update, &set).unwrap().total();
            let energy = Grams::of(update, &Here).unwrap().total()[0];
            let beyond = reached.beyond(&products, energy).unwrap();
            assert!((beyond - expected).abs() < 1e-4, "{beyond}, not {expected}");
        }
        assert!(reached.beyond(&[1.0], 1.0).is_err());
        // Of one adapter there is itself alone.
        let one = Combinations::of(&grams.select(&[2])).unwrap();
        let gram = grams.total();
        let (to_itself, to_other) = (one.beyond(&[gram[12]], gram[12]).unwrap(), one.beyond(&[gram[13]], gram[18]).unwrap());
        assert!(to_itself < 1e-9 && (to_other.sqrt() - grams.distances()[13]).abs() < 1e-6, "{to_itself}, {to_other}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let rows = features(4, 9);
        let set = adapters(&rows, linear);
        assert_eq!(set.num_adapters(), 4);
        let grams = Grams::of(&set, &Here).unwrap();
        let features = rows.concat();
        assert!(UpdateRidge::fit((&features[..6], 2), &grams, &[0, 1, 2, 3]).is_err());
        assert!(UpdateRidge::fit((&features, 2), &grams, &[0, 1]).is_err());
        assert!(UpdateRidge::fit((&[f32::NAN; 4], 1), &grams, &[0, 1, 2, 3]).is_err());
        let one = Grams::of(&adapters(&rows[..1], linear), &Here).unwrap();
        assert!(UpdateRidge::fit((&[1.0], 1), &one, &[0]).is_err());
    }
}
