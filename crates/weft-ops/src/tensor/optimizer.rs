//! `AdamW`, gradient clipping and a moving average over the flat parameters of a network.

use super::parameters::{Parameters, Precision};
use crate::backend::{OptimizerStep, Slot};
use candle_core::Device;
use weft_core::Optimizer;

/// Settings of a [`FlatOptimizer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlatOptimizerConfig {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The gradient is scaled down to this norm if it is longer.
    pub clip_norm: f64,
    /// Decay of the moving average of the parameters.
    pub ema_decay: f64,
}

/// Parameters that are trained, and how.
#[derive(Debug, Clone)]
pub struct FlatOptimizer {
    config: FlatOptimizerConfig,
    parameters: Parameters,
    /// Steps taken.
    pub step: u64,
}

impl FlatOptimizer {
    /// Starts from initial parameters, on one device or on several that train together.
    ///
    /// # Errors
    /// If a device's memory does not hold them, or the devices cannot be joined.
    pub fn new(config: FlatOptimizerConfig, theta: &[f32], devices: &[Device], precision: Precision) -> crate::Result<Self> {
        Ok(Self { config, parameters: Parameters::on_devices(theta, devices, precision)?, step: 0 })
    }

    /// The parameters, for a network's passes.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Takes one step with the gradient that backward passes have summed, on all devices.
    ///
    /// # Errors
    /// If a device fails.
    pub fn update(&mut self, learning_rate: f64) -> crate::Result<()> {
        let step = OptimizerStep {
            optimizer: Optimizer::ADAMW,
            weight_decay: self.config.weight_decay,
            learning_rate,
            clip_norm: Some(self.config.clip_norm),
            average_decay: self.average_decay(),
            step: self.step + 1,
        };
        self.parameters.step(&step)?;
        self.step += 1;
        Ok(())
    }

    /// The moving average of the parameters.
    ///
    /// # Errors
    /// If the device fails.
    pub fn average(&self) -> crate::Result<Vec<f32>> {
        self.parameters.read(Slot::Average)
    }

    /// The average's decay at this step: `min(decay, (1 + s) / (10 + s))`, so that the start is forgotten.
    fn average_decay(&self) -> f64 {
        let s = self.step as f64;
        self.config.ema_decay.min((1.0 + s) / (10.0 + s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Seed;

    fn config() -> FlatOptimizerConfig {
        FlatOptimizerConfig { weight_decay: 0.0, clip_norm: 1.0, ema_decay: 0.99 }
    }

    #[test]
    fn descends_a_bowl_and_the_average_follows() {
        let start = Seed::new(1).normals(20_000);
        let mut optimizer = FlatOptimizer::new(config(), &start, &[Device::Cpu], Precision::Single).unwrap();
        for _ in 0..400 {
            let gradient: Vec<f32> = optimizer.parameters().read(Slot::Theta).unwrap().iter().map(|t| 2.0 * t).collect();
            optimizer.parameters().write(Slot::Gradient, &gradient).unwrap();
            optimizer.update(0.02).unwrap();
        }
        let worst = |v: &[f32]| v.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let theta = optimizer.parameters().read(Slot::Theta).unwrap();
        assert!(worst(&theta) < 0.05, "{}", worst(&theta));
        assert!(worst(&optimizer.average().unwrap()) < 0.2);
    }

    #[test]
    fn clips_to_the_norm() {
        let mut a = FlatOptimizer::new(config(), &[0.0; 4], &[Device::Cpu], Precision::Single).unwrap();
        a.parameters().write(Slot::Gradient, &[30.0, 0.0, 40.0, 0.0]).unwrap();
        a.update(0.1).unwrap();
        assert!((a.parameters().gradient_norm().unwrap() - 50.0).abs() < 1e-5);
        let first = a.parameters().read(Slot::First).unwrap();
        assert!((first[0] - 0.06).abs() < 1e-6 && (first[2] - 0.08).abs() < 1e-6, "{first:?}");
        assert!(a.parameters().write(Slot::Gradient, &[1.0]).is_err());
    }
}
