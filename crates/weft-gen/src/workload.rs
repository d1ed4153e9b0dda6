//! Fixed pieces of training on random data, to measure a machine by: what `weft bench` and `bench/gpu.sh` run.

use crate::Result;
use candle_core::Tensor;
use weft_core::Seed;
use weft_net::Device;
use weft_ops::tensor::{
    FlatOptimizer, FlatOptimizerConfig, Network, Precision, ResidualMlp, ResidualMlpConfig, Transformer, TransformerConfig, run,
};

/// A network with its optimizer and a batch of random inputs and targets.
#[derive(Debug)]
pub struct Workload<N> {
    network: N,
    optimizer: FlatOptimizer,
    inputs: Tensor,
    condition: Option<Tensor>,
    targets: Tensor,
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
        let draw = |seed: u64, shape: [usize; 3]| -> Result<Tensor> {
            let values = Seed::new(seed).normals(shape.iter().product());
            Ok(Tensor::from_vec(values, shape.to_vec(), device.candle())?)
        };
        let [inputs, outputs] = network.features();
        let condition = match network.conditioning() {
            Some([features, group]) => Some(draw(4, [1, batch * rows / group, features])?.squeeze(0)?),
            None => None,
        };
        Ok(Self {
            optimizer,
            inputs: draw(2, [batch, rows, inputs])?,
            condition,
            targets: draw(3, [batch, rows, outputs])?,
            network,
        })
    }

    /// Takes a number of training steps and returns the last one's mean squared error; waits for the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn train(&mut self, steps: usize) -> Result<f64> {
        let mut last = None;
        for _ in 0..steps {
            let y = run(&self.network, &self.inputs, self.condition.as_ref(), self.optimizer.parameters())?;
            let loss = (y - &self.targets)?.sqr()?.mean_all()?;
            loss.backward()?;
            self.optimizer.update(1e-4)?;
            last = Some(loss);
        }
        last.map_or(Ok(f64::NAN), |loss| Ok(f64::from(loss.to_scalar::<f32>()?)))
    }

    /// Runs the network a number of times without keeping anything for gradients, and waits for the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn infer(&self, passes: usize) -> Result<f64> {
        let theta = self.optimizer.average()?;
        let device = self.inputs.device();
        let parameters = weft_ops::tensor::Parameters::frozen(&theta, device, self.optimizer.parameters().precision())?;
        let mut last = None;
        for _ in 0..passes {
            last = Some(run(&self.network, &self.inputs, self.condition.as_ref(), &parameters)?);
        }
        last.map_or(Ok(f64::NAN), |y| Ok(f64::from(y.mean_all()?.to_scalar::<f32>()?)))
    }
}
