//! Fixed pieces of training on random data, to measure a machine by: what `weft bench` and `bench/gpu.sh` run.

use crate::{Error, Result};
use candle_core::Tensor;
use weft_core::{Activation, Seed};
use weft_net::Device;
use weft_ops::tensor::{
    FlatOptimizer, FlatOptimizerConfig, Lesson, Network, Parameters, Precision, ResidualMlp, ResidualMlpConfig, Transformer,
    TransformerConfig, regress, run,
};

/// A network with its optimizer and a batch of random inputs and targets.
#[derive(Debug)]
struct Workload<N> {
    network: N,
    optimizer: FlatOptimizer,
    inputs: Vec<f32>,
    condition: Vec<f32>,
    targets: Vec<f32>,
    /// What a forward pass is given.
    frozen: Parameters,
    tensors: (Tensor, Option<Tensor>),
    flops: f64,
}

/// Training steps and forward passes of whatever network.
pub trait Steps {
    /// Takes a number of training steps and returns their mean squared error; waits for the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn train(&mut self, steps: usize) -> Result<f64>;

    /// Runs the network a number of times without keeping anything for gradients, and waits for the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn infer(&self, passes: usize) -> Result<f64>;

    /// Whether all devices hold the same bits.
    ///
    /// # Errors
    /// If a device fails.
    fn agree(&self) -> Result<bool>;

    /// Floating-point operations of the products of one forward pass; a training step has three times as many.
    fn flops(&self) -> f64;
}

/// A workload by name.
///
/// `transformer` takes `BATCHxTOKENSxWIDTHxLAYERS` (heads of 64 features, or 8 if that is fewer; tokens of 64 features in and out, GELU),
/// `residual` takes `BATCHxWIDTHxBLOCKSxLATENT`.
///
/// # Errors
/// A name or shape that is none of these, a precision that the device lacks, or too little memory.
pub fn workload(kind: &str, shape: &str, device: &Device, precision: Precision) -> Result<Box<dyn Steps>> {
    let refuse = |expected| Error::Setting { setting: "workload", expected, got: format!("{kind} {shape}") };
    let sizes: Vec<usize> = shape.split('x').map_while(|size| size.parse().ok().filter(|&size| size > 0)).collect();
    let [batch, second, third, fourth] = sizes[..] else { return Err(refuse("four sizes, as in 16x64x256x6")) };
    match kind {
        "transformer" => {
            let num_heads = (third / 64).max(8);
            if !third.is_multiple_of(num_heads) {
                return Err(refuse("a width that its heads divide"));
            }
            let network = Transformer::new(TransformerConfig {
                inputs: 64,
                outputs: 64,
                tokens: second,
                positions: true,
                d_model: third,
                num_heads,
                num_layers: fourth,
                hidden: 4 * third,
                activation: Activation::Gelu,
                gated: false,
                causal: false,
                conditioning: 0,
            });
            let theta = network.initial(Seed::new(1));
            let flops = batch as f64 * network.flops_per_sequence();
            Ok(Box::new(Workload::new(network, (&theta, flops), [batch, second], (device, precision))?))
        }
        "residual" => {
            let config = ResidualMlpConfig { inputs: fourth, conditioning: 64, width: second, blocks: third, outputs: fourth };
            let network = ResidualMlp::new(config);
            let theta = network.initial(Seed::new(1));
            let flops = batch as f64 * network.flops_per_row();
            Ok(Box::new(Workload::new(network, (&theta, flops), [batch, 1], (device, precision))?))
        }
        _ => Err(refuse("`transformer` or `residual`")),
    }
}

impl<N: Network> Workload<N> {
    fn new(
        network: N,
        (theta, flops): (&[f32], f64),
        [batch, rows]: [usize; 2],
        (device, precision): (&Device, Precision),
    ) -> Result<Self> {
        let config = FlatOptimizerConfig { weight_decay: 0.01, clip_norm: 1.0, ema_decay: 0.999 };
        let optimizer = FlatOptimizer::new(config, theta, device.all(), precision)?;
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
        Ok(Self { network, optimizer, inputs, condition, targets, frozen, tensors: (x, c), flops })
    }
}

impl<N: Network> Steps for Workload<N> {
    fn train(&mut self, steps: usize) -> Result<f64> {
        let lesson = Lesson { inputs: &self.inputs, condition: &self.condition, targets: &self.targets, weights: &[] };
        for _ in 0..steps {
            regress(&self.network, &lesson, self.optimizer.parameters())?;
            self.optimizer.update(1e-4)?;
        }
        Ok(self.optimizer.parameters().take_loss()? / steps as f64)
    }

    fn infer(&self, passes: usize) -> Result<f64> {
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

    fn agree(&self) -> Result<bool> {
        Ok(self.optimizer.parameters().agree()?)
    }

    fn flops(&self) -> f64 {
        self.flops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_devices_learn_what_one_does() {
        for (kind, shape) in [("transformer", "5x3x16x1"), ("residual", "9x16x2x4")] {
            let [mut one, mut two] =
                [1, 2].map(|devices| workload(kind, shape, &Device::cpus(devices), Precision::Single).unwrap());
            for step in 0..20 {
                let losses = [one.train(1).unwrap(), two.train(1).unwrap()];
                assert!((losses[0] - losses[1]).abs() < 1e-5 * losses[0], "{kind}, step {step}: {losses:?}");
            }
            assert!(two.agree().unwrap(), "{kind}");
        }
    }

    #[test]
    fn workloads_learn_and_names_are_checked() {
        for (kind, shape) in [("transformer", "2x3x16x1"), ("residual", "8x16x2x4")] {
            let mut steps = workload(kind, shape, &Device::cpu(), Precision::Single).unwrap();
            let before = steps.train(1).unwrap();
            assert!(steps.train(200).unwrap() < before && steps.infer(2).unwrap().is_finite() && steps.flops() > 0.0, "{kind}");
        }
        for (kind, shape) in [("transformer", "2x3x16"), ("residual", "8x0x2x4"), ("transformer", "1x1x100x1"), ("cnn", "1x1x1x1")]
        {
            let error = workload(kind, shape, &Device::cpu(), Precision::Single).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(shape), "{error}");
        }
    }
}
