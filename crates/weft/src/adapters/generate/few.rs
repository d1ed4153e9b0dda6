//! A few gradient steps on the very sample that generators are shown: what can be had of it without a generator, but not in one pass.
//!
//! Steps are those of Adam with a constant learning rate, each on the whole sample, from the one adapter of all training languages or from
//! what the hyper-decoder makes of the sample. Rates, and the number of steps behind the hyper-decoder, are chosen on training languages: a
//! sample is drawn from the text of each, and judged by another piece of that text which it does not touch. Both starts have been
//! trained on that text, so that this favors small steps; the rows of all numbers of steps are there to see.
//!
//! # References
//! Kingma & Ba 2015, algorithm 1.

use super::learn::{Learnt, Seen};
use super::shown::{self, Texts};
use super::{ALL, Experiment, Judge};
use crate::config::FewStepsConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use weft_core::{Monitor, Seed, embed_bytes};
use weft_eval::conditional::{TaskMeasurements, TaskRowKind};
use weft_gen::Generator as _;
use weft_net::adapters::{AdapterTask, Adapters};

/// Decays of the moments, and what is added to the root of the second.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;
/// A piece of text that steps are judged by has so many times a sample's bytes.
const JUDGED: usize = 8;

/// A few gradient steps from one start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FewStepsRow {
    /// Its row in the evaluation.
    pub name: String,
    /// Steps on the sample.
    pub steps: u64,
    /// The learning rate that was best for so many steps on training languages.
    pub learning_rate: f64,
    /// Bits a byte there.
    pub tried_bits: f64,
    /// Seconds from a sample to an adapter, one at a time, the median over held-out languages and their samples.
    pub sample_secs: f64,
}

/// A few gradient steps on the samples that generators are shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FewStepsView {
    /// From the one adapter of all training languages, by each number of steps.
    pub from_all: Vec<FewStepsRow>,
    /// Which of these training languages would choose.
    pub chosen: String,
    /// From the hyper-decoder's adapter, by the number of steps that training languages choose.
    pub from_hyper: FewStepsRow,
    /// Training languages that were tried.
    pub tried: usize,
}

/// Weights after each number of steps, the start and the task given. A step that is not finite is not taken, nor are those behind it.
fn steps(
    on: &Adapters,
    start: &[f32],
    task: &AdapterTask,
    (rate, counts): (f64, &[u64]),
    monitor: &Monitor,
) -> Result<Vec<Vec<f32>>> {
    let examples: Vec<u32> = (0..task.len() as u32).collect();
    let mut weights = start.to_vec();
    let (mut first, mut second) = (vec![0.0_f64; weights.len()], vec![0.0_f64; weights.len()]);
    let (mut made, mut taken) = (Vec::with_capacity(counts.len()), 0);
    for &count in counts {
        while taken < count {
            if monitor.should_stop() {
                return Err(Error::Interrupted { stage: "adapter train" });
            }
            let gradients = on.gradients(&weights, &[(task, &examples)])?;
            taken += 1;
            let corrections = BETAS.map(|beta| 1.0 - beta.powf(taken as f64));
            let moments = first.iter_mut().zip(&mut second);
            let moved = weights.iter().zip(&gradients.gradient).zip(moments).map(|((&w, &g), (first, second))| {
                let g = f64::from(g);
                *first = BETAS[0] * *first + (1.0 - BETAS[0]) * g;
                *second = BETAS[1] * *second + (1.0 - BETAS[1]) * g * g;
                let (mean, square) = (*first / corrections[0], *second / corrections[1]);
                (f64::from(w) - rate * mean / (square.sqrt() + EPSILON)) as f32
            });
            let moved: Vec<f32> = moved.collect();
            if !moved.iter().all(|w| w.is_finite()) {
                taken = u64::MAX;
                break;
            }
            weights = moved;
        }
        made.push(weights.clone());
    }
    Ok(made)
}

/// A training language that steps are tried on.
struct Try {
    start: Vec<f32>,
    sample: AdapterTask,
    judged: AdapterTask,
    judged_bytes: usize,
}

/// What was best on training languages.
struct Choice {
    /// For each number of steps, the best learning rate and its bits a byte.
    by_steps: Vec<(f64, f64)>,
    /// The best number of steps, by its place.
    best: usize,
}

/// Tries all learning rates and numbers of steps.
fn choose(on: &Adapters, config: &FewStepsConfig, tries: &[Try], monitor: &Monitor) -> Result<Choice> {
    let first = config.learning_rates.first().copied().unwrap_or_default();
    let mut by_steps = vec![(first, f64::INFINITY); config.steps.len()];
    for &rate in &config.learning_rates {
        let mut bits = vec![0.0; config.steps.len()];
        for Try { start, sample, judged, judged_bytes } in tries {
            for (bits, row) in bits.iter_mut().zip(steps(on, start, sample, (rate, &config.steps), monitor)?) {
                *bits += on.measure(&row, &[judged])?[0].bits_per_byte(*judged_bytes) / tries.len() as f64;
            }
        }
        for (best, bits) in by_steps.iter_mut().zip(bits) {
            if bits < best.1 {
                *best = (rate, bits);
            }
        }
    }
    let best = (0..by_steps.len()).min_by(|&a, &b| by_steps[a].1.total_cmp(&by_steps[b].1)).unwrap_or(0);
    Ok(Choice { by_steps, best })
}

/// A piece of a training language's text to step on, and another one to judge by; none if there is not text enough.
fn pieces(text: &str, bytes: usize, seed: Seed) -> Option<(&str, &str)> {
    let place = shown::place(text, bytes, seed.fork("sample"));
    let [before, after] = [&text[..place.start], &text[place.end..]];
    let rest = if before.len() > after.len() { before } else { after };
    let judged = shown::draw(rest, JUDGED * bytes, seed.fork("judged"));
    (judged.len() >= bytes && !judged.trim().is_empty()).then_some((&text[place], judged))
}

/// Where steps start.
#[derive(Clone, Copy)]
enum Start {
    All,
    Hyper,
}

/// Steps on the samples of one experiment.
struct Few<'a> {
    judge: &'a Judge<'a>,
    config: &'a FewStepsConfig,
    texts: &'a Texts,
    learnt: &'a Learnt,
}

/// Rows of a few steps from both starts, the numbers of steps and rates chosen on training languages.
pub(super) fn few_steps(
    judge: &Judge,
    (config, texts): (&FewStepsConfig, &Texts),
    (learnt, seen): (&Learnt, &Seen),
) -> Result<(Vec<TaskMeasurements>, FewStepsView)> {
    let few = Few { judge, config, texts, learnt };
    let Experiment { on, monitor, .. } = *judge.experiment;
    monitor.note("try a few gradient steps on training languages");
    let tries = few.tries(seen, Start::All)?;
    let choice = choose(on, config, &tries, monitor)?;
    let (mut rows, mut from_all) = (Vec::new(), Vec::new());
    for (&steps, &by_steps) in config.steps.iter().zip(&choice.by_steps) {
        let name = format!("{ALL}, then {}", counted(steps));
        let (row, told) = few.row(&name, (steps, by_steps), Start::All, false)?;
        rows.push(row);
        from_all.push(told);
    }
    let chosen = from_all[choice.best].name.clone();
    let choice = choose(on, config, &few.tries(seen, Start::Hyper)?, monitor)?;
    let (steps, by_steps) = (config.steps[choice.best], choice.by_steps[choice.best]);
    let name = format!("{}, then {}", learnt.hyper.name(), counted(steps));
    let (ours, from_hyper) = few.row(&name, (steps, by_steps), Start::Hyper, false)?;
    let (another, _) = few.row(&format!("{name}, shown another language"), (steps, by_steps), Start::Hyper, true)?;
    rows.push(TaskMeasurements { kind: TaskRowKind::Ours, ..ours });
    rows.push(TaskMeasurements { kind: TaskRowKind::Control, of: Some(name), ..another });
    Ok((rows, FewStepsView { from_all, chosen, from_hyper, tried: tries.len() }))
}

fn counted(steps: u64) -> String {
    if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") }
}

impl Few<'_> {
    fn start(&self, from: Start, sample: &[u8]) -> Result<Vec<f32>> {
        match from {
            Start::All => Ok(self.judge.experiment.multi_task.row(0).to_vec()),
            Start::Hyper => {
                Ok(self.learnt.hyper.sample(1, &shown::shown(embed_bytes(sample)), self.judge.experiment.seed)?.into_data())
            }
        }
    }

    /// Training languages to try on.
    fn tries(&self, seen: &Seen, from: Start) -> Result<Vec<Try>> {
        let Texts { of_tasks: texts, bytes, read } = self.texts;
        let (seed, n) = (self.judge.experiment.seed.fork("few steps"), seen.numbers.len());
        let mut tries = Vec::new();
        for i in seed.fork("tried").subset(self.config.tried.min(n), n) {
            let text = &texts[seen.numbers[i as usize]];
            let Some((sample, judged)) = pieces(text, *bytes, seed.index(u64::from(i))) else { continue };
            let (start, judged_bytes) = (self.start(from, sample.as_bytes())?, judged.len());
            tries.push(Try { start, sample: read(sample)?, judged: read(judged)?, judged_bytes });
        }
        if tries.is_empty() {
            let expected = format!("more than {} bytes for one at least, for `[generate.few-steps]`", 3 * bytes);
            return Err(Error::Range { what: "the text of training languages", expected, got: "less".to_owned() });
        }
        Ok(tries)
    }

    /// A row of steps on the samples of held-out languages, or on those of other languages.
    fn row(
        &self,
        name: &str,
        (count, (learning_rate, tried_bits)): (u64, (f64, f64)),
        from: Start,
        another: bool,
    ) -> Result<(TaskMeasurements, FewStepsRow)> {
        let Experiment { on, monitor, .. } = *self.judge.experiment;
        let (mut sets, mut secs) = (Vec::new(), Vec::new());
        for set in self.judge.sets() {
            let mut made = Vec::new();
            for language in 0..self.judge.held_out.len() {
                let language = if another { self.judge.other(language) } else { language };
                let sample = self.texts.draw(self.judge.held_out[language], self.judge.seed_of(language, set));
                let started = Instant::now();
                let (start, task) = (self.start(from, sample.as_bytes())?, (self.texts.read)(sample)?);
                let stepped = steps(on, &start, &task, (learning_rate, &[count]), monitor)?;
                secs.push(started.elapsed().as_secs_f64());
                made.extend(stepped.concat());
            }
            sets.push(made);
        }
        secs.sort_by(f64::total_cmp);
        let sample_secs = secs.get(secs.len() / 2).copied().unwrap_or(f64::NAN);
        let row = self.judge.row(name, TaskRowKind::Baseline, None, &sets)?;
        Ok((row, FewStepsRow { name: name.to_owned(), steps: count, learning_rate, tried_bits, sample_secs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steps_are_judged_by_does_not_touch_the_sample() {
        // Every five bytes occur once.
        let text: String = (10_000..10_400).map(|i| i.to_string()).collect();
        for i in 0..60 {
            let (sample, judged) = pieces(&text, 100, Seed::new(i)).unwrap();
            assert_eq!((sample.len(), judged.len()), (100, 800));
            let [sample, judged] = [sample, judged].map(|piece| text.find(piece).unwrap()..text.find(piece).unwrap() + piece.len());
            assert!(sample.end <= judged.start || judged.end <= sample.start, "{sample:?} and {judged:?}");
        }
        assert!(pieces("a text that is its own sample", 100, Seed::new(0)).is_none());
    }
}
