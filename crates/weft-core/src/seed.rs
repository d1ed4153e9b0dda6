//! Randomness as a parameter.
//!
//! A [`Seed`] is a 256-bit value. It is never drawn from directly: it forks, by name or by index, into
//! seeds that are independent for all practical purposes (BLAKE3 in its key-derivation role), and each
//! of those opens a generator. So a new consumer of randomness never shifts the stream of another.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};

/// The random generator behind every draw: `ChaCha8`, whose stream is fixed for a given seed.
pub type Rng = ChaCha8Rng;

/// A forkable seed.
///
/// # Examples
/// ```
/// use weft_core::Seed;
/// let seed = Seed::new(7);
/// assert_eq!(seed.fork("init").index(3).normals(4), seed.fork("init").index(3).normals(4));
/// assert_ne!(seed.fork("init").normals(4), seed.fork("order").normals(4));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Makes a seed from a number, as a user gives it.
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(*blake3::keyed_hash(b"weft seed, first version, 32 B..", &value.to_le_bytes()).as_bytes())
    }

    /// Derives the seed of a named purpose.
    #[must_use]
    pub fn fork(self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"name").update(name.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Derives the seed of the `i`-th member of a series.
    #[must_use]
    pub fn index(self, i: u64) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"index").update(&i.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Opens the generator of this seed.
    #[must_use]
    pub fn rng(self) -> Rng {
        ChaCha8Rng::from_seed(self.0)
    }

    /// Draws `n` independent standard normal values.
    #[must_use]
    pub fn normals(self, n: usize) -> Vec<f32> {
        let mut rng = self.rng();
        (0..n).map(|_| StandardNormal.sample(&mut rng)).collect()
    }

    /// Draws `n` independent values, uniform in `[0, 1)`.
    #[must_use]
    pub fn uniforms(self, n: usize) -> Vec<f32> {
        let mut rng = self.rng();
        (0..n).map(|_| StandardUniform.sample(&mut rng)).collect()
    }

    /// Draws a uniformly random order of `0..n` (Fisher–Yates).
    #[must_use]
    pub fn permutation(self, n: usize) -> Vec<u32> {
        let mut rng = self.rng();
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, below(&mut rng, i + 1));
        }
        order
    }

    /// Draws `count` indices below `n`, with replacement.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    pub fn indices(self, count: usize, n: usize) -> Vec<u32> {
        assert!(n > 0, "cannot draw from nothing");
        let mut rng = self.rng();
        (0..count).map(|_| below(&mut rng, n) as u32).collect()
    }

    /// Draws `count` distinct indices below `n`, in random order; all of them if `count >= n`.
    #[must_use]
    pub fn subset(self, count: usize, n: usize) -> Vec<u32> {
        let mut order = self.permutation(n);
        order.truncate(count);
        order
    }
}

/// Draws an index below `n` (Lemire's multiply-shift; the bias is below `n / 2⁶⁴`).
fn below(rng: &mut Rng, n: usize) -> usize {
    use rand::Rng as _;
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_independent_of_order_and_distinct() {
        let seed = Seed::new(1);
        let names = ["init", "order", "noise"].map(|n| seed.fork(n));
        let mut all: Vec<Seed> = names.to_vec();
        all.extend((0..8).map(|i| seed.index(i)));
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_ne!(Seed::new(1), Seed::new(2));
    }

    #[test]
    fn permutation_is_one() {
        let mut p = Seed::new(3).permutation(257);
        assert_ne!(p, (0..257).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..257).collect::<Vec<_>>());
    }

    #[test]
    fn moments_of_normals() {
        let x = Seed::new(5).normals(100_000);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.015, "{mean}");
        assert!((var - 1.0).abs() < 0.02, "{var}");
    }

    /// The stream is part of the contract: a config and a seed give the same bytes for ever.
    #[test]
    fn golden_stream() {
        assert_eq!(Seed::new(0).fork("init").index(0).indices(6, 1000), GOLDEN);
    }
    const GOLDEN: [u32; 6] = [747, 72, 972, 423, 611, 991];
}
