//! Settings of a network that its weights do not show, from `config.json` beside them or from a file's metadata.

use crate::format::read_text;
use crate::{Error, Result, Source};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use weft_core::Activation;

/// The file that Hugging Face's libraries write beside weights.
const CONFIG: &str = "config.json";

/// What is read of it, under all the names that its writers use; the rest is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Config {
    pub(super) model_type: Option<String>,
    #[serde(alias = "n_head", alias = "n_heads")]
    pub(super) num_attention_heads: Option<usize>,
    #[serde(alias = "n_kv_heads")]
    pub(super) num_key_value_heads: Option<usize>,
    #[serde(alias = "seq_len")]
    pub(super) max_position_embeddings: Option<usize>,
    #[serde(alias = "activation_function")]
    pub(super) hidden_act: Option<String>,
    #[serde(alias = "layer_norm_epsilon")]
    pub(super) layer_norm_eps: Option<f64>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_scaling: Option<serde::de::IgnoredAny>,
    /// Newer versions of the library write both into one table.
    pub(super) rope_parameters: Option<RopeParameters>,
    pub(super) sliding_window: Option<u64>,
    pub(super) position_embedding_type: Option<String>,
    pub(super) tie_word_embeddings: Option<bool>,
    pub(super) image_size: Option<usize>,
    /// llama2.c's: which coordinates of a head are rotated together.
    pub(super) rope: Option<String>,
    /// Where it stands, if anywhere.
    #[serde(skip)]
    pub(super) path: Option<PathBuf>,
}

/// Of rotary positions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct RopeParameters {
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_type: Option<String>,
}

impl Config {
    /// The base of rotary angles.
    pub(super) fn theta(&self) -> Option<f64> {
        self.rope_theta.or_else(|| self.rope_parameters.as_ref()?.rope_theta)
    }

    /// Whether rotary angles are scaled for longer texts.
    pub(super) fn scales_rope(&self) -> bool {
        let kind = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref());
        self.rope_scaling.is_some() || kind.is_some_and(|kind| kind != "default")
    }

    /// Reads what there is.
    pub(super) fn of(source: &Source) -> Result<Self> {
        let mut config = Self::beside(source.path())?;
        let number = |key: &str| source.metadata().get(key).and_then(|text| text.parse::<usize>().ok());
        config.num_attention_heads = config.num_attention_heads.or(number("num_attention_heads")).or(number("n_heads"));
        config.num_key_value_heads = config.num_key_value_heads.or(number("num_key_value_heads")).or(number("n_kv_heads"));
        config.max_position_embeddings = config.max_position_embeddings.or(number("seq_len"));
        config.rope = config.rope.or_else(|| source.metadata().get("rope").cloned());
        Ok(config)
    }

    fn beside(path: &Path) -> Result<Self> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let path = folder.join(CONFIG);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = read_text(&path)?;
        let fail = |e: serde_json::Error| Error::NotInferred {
            path: path.clone(),
            reason: format!("it is not valid: {e}"),
            hint: "mend it or move it away; it lies beside weights and should say what they do not show",
        };
        let config: Self = serde_json::from_str(&text).map_err(fail)?;
        Ok(Self { path: Some(path), ..config })
    }

    /// The activation that the settings name, if any; the word itself if it is not known.
    pub(super) fn activation(&self) -> Option<Result<Activation, String>> {
        let word = self.hidden_act.as_deref()?;
        Some(match word {
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh),
            _ => Err(word.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_under_all_their_names() {
        let read = |json: &str| serde_json::from_str::<Config>(json);
        let config =
            read(r#"{"n_head": 12, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "other": [1]}"#).unwrap();
        assert_eq!(config.num_attention_heads, Some(12));
        assert_eq!(config.activation(), Some(Ok(Activation::GeluTanh)));
        assert_eq!(config.layer_norm_eps, Some(1e-5));
        assert_eq!(read(r#"{"hidden_act": "quick_gelu"}"#).unwrap().activation(), Some(Err("quick_gelu".to_owned())));
        assert_eq!(read(r#"{"rope_scaling": null, "sliding_window": null}"#).unwrap(), Config::default());
        assert!(read(r#"{"num_attention_heads": -1}"#).is_err());
    }
}
