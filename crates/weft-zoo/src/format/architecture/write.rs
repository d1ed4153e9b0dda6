//! Writing an architecture: one line a tensor, one line an op.

use std::fmt::Write as _;
use weft_core::{Architecture, Node, Op, RopePairs, Window};

/// Writes an architecture as TOML that reads back to an equal one.
///
/// Every op is written out, so that the text means the same whatever families become. It has no table headers, so
/// it can also stand below one.
#[must_use]
pub fn architecture_to_toml(architecture: &Architecture) -> String {
    let mut text = format!("name = {}\ntensors = [\n", quote(architecture.name()));
    for tensor in architecture.tensors() {
        let _ = writeln!(text, "  {{ name = {}, shape = {:?} }},", quote(&tensor.name), tensor.shape);
    }
    text.push_str("]\nops = [\n");
    let names: Vec<String> = architecture.nodes().iter().enumerate().map(|(i, node)| node_name(i, &node.op)).collect();
    for (node, name) in architecture.nodes().iter().zip(&names) {
        let mut line = Line { architecture, names: &names, node, text: String::new() };
        line.body();
        let _ = writeln!(text, "  {{ name = {}, {} = {{ {} }} }},", quote(name), node.op.name(), line.text);
    }
    text.push_str("]\n");
    text
}

pub(super) fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A node's name in a file; the domain knows nodes by their index alone.
fn node_name(index: usize, op: &Op) -> String {
    if index == 0 { "input".to_owned() } else { format!("{}-{index}", op.name()) }
}

/// The keys of one op.
struct Line<'a> {
    architecture: &'a Architecture,
    names: &'a [String],
    node: &'a Node,
    text: String,
}

impl Line<'_> {
    fn key(&mut self, key: &str, value: &str) {
        let comma = if self.text.is_empty() { "" } else { ", " };
        let _ = write!(self.text, "{comma}{key} = {value}");
    }

    fn debug(&mut self, key: &str, value: impl std::fmt::Debug) {
        self.key(key, &format!("{value:?}"));
    }

    fn tensor(&mut self, key: &str, tensor: Option<usize>) {
        if let Some(id) = tensor {
            self.key(key, &quote(&self.architecture.tensors()[id].name));
        }
    }

    fn of(&mut self) {
        let inputs: Vec<String> = self.node.inputs.iter().map(|&i| quote(&self.names[i])).collect();
        match &inputs[..] {
            [] => {}
            [one] if self.node.op != Op::Concat => self.key("of", one),
            many => self.key("of", &format!("[{}]", many.join(", "))),
        }
    }

    fn window(&mut self, window: Window) {
        self.debug("size", window.size);
        self.debug("stride", window.stride);
        self.debug("padding", window.padding);
    }

    fn body(&mut self) {
        let node = self.node;
        self.of();
        match &node.op {
            Op::Input { shape } => match shape[..] {
                [features] => self.debug("features", features),
                _ => self.debug("shape", shape),
            },
            Op::InputIds { length, vocabulary } => {
                self.debug("length", length);
                self.debug("vocabulary", vocabulary);
            }
            Op::Linear { weight, bias } => {
                self.tensor("weight", Some(*weight));
                self.tensor("bias", *bias);
            }
            Op::Conv2d { weight, bias, stride, padding, groups } => {
                self.tensor("weight", Some(*weight));
                self.tensor("bias", *bias);
                self.debug("stride", stride);
                self.debug("padding", padding);
                self.debug("groups", groups);
            }
            Op::Perception { kernels } => {
                // As f64, which holds every f32 exactly.
                let kernels: Vec<[f64; 9]> = kernels.iter().map(|kernel| kernel.map(f64::from)).collect();
                self.debug("kernels", kernels);
            }
            Op::Embedding { weight } | Op::Position { weight } | Op::ClassToken { weight } => self.tensor("weight", Some(*weight)),
            Op::Segment { weight, row } => {
                self.tensor("weight", Some(*weight));
                self.debug("row", row);
            }
            Op::BatchNorm { gain, bias, mean, variance, epsilon } => {
                for (key, tensor) in [("gain", gain), ("bias", bias), ("mean", mean), ("variance", variance)] {
                    self.tensor(key, Some(*tensor));
                }
                self.debug("epsilon", epsilon);
            }
            Op::LayerNorm { gain, bias, epsilon } => {
                self.tensor("gain", *gain);
                self.tensor("bias", *bias);
                self.debug("epsilon", epsilon);
            }
            Op::RmsNorm { gain, epsilon } => {
                self.tensor("gain", *gain);
                self.debug("epsilon", epsilon);
            }
            Op::Attention { .. } => self.attention(&node.op),
            Op::Clip { min, max } => {
                self.debug("min", min);
                self.debug("max", max);
            }
            Op::Scale { factor } => self.debug("factor", factor),
            Op::MaxPool(window) | Op::AvgPool(window) => self.window(*window),
            Op::Token { index } => self.debug("index", index),
            Op::Slice { start, len } => {
                self.debug("start", start);
                self.debug("len", len);
            }
            Op::Activation(_) | Op::Add | Op::Mul | Op::GlobalAvgPool | Op::Flatten | Op::Patches | Op::Concat => {}
        }
    }

    fn attention(&mut self, op: &Op) {
        let Op::Attention { heads, kv_heads, causal, rope } = op else { return };
        self.debug("heads", heads);
        self.debug("kv-heads", kv_heads);
        self.debug("causal", causal);
        if let Some(rope) = rope {
            let pairs = match rope.pairs {
                RopePairs::Interleaved => "interleaved",
                RopePairs::Halves => "halves",
            };
            self.key("rope", &format!("{{ theta = {:?}, pairs = \"{pairs}\" }}", rope.theta));
        }
    }
}
