//! Parameters with everything that an optimizer keeps for them.

use super::super::{OptimizerStep, Slot};
use super::pool::Pooled;
use super::{Cpu, Real, vectorized};
use rayon::prelude::*;
use weft_core::Optimizer;

/// Values of a task; a fixed size, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// Parameters, gradient, moments and moving average, of one length; all but the first are empty where nothing is trained.
#[derive(Debug)]
pub struct CpuParameters<T> {
    theta: Pooled<T>,
    average: Pooled<T>,
    first: Pooled<T>,
    second: Pooled<T>,
    gradient: Pooled<T>,
    norm: f64,
}

impl<T: Real> CpuParameters<T> {
    pub(super) fn new(cpu: &Cpu<T>, theta: &[f32], trained: bool) -> Self {
        let values: Vec<T> = theta.iter().map(|&v| T::from_f32(v)).collect();
        let kept = if trained { values.len() } else { 0 };
        let zeros = vec![T::ZERO; kept];
        let [first, second, gradient] = [0; 3].map(|_| cpu.from_slice(&zeros));
        Self { theta: cpu.from_slice(&values), average: cpu.from_slice(&values[..kept]), first, second, gradient, norm: f64::NAN }
    }

    pub(super) fn theta(&self) -> &[T] {
        &self.theta
    }

    pub(super) fn theta_and_gradient(&mut self) -> (&[T], &mut Pooled<T>) {
        (&self.theta, &mut self.gradient)
    }

    pub(super) fn norm(&self) -> f64 {
        self.norm
    }

    pub(super) fn slot(&self, slot: Slot) -> &[T] {
        match slot {
            Slot::Theta => &self.theta,
            Slot::Average => &self.average,
            Slot::First => &self.first,
            Slot::Second => &self.second,
            Slot::Gradient => &self.gradient,
        }
    }

    pub(super) fn slot_mut(&mut self, slot: Slot) -> &mut [T] {
        match slot {
            Slot::Theta => &mut self.theta,
            Slot::Average => &mut self.average,
            Slot::First => &mut self.first,
            Slot::Second => &mut self.second,
            Slot::Gradient => &mut self.gradient,
        }
    }

    pub(super) fn step(&mut self, step: &OptimizerStep) {
        let mut scale = 1.0;
        self.norm = f64::NAN;
        if let Some(clip) = step.clip_norm {
            let sums: Vec<f64> =
                self.gradient.par_chunks(CHUNK).map(|g| g.iter().map(|&v| v.to_f64() * v.to_f64()).sum()).collect();
            self.norm = sums.iter().sum::<f64>().sqrt();
            if self.norm > clip {
                scale = clip / self.norm;
            }
        }
        let rule = Rule::new(step, scale);
        let moments = self.first.par_chunks_mut(CHUNK).zip(self.second.par_chunks_mut(CHUNK));
        let values =
            self.theta.par_chunks_mut(CHUNK).zip(self.average.par_chunks_mut(CHUNK)).zip(self.gradient.par_chunks_mut(CHUNK));
        values.zip(moments).for_each(|(((theta, average), gradient), (first, second))| {
            vectorized(
                #[inline(always)]
                || rule.apply([theta, average, gradient, first, second]),
            );
        });
    }
}

/// The constants of a step.
struct Rule<T> {
    optimizer: Optimizer,
    rate: T,
    scale: T,
    decay: T,
    shrink: T,
    beta1: T,
    beta2: T,
    root: T,
    epsilon: T,
    keep: T,
}

impl<T: Real> Rule<T> {
    fn new(step: &OptimizerStep, scale: f64) -> Self {
        let t = i32::try_from(step.step).unwrap_or(i32::MAX);
        let decoupled = matches!(step.optimizer, Optimizer::AdamW { .. });
        let (beta1, beta2, epsilon, rate, root) = match step.optimizer {
            Optimizer::Sgd { momentum } => (momentum, 0.0, 0.0, step.learning_rate, 1.0),
            Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
                (beta1, beta2, epsilon, step.learning_rate / (1.0 - beta1.powi(t)), 1.0 / (1.0 - beta2.powi(t)).sqrt())
            }
        };
        let [rate, scale, beta1, beta2, root, epsilon, keep] =
            [rate, scale, beta1, beta2, root, epsilon, step.average_decay].map(T::from_f64);
        let decay = T::from_f64(if decoupled { 0.0 } else { step.weight_decay });
        let shrink = T::from_f64(if decoupled { 1.0 - step.learning_rate * step.weight_decay } else { 1.0 });
        Self { optimizer: step.optimizer, rate, scale, decay, shrink, beta1, beta2, root, epsilon, keep }
    }

    #[inline(always)]
    fn apply(&self, [theta, average, gradient, first, second]: [&mut [T]; 5]) {
        let values = theta.iter_mut().zip(average).zip(gradient).zip(first.iter_mut().zip(second));
        if matches!(self.optimizer, Optimizer::Sgd { .. }) {
            for (((theta, average), gradient), (velocity, _)) in values {
                *velocity = self.beta1 * *velocity + *gradient * self.scale + self.decay * *theta;
                *theta -= self.rate * *velocity;
                *average = self.keep * *average + (T::ONE - self.keep) * *theta;
                *gradient = T::ZERO;
            }
            return;
        }
        for (((theta, average), gradient), (first, second)) in values {
            let g = *gradient * self.scale + self.decay * *theta;
            *first = self.beta1 * *first + (T::ONE - self.beta1) * g;
            *second = self.beta2 * *second + (T::ONE - self.beta2) * g * g;
            *theta = *theta * self.shrink - self.rate * *first / (second.sqrt() * self.root + self.epsilon);
            *average = self.keep * *average + (T::ONE - self.keep) * *theta;
            *gradient = T::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Backend;
    use super::*;
    use crate::kernels::{OptimizerKernel, OptimizerState};
    use weft_core::Seed;

    /// Both implementations of each rule, which share no code, take the same steps.
    #[test]
    fn steps_as_the_engine_does() {
        for optimizer in [Optimizer::SGD, Optimizer::Sgd { momentum: 0.9 }, Optimizer::ADAM, Optimizer::ADAMW] {
            let cpu = Cpu::<f32>::new();
            let start = Seed::new(1).normals(1000);
            let kernel = OptimizerKernel { optimizer, weight_decay: 0.1 };
            let mut state = OptimizerState::new(optimizer, 1000);
            let mut expected = start.clone();
            let mut parameters = cpu.parameters(&start, true).unwrap();
            for step in 1..=5 {
                let gradient = Seed::new(2).index(step).normals(1000);
                kernel.step(&mut state, &mut expected, &mut gradient.clone(), 0.01, 1.0);
                cpu.write(&mut parameters, Slot::Gradient, &gradient).unwrap();
                let step =
                    OptimizerStep { optimizer, weight_decay: 0.1, learning_rate: 0.01, clip_norm: None, average_decay: 0.5, step };
                cpu.optimizer_step(&mut parameters, &step).unwrap();
            }
            let apart = parameters.theta().iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(apart < 1e-5, "{optimizer:?}: {apart}");
            assert!(parameters.slot(Slot::Gradient).iter().all(|&g| g == 0.0));
            let lag = parameters.slot(Slot::Average).iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(lag > 1e-4 && lag < 0.1, "{optimizer:?}: the average lags by {lag}");
        }
    }
}
