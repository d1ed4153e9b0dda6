//! A residual multi-layer perceptron with a conditioning vector: velocity field, denoiser, refiner.
//!
//! `e = W₂·silu(W₁·c)`, `h₀ = W·x + e`, `hⱼ₊₁ = hⱼ + Bⱼ·silu(Aⱼ·LN(hⱼ + e))`, `y = W'·h`, all with biases.
//!
//! Shape legend: `b` rows, `i` inputs, `c` conditioning features, `w` width, `o` outputs.

use super::network::{Network, Pass, Places, Ran, draw_map, linear_backward, run};
use super::parameters::Parameters;
use crate::backend::{Backend, Batch, Linear, Norm};
use candle_core::Tensor;
use weft_core::{Activation, Seed};

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

/// A residual block's place in the flat parameters.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    norm: Norm,
    up: Linear,
    down: Linear,
}

/// The network's layout; its parameters are a flat vector that the caller owns.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualMlp {
    config: ResidualMlpConfig,
    condition: [Linear; 2],
    input: Linear,
    blocks: Vec<Block>,
    output: Linear,
    num_parameters: usize,
}

impl ResidualMlp {
    /// Lays out the parameters.
    #[must_use]
    pub fn new(config: ResidualMlpConfig) -> Self {
        let mut places = Places::default();
        let w = config.width;
        let condition = [places.linear(config.conditioning, w, true), places.linear(w, w, true)];
        let input = places.linear(config.inputs, w, true);
        let pairs: Vec<[Linear; 2]> = (0..config.blocks).map(|_| [places.linear(w, w, true), places.linear(w, w, true)]).collect();
        let output = places.linear(w, config.outputs, true);
        let blocks = pairs.into_iter().map(|[up, down]| Block { norm: places.norm(w, true), up, down }).collect();
        Self { config, condition, input, blocks, output, num_parameters: places.len }
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
            draw_map(affine, seed.index(i as u64), &mut theta);
        }
        for gain in self.blocks.iter().filter_map(|block| block.norm.gain) {
            theta[gain..gain + self.config.width].fill(1.0);
        }
        theta
    }

    /// Runs the network.
    ///
    /// # Shapes
    /// `x` `[b, i]`, `condition` `[b, c]` → `[b, o]`; differentiable in all of them and in the parameters.
    ///
    /// # Errors
    /// If the shapes do not fit or a tensor operation fails.
    pub fn forward(&self, x: &Tensor, condition: &Tensor, parameters: &Parameters) -> crate::Result<Tensor> {
        run(self, x, Some(condition), parameters)
    }
}

/// What the backward pass needs of the forward pass.
pub struct Saved<B: Backend> {
    condition: [B::Buffer; 2],
    embedding: B::Buffer,
    blocks: Vec<SavedBlock<B>>,
    last: B::Buffer,
}

struct SavedBlock<B: Backend> {
    /// What came in.
    residual: B::Buffer,
    statistics: B::Wide,
    normal: B::Buffer,
    /// Before and after the activation.
    hidden: [B::Buffer; 2],
}

impl Network for ResidualMlp {
    type Saved<B: Backend + 'static> = Saved<B>;

    fn num_parameters(&self) -> usize {
        self.num_parameters
    }

    fn features(&self) -> [usize; 2] {
        [self.config.inputs, self.config.outputs]
    }

    fn conditioning(&self) -> Option<[usize; 2]> {
        Some([self.config.conditioning, 1])
    }

    fn rows_at_once(&self) -> usize {
        1
    }

    fn forward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        x: B::View<'_>,
        condition: Option<B::View<'_>>,
    ) -> crate::Result<Ran<B, Self>> {
        let Pass { backend, theta, rows, keep } = pass;
        let Some(condition) = condition else { return Err(missing_condition()) };
        let batch = Batch::one(rows);
        let [first, second] = &self.condition;
        let (before, after) = backend.linear_activated((first, Activation::Silu), batch, condition, theta)?;
        let embedding = backend.linear(second, batch, backend.view(&after), theta)?;
        let e = backend.view(&embedding);
        let (mut h, _) = backend.linear_residual((&self.input, rows), x, theta, e, None)?;
        let mut blocks = Vec::new();
        for block in &self.blocks {
            let (normal, statistics) = backend.norm(&block.norm, backend.view(&h), Some(e), theta, None)?;
            let (hidden, active) = backend.linear_activated((&block.up, Activation::Silu), batch, backend.view(&normal), theta)?;
            let (next, _) = backend.linear_residual((&block.down, rows), backend.view(&active), theta, backend.view(&h), None)?;
            let residual = std::mem::replace(&mut h, next);
            if keep {
                blocks.push(SavedBlock { residual, statistics, normal, hidden: [hidden, active] });
            }
        }
        let y = backend.linear(&self.output, batch, backend.view(&h), theta)?;
        Ok((y, keep.then_some(Saved { condition: [before, after], embedding, blocks, last: h })))
    }

    fn backward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        (x, condition): (B::View<'_>, Option<B::View<'_>>),
        saved: Saved<B>,
        dy: B::View<'_>,
        gradient: &mut B::Wide,
    ) -> crate::Result<(B::Buffer, Option<B::Buffer>)> {
        let Pass { backend, theta, rows, .. } = pass;
        let Some(condition) = condition else { return Err(missing_condition()) };
        let width = self.config.width;
        let mut dh = linear_backward(&self.output, pass, backend.view(&saved.last), dy, gradient)?;
        let mut de = backend.zeros(rows * width)?;
        let e = backend.view(&saved.embedding);
        for (block, saved) in self.blocks.iter().zip(saved.blocks).rev() {
            let [hidden, active] = &saved.hidden;
            let mut d_hidden = linear_backward(&block.down, pass, backend.view(active), backend.view(&dh), gradient)?;
            backend.activate_backward(Activation::Silu, backend.view(hidden), &mut d_hidden)?;
            let d_normal = linear_backward(&block.up, pass, backend.view(&saved.normal), backend.view(&d_hidden), gradient)?;
            let mut d_sum = backend.zeros(rows * width)?;
            let inputs = (backend.view(&saved.residual), Some(e));
            backend.norm_backward(
                &block.norm,
                inputs,
                &saved.statistics,
                theta,
                None,
                backend.view(&d_normal),
                &mut d_sum,
                gradient,
            )?;
            backend.add(&mut dh, backend.view(&d_sum))?;
            backend.add(&mut de, backend.view(&d_sum))?;
        }
        backend.add(&mut de, backend.view(&dh))?;
        let dx = linear_backward(&self.input, pass, x, backend.view(&dh), gradient)?;
        let [before, after] = &saved.condition;
        let mut d_after = linear_backward(&self.condition[1], pass, backend.view(after), backend.view(&de), gradient)?;
        backend.activate_backward(Activation::Silu, backend.view(before), &mut d_after)?;
        let d_condition = linear_backward(&self.condition[0], pass, condition, backend.view(&d_after), gradient)?;
        Ok((dx, Some(d_condition)))
    }
}

fn missing_condition() -> crate::Error {
    candle_core::Error::Msg("the network takes a condition".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Slot;
    use crate::tensor::Precision;
    use candle_core::Device;

    fn case() -> (ResidualMlp, Tensor, Tensor) {
        let network = ResidualMlp::new(ResidualMlpConfig { inputs: 5, conditioning: 3, width: 24, blocks: 2, outputs: 4 });
        let tensor = |seed: u64, shape: (usize, usize)| {
            Tensor::from_vec(Seed::new(seed).normals(shape.0 * shape.1), shape, &Device::Cpu).unwrap()
        };
        (network, tensor(3, (70, 5)), tensor(4, (70, 3)))
    }

    #[test]
    fn same_bits_at_any_thread_count() {
        let (network, x, c) = case();
        let mut theta = network.initial(Seed::new(1));
        theta.iter_mut().zip(Seed::new(2).normals(network.num_parameters())).for_each(|(t, n)| *t += 0.1 * n);
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let parameters = Parameters::new(&theta, &Device::Cpu, Precision::Single).unwrap();
                let y = network.forward(&x, &c, &parameters).unwrap();
                y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                parameters.read(Slot::Gradient).unwrap()
            })
        };
        let gradient = run(1);
        assert!(gradient.iter().filter(|g| **g != 0.0).count() > gradient.len() / 2);
        assert_eq!(gradient, run(2));
    }

    #[test]
    fn starts_at_zero_and_refuses_misfits() {
        let (network, x, c) = case();
        let theta = Parameters::frozen(&network.initial(Seed::new(1)), &Device::Cpu, Precision::Single).unwrap();
        let y = network.forward(&x, &c, &theta).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y, [0.0; 280]);
        assert!(network.forward(&c, &x, &theta).is_err());
        let y = network.forward(&x, &c, &theta).unwrap();
        assert!(y.sum_all().unwrap().backward().is_err(), "nothing is kept for a backward pass");
        let short = Parameters::frozen(&[0.0; 3], &Device::Cpu, Precision::Single).unwrap();
        assert!(network.forward(&x, &c, &short).unwrap_err().to_string().contains("tensor"));
    }
}
