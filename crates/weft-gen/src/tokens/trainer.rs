//! Training of the token generator.

use super::model::TokenModel;
use super::space::Space;
use super::{TokenConfig, TokenFlow, TokenSet};
use crate::flow::{TIME_FREQUENCIES, embed_time, precondition};
use crate::{Course, Result, SamplerConfig, Trainer, course, schema};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use weft_codec::{NUM_COORDINATES, TokenLayout, TokenNormalizer};
use weft_core::{Architecture, Monitor, Population, Schema, Seed};
use weft_net::Device;
use weft_ops::tensor::{Lesson, Network as _, Transformer, regress};

/// Numbers of the time's embedding in conditioning rows.
pub(super) const TIME: usize = 2 * TIME_FREQUENCIES + 1;

/// A token generator in training.
#[derive(Debug)]
pub struct TokenTrainer {
    config: TokenConfig,
    network: Transformer,
    course: Course,
    schema: Schema,
    normalizer: TokenNormalizer,
    set: TokenSet,
    /// One a part.
    spaces: Vec<Space>,
    /// The values of each part's networks, `[n, V]`; empty where they are the weights.
    values: Vec<Vec<f32>>,
    /// Encoded conditions of all networks, part by part.
    encoded: Vec<f32>,
    device: Device,
    seed: Seed,
}

/// A stretch of a network's tokens in a step's batch.
struct Sequence {
    part: usize,
    /// The network's place in its part, and among all.
    network: usize,
    among_all: usize,
    window: Range<usize>,
    time: f32,
    /// Its place in the batch, by which its draws are named.
    place: u64,
}

/// A lesson in the making.
#[derive(Default)]
struct Rows {
    inputs: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    condition: Vec<f32>,
}

impl TokenTrainer {
    /// Prepares training from the start.
    ///
    /// # Errors
    /// A setting out of range, conditions that do not fit their fields' types, weights that are not finite, or a failed transfer to the
    /// device.
    pub fn new(config: TokenConfig, set: TokenSet, seed: Seed, device: &Device) -> Result<Self> {
        config.check()?;
        let (schema, encoded) = schema::fit(&config.conditions, &set.conditions())?;
        let layouts = set.parts().iter().map(|part| TokenLayout::new(part.networks.architecture(), config.shape));
        let layouts = layouts.collect::<weft_codec::Result<Vec<_>>>()?;
        let rows: Vec<_> = layouts.iter().zip(set.parts()).map(|(layout, part)| (layout, part.networks.data())).collect();
        let normalizer = TokenNormalizer::fit(&rows)?;
        let spaces = set.parts().iter().map(|part| Space::new(part.networks.architecture().clone(), &normalizer, config.shape));
        let spaces = spaces.collect::<Result<Vec<_>>>()?;
        let values = set.parts().iter().zip(&spaces).map(|(part, space)| values_of(space, &part.networks)).collect();
        let network = config.network.build(config.shape.num_slots(), TIME + schema.encoded_len());
        let names: Vec<_> = set.parts().iter().map(|part| part.networks.architecture().tensors()).collect();
        let mut numbers: Vec<&[f32]> = set.parts().iter().map(|part| part.networks.data()).collect();
        numbers.push(&encoded);
        let fingerprint = course::fingerprint(&format!("{config:?} {schema:?} {seed:?} {names:?}"), &numbers);
        let plan = (config.steps, config.learning_rate, fingerprint);
        let course = Course::new(&network.initial(seed.fork("network")), config.optimizer(), plan, device.all())?;
        Ok(Self { config, network, course, schema, normalizer, set, spaces, values, encoded, device: device.clone(), seed })
    }

    /// The condition fields that are trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Checks that networks of an architecture can be sampled once it is trained.
    ///
    /// # Errors
    /// [`crate::Error::Codec`] names a tensor of a kind of place that no training network has.
    pub fn check(&self, architecture: &Architecture) -> Result<()> {
        self.normalizer.moments(&TokenLayout::new(architecture, self.config.shape)?)?;
        Ok(())
    }

    /// Floating-point operations of the whole training, if each network is drawn as often as any other.
    #[must_use]
    pub fn flops(&self) -> f64 {
        let per_network = self.set.parts().iter().zip(&self.spaces).map(|(part, space)| {
            let tokens = space.layout.num_tokens().min(self.config.window);
            part.networks.len() as f64 * self.network.of_tokens(tokens).flops_per_sequence()
        });
        let mean = per_network.sum::<f64>() / self.set.num_networks() as f64;
        3.0 * mean * self.config.batch_networks as f64 * self.config.steps as f64
    }

    /// Ends training; samples come from the moving average.
    ///
    /// # Errors
    /// If that cannot be read from the device.
    pub fn finish(self, sampler: SamplerConfig) -> Result<TokenFlow> {
        let TokenConfig { network: sizes, shape, window, .. } = self.config;
        let theta = Arc::new(self.course.optimizer.average()?);
        let (network, schema, normalizer, device) = (self.network, self.schema, self.normalizer, self.device);
        Ok(TokenFlow { model: TokenModel { sizes, network, theta, schema, normalizer, shape, window, device }, sampler })
    }

    /// Queues the lessons of one step; their loss is read later.
    fn train_step(&mut self) -> Result<()> {
        let seed = self.seed.fork("step").index(self.step());
        let groups = self.draw(seed);
        let total: usize = groups.iter().map(|(len, sequences)| len * sequences.len()).sum();
        for (len, sequences) in groups {
            let network = self.network.of_tokens(len);
            for sequences in sequences.chunks((self.config.window / len).max(1)) {
                let share = (len * sequences.len()) as f32 / total as f32;
                let Rows { inputs, targets, weights, condition } = self.rows(len, sequences, (share, seed));
                let lesson = Lesson { inputs: &inputs, condition: &condition, targets: &targets, weights: &weights };
                regress(&network, &lesson, self.course.optimizer.parameters())?;
            }
        }
        self.course.update(self.config.warmup_steps)
    }

    /// A step's networks, in groups of one number of tokens.
    fn draw(&self, seed: Seed) -> BTreeMap<usize, Vec<Sequence>> {
        let times = seed.fork("time").uniforms(self.config.batch_networks);
        let mut groups: BTreeMap<usize, Vec<Sequence>> = BTreeMap::new();
        let chosen = seed.fork("networks").indices(self.config.batch_networks, self.set.num_networks());
        for (place, (chosen, time)) in chosen.into_iter().zip(times).enumerate() {
            let (mut part, mut network) = (0, chosen as usize);
            while network >= self.set.parts()[part].networks.len() {
                network -= self.set.parts()[part].networks.len();
                part += 1;
            }
            let (place, tokens) = (place as u64, self.spaces[part].layout.num_tokens());
            let len = tokens.min(self.config.window);
            // A window around any token, pushed back inside: those at the ends are in as many as others, or nearly.
            let around = seed.fork("window").index(place).indices(1, tokens)[0] as usize;
            let start = around.saturating_sub(len / 2).min(tokens - len);
            let sequence = Sequence { part, network, among_all: chosen as usize, window: start..start + len, time, place };
            groups.entry(len).or_default().push(sequence);
        }
        groups
    }

    /// Inputs and targets of sequences of one length, whose rows together count as much as that share of a step.
    ///
    /// With `v = s·x_t + o·f` the loss `|v − (data − noise)|²` is `o²·|f − (data − noise − s·x_t)/o|²`, which is how the network learns it. Each
    /// token counts as the mean over its weights.
    fn rows(&self, len: usize, sequences: &[Sequence], (share, seed): (f32, Seed)) -> Rows {
        let [features, slots] = self.network.features();
        let count = sequences.len() * len;
        let mut rows = Rows {
            inputs: vec![0.0; count * features],
            targets: vec![0.0; count * slots],
            weights: vec![0.0; count],
            condition: Vec::new(),
        };
        let inputs = rows.inputs.par_chunks_exact_mut(len * features);
        let outputs = rows.targets.par_chunks_exact_mut(len * slots).zip(rows.weights.par_chunks_exact_mut(len));
        inputs.zip(outputs).zip(sequences).for_each(|((inputs, (targets, weights)), sequence)| {
            self.row(sequence, seed.fork("noise").index(sequence.place), inputs, targets);
            let (_, scale) = precondition(sequence.time);
            let filled = &self.spaces[sequence.part].filled[sequence.window.clone()];
            for (weight, &filled) in weights.iter_mut().zip(filled) {
                *weight = share * scale * scale * slots as f32 / filled.max(1) as f32;
            }
        });
        for sequence in sequences {
            self.condition(sequence, seed.fork("drop").index(sequence.place), &mut rows.condition);
        }
        rows
    }

    /// One sequence's inputs, `[len, f + c]`, and targets, `[len, f]`.
    fn row(&self, sequence: &Sequence, noise: Seed, inputs: &mut [f32], targets: &mut [f32]) {
        let Sequence { part, network, window, time: t, .. } = sequence;
        let (space, [features, slots]) = (&self.spaces[*part], self.network.features());
        let (skip, scale) = precondition(*t);
        let noise = noise.normals(targets.len());
        let mut data = vec![0.0; targets.len()];
        let values = match &self.values[*part][..] {
            [] => self.set.parts()[*part].networks.row(*network),
            values => &values[network * space.layout.num_values()..][..space.layout.num_values()],
        };
        space.fill(values, window.clone(), &mut data);
        for (input, coordinates) in
            inputs.chunks_exact_mut(features).zip(space.coordinates(window.clone()).chunks_exact(NUM_COORDINATES))
        {
            input[slots..].copy_from_slice(coordinates);
        }
        space.layout.each(window.clone(), |_, range| {
            for slot in range {
                let x = (1.0 - t) * noise[slot] + t * data[slot];
                inputs[slot / slots * features + slot % slots] = x;
                targets[slot] = (data[slot] - noise[slot] - skip * x) / scale;
            }
        });
    }

    /// Appends the time's embedding and the condition of a sequence, some fields dropped.
    fn condition(&self, sequence: &Sequence, seed: Seed, out: &mut Vec<f32>) {
        let (fields, len) = (self.schema.fields.len(), self.schema.encoded_len());
        let draws = seed.uniforms(fields + 1);
        let p = self.config.condition_dropout as f32;
        embed_time(sequence.time, out);
        let mut start = sequence.among_all * len;
        for (width, &draw) in self.schema.widths().zip(&draws) {
            let dropped = draws[fields] < p || draw < p;
            out.extend(self.encoded[start..start + width].iter().map(|&v| if dropped { 0.0 } else { v }));
            start += width;
        }
    }
}

/// The values of networks, `[n, V]`; none where they are the weights themselves.
fn values_of(space: &Space, networks: &Population) -> Vec<f32> {
    if space.moments.directions().next().is_none() {
        return Vec::new();
    }
    networks.rows().flat_map(|row| space.moments.values(row).into_owned()).collect()
}

impl Trainer for TokenTrainer {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    /// The loss is that of the velocity, a mean over tokens and over the weights of each, in units of their kinds' variance.
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        course::advance_ahead(self, until, monitor, Self::train_step)
    }
}
