//! Stage 5 of texture automata: samples are grown and held against the textures of the zoo, of held-out automata and of every baseline.
//!
//! ```text
//! evaluation/
//!   textures.json           yardsticks, rows, and the textures that the report shows
//! ```

use super::streamed::{room, samples_of};
use super::{Done, Session, canonicalize, models, sample, write_json};
use crate::cache::{Completed, Running};
use crate::config::TexturesConfig;
use crate::report::data::{TexturePair, TextureReport, TextureStrip};
use crate::report::png;
use crate::run::Stage;
use crate::{Error, Result};
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Condition, Population, Split};
use weft_eval::RowKind;
use weft_eval::textures::{TextureContext, TextureMeasurements};
use weft_gen::trivial::TrivialGenerator;
use weft_gen::{Generator, TrainingSet};
use weft_net::{Growth, Texture};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 1;
/// Copies of the zoo in memory while it is measured, those of a codec's fit among them.
const COPIES: u64 = 8;

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let Some(config) = session.config.evaluate.textures else {
        return Err(Error::RunWithoutData { stage: Stage::Evaluate.name() });
    };
    let stages = [Stage::Zoo, Stage::Canonicalize, Stage::Train, Stage::Sample];
    let upstream = stages.map(|stage| (stage.name(), done.of(stage)));
    let key = session
        .key(("evaluate", "evaluation"), VERSION, &upstream)
        .setting("textures", &config)
        .setting("baselines", &session.config.baselines)
        .setting("codec", &session.config.codec)
        .setting("sample", &session.config.sample);
    session.unless_fresh(key, |running| evaluate(session, done, config, running))
}

fn evaluate(session: &Session, done: &Done, config: TexturesConfig, running: Running) -> Result<Completed> {
    let canonical = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let finals = |split| canonical.records(&Filter { split: Some(split), final_only: true, ..Filter::default() });
    let (train, held_out) = (finals(Split::Train)?, finals(Split::Test)?);
    let dim = canonical.architecture().num_parameters() as u64;
    let drawn = session.config.sample.count * session.config.sample.seeds;
    room(session, Stage::Evaluate, 4 * dim * (COPIES * (train.len() + held_out.len()) as u64 + 2 * drawn as u64))?;

    let weights = canonical.load(&train, Purpose::Evaluate)?;
    let growth = Growth { side: config.side, steps: config.steps };
    let seed = session.seed.fork("evaluate").fork("textures");
    let zoo = (&weights, &canonical.load(&held_out, Purpose::Evaluate)?);
    let context = TextureContext::new(zoo, growth, seed, session.monitor)?;
    let table = Table { context: &context, train: &train, shown: config.shown };
    let mut strips = vec![table.strip("held-out automata", RowKind::Runs, context.held_out())];
    let set = training_set(session, done, (&canonical, &train))?;
    let mut rows = Vec::new();
    let mut add = |name: &str, kind, sets: Vec<Population>| -> Result<()> {
        let measure = |(i, samples)| context.measure(name, (i, samples), session.monitor);
        let measured = sets.iter().enumerate().map(measure).collect::<std::result::Result<Vec<_>, _>>()?;
        strips.extend(measured.first().map(|measured| table.strip(name, kind, measured)));
        rows.push(context.row(name, kind, &measured));
        Ok(())
    };
    let own = samples_of(session, done.of(Stage::Sample), canonical.architecture())?;
    add("flow", RowKind::Generator, own)?;
    for kind in models::baselines(&session.config.baselines) {
        let generator = TrivialGenerator::new(kind, set.clone());
        let sets = (0..session.config.sample.seeds).map(|i| {
            let unknown = Condition::unknown();
            generator.sample(session.config.sample.count, &unknown, sample::seed_of(session, i))
        });
        let sets = sets.collect::<std::result::Result<Vec<_>, _>>()?;
        add(generator.name(), RowKind::Baseline, sets)?;
    }
    let report = TextureReport { evaluation: context.evaluate(rows), strips };
    write_json(&running.folder().join("textures.json"), &report)?;
    running.complete(&["textures.json"])
}

/// What baselines draw from. All of it is in memory; the flow's own codec never is.
fn training_set(session: &Session, done: &Done, (canonical, train): (&Zoo, &[Entry])) -> Result<TrainingSet> {
    let finals = canonical.load(train, Purpose::Fit)?;
    let raw = models::raw_of(&Zoo::open(&done.of(Stage::Zoo).folder)?, train)?;
    let config = session.config.codec.to_codec(finals.len(), finals.dim());
    let codec = Codec::fit_on(&session.place, &finals, &config, session.seed.fork("codec"))?;
    let conditions = vec![Condition::unknown(); finals.len()];
    Ok(TrainingSet::new(Arc::new(codec), &finals.clone(), finals, raw, conditions)?)
}

/// What pictures are made from.
struct Table<'a> {
    context: &'a TextureContext,
    train: &'a [Entry],
    shown: usize,
}

impl Table<'_> {
    /// The first textures of a set, each beside the training texture that is nearest to it.
    fn strip(&self, name: &str, kind: RowKind, measured: &TextureMeasurements) -> TextureStrip {
        let (units, training) = (self.context.units(), &self.context.training().textures);
        let pair = |i: usize| {
            let (nearest, texture) = measured.texture[i];
            TexturePair {
                sampled: picture(&measured.textures[i]),
                nearest: picture(&training[nearest]),
                nearest_name: self.train[nearest].record().run.clone(),
                distance: measured.distance[i].1 / units.d1,
                texture: texture / units.other,
                is_flat: measured.contrast[i] < units.flat,
                is_alive: measured.contrast[i] >= units.flat && texture <= units.like,
                is_copy: texture <= units.copy,
            }
        };
        let pairs = (0..measured.textures.len().min(self.shown)).map(pair).collect();
        TextureStrip { name: name.to_owned(), kind, pairs }
    }
}

/// A texture as the address of a picture.
fn picture(texture: &Texture) -> String {
    let bytes: Vec<u8> = texture.colors.iter().map(|color| (color * 255.0).round() as u8).collect();
    png::data_uri(&png::encode_rgb(texture.side, &bytes))
}
