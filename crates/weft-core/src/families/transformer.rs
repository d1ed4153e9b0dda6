//! Transformers: vision, encoder and decoders.

use super::{MAX_DEPTH, MAX_WIDTH, check, check_multiple};
use crate::{Activation, Architecture, GraphBuilder, Op, Result, Rope, RopePairs, Window};

/// A pre-norm vision transformer with a class token (Dosovitskiy et al. 2021).
#[derive(Debug, Clone, PartialEq)]
pub struct Vit {
    /// Channels, height and width of the input.
    pub image: [usize; 3],
    /// Height and width of a patch.
    pub patch: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the hidden layer of a block.
    pub d_hidden: usize,
    /// The number of outputs.
    pub num_classes: usize,
}

/// A post-norm text encoder (Devlin et al. 2019), with Hugging Face's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Bert {
    /// Different token ids.
    pub vocabulary: usize,
    /// The most tokens.
    pub length: usize,
    /// Segments that have an embedding; inputs are of segment 0.
    pub segments: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the hidden layer of a block.
    pub d_hidden: usize,
    /// Whether the output is `tanh` of a linear map of the first token, instead of all tokens.
    pub pooler: bool,
}

/// A pre-norm causal decoder with learned positions (Radford et al. 2019).
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt {
    /// Different token ids.
    pub vocabulary: usize,
    /// The most tokens.
    pub length: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the hidden layer of a block.
    pub d_hidden: usize,
    /// Whether the output layer is the embedding's table.
    pub tied: bool,
}

/// A causal decoder with RMS norm, rotary positions, grouped queries and `SwiGLU` (Touvron et al. 2023), with Hugging Face's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama {
    /// Different token ids.
    pub vocabulary: usize,
    /// The most tokens.
    pub length: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Blocks.
    pub depth: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of the hidden layer of a block.
    pub d_hidden: usize,
    /// Whether the output layer is the embedding's table.
    pub tied: bool,
    /// The base of the rotary angles.
    pub theta: f64,
    /// Which coordinates are rotated together: `Halves` in Hugging Face's checkpoints, `Interleaved` in llama2.c's.
    pub pairs: RopePairs,
    /// `ε` of the norms.
    pub epsilon: f64,
}

/// Sizes that all transformers have.
struct Sizes {
    family: &'static str,
    d: usize,
    depth: usize,
    heads: usize,
    hidden: usize,
}

impl Sizes {
    fn check(&self) -> Result<()> {
        check(self.family, "d-model", self.d, MAX_WIDTH)?;
        check(self.family, "depth", self.depth, MAX_DEPTH)?;
        check(self.family, "num-heads", self.heads, MAX_WIDTH)?;
        check(self.family, "d-hidden", self.hidden, MAX_WIDTH)?;
        check_multiple(self.family, "d-model", self.d, self.heads).map(|_| ())
    }

    /// Attention of `x` with biases, without the sum.
    fn attention(&self, graph: &mut GraphBuilder, x: usize, [q, k, v, o]: [String; 4], causal: bool) -> usize {
        let qkv = [q, k, v].map(|name| graph.linear(x, &name, [self.d, self.d], true));
        let (heads, kv_heads) = (self.heads, self.heads);
        let mixed = graph.push(Op::Attention { heads, kv_heads, causal, rope: None }, &qkv);
        graph.linear(mixed, &o, [self.d, self.d], true)
    }

    /// The hidden layer of a block.
    fn feed_forward(&self, graph: &mut GraphBuilder, x: usize, [up, down]: [String; 2], activation: Activation) -> usize {
        let hidden = graph.linear(x, &up, [self.hidden, self.d], true);
        let hidden = graph.activation(hidden, activation);
        graph.linear(hidden, &down, [self.d, self.hidden], true)
    }

    /// A pre-norm block: `x + attention(norm x)`, then `x + feed-forward(norm x)`.
    fn pre_norm(&self, graph: &mut GraphBuilder, x: usize, block: &PreNorm<'_>) -> usize {
        let at = |part: &str| format!("{}.{part}", block.name);
        let y = graph.layer_norm(x, &at(block.norms[0]), self.d, block.epsilon);
        let y = self.attention(graph, y, ["attn.q", "attn.k", "attn.v", "attn.proj"].map(at), block.causal);
        let x = graph.add(x, y);
        let y = graph.layer_norm(x, &at(block.norms[1]), self.d, block.epsilon);
        let y = self.feed_forward(graph, y, ["mlp.fc1", "mlp.fc2"].map(at), block.activation);
        graph.add(x, y)
    }
}

/// What differs between the pre-norm families.
struct PreNorm<'a> {
    name: String,
    norms: [&'a str; 2],
    causal: bool,
    activation: Activation,
    epsilon: f64,
}

impl Vit {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        let Self { image: [channels, height, width], patch, d_model: d, depth, num_heads: heads, d_hidden: hidden, num_classes } =
            *self;
        let sizes = Sizes { family: "vit", d, depth, heads, hidden };
        sizes.check()?;
        check("vit", "patch", patch, MAX_WIDTH)?;
        check("vit", "num-classes", num_classes, MAX_WIDTH)?;
        for side in [height, width] {
            if side == 0 || side > MAX_WIDTH || !side.is_multiple_of(patch) {
                return Err(crate::Error::Size {
                    family: "vit",
                    size: "patch",
                    expected: "a divisor of the image's sides",
                    got: patch,
                });
            }
        }
        let tokens = (height / patch) * (width / patch) + 1;
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![channels, height, width] });
        let mut x = graph.conv2d(0, "patch_embed.proj", [d, channels], Window::square(patch, patch, 0), true);
        x = graph.push(Op::Patches, &[x]);
        let weight = graph.tensor("cls_token", &[d]);
        x = graph.push(Op::ClassToken { weight }, &[x]);
        let weight = graph.tensor("pos_embed", &[tokens, d]);
        x = graph.push(Op::Position { weight }, &[x]);
        for i in 0..depth {
            let (name, norms) = (format!("blocks.{i}"), ["norm1", "norm2"]);
            x = sizes.pre_norm(&mut graph, x, &PreNorm { name, norms, causal: false, activation: Activation::Gelu, epsilon: 1e-6 });
        }
        x = graph.layer_norm(x, "norm", d, 1e-6);
        x = graph.push(Op::Token { index: 0 }, &[x]);
        graph.linear(x, "head", [num_classes, d], true);
        graph.build(name)
    }
}

impl Bert {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        let (d, family) = (self.d_model, "bert");
        let sizes = Sizes { family, d, depth: self.depth, heads: self.num_heads, hidden: self.d_hidden };
        sizes.check()?;
        check(family, "segments", self.segments, MAX_WIDTH)?;
        let mut graph = GraphBuilder::new(Op::InputIds { length: self.length, vocabulary: self.vocabulary });
        let table = |graph: &mut GraphBuilder, part: &str, rows| graph.tensor(format!("embeddings.{part}.weight"), &[rows, d]);
        let weight = table(&mut graph, "word_embeddings", self.vocabulary);
        let mut x = graph.push(Op::Embedding { weight }, &[0]);
        let weight = table(&mut graph, "position_embeddings", self.length);
        x = graph.push(Op::Position { weight }, &[x]);
        let weight = table(&mut graph, "token_type_embeddings", self.segments);
        x = graph.push(Op::Segment { weight, row: 0 }, &[x]);
        x = graph.layer_norm(x, "embeddings.LayerNorm", d, 1e-12);
        for i in 0..self.depth {
            let at = |part: &str| format!("encoder.layer.{i}.{part}");
            let names = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"].map(at);
            let y = sizes.attention(&mut graph, x, names, false);
            let sum = graph.add(x, y);
            x = graph.layer_norm(sum, &at("attention.output.LayerNorm"), d, 1e-12);
            let y = sizes.feed_forward(&mut graph, x, ["intermediate.dense", "output.dense"].map(at), Activation::Gelu);
            let sum = graph.add(x, y);
            x = graph.layer_norm(sum, &at("output.LayerNorm"), d, 1e-12);
        }
        if self.pooler {
            x = graph.push(Op::Token { index: 0 }, &[x]);
            x = graph.linear(x, "pooler.dense", [d, d], true);
            graph.activation(x, Activation::Tanh);
        }
        graph.build(name)
    }
}

impl Gpt {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        let d = self.d_model;
        let sizes = Sizes { family: "gpt", d, depth: self.depth, heads: self.num_heads, hidden: self.d_hidden };
        sizes.check()?;
        let mut graph = GraphBuilder::new(Op::InputIds { length: self.length, vocabulary: self.vocabulary });
        let tokens = graph.tensor("wte.weight", &[self.vocabulary, d]);
        let mut x = graph.push(Op::Embedding { weight: tokens }, &[0]);
        let weight = graph.tensor("wpe.weight", &[self.length, d]);
        x = graph.push(Op::Position { weight }, &[x]);
        for i in 0..self.depth {
            let (name, norms) = (format!("h.{i}"), ["ln_1", "ln_2"]);
            x = sizes.pre_norm(
                &mut graph,
                x,
                &PreNorm { name, norms, causal: true, activation: Activation::GeluTanh, epsilon: 1e-5 },
            );
        }
        x = graph.layer_norm(x, "ln_f", d, 1e-5);
        let weight = if self.tied { tokens } else { graph.tensor("lm_head.weight", &[self.vocabulary, d]) };
        graph.push(Op::Linear { weight, bias: None }, &[x]);
        graph.build(name)
    }
}

impl Llama {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        let (d, family, heads) = (self.d_model, "llama", self.num_heads);
        Sizes { family, d, depth: self.depth, heads, hidden: self.d_hidden }.check()?;
        check_multiple(family, "num-heads", heads, self.num_kv_heads)?;
        let kv = d / heads * self.num_kv_heads;
        let mut graph = GraphBuilder::new(Op::InputIds { length: self.length, vocabulary: self.vocabulary });
        let tokens = graph.tensor("model.embed_tokens.weight", &[self.vocabulary, d]);
        let mut x = graph.push(Op::Embedding { weight: tokens }, &[0]);
        let rope = Some(Rope { theta: self.theta, pairs: self.pairs });
        for i in 0..self.depth {
            let at = |part: &str| format!("model.layers.{i}.{part}");
            let y = graph.rms_norm(x, &at("input_layernorm"), d, self.epsilon);
            let q = graph.linear(y, &at("self_attn.q_proj"), [d, d], false);
            let [k, v] = ["self_attn.k_proj", "self_attn.v_proj"].map(|part| graph.linear(y, &at(part), [kv, d], false));
            let mixed = Op::Attention { heads, kv_heads: self.num_kv_heads, causal: true, rope };
            let y = graph.push(mixed, &[q, k, v]);
            let y = graph.linear(y, &at("self_attn.o_proj"), [d, d], false);
            x = graph.add(x, y);
            let y = graph.rms_norm(x, &at("post_attention_layernorm"), d, self.epsilon);
            let gate = graph.linear(y, &at("mlp.gate_proj"), [self.d_hidden, d], false);
            let gate = graph.activation(gate, Activation::Silu);
            let up = graph.linear(y, &at("mlp.up_proj"), [self.d_hidden, d], false);
            let hidden = graph.push(Op::Mul, &[gate, up]);
            let y = graph.linear(hidden, &at("mlp.down_proj"), [d, self.d_hidden], false);
            x = graph.add(x, y);
        }
        x = graph.rms_norm(x, "model.norm", d, self.epsilon);
        let weight = if self.tied { tokens } else { graph.tensor("lm_head.weight", &[self.vocabulary, d]) };
        graph.push(Op::Linear { weight, bias: None }, &[x]);
        graph.build(name)
    }
}
