//! One network of a file, open: its weights come tensor by tensor, so that memory does not grow with the file.

use super::read::BINDING;
use crate::onnx::{OnnxNetwork, read_onnx_any};
use crate::tensors::{Metadata, first_non_finite};
use crate::{Binding, Error, Result, Source, TensorFault, binding_to_text, open_sources};
use std::ops::Range;
use std::path::Path;
use weft_core::{Architecture, Digest, WeightsHasher};

/// Values that are read at a time: few enough to stay in the cache between being read and being hashed.
const PIECE: usize = 1 << 14;

/// A network whose tensors are all there; its values were not looked at.
pub(super) struct Network {
    weights: Weights,
    /// What the file says of it.
    pub(super) metadata: Metadata,
    /// The file's format.
    pub(super) format: &'static str,
}

enum Weights {
    /// A graph and its weights, read at once.
    Model(Box<OnnxNetwork>),
    Stored(Box<Source>, Binding),
}

/// Opens every network of a file, in the file's order; refuses what is none of the architecture.
pub(super) fn open_networks(path: &Path, architecture: &Architecture) -> Result<Vec<Network>> {
    if super::is_onnx(path) {
        return Ok(vec![of_model(path, architecture)?]);
    }
    let sources = open_sources(path)?;
    if sources.is_empty() {
        let reason = "it holds no network".to_owned();
        return Err(Error::UnknownFormat { path: path.to_owned(), reason, known: String::new() });
    }
    sources.into_iter().map(|source| of_source(source, architecture)).collect()
}

fn of_model(path: &Path, architecture: &Architecture) -> Result<Network> {
    let network = read_onnx_any(path)?;
    if !network.architecture.same_graph(architecture) {
        let reason = format!("its graph is `{}`, not that of `{}`", network.architecture.name(), architecture.name());
        return Err(Error::NotInferred { path: path.to_owned(), reason, hint: "import it into a zoo of its own" });
    }
    Ok(Network { weights: Weights::Model(Box::new(network)), metadata: Metadata::new(), format: "onnx" })
}

fn of_source(source: Source, architecture: &Architecture) -> Result<Network> {
    let binding = Binding::find(&source, architecture)?;
    let mut metadata = source.metadata().clone();
    if let Some(member) = source.member() {
        metadata.insert("member".to_owned(), member.to_owned());
    }
    if binding.naming() != Binding::OWN {
        metadata.insert(BINDING.to_owned(), binding_to_text(&binding));
    }
    let format = source.format().name();
    Ok(Network { weights: Weights::Stored(Box::new(source), binding), metadata, format })
}

impl Network {
    /// All weights in the architecture's order, whatever they are.
    pub(super) fn row(&self, architecture: &Architecture) -> Result<Vec<f32>> {
        match &self.weights {
            Weights::Model(network) => Ok(network.weights()),
            Weights::Stored(source, binding) => binding.bind_any(source, architecture),
        }
    }

    /// The digest of the weights, and why they must be quarantined.
    pub(super) fn examine(&self, architecture: &Architecture) -> Result<(Digest, Option<String>)> {
        let (mut hasher, mut is_finite) = (WeightsHasher::new(), true);
        let mut reader = Reader::new(self);
        for i in WeightsHasher::order(architecture) {
            let spec = &architecture.tensors()[i];
            hasher.tensor(spec);
            reader.tensor(architecture, i, &mut |values| {
                is_finite = is_finite && first_non_finite(values).is_none();
                hasher.values(values);
                Ok(())
            })?;
        }
        reader.check_repeats(architecture)?;
        let defect = if is_finite { None } else { self.defect()? };
        Ok((hasher.finish(), defect))
    }

    /// The first weight that is not finite, by the name that its tensor has in the file.
    fn defect(&self) -> Result<Option<String>> {
        let found = match &self.weights {
            Weights::Model(network) => network.first_non_finite().map(|(tensor, index)| (tensor.to_owned(), index)),
            Weights::Stored(source, _) => source.first_non_finite()?,
        };
        Ok(found.map(|(tensor, index)| format!("tensor `{tensor}`: {}", TensorFault::NonFinite { index })))
    }
}

/// Reads the tensors of a network in any order.
pub(super) struct Reader<'a> {
    network: &'a Network,
    piece: Vec<f32>,
    /// The stored tensor whose values are in memory: several of the architecture's may lie in it.
    held: Option<usize>,
    values: Vec<f32>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(network: &'a Network) -> Self {
        Self { network, piece: Vec::new(), held: None, values: Vec::new() }
    }

    /// Gives the values of one of the architecture's tensors, piece by piece.
    pub(super) fn tensor(
        &mut self,
        architecture: &Architecture,
        i: usize,
        give: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let (source, binding) = match &self.network.weights {
            Weights::Model(network) => return give(network.parameter(i)),
            Weights::Stored(source, binding) => (source, binding),
        };
        let part = &binding.parts()[i];
        let name = &binding.stored()[part.stored].name;
        debug_assert_eq!(part.values.len(), architecture.tensors()[i].num_values());
        if !part.transposed && self.straight(source, name, part.values.clone(), give)? {
            return Ok(());
        }
        if self.held != Some(part.stored) {
            self.held = None;
            self.values = binding.stored_values(source, part.stored)?;
            self.held = Some(part.stored);
        }
        give(&self.values[part.values.clone()])
    }

    /// Gives a stretch of a tensor that lies open in the map, if it does.
    fn straight(
        &mut self,
        source: &Source,
        name: &str,
        stretch: Range<usize>,
        give: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<bool> {
        for start in stretch.clone().step_by(PIECE) {
            self.piece.resize(PIECE.min(stretch.end - start), 0.0);
            if !source.read_stretch(name, start, &mut self.piece) {
                return Ok(false);
            }
            give(&self.piece)?;
        }
        Ok(true)
    }

    /// Refuses a tensor that is to repeat another and does not.
    fn check_repeats(&mut self, architecture: &Architecture) -> Result<()> {
        let Weights::Stored(source, binding) = &self.network.weights else { return Ok(()) };
        for repeat in binding.repeats() {
            let mut repeated = Vec::new();
            repeat.stored.read_into(source, &mut repeated)?;
            let (mut at, mut differs) = (0, None);
            self.tensor(architecture, repeat.of, &mut |values| {
                let here = &repeated[at..at + values.len()];
                let position = values.iter().zip(here).position(|(a, b)| a.to_bits() != b.to_bits());
                differs = differs.or(position.map(|position| at + position));
                at += values.len();
                Ok(())
            })?;
            if let Some(index) = differs {
                return Err(repeat.fault(source, architecture, index));
            }
        }
        Ok(())
    }
}
