//! Optimizer steps: weights, moments and the reset of the gradient in one pass over memory.

use super::{load, store};
use pulp::{Arch, Simd, WithSimd};
use weft_core::Optimizer;

/// The moments of one network's optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    first: Vec<f32>,
    second: Vec<f32>,
    step: u64,
}

impl OptimizerState {
    /// Zero moments for `len` weights.
    #[must_use]
    pub fn new(optimizer: Optimizer, len: usize) -> Self {
        let (first, second) = match optimizer {
            Optimizer::Sgd { momentum: 0.0 } => (0, 0),
            Optimizer::Sgd { .. } => (len, 0),
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => (len, len),
        };
        Self { first: vec![0.0; first], second: vec![0.0; second], step: 0 }
    }
}

/// An optimizer with its constants, ready to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerKernel {
    /// The rule.
    pub optimizer: Optimizer,
    /// Weight decay: added to the gradient (SGD, Adam) or decoupled (`AdamW`).
    pub weight_decay: f64,
}

impl OptimizerKernel {
    /// Takes one step and sets the gradient to zero.
    ///
    /// `scale` multiplies the gradient first (gradient clipping, averaging).
    ///
    /// # Panics
    /// If the lengths differ, or `state` was made for another optimizer.
    pub fn step(&self, state: &mut OptimizerState, weights: &mut [f32], gradient: &mut [f32], learning_rate: f64, scale: f32) {
        state.step += 1;
        self.apply(state.step, [&mut state.first, &mut state.second], weights, gradient, (learning_rate, scale));
    }

    /// The same on borrowed moments; `step` counts from 1, and `rates` are the learning rate and the gradient's scale.
    ///
    /// # Panics
    /// As [`OptimizerKernel::step`].
    pub fn apply(&self, step: u64, moments: [&mut [f32]; 2], weights: &mut [f32], gradient: &mut [f32], rates: (f64, f32)) {
        assert_eq!(weights.len(), gradient.len(), "gradient of another length");
        let [first, second] = moments;
        let (learning_rate, scale) = rates;
        let rate = learning_rate as f32;
        let decay = self.weight_decay as f32;
        match self.optimizer {
            Optimizer::Sgd { momentum } => {
                Arch::new().dispatch(Sgd { weights, gradient, velocity: first, rate, scale, decay, momentum: momentum as f32 });
            }
            Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
                assert!(first.len() == weights.len() && second.len() == weights.len(), "moments of another length");
                let t = i32::try_from(step).unwrap_or(i32::MAX);
                let (correction1, correction2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
                let decoupled = matches!(self.optimizer, Optimizer::AdamW { .. });
                Arch::new().dispatch(Adam {
                    weights,
                    gradient,
                    first,
                    second,
                    rate: (learning_rate / correction1) as f32,
                    scale,
                    decay: if decoupled { 0.0 } else { decay },
                    shrink: if decoupled { (1.0 - learning_rate * self.weight_decay) as f32 } else { 1.0 },
                    beta1: beta1 as f32,
                    beta2: beta2 as f32,
                    root: (1.0 / correction2.sqrt()) as f32,
                    epsilon: epsilon as f32,
                });
            }
        }
    }
}

struct Sgd<'a> {
    weights: &'a mut [f32],
    gradient: &'a mut [f32],
    velocity: &'a mut [f32],
    rate: f32,
    scale: f32,
    decay: f32,
    momentum: f32,
}

impl WithSimd for Sgd<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let [rate, scale, decay, momentum] = [-self.rate, self.scale, self.decay, self.momentum].map(|v| simd.splat_f32s(v));
        let zero = simd.splat_f32s(0.0);
        let mut velocities = self.velocity.chunks_mut(lanes);
        for (w, g) in self.weights.chunks_mut(lanes).zip(self.gradient.chunks_mut(lanes)) {
            let weight = load(simd, w);
            let mut step = simd.mul_add_f32s(decay, weight, simd.mul_f32s(scale, load(simd, g)));
            if let Some(v) = velocities.next() {
                step = simd.mul_add_f32s(momentum, load(simd, v), step);
                store(simd, v, step);
            }
            store(simd, w, simd.mul_add_f32s(rate, step, weight));
            store(simd, g, zero);
        }
    }
}

struct Adam<'a> {
    weights: &'a mut [f32],
    gradient: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    rate: f32,
    scale: f32,
    decay: f32,
    shrink: f32,
    beta1: f32,
    beta2: f32,
    root: f32,
    epsilon: f32,
}

impl WithSimd for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let splat = |v| simd.splat_f32s(v);
        let (rate, scale, decay, shrink) = (splat(-self.rate), splat(self.scale), splat(self.decay), splat(self.shrink));
        let (beta1, beta2) = (splat(self.beta1), splat(self.beta2));
        let (rest1, rest2) = (splat(1.0 - self.beta1), splat(1.0 - self.beta2));
        let (root, epsilon, zero) = (splat(self.root), splat(self.epsilon), splat(0.0));
        let moments = self.first.chunks_mut(lanes).zip(self.second.chunks_mut(lanes));
        let weights = self.weights.chunks_mut(lanes).zip(self.gradient.chunks_mut(lanes));
        for ((w, g), (m, v)) in weights.zip(moments) {
            let weight = load(simd, w);
            let gradient = simd.mul_add_f32s(decay, weight, simd.mul_f32s(scale, load(simd, g)));
            let first = simd.mul_add_f32s(beta1, load(simd, m), simd.mul_f32s(rest1, gradient));
            let squared = simd.mul_f32s(gradient, gradient);
            let second = simd.mul_add_f32s(beta2, load(simd, v), simd.mul_f32s(rest2, squared));
            let divisor = simd.mul_add_f32s(simd.mul_f32s(second, inverse_root(simd, second)), root, epsilon);
            let step = simd.mul_f32s(first, inverse(simd, divisor));
            store(simd, w, simd.mul_add_f32s(rate, step, simd.mul_f32s(shrink, weight)));
            store(simd, m, first);
            store(simd, v, second);
            store(simd, g, zero);
        }
    }
}

/// `1/√x` for `x ≥ 1e-36`, and a finite number below (relative error below 3e-7).
///
/// The hardware's root and division take most of a step's time when moments are in cache; a guess from the exponent
/// bits and three Newton steps take a third of it.
#[inline(always)]
fn inverse_root<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = simd.max_f32s(x, simd.splat_f32s(1e-36));
    let halved = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(1));
    let mut y = simd.transmute_f32s_u32s(simd.sub_u32s(simd.splat_u32s(0x5f37_59df), halved));
    let (negative_half, three_halves) = (simd.mul_f32s(x, simd.splat_f32s(-0.5)), simd.splat_f32s(1.5));
    for _ in 0..3 {
        y = simd.mul_f32s(y, simd.mul_add_f32s(negative_half, simd.mul_f32s(y, y), three_halves));
    }
    y
}

/// `1/x` for normal `x > 0` (relative error below 3e-7).
#[inline(always)]
fn inverse<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let mut y = simd.transmute_f32s_u32s(simd.sub_u32s(simd.splat_u32s(0x7ef3_11c7), simd.transmute_u32s_f32s(x)));
    let (negative, two) = (simd.neg_f32s(x), simd.splat_f32s(2.0));
    for _ in 0..3 {
        y = simd.mul_f32s(y, simd.mul_add_f32s(negative, y, two));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Seed;

    /// The rules in `f64`, one weight at a time, straight from the papers.
    fn reference(kernel: &OptimizerKernel, w0: f64, gradients: &[f64], rate: f64) -> f64 {
        let (mut w, mut m, mut v) = (w0, 0.0, 0.0);
        for (t, &g) in gradients.iter().enumerate() {
            match kernel.optimizer {
                Optimizer::Sgd { momentum } => {
                    m = momentum * m + g + kernel.weight_decay * w;
                    w -= rate * m;
                }
                Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
                    let decoupled = matches!(kernel.optimizer, Optimizer::AdamW { .. });
                    let g = if decoupled { g } else { g + kernel.weight_decay * w };
                    m = beta1 * m + (1.0 - beta1) * g;
                    v = beta2 * v + (1.0 - beta2) * g * g;
                    let t = t as i32 + 1;
                    let (mh, vh) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
                    if decoupled {
                        w -= rate * kernel.weight_decay * w;
                    }
                    w -= rate * mh / (vh.sqrt() + epsilon);
                }
            }
        }
        w
    }

    #[test]
    fn weights_without_gradient_stay_and_tiny_gradients_move_them() {
        let kernel = OptimizerKernel { optimizer: Optimizer::ADAM, weight_decay: 0.0 };
        let mut weights = vec![1.0f32; 4];
        let mut state = OptimizerState::new(Optimizer::ADAM, 4);
        for _ in 0..50 {
            let mut gradient = vec![0.0, 1e-30, 1e-12, 1e12];
            kernel.step(&mut state, &mut weights, &mut gradient, 0.01, 1.0);
        }
        let expected = |g: f64| 1.0 - 50.0 * 0.01 * g / (g + 1e-8);
        for (w, g) in weights.iter().zip([0.0, 1e-30, 1e-12, 1e12]) {
            assert!((f64::from(*w) - expected(g)).abs() < 1e-4, "gradient {g}: {w}, expected {}", expected(g));
        }
    }

    #[test]
    fn ten_steps_match_the_papers() {
        for optimizer in [Optimizer::SGD, Optimizer::Sgd { momentum: 0.9 }, Optimizer::ADAM, Optimizer::ADAMW] {
            for weight_decay in [0.0, 0.1] {
                let kernel = OptimizerKernel { optimizer, weight_decay };
                let n = 21;
                let start = Seed::new(1).normals(n);
                let mut weights = start.clone();
                let mut state = OptimizerState::new(optimizer, n);
                let gradients: Vec<Vec<f32>> = (0..10).map(|t| Seed::new(2).index(t).normals(n)).collect();
                for g in &gradients {
                    let mut g = g.clone();
                    kernel.step(&mut state, &mut weights, &mut g, 0.01, 1.0);
                    assert!(g.iter().all(|&v| v == 0.0));
                }
                for i in 0..n {
                    let series: Vec<f64> = gradients.iter().map(|g| f64::from(g[i])).collect();
                    let expected = reference(&kernel, f64::from(start[i]), &series, 0.01);
                    assert!(
                        (f64::from(weights[i]) - expected).abs() < 2e-5,
                        "{optimizer:?} {weight_decay}: {} {expected}",
                        weights[i]
                    );
                }
            }
        }
    }
}
