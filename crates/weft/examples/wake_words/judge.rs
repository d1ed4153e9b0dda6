//! Samples of a run for phrases that were held out, beside what can be had without.

use crate::speech::Speech;
use crate::{Phrase, Result, phrases_of};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use weft::config::{Asked, RunConfig};
use weft::{Monitor, SampleRequest, Stage};
use weft_codec::Codec;
use weft_core::products::Place;
use weft_core::{Condition, Population, Schema, Seed, Split, Value};
use weft_eval::conditional::{TaskEvaluation, TaskMeasurements, TaskRowKind, evaluate_tasks};
use weft_gen::{Generator, RidgeGenerator, TrainingSet};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// The report: an evaluation over held-out tasks, and how well every real head hears its own phrase.
#[derive(Serialize)]
struct Report {
    tasks: Tasks,
    calibration: Vec<Calibration>,
}

#[derive(Serialize)]
struct Tasks {
    measure: &'static str,
    evaluation: TaskEvaluation,
    num_clips: usize,
}

#[derive(Serialize)]
struct Calibration {
    run: String,
    phrase: String,
    split: &'static str,
    auc: f64,
}

/// What rows are made from.
struct Bench<'a> {
    config: &'a RunConfig,
    speech: Speech,
    phrases: Vec<Phrase>,
    /// Held-out phrases, as numbers.
    asked: Vec<usize>,
    train: Vec<Entry>,
    networks: Population,
}

pub(crate) fn judge([run, speech, report]: [&Path; 3], overrides: &[String]) -> Result<()> {
    let config = RunConfig::read(run, overrides)?;
    let outcome = weft::run(&config, Stage::Train, &Monitor::silent())?;
    let folder = |stage| outcome.stages.iter().find(|s| s.stage == stage).map(|s| s.folder.clone()).unwrap_or_default();
    let zoo = Zoo::open(&folder(Stage::Canonicalize).join("zoo"))?;
    let finals = |split| zoo.records(&Filter { split: Some(split), final_only: true, ..Filter::default() });
    let (train, held_out) = (finals(Split::Train)?, finals(Split::Test)?);
    let phrases = phrases_of(&zoo)?;
    let number = |entry: &Entry| -> Result<usize> {
        let phrase = Phrase::of(entry.record())?;
        phrases.binary_search(&phrase).map_err(|_| format!("`{}` is no phrase of the zoo", phrase.phrase).into())
    };
    let mut asked = held_out.iter().map(number).collect::<Result<Vec<_>>>()?;
    let of_held_out = asked.clone();
    asked.sort_unstable();
    asked.dedup();
    let trained = train.iter().map(number).collect::<Result<Vec<_>>>()?;
    asked.retain(|&p| !trained.iter().any(|&other| phrases[other].said() == phrases[p].said()));
    let speech = Speech::read(speech, &phrases)?;
    let networks = zoo.load(&train, Purpose::Evaluate)?;
    let bench = Bench { config: &config, speech, asked, train, networks, phrases: phrases.clone() };

    let (real, of_train) = (zoo.load(&held_out, Purpose::Evaluate)?, bench.speech.scores(&bench.networks)?);
    let of_real = bench.speech.scores(&real)?;
    let mut rows = vec![bench.real(&of_real, &of_held_out)];
    rows.extend(bench.flow()?);
    rows.push(bench.nearest(&of_train)?);
    rows.push(bench.any(&of_train));
    rows.push(bench.ridge()?);
    rows.push(bench.mean()?);
    let names: Vec<String> = bench.asked.iter().map(|&p| phrases[p].phrase.clone()).collect();
    let evaluation = evaluate_tasks(&names, &names, &rows)?;
    let own = |(entries, scores, split): (&[Entry], &[Vec<f32>], &'static str)| -> Result<Vec<Calibration>> {
        let of = |(entry, scores): (&Entry, &Vec<f32>)| {
            let p = number(entry)?;
            let (run, phrase) = (entry.record().run.clone(), phrases[p].phrase.clone());
            Ok(Calibration { run, phrase, split, auc: bench.speech.auc(scores, p) })
        };
        entries.iter().zip(scores).map(of).collect()
    };
    let mut calibration = own((&held_out, &of_real, "test"))?;
    calibration.extend(own((&bench.train, &of_train, "train"))?);
    let tasks = Tasks { measure: "AUC, %", evaluation, num_clips: bench.speech.num_clips() };
    let text = serde_json::to_string_pretty(&Report { tasks, calibration })?;
    Ok(weft_zoo::write_atomic(report, text.as_bytes())?)
}

fn row(name: &str, kind: TaskRowKind, accuracy: Vec<Vec<Vec<f64>>>) -> TaskMeasurements {
    TaskMeasurements { name: name.to_owned(), kind, accuracy, ..TaskMeasurements::default() }
}

impl Bench<'_> {
    fn aucs(&self, heads: &Population, phrase: usize) -> Result<Vec<f64>> {
        Ok(self.speech.scores(heads)?.iter().map(|scores| self.speech.auc(scores, phrase)).collect())
    }

    /// The held-out phrases' own heads: the yardstick.
    fn real(&self, scores: &[Vec<f32>], phrases: &[usize]) -> TaskMeasurements {
        let of_phrase = |&p: &usize| {
            let own = scores.iter().zip(phrases).filter(|(_, of)| **of == p);
            own.map(|(scores, _)| self.speech.auc(scores, p)).collect()
        };
        row("real head", TaskRowKind::Runs, vec![self.asked.iter().map(of_phrase).collect()])
    }

    /// The flow told each phrase, told another, told nothing, and told random letters.
    fn flow(&self) -> Result<Vec<TaskMeasurements>> {
        let own = |t: usize, _: u64| Some(self.phrases[self.asked[t]].clone());
        let other = |t: usize, _: u64| Some(self.phrases[self.asked[(t + self.asked.len() / 2) % self.asked.len()]].clone());
        let random = |t: usize, set: u64| {
            let Phrase { language, phrase } = &self.phrases[self.asked[t]];
            let seed = Seed::new(self.config.run.seed).fork("random text").fork(phrase).index(set);
            Some(Phrase { language: language.clone(), phrase: random_text(phrase, seed) })
        };
        let control = |what: &str, accuracy| TaskMeasurements {
            of: Some("flow".to_owned()),
            ..row(&format!("flow, {what}"), TaskRowKind::Control, accuracy)
        };
        Ok(vec![
            row("flow", TaskRowKind::Ours, self.told(&own)?),
            control("told another phrase", self.told(&other)?),
            control("told no phrase", self.told(&|_, _| None)?),
            control("told a random text", self.told(&random)?),
        ])
    }

    fn told(&self, what: &dyn Fn(usize, u64) -> Option<Phrase>) -> Result<Vec<Vec<Vec<f64>>>> {
        let of =
            |set: u64| self.asked.iter().enumerate().map(|(t, &p)| self.aucs(&self.sample(what(t, set), (t, set))?, p)).collect();
        (0..self.config.sample.seeds as u64).map(of).collect()
    }

    fn sample(&self, told: Option<Phrase>, (task, set): (usize, u64)) -> Result<Population> {
        let told = told.map_or_else(Condition::unknown, |told| self.condition(&told));
        let asked = |(field, value): (&str, &Value)| (field.to_owned(), Asked::from(value.to_string().as_str()));
        let condition: BTreeMap<String, Asked> = told.iter().map(asked).collect();
        let folder = self.config.run.output.join("wake-words");
        let seed = set * self.asked.len() as u64 + task as u64;
        let request = SampleRequest { count: self.config.sample.count, seed, condition, generator: None, folder };
        let files = weft::sample(self.config, &request, &Monitor::silent())?;
        let architecture = self.networks.architecture();
        let rows =
            files.iter().map(|file| weft_zoo::read_checkpoint(file, architecture)).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Population::new(architecture.clone(), rows.concat())?)
    }

    /// What the run's conditions say of a phrase; a language that no training head has is not known.
    fn condition(&self, phrase: &Phrase) -> Condition {
        let known = |field: &str| self.config.generator.conditions().iter().any(|known| known.name == field);
        let has_language = |entry: &Entry| entry.record().labels.get("language") == Some(&phrase.language);
        let mut condition = Condition::unknown();
        if known("phrase") {
            condition = condition.with("phrase", Value::Text(phrase.phrase.clone()));
        }
        if known("language") && self.train.iter().any(has_language) {
            condition = condition.with("language", Value::Category(phrase.language.clone()));
        }
        condition
    }

    /// The training conditions and their schema.
    fn conditions(&self) -> Result<(Vec<Condition>, Schema)> {
        let of = |entry: &Entry| Ok(self.condition(&Phrase::of(entry.record())?));
        let conditions = self.train.iter().map(of).collect::<Result<Vec<_>>>()?;
        let fields: Vec<_> = self.config.generator.conditions().iter().map(|field| field.to_field(None)).collect();
        let schema = Schema::fit(&fields, &conditions)?;
        Ok((conditions, schema))
    }

    /// Heads of the training phrase whose condition is the nearest, as the generator is told conditions.
    fn nearest(&self, scores: &[Vec<f32>]) -> Result<TaskMeasurements> {
        let (conditions, schema) = self.conditions()?;
        let encoded = conditions.iter().map(|c| schema.encode(c)).collect::<weft_core::Result<Vec<_>>>()?;
        let of_phrase = |&p: &usize| -> Result<Vec<f64>> {
            let own = schema.encode(&self.condition(&self.phrases[p]))?;
            let square = |other: &Vec<f32>| own.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            let distances: Vec<f64> = encoded.iter().map(square).collect();
            let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
            let nearest = scores.iter().zip(&distances).filter(|(_, d)| **d <= least + 1e-9);
            Ok(nearest.map(|(scores, _)| self.speech.auc(scores, p)).collect())
        };
        Ok(row("nearest phrase", TaskRowKind::Baseline, vec![self.asked.iter().map(of_phrase).collect::<Result<_>>()?]))
    }

    /// All training heads: what one drawn at random hears.
    fn any(&self, scores: &[Vec<f32>]) -> TaskMeasurements {
        let of_phrase = |&p: &usize| scores.iter().map(|scores| self.speech.auc(scores, p)).collect();
        row("any training head", TaskRowKind::Baseline, vec![self.asked.iter().map(of_phrase).collect()])
    }

    fn ridge(&self) -> Result<TaskMeasurements> {
        let (conditions, schema) = self.conditions()?;
        let config = self.config.codec.to_codec(self.networks.len(), self.networks.dim());
        let seed = Seed::new(self.config.run.seed).fork("ridge");
        let codec = Codec::fit_on(&Place::default(), &self.networks, &config, seed)?;
        let finals = self.networks.clone();
        let set = TrainingSet::new(Arc::new(codec), &self.networks, finals.clone(), finals, conditions)?;
        let ridge = RidgeGenerator::fit(set, schema, seed)?;
        let of_phrase = |&p: &usize| self.aucs(&ridge.sample(1, &self.condition(&self.phrases[p]), seed)?, p);
        Ok(row("ridge", TaskRowKind::Baseline, vec![self.asked.iter().map(of_phrase).collect::<Result<_>>()?]))
    }

    fn mean(&self) -> Result<TaskMeasurements> {
        let mut mean = vec![0.0_f64; self.networks.dim()];
        self.networks.rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &w)| *m += f64::from(w)));
        let mean = mean.into_iter().map(|m| (m / self.networks.len() as f64) as f32).collect();
        let scores = self.speech.scores(&Population::new(self.networks.architecture().clone(), mean)?)?;
        let of_phrase = |&p: &usize| vec![self.speech.auc(&scores[0], p)];
        Ok(row("mean head", TaskRowKind::Baseline, vec![self.asked.iter().map(of_phrase).collect()]))
    }
}

/// Random letters in words as long as a text's.
fn random_text(text: &str, seed: Seed) -> String {
    let drawn = seed.uniforms(text.len());
    let letter = |(c, u): (char, &f32)| if c == ' ' { ' ' } else { char::from(b'a' + (u * 26.0) as u8 % 26) };
    text.chars().zip(&drawn).map(letter).collect()
}
