//! A frozen base network: a decoder of the Llama family or an encoder of the BERT family, laid out for fused passes.
//!
//! Sizes are read off the graph, and the family's graph of these sizes must be that graph, so that nothing is run as if it were something
//! else. Maps that read the same rows are fused: query, key and value; gate and up.

use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;
use weft_core::families::{Bert, Family, Llama};
use weft_core::{Architecture, Op, Rope, RopePairs, TensorSpec};
use weft_ops::backend::{Linear, Norm, NormKind};

/// Parts start at multiples of so many values, so that a GPU reads them 16 bytes at a time.
const ALIGNMENT: usize = 8;

/// Which of a block's four maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// Query, key and value.
    Packed = 0,
    /// Behind attention.
    Mixed = 1,
    /// Into the hidden layer; of a decoder, gate and up.
    Up = 2,
    /// Out of it.
    Down = 3,
}

impl Site {
    pub(super) const ALL: [Self; 4] = [Self::Packed, Self::Mixed, Self::Up, Self::Down];
}

/// A linear map of the base by its name in checkpoints: where adapters may sit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) block: usize,
    pub(super) site: Site,
    /// Its first column among the outputs of the fused map.
    pub(super) first: usize,
    /// Outputs and inputs.
    pub(super) shape: [usize; 2],
}

/// A block's maps, by [`Site`], and its norms in the order in which they run.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) maps: [Linear; 4],
    pub(super) norms: [Norm; 2],
}

/// What differs between the two families.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Pre-norm, causal, rotary, gated; the output is logits of the next token.
    Decoder { rope: Rope, norm: Norm, head: Linear },
    /// Post-norm, with learned positions that start at a place among the parameters; the output is the last tokens.
    Encoder { positions: usize, norm: Norm },
}

/// A frozen base network with its weights.
///
/// Decoders of the Llama family predict the next token; encoders of the BERT family are read as the mean of their last tokens (a pooler has no
/// say).
#[derive(Debug, Clone)]
pub struct Base {
    architecture: Arc<Architecture>,
    pub(super) vocabulary: usize,
    pub(super) length: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) hidden: usize,
    pub(super) kind: Kind,
    pub(super) blocks: Vec<Block>,
    pub(super) modules: Vec<Module>,
    /// The token table, `[vocabulary, d]`.
    pub(super) table: Vec<f32>,
    /// All other parameters, those of norms first.
    pub(super) theta: Vec<f32>,
    /// How many of them are of norms.
    pub(super) of_norms: usize,
}

impl Base {
    /// Takes a base network.
    ///
    /// # Errors
    /// An architecture that is neither of the Llama nor of the BERT family, or weights that are not its own.
    pub fn new(architecture: &Arc<Architecture>, row: &[f32]) -> Result<Self> {
        let refuse = |reason: String| Error::Base { architecture: architecture.name().to_owned(), reason };
        if row.len() != architecture.num_parameters() {
            return Err(refuse(format!("it has {} weights, got {}", architecture.num_parameters(), row.len())));
        }
        if let Some(at) = row.iter().position(|w| !w.is_finite()) {
            return Err(refuse(format!("weight {at} is {}", row[at])));
        }
        let sizes = Sizes::of(architecture).ok_or_else(|| refuse("it is no decoder or encoder of tokens".to_owned()))?;
        let llama = sizes.llama(architecture).filter(|llama| is(architecture, &Family::Llama(llama.clone())));
        if let Some(llama) = llama {
            return Ok(Self::of_llama(architecture.clone(), row, &llama));
        }
        let bert = sizes.bert(architecture).filter(|bert| is(architecture, &Family::Bert(bert.clone())));
        match bert {
            Some(bert) => Ok(Self::of_bert(architecture.clone(), row, &bert)),
            None => Err(refuse("adapters are trained on the families `llama` and `bert`".to_owned())),
        }
    }

    /// The architecture that it was made of.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// The number of different tokens.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The most tokens of a sequence.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.length
    }

    /// Whether it predicts the next token; otherwise it encodes sentences.
    #[must_use]
    pub fn is_decoder(&self) -> bool {
        matches!(self.kind, Kind::Decoder { .. })
    }

    /// Which coordinates of a head its rotary positions turn together; none of an encoder, whose positions are learned.
    #[must_use]
    pub fn rope_pairs(&self) -> Option<RopePairs> {
        match &self.kind {
            Kind::Decoder { rope, .. } => Some(rope.pairs),
            Kind::Encoder { .. } => None,
        }
    }

    /// The names of its linear modules, where adapters may sit, in the order of the blocks.
    pub fn module_names(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(|module| module.name.as_str())
    }

    pub(super) fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    fn of_llama(architecture: Arc<Architecture>, row: &[f32], sizes: &Llama) -> Self {
        let (d, f) = (sizes.d_model, sizes.d_hidden);
        let kv = d / sizes.num_heads * sizes.num_kv_heads;
        let mut laid = Laid::new(&architecture, row);
        let rms = |laid: &mut Laid<'_>, name: &str| laid.norm(NormKind::Rms, name, (d, sizes.epsilon));
        let at = |i: usize, part: &str| format!("model.layers.{i}.{part}");
        let names = ["input_layernorm", "post_attention_layernorm"];
        let norms: Vec<[Norm; 2]> = (0..sizes.depth).map(|i| names.map(|part| rms(&mut laid, &at(i, part)))).collect();
        let norm = rms(&mut laid, "model.norm");
        laid.end_norms();
        let parts: [&[(&str, usize)]; 4] = [
            &[("self_attn.q_proj", d), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
            &[("self_attn.o_proj", d)],
            &[("mlp.gate_proj", f), ("mlp.up_proj", f)],
            &[("mlp.down_proj", d)],
        ];
        let blocks = laid.blocks(norms, &parts, ([d, d, d, f], false), at);
        let table = "model.embed_tokens.weight";
        let head = laid.map(&[if sizes.tied { table.to_owned() } else { "lm_head.weight".to_owned() }], d, None);
        let rope = Rope { theta: sizes.theta, pairs: sizes.pairs };
        Self {
            vocabulary: sizes.vocabulary,
            length: sizes.length,
            width: d,
            heads: sizes.num_heads,
            kv_heads: sizes.num_kv_heads,
            hidden: f,
            kind: Kind::Decoder { rope, norm, head },
            blocks,
            table: laid.tensor(table).to_vec(),
            of_norms: laid.of_norms,
            modules: laid.modules,
            theta: laid.theta,
            architecture,
        }
    }

    fn of_bert(architecture: Arc<Architecture>, row: &[f32], sizes: &Bert) -> Self {
        let (d, f) = (sizes.d_model, sizes.d_hidden);
        let mut laid = Laid::new(&architecture, row);
        let layer = |laid: &mut Laid<'_>, name: &str| laid.norm(NormKind::Layer, name, (d, BERT_EPSILON));
        let at = |i: usize, part: &str| format!("encoder.layer.{i}.{part}");
        let norm = layer(&mut laid, "embeddings.LayerNorm");
        let names = ["attention.output.LayerNorm", "output.LayerNorm"];
        let norms: Vec<[Norm; 2]> = (0..sizes.depth).map(|i| names.map(|part| layer(&mut laid, &at(i, part)))).collect();
        laid.end_norms();
        let parts: [&[(&str, usize)]; 4] = [
            &[("attention.self.query", d), ("attention.self.key", d), ("attention.self.value", d)],
            &[("attention.output.dense", d)],
            &[("intermediate.dense", f)],
            &[("output.dense", d)],
        ];
        let blocks = laid.blocks(norms, &parts, ([d, d, d, f], true), at);
        // Inputs are of segment 0, whose vector is that of each position as well.
        let segment = laid.tensor("embeddings.token_type_embeddings.weight")[..d].to_vec();
        let mut vectors = laid.tensor("embeddings.position_embeddings.weight").to_vec();
        vectors.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&segment).for_each(|(v, s)| *v += s));
        let positions = laid.push(&vectors);
        Self {
            vocabulary: sizes.vocabulary,
            length: sizes.length,
            width: d,
            heads: sizes.num_heads,
            kv_heads: sizes.num_heads,
            hidden: f,
            kind: Kind::Encoder { positions, norm },
            blocks,
            table: laid.tensor("embeddings.word_embeddings.weight").to_vec(),
            of_norms: laid.of_norms,
            modules: laid.modules,
            theta: laid.theta,
            architecture,
        }
    }
}

/// `ε` of the family's norms.
const BERT_EPSILON: f64 = 1e-12;

/// Whether an architecture is of a family with these sizes.
fn is(architecture: &Architecture, family: &Family) -> bool {
    family.build(architecture.name()).is_ok_and(|built| built.same_graph(architecture))
}

/// What the graph itself says of its sizes.
struct Sizes {
    vocabulary: usize,
    length: usize,
    heads: [usize; 2],
    rope: Option<Rope>,
    d_model: usize,
}

/// The shape of a tensor.
fn shape<'a>(architecture: &'a Architecture, name: &str) -> Option<&'a [usize]> {
    architecture.tensors().iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.as_slice())
}

/// The number of blocks that have a tensor.
fn depth(architecture: &Architecture, name: impl Fn(usize) -> String) -> usize {
    (0..architecture.tensors().len()).take_while(|&i| shape(architecture, &name(i)).is_some()).count()
}

impl Sizes {
    fn of(architecture: &Architecture) -> Option<Self> {
        let Op::InputIds { length, vocabulary } = architecture.nodes()[0].op else { return None };
        let attention = architecture.nodes().iter().find_map(|node| match node.op {
            Op::Attention { heads, kv_heads, rope, .. } => Some(([heads, kv_heads], rope)),
            _ => None,
        });
        let embedding = architecture.nodes().iter().find_map(|node| match node.op {
            Op::Embedding { weight } => architecture.tensors()[weight].shape.get(1).copied(),
            _ => None,
        });
        let (heads, rope) = attention?;
        Some(Self { vocabulary, length, heads, rope, d_model: embedding? })
    }

    fn llama(&self, architecture: &Architecture) -> Option<Llama> {
        let rope = self.rope?;
        let epsilon = architecture.nodes().iter().find_map(|node| match node.op {
            Op::RmsNorm { epsilon, .. } => Some(epsilon),
            _ => None,
        });
        Some(Llama {
            vocabulary: self.vocabulary,
            length: self.length,
            d_model: self.d_model,
            depth: depth(architecture, |i| format!("model.layers.{i}.self_attn.q_proj.weight")),
            num_heads: self.heads[0],
            num_kv_heads: self.heads[1],
            d_hidden: *shape(architecture, "model.layers.0.mlp.gate_proj.weight")?.first()?,
            tied: shape(architecture, "lm_head.weight").is_none(),
            theta: rope.theta,
            pairs: rope.pairs,
            epsilon: epsilon?,
        })
    }

    fn bert(&self, architecture: &Architecture) -> Option<Bert> {
        Some(Bert {
            vocabulary: self.vocabulary,
            length: self.length,
            segments: *shape(architecture, "embeddings.token_type_embeddings.weight")?.first()?,
            d_model: self.d_model,
            depth: depth(architecture, |i| format!("encoder.layer.{i}.attention.self.query.weight")),
            num_heads: self.heads[0],
            d_hidden: *shape(architecture, "encoder.layer.0.intermediate.dense.weight")?.first()?,
            pooler: shape(architecture, "pooler.dense.weight").is_some(),
        })
    }
}

/// Parameters that are laid out one part behind the other.
struct Laid<'a> {
    architecture: &'a Architecture,
    row: &'a [f32],
    theta: Vec<f32>,
    of_norms: usize,
    modules: Vec<Module>,
}

impl<'a> Laid<'a> {
    fn new(architecture: &'a Architecture, row: &'a [f32]) -> Self {
        Self { architecture, row, theta: Vec::new(), of_norms: 0, modules: Vec::new() }
    }

    /// A tensor's values; the graph is the family's, so each is there.
    fn tensor(&self, name: &str) -> &'a [f32] {
        let range =
            self.architecture.tensors().iter().find(|tensor| tensor.name == name).map_or(Range::default(), TensorSpec::range);
        &self.row[range]
    }

    /// Appends values, and returns where they start.
    fn push(&mut self, values: &[f32]) -> usize {
        self.theta.resize(self.theta.len().next_multiple_of(ALIGNMENT), 0.0);
        self.theta.extend_from_slice(values);
        self.theta.len() - values.len()
    }

    fn norm(&mut self, kind: NormKind, name: &str, (width, epsilon): (usize, f64)) -> Norm {
        let gain = Some(self.push(self.tensor(&format!("{name}.weight"))));
        let bias = (kind == NormKind::Layer).then(|| self.push(self.tensor(&format!("{name}.bias"))));
        Norm { kind, width, epsilon, gain, bias }
    }

    fn end_norms(&mut self) {
        self.of_norms = self.theta.len();
    }

    /// Tensors of one number of inputs as one map, with the biases of others if it has them.
    fn map(&mut self, weights: &[String], inputs: usize, biases: Option<&[String]>) -> Linear {
        let joined = |names: &[String]| names.iter().flat_map(|name| self.tensor(name)).copied().collect::<Vec<f32>>();
        let values = joined(weights);
        let of_biases = biases.map(joined);
        let weight = self.push(&values);
        let bias = of_biases.map(|values| self.push(&values));
        Linear { weight, bias, inputs, outputs: values.len() / inputs, input_major: false }
    }

    /// The blocks, of whose maps `parts` says what they are fused of, with their outputs.
    fn blocks(
        &mut self,
        norms: Vec<[Norm; 2]>,
        parts: &[&[(&str, usize)]; 4],
        (inputs, biased): ([usize; 4], bool),
        at: impl Fn(usize, &str) -> String,
    ) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(norms.len());
        for (block, norms) in norms.into_iter().enumerate() {
            let maps = Site::ALL.map(|site| {
                let (parts, fan_in) = (parts[site as usize], inputs[site as usize]);
                let names = |leaf: &str| parts.iter().map(|(part, _)| format!("{}.{leaf}", at(block, part))).collect::<Vec<_>>();
                let mut first = 0;
                for (part, outputs) in parts {
                    self.modules.push(Module { name: at(block, part), block, site, first, shape: [*outputs, fan_in] });
                    first += outputs;
                }
                self.map(&names("weight"), fan_in, biased.then(|| names("bias")).as_deref())
            });
            blocks.push(Block { maps, norms });
        }
        blocks
    }
}
