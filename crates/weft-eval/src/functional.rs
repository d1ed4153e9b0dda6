//! Networks as functions: their centred logits on validation inputs.
//!
//! The functional distance of two networks is the root mean square, over examples and classes, of the difference of
//! their logits, each example's logits centred over the classes because softmax does not see a common shift.

use crate::Result;
use crate::matmul::inner_products;
use crate::weights::Nearest;
use rayon::prelude::*;
use weft_core::{Dataset, Part, Population};
use weft_net::Device;

/// Logits held at a time while networks are run.
const MAX_LOGITS: usize = 1 << 23;
/// Queries whose products with all references are taken at a time.
const BLOCK: usize = 128;

/// The inputs on which functions are compared, and the origin that features are measured from.
#[derive(Debug)]
pub(crate) struct FunctionSpace {
    device: Device,
    inputs: Vec<f32>,
    num_examples: usize,
    num_classes: usize,
    /// The mean of the training networks' features: nearer to all of them than 0 is, it makes products precise.
    origin: Vec<f32>,
}

/// The features of some networks, `[n, k]` with `k = examples · classes`.
#[derive(Debug)]
pub(crate) struct Functions {
    features: Vec<f32>,
    squares: Vec<f64>,
    k: usize,
}

impl FunctionSpace {
    /// Takes the first `max_examples` validation inputs, and the features of the training networks.
    pub(crate) fn new(
        (dataset, device): (&Dataset, &Device),
        max_examples: usize,
        train: &Population,
    ) -> Result<(Self, Functions)> {
        let range = dataset.range(Part::Validation);
        let num_examples = range.len().min(max_examples);
        let inputs = dataset.gather(range.start..range.start + num_examples);
        let k = num_examples * dataset.num_classes();
        let mut space =
            Self { device: device.clone(), inputs, num_examples, num_classes: dataset.num_classes(), origin: vec![0.0; k] };
        let mut features = space.features(train)?;
        let mut sum = vec![0f64; k];
        for row in features.chunks_exact(k) {
            sum.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
        }
        space.origin = sum.iter().map(|s| (s / train.len() as f64) as f32).collect();
        space.subtract_origin(&mut features);
        Ok((space, Functions::new(features, k)))
    }

    /// The features of some networks.
    pub(crate) fn prepare(&self, networks: &Population) -> Result<Functions> {
        let mut features = self.features(networks)?;
        self.subtract_origin(&mut features);
        Ok(Functions::new(features, self.origin.len()))
    }

    fn features(&self, networks: &Population) -> Result<Vec<f32>> {
        let k = self.origin.len();
        let chunk = (MAX_LOGITS / k).max(1);
        let mut features = Vec::with_capacity(networks.len() * k);
        for start in (0..networks.len()).step_by(chunk) {
            let indices: Vec<usize> = (start..networks.len().min(start + chunk)).collect();
            features.extend(weft_net::logits(&networks.select(&indices), &self.inputs, &self.device)?);
        }
        debug_assert_eq!(features.len(), networks.len() * self.num_examples * self.num_classes, "one logit a class");
        features.par_chunks_exact_mut(self.num_classes).for_each(|logits| {
            let mean = logits.iter().sum::<f32>() / logits.len() as f32;
            for logit in logits.iter_mut() {
                *logit -= mean;
            }
        });
        Ok(features)
    }

    fn subtract_origin(&self, features: &mut [f32]) {
        features.par_chunks_exact_mut(self.origin.len()).for_each(|row| {
            row.iter_mut().zip(&self.origin).for_each(|(v, o)| *v -= o);
        });
    }
}

impl Functions {
    fn new(features: Vec<f32>, k: usize) -> Self {
        let squares = features.par_chunks_exact(k).map(|row| row.iter().map(|&v| f64::from(v).powi(2)).sum()).collect();
        Self { features, squares, k }
    }

    /// The number of networks.
    pub(crate) fn len(&self) -> usize {
        self.squares.len()
    }

    /// Whether all logits of network `i` are finite.
    pub(crate) fn is_finite(&self, i: usize) -> bool {
        self.squares[i].is_finite()
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.features[i * self.k..(i + 1) * self.k]
    }

    /// The features of the networks at `indices`.
    pub(crate) fn select(&self, indices: &[usize]) -> Self {
        let features = indices.iter().flat_map(|&i| self.row(i)).copied().collect();
        Self { features, squares: indices.iter().map(|&i| self.squares[i]).collect(), k: self.k }
    }

    /// The functional distance of network `i` here and network `j` of `other`.
    pub(crate) fn distance(&self, i: usize, other: &Self, j: usize) -> f64 {
        let square: f64 = self.row(i).iter().zip(other.row(j)).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        (square / self.k as f64).sqrt()
    }

    /// For each network here the nearest network of `others` that is not excluded; the lower index on a tie.
    ///
    /// Matrix products propose candidates: every network whose squared distance can be the least under the worst
    /// rounding error of an inner product (`k·u·|a|·|b|`; Higham 2002, equation 3.5). Differences in `f64` decide.
    pub(crate) fn nearest(&self, others: &Self, excluded: &(dyn Fn(usize, usize) -> bool + Sync)) -> Vec<Nearest> {
        let (k, n) = (self.k, others.len());
        let unit = (k + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        let search = |i: usize, products: &[f32]| -> Nearest {
            let bounds = |j: usize| {
                let square = self.squares[i] + others.squares[j] - 2.0 * f64::from(products[j]);
                let slack = 2.0 * unit * (self.squares[i] * others.squares[j]).sqrt();
                (square - slack, square + slack)
            };
            let allowed = || (0..n).filter(|&j| !excluded(i, j));
            let upper = allowed().map(|j| bounds(j).1).fold(f64::INFINITY, f64::min);
            allowed()
                .filter(|&j| bounds(j).0 <= upper)
                .map(|j| Nearest { index: j, distance: self.distance(i, others, j) })
                .reduce(|a, b| if b.distance < a.distance { b } else { a })
                .unwrap_or(Nearest::NONE)
        };
        let block = |(b, rows): (usize, &[f32])| {
            let mut products = vec![0f32; rows.len() / k * n];
            inner_products(rows, &others.features, k, &mut products);
            products.chunks_exact(n).enumerate().map(|(i, p)| search(b * BLOCK + i, p)).collect::<Vec<_>>()
        };
        self.features.par_chunks(BLOCK * k).enumerate().flat_map_iter(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Seed;

    fn functions(seed: u64, n: usize, k: usize) -> Functions {
        Functions::new(Seed::new(seed).normals(n * k), k)
    }

    #[test]
    fn nearest_agrees_with_brute_force() {
        let (a, b) = (functions(1, 150, 30), functions(2, 70, 30));
        for (i, found) in a.nearest(&b, &|i, j| (i + j) % 3 == 0).iter().enumerate() {
            let brute = (0..70).filter(|j| (i + j) % 3 != 0).map(|j| a.distance(i, &b, j)).fold(f64::INFINITY, f64::min);
            assert_eq!(found.distance.to_bits(), brute.to_bits());
            assert_eq!(a.distance(i, &b, found.index).to_bits(), brute.to_bits());
        }
    }

    #[test]
    fn copies_are_at_zero_and_nothing_is_far() {
        let a = functions(3, 20, 50);
        let found = a.nearest(&a, &|_, _| false);
        assert!(found.iter().enumerate().all(|(i, f)| f.index == i && f.distance == 0.0));
        assert_eq!(a.nearest(&a, &|_, _| true)[0], Nearest::NONE);
        let (picked, rest) = (a.select(&[7, 3]), a.select(&[3]));
        assert_eq!(picked.distance(1, &rest, 0).to_bits(), 0f64.to_bits());
        assert_eq!(picked.distance(0, &rest, 0).to_bits(), a.distance(7, &a, 3).to_bits());
    }
}
