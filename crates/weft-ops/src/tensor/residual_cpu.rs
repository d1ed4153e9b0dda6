//! The residual MLP on a CPU, forward and backward by hand: large products, and one pass for all between them.

use super::residual::{Affine, ResidualMlp};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Added to the variance in layer norm.
pub(super) const EPSILON: f32 = 1e-5;

/// Rows a task of the passes between products.
const ROWS: usize = 32;

/// One call of the network.
pub(super) struct Pass<'a> {
    pub(super) network: &'a ResidualMlp,
    pub(super) theta: &'a [f32],
    pub(super) rows: usize,
}

/// What the backward pass needs of the forward pass.
pub(super) struct Saved {
    condition_hidden: Vec<f32>,
    condition_active: Vec<f32>,
    blocks: Vec<SavedBlock>,
    last: Vec<f32>,
}

struct SavedBlock {
    /// Normalized rows before gain and shift, `[b, w]`.
    normal: Vec<f32>,
    /// `1/σ` of each row, `[b]`.
    inverse_std: Vec<f32>,
    /// Rows after gain and shift, `[b, w]`.
    scaled: Vec<f32>,
    /// Before the activation, `[b, w]`.
    hidden: Vec<f32>,
    /// After it, `[b, w]`.
    active: Vec<f32>,
}

impl Pass<'_> {
    pub(super) fn forward(&self, x: &[f32], condition: &[f32]) -> (Vec<f32>, Saved) {
        let net = self.network;
        let condition_hidden = self.affine(condition, &net.condition[0]);
        let condition_active = silu(&condition_hidden);
        let e = self.affine(&condition_active, &net.condition[1]);
        let mut h = self.affine(x, &net.input);
        add(&mut h, &e);
        let width = net.config().width;
        let mut blocks = Vec::with_capacity(net.blocks.len());
        for block in &net.blocks {
            let (gain, shift) = (&self.theta[block.gain.clone()], &self.theta[block.shift.clone()]);
            let mut normal = vec![0.0; h.len()];
            let mut scaled = vec![0.0; h.len()];
            let mut inverse_std = vec![0.0; self.rows];
            let rows = normal.par_chunks_mut(width).zip(scaled.par_chunks_mut(width)).zip(inverse_std.par_iter_mut());
            rows.zip(h.par_chunks(width).zip(e.par_chunks(width))).with_min_len(ROWS).for_each(
                |(((normal, scaled), inverse), (h, e))| {
                    *inverse = normalize(h, e, normal);
                    for (((s, &n), &g), &b) in scaled.iter_mut().zip(&*normal).zip(gain).zip(shift) {
                        *s = n * g + b;
                    }
                },
            );
            let hidden = self.affine(&scaled, &block.up);
            let active = silu(&hidden);
            add(&mut h, &self.affine(&active, &block.down));
            blocks.push(SavedBlock { normal, inverse_std, scaled, hidden, active });
        }
        let y = self.affine(&h, &net.output);
        (y, Saved { condition_hidden, condition_active, blocks, last: h })
    }

    /// Returns the gradients of `x` and of the parameters.
    pub(super) fn backward(&self, x: &[f32], condition: &[f32], saved: Saved, dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let net = self.network;
        let width = net.config().width;
        let mut d_theta = vec![0.0; self.theta.len()];
        let mut dh = self.affine_backward(&saved.last, &net.output, dy, &mut d_theta);
        let mut de = vec![0.0; dh.len()];
        for (block, saved) in net.blocks.iter().zip(saved.blocks).rev() {
            let mut d_hidden = self.affine_backward(&saved.active, &block.down, &dh, &mut d_theta);
            silu_backward(&saved.hidden, &mut d_hidden);
            let mut d_scaled = self.affine_backward(&saved.scaled, &block.up, &d_hidden, &mut d_theta);
            for (d, n) in d_scaled.chunks_exact(width).zip(saved.normal.chunks_exact(width)) {
                d_theta[block.shift.clone()].iter_mut().zip(d).for_each(|(t, d)| *t += d);
                d_theta[block.gain.clone()].iter_mut().zip(d.iter().zip(n)).for_each(|(t, (d, n))| *t += d * n);
            }
            let gain = &self.theta[block.gain.clone()];
            d_scaled
                .par_chunks_mut(width)
                .zip(saved.normal.par_chunks(width).zip(saved.inverse_std.par_iter()))
                .with_min_len(ROWS)
                .for_each(|(d, (normal, &inverse))| normalize_backward(d, normal, gain, inverse));
            add(&mut dh, &d_scaled);
            add(&mut de, &d_scaled);
        }
        add(&mut de, &dh);
        let mut d_active = self.affine_backward(&saved.condition_active, &net.condition[1], &de, &mut d_theta);
        silu_backward(&saved.condition_hidden, &mut d_active);
        self.affine_gradient(condition, &net.condition[0], &d_active, &mut d_theta);
        let dx = self.affine_backward(x, &net.input, &dh, &mut d_theta);
        (dx, d_theta)
    }

    /// `x·W + b`, `[b, in]` → `[b, out]`.
    fn affine(&self, x: &[f32], affine: &Affine) -> Vec<f32> {
        let [fan_in, fan_out] = affine.dims;
        let bias = &self.theta[affine.bias.clone()];
        let mut y = Vec::with_capacity(self.rows * fan_out);
        (0..self.rows).for_each(|_| y.extend_from_slice(bias));
        product([self.rows, fan_out, fan_in], (x, false), (&self.theta[affine.weight.clone()], false), &mut y);
        y
    }

    /// Adds the gradients of weight and bias and returns that of `x`.
    fn affine_backward(&self, x: &[f32], affine: &Affine, dy: &[f32], d_theta: &mut [f32]) -> Vec<f32> {
        self.affine_gradient(x, affine, dy, d_theta);
        let [fan_in, fan_out] = affine.dims;
        let mut dx = vec![0.0; self.rows * fan_in];
        product([self.rows, fan_in, fan_out], (dy, false), (&self.theta[affine.weight.clone()], true), &mut dx);
        dx
    }

    fn affine_gradient(&self, x: &[f32], affine: &Affine, dy: &[f32], d_theta: &mut [f32]) {
        let [fan_in, fan_out] = affine.dims;
        product([fan_in, fan_out, self.rows], (x, true), (dy, false), &mut d_theta[affine.weight.clone()]);
        let d_bias = &mut d_theta[affine.bias.clone()];
        dy.chunks_exact(fan_out).for_each(|row| d_bias.iter_mut().zip(row).for_each(|(d, v)| *d += v));
    }
}

/// Adds `a·b` to `c` on all cores; an operand may be given transposed.
fn product([m, n, k]: [usize; 3], (a, a_transposed): (&[f32], bool), (b, b_transposed): (&[f32], bool), c: &mut [f32]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "operands do not fit");
    let strides =
        |transposed: bool, rows: usize, columns: usize| if transposed { (rows as isize, 1) } else { (1, columns as isize) };
    let (a_cs, a_rs) = strides(a_transposed, m, k);
    let (b_cs, b_rs) = strides(b_transposed, k, n);
    let parallelism = if m * n * k > 1 << 16 { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the assertion bounds every access of the three strided views, and `c` is exclusively borrowed.
    unsafe {
        let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
        gemm::gemm(m, n, k, c, 1, n as isize, true, a, a_cs, a_rs, b, b_cs, b_rs, 1.0f32, 1.0f32, false, false, false, parallelism);
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
}

/// Writes the normalized sum of two rows and returns `1/σ`.
fn normalize(h: &[f32], e: &[f32], normal: &mut [f32]) -> f32 {
    for ((n, &h), &e) in normal.iter_mut().zip(h).zip(e) {
        *n = h + e;
    }
    let count = normal.len() as f32;
    let mean = lanes_sum(normal, |v| v) / count;
    for v in normal.iter_mut() {
        *v -= mean;
    }
    let inverse = 1.0 / (lanes_sum(normal, |v| v * v) / count + EPSILON).sqrt();
    for v in normal.iter_mut() {
        *v *= inverse;
    }
    inverse
}

/// Turns the gradient after gain and shift into that before the norm:
/// `dx = (g·γ − mean(g·γ) − n·mean(g·γ·n)) / σ`.
fn normalize_backward(d: &mut [f32], normal: &[f32], gain: &[f32], inverse: f32) {
    let count = d.len() as f32;
    d.iter_mut().zip(gain).for_each(|(d, g)| *d *= g);
    let mean = lanes_sum(d, |v| v) / count;
    let mut sums = [0.0f32; 8];
    for (d, n) in d.chunks(8).zip(normal.chunks(8)) {
        sums.iter_mut().zip(d.iter().zip(n)).for_each(|(s, (d, n))| *s += d * n);
    }
    let dot = sums.iter().sum::<f32>() / count;
    d.iter_mut().zip(normal).for_each(|(d, n)| *d = (*d - mean - n * dot) * inverse);
}

/// A sum over eight interleaved accumulators: vectorizable, and in one fixed order.
fn lanes_sum(values: &[f32], map: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    for chunk in values.chunks(8) {
        sums.iter_mut().zip(chunk).for_each(|(s, &v)| *s += map(v));
    }
    sums.iter().sum()
}

fn silu(x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(4096).zip(x.par_chunks(4096)).for_each(|(y, x)| Arch::new().dispatch(Silu { x, y }));
    y
}

fn silu_backward(x: &[f32], d: &mut [f32]) {
    d.par_chunks_mut(4096).zip(x.par_chunks(4096)).for_each(|(d, x)| Arch::new().dispatch(SiluBackward { x, d }));
}

struct Silu<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Silu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = x / (1.0 + exponential(-x));
        }
    }
}

struct SiluBackward<'a> {
    x: &'a [f32],
    d: &'a mut [f32],
}

impl WithSimd for SiluBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (d, &x) in self.d.iter_mut().zip(self.x) {
            let s = 1.0 / (1.0 + exponential(-x));
            *d *= s * (1.0 + x * (1.0 - s));
        }
    }
}

/// `eˣ` by range reduction and a polynomial of degree 6, without branches so that it vectorizes (relative error below 3e-7).
#[inline(always)]
fn exponential(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (0.166_666_67 + r * (0.041_666_668 + r * (0.008_333_334 + r * 0.001_388_889)))));
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    p * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate() {
        for k in -8700..=8700 {
            let x = k as f32 * 0.01;
            let (got, expected) = (f64::from(exponential(x)), f64::from(x).exp());
            assert!((got / expected - 1.0).abs() < 1e-6, "exp({x}): {got} {expected}");
        }
        assert!(exponential(-1e9) < 1e-37 && exponential(1e9).is_finite());
    }

    #[test]
    fn silu_of_large_values() {
        let y = silu(&[-200.0, 0.0, 200.0]);
        assert!(y[0].abs() < 1e-30 && y[1] == 0.0 && (y[2] - 200.0).abs() < 1e-4);
    }
}
