//! Statistics of a texture: how its colors and their gradients are distributed, at several scales.
//!
//! A pixel has nine features: red, green, blue, and the differences of each to the pixel right of it and below it. They are taken
//! of the picture as it is and of the means of 2 × 2 and 4 × 4 pixels, and divided by their standard deviation over training
//! textures. The distance of two textures is the sliced Wasserstein distance of order 2 of these nine-dimensional distributions: along each of
//! 64 fixed random directions both are projected and their quantiles compared; the root mean square is over scales, directions and
//! quantiles. It sees colors, contrast, orientation and grain; where things lie it does not see, and large forms only as
//! far as they change these.
//!
//! # References
//! Rabin, Peyré, Delon and Bernot, "Wasserstein barycenter and its application to texture mixing" (2011); Heitz, Vanhoey, Chambon and
//! Belcour, "A sliced Wasserstein loss for neural texture synthesis" (2021).

use rayon::prelude::*;
use weft_core::Seed;
use weft_net::Texture;

/// Pixels that are averaged into one, along a side.
const SCALES: [usize; 3] = [1, 2, 4];
/// Features of a pixel.
const FEATURES: usize = 9;
/// Directions that they are projected on.
const DIRECTIONS: usize = 64;
/// Quantiles that are compared, at the middles of as many equal parts.
const QUANTILES: usize = 32;
/// What a feature is divided by that does not vary.
const LEAST_DEVIATION: f64 = 1e-6;

/// What makes numbers of textures.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// `[scale][feature]`.
    deviations: [[f64; FEATURES]; SCALES.len()],
    /// Unit vectors, `[direction][feature]`.
    directions: Vec<[f64; FEATURES]>,
}

impl Statistics {
    /// Takes the features' scales from training textures.
    #[must_use]
    pub fn fit(training: &[Texture]) -> Self {
        let deviations = SCALES.map(|scale| {
            let (mut sum, mut squares, mut count) = ([0.0; FEATURES], [0.0; FEATURES], 0.0_f64);
            for features in training.iter().map(|texture| features(texture, scale)) {
                count += features.len() as f64;
                for (f, value) in features.iter().flat_map(|pixel| pixel.iter().enumerate()) {
                    sum[f] += value;
                    squares[f] += value * value;
                }
            }
            std::array::from_fn(|f| {
                let mean = sum[f] / count.max(1.0);
                (squares[f] / count.max(1.0) - mean * mean).max(0.0).sqrt().max(LEAST_DEVIATION)
            })
        });
        // Fixed, so that distances are of one metric whatever the run's seed.
        let normals = Seed::new(0).fork("texture statistics").normals(DIRECTIONS * FEATURES);
        let direction = |normals: &[f32]| {
            let norm = normals.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            std::array::from_fn(|f| f64::from(normals[f]) / norm)
        };
        Self { deviations, directions: normals.chunks_exact(FEATURES).map(direction).collect() }
    }

    /// The quantiles of a texture's projected features.
    ///
    /// # Shapes
    /// `[scales · 64 · 32]`; textures of other sizes have as many.
    #[must_use]
    pub fn of(&self, texture: &Texture) -> Vec<f32> {
        let mut out = Vec::with_capacity(SCALES.len() * DIRECTIONS * QUANTILES);
        for (scale, deviations) in SCALES.iter().zip(&self.deviations) {
            let features = features(texture, *scale);
            for direction in &self.directions {
                let weight: [f64; FEATURES] = std::array::from_fn(|f| direction[f] / deviations[f]);
                let project = |pixel: &[f64; FEATURES]| pixel.iter().zip(&weight).map(|(v, w)| v * w).sum::<f64>();
                let mut projected: Vec<f64> = features.iter().map(project).collect();
                projected.sort_unstable_by(f64::total_cmp);
                let at = |q: usize| projected[(2 * q + 1) * projected.len() / (2 * QUANTILES)] as f32;
                out.extend((0..QUANTILES).map(at));
            }
        }
        out
    }

    /// The same of many textures.
    #[must_use]
    pub fn of_all(&self, textures: &[Texture]) -> Vec<Vec<f32>> {
        textures.par_iter().map(|texture| self.of(texture)).collect()
    }
}

/// The sliced Wasserstein distance, in standard deviations of features.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len().max(1) as f64).sqrt()
}

/// The root mean square over colors of their standard deviation over pixels.
pub(super) fn contrast(texture: &Texture) -> f64 {
    let count = (texture.side * texture.side).max(1) as f64;
    let variance = |color: usize| {
        let values = || texture.colors.iter().skip(color).step_by(3).map(|v| f64::from(*v));
        let mean = values().sum::<f64>() / count;
        values().map(|v| (v - mean).powi(2)).sum::<f64>() / count
    };
    ((0..3).map(variance).sum::<f64>() / 3.0).sqrt()
}

/// The features of each pixel of a texture, on a torus.
fn features(texture: &Texture, scale: usize) -> Vec<[f64; FEATURES]> {
    // A texture smaller than the scale has one pixel.
    let side = (texture.side / scale).max(1);
    let block = scale.min(texture.side);
    let mean = |row: usize, column: usize| {
        let mut sum = [0.0; 3];
        for (r, c) in (0..block).flat_map(|r| (0..block).map(move |c| (r, c))) {
            let at = ((row * scale + r) * texture.side + column * scale + c) * 3;
            (0..3).for_each(|color| sum[color] += f64::from(texture.colors[at + color]));
        }
        sum.map(|s| s / (block * block) as f64)
    };
    let pixels: Vec<[f64; 3]> = (0..side * side).map(|at| mean(at / side, at % side)).collect();
    let feature = |at: usize| {
        let (row, column) = (at / side, at % side);
        let (here, right, below) = (pixels[at], pixels[row * side + (column + 1) % side], pixels[(row + 1) % side * side + column]);
        std::array::from_fn(|f| match f / 3 {
            0 => here[f],
            1 => right[f - 3] - here[f - 3],
            _ => below[f - 6] - here[f - 6],
        })
    };
    (0..side * side).map(feature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stripes of a color and its opposite, `width` pixels wide, across or down.
    fn stripes(width: usize, across: bool, shift: usize) -> Texture {
        let side = 16;
        let color = |at: usize| {
            let place = if across { at / side } else { at % side };
            let value = if ((place + shift) / width).is_multiple_of(2) { 0.9 } else { 0.1 };
            [value, 0.5, 1.0 - value]
        };
        Texture { side, colors: (0..side * side).flat_map(color).collect(), change: 0.0 }
    }

    #[test]
    fn distances_see_grain_and_orientation_but_not_place() {
        let training = [stripes(2, false, 0), stripes(4, true, 0), stripes(8, false, 0)];
        let statistics = Statistics::fit(&training);
        let of = |texture: &Texture| statistics.of(texture);
        let base = of(&training[0]);
        let to = |texture: &Texture| distance(&base, &of(texture));
        assert_eq!(base.len(), 3 * 64 * 32);
        assert!(to(&stripes(2, false, 4)) < 1e-6, "a whole period is no difference");
        let (turned, wider) = (to(&stripes(2, true, 0)), to(&stripes(4, false, 0)));
        assert!(turned > 0.1 && wider > 0.1, "{turned} {wider}");
        let flat = Texture { side: 16, colors: vec![0.5; 16 * 16 * 3], change: 0.0 };
        assert!(to(&flat) > 0.3 && contrast(&flat) < 1e-12);
        assert!((contrast(&stripes(2, false, 0)) - 0.4 * (2.0_f64 / 3.0).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn tiny_textures_have_statistics_too() {
        for side in 1..9 {
            let texture = Texture { side, colors: (0..side * side * 3).map(|i| (i % 7) as f32 / 7.0).collect(), change: 0.0 };
            let described = Statistics::fit(std::slice::from_ref(&texture)).of(&texture);
            assert!(described.len() == 3 * 64 * 32 && described.iter().all(|v| v.is_finite()), "{side}");
        }
    }
}
