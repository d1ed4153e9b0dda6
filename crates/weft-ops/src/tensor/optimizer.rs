//! `AdamW`, gradient clipping and a moving average over one flat parameter vector.

use crate::kernels::OptimizerKernel;
use candle_core::{Tensor, Var};
use rayon::prelude::*;
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

/// The optimizer's state; parameters, moments and average have one length.
///
/// It lives on the CPU, where a step is one pass over memory; on a GPU the parameters are brought over and back,
/// which for the small networks here costs less than the dozen kernels of a composed step.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatOptimizer {
    config: FlatOptimizerConfig,
    /// The parameters.
    pub theta: Vec<f32>,
    /// Their exponential moving average.
    pub average: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Steps taken.
    pub step: u64,
}

/// Values a task; a fixed size, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

impl FlatOptimizer {
    /// Starts from initial parameters.
    #[must_use]
    pub fn new(config: FlatOptimizerConfig, theta: Vec<f32>) -> Self {
        let zeros = vec![0.0; theta.len()];
        Self { config, average: theta.clone(), first: zeros.clone(), second: zeros, theta, step: 0 }
    }

    /// The parameters as a variable to differentiate by.
    ///
    /// # Errors
    /// If the device's memory does not hold them.
    pub fn variable(&self, device: &candle_core::Device) -> crate::Result<Var> {
        Ok(Var::from_slice(&self.theta, self.theta.len(), device)?)
    }

    /// Takes one step and returns the gradient's norm before clipping.
    ///
    /// # Errors
    /// If the gradient has another length or cannot be read.
    pub fn update(&mut self, gradient: &Tensor, learning_rate: f64) -> crate::Result<f64> {
        let mut gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        if gradient.len() != self.theta.len() {
            return Err(candle_core::Error::Msg(format!(
                "a gradient of {} values for {} parameters",
                gradient.len(),
                self.theta.len()
            ))
            .into());
        }
        let sums: Vec<f64> = gradient.par_chunks(CHUNK).map(|g| g.iter().map(|&v| f64::from(v) * f64::from(v)).sum()).collect();
        let norm = sums.iter().sum::<f64>().sqrt();
        let scale = if norm > self.config.clip_norm { (self.config.clip_norm / norm) as f32 } else { 1.0 };
        let kernel = OptimizerKernel { optimizer: Optimizer::ADAMW, weight_decay: self.config.weight_decay };
        let keep = self.average_decay() as f32;
        let step = self.step;
        let moments = self.first.par_chunks_mut(CHUNK).zip(self.second.par_chunks_mut(CHUNK));
        let values = self.theta.par_chunks_mut(CHUNK).zip(self.average.par_chunks_mut(CHUNK)).zip(gradient.par_chunks_mut(CHUNK));
        values.zip(moments).for_each(|(((theta, average), gradient), (first, second))| {
            kernel.apply(step + 1, [first, second], theta, gradient, (learning_rate, scale));
            average.iter_mut().zip(&*theta).for_each(|(a, t)| *a = keep * *a + (1.0 - keep) * t);
        });
        self.step += 1;
        Ok(norm)
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
        let n = 20_000;
        let mut optimizer = FlatOptimizer::new(config(), Seed::new(1).normals(n));
        for _ in 0..400 {
            let theta = optimizer.variable(&candle_core::Device::Cpu).unwrap();
            let gradient = theta.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            optimizer.update(gradient.get(&theta).unwrap(), 0.02).unwrap();
        }
        let worst = |v: &[f32]| v.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(worst(&optimizer.theta) < 0.05, "{}", worst(&optimizer.theta));
        assert!(worst(&optimizer.average) < 0.2);
    }

    #[test]
    fn clips_to_the_norm() {
        let mut a = FlatOptimizer::new(config(), vec![0.0; 4]);
        let norm = a.update(&Tensor::new(&[30.0f32, 0.0, 40.0, 0.0], &candle_core::Device::Cpu).unwrap(), 0.1).unwrap();
        assert!((norm - 50.0).abs() < 1e-6);
        assert!((a.first[0] - 0.06).abs() < 1e-6 && (a.first[2] - 0.08).abs() < 1e-6, "{:?}", a.first);
        assert!(a.update(&Tensor::new(&[1.0f32], &candle_core::Device::Cpu).unwrap(), 0.1).is_err());
    }
}
