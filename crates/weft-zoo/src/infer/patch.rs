//! Graphs that differ a little from their family's.

use std::collections::{BTreeMap, BTreeSet};
use weft_core::{Activation, Architecture, Node, Op, Result};

/// The graph with another activation in its hidden layers and another `ε` in its layer norms.
pub(super) fn with(architecture: &Architecture, activation: Option<Activation>, epsilon: Option<f64>) -> Result<Architecture> {
    let changed = |op: &Op| match *op {
        // Hidden layers of transformers have one of these; others, such as a pooler's `tanh`, are part of the family.
        Op::Activation(Activation::Gelu | Activation::GeluTanh | Activation::Silu) => {
            activation.map_or_else(|| op.clone(), Op::Activation)
        }
        Op::LayerNorm { gain, bias, epsilon: own } => Op::LayerNorm { gain, bias, epsilon: epsilon.unwrap_or(own) },
        _ => op.clone(),
    };
    let nodes = architecture.nodes().iter().map(|node| Node { op: changed(&node.op), inputs: node.inputs.clone() }).collect();
    Architecture::new(architecture.name(), tensors(architecture), nodes)
}

fn tensors(architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
    architecture.tensors().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
}

/// The graph without the biases that a file has in no block: some networks are trained without.
///
/// A bias that only some blocks lack stays declared, so that the file is refused.
pub(super) fn without_absent(
    architecture: &Architecture,
    has: &dyn Fn(&str) -> bool,
    notes: &mut Vec<String>,
) -> Result<Architecture> {
    let mut optional: BTreeSet<usize> = BTreeSet::new();
    for node in architecture.nodes() {
        if let Op::Linear { bias, .. } | Op::Conv2d { bias, .. } | Op::LayerNorm { bias, .. } = node.op {
            optional.extend(bias);
        }
    }
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for &id in &optional {
        groups.entry(without_numbers(&architecture.tensors()[id].name)).or_default().push(id);
    }
    groups.retain(|_, ids| !ids.iter().any(|&id| has(&architecture.tensors()[id].name)));
    let absent: BTreeSet<usize> = groups.values().flatten().copied().collect();
    if absent.is_empty() {
        return Ok(architecture.clone());
    }
    notes.push(format!("it has no biases {}", groups.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")));
    let kept: Vec<usize> = (0..architecture.tensors().len()).filter(|id| !absent.contains(id)).collect();
    let renumbered = |id: usize| kept.partition_point(|&k| k < id);
    let optional = |id: Option<usize>| id.filter(|id| !absent.contains(id)).map(renumbered);
    let op = |op: &Op| match *op {
        Op::Linear { weight, bias } => Op::Linear { weight: renumbered(weight), bias: optional(bias) },
        Op::Conv2d { weight, bias, stride, padding, groups } => {
            Op::Conv2d { weight: renumbered(weight), bias: optional(bias), stride, padding, groups }
        }
        Op::Embedding { weight } => Op::Embedding { weight: renumbered(weight) },
        Op::Position { weight } => Op::Position { weight: renumbered(weight) },
        Op::Segment { weight, row } => Op::Segment { weight: renumbered(weight), row },
        Op::ClassToken { weight } => Op::ClassToken { weight: renumbered(weight) },
        Op::BatchNorm { gain, bias, mean, variance, epsilon } => {
            let [gain, bias, mean, variance] = [gain, bias, mean, variance].map(renumbered);
            Op::BatchNorm { gain, bias, mean, variance, epsilon }
        }
        Op::LayerNorm { gain, bias, epsilon } => Op::LayerNorm { gain: gain.map(renumbered), bias: optional(bias), epsilon },
        Op::RmsNorm { gain, epsilon } => Op::RmsNorm { gain: gain.map(renumbered), epsilon },
        ref other => other.clone(),
    };
    let nodes = architecture.nodes().iter().map(|node| Node { op: op(&node.op), inputs: node.inputs.clone() }).collect();
    let tensors =
        kept.iter().map(|&id| (architecture.tensors()[id].name.clone(), architecture.tensors()[id].shape.clone())).collect();
    Architecture::new(architecture.name(), tensors, nodes)
}

/// A name with `#` for every number that is a whole part.
fn without_numbers(name: &str) -> String {
    let part = |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { "#".to_owned() } else { part.to_owned() };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::families::{Family, Gpt};

    #[test]
    fn only_biases_that_all_blocks_lack_go() {
        let gpt = Gpt { vocabulary: 5, length: 4, d_model: 4, depth: 2, num_heads: 2, d_hidden: 3, tied: true };
        let own = Family::Gpt(gpt).build("g").unwrap();
        let without = |absent: &[&str]| {
            let mut notes = Vec::new();
            let kept = without_absent(&own, &|name| !absent.iter().any(|end| name.ends_with(end)), &mut notes).unwrap();
            (kept, notes.len())
        };
        assert_eq!(without(&[]), (own.clone(), 0));
        assert_eq!(without(&["h.0.mlp.fc1.bias"]), (own.clone(), 0));
        let (some, notes) = without(&["mlp.fc1.bias"]);
        assert_eq!((some.num_parameters(), notes), (own.num_parameters() - 6, 1));
        let (none, _) = without(&[".bias"]);
        assert!(none.tensors().iter().all(|spec| spec.name.ends_with(".weight")));
        assert_eq!(none.shapes(), own.shapes());
        // A gain is no bias.
        assert_eq!(without(&["ln_f.weight"]).0, own);
    }
}
