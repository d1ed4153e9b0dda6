//! A residual multi-layer perceptron with a conditioning vector: velocity field, denoiser, refiner.
//!
//! `e = W₂·silu(W₁·c)`, `h₀ = W·x + e`, `hⱼ₊₁ = hⱼ + Bⱼ·silu(Aⱼ·LN(hⱼ + e))`, `y = W'·h`, all with biases.
//!
//! Shape legend: `b` rows, `i` inputs, `c` conditioning features, `w` width, `o` outputs.

use super::residual_cpu::{Pass, Saved};
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Storage, Tensor};
use std::ops::Range;
use std::sync::Mutex;
use weft_core::Seed;

/// The sizes of a [`ResidualMlp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidualMlpConfig {
    /// Length of an input row.
    pub inputs: usize,
    /// Length of a conditioning row.
    pub conditioning: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Length of an output row.
    pub outputs: usize,
}

/// A linear map's place in the flat parameters: weight `[in, out]`, then bias `[out]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Affine {
    pub(super) weight: Range<usize>,
    pub(super) bias: Range<usize>,
    pub(super) dims: [usize; 2],
}

/// A residual block's place in the flat parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) gain: Range<usize>,
    pub(super) shift: Range<usize>,
    pub(super) up: Affine,
    pub(super) down: Affine,
}

/// The network's layout; its parameters are a flat vector that the caller owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidualMlp {
    config: ResidualMlpConfig,
    pub(super) condition: [Affine; 2],
    pub(super) input: Affine,
    pub(super) blocks: Vec<Block>,
    pub(super) output: Affine,
    num_parameters: usize,
}

impl ResidualMlp {
    /// Lays out the parameters.
    #[must_use]
    pub fn new(config: ResidualMlpConfig) -> Self {
        let mut at = 0;
        let mut take = |len: usize| {
            at += len;
            at - len..at
        };
        let mut affine =
            |fan_in: usize, fan_out: usize| Affine { weight: take(fan_in * fan_out), bias: take(fan_out), dims: [fan_in, fan_out] };
        let w = config.width;
        let condition = [affine(config.conditioning, w), affine(w, w)];
        let input = affine(config.inputs, w);
        let pairs: Vec<[Affine; 2]> = (0..config.blocks).map(|_| [affine(w, w), affine(w, w)]).collect();
        let output = affine(w, config.outputs);
        let blocks = pairs.into_iter().map(|[up, down]| Block { gain: take(w), shift: take(w), up, down }).collect();
        Self { config, condition, input, blocks, output, num_parameters: at }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> ResidualMlpConfig {
        self.config
    }

    /// The length of the flat parameter vector.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.num_parameters
    }

    /// Floating-point operations of one row's forward pass; forward and backward take about three times as many.
    #[must_use]
    pub fn flops_per_row(&self) -> f64 {
        2.0 * self.num_parameters as f64
    }

    /// Draws initial parameters: uniform `±1/√fan_in`, gains 1, and a zero output map, so that `y = 0` at first.
    #[must_use]
    pub fn initial(&self, seed: Seed) -> Vec<f32> {
        let mut theta = vec![0.0; self.num_parameters];
        let inner = self.blocks.iter().flat_map(|b| [&b.up, &b.down]);
        for (i, affine) in self.condition.iter().chain([&self.input]).chain(inner).enumerate() {
            let bound = 1.0 / (affine.dims[0].max(1) as f32).sqrt();
            let range = affine.weight.start..affine.bias.end;
            let draws = seed.index(i as u64).uniforms(range.len());
            theta[range].iter_mut().zip(draws).for_each(|(t, u)| *t = (2.0 * u - 1.0) * bound);
        }
        for block in &self.blocks {
            theta[block.gain.clone()].fill(1.0);
        }
        theta
    }

    /// Runs the network.
    ///
    /// # Shapes
    /// `x` `[b, i]`, `condition` `[b, c]`, `theta` `[num_parameters]` → `[b, o]`; differentiable in `x` and `theta`.
    ///
    /// # Errors
    /// If the shapes do not fit or a tensor operation fails.
    pub fn forward(&self, x: &Tensor, condition: &Tensor, theta: &Tensor) -> crate::Result<Tensor> {
        if x.device().is_cpu() {
            let op = Fused { network: self.clone(), saved: Mutex::new(None) };
            return Ok(x.contiguous()?.apply_op3(&condition.contiguous()?, theta, op)?);
        }
        Ok(self.composed(x, condition, theta)?)
    }

    /// The same through candle's own operations.
    pub(super) fn composed(&self, x: &Tensor, condition: &Tensor, theta: &Tensor) -> candle_core::Result<Tensor> {
        let slice = |range: &Range<usize>| theta.narrow(0, range.start, range.len());
        let affine =
            |x: &Tensor, a: &Affine| x.matmul(&slice(&a.weight)?.reshape((a.dims[0], a.dims[1]))?)?.broadcast_add(&slice(&a.bias)?);
        let e = affine(&affine(condition, &self.condition[0])?.silu()?, &self.condition[1])?;
        let mut h = (affine(x, &self.input)? + &e)?;
        for block in &self.blocks {
            let s = (&h + &e)?;
            let centred = s.broadcast_sub(&s.mean_keepdim(1)?)?;
            let variance = centred.sqr()?.mean_keepdim(1)?;
            let normal = centred.broadcast_div(&(variance + f64::from(super::residual_cpu::EPSILON))?.sqrt()?)?;
            let normal = normal.broadcast_mul(&slice(&block.gain)?)?.broadcast_add(&slice(&block.shift)?)?;
            h = (&h + affine(&affine(&normal, &block.up)?.silu()?, &block.down)?)?;
        }
        affine(&h, &self.output)
    }
}

/// The whole network as one operation, forward and backward by hand.
struct Fused {
    network: ResidualMlp,
    saved: Mutex<Option<Saved>>,
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "residual-mlp"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, condition, theta) = (contiguous(s1, l1)?, contiguous(s2, l2)?, contiguous(s3, l3)?);
        let config = self.network.config;
        let rows = l1.shape().dims2()?.0;
        if x.len() != rows * config.inputs
            || condition.len() != rows * config.conditioning
            || theta.len() != self.network.num_parameters
        {
            candle_core::bail!("residual-mlp: shapes {:?}, {:?}, {:?} do not fit {config:?}", l1.shape(), l2.shape(), l3.shape());
        }
        let (y, saved) = Pass { network: &self.network, theta, rows }.forward(x, condition);
        *self.saved.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(saved);
        Ok((CpuStorage::F32(y), Shape::from((rows, config.outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        condition: &Tensor,
        theta: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let rows = x.dim(0)?;
        let (x_in, dy) = (x.contiguous()?, dy.contiguous()?);
        let (dx, d_theta) = with_values([&x_in, condition, theta, &dy], |[x, condition, theta, dy]| {
            let pass = Pass { network: &self.network, theta, rows };
            let saved = self.saved.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            let saved = saved.unwrap_or_else(|| pass.forward(x, condition).1);
            pass.backward(x, condition, saved, dy)
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        Ok((Some(dx), None, Some(Tensor::from_vec(d_theta, theta.shape(), theta.device())?)))
    }
}

/// Lends the values of contiguous CPU tensors without a copy.
fn with_values<T>(tensors: [&Tensor; 4], work: impl FnOnce([&[f32]; 4]) -> T) -> candle_core::Result<T> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut values = [[].as_slice(); 4];
    for (slot, (storage, layout)) in values.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { candle_core::bail!("residual-mlp: a tensor is not on the CPU") };
        *slot = contiguous(storage, layout)?;
    }
    Ok(work(values))
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("residual-mlp reads contiguous tensors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn case() -> (ResidualMlp, Tensor, Tensor, Var) {
        let network = ResidualMlp::new(ResidualMlpConfig { inputs: 5, conditioning: 3, width: 24, blocks: 2, outputs: 4 });
        let tensor = |seed: u64, shape: (usize, usize)| {
            Tensor::from_vec(Seed::new(seed).normals(shape.0 * shape.1), shape, &Device::Cpu).unwrap()
        };
        let mut theta = network.initial(Seed::new(1));
        theta.iter_mut().zip(Seed::new(2).normals(network.num_parameters())).for_each(|(t, n)| *t += 0.1 * n);
        let len = theta.len();
        let theta = Var::from_tensor(&Tensor::from_vec(theta, len, &Device::Cpu).unwrap()).unwrap();
        (network, tensor(3, (7, 5)), tensor(4, (7, 3)), theta)
    }

    #[test]
    fn fused_equals_composed_forward_and_backward() {
        let (network, x, c, theta) = case();
        let x = Var::from_tensor(&x).unwrap();
        let weights = Tensor::from_vec(Seed::new(9).normals(28), (7, 4), &Device::Cpu).unwrap();
        let gradients = |y: Tensor| {
            let g = (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            [&x, &theta].map(|v| g.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let fused = network.forward(&x, &c, &theta).unwrap();
        let composed = network.composed(&x, &c, &theta).unwrap();
        let worst = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(worst(&flat(&fused), &flat(&composed)) < 2e-5);
        let ([fx, ft], [cx, ct]) = (gradients(fused), gradients(composed));
        assert!(worst(&fx, &cx) < 1e-4, "dx {}", worst(&fx, &cx));
        assert!(worst(&ft, &ct) < 2e-4, "dtheta {}", worst(&ft, &ct));
        assert!(ft.iter().filter(|g| **g != 0.0).count() > ft.len() / 2);
    }

    #[test]
    fn same_bits_at_any_thread_count() {
        let (network, x, c, theta) = case();
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let y = network.forward(&x, &c, &theta).unwrap();
                let g = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                g.get(&theta).unwrap().to_vec1::<f32>().unwrap()
            })
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    fn starts_at_zero_and_refuses_misfits() {
        let (network, x, c, _) = case();
        let theta = Tensor::new(network.initial(Seed::new(1)), &Device::Cpu).unwrap();
        let y = network.forward(&x, &c, &theta).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y, [0.0; 28]);
        assert!(network.forward(&c, &x, &theta).is_err());
    }
}
