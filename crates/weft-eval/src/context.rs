//! The zoo as seen by an evaluation: its units, bars and yardsticks, measured once.

use crate::figures::{Evaluation, Row, RowKind, Units};
use crate::functional::FunctionSpace;
use crate::measure::{Instruments, Measurements, References, Set, distances, stop_if_asked};
use crate::null::null_copies;
use crate::options::{Costs, Options};
use crate::project::{Projection, check_finite};
use crate::row::{Label, RowInput, Yardsticks};
use crate::stats::{mean, median, quantile, std};
use crate::weighted::input_root;
use crate::weights::WeightSpace;
use crate::{Error, Result, row, verdict};
use std::collections::BTreeSet;
use weft_core::{Dataset, Monitor, Population, Seed};
use weft_net::Device;

/// The networks and data that an evaluation measures against.
#[derive(Debug, Clone, Copy)]
pub struct ContextInput<'a> {
    /// Training networks, every snapshot. Where they are aligned to an anchor, upper bounds of distances are tighter.
    pub train: &'a Population,
    /// Which of them are the last of their run.
    pub train_is_final: &'a [bool],
    /// The run of each of them.
    pub train_run: &'a [u32],
    /// The last networks of held-out runs.
    pub held_out: &'a Population,
    /// The data set: training images show what is dead, validation images compare functions, test images measure accuracy.
    pub dataset: &'a Dataset,
    /// Where networks are run.
    pub device: &'a Device,
}

/// A measured zoo, ready to measure generators.
#[derive(Debug)]
pub struct Context<'a> {
    input: ContextInput<'a>,
    options: Options,
    instruments: Instruments<'a>,
    train: References,
    /// The training runs' last networks, as indices.
    finals: Vec<usize>,
    units: Units,
    bars: Vec<(String, f64)>,
    held_out: Row,
    training: Row,
}

/// Steps of [`Context::new`] that the monitor hears of.
const STEPS: u64 = 7;

impl<'a> Context<'a> {
    /// Measures the zoo: units, bars, the orbit check, and the rows of held-out and training runs.
    ///
    /// # Errors
    /// Input that does not fit together, a zoo too small to measure with (two training and two held-out runs are the
    /// least), held-out networks that are copies of training networks, or a stop.
    pub fn new(input: ContextInput<'a>, options: &Options, monitor: &Monitor<'_>) -> Result<Self> {
        options.check()?;
        let finals = check(&input)?;
        monitor.start("measure the zoo", STEPS, "steps");
        let done = |step: u64| {
            monitor.progress(step);
            stop_if_asked(monitor)
        };
        let architecture = input.train.architecture();
        let projection = Projection::new(architecture, (input.dataset, input.device), options.max_train_examples);
        let (functions, train_functions) =
            FunctionSpace::new((input.dataset, input.device), options.max_functional_examples, input.train)?;
        let root = projection.linear_first.then(|| input_root(input.dataset, options.max_train_examples));
        let weights = WeightSpace::new(architecture.clone(), &projection, root, options.seed.fork("matching"))?;
        let instruments = Instruments { dataset: input.dataset, device: input.device, projection, weights, functions };
        done(1)?;
        let weights = instruments.weights.prepare(&instruments.projection, input.train, Some(input.train_run))?;
        done(2)?;
        let (mistakes, accuracy) = instruments.mistakes(input.train, monitor)?;
        let train = References { weights, functions: train_functions, mistakes, accuracy };
        done(3)?;
        let bars_of: Vec<f64> = finals.iter().map(|&i| train.accuracy[i]).collect();
        let mut context = Self {
            input,
            options: options.clone(),
            instruments,
            train,
            finals,
            units: Units::default(),
            bars: vec![],
            held_out: Row::default(),
            training: Row::default(),
        };
        let held_out = context.measure_excluding(input.held_out, &|_, _| false, options.seed.fork("held-out"), monitor)?;
        done(4)?;
        let training = context.measure_training(monitor)?;
        done(5)?;
        context.set_units(&held_out, &training, &bars_of)?;
        context.set_snapshot_units()?;
        done(6)?;
        context.units.orbit_check = context.orbit_check()?;
        context.held_out = context.row_of(runs("held-out runs"), &[held_out]);
        context.training = context.row_of(runs("training runs"), &[training]);
        done(7)?;
        monitor.finish();
        Ok(context)
    }

    /// The units and bars.
    #[must_use]
    pub fn units(&self) -> &Units {
        &self.units
    }

    /// The row of held-out runs: the yardstick.
    #[must_use]
    pub fn held_out_row(&self) -> &Row {
        &self.held_out
    }

    /// The row of training runs, each compared with the networks of other runs.
    #[must_use]
    pub fn training_row(&self) -> &Row {
        &self.training
    }

    /// What the training data cannot see.
    #[must_use]
    pub fn projection(&self) -> &Projection<'a> {
        &self.instruments.projection
    }

    /// The seed of this evaluation's options.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.options.seed
    }

    /// Copies of the training runs' last networks, changed where the data cannot see it.
    ///
    /// # Errors
    /// None for a context that was built; the signature is that of [`null_copies`].
    pub fn null_copies(&self, count: usize, seed: Seed) -> Result<Population> {
        null_copies(&self.instruments.projection, &self.input.train.select(&self.finals), count, seed)
    }

    /// Measures one set of samples; [`Measurements::nearest`] are indices of the training population.
    ///
    /// # Errors
    /// Another architecture, fewer than two networks, or a stop.
    pub fn measure(&self, name: &str, networks: &Population, monitor: &Monitor<'_>) -> Result<Measurements> {
        if !networks.architecture().same_graph(self.input.train.architecture()) {
            return Err(Error::Architecture { row: name.to_owned() });
        }
        least("samples a seed", networks.len(), 2)?;
        self.measure_excluding(networks, &|_, _| false, self.options.seed.fork("samples"), monitor)
    }

    /// Measures a generator by its samples.
    ///
    /// # Errors
    /// No set, sets of different sizes, another architecture, fewer than two networks in a set, or a stop.
    pub fn row(&self, input: RowInput<'_>, monitor: &Monitor<'_>) -> Result<Row> {
        least("sets of samples", input.sets.len(), 1)?;
        let expected = input.sets[0].len();
        if let Some(other) = input.sets.iter().find(|s| s.len() != expected) {
            return Err(Error::Length { what: "samples of a seed", expected, got: other.len() });
        }
        monitor.start(&format!("measure {}", input.name), input.sets.len() as u64, "sets");
        let mut measured = Vec::with_capacity(input.sets.len());
        for set in input.sets {
            measured.push(self.measure(input.name, set, monitor)?);
            monitor.progress(measured.len() as u64);
        }
        monitor.finish();
        Ok(self.row_of(Label { name: input.name, kind: input.kind, costs: input.costs }, &measured))
    }

    /// Builds the row of sets that were measured already, one a generator seed and all of one size.
    #[must_use]
    pub fn row_from(&self, name: &str, kind: RowKind, sets: &[Measurements], costs: Costs) -> Row {
        self.row_of(Label { name, kind, costs }, sets)
    }

    /// Draws the verdicts over the rows; those of held-out and training runs are put first.
    #[must_use]
    pub fn evaluate(&self, rows: Vec<Row>) -> Evaluation {
        let mut all = vec![self.held_out.clone(), self.training.clone()];
        all.extend(rows);
        verdict::evaluate(all, &self.units, &self.options)
    }

    fn row_of(&self, label: Label<'_>, sets: &[Measurements]) -> Row {
        row::build(label, sets, Yardsticks { units: &self.units, bars: &self.bars, options: &self.options })
    }

    fn measure_excluding(
        &self,
        networks: &Population,
        excluded: &(dyn Fn(usize, usize) -> bool + Sync),
        seed: Seed,
        monitor: &Monitor<'_>,
    ) -> Result<Measurements> {
        let set = Set { networks, train: self.input.train, excluded, num_fellows: self.finals.len(), seed };
        self.instruments.measure(&self.train, &set, &self.options, monitor)
    }

    fn measure_training(&self, monitor: &Monitor<'_>) -> Result<Measurements> {
        let runs = self.input.train_run;
        let same_run = |query: usize, train: usize| runs[self.finals[query]] == runs[train];
        self.measure_excluding(&self.input.train.select(&self.finals), &same_run, self.options.seed.fork("training"), monitor)
    }

    fn set_units(&mut self, held_out: &Measurements, training: &Measurements, accuracies: &[f64]) -> Result<()> {
        let test_images = self.input.dataset.labels(weft_core::Part::Test).len() as f64;
        let (d1, f1) = (positive("d1", median(&held_out.distance))?, positive("f1", median(&held_out.functional))?);
        let weighted = Some(&held_out.distance_weighted).filter(|distances| !distances.is_empty());
        let d1_weighted = weighted.map(|distances| positive("data-weighted d1", median(distances))).transpose()?;
        self.units = Units {
            d1,
            f1,
            d1_weighted,
            bar_median: median(accuracies),
            bar_quartile: quantile(accuracies, 0.25),
            zoo_mean: mean(accuracies),
            zoo_std: std(accuracies),
            exact: self.instruments.weights.is_exact(),
            pairwise: positive("pairwise distance", median(&training.pairwise))? / d1,
            pairwise_functional: positive("pairwise functional distance", median(&training.pairwise_functional))? / f1,
            // A zoo that always agrees is held to disagree on one image in all.
            disagreement: mean(&training.disagreement).max(1.0 / (test_images * training.disagreement.len() as f64)),
            num_train: self.input.train.len(),
            num_train_runs: self.finals.len(),
            num_held_out: self.input.held_out.len(),
            num_dead_inputs: self.instruments.projection.dead_inputs().len(),
            ..Units::default()
        };
        self.bars = vec![("median".to_owned(), self.units.bar_median), ("quartile".to_owned(), self.units.bar_quartile)];
        self.bars.extend(self.options.fixed_bars.iter().map(|&bar| (bar.to_string(), bar)));
        Ok(())
    }

    /// The audit's units: the nearest *other* snapshot, the same run's included, of a subsample of all snapshots.
    fn set_snapshot_units(&mut self) -> Result<()> {
        let n = self.input.train.len();
        let drawn = self.options.seed.fork("snapshots").subset(self.options.max_snapshot_queries, n);
        let queries: Vec<usize> = drawn.into_iter().map(|i| i as usize).collect();
        let itself = |query: usize, train: usize| queries[query] == train;
        let Instruments { weights, projection, .. } = &self.instruments;
        let prepared = weights.prepare(projection, &self.input.train.select(&queries), None)?;
        let found = weights.nearest(&prepared, &self.train.weights, &itself);
        self.units.d1_snapshots = positive("d1 over snapshots", median(&distances(&found)))?;
        let found = self.train.functions.select(&queries).nearest(&self.train.functions, &itself);
        self.units.f1_snapshots = positive("f1 over snapshots", median(&distances(&found)))?;
        Ok(())
    }

    /// The largest distance of random orbit copies of training networks, over `d₁`: it must be about 0.
    fn orbit_check(&self) -> Result<f64> {
        let seed = self.options.seed.fork("orbit");
        let picked: Vec<usize> = seed
            .fork("networks")
            .subset(self.options.num_orbit_checks, self.finals.len())
            .iter()
            .map(|&i| self.finals[i as usize])
            .collect();
        let mut copies = self.input.train.select(&picked);
        let Instruments { weights, projection, .. } = &self.instruments;
        weights.scramble(&mut copies, seed.fork("elements"))?;
        let copies = weights.prepare(projection, &copies, None)?;
        let found = weights.nearest(&copies, &self.train.weights, &|_, _| false);
        Ok(distances(&found).into_iter().fold(0.0, f64::max) / self.units.d1)
    }
}

fn runs(name: &str) -> Label<'_> {
    Label { name, kind: RowKind::Runs, costs: Costs::default() }
}

fn positive(unit: &'static str, value: f64) -> Result<f64> {
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(Error::Unit { unit, value }) }
}

fn least(what: &'static str, got: usize, least: usize) -> Result<()> {
    if got < least { Err(Error::TooFew { what, got, least }) } else { Ok(()) }
}

/// Checks that networks, flags and data fit, and finds the training runs' last networks.
fn check(input: &ContextInput<'_>) -> Result<Vec<usize>> {
    let (train, architecture) = (input.train, input.train.architecture());
    for (what, got) in [("train_is_final", input.train_is_final.len()), ("train_run", input.train_run.len())] {
        if got != train.len() {
            return Err(Error::Length { what, expected: train.len(), got });
        }
    }
    if !input.held_out.architecture().same_graph(architecture) {
        return Err(Error::Architecture { row: "held-out runs".to_owned() });
    }
    let (inputs, outputs) = (architecture.num_inputs(), architecture.num_outputs());
    let (features, classes) = (input.dataset.num_features(), input.dataset.num_classes());
    if (inputs, outputs) != (features, classes) {
        return Err(Error::Dataset { dataset: input.dataset.name().to_owned(), inputs, outputs, features, classes });
    }
    let finals: Vec<usize> = (0..train.len()).filter(|&i| input.train_is_final[i]).collect();
    let runs: BTreeSet<u32> = finals.iter().map(|&i| input.train_run[i]).collect();
    least("training runs with a final network", runs.len(), 2)?;
    least("held-out networks", input.held_out.len(), 2)?;
    check_finite("training", train)?;
    check_finite("held-out", input.held_out)?;
    Ok(finals)
}
