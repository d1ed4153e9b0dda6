//! Families as they stand in a file: `[family.vit]` and its sizes.

use super::entry::PairsWord;
use super::write::quote;
use serde::{Deserialize, Serialize};
use weft_core::families::{Automaton, Bert, Cnn, ConvLayer, Family, Gpt, Llama, Lora, LoraModule, Mlp, Pool, ResNet, Vit};
use weft_core::{Activation, Window};

/// Writes a family and its sizes as an architecture file.
///
/// # Examples
/// ```
/// use std::path::Path;
/// use weft_core::Activation;
/// use weft_core::families::{Family, Mlp};
/// let family = Family::Mlp(Mlp { widths: vec![4, 3, 2], activation: Activation::Tanh });
/// let text = weft_zoo::family_to_toml("small", &family);
/// let read = weft_zoo::architecture_from_toml(&text, Path::new("small.toml")).unwrap();
/// assert_eq!(read, family.build("small").unwrap());
/// ```
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "numbers and names always serialize")]
pub fn family_to_toml(name: &str, family: &Family) -> String {
    #[derive(Serialize)]
    struct Named {
        family: FamilyEntry,
    }
    let body = toml::to_string(&Named { family: FamilyEntry::from(family) }).expect("numbers and names always serialize");
    format!("name = {}\n\n{body}", quote(name))
}

/// A family: a table by its name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FamilyEntry {
    Mlp(MlpEntry),
    Cnn(CnnEntry),
    ResNet(ResNetEntry),
    Vit(VitEntry),
    Bert(BertEntry),
    Gpt(GptEntry),
    Llama(LlamaEntry),
    Automaton(AutomatonEntry),
    Lora(LoraEntry),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MlpEntry {
    widths: Vec<usize>,
    #[serde(with = "activation")]
    activation: Activation,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CnnEntry {
    image: [usize; 3],
    #[serde(default)]
    hidden: Vec<usize>,
    num_classes: usize,
    #[serde(with = "activation")]
    activation: Activation,
    layers: Vec<ConvEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ConvEntry {
    out: usize,
    size: [usize; 2],
    #[serde(default = "one_by_one")]
    stride: [usize; 2],
    #[serde(default)]
    padding: [usize; 2],
    #[serde(default)]
    batch_norm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pool: Option<WindowEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_pool: Option<WindowEntry>,
}

fn one_by_one() -> [usize; 2] {
    [1, 1]
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowEntry {
    size: [usize; 2],
    /// As the size if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    stride: Option<[usize; 2]>,
    #[serde(default)]
    padding: [usize; 2],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ResNetEntry {
    image: [usize; 3],
    widths: Vec<usize>,
    blocks: usize,
    num_classes: usize,
    stem_pool: bool,
    stem: WindowEntry,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct VitEntry {
    image: [usize; 3],
    patch: usize,
    d_model: usize,
    depth: usize,
    num_heads: usize,
    d_hidden: usize,
    num_classes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct BertEntry {
    vocabulary: usize,
    length: usize,
    segments: usize,
    d_model: usize,
    depth: usize,
    num_heads: usize,
    d_hidden: usize,
    pooler: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GptEntry {
    vocabulary: usize,
    length: usize,
    d_model: usize,
    depth: usize,
    num_heads: usize,
    d_hidden: usize,
    tied: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LlamaEntry {
    vocabulary: usize,
    length: usize,
    d_model: usize,
    depth: usize,
    num_heads: usize,
    num_kv_heads: usize,
    d_hidden: usize,
    tied: bool,
    theta: f64,
    pairs: PairsWord,
    epsilon: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AutomatonEntry {
    channels: usize,
    width: usize,
    image: [usize; 2],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoraEntry {
    modules: Vec<ModuleEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ModuleEntry {
    name: String,
    fan_in: usize,
    fan_out: usize,
    rank: usize,
    scaling: f64,
}

/// An activation as its name.
mod activation {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use weft_core::Activation;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(activation: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(activation.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl FamilyEntry {
    /// The family, or what its sizes contradict.
    pub(super) fn family(self) -> Result<Family, String> {
        Ok(match self {
            Self::Mlp(MlpEntry { widths, activation }) => Family::Mlp(Mlp { widths, activation }),
            Self::Cnn(cnn) => Family::Cnn(cnn.family()?),
            Self::ResNet(ResNetEntry { image, widths, blocks, num_classes, stem_pool, stem }) => {
                let stem = stem.window([1, 1]);
                Family::ResNet(ResNet { image, stem, stem_pool, widths, blocks, num_classes })
            }
            Self::Vit(VitEntry { image, patch, d_model, depth, num_heads, d_hidden, num_classes }) => {
                Family::Vit(Vit { image, patch, d_model, depth, num_heads, d_hidden, num_classes })
            }
            Self::Bert(BertEntry { vocabulary, length, segments, d_model, depth, num_heads, d_hidden, pooler }) => {
                Family::Bert(Bert { vocabulary, length, segments, d_model, depth, num_heads, d_hidden, pooler })
            }
            Self::Gpt(GptEntry { vocabulary, length, d_model, depth, num_heads, d_hidden, tied }) => {
                Family::Gpt(Gpt { vocabulary, length, d_model, depth, num_heads, d_hidden, tied })
            }
            Self::Llama(llama) => Family::Llama(llama.family()?),
            Self::Automaton(AutomatonEntry { channels, width, image }) => Family::Automaton(Automaton { channels, width, image }),
            Self::Lora(LoraEntry { modules }) => {
                let module =
                    |ModuleEntry { name, fan_in, fan_out, rank, scaling }| LoraModule { name, fan_in, fan_out, rank, scaling };
                Family::Lora(Lora { modules: modules.into_iter().map(module).collect() })
            }
        })
    }
}

impl CnnEntry {
    fn family(self) -> Result<Cnn, String> {
        let layer = |(i, layer): (usize, ConvEntry)| {
            let ConvEntry { out, size, stride, padding, batch_norm, max_pool, avg_pool } = layer;
            let pool = match (max_pool, avg_pool) {
                (Some(_), Some(_)) => return Err(format!("layer {i} has both a `max-pool` and an `avg-pool`")),
                (Some(pool), None) => Some(Pool { window: pool.window(pool.size), average: false }),
                (None, Some(pool)) => Some(Pool { window: pool.window(pool.size), average: true }),
                (None, None) => None,
            };
            Ok(ConvLayer { out, window: Window { size, stride, padding }, batch_norm, pool })
        };
        let layers = self.layers.into_iter().enumerate().map(layer).collect::<Result<_, _>>()?;
        let Self { image, hidden, num_classes, activation, .. } = self;
        Ok(Cnn { image, layers, hidden, num_classes, activation })
    }
}

impl LlamaEntry {
    fn family(self) -> Result<Llama, String> {
        let Self { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta, pairs, epsilon } = self;
        if !(theta.is_finite() && theta > 0.0) {
            return Err(format!("llama: the base `theta` of rotary angles must be above 0, got {theta}"));
        }
        let pairs = pairs.into();
        Ok(Llama { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta, pairs, epsilon })
    }
}

impl WindowEntry {
    fn window(&self, default_stride: [usize; 2]) -> Window {
        Window { size: self.size, stride: self.stride.unwrap_or(default_stride), padding: self.padding }
    }
}

impl From<Window> for WindowEntry {
    fn from(window: Window) -> Self {
        Self { size: window.size, stride: Some(window.stride), padding: window.padding }
    }
}

impl From<&Family> for FamilyEntry {
    fn from(family: &Family) -> Self {
        match family.clone() {
            Family::Mlp(Mlp { widths, activation }) => Self::Mlp(MlpEntry { widths, activation }),
            Family::Cnn(Cnn { image, layers, hidden, num_classes, activation }) => {
                let layer = |ConvLayer { out, window, batch_norm, pool }: ConvLayer| {
                    let of = |average| pool.filter(|pool| pool.average == average).map(|pool| pool.window.into());
                    let Window { size, stride, padding } = window;
                    ConvEntry { out, size, stride, padding, batch_norm, max_pool: of(false), avg_pool: of(true) }
                };
                let layers = layers.into_iter().map(layer).collect();
                Self::Cnn(CnnEntry { image, hidden, num_classes, activation, layers })
            }
            Family::ResNet(ResNet { image, stem, stem_pool, widths, blocks, num_classes }) => {
                Self::ResNet(ResNetEntry { image, widths, blocks, num_classes, stem_pool, stem: stem.into() })
            }
            Family::Vit(Vit { image, patch, d_model, depth, num_heads, d_hidden, num_classes }) => {
                Self::Vit(VitEntry { image, patch, d_model, depth, num_heads, d_hidden, num_classes })
            }
            Family::Bert(Bert { vocabulary, length, segments, d_model, depth, num_heads, d_hidden, pooler }) => {
                Self::Bert(BertEntry { vocabulary, length, segments, d_model, depth, num_heads, d_hidden, pooler })
            }
            Family::Gpt(Gpt { vocabulary, length, d_model, depth, num_heads, d_hidden, tied }) => {
                Self::Gpt(GptEntry { vocabulary, length, d_model, depth, num_heads, d_hidden, tied })
            }
            Family::Llama(llama) => Self::Llama(llama.into()),
            Family::Automaton(Automaton { channels, width, image }) => Self::Automaton(AutomatonEntry { channels, width, image }),
            Family::Lora(Lora { modules }) => {
                let module =
                    |LoraModule { name, fan_in, fan_out, rank, scaling }| ModuleEntry { name, fan_in, fan_out, rank, scaling };
                Self::Lora(LoraEntry { modules: modules.into_iter().map(module).collect() })
            }
        }
    }
}

impl From<Llama> for LlamaEntry {
    fn from(llama: Llama) -> Self {
        let Llama { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta, pairs, epsilon } = llama;
        let pairs = pairs.into();
        Self { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta, pairs, epsilon }
    }
}
