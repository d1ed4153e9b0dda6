//! Solvers of the flow's ordinary differential equation `dx/dt = v(x, t)` from noise (`t = 0`) to data (`t = 1`).
//!
//! A sampler knows no network: it calls `velocity(x_t, t)`. Times are equally spaced.

use candle_core::Tensor;

/// The rule of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// One evaluation a step: `x ← x + h·v(x, t)`.
    Euler,
    /// Heun's second-order rule: two evaluations a step (Karras et al. 2022, Algorithm 1, without noise).
    Heun,
    /// The classical fourth-order Runge–Kutta rule: four evaluations a step.
    Rk4,
}

/// A sampler with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerConfig {
    /// The rule.
    pub sampler: Sampler,
    /// Steps from noise to data.
    pub steps: usize,
    /// Classifier-free guidance: `v = v(∅) + s·(v(c) − v(∅))`; 1 is the plain conditional velocity (Ho & Salimans 2022).
    pub guidance_scale: f64,
}

impl SamplerConfig {
    /// Velocity evaluations of one sample, guidance not counted.
    #[must_use]
    pub fn evaluations(&self) -> usize {
        self.steps
            * match self.sampler {
                Sampler::Euler => 1,
                Sampler::Heun => 2,
                Sampler::Rk4 => 4,
            }
    }

    /// Whether the condition is exaggerated or played down, which takes a second evaluation without it.
    #[must_use]
    pub fn is_guided(&self) -> bool {
        (self.guidance_scale - 1.0).abs() > 1e-12
    }

    /// Integrates from noise to data.
    ///
    /// # Errors
    /// Those of `velocity`, or of tensor arithmetic.
    pub fn integrate<E: From<candle_core::Error>>(
        &self,
        noise: Tensor,
        velocity: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        self.integrate_from(noise, 0.0, velocity)
    }

    /// Integrates from `x_t` at a time in `[0, 1]` to data, in steps that are no longer than those of [`SamplerConfig::integrate`].
    ///
    /// # Errors
    /// As there.
    pub fn integrate_from<E: From<candle_core::Error>>(
        &self,
        mut x_t: Tensor,
        time: f64,
        mut velocity: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let left = 1.0 - time;
        let steps = (self.steps as f64 * left).ceil() as usize;
        let h = left / steps.max(1) as f64;
        for step in 0..steps {
            let t = time + step as f64 * h;
            let k1 = velocity(&x_t, t)?;
            x_t = match self.sampler {
                Sampler::Euler => along(&x_t, &k1, h)?,
                Sampler::Heun => {
                    let k2 = velocity(&along(&x_t, &k1, h)?, t + h)?;
                    along(&along(&x_t, &k1, h / 2.0)?, &k2, h / 2.0)?
                }
                Sampler::Rk4 => {
                    let k2 = velocity(&along(&x_t, &k1, h / 2.0)?, t + h / 2.0)?;
                    let k3 = velocity(&along(&x_t, &k2, h / 2.0)?, t + h / 2.0)?;
                    let k4 = velocity(&along(&x_t, &k3, h)?, t + h)?;
                    let ends = along(&along(&x_t, &k1, h / 6.0)?, &k4, h / 6.0)?;
                    along(&along(&ends, &k2, h / 3.0)?, &k3, h / 3.0)?
                }
            };
        }
        Ok(x_t)
    }
}

fn along(x: &Tensor, v: &Tensor, h: f64) -> candle_core::Result<Tensor> {
    x + (v * h)?
}
