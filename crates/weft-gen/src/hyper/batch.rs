//! What a step of the hyper-decoder's training is shown, and what it is to make of it: conditions of training runs, mixed and blurred where
//! that is asked for.
//!
//! A mixed network is shown `λ·c_a + (1 − λ)·c_b` of two random runs, with `λ ~ U(0, 1)`. Its code is to be mixed alike, and its loss is
//! `λ·loss at a's task + (1 − λ)·loss at b's`: exactly so and not by a draw, since its weights stand twice among those that are run. A step then
//! runs `mix` more networks, as a share of a batch; the hyper-decoder itself makes no more of them.
//!
//! Noise is added to what is shown, and to nothing else: independent and normal, in units of each encoded value's deviation over the training
//! conditions, where the value's field is known.
//!
//! # References
//! - Zhang, Cissé, Dauphin & Lopez-Paz, *mixup: Beyond Empirical Risk Minimization* (2018), section 2, with `α = 1`.
//! - Yao, Zhang & Finn, *Meta-Learning with Fewer Tasks through Task Interpolation* (2022).
//! - Bishop, *Training with Noise is Equivalent to Tikhonov Regularization* (1995).

use crate::{Result, RunTasks};
use candle_core::Tensor;
use weft_core::{Schema, Seed};

/// A network of two runs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mixed {
    /// Its place in the batch.
    place: usize,
    /// The second run, as the number of a condition.
    other: usize,
    /// How much the first counts; the second counts the rest.
    share: f32,
}

/// Networks of a step, each of one training run or of two.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Batch {
    /// What is known of each network, as it is encoded, `[n, e]`.
    pub(super) encoded: Vec<f32>,
    /// The run of each network, as the number of a condition, `[n]`; of two, the first.
    runs: Vec<usize>,
    mixed: Vec<Mixed>,
}

impl Batch {
    /// Draws `n` networks' runs, and mixes each with this chance.
    pub(super) fn draw(of_runs: &RunTasks, n: usize, mix: f64, seed: Seed) -> Self {
        let draw = |seed: Seed| seed.indices(n, of_runs.conditions.len()).into_iter().map(|run| run as usize);
        let runs: Vec<usize> = draw(seed.fork("runs")).collect();
        let mut encoded: Vec<f32> = runs.iter().flat_map(|&run| of_runs.encoded(run)).copied().collect();
        let mut mixed = Vec::new();
        if mix > 0.0 {
            let seed = seed.fork("mix");
            let chances = seed.fork("chances").uniforms(n);
            let pairs = draw(seed.fork("others")).zip(seed.fork("shares").uniforms(n));
            let all = pairs.enumerate().map(|(place, (other, share))| Mixed { place, other, share });
            mixed = all.filter(|mixed| f64::from(chances[mixed.place]) < mix).collect();
        }
        let len = of_runs.schema.encoded_len();
        for &Mixed { place, other, share } in &mixed {
            let row = &mut encoded[place * len..(place + 1) * len];
            row.iter_mut().zip(of_runs.encoded(other)).for_each(|(v, &other)| *v = share * *v + (1.0 - share) * other);
        }
        Self { encoded, runs, mixed }
    }

    /// Puts another batch behind this.
    pub(super) fn extend(&mut self, other: Self) {
        let first = self.runs.len();
        self.encoded.extend(other.encoded);
        self.runs.extend(other.runs);
        self.mixed.extend(other.mixed.into_iter().map(|mixed| Mixed { place: first + mixed.place, ..mixed }));
    }

    /// The codes that networks are to have, of those of all runs, `[N, k]` → `[n, k]`. Several conditions may be of one run.
    pub(super) fn targets(&self, of_runs: &[f32], k: usize) -> Vec<f32> {
        let count = of_runs.len() / k;
        let of_run = |run: usize| &of_runs[run % count * k..(run % count + 1) * k];
        let mut targets: Vec<f32> = self.runs.iter().flat_map(|&run| of_run(run)).copied().collect();
        for &Mixed { place, other, share } in &self.mixed {
            let target = targets[place * k..(place + 1) * k].iter_mut();
            target.zip(of_run(other)).for_each(|(v, &other)| *v = share * *v + (1.0 - share) * other);
        }
        targets
    }

    /// Adds noise of these deviations, one a value of an encoded condition, to the values of fields that are known.
    pub(super) fn blur(&mut self, schema: &Schema, deviations: &[f32], seed: Seed) {
        let noise = seed.normals(self.encoded.len());
        let of_rows = self.encoded.chunks_exact_mut(deviations.len()).zip(noise.chunks_exact(deviations.len()));
        for (row, noise) in of_rows {
            let mut first = 0;
            for width in schema.widths() {
                let values = first..first + width - 1;
                // A field's flag, its last number, says whether it is known.
                if row[values.end] > 0.0 {
                    let noise = noise[values.clone()].iter().zip(&deviations[values.clone()]);
                    row[values].iter_mut().zip(noise).for_each(|(v, (noise, deviation))| *v += deviation * noise);
                }
                first += width;
            }
        }
    }

    /// The networks that are run, with the run whose task each is run on: all of the batch, and behind them once more those that are mixed.
    ///
    /// # Shapes
    /// `rows` `[n, D]` → `[n + m, D]`, `n + m` runs.
    pub(super) fn to_run(&self, rows: Tensor) -> Result<(Tensor, Vec<usize>)> {
        let mut runs = self.runs.clone();
        if self.mixed.is_empty() {
            return Ok((rows, runs));
        }
        let places: Vec<u32> = self.mixed.iter().map(|mixed| mixed.place as u32).collect();
        let again = rows.index_select(&Tensor::new(places, rows.device())?, 0)?;
        runs.extend(self.mixed.iter().map(|mixed| mixed.other));
        Ok((Tensor::cat(&[rows, again], 0)?, runs))
    }

    /// The mean over the batch's networks of their losses, from those of all that were run, `[n + m]`.
    pub(super) fn mean(&self, losses: &Tensor) -> Result<Tensor> {
        if self.mixed.is_empty() {
            return Ok(losses.mean_all()?);
        }
        let mut weights = vec![1.0; self.runs.len()];
        for mixed in &self.mixed {
            weights[mixed.place] = mixed.share;
        }
        weights.extend(self.mixed.iter().map(|mixed| 1.0 - mixed.share));
        let weights = Tensor::new(weights, losses.device())?;
        Ok(((losses * weights)?.sum_all()? / self.runs.len() as f64)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use weft_core::{Condition, FieldSpec, FieldType, Scale, Value};

    /// Five runs, each shown twice.
    fn runs() -> RunTasks {
        let shown = |i: u64| Condition::unknown().with("shown", Value::Vector(Seed::new(i).normals(3)));
        let conditions: Vec<_> = (0..10).map(shown).collect();
        let schema = Schema::fit(&[FieldSpec::new("shown", FieldType::Vector)], &conditions).unwrap();
        RunTasks::new(schema, &conditions, Vec::new()).unwrap()
    }

    #[test]
    fn without_mixing_networks_are_of_one_run_each() {
        let (of_runs, seed) = (runs(), Seed::new(1));
        let batch = Batch::draw(&of_runs, 6, 0.0, seed);
        let drawn: Vec<usize> = seed.fork("runs").indices(6, 10).into_iter().map(|run| run as usize).collect();
        assert_eq!((&batch.runs, batch.mixed.len()), (&drawn, 0));
        assert_eq!(batch.encoded, drawn.iter().flat_map(|&run| of_runs.encoded(run)).copied().collect::<Vec<_>>());
        let rows = Tensor::new(&[[1.0_f32], [2.0], [3.0], [4.0], [5.0], [6.0]], &Device::Cpu).unwrap();
        let (to_run, tasks) = batch.to_run(rows).unwrap();
        assert_eq!((to_run.dims(), tasks), (&[6, 1][..], drawn));
    }

    #[test]
    fn conditions_codes_and_losses_are_mixed_by_one_share() {
        let (of_runs, n, k) = (runs(), 8, 2);
        let batch = Batch::draw(&of_runs, n, 0.5, Seed::new(2));
        assert!((1..n).contains(&batch.mixed.len()), "{} of {n} are mixed", batch.mixed.len());
        let codes = Seed::new(3).normals(5 * k);
        let targets = batch.targets(&codes, k);
        let rows = Tensor::from_vec(Seed::new(4).normals(n * 3), (n, 3), &Device::Cpu).unwrap();
        let (to_run, tasks) = batch.to_run(rows.clone()).unwrap();
        let losses = Seed::new(5).uniforms(tasks.len());
        let got = batch.mean(&Tensor::new(losses.clone(), &Device::Cpu).unwrap()).unwrap().to_scalar::<f32>().unwrap();
        let (rows, to_run) = (rows.to_vec2::<f32>().unwrap(), to_run.to_vec2::<f32>().unwrap());
        let mut by_hand = 0.0;
        for place in 0..n {
            let second = batch.mixed.iter().position(|mixed| mixed.place == place);
            let (share, other) = second.map_or((1.0, batch.runs[place]), |i| (batch.mixed[i].share, batch.mixed[i].other));
            let mix = |a: f32, b: f32| share * a + (1.0 - share) * b;
            let (a, b) = (of_runs.encoded(batch.runs[place]), of_runs.encoded(other));
            let encoded: Vec<f32> = a.iter().zip(b).map(|(&a, &b)| mix(a, b)).collect();
            weft_testkit::assert_close(&batch.encoded[place * 4..][..4], &encoded, 1e-6);
            let [a, b] = [batch.runs[place], other].map(|run| &codes[run % 5 * k..][..k]);
            let target: Vec<f32> = a.iter().zip(b).map(|(&a, &b)| mix(a, b)).collect();
            weft_testkit::assert_close(&targets[place * k..][..k], &target, 1e-6);
            // The very weights are run on both tasks.
            let again = second.map_or(place, |i| n + i);
            assert_eq!((tasks[place], tasks[again]), (batch.runs[place], other));
            assert_eq!((&to_run[place], &to_run[again]), (&rows[place], &rows[place]));
            by_hand += mix(losses[place], losses[again]) / n as f32;
        }
        assert!((got - by_hand).abs() < 1e-6, "{got}, by hand {by_hand}");
    }

    #[test]
    fn so_many_are_mixed_as_are_asked_for() {
        let of_runs = runs();
        let batch = Batch::draw(&of_runs, 4000, 0.3, Seed::new(6));
        let share = batch.mixed.len() as f64 / 4000.0;
        let mean = batch.mixed.iter().map(|mixed| f64::from(mixed.share)).sum::<f64>() / batch.mixed.len() as f64;
        assert!((share - 0.3).abs() < 0.03 && (mean - 0.5).abs() < 0.03, "{share} are mixed, by {mean}");
        assert_eq!(Batch::draw(&of_runs, 50, 1.0, Seed::new(7)).mixed.len(), 50);
        // What is drawn beside does not depend on how many are mixed.
        let plain = Batch::draw(&of_runs, 4000, 0.0, Seed::new(6));
        assert_eq!((plain.runs, plain.mixed), (batch.runs, Vec::new()));
    }

    #[test]
    fn noise_is_in_units_of_what_varies_and_of_known_fields_alone() {
        // A number of which each third condition knows nothing, and a vector of which one value never varies.
        let condition = |i: u64| {
            let known = Condition::unknown().with("shown", Value::Vector(vec![Seed::new(i).normals(1)[0], 5.0]));
            if i.is_multiple_of(3) { known } else { known.with("age", Value::Scalar(Seed::new(100 + i).normals(1)[0].into())) }
        };
        let conditions: Vec<_> = (0..30).map(condition).collect();
        let fields = [FieldSpec::new("age", FieldType::Scalar(Scale::Linear)), FieldSpec::new("shown", FieldType::Vector)];
        let of_runs = RunTasks::new(Schema::fit(&fields, &conditions).unwrap(), &conditions, Vec::new()).unwrap();
        let deviations = of_runs.deviations();
        // Of the number, its unknown values count as the zeros that they are encoded by.
        let ages: Vec<f64> = (0..30).map(|run| f64::from(of_runs.encoded(run)[0])).collect();
        let mean = ages.iter().sum::<f64>() / 30.0;
        let by_hand = (ages.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 30.0).sqrt();
        assert!((deviations[0] - by_hand).abs() < 1e-6 && (deviations[2] - 1.0).abs() < 1e-5, "{deviations:?}");
        assert!([1, 3, 4].iter().all(|&i| deviations[i] < 1e-12), "{deviations:?}");
        let plain = Batch::draw(&of_runs, 3000, 0.0, Seed::new(8));
        let mut blurred = plain.clone();
        let half: Vec<f32> = deviations.iter().map(|deviation| 0.5 * *deviation as f32).collect();
        blurred.blur(&of_runs.schema, &half, Seed::new(9));
        let (mut squares, mut known) = ([0.0; 2], 0.0);
        for (before, after) in plain.encoded.chunks_exact(5).zip(blurred.encoded.chunks_exact(5)) {
            assert!([1, 3, 4].iter().all(|&i| before[i].to_bits() == after[i].to_bits()), "{before:?} {after:?}");
            assert!(before[1] > 0.0 || after[0] == 0.0, "an unknown field stays 0");
            squares[0] += f64::from(after[0] - before[0]).powi(2);
            squares[1] += f64::from(after[2] - before[2]).powi(2);
            known += f64::from(before[1]);
        }
        let noise = [(squares[0] / known).sqrt() / deviations[0], (squares[1] / 3000.0).sqrt() / deviations[2]];
        assert!(noise.iter().all(|noise| (noise - 0.5).abs() < 0.03), "{noise:?}");
    }
}
