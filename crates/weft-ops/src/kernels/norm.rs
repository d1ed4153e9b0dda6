//! Batch norm of image batches in [blocks](super::lanes) and layer norm of rows, forward and backward.

use super::{lanes, load};
use pulp::{Arch, Simd, WithSimd};

/// What running statistics move by at each training batch, `PyTorch`'s default.
pub const BATCH_NORM_MOMENTUM: f32 = 0.1;

/// More lanes than any vector has.
const MAX_LANES: usize = 64;

/// A batch norm's weights: running statistics and an affine map a channel, `[c]` each.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Factor.
    pub gain: &'a [f32],
    /// Summand.
    pub bias: &'a [f32],
    /// Running mean.
    pub mean: &'a [f32],
    /// Running variance.
    pub variance: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// What a batch norm subtracts and multiplies by, `[c]` each; kept from the forward for the backward pass.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Moments {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// `1 / √(variance + ε)` of each channel.
    pub scale: Vec<f32>,
}

/// Gradients with respect to a batch norm's weights, `[c]` each; to be added to.
#[derive(Debug)]
pub struct BatchNormGradient<'a> {
    /// Of the gain.
    pub gain: &'a mut [f32],
    /// Of the bias.
    pub bias: &'a mut [f32],
}

/// Normalizes by the batch's own statistics, as in training, and returns the running statistics as they are after it.
///
/// `y = (x − μ) / √(σ² + ε) · gain + bias`, with the mean `μ` and the variance `σ²` over examples and pixels. Running statistics
/// move by [`BATCH_NORM_MOMENTUM`]; the variance that enters them is the unbiased one.
///
/// # Shapes
/// `x` and `y` `[blocks, c, pixels, lanes]` with `examples` examples; returns mean and variance, `[c]`.
///
/// # Panics
/// If the lengths do not fit.
///
/// # References
/// Ioffe and Szegedy, *Batch normalization*, 2015, algorithm 1.
pub fn batch_norm_train(norm: &BatchNorm<'_>, examples: usize, x: &[f32], y: &mut [f32], moments: &mut Moments) -> [Vec<f32>; 2] {
    let shape = BlockShape::new(norm.gain.len(), examples, x);
    let count = (shape.pixels * examples) as f64;
    let sums = Arch::new().dispatch(Sums { shape, x, with: With::One });
    let mean: Vec<f32> = sums.iter().map(|s| (s / count) as f32).collect();
    let squares = Arch::new().dispatch(Sums { shape, x, with: With::Deviation(&mean) });
    moments.scale = squares.iter().map(|s| ((s / count + f64::from(norm.epsilon)).sqrt().recip()) as f32).collect();
    moments.mean = mean;
    affine(norm, shape, moments, x, y);
    let unbiased = (count - 1.0).max(1.0);
    let moved = |old: &[f32], new: &dyn Fn(usize) -> f32| {
        old.iter().enumerate().map(|(c, v)| v + BATCH_NORM_MOMENTUM * (new(c) - v)).collect::<Vec<f32>>()
    };
    [moved(norm.mean, &|c| moments.mean[c]), moved(norm.variance, &|c| (squares[c] / unbiased) as f32)]
}

/// Normalizes by the running statistics, as after training.
///
/// # Shapes
/// As for [`batch_norm_train`].
///
/// # Panics
/// If the lengths do not fit.
pub fn batch_norm_infer(norm: &BatchNorm<'_>, examples: usize, x: &[f32], y: &mut [f32], moments: &mut Moments) {
    moments.mean.clear();
    moments.mean.extend_from_slice(norm.mean);
    moments.scale.clear();
    moments.scale.extend(norm.variance.iter().map(|v| (v + norm.epsilon).sqrt().recip()));
    affine(norm, BlockShape::new(norm.gain.len(), examples, x), moments, x, y);
}

/// The backward pass of [`batch_norm_train`]: adds to `dx`, also through the batch's statistics, and to the weights' gradients.
///
/// # Shapes
/// As for [`batch_norm_train`]; `moments` are what it left.
///
/// # Panics
/// If the lengths do not fit.
pub fn batch_norm_train_backward(
    (gain, moments): (&[f32], &Moments),
    examples: usize,
    x: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    gradient: &mut BatchNormGradient<'_>,
) {
    let shape = BlockShape::new(gain.len(), examples, x);
    let [sums, products] = weight_gradients(shape, moments, x, dy, gradient);
    let Some(dx) = dx else { return };
    let count = (shape.pixels * examples) as f64;
    // dx = gain·scale·(dy − mean(dy) − x̂·mean(dy·x̂)), written as dy·a + x·b + c.
    let coefficients = (0..gain.len()).map(|c| {
        let (scale, mean) = (f64::from(moments.scale[c]), f64::from(moments.mean[c]));
        let a = f64::from(gain[c]) * scale;
        let b = -a * scale * products[c] / count;
        [a as f32, b as f32, (-a * sums[c] / count - b * mean) as f32]
    });
    Arch::new().dispatch(Combine { shape, coefficients: &coefficients.collect::<Vec<_>>(), x, dy, dx });
}

/// The backward pass of [`batch_norm_infer`]; it returns the gradients with respect to the running mean and variance.
///
/// # Shapes
/// As for [`batch_norm_train_backward`]; returns `[c]` each.
///
/// # Panics
/// If the lengths do not fit.
pub fn batch_norm_infer_backward(
    (gain, moments): (&[f32], &Moments),
    examples: usize,
    x: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    gradient: &mut BatchNormGradient<'_>,
) -> [Vec<f32>; 2] {
    let shape = BlockShape::new(gain.len(), examples, x);
    let [sums, products] = weight_gradients(shape, moments, x, dy, gradient);
    if let Some(dx) = dx {
        let coefficients: Vec<[f32; 3]> = gain.iter().zip(&moments.scale).map(|(g, s)| [g * s, 0.0, 0.0]).collect();
        Arch::new().dispatch(Combine { shape, coefficients: &coefficients, x, dy, dx });
    }
    let factors: Vec<[f64; 2]> = gain.iter().zip(&moments.scale).map(|(&g, &s)| [f64::from(g), f64::from(s)]).collect();
    let d_mean = factors.iter().zip(&sums).map(|([g, s], sum)| (-g * s * sum) as f32).collect();
    let d_variance = factors.iter().zip(&products).map(|([g, s], product)| (-0.5 * g * s * s * product) as f32).collect();
    [d_mean, d_variance]
}

/// Adds `Σ dy` and `Σ dy·x̂` to the gradients of bias and gain, and returns both.
fn weight_gradients(
    shape: BlockShape,
    moments: &Moments,
    x: &[f32],
    dy: &[f32],
    gradient: &mut BatchNormGradient<'_>,
) -> [Vec<f64>; 2] {
    assert_eq!(x.len(), dy.len(), "dy is not as long as x");
    let sums = Arch::new().dispatch(Sums { shape, x: dy, with: With::One });
    let mut products = Arch::new().dispatch(Sums { shape, x: dy, with: With::Centred(x, &moments.mean) });
    products.iter_mut().zip(&moments.scale).for_each(|(p, &scale)| *p *= f64::from(scale));
    gradient.bias.iter_mut().zip(&sums).for_each(|(slot, &v)| *slot += v as f32);
    gradient.gain.iter_mut().zip(&products).for_each(|(slot, &v)| *slot += v as f32);
    [sums, products]
}

/// `y = x·(scale·gain) + (bias − mean·scale·gain)`.
fn affine(norm: &BatchNorm<'_>, shape: BlockShape, moments: &Moments, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "y is not as long as x");
    let coefficients: Vec<[f32; 2]> = (0..shape.channels)
        .map(|c| {
            let factor = moments.scale[c] * norm.gain[c];
            [factor, norm.bias[c] - moments.mean[c] * factor]
        })
        .collect();
    Arch::new().dispatch(Affine { shape, coefficients: &coefficients, x, y });
}

#[derive(Clone, Copy)]
struct BlockShape {
    channels: usize,
    pixels: usize,
    /// Examples; the lanes past them are padding.
    examples: usize,
}

impl BlockShape {
    fn new(channels: usize, examples: usize, x: &[f32]) -> Self {
        let planes = examples.next_multiple_of(lanes()) * channels;
        assert!(planes > 0 && x.len().is_multiple_of(planes), "x is not [blocks, c, pixels, lanes]");
        Self { channels, pixels: x.len() / planes, examples }
    }

    /// 1 in the lanes of a block that hold examples, else 0.
    #[inline(always)]
    fn mask<S: Simd>(&self, simd: S, block: usize) -> S::f32s {
        let used = self.examples.saturating_sub(block * S::F32_LANES).min(S::F32_LANES);
        load(simd, &[1.0; MAX_LANES][..used])
    }

    /// The planes of a tensor with their channels and masks.
    #[inline(always)]
    fn plane<S: Simd>(&self, simd: S, at: usize) -> (usize, S::f32s) {
        (at % self.channels, self.mask(simd, at / self.channels))
    }
}

/// Sums of each channel over examples and pixels, in `f64` beyond a plane.
struct Sums<'a> {
    shape: BlockShape,
    x: &'a [f32],
    with: With<'a>,
}

/// What is summed.
enum With<'a> {
    /// `x`.
    One,
    /// `(x − mean)²`.
    Deviation(&'a [f32]),
    /// `x·(other − mean)`.
    Centred(&'a [f32], &'a [f32]),
}

impl WithSimd for Sums<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let mut sums = vec![0.0f64; self.shape.channels];
        let pixels = self.shape.pixels;
        for (at, plane) in S::as_simd_f32s(self.x).0.chunks_exact(pixels).enumerate() {
            let (channel, mask) = self.shape.plane(simd, at);
            let mut sum = simd.splat_f32s(0.0);
            match self.with {
                With::One => {
                    for &v in plane {
                        sum = simd.add_f32s(sum, v);
                    }
                }
                With::Deviation(mean) => {
                    let mean = simd.splat_f32s(mean[channel]);
                    for &v in plane {
                        let d = simd.sub_f32s(v, mean);
                        sum = simd.mul_add_f32s(d, d, sum);
                    }
                }
                With::Centred(other, mean) => {
                    let mean = simd.splat_f32s(mean[channel]);
                    for (&v, &o) in plane.iter().zip(&S::as_simd_f32s(other).0[at * pixels..][..pixels]) {
                        sum = simd.mul_add_f32s(v, simd.sub_f32s(o, mean), sum);
                    }
                }
            }
            sums[channel] += f64::from(simd.reduce_sum_f32s(simd.mul_f32s(sum, mask)));
        }
        sums
    }
}

/// `y = a·x + b`, with coefficients a channel.
struct Affine<'a> {
    shape: BlockShape,
    coefficients: &'a [[f32; 2]],
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Affine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let planes = S::as_simd_f32s(self.x).0.chunks_exact(self.shape.pixels);
        for (at, (x, y)) in planes.zip(S::as_mut_simd_f32s(self.y).0.chunks_exact_mut(self.shape.pixels)).enumerate() {
            let [a, b] = self.coefficients[at % self.shape.channels];
            let (a, b) = (simd.splat_f32s(a), simd.splat_f32s(b));
            for (&x, y) in x.iter().zip(y) {
                *y = simd.mul_add_f32s(a, x, b);
            }
        }
    }
}

/// Adds `a·dy + b·x + c` to `dx` in the lanes that hold examples, with coefficients a channel.
struct Combine<'a> {
    shape: BlockShape,
    coefficients: &'a [[f32; 3]],
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl WithSimd for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let pixels = self.shape.pixels;
        let inputs = S::as_simd_f32s(self.x).0.chunks_exact(pixels).zip(S::as_simd_f32s(self.dy).0.chunks_exact(pixels));
        for (at, ((x, dy), dx)) in inputs.zip(S::as_mut_simd_f32s(self.dx).0.chunks_exact_mut(pixels)).enumerate() {
            let (channel, mask) = self.shape.plane(simd, at);
            let [a, b, c] = self.coefficients[channel];
            let a = simd.mul_f32s(mask, simd.splat_f32s(a));
            let b = simd.mul_f32s(mask, simd.splat_f32s(b));
            let c = simd.mul_f32s(mask, simd.splat_f32s(c));
            for ((&x, &dy), dx) in x.iter().zip(dy).zip(dx) {
                let sum = simd.mul_add_f32s(a, dy, simd.mul_add_f32s(b, x, c));
                *dx = simd.add_f32s(*dx, sum);
            }
        }
    }
}

/// Normalizes each row to mean 0 and variance 1, then scales and shifts: `y = (x − μ) / √(σ² + ε) · gain + bias`.
///
/// # Shapes
/// `gain` and `bias` `[d]`, `x` and `y` `[b, d]`.
///
/// # Panics
/// If the lengths do not fit.
///
/// # References
/// Ba, Kiros and Hinton, *Layer normalization*, 2016.
pub fn layer_norm_forward([gain, bias]: [&[f32]; 2], epsilon: f32, x: &[f32], y: &mut [f32]) {
    let width = gain.len();
    assert!(bias.len() == width && x.len() == y.len() && x.len().is_multiple_of(width), "x is not [b, d]");
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let [mean, scale] = row_moments(x, epsilon);
        for (((y, &x), &gain), &bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
            *y = (x - mean) * scale * gain + bias;
        }
    }
}

/// The backward pass of [`layer_norm_forward`]: adds to `dx` and to the gradients of gain and bias.
///
/// # Shapes
/// As for [`layer_norm_forward`].
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm_backward(
    gain: &[f32],
    epsilon: f32,
    x: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    [d_gain, d_bias]: [&mut [f32]; 2],
) {
    let width = gain.len();
    assert!(x.len() == dy.len() && x.len().is_multiple_of(width), "x is not [b, d]");
    let mut rows = dx.map(|dx| dx.chunks_exact_mut(width));
    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
        let [mean, scale] = row_moments(x, epsilon);
        let [mut sum, mut product] = [0.0f32; 2];
        for (i, (&x, &dy)) in x.iter().zip(dy).enumerate() {
            let normal = (x - mean) * scale;
            d_gain[i] += dy * normal;
            d_bias[i] += dy;
            sum += dy * gain[i];
            product += dy * gain[i] * normal;
        }
        let (sum, product) = (sum / width as f32, product / width as f32);
        let Some(dx) = rows.as_mut().and_then(Iterator::next) else { continue };
        for (i, slot) in dx.iter_mut().enumerate() {
            *slot += scale * (dy[i] * gain[i] - sum - (x[i] - mean) * scale * product);
        }
    }
}

/// Mean and `1 / √(variance + ε)`.
fn row_moments(x: &[f32], epsilon: f32) -> [f32; 2] {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / x.len() as f32;
    [mean, (variance + epsilon).sqrt().recip()]
}
