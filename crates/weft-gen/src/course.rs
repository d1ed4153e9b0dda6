//! What all trainers share: an optimizer on its way through the steps, its saved state, and the loop around it.

use crate::{Artifact, Error, Result};
use candle_core::{Device, Tensor};
use weft_core::{Digest, Monitor, Schedule};
use weft_ops::tensor::{FlatOptimizer, FlatOptimizerConfig, Precision};

/// Queued steps between two looks at the loss.
const STEPS_AHEAD: u64 = 32;

/// A network's parameters on their way through training, and what a saved state of it must agree with.
#[derive(Debug)]
pub struct Course {
    pub(crate) optimizer: FlatOptimizer,
    steps: u64,
    learning_rate: f64,
    fingerprint: String,
}

impl Course {
    /// The start of so many steps at this peak learning rate from initial parameters, in single precision; the first device alone runs what
    /// is not divided.
    pub(crate) fn new(
        initial: &[f32],
        settings: FlatOptimizerConfig,
        (steps, learning_rate, fingerprint): (u64, f64, String),
        devices: &[Device],
    ) -> Result<Self> {
        let optimizer = FlatOptimizer::new(settings, initial, devices, Precision::Single)?;
        Ok(Self { optimizer, steps, learning_rate, fingerprint })
    }

    /// Moves the parameters by their gradient, at the rate of a cosine schedule.
    pub(crate) fn update(&mut self, warmup_steps: u64) -> Result<()> {
        let schedule = Schedule::Cosine { warmup_steps };
        Ok(self.optimizer.update(self.learning_rate * schedule.factor(self.optimizer.step, self.steps))?)
    }

    /// Takes a step down the gradient of a loss, and returns that loss.
    pub(crate) fn descend(&mut self, loss: &Tensor) -> Result<f64> {
        self.descend_beside(&mut [], loss)
    }

    /// The same, with others on their way whose parameters the loss depends on too; each steps by its own gradient.
    pub(crate) fn descend_beside(&mut self, others: &mut [Self], loss: &Tensor) -> Result<f64> {
        let step = self.optimizer.step;
        loss.backward()?;
        for course in std::iter::once(&mut *self).chain(others) {
            course.update(100.min(course.steps / 10))?;
        }
        // Read last: a GPU then works on the whole step while this waits.
        let value = f64::from(loss.to_scalar::<f32>()?);
        if value.is_finite() { Ok(value) } else { Err(Error::Diverged { step }) }
    }

    /// The state of this and others that are as far.
    pub(crate) fn save_beside(&self, others: &[Self]) -> Result<Artifact> {
        let optimizers = std::iter::once(self).chain(others).map(|course| &course.optimizer);
        Ok(Artifact::default().with_optimizers(optimizers)?.with_text("fingerprint", &self.fingerprint))
    }

    /// Goes on from it, all or none.
    pub(crate) fn restore_beside(&mut self, others: &mut [Self], saved: &Artifact) -> Result<()> {
        saved.check_fingerprint(&self.fingerprint)?;
        saved.restore_optimizers(std::iter::once(self).chain(others).map(|course| &mut course.optimizer))
    }
}

/// Something that is trained step by step, and can be saved between any two.
///
/// A step draws from the seed and its own number alone, so training that is restored goes on bit for bit.
pub trait Trainer {
    /// How far training is: what the provided methods work on, and nothing to anyone else.
    fn course(&self) -> &Course;

    /// The same, to go on.
    fn course_mut(&mut self) -> &mut Course;

    /// Trains up to step `until` (at most the configured steps) and returns the mean loss of these steps.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the monitor asks for a stop, after a whole step; [`Error::Diverged`].
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64>;

    /// Steps taken.
    fn step(&self) -> u64 {
        self.course().optimizer.step
    }

    /// The whole state of training, to be saved; all else follows from the settings, the training set and the seed.
    ///
    /// # Errors
    /// If it cannot be read from the device.
    fn save(&self) -> Result<Artifact> {
        self.course().save_beside(&[])
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// [`Error::Artifact`] for a state that lacks something, or is not of these settings, this training set and this seed.
    fn restore(&mut self, saved: &Artifact) -> Result<()> {
        self.course_mut().restore_beside(&mut [], saved)
    }
}

/// [`Trainer::advance`] of a trainer whose steps return their loss.
pub(crate) fn advance<T: Trainer>(
    trainer: &mut T,
    until: u64,
    monitor: &Monitor<'_>,
    mut take_step: impl FnMut(&mut T) -> Result<f64>,
) -> Result<f64> {
    let (mut total, mut count) = (0.0, 0u32);
    while trainer.step() < until.min(trainer.course().steps) {
        if monitor.should_stop() {
            return Err(Error::Interrupted);
        }
        total += take_step(trainer)?;
        count += 1;
        monitor.progress(trainer.step());
    }
    Ok(total / f64::from(count.max(1)))
}

/// [`Trainer::advance`] of a trainer whose steps are queued, and sum their losses where the parameters are.
pub(crate) fn advance_ahead<T: Trainer>(
    trainer: &mut T,
    until: u64,
    monitor: &Monitor<'_>,
    mut take_step: impl FnMut(&mut T) -> Result<()>,
) -> Result<f64> {
    let (mut total, mut count) = (0.0, 0u32);
    let until = until.min(trainer.course().steps);
    while trainer.step() < until {
        if monitor.should_stop() {
            return Err(Error::Interrupted);
        }
        take_step(trainer)?;
        count += 1;
        monitor.progress(trainer.step());
        // Reading a loss waits for the device, which meanwhile has nothing to do.
        if trainer.step() >= until || trainer.step().is_multiple_of(STEPS_AHEAD) {
            total += trainer.course().optimizer.parameters().take_loss()?;
            if !total.is_finite() {
                return Err(Error::Diverged { step: trainer.step() - 1 });
            }
        }
    }
    Ok(total / f64::from(count.max(1)))
}

/// What tells settings and numbers from others.
pub(crate) fn fingerprint(settings: &str, numbers: &[&[f32]]) -> String {
    let of_piece = |piece: &[f32]| *Digest::of_bytes(&piece.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).as_bytes();
    // Piece by piece: numbers may be a whole zoo, of which there need not be a second copy.
    let digests: Vec<Vec<u8>> = numbers.iter().map(|numbers| numbers.chunks(1 << 16).flat_map(of_piece).collect()).collect();
    Digest::of_parts(std::iter::once(settings.as_bytes()).chain(digests.iter().map(Vec::as_slice))).to_string()
}
