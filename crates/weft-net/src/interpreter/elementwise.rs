//! Activations and norms.

use super::real::Real;
use rayon::prelude::*;
use weft_core::Activation;

/// Values that one thread takes at a time.
const BLOCK: usize = 1 << 13;

/// Applies `f` to each value.
pub(super) fn map<T: Real>(x: &mut [T], f: impl Fn(T) -> T + Sync) {
    x.par_chunks_mut(BLOCK).for_each(|x| x.iter_mut().for_each(|v| *v = f(*v)));
}

/// Applies `f` to each value and that of another node.
pub(super) fn zip<T: Real>(x: &mut [T], y: &[T], f: impl Fn(T, T) -> T + Sync) {
    x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(v, &w)| *v = f(*v, w)));
}

/// Applies an activation.
pub(super) fn activate<T: Real>(activation: Activation, x: &mut [T]) {
    let [half, cubic] = [0.5, 0.044_715].map(T::from_f64);
    let root_half = T::from_f64(std::f64::consts::FRAC_1_SQRT_2);
    let root = T::from_f64((2.0 / std::f64::consts::PI).sqrt());
    let sigmoid = |v: T| T::ONE / (T::ONE + (T::ZERO - v).exp());
    match activation {
        Activation::Relu => map(x, |v| v.max(T::ZERO)),
        Activation::Tanh => map(x, T::tanh),
        // Φ(x) = ½·erfc(−x/√2) keeps its precision where x is far below 0.
        Activation::Gelu => map(x, |v| half * v * (T::ZERO - v * root_half).erfc()),
        Activation::GeluTanh => map(x, |v| half * v * (T::ONE + (root * (v + cubic * v * v * v)).tanh())),
        Activation::Silu => map(x, |v| v * sigmoid(v)),
        Activation::Sigmoid => map(x, sigmoid),
    }
}

/// `γ·(x − μ)/√(σ² + ε) + β` a channel of `area` values.
pub(super) fn batch_norm<T: Real>(x: &mut [T], [gain, bias, mean, variance]: [&[T]; 4], area: usize, epsilon: f64) {
    let affine = |c: usize| {
        let [gain, bias, mean, variance] = [gain, bias, mean, variance].map(|t| t[c].to_f64());
        let scale = gain / (variance + epsilon).sqrt();
        (T::from_f64(scale), mean, bias)
    };
    let channels: Vec<_> = (0..gain.len()).map(affine).collect();
    x.par_chunks_mut(area * channels.len()).for_each(|example| {
        for (x, &(scale, mean, bias)) in example.chunks_exact_mut(area).zip(&channels) {
            // In f32 the shift is not folded into one number: where the mean is large, that would lose digits.
            let (mean, bias) = (T::from_f64(mean), T::from_f64(bias));
            for v in x.iter_mut() {
                *v = (*v - mean) * scale + bias;
            }
        }
    });
}

/// What a norm along the last axis does beside dividing by the root mean square.
pub(super) struct Norm<'a, T> {
    pub(super) gain: Option<&'a [T]>,
    pub(super) bias: Option<&'a [T]>,
    pub(super) epsilon: f64,
    /// Whether the mean is subtracted first.
    pub(super) centered: bool,
}

/// Layer norm and RMS norm of rows of a width.
pub(super) fn norm<T: Real>(x: &mut [T], width: usize, norm: &Norm<'_, T>) {
    x.par_chunks_mut(width).with_min_len(16).for_each(|row| {
        let mean = if norm.centered { row.iter().map(|v| v.to_f64()).sum::<f64>() / width as f64 } else { 0.0 };
        let square = row.iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + norm.epsilon).sqrt();
        for v in row.iter_mut() {
            *v = T::from_f64((v.to_f64() - mean) * scale);
        }
        if let Some(gain) = norm.gain {
            row.iter_mut().zip(gain).for_each(|(v, &g)| *v *= g);
        }
        if let Some(bias) = norm.bias {
            row.iter_mut().zip(bias).for_each(|(v, &b)| *v += b);
        }
    });
}
