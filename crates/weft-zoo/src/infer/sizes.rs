//! From the shapes of declared tensors to a family's sizes.

use super::config::Config;
use super::{Found, Hints};
use crate::binding::Translation;
use weft_core::families::{Bert, Family, Gpt, Llama, ResNet, Vit};
use weft_core::{Activation, RopePairs, Window};

/// Widths whose published models agree on the number of heads, by family.
const KNOWN_HEADS: [(&str, &[(usize, usize)]); 3] = [
    // Devlin et al. 2019, and the smaller models published beside them; 384 is left out: models of that width disagree.
    ("bert", &[(128, 2), (256, 4), (512, 8), (768, 12), (1024, 16)]),
    // Radford et al. 2019.
    ("gpt", &[(768, 12), (1024, 16), (1280, 20), (1600, 25)]),
    // Dosovitskiy et al. 2021, Touvron et al. 2021.
    ("vit", &[(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)]),
];

/// What sizes are told from.
pub(super) struct Evidence<'a> {
    pub(super) family: &'static str,
    /// Whose names the tensors have.
    pub(super) naming: &'static str,
    pub(super) tensors: &'a Translation,
    pub(super) config: &'a Config,
    pub(super) hints: &'a Hints,
    /// Whether the output layer repeats the embedding.
    pub(super) tied: bool,
}

/// A size that is missing, or contradicts another: what, and what to do about it.
pub(super) type Unknown = (String, &'static str);

const GIVE_HEADS: &str = "give it with `--heads`, or put the model's `config.json` beside the file";
const DECLARE: &str = "declare the architecture in a file and give it with `--architecture`";

impl Evidence<'_> {
    /// The family with its sizes.
    pub(super) fn sizes(&self) -> Result<Found, Unknown> {
        self.check_model_type()?;
        let mut found = match self.family {
            "resnet" => self.resnet()?,
            "vit" => self.vit()?,
            "bert" => self.bert()?,
            "gpt" => self.gpt()?,
            _ => self.llama()?,
        };
        let own = match (self.hints.activation, self.config.activation()) {
            (None, Some(Err(word))) => return Err((format!("its activation `{word}` is not one of ours"), DECLARE)),
            (None, Some(Ok(activation))) | (Some(activation), _) => Some(activation),
            (None, None) => None,
        };
        found.activation = own.or(found.activation);
        found.epsilon = self.config.layer_norm_eps.or(found.epsilon);
        Ok(found)
    }

    /// Other models have the same names and compute something else.
    fn check_model_type(&self) -> Result<(), Unknown> {
        let Some(got) = &self.config.model_type else { return Ok(()) };
        let known: &[&str] = match self.family {
            "resnet" => &["resnet"],
            "vit" => &["vit", "deit"],
            "bert" => &["bert"],
            "gpt" => &["gpt2"],
            _ => &["llama", "mistral"],
        };
        if known.contains(&got.as_str()) {
            return Ok(());
        }
        Err((
            format!("its settings say that it is a `{got}`, which has the tensors of `{}` but may differ from it", self.family),
            DECLARE,
        ))
    }

    fn size(&self, tensor: &str, from_back: usize) -> Result<usize, Unknown> {
        self.tensors
            .extent(tensor, from_back)
            .ok_or_else(|| (format!("it has no tensor for `{tensor}`, or one with too few axes"), DECLARE))
    }

    /// The number of heads: given, or assumed with a note.
    fn heads(&self, d_model: usize, notes: &mut Vec<String>) -> Result<usize, Unknown> {
        if let Some(heads) = self.hints.num_heads.or(self.config.num_attention_heads) {
            return Ok(heads);
        }
        let known = KNOWN_HEADS.iter().find(|(family, _)| *family == self.family);
        let heads = known.and_then(|(_, widths)| widths.iter().find(|(width, _)| *width == d_model)).map(|(_, heads)| *heads);
        if let Some(heads) = heads {
            notes.push(format!("{heads} heads are assumed, as published models of width {d_model} have; `--heads` says otherwise"));
            return Ok(heads);
        }
        Err((format!("the number of heads does not show in weights of width {d_model}"), GIVE_HEADS))
    }

    fn resnet(&self) -> Result<Found, Unknown> {
        let mut notes = Vec::new();
        let channels = self.size("conv1.weight", 2)?;
        let (stem, stem_pool, side) = match self.size("conv1.weight", 0)? {
            3 => (Window::square(3, 1, 1), false, 32),
            7 => (Window::square(7, 2, 3), true, 224),
            size => return Err((format!("a stem of {size}×{size} is none that residual networks have"), DECLARE)),
        };
        let pool = if stem_pool { "followed by a pool" } else { "without a pool" };
        notes.push(format!("the stem is taken to have stride {} and to be {pool}; strides do not show in weights", stem.stride[0]));
        let blocks_of = |stage: usize| self.tensors.depth(&format!("layer{stage}."), ".conv1.weight");
        let blocks: Vec<usize> = (1..=self.tensors.pieces.len()).map(blocks_of).take_while(|&blocks| blocks > 0).collect();
        let stages = blocks.len();
        let first = blocks.first().copied().unwrap_or(0);
        if blocks.iter().any(|&b| b != first) {
            return Err((
                format!("its stages have {blocks:?} blocks, and only equal numbers can be declared as a family"),
                DECLARE,
            ));
        }
        let widths = (1..=stages).map(|i| self.size(&format!("layer{i}.0.conv1.weight"), 3)).collect::<Result<_, _>>()?;
        let image = self.image([channels, side, side], &mut notes);
        let family = ResNet { image, stem, stem_pool, widths, blocks: first, num_classes: self.size("fc.weight", 1)? };
        Ok(Found { family: Family::ResNet(family), activation: None, epsilon: None, notes })
    }

    /// The size of images, which weights do not depend on.
    fn image(&self, assumed: [usize; 3], notes: &mut Vec<String>) -> [usize; 3] {
        let [channels, side, _] = assumed;
        if let Some([height, width]) = self.hints.image {
            return [channels, height, width];
        }
        if let Some(side) = self.config.image_size {
            return [channels, side, side];
        }
        notes.push(format!("images of {side}×{side} are assumed; the weights are the same for all sizes"));
        assumed
    }

    fn vit(&self) -> Result<Found, Unknown> {
        let mut notes = Vec::new();
        let [d_model, channels, patch] = [
            self.size("patch_embed.proj.weight", 3)?,
            self.size("patch_embed.proj.weight", 2)?,
            self.size("patch_embed.proj.weight", 0)?,
        ];
        let patches = self.size("pos_embed", 1)?.saturating_sub(1);
        let [height, width] = match self.hints.image {
            Some(image) => image,
            None if patches.isqrt().pow(2) == patches => [patches.isqrt().saturating_mul(patch); 2],
            None => return Err((format!("{patches} patches are no square image"), "give its size with `--image HEIGHT,WIDTH`")),
        };
        let depth = self.tensors.depth("blocks.", ".norm1.weight");
        let family = Vit {
            image: [channels, height, width],
            patch,
            d_model,
            depth,
            num_heads: self.heads(d_model, &mut notes)?,
            d_hidden: self.size("blocks.0.mlp.fc1.weight", 1)?,
            num_classes: self.size("head.weight", 1)?,
        };
        // The library's default; the others write 1e-6, as the family has it.
        let epsilon = (self.naming == "hugging-face").then_some(1e-12);
        Ok(Found { family: Family::Vit(family), activation: None, epsilon, notes })
    }

    fn bert(&self) -> Result<Found, Unknown> {
        let mut notes = Vec::new();
        if let Some(kind) = self.config.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            return Err((format!("its positions are `{kind}`, and only absolute ones are known"), DECLARE));
        }
        let d_model = self.size("embeddings.word_embeddings.weight", 0)?;
        let family = Bert {
            vocabulary: self.size("embeddings.word_embeddings.weight", 1)?,
            length: self.size("embeddings.position_embeddings.weight", 1)?,
            segments: self.size("embeddings.token_type_embeddings.weight", 1)?,
            d_model,
            depth: self.tensors.depth("encoder.layer.", ".output.dense.weight"),
            num_heads: 0,
            d_hidden: self.size("encoder.layer.0.intermediate.dense.weight", 1)?,
            pooler: self.tensors.shape("pooler.dense.weight").is_some(),
        };
        let num_heads = self.heads(d_model, &mut notes).or_else(|unknown| published_bert(&family, &mut notes).ok_or(unknown))?;
        Ok(Found { family: Family::Bert(Bert { num_heads, ..family }), activation: None, epsilon: None, notes })
    }

    fn gpt(&self) -> Result<Found, Unknown> {
        let mut notes = Vec::new();
        let d_model = self.size("wte.weight", 0)?;
        let family = Gpt {
            vocabulary: self.size("wte.weight", 1)?,
            length: self.size("wpe.weight", 1)?,
            d_model,
            depth: self.tensors.depth("h.", ".ln_1.weight"),
            num_heads: self.heads(d_model, &mut notes)?,
            d_hidden: self.size("h.0.mlp.fc1.weight", 1)?,
            tied: self.tied,
        };
        let mut activation = None;
        if self.naming == "nanogpt" && self.config.hidden_act.is_none() && self.hints.activation.is_none() {
            activation = Some(Activation::Gelu);
            notes.push("the exact GELU is assumed, as nanoGPT has it; `--activation gelu-tanh` for its older versions".to_owned());
        }
        Ok(Found { family: Family::Gpt(family), activation, epsilon: None, notes })
    }

    fn llama(&self) -> Result<Found, Unknown> {
        let mut notes = Vec::new();
        let config = self.config;
        if config.scales_rope() {
            return Err(("its rotary angles are scaled (`rope_scaling`), which no op does".to_owned(), DECLARE));
        }
        let d_model = self.size("model.embed_tokens.weight", 0)?;
        let Some(num_heads) = self.hints.num_heads.or(config.num_attention_heads).filter(|&heads| heads > 0) else {
            return Err((format!("the number of heads does not show in weights of width {d_model}"), GIVE_HEADS));
        };
        let kv_width = self.size("model.layers.0.self_attn.k_proj.weight", 1)?;
        let d_head = (d_model / num_heads).max(1);
        let num_kv_heads = kv_width / d_head;
        if config.num_key_value_heads.is_some_and(|told| told != num_kv_heads) || num_kv_heads * d_head != kv_width {
            return Err((
                format!("keys of width {kv_width} do not fit heads of width {d_head}, as its settings have them"),
                GIVE_HEADS,
            ));
        }
        let mut assumed = |told: Option<f64>, default: f64, what: &str| {
            told.unwrap_or_else(|| {
                notes.push(format!("{what} of {default:?} is assumed; no settings were found that name it"));
                default
            })
        };
        let is_llama2c = config.rope.as_deref() == Some("interleaved");
        // llama2.c writes both into its program, not into its files.
        let (theta, epsilon) = if is_llama2c {
            (1e4, 1e-5)
        } else {
            (assumed(config.theta(), 1e4, "a rotary base"), assumed(config.rms_norm_eps, 1e-6, "an epsilon of the norms"))
        };
        let length = config.max_position_embeddings.unwrap_or_else(|| {
            notes.push("a length of 2048 tokens is assumed; the weights are the same for all".to_owned());
            2048
        });
        if config.sliding_window.is_some_and(|window| window < length as u64) {
            return Err(("its attention sees a sliding window, which no op does".to_owned(), DECLARE));
        }
        let family = Llama {
            vocabulary: self.size("model.embed_tokens.weight", 1)?,
            length,
            d_model,
            depth: self.tensors.depth("model.layers.", ".input_layernorm.weight"),
            num_heads,
            num_kv_heads,
            d_hidden: self.size("model.layers.0.mlp.gate_proj.weight", 1)?,
            tied: self.tied,
            theta,
            pairs: if is_llama2c { RopePairs::Interleaved } else { RopePairs::Halves },
            epsilon,
        };
        Ok(Found { family: Family::Llama(family), activation: None, epsilon: None, notes })
    }
}

/// The heads of a built-in encoder with the same sizes otherwise.
fn published_bert(sizes: &Bert, notes: &mut Vec<String>) -> Option<usize> {
    crate::instances::families().into_iter().find_map(|(name, family)| match family {
        Family::Bert(bert) if Bert { num_heads: 0, ..bert.clone() } == *sizes => {
            notes.push(format!("{} heads are assumed: all other sizes are those of the built-in `{name}`", bert.num_heads));
            Some(bert.num_heads)
        }
        _ => None,
    })
}
