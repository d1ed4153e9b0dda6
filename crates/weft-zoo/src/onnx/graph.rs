//! The shape of a graph: who makes which value, in which order, and what the output needs.

use super::OnnxFault;
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use std::collections::{BTreeMap, BTreeSet};

/// Versions of ONNX's own ops that are read: before 7, arithmetic did not broadcast as it does since.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// A graph whose names are unique and whose nodes that matter stand in order.
pub(super) struct Graph<'a> {
    pub(super) opset: i64,
    /// The one input that is no initializer.
    pub(super) input: &'a ValueInfoProto,
    pub(super) output: &'a str,
    /// Nodes that the output needs, each after those that it reads.
    pub(super) nodes: Vec<&'a NodeProto>,
    pub(super) initializers: BTreeMap<&'a str, &'a TensorProto>,
}

/// How messages call a node.
pub(super) fn label(node: &NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

impl<'a> Graph<'a> {
    pub(super) fn new(model: &'a ModelProto) -> Result<Self, OnnxFault> {
        let graph = model.graph.as_ref().ok_or(OnnxFault::Missing { what: "graph" })?;
        let opset = opset(model)?;
        let mut initializers = BTreeMap::new();
        for tensor in &graph.initializer {
            if initializers.insert(tensor.name.as_str(), tensor).is_some() {
                return Err(OnnxFault::DuplicateName { name: tensor.name.clone() });
            }
        }
        // Before IR version 4, initializers are declared as inputs too.
        let inputs = graph.input.iter().filter(|input| !initializers.contains_key(input.name.as_str())).collect::<Vec<_>>();
        let makers = makers(graph, &initializers, &inputs)?;
        let ([input], [output]) = (inputs.as_slice(), graph.output.as_slice()) else {
            let (what, got) = if inputs.len() == 1 { ("outputs", graph.output.len()) } else { ("inputs", inputs.len()) };
            return Err(OnnxFault::Ends { what, got });
        };
        let nodes = in_order(graph, &makers, |name| initializers.contains_key(name) || name == input.name)?;
        let nodes = needed(graph, &makers, nodes, &output.name)?;
        Ok(Self { opset, input, output: &output.name, nodes, initializers })
    }
}

fn opset(model: &ModelProto) -> Result<i64, OnnxFault> {
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let import = model.opset_import.iter().find(|import| own(&import.domain)).ok_or(OnnxFault::Missing { what: "opset_import" })?;
    if OPSETS.contains(&import.version) {
        return Ok(import.version);
    }
    Err(OnnxFault::Opset { got: import.version, min: *OPSETS.start(), max: *OPSETS.end() })
}

/// The node that makes each value.
fn makers<'a>(
    graph: &'a GraphProto,
    initializers: &BTreeMap<&'a str, &'a TensorProto>,
    inputs: &[&'a ValueInfoProto],
) -> Result<BTreeMap<&'a str, usize>, OnnxFault> {
    let mut seen: BTreeSet<&str> = initializers.keys().copied().collect();
    let mut makers = BTreeMap::new();
    let duplicate = |name: &str| OnnxFault::DuplicateName { name: name.to_owned() };
    for input in inputs {
        if !seen.insert(&input.name) {
            return Err(duplicate(&input.name));
        }
    }
    for (i, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !seen.insert(name) {
                return Err(duplicate(name));
            }
            makers.insert(name.as_str(), i);
        }
    }
    Ok(makers)
}

/// All nodes, each after those that it reads (Kahn 1962), otherwise as the file has them.
fn in_order(graph: &GraphProto, makers: &BTreeMap<&str, usize>, given: impl Fn(&str) -> bool) -> Result<Vec<usize>, OnnxFault> {
    let mut waits = vec![0usize; graph.node.len()];
    let mut readers = vec![Vec::new(); graph.node.len()];
    for (i, node) in graph.node.iter().enumerate() {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            if let Some(&maker) = makers.get(name.as_str()) {
                waits[i] += 1;
                readers[maker].push(i);
            } else if !given(name) {
                return Err(OnnxFault::MissingValue { node: label(node), op: node.op_type.clone(), value: name.clone() });
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|&i| waits[i] == 0).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &reader in &readers[i] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    if order.len() == waits.len() { Ok(order) } else { Err(on_cycle(graph, makers, &waits)) }
}

/// Names a node that depends on itself: walking back from one that still waits ends in a cycle.
fn on_cycle(graph: &GraphProto, makers: &BTreeMap<&str, usize>, waits: &[usize]) -> OnnxFault {
    let waiting = |i: &usize| waits[*i] > 0;
    let mut seen = BTreeSet::new();
    let mut at = (0..waits.len()).find(waiting).unwrap_or(0);
    while seen.insert(at) {
        let makers_of = graph.node[at].input.iter().filter_map(|name| makers.get(name.as_str()).copied());
        at = makers_of.into_iter().find(waiting).unwrap_or(at);
    }
    OnnxFault::Cycle { node: label(&graph.node[at]), op: graph.node[at].op_type.clone() }
}

/// Of the nodes in order, those that the output needs.
fn needed<'a>(
    graph: &'a GraphProto,
    makers: &BTreeMap<&str, usize>,
    order: Vec<usize>,
    output: &str,
) -> Result<Vec<&'a NodeProto>, OnnxFault> {
    let mut needed = vec![false; graph.node.len()];
    let last = *makers.get(output).ok_or_else(|| OnnxFault::MissingOutput { value: output.to_owned() })?;
    needed[last] = true;
    for &i in order.iter().rev() {
        if needed[i] {
            for name in &graph.node[i].input {
                if let Some(&maker) = makers.get(name.as_str()) {
                    needed[maker] = true;
                }
            }
        }
    }
    Ok(order.into_iter().filter(|&i| needed[i]).map(|i| &graph.node[i]).collect())
}
