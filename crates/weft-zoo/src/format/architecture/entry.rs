//! Ops as they stand in a file: a name and exactly one table that says what is computed.

use serde::Deserialize;
use std::collections::BTreeMap;
use weft_core::{Activation, Node, Op, Rope, RopePairs, Window};

/// What an entry may refer to: earlier ops and declared tensors.
pub(super) struct Names<'a> {
    /// Indices of earlier ops.
    pub(super) ops: BTreeMap<&'a str, usize>,
    /// Indices of tensors.
    pub(super) tensors: BTreeMap<&'a str, usize>,
}

/// A name and exactly one of the kinds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct OpEntry {
    pub(super) name: String,
    input: Option<InputEntry>,
    input_ids: Option<InputIdsEntry>,
    linear: Option<MapEntry>,
    conv2d: Option<Conv2dEntry>,
    perception: Option<PerceptionEntry>,
    embedding: Option<TableEntry>,
    position: Option<TableEntry>,
    segment: Option<SegmentEntry>,
    class_token: Option<TableEntry>,
    batch_norm: Option<BatchNormEntry>,
    layer_norm: Option<NormEntry>,
    rms_norm: Option<NormEntry>,
    attention: Option<AttentionEntry>,
    relu: Option<UnaryEntry>,
    tanh: Option<UnaryEntry>,
    gelu: Option<UnaryEntry>,
    gelu_tanh: Option<UnaryEntry>,
    silu: Option<UnaryEntry>,
    sigmoid: Option<UnaryEntry>,
    clip: Option<ClipEntry>,
    scale: Option<ScaleEntry>,
    add: Option<PairEntry>,
    mul: Option<PairEntry>,
    max_pool: Option<PoolEntry>,
    avg_pool: Option<PoolEntry>,
    global_avg_pool: Option<UnaryEntry>,
    flatten: Option<UnaryEntry>,
    patches: Option<UnaryEntry>,
    token: Option<TokenEntry>,
    slice: Option<SliceEntry>,
    concat: Option<ConcatEntry>,
}

/// `features = 64` for a vector, or `shape = [3, 32, 32]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputEntry {
    features: Option<usize>,
    shape: Option<Vec<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputIdsEntry {
    length: usize,
    vocabulary: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MapEntry {
    of: String,
    weight: String,
    bias: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conv2dEntry {
    of: String,
    weight: String,
    bias: Option<String>,
    #[serde(default = "one_by_one")]
    stride: [usize; 2],
    #[serde(default)]
    padding: [usize; 2],
    #[serde(default = "one")]
    groups: usize,
}

fn one() -> usize {
    1
}

fn one_by_one() -> [usize; 2] {
    [1, 1]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PerceptionEntry {
    of: String,
    kernels: Vec<[f64; 9]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableEntry {
    of: String,
    weight: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentEntry {
    of: String,
    weight: String,
    #[serde(default)]
    row: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchNormEntry {
    of: String,
    gain: String,
    bias: String,
    mean: String,
    variance: String,
    epsilon: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NormEntry {
    of: String,
    gain: Option<String>,
    bias: Option<String>,
    epsilon: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AttentionEntry {
    /// Queries, keys and values.
    of: [String; 3],
    heads: usize,
    kv_heads: Option<usize>,
    #[serde(default)]
    causal: bool,
    rope: Option<RopeEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RopeEntry {
    theta: f64,
    pairs: PairsWord,
}

/// [`RopePairs`] as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PairsWord {
    Interleaved,
    Halves,
}

impl From<PairsWord> for RopePairs {
    fn from(word: PairsWord) -> Self {
        match word {
            PairsWord::Interleaved => Self::Interleaved,
            PairsWord::Halves => Self::Halves,
        }
    }
}

impl From<RopePairs> for PairsWord {
    fn from(pairs: RopePairs) -> Self {
        match pairs {
            RopePairs::Interleaved => Self::Interleaved,
            RopePairs::Halves => Self::Halves,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnaryEntry {
    of: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClipEntry {
    of: String,
    min: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleEntry {
    of: String,
    factor: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairEntry {
    of: [String; 2],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolEntry {
    of: String,
    size: [usize; 2],
    /// As the size if it is not there.
    stride: Option<[usize; 2]>,
    #[serde(default)]
    padding: [usize; 2],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    of: String,
    index: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SliceEntry {
    of: String,
    start: usize,
    len: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConcatEntry {
    of: Vec<String>,
}

/// The names that one entry refers to, resolved or refused with the entry's own name.
struct Refer<'a> {
    entry: &'a str,
    names: &'a Names<'a>,
    nodes: Vec<Node>,
}

impl Refer<'_> {
    fn op(&self, name: &str) -> Result<usize, String> {
        let known = self.names.ops.get(name).copied();
        known.ok_or_else(|| format!("op `{}` reads `{name}`, which no earlier op is called", self.entry))
    }

    fn tensor(&self, name: &str) -> Result<usize, String> {
        let known = self.names.tensors.get(name).copied();
        known.ok_or_else(|| format!("op `{}` uses the tensor `{name}`, which is not declared", self.entry))
    }

    fn optional(&self, name: Option<&String>) -> Result<Option<usize>, String> {
        name.map(|name| self.tensor(name)).transpose()
    }

    fn push(&mut self, op: Op, of: &[&String]) -> Result<(), String> {
        let inputs = of.iter().map(|name| self.op(name)).collect::<Result<_, _>>()?;
        self.nodes.push(Node { op, inputs });
        Ok(())
    }
}

impl OpEntry {
    /// Resolves the names.
    pub(super) fn node(&self, names: &Names<'_>) -> Result<Node, String> {
        let mut refer = Refer { entry: &self.name, names, nodes: Vec::new() };
        self.inputs(&mut refer)?;
        self.maps(&mut refer)?;
        self.tables(&mut refer)?;
        self.norms(&mut refer)?;
        self.attention(&mut refer)?;
        self.elementwise(&mut refer)?;
        self.windows(&mut refer)?;
        self.rearranged(&mut refer)?;
        let count = refer.nodes.len();
        let only = refer.nodes.pop().filter(|_| count == 1);
        only.ok_or_else(|| format!("op `{}` must have one kind, it has {count}", self.name))
    }

    fn inputs(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        if let Some(input) = &self.input {
            let shape = match (input.features, &input.shape) {
                (Some(features), None) => vec![features],
                (None, Some(shape)) => shape.clone(),
                _ => return Err(format!("the input `{}` must have either `features` or a `shape`", self.name)),
            };
            refer.push(Op::Input { shape }, &[])?;
        }
        if let Some(InputIdsEntry { length, vocabulary }) = self.input_ids {
            refer.push(Op::InputIds { length, vocabulary }, &[])?;
        }
        Ok(())
    }

    fn maps(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        if let Some(MapEntry { of, weight, bias }) = &self.linear {
            let op = Op::Linear { weight: refer.tensor(weight)?, bias: refer.optional(bias.as_ref())? };
            refer.push(op, &[of])?;
        }
        if let Some(Conv2dEntry { of, weight, bias, stride, padding, groups }) = &self.conv2d {
            let (weight, bias) = (refer.tensor(weight)?, refer.optional(bias.as_ref())?);
            refer.push(Op::Conv2d { weight, bias, stride: *stride, padding: *padding, groups: *groups }, &[of])?;
        }
        if let Some(PerceptionEntry { of, kernels }) = &self.perception {
            let kernels: Vec<[f32; 9]> = kernels.iter().map(|kernel| kernel.map(|value| value as f32)).collect();
            if kernels.iter().flatten().any(|value| !value.is_finite()) {
                return Err(format!("a kernel of op `{}` is not finite", self.name));
            }
            refer.push(Op::Perception { kernels }, &[of])?;
        }
        Ok(())
    }

    fn tables(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        if let Some(TableEntry { of, weight }) = &self.embedding {
            refer.push(Op::Embedding { weight: refer.tensor(weight)? }, &[of])?;
        }
        if let Some(TableEntry { of, weight }) = &self.position {
            refer.push(Op::Position { weight: refer.tensor(weight)? }, &[of])?;
        }
        if let Some(TableEntry { of, weight }) = &self.class_token {
            refer.push(Op::ClassToken { weight: refer.tensor(weight)? }, &[of])?;
        }
        if let Some(SegmentEntry { of, weight, row }) = &self.segment {
            refer.push(Op::Segment { weight: refer.tensor(weight)?, row: *row }, &[of])?;
        }
        Ok(())
    }

    fn norms(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        if let Some(BatchNormEntry { of, gain, bias, mean, variance, epsilon }) = &self.batch_norm {
            let [gain, bias] = [refer.tensor(gain)?, refer.tensor(bias)?];
            let [mean, variance] = [refer.tensor(mean)?, refer.tensor(variance)?];
            refer.push(Op::BatchNorm { gain, bias, mean, variance, epsilon: *epsilon }, &[of])?;
        }
        if let Some(NormEntry { of, gain, bias, epsilon }) = &self.layer_norm {
            let [gain, bias] = [refer.optional(gain.as_ref())?, refer.optional(bias.as_ref())?];
            refer.push(Op::LayerNorm { gain, bias, epsilon: *epsilon }, &[of])?;
        }
        if let Some(NormEntry { of, gain, bias, epsilon }) = &self.rms_norm {
            if bias.is_some() {
                return Err(format!("op `{}`: an RMS norm has no `bias`", self.name));
            }
            refer.push(Op::RmsNorm { gain: refer.optional(gain.as_ref())?, epsilon: *epsilon }, &[of])?;
        }
        Ok(())
    }

    fn attention(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        let Some(AttentionEntry { of: [q, k, v], heads, kv_heads, causal, rope }) = &self.attention else { return Ok(()) };
        let rope = rope.as_ref().map(|rope| Rope { theta: rope.theta, pairs: rope.pairs.into() });
        if rope.is_some_and(|rope| !(rope.theta.is_finite() && rope.theta > 0.0)) {
            return Err(format!("op `{}`: the base `theta` of rotary angles must be above 0", self.name));
        }
        let op = Op::Attention { heads: *heads, kv_heads: kv_heads.unwrap_or(*heads), causal: *causal, rope };
        refer.push(op, &[q, k, v])
    }

    fn elementwise(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        let unary = [
            (&self.relu, Activation::Relu),
            (&self.tanh, Activation::Tanh),
            (&self.gelu, Activation::Gelu),
            (&self.gelu_tanh, Activation::GeluTanh),
            (&self.silu, Activation::Silu),
            (&self.sigmoid, Activation::Sigmoid),
        ];
        for (entry, activation) in unary {
            if let Some(UnaryEntry { of }) = entry {
                refer.push(Op::Activation(activation), &[of])?;
            }
        }
        if let Some(ClipEntry { of, min, max }) = &self.clip {
            refer.push(Op::Clip { min: *min, max: *max }, &[of])?;
        }
        if let Some(ScaleEntry { of, factor }) = &self.scale {
            refer.push(Op::Scale { factor: *factor }, &[of])?;
        }
        for (entry, op) in [(&self.add, Op::Add), (&self.mul, Op::Mul)] {
            if let Some(PairEntry { of: [a, b] }) = entry {
                refer.push(op, &[a, b])?;
            }
        }
        Ok(())
    }

    fn windows(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        for (entry, average) in [(&self.max_pool, false), (&self.avg_pool, true)] {
            if let Some(PoolEntry { of, size, stride, padding }) = entry {
                let window = Window { size: *size, stride: stride.unwrap_or(*size), padding: *padding };
                refer.push(if average { Op::AvgPool(window) } else { Op::MaxPool(window) }, &[of])?;
            }
        }
        Ok(())
    }

    fn rearranged(&self, refer: &mut Refer<'_>) -> Result<(), String> {
        let unary = [(&self.global_avg_pool, Op::GlobalAvgPool), (&self.flatten, Op::Flatten), (&self.patches, Op::Patches)];
        for (entry, op) in unary {
            if let Some(UnaryEntry { of }) = entry {
                refer.push(op, &[of])?;
            }
        }
        if let Some(TokenEntry { of, index }) = &self.token {
            refer.push(Op::Token { index: *index }, &[of])?;
        }
        if let Some(SliceEntry { of, start, len }) = &self.slice {
            refer.push(Op::Slice { start: *start, len: *len }, &[of])?;
        }
        if let Some(ConcatEntry { of }) = &self.concat {
            refer.push(Op::Concat, &of.iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }
}
