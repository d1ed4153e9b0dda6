//! ONNX models: their weights, and the architecture that their graph is.
//!
//! An ONNX file holds a graph of small ops whose constants are the weights. The same network comes in many dialects:
//! weights transposed or not, constants folded and anonymous, a layer norm as one node or as nine. [`read_onnx`]
//! brings all of them to one form, so that networks that differ in dialect alone have the same [`Architecture`] and,
//! if their weights agree, the same digest. [`export_onnx`] goes the other way: it writes other weights into the model
//! that they belong to, and leaves everything else in it as it is.
//!
//! The way in: `wire` bounds what decoding may allocate, `proto` decodes, `graph` orders the nodes, `infer` finds layers,
//! `lower` names and numbers them. The way out: `export`, on the bytes of the file.
//!
//! An architecture ends in logits; a sigmoid or softmax behind them is the network's [`Head`].

mod constant;
mod export;
mod fault;
mod graph;
mod half;
mod infer;
mod lower;
mod proto;
mod tensor;
mod wire;

pub use constant::Origin;
pub use export::export_onnx;
pub(crate) use export::stage_onnx;
pub use fault::OnnxFault;
pub use infer::Head;

use crate::mapped::map_file;
use crate::tensors::first_non_finite;
use crate::{Error, Result, TensorFault};
use constant::Constant;
use prost::Message;
use prost::bytes::Bytes;
use proto::ModelProto;
use std::path::Path;
use tensor::Folder;
use weft_core::Architecture;

/// The largest protobuf message; larger models keep their tensors in external data.
const MAX_MODEL_BYTES: u64 = 1 << 31;

/// The network of an ONNX model.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxNetwork {
    /// The graph, in canonical form, with tensors named by position (`layers.0.weight`, `norms.0.bias`, …).
    pub architecture: Architecture,
    /// What the model does to the logits that the architecture ends in.
    pub head: Option<Head>,
    /// The name of the model's input.
    pub input: String,
    /// The shape of one example as the model takes it; the architecture takes the same values in the same order.
    pub input_shape: Vec<usize>,
    /// The name of the model's output.
    pub output: String,
    parameters: Vec<Constant>,
}

impl OnnxNetwork {
    /// The weights as a flat row in the architecture's order.
    #[must_use]
    pub fn weights(&self) -> Vec<f32> {
        let mut row = Vec::with_capacity(self.architecture.num_parameters());
        for parameter in &self.parameters {
            row.extend_from_slice(parameter.floats().map_or(&[], |values| values));
        }
        row
    }

    /// The weights of one of the architecture's tensors.
    pub(crate) fn parameter(&self, i: usize) -> &[f32] {
        self.parameters[i].floats().map_or(&[], |values| values)
    }

    /// The first weight that is NaN or infinite: its tensor, in the architecture's order, and its index there.
    #[must_use]
    pub fn first_non_finite(&self) -> Option<(&str, usize)> {
        let mut tensors = self.parameters.iter().zip(self.architecture.tensors());
        tensors.find_map(|(parameter, spec)| Some((spec.name.as_str(), first_non_finite(parameter.floats()?)?)))
    }

    /// The network, if all its weights are finite.
    fn finite(self) -> Result<Self, OnnxFault> {
        match self.first_non_finite() {
            None => Ok(self),
            Some((tensor, index)) => Err(OnnxFault::NonFinite { tensor: tensor.to_owned(), index }),
        }
    }

    /// Where each of the architecture's tensors is stored in the model; `None` for one that is computed from others in
    /// a way that cannot be undone.
    #[must_use]
    pub fn origins(&self) -> impl ExactSizeIterator<Item = Option<&Origin>> {
        self.parameters.iter().map(|parameter| parameter.origin.as_ref())
    }
}

/// Reads an ONNX model: its graph as an architecture, and its weights.
///
/// Weights of f64, f16 and bf16 are converted to `f32`. External data must lie in the model's folder.
///
/// # Errors
/// [`Error::Onnx`] says which node, op or tensor stands in the way and what to do; [`Error::Tensor`] names a weight
/// that is not finite; [`Error::Io`] for a file that cannot be read at all.
pub fn read_onnx(path: &Path) -> Result<OnnxNetwork> {
    read_onnx_any(path)?.finite().map_err(|fault| refused(path, fault))
}

/// The same for weights that need not be finite: to be quarantined, not to be run.
///
/// # Errors
/// As [`read_onnx`], but for values that are not finite.
pub(crate) fn read_onnx_any(path: &Path) -> Result<OnnxNetwork> {
    let bytes = read_model(path)?;
    network(&bytes, Folder::beside(path)).map_err(|fault| refused(path, fault))
}

/// Reads an ONNX model from memory; external data are refused, since there is no folder for them.
///
/// # Errors
/// The same faults as [`read_onnx`].
pub fn read_onnx_bytes(bytes: &[u8]) -> Result<OnnxNetwork, OnnxFault> {
    within_limit(bytes.len() as u64)?;
    network(&Bytes::copy_from_slice(bytes), Folder::nowhere())?.finite()
}

fn within_limit(got: u64) -> Result<(), OnnxFault> {
    if got < MAX_MODEL_BYTES { Ok(()) } else { Err(OnnxFault::TooLarge { got, limit: MAX_MODEL_BYTES - 1 }) }
}

/// The bytes of a model's file.
fn read_model(path: &Path) -> Result<Bytes> {
    let map = map_file(path)?;
    within_limit(map.len() as u64).map_err(|fault| refused(path, fault))?;
    Ok(Bytes::from_owner(map))
}

fn refused(path: &Path, fault: OnnxFault) -> Error {
    let path = path.to_owned();
    match fault {
        OnnxFault::NonFinite { tensor, index } => Error::Tensor { path, tensor, fault: TensorFault::NonFinite { index } },
        fault => Error::Onnx { path, fault },
    }
}

/// Decodes a model; nothing of the bulk data is copied.
fn decode(bytes: &Bytes) -> Result<ModelProto, OnnxFault> {
    wire::check(bytes)?;
    ModelProto::decode(bytes.clone()).map_err(|error| OnnxFault::Decode { reason: error.to_string() })
}

/// The network of a model, whatever its weights are.
fn network(bytes: &Bytes, folder: Folder) -> Result<OnnxNetwork, OnnxFault> {
    let model = decode(bytes)?;
    let graph = graph::Graph::new(&model)?;
    let inferred = infer::infer(&graph, folder)?;
    let lower::Lowered { architecture, parameters, head } = lower::lower(&inferred)?;
    for (parameter, spec) in parameters.iter().zip(architecture.tensors()) {
        let values = parameter.floats().map_or(&[][..], |values| values);
        if values.len() != spec.num_values() {
            return Err(OnnxFault::Architecture { reason: format!("`{}` has another number of values than its shape", spec.name) });
        }
    }
    Ok(OnnxNetwork {
        architecture,
        head,
        input: graph.input.name.clone(),
        input_shape: inferred.values[0].shape.clone(),
        output: graph.output.to_owned(),
        parameters,
    })
}
