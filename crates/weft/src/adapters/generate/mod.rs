//! Adapters for languages that no adapter was trained on, from a sample of text: generators, and everything that they have to beat.
//!
//! A language is shown by some bytes of the passages that adapters are trained on; what is made is judged by the bits that a byte of its
//! held-out passages costs. Generators learn from training languages alone: from their adapters, and through the base from the passages that
//! these were trained on.

mod baselines;
mod differences;
mod factors;
mod few;
mod learn;
mod shown;
mod store;

use crate::config::GenerateConfig;
use crate::{Error, Monitor, Result};
pub use few::{FewStepsRow, FewStepsView};
use learn::{Learnt, Seen};
use serde::{Deserialize, Serialize};
use std::time::Instant;
pub(super) use store::Stored;
pub use store::{GenerateRequest, Like, MadeView, Model, generate, read_sample};
use weft_core::families::Lora;
use weft_core::{Condition, Population, Seed};
use weft_eval::conditional::{TaskEvaluation, TaskMeasurements, TaskRowKind, evaluate_tasks};
use weft_gen::Generator;
use weft_net::adapters::{AdapterTask, Adapters};

/// Name of the row of languages' own adapters.
const OWN: &str = "own adapter";
/// Name of the row that half of the gap is counted from.
const ALL: &str = "one adapter of all";

/// A language of an experiment.
pub(super) struct Subject<'a> {
    /// Its name in the archive.
    pub(super) id: &'a str,
    /// What its variants share.
    pub(super) code: &'a str,
    /// Whether no generator may see it.
    pub(super) held_out: bool,
    /// The text that adapters are trained on, and bytes of the text that is held out.
    pub(super) text: String,
    pub(super) test_bytes: usize,
    /// Windows of both.
    pub(super) windows: &'a [AdapterTask; 2],
}

/// What an experiment has.
pub(super) struct Experiment<'a> {
    pub(super) config: &'a GenerateConfig,
    pub(super) on: &'a Adapters,
    pub(super) lora: &'a Lora,
    pub(super) subjects: &'a [Subject<'a>],
    /// The own adapters of all, and the one of all training languages.
    pub(super) own: &'a Population,
    pub(super) multi_task: &'a Population,
    /// Whether the own ones grew from that one.
    pub(super) grew_from_all: bool,
    /// Some text as what an adapter is trained on.
    pub(super) read: &'a dyn Fn(&str) -> Result<AdapterTask>,
    /// Seconds that training a language's own adapter took, all together and divided by their number.
    pub(super) own_secs: f64,
    pub(super) seed: Seed,
    pub(super) monitor: &'a Monitor<'a>,
}

/// What generators are worth on languages that none has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedView {
    /// Rows, comparisons and verdicts; an `accuracy` in it is *bits a byte, times −1*: more is better. A cluster is a language with its variants.
    pub evaluation: TaskEvaluation,
    /// The part of the way from the one adapter of all training languages to a language's own that each row goes, in the order of the rows:
    /// `(all − row) / (all − own)` of mean bits a byte.
    pub gap: Vec<f64>,
    /// Training languages.
    pub training: usize,
    /// Numbers of a code, and the share of the factors' variance that codes keep.
    pub components: usize,
    /// That share.
    pub kept_variance: f64,
    /// Seconds that training the hyper-decoder and the flow took.
    pub train_secs: [f64; 2],
    /// Seconds from a sample of text to the hyper-decoder's adapter, made one at a time, and those of training a language's own among the others.
    pub sample_secs: [f64; 2],
    /// What merged adapters lost of their energy `‖ΔW‖²` by truncation to the rank, by their rows.
    #[serde(default)]
    pub merges_lost: Vec<(String, f64)>,
    /// A few gradient steps on the samples, if the run had them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub few_steps: Option<FewStepsView>,
}

/// Learns generators, and measures them beside everything else.
pub(super) fn experiment(experiment: &Experiment) -> Result<(GeneratedView, Stored)> {
    let Experiment { config, on, lora, subjects, own, seed, monitor, .. } = *experiment;
    let chosen = |held_out: bool| (0..subjects.len()).filter(move |&i| subjects[i].held_out == held_out).collect::<Vec<_>>();
    let (training, held_out) = (chosen(false), chosen(true));
    let mut codes: Vec<&str> = subjects.iter().map(|subject| subject.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let groups: Vec<u32> = training.iter().filter_map(|&i| codes.binary_search(&subjects[i].code).ok()).map(|g| g as u32).collect();
    let texts: Vec<String> = training.iter().map(|&i| subjects[i].text.clone()).collect();
    let windows = training.iter().map(|&i| subjects[i].windows[0].clone()).collect();
    let adapters = own.select(&training);
    let seen = Seen { adapters: &adapters, texts: &texts, windows, groups: &groups };
    let learnt = learn::learn(config, on, &seen, seed, monitor)?;
    let judge = Judge { experiment, held_out: held_out.iter().map(|&i| &subjects[i]).collect() };
    let mut rows = judge.fixed(&own.select(&held_out), experiment.multi_task)?;
    monitor.note("merge the training languages' adapters");
    let start = experiment.grew_from_all.then_some(experiment.multi_task);
    let mut merges_lost = Vec::new();
    for merged in baselines::merged(on, lora, &seen, start, (seed, monitor))? {
        rows.push(judge.all_alike(&merged.name, &merged.row)?);
        merges_lost.push((merged.name, merged.lost));
    }
    rows.extend(judge.neighbors(&learnt, &seen)?);
    rows.extend(judge.told(&learnt)?);
    let few_steps = config.few_steps.as_ref().map(|few| few::few_steps(&judge, few, (&learnt, &seen))).transpose()?;
    let few_steps = few_steps.map(|(more, view)| {
        rows.extend(more);
        view
    });
    monitor.finish();
    let names: Vec<String> = judge.held_out.iter().map(|subject| subject.id.to_owned()).collect();
    let clusters: Vec<String> = judge.held_out.iter().map(|subject| subject.code.to_owned()).collect();
    let evaluation = evaluate_tasks(&names, &clusters, &rows)?;
    let mean = |name: &str| evaluation.rows.iter().find(|row| row.name == name).map_or(f64::NAN, |row| row.accuracy.mean);
    let (all, best) = (mean(ALL), mean(OWN));
    let gap = evaluation.rows.iter().map(|row| (row.accuracy.mean - all) / (best - all)).collect();
    let view = GeneratedView {
        gap,
        evaluation,
        training: training.len(),
        components: learnt.codec.code_len(),
        kept_variance: kept_variance(&learnt),
        train_secs: learnt.train_secs,
        sample_secs: [judge.sample_secs(&learnt)?, experiment.own_secs],
        merges_lost,
        few_steps,
    };
    let names: Vec<String> = training.iter().map(|&i| subjects[i].id.to_owned()).collect();
    let codes = learnt.codec.encode(adapters.data())?;
    Ok((
        view,
        Stored {
            codes,
            rotary: on.base().rope_pairs(),
            codec: learnt.codec,
            hyper: learnt.hyper,
            flow: learnt.flow,
            names,
            vectors: learnt.vectors,
            familiar: learnt.familiar,
        },
    ))
}

fn kept_variance(learnt: &Learnt) -> f64 {
    match &*learnt.codec {
        weft_codec::Codec::Pca(pca) => pca.kept_variance(),
        weft_codec::Codec::Identity(_) => 1.0,
    }
}

/// Measures adapters on the held-out passages of held-out languages.
struct Judge<'a> {
    experiment: &'a Experiment<'a>,
    held_out: Vec<&'a Subject<'a>>,
}

impl Judge<'_> {
    /// Bits a byte times −1 of an adapter for each language, `[T, P]` → `[T]`.
    fn measure(&self, rows: &[f32]) -> Result<Vec<f64>> {
        let dim = self.experiment.own.dim();
        let measure = |(row, subject): (&[f32], &&Subject)| -> Result<f64> {
            if self.experiment.monitor.should_stop() {
                return Err(Error::Interrupted { stage: "adapter train" });
            }
            let measured = self.experiment.on.measure(row, &[&subject.windows[1]])?;
            Ok(-measured[0].bits_per_byte(subject.test_bytes))
        };
        rows.chunks_exact(dim).zip(&self.held_out).map(measure).collect()
    }

    fn row(&self, name: &str, kind: TaskRowKind, of: Option<&str>, sets: &[Vec<f32>]) -> Result<TaskMeasurements> {
        let measured = sets.iter().map(|rows| Ok(self.measure(rows)?.into_iter().map(|bits| vec![bits]).collect()));
        let accuracy = measured.collect::<Result<Vec<_>>>()?;
        Ok(TaskMeasurements { name: name.to_owned(), kind, of: of.map(str::to_owned), accuracy, disagreement: None })
    }

    fn all_alike(&self, name: &str, row: &[f32]) -> Result<TaskMeasurements> {
        self.row(name, TaskRowKind::Baseline, None, &[row.repeat(self.held_out.len())])
    }

    /// The yardstick, the base, and the adapter of all training languages.
    fn fixed(&self, own: &Population, multi_task: &Population) -> Result<Vec<TaskMeasurements>> {
        Ok(vec![
            self.row(OWN, TaskRowKind::Runs, None, &[own.data().to_vec()])?,
            self.all_alike("base", &vec![0.0; own.dim()])?,
            self.all_alike(ALL, multi_task.row(0))?,
        ])
    }

    /// The sample that shows a language in a set.
    fn sample(&self, language: usize, set: usize) -> &[u8] {
        let Experiment { config, seed, .. } = *self.experiment;
        let subject = self.held_out[language];
        let seed = seed.fork("held-out samples").fork(subject.id).index(set as u64);
        shown::draw(&subject.text, config.sample_bytes, seed).as_bytes()
    }

    /// A language of another code, whose sample is shown instead.
    fn other(&self, language: usize) -> usize {
        let n = self.held_out.len();
        let mut others = (0..n).map(|step| (language + n / 2 + step) % n);
        others.find(|&other| self.held_out[other].code != self.held_out[language].code).expect("two languages or more are held out")
    }

    fn sets(&self) -> std::ops::Range<usize> {
        0..self.experiment.config.sets
    }

    /// Adapters of the training languages that look most like a sample.
    fn neighbors(&self, learnt: &Learnt, seen: &Seen) -> Result<Vec<TaskMeasurements>> {
        let lora = self.experiment.lora;
        let (mut nearest, mut between) = (Vec::new(), Vec::new());
        for set in self.sets() {
            let (mut rows, mut arcs) = (Vec::new(), Vec::new());
            for language in 0..self.held_out.len() {
                let order = baselines::nearest(&learnt.vectors, self.sample(language, set));
                rows.extend_from_slice(seen.adapters.row(order[0]));
                let second = order.get(1).copied().unwrap_or(order[0]);
                arcs.extend(baselines::between(lora, seen.adapters, [order[0], second], self.experiment.seed)?);
            }
            nearest.push(rows);
            between.push(arcs);
        }
        let kind = TaskRowKind::Baseline;
        Ok(vec![
            self.row("nearest language's", kind, None, &nearest)?,
            self.row("two nearest languages', SLERP", kind, None, &between)?,
        ])
    }

    /// Generators that are shown a sample, another language's, no language's, and none.
    fn told(&self, learnt: &Learnt) -> Result<Vec<TaskMeasurements>> {
        let (seed, n) = (self.experiment.seed.fork("sets"), self.held_out.len());
        let bytes = self.experiment.config.sample_bytes;
        let mut rows = vec![self.of(&learnt.ridge, &|i, set| shown::shown(self.sample(i, set)))?];
        let generators =
            std::iter::once(&learnt.hyper as &dyn Generator).chain(learnt.flow.as_ref().map(|flow| flow as &dyn Generator));
        for generator in generators {
            let mut ours = self.of(generator, &|i, set| shown::shown(self.sample(i, set)))?;
            ours.kind = TaskRowKind::Ours;
            let another = self.of(generator, &|i, set| shown::shown(self.sample(self.other(i), set)))?;
            let noise = |i: usize, set: usize| shown::shown(&shown::noise(bytes, seed.index((set * n + i) as u64)));
            let noise = self.of(generator, &noise)?;
            let nothing = self.of(generator, &|_, _| Condition::unknown())?;
            let control = |row: TaskMeasurements, what: &str| TaskMeasurements {
                name: format!("{}, {what}", ours.name),
                kind: TaskRowKind::Control,
                of: Some(ours.name.clone()),
                ..row
            };
            let controls = [
                control(another, "shown another language"),
                control(noise, "shown random bytes"),
                control(nothing, "shown nothing"),
            ];
            rows.push(ours);
            rows.extend(controls);
        }
        Ok(rows)
    }

    fn of(&self, generator: &dyn Generator, ask: &dyn Fn(usize, usize) -> Condition) -> Result<TaskMeasurements> {
        let seed = self.experiment.seed.fork("sets");
        let make = |set: usize| -> Result<Vec<f32>> {
            let asked: Vec<Condition> = (0..self.held_out.len()).map(|i| ask(i, set)).collect();
            Ok(generator.sample_each(&asked, seed.index(set as u64))?.into_data())
        };
        let sets = self.sets().map(make).collect::<Result<Vec<_>>>()?;
        self.row(generator.name(), TaskRowKind::Baseline, None, &sets)
    }

    /// Seconds from a sample to an adapter, the median over the held-out languages.
    fn sample_secs(&self, learnt: &Learnt) -> Result<f64> {
        let of = |language: usize| -> Result<f64> {
            let started = Instant::now();
            let made = learnt.hyper.sample(1, &shown::shown(self.sample(language, 0)), self.experiment.seed)?;
            let secs = started.elapsed().as_secs_f64();
            Ok(if made.is_empty() { f64::NAN } else { secs })
        };
        let mut secs = (0..self.held_out.len()).map(of).collect::<Result<Vec<_>>>()?;
        secs.sort_by(f64::total_cmp);
        Ok(secs[secs.len() / 2])
    }
}

#[cfg(test)]
mod tests;
