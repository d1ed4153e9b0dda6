//! Writing weights into the model that they belong to.
//!
//! The model's protobuf is patched, not written anew: every field is copied byte for byte, in its order, except the
//! data of those tensors that hold changed weights and the lengths of the messages around them. So what is not read
//! here (metadata, quantization notes, training information, fields of later versions) survives, and a model
//! exported with its own weights is the same file.

use super::constant::Constant;
use super::half::{bf16_from_f32, f16_from_f32};
use super::proto::{GraphProto, ModelProto, TensorProto};
use super::tensor::{Folder, dtype, is_external};
use super::wire::{Field, Fields, Kind, Message, put_len, put_varint};
use super::{OnnxFault, OnnxNetwork, decode, network, read_model, refused, within_limit};
use crate::atomic::{AtomicFile, parent_of};
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use weft_core::{Architecture, Error as CoreError};

/// Writes the model `original` with other weights to `target`, atomically.
///
/// `row` are the weights in the order of `architecture`, which must be the one that [`super::read_onnx`] finds in
/// `original`; its name does not matter. Changed tensors keep their element type, their orientation and their kind of
/// storage; external data go into the file, so that it can be moved alone.
///
/// # Errors
/// [`crate::Error::Onnx`] if `original` cannot be read, is of another architecture, or stores a weight in a form that has no place
/// for the new value; [`crate::Error::Domain`] if `row` has another length; [`crate::Error::Tensor`] for a weight that is not finite;
/// [`crate::Error::Io`].
pub fn export_onnx(original: &Path, architecture: &Architecture, row: &[f32], target: &Path) -> crate::Result<()> {
    let expected = architecture.num_parameters();
    if row.len() != expected {
        let source = CoreError::Length { what: architecture.name().to_owned(), expected, got: row.len() };
        return Err(crate::Error::Domain { origin: format!("export to `{}`", target.display()), source });
    }
    stage_onnx(original, architecture, row, parent_of(target))?.commit(target)
}

/// Writes what [`export_onnx`] does into a temporary file of a folder; `row` has as many values as the architecture.
pub(crate) fn stage_onnx(original: &Path, architecture: &Architecture, row: &[f32], folder: &Path) -> crate::Result<AtomicFile> {
    let bytes = read_model(original)?;
    let exported = exported(&bytes, original, architecture, row).map_err(|fault| refused(original, fault))?;
    let mut file = AtomicFile::create_in(folder)?;
    file.write(&exported)?;
    Ok(file)
}

/// The bytes of the model with other weights.
fn exported(bytes: &Bytes, original: &Path, architecture: &Architecture, row: &[f32]) -> Result<Bytes, OnnxFault> {
    let network = network(bytes, Folder::beside(original))?.finite()?;
    if !network.architecture.same_graph(architecture) {
        let (expected, got) = (architecture.name().to_owned(), network.architecture.name().to_owned());
        return Err(OnnxFault::OtherArchitecture { expected, got });
    }
    let payloads = payloads(&decode(bytes)?, &network, row, &mut Folder::beside(original))?;
    let Some(patched) = patch(Message::Model, bytes, &payloads)? else { return Ok(bytes.clone()) };
    within_limit(patched.len() as u64)?;
    let patched = Bytes::from(patched);
    verify(&patched, &network, row)?;
    Ok(patched)
}

/// Checks that a patched model is the same network with the new weights: a tensor that holds a weight may serve the
/// graph in another place too.
fn verify(patched: &Bytes, before: &OnnxNetwork, row: &[f32]) -> Result<(), OnnxFault> {
    let after = network(patched, Folder::nowhere()).and_then(OnnxNetwork::finite).map_err(|_| OnnxFault::Entangled)?;
    if !after.architecture.same_graph(&before.architecture) || after.head != before.head {
        return Err(OnnxFault::Entangled);
    }
    let got = after.weights();
    for spec in after.architecture.tensors() {
        let largest = row[spec.range()].iter().fold(0f32, |largest, v| largest.max(v.abs()));
        // Sixteen bits round by up to 2⁻⁸ of a value, steps that are undone by little of the largest.
        let close = |(got, wanted): (&f32, &f32)| (got - wanted).abs() <= wanted.abs() / 128.0 + 1e-5 * largest + 1e-7;
        if !got[spec.range()].iter().zip(&row[spec.range()]).all(close) {
            return Err(OnnxFault::Entangled);
        }
    }
    Ok(())
}

/// A tensor's new data, as a field of `TensorProto`.
type Payloads = BTreeMap<String, Vec<u8>>;

/// Tensors that hold new values.
struct Change<'a> {
    /// The parameter's name, for messages.
    parameter: &'a str,
    now: Vec<f32>,
    new: Vec<f32>,
}

/// The new data of every tensor that changes, and of every tensor whose data lie outside.
fn payloads(model: &ModelProto, network: &OnnxNetwork, row: &[f32], folder: &mut Folder) -> Result<Payloads, OnnxFault> {
    let changes = changes(network, row)?;
    let mut payloads = Payloads::new();
    for (name, tensor) in model.graph.iter().flat_map(stored) {
        let change = changes.get(name);
        let is_external = is_external(tensor);
        if !is_external && change.is_none_or(|change| same_bits(&change.now, &change.new)) {
            continue;
        }
        let mut bytes = folder.raw_bytes(tensor, name)?;
        if let Some(change) = change {
            write_values(tensor.data_type, change, &mut bytes)?;
        }
        payloads.insert(name.to_owned(), field_of(tensor, is_external, &bytes));
    }
    match changes.keys().find(|name| !model.graph.iter().flat_map(stored).any(|(stored, _)| stored == **name)) {
        None => Ok(payloads),
        Some(name) => {
            Err(OnnxFault::Origin { tensor: changes[name].parameter.to_owned(), reason: "no tensor of the model holds it" })
        }
    }
}

/// All tensors that a model stores, by the name that its nodes read.
fn stored(graph: &GraphProto) -> impl Iterator<Item = (&str, &TensorProto)> {
    let constants = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let value = node.attribute.iter().find(|attribute| attribute.name == "value")?;
        Some((node.output.first()?.as_str(), value.t.as_ref()?))
    });
    graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).chain(constants)
}

/// What the stored tensors of all parameters are and shall become.
fn changes<'a>(network: &'a OnnxNetwork, row: &[f32]) -> Result<BTreeMap<&'a str, Change<'a>>, OnnxFault> {
    let mut changes: BTreeMap<&str, Change<'_>> = BTreeMap::new();
    for (parameter, spec) in network.parameters.iter().zip(network.architecture.tensors()) {
        let values = &row[spec.range()];
        if let Some(index) = crate::tensors::first_non_finite(values) {
            return Err(OnnxFault::NonFinite { tensor: spec.name.clone(), index });
        }
        let Some((place, change)) = change(parameter, values, &spec.name)? else { continue };
        match changes.get(place) {
            Some(other) if !agree(&other.new, &change.new) => {
                let reason = "another tensor of the network is stored in the same place and has other values";
                return Err(OnnxFault::Origin { tensor: spec.name.clone(), reason });
            }
            Some(_) => {}
            None => {
                changes.insert(place, change);
            }
        }
    }
    Ok(changes)
}

/// The place of a parameter, and the values there now and then; nothing if it does not change and has no place.
fn change<'a>(parameter: &'a Constant, values: &[f32], name: &'a str) -> Result<Option<(&'a str, Change<'a>)>, OnnxFault> {
    let now = parameter.floats().map_or(&[][..], |now| now);
    let fail = |reason| OnnxFault::Origin { tensor: name.to_owned(), reason };
    let Some(origin) = &parameter.origin else {
        return if same_bits(now, values) { Ok(None) } else { Err(fail("the graph computes it from other constants")) };
    };
    let (now, new) = (origin.stored(now).map_err(fail)?, origin.stored(values).map_err(fail)?);
    Ok(Some((&origin.tensor, Change { parameter: name, now, new })))
}

/// Whether two tensors want the same values in one place; steps that are undone may round.
fn agree(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs().max(b.abs()))
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Writes the values that change into a tensor's little-endian bytes; the others keep their bits.
fn write_values(data_type: i32, change: &Change<'_>, bytes: &mut [u8]) -> Result<(), OnnxFault> {
    let fail = |reason| OnnxFault::Origin { tensor: change.parameter.to_owned(), reason };
    let size = dtype::size(data_type).filter(|size| bytes.len() == size * change.new.len());
    let size = size.ok_or_else(|| fail("it is stored with another number of values"))?;
    let differs = change.now.iter().zip(&change.new).map(|(now, new)| now.to_bits() != new.to_bits());
    for ((place, &value), _) in bytes.chunks_exact_mut(size).zip(&change.new).zip(differs).filter(|(_, differs)| *differs) {
        match data_type {
            dtype::F32 => place.copy_from_slice(&value.to_le_bytes()),
            dtype::F64 => place.copy_from_slice(&f64::from(value).to_le_bytes()),
            dtype::F16 if f16_from_f32(value) & 0x7c00 != 0x7c00 => place.copy_from_slice(&f16_from_f32(value).to_le_bytes()),
            dtype::BF16 if bf16_from_f32(value) & 0x7f80 != 0x7f80 => place.copy_from_slice(&bf16_from_f32(value).to_le_bytes()),
            dtype::F16 | dtype::BF16 => return Err(fail("a value is too large for the 16-bit type that it is stored in")),
            _ => return Err(fail("it is stored as integers")),
        }
    }
    Ok(())
}

/// The field of `TensorProto` that holds a tensor's bytes, of the same kind as before.
fn field_of(tensor: &TensorProto, is_external: bool, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(bytes.len() + 16);
    match tensor.data_type {
        _ if is_external || !tensor.raw_data.is_empty() => put_len(&mut field, 9, bytes),
        // Packed floats are their little-endian bytes.
        dtype::F32 => put_len(&mut field, 4, bytes),
        dtype::F64 => put_len(&mut field, 10, bytes),
        _ => {
            let mut packed = Vec::with_capacity(2 * bytes.len());
            for half in bytes.as_chunks().0 {
                put_varint(&mut packed, u64::from(u16::from_le_bytes(*half)));
            }
            put_len(&mut field, 5, &packed);
        }
    }
    field
}

/// A message with the given tensors' data replaced; `None` if it holds none of them.
fn patch(message: Message, bytes: &[u8], payloads: &Payloads) -> Result<Option<Vec<u8>>, OnnxFault> {
    let payload = match message {
        Message::Tensor => payloads.get(&text_of(bytes, 8)?),
        Message::Node if text_of(bytes, 4)? == "Constant" => match payloads.get(&first_text_of(bytes, 2)?) {
            Some(payload) => return patch_constant(bytes, payload).map(Some),
            None => return Ok(None),
        },
        _ => None,
    };
    if let Some(payload) = payload {
        return patch_tensor(bytes, payload).map(Some);
    }
    let descends = |field: &Field<'_>| match (message, field.number) {
        (Message::Model, 7) => Some(Message::Graph),
        (Message::Graph, 1) => Some(Message::Node),
        (Message::Graph, 5) => Some(Message::Tensor),
        _ => None,
    };
    rewrite(bytes, |field| match descends(field).filter(|_| field.kind == Kind::Len) {
        Some(child) => patch(child, field.value, payloads),
        None => Ok(None),
    })
}

/// Copies a message, with other contents for the fields for which `replace` has some.
fn rewrite(
    bytes: &[u8],
    mut replace: impl FnMut(&Field<'_>) -> Result<Option<Vec<u8>>, OnnxFault>,
) -> Result<Option<Vec<u8>>, OnnxFault> {
    let (mut out, mut changed) = (Vec::with_capacity(bytes.len()), false);
    for field in Fields::new(bytes) {
        let field = field?;
        if let Some(value) = replace(&field)? {
            put_len(&mut out, field.number, &value);
            changed = true;
        } else {
            out.extend_from_slice(field.whole);
        }
    }
    Ok(changed.then_some(out))
}

/// A `Constant` node with the data of its `value` replaced.
fn patch_constant(node: &[u8], payload: &[u8]) -> Result<Vec<u8>, OnnxFault> {
    let patched = rewrite(node, |field| {
        if field.number != 5 || field.kind != Kind::Len || text_of(field.value, 1)? != "value" {
            return Ok(None);
        }
        rewrite(field.value, |inner| {
            if inner.number == 5 && inner.kind == Kind::Len { patch_tensor(inner.value, payload).map(Some) } else { Ok(None) }
        })
    })?;
    Ok(patched.unwrap_or_else(|| node.to_vec()))
}

/// A tensor with other data, which stand where its data began.
fn patch_tensor(tensor: &[u8], payload: &[u8]) -> Result<Vec<u8>, OnnxFault> {
    let mut out = Vec::with_capacity(tensor.len() + payload.len());
    let mut written = false;
    for field in Fields::new(tensor) {
        let field = field?;
        // Values of each type, raw data, external data and the word that the data are external.
        if matches!(field.number, 4..=7 | 9..=11 | 13 | 14) {
            if !std::mem::replace(&mut written, true) {
                out.extend_from_slice(payload);
            }
        } else {
            out.extend_from_slice(field.whole);
        }
    }
    if !written {
        out.extend_from_slice(payload);
    }
    Ok(out)
}

/// A message's text field; of several, the last, as decoders take it.
fn text_of(message: &[u8], number: u32) -> Result<String, OnnxFault> {
    texts_of(message, number).map(|mut texts| texts.pop().unwrap_or_default())
}

fn first_text_of(message: &[u8], number: u32) -> Result<String, OnnxFault> {
    texts_of(message, number).map(|texts| texts.into_iter().next().unwrap_or_default())
}

fn texts_of(message: &[u8], number: u32) -> Result<Vec<String>, OnnxFault> {
    let mut texts = Vec::new();
    for field in Fields::new(message) {
        let field = field?;
        if field.number == number && field.kind == Kind::Len {
            texts.push(String::from_utf8_lossy(field.value).into_owned());
        }
    }
    Ok(texts)
}
