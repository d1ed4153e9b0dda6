//! Fixed pieces of training on random data, to measure a machine by: what `weft bench` and `bench/gpu.sh` run.

use crate::Result;
use candle_core::Tensor;
use weft_core::Seed;
use weft_net::Device;
use weft_ops::tensor::{
    FlatOptimizer, FlatOptimizerConfig, Lesson, Network, Parameters, Precision, ResidualMlp, ResidualMlpConfig, Transformer,
    TransformerConfig, regress, run,
};

/// A network with its optimizer and a batch of random inputs and targets.
#[derive(Debug)]
pub struct Workload<N> {
    network: N,
    optimizer: FlatOptimizer,
    inputs: Vec<f32>,
    condition: Vec<f32>,
    targets: Vec<f32>,
    /// What a forward pass is given.
    frozen: Parameters,
    tensors: (Tensor, Option<Tensor>),
}

impl Workload<Transformer> {
    /// A transformer and a batch of sequences.
    ///
    /// # Errors
    /// A precision that the device lacks, or too little memory.
    pub fn transformer(config: TransformerConfig, batch: usize, device: &Device, precision: Precision) -> Result<Self> {
        let network = Transformer::new(config);
        let theta = network.initial(Seed::new(1));
        Self::new(network, &theta, [batch, config.tokens], (device, precision))
    }
}

impl Workload<ResidualMlp> {
    /// A residual MLP and a batch of rows.
    ///
    /// # Errors
    /// A precision that the device lacks, or too little memory.
    pub fn residual_mlp(config: ResidualMlpConfig, batch: usize, device: &Device, precision: Precision) -> Result<Self> {
        let network = ResidualMlp::new(config);
        let theta = network.initial(Seed::new(1));
        Self::new(network, &theta, [batch, 1], (device, precision))
    }
}

impl<N: Network> Workload<N> {
    fn new(network: N, theta: &[f32], [batch, rows]: [usize; 2], (device, precision): (&Device, Precision)) -> Result<Self> {
        let config = FlatOptimizerConfig { weight_decay: 0.01, clip_norm: 1.0, ema_decay: 0.999 };
        let optimizer = FlatOptimizer::new(config, theta, device.candle(), precision)?;
        let frozen = Parameters::frozen(theta, device.candle(), precision)?;
        let [features_in, features_out] = network.features();
        let inputs = Seed::new(2).normals(batch * rows * features_in);
        let targets = Seed::new(3).normals(batch * rows * features_out);
        let [features, count] = network.conditioning().map_or([0; 2], |[features, group]| [features, batch * rows / group]);
        let condition = Seed::new(4).normals(features * count);
        let tensor = |values: &[f32], shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_slice(values, shape, device.candle())?.to_dtype(precision.dtype())?)
        };
        let x = tensor(&inputs, &[batch, rows, features_in])?;
        let c = if condition.is_empty() { None } else { Some(tensor(&condition, &[count, features])?) };
        Ok(Self { network, optimizer, inputs, condition, targets, frozen, tensors: (x, c) })
    }

    /// Takes a number of training steps and returns their mean squared error; waits for the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn train(&mut self, steps: usize) -> Result<f64> {
        let lesson = Lesson { inputs: &self.inputs, condition: &self.condition, targets: &self.targets, weights: &[] };
        for _ in 0..steps {
            regress(&self.network, &lesson, self.optimizer.parameters())?;
            self.optimizer.update(1e-4)?;
        }
        Ok(self.optimizer.parameters().take_loss()? / steps as f64)
    }

    /// Runs the network a number of times without keeping anything for gradients, and waits for the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn infer(&self, passes: usize) -> Result<f64> {
        let (x, condition) = &self.tensors;
        let mut last = None;
        for _ in 0..passes {
            last = Some(run(&self.network, x, condition.as_ref(), &self.frozen)?);
        }
        // One value is enough to wait for all.
        let value =
            last.map(|y| y.flatten_all()?.narrow(0, 0, 1)?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()).transpose()?;
        Ok(value.map_or(f64::NAN, |v| f64::from(v[0])))
    }
}
