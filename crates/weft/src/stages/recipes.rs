//! Stage 5 where networks were trained by many recipes: whether samples that are told a held-out recipe are like networks trained by it.
//!
//! ```text
//! evaluation/
//!   recipes.json            norm, accuracy and sharpness of samples beside those of trained networks, recipe by recipe
//! ```

use super::models::{self, Learnt, Models};
use super::runs::RECIPE;
use super::{Done, Session, canonicalize, sample};
use crate::config::condition_of;
use crate::run::Stage;
use crate::{Error, Result};
use std::collections::BTreeMap;
use weft_core::{Condition, Dataset, FieldSpec, Part, Population, Record, Schema, Split};
use weft_eval::conditional::TaskRowKind;
use weft_eval::recipes::{RecipeEvaluation, RecipeMeasurements, evaluate_recipes};
use weft_eval::structure::{Trial, loss_increases};
use weft_gen::{Generator, RidgeGenerator};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// What is measured of a network.
const FIGURES: [&str; 3] = ["norm", "accuracy", "sharpness"];
/// Noise, relative to each weight, whose cost in validation loss is the sharpness.
const NOISE: f64 = 0.3;
/// What a condition says of a recipe.
const FIELDS: [&str; 6] = ["learning-rate", "weight-decay", "batch-size", "steps", "epochs", "optimizer"];

/// What networks are measured with.
struct Bench<'a> {
    session: &'a Session<'a>,
    dataset: &'a Dataset,
    fields: Vec<FieldSpec>,
}

/// The final networks of one recipe.
struct OfRecipe {
    condition: Condition,
    entries: Vec<Entry>,
}

/// Judges samples by held-out recipes; none where the zoo has none.
pub(super) fn evaluate(session: &Session, done: &Done) -> Result<Option<RecipeEvaluation>> {
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let bench = Bench { session, dataset: session.dataset(Stage::Evaluate)?, fields: session.fields() };
    let (train, held_out) = (bench.recipes(&zoo, Split::Train)?, bench.recipes(&zoo, Split::Test)?);
    if train.is_empty() || held_out.is_empty() {
        return Ok(None);
    }
    if held_out.len() < 3 || held_out.values().any(|recipe| recipe.entries.len() < 2) {
        session.monitor.note("evaluate: held-out recipes are not judged: that takes three or more, with two networks each");
        return Ok(None);
    }
    let names: Vec<String> = held_out.keys().cloned().collect();
    let of_networks = |entries: &[Entry]| bench.figures(&zoo.load(entries, Purpose::Evaluate)?);
    let trained = held_out.values().map(|recipe| of_networks(&recipe.entries)).collect::<Result<Vec<_>>>()?;
    let Learnt { set, .. } = models::learn_from(session, done)?;
    let models = Models::new(session, &done.of(Stage::Train).folder, set.clone());
    let schema = models.schema()?;
    let asked = session.encode_texts(condition_of(&session.config.sample.condition, &bench.fields)?)?;
    let of_recipe = |recipe: &OfRecipe| {
        let said = recipe.condition.iter();
        said.fold(asked.clone(), |condition, (field, value)| condition.with(field, value.clone()))
    };
    let told: Vec<Condition> = held_out.values().map(of_recipe).collect();
    let mut rows = Vec::new();
    for generator in models.own()? {
        let name = generator.name();
        let row = |name: &str, kind, of| RecipeMeasurements { name: name.to_owned(), kind, of, figures: Vec::new() };
        rows.push(bench.samples(generator.as_ref(), row(name, TaskRowKind::Ours, None), (&names, &told))?);
        let (untold, nothing) = (format!("{name}, told no recipe"), vec![asked.clone(); names.len()]);
        let untold = row(&untold, TaskRowKind::Control, Some(name.to_owned()));
        rows.push(bench.samples(generator.as_ref(), untold, (&names, &nothing))?);
    }
    let nearest = told.iter().map(|told| Ok(&train[nearest(&schema, told, &train)?])).collect::<Result<Vec<&OfRecipe>>>()?;
    let figures = nearest.into_iter().map(|recipe| of_networks(&recipe.entries)).collect::<Result<Vec<_>>>()?;
    rows.push(baseline("nearest recipe", figures));
    let ridge = RidgeGenerator::fit(set, schema, session.seed.fork("ridge"))?;
    let decoded = told.iter().map(|told| bench.figures(&sample::draw(session, &ridge, 1, told, session.seed)?));
    rows.push(baseline(ridge.name(), decoded.collect::<Result<_>>()?));
    Ok(Some(evaluate_recipes((&FIGURES, &names), train.len(), &trained, &rows)?))
}

fn baseline(name: &str, figures: Vec<Vec<Vec<f64>>>) -> RecipeMeasurements {
    RecipeMeasurements { name: name.to_owned(), kind: TaskRowKind::Baseline, of: None, figures: vec![figures] }
}

/// The recipe that was learned from whose encoded condition is nearest.
fn nearest<'a>(schema: &Schema, told: &Condition, train: &'a BTreeMap<String, OfRecipe>) -> Result<&'a String> {
    let encode = |condition: &Condition| schema.encode(&condition.restricted_to(schema));
    let told = encode(told)?;
    let mut best: Option<(f32, &String)> = None;
    for (name, recipe) in train {
        let squares = encode(&recipe.condition)?.iter().zip(&told).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        if best.is_none_or(|(least, _)| squares < least) {
            best = Some((squares, name));
        }
    }
    let none = || Error::Eval(weft_eval::Error::TooFew { what: "recipes that were learned from", got: 0, least: 1 });
    best.map(|(_, name)| name).ok_or_else(none)
}

impl Bench<'_> {
    /// The final networks of each recipe of a split, by the recipe's name.
    fn recipes(&self, zoo: &Zoo, split: Split) -> Result<BTreeMap<String, OfRecipe>> {
        let fields: Vec<FieldSpec> = self.fields.iter().filter(|field| FIELDS.contains(&field.name.as_str())).cloned().collect();
        let mut recipes = BTreeMap::new();
        for entry in zoo.records(&Filter { split: Some(split), final_only: true, ..Filter::default() })? {
            let record: &Record = entry.record();
            if let Some(name) = record.labels.get(RECIPE).cloned() {
                let condition = record.condition(&fields)?;
                recipes.entry(name).or_insert(OfRecipe { condition, entries: Vec::new() }).entries.push(entry);
            }
        }
        Ok(recipes)
    }

    /// A row with the figures of a generator's samples, told a condition for each recipe; each counts, whatever `sample.best-of` says.
    fn samples(
        &self,
        generator: &dyn Generator,
        row: RecipeMeasurements,
        (recipes, told): (&[String], &[Condition]),
    ) -> Result<RecipeMeasurements> {
        let (session, config) = (self.session, &self.session.config.sample);
        session.monitor.start(&format!("measure {} by recipe", row.name), (config.seeds * told.len()) as u64, "recipes");
        let mut figures = Vec::with_capacity(config.seeds);
        for set in 0..config.seeds {
            let mut of_seed = Vec::with_capacity(told.len());
            for (recipe, condition) in recipes.iter().zip(told) {
                session.check_stop(Stage::Evaluate)?;
                let seed = sample::seed_of(session, set).fork("recipe").fork(recipe);
                of_seed.push(self.figures(&sample::draw(session, generator, config.count, condition, seed)?)?);
                session.monitor.progress((set * told.len() + of_seed.len()) as u64);
            }
            figures.push(of_seed);
        }
        session.monitor.finish();
        Ok(RecipeMeasurements { figures, ..row })
    }

    /// Norm of the weights, test accuracy, and the cost of noise in validation loss, network by network.
    fn figures(&self, networks: &Population) -> Result<Vec<Vec<f64>>> {
        let statistics = networks.architecture().statistics();
        let squares = |weights: &[f32]| weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
        let norm = |row: &[f32]| (squares(row) - statistics.iter().map(|place| squares(&row[place.clone()])).sum::<f64>()).sqrt();
        let device = &self.session.device;
        let accuracies = weft_net::accuracies(networks, self.dataset, Part::Test, device)?;
        let trial = Trial { dataset: self.dataset, device, recalibrate: self.session.config.sample.recalibrate };
        let sharpness = loss_increases(networks, trial, NOISE, self.session.seed.fork("sharpness"))?;
        let all = networks.rows().zip(accuracies).zip(sharpness);
        Ok(all.map(|((row, accuracy), sharpness)| vec![norm(row), accuracy, sharpness]).collect())
    }
}
