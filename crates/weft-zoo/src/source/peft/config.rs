//! `adapter_config.json`, as far as it decides what an adapter computes.

use super::patterns::Patterns;
use crate::pairs::Pairs;
use crate::source::SourceFault;
use crate::tensors::Metadata;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The largest rank that is believed.
const MAX_RANK: u64 = 1 << 20;

/// The fields that are read; others change how an adapter is trained, and the library adds some every year.
#[derive(Deserialize)]
struct Raw {
    peft_type: String,
    base_model_name_or_path: Option<String>,
    r: Option<u64>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    rank_pattern: Option<Pairs<u64>>,
    #[serde(default)]
    alpha_pattern: Option<Pairs<f64>>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Fields that change what an adapter computes and are not understood, if they say anything.
const NOT_READ: [&str; 9] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

/// Words of `init_lora_weights`, or their beginnings, with which PEFT takes the first factors out of the base's own weights.
const CHANGES_THE_BASE: [&str; 4] = ["corda", "loftq", "olora", "pissa"];

fn says_nothing(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The settings of an adapter, checked.
pub(crate) struct Config {
    pub(super) base_model: Option<String>,
    pub(super) fan_in_fan_out: bool,
    pub(super) use_dora: bool,
    use_rslora: bool,
    rank: u64,
    alpha: f64,
    ranks: Patterns<u64>,
    alphas: Patterns<f64>,
    others: BTreeMap<String, serde_json::Value>,
}

impl Config {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SourceFault> {
        let raw: Raw =
            serde_json::from_slice(json).map_err(|error| SourceFault::malformed("`adapter_config.json`", error.to_string()))?;
        if raw.peft_type != "LORA" {
            let what = format!("adapters of type `{}` are", raw.peft_type);
            return Err(SourceFault::NotRead { what, hint: "those of type `LORA` are, with DoRA" });
        }
        if let Some(field) = NOT_READ.iter().find(|field| raw.others.get(**field).is_some_and(|value| !says_nothing(value))) {
            let what = format!("adapters with `{field}` are");
            return Err(SourceFault::NotRead { what, hint: "plain LoRA, rank-stabilized LoRA and DoRA are" });
        }
        let init = raw.others.get("init_lora_weights").and_then(serde_json::Value::as_str).unwrap_or_default();
        if CHANGES_THE_BASE.iter().any(|word| init.to_lowercase().starts_with(word)) {
            let what = format!("adapters with `init_lora_weights` `{init}`, for which PEFT changes the base, are");
            return Err(SourceFault::NotRead {
                what,
                hint: "PEFT saves a plain one with `path_initial_model_for_weight_conversion`",
            });
        }
        // The library's own defaults.
        let (rank, alpha) = (raw.r.unwrap_or(8), raw.lora_alpha.unwrap_or(8.0));
        let config = Self {
            base_model: raw.base_model_name_or_path,
            fan_in_fan_out: raw.fan_in_fan_out,
            use_dora: raw.use_dora,
            use_rslora: raw.use_rslora,
            rank,
            alpha,
            ranks: Patterns::new("rank_pattern", raw.rank_pattern)?,
            alphas: Patterns::new("alpha_pattern", raw.alpha_pattern)?,
            others: raw.others,
        };
        let ranks = config.ranks.values().chain([rank]);
        if let Some(rank) = ranks.into_iter().find(|rank| !(1..=MAX_RANK).contains(rank)) {
            return Err(SourceFault::Setting { field: "r".to_owned(), got: rank.to_string(), expected: "a rank of at least 1" });
        }
        let alphas = config.alphas.values().chain([alpha]);
        if let Some(alpha) = alphas.into_iter().find(|alpha| !alpha.is_finite()) {
            let field = "lora_alpha".to_owned();
            return Err(SourceFault::Setting { field, got: alpha.to_string(), expected: "a finite number" });
        }
        Ok(config)
    }

    /// Rank and alpha of each module, in the order that they are given in.
    pub(crate) fn ranks_and_alphas(&self, modules: &[&str]) -> Result<Vec<(usize, f64)>, SourceFault> {
        let (ranks, alphas) = (self.ranks.resolve(modules.iter().copied())?, self.alphas.resolve(modules.iter().copied())?);
        let of = |module: &&str| {
            let rank = ranks.get(module).copied().unwrap_or(self.rank);
            (rank as usize, alphas.get(module).copied().unwrap_or(self.alpha))
        };
        Ok(modules.iter().map(of).collect())
    }

    pub(crate) fn scaling(&self, rank: usize, alpha: f64) -> f64 {
        if self.use_rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
    }

    /// The settings as text.
    pub(super) fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::from([
            ("peft_type".to_owned(), "LORA".to_owned()),
            ("r".to_owned(), self.rank.to_string()),
            ("lora_alpha".to_owned(), self.alpha.to_string()),
            ("use_rslora".to_owned(), self.use_rslora.to_string()),
            ("use_dora".to_owned(), self.use_dora.to_string()),
            ("fan_in_fan_out".to_owned(), self.fan_in_fan_out.to_string()),
        ]);
        if let Some(base_model) = &self.base_model {
            metadata.insert("base_model_name_or_path".to_owned(), base_model.clone());
        }
        if let Some(serde_json::Value::String(task)) = self.others.get("task_type") {
            metadata.insert("task_type".to_owned(), task.clone());
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(fields: &str) -> Result<Config, SourceFault> {
        Config::parse(format!(r#"{{"peft_type":"LORA"{fields}}}"#).as_bytes())
    }

    #[test]
    fn scalings() {
        let check = |fields: &str, expected: f64| {
            let config = config(fields).unwrap();
            let scaling = config.ranks_and_alphas(&["m.q"]).map(|found| config.scaling(found[0].0, found[0].1)).unwrap();
            assert!((scaling - expected).abs() < 1e-12, "{fields}: {scaling}");
        };
        check("", 1.0);
        check(r#","r":16,"lora_alpha":32"#, 2.0);
        check(r#","r":16,"lora_alpha":32,"use_rslora":true"#, 8.0);
        check(r#","r":16,"lora_alpha":32,"rank_pattern":{"q":4}"#, 8.0);
        check(r#","r":16,"lora_alpha":32,"rank_pattern":{"q":4},"alpha_pattern":{"q":2}"#, 0.5);
        check(r#","r":16,"lora_alpha":32,"rank_pattern":{},"alpha_pattern":null"#, 2.0);
        check(r#","r":16,"lora_alpha":32,"init_lora_weights":"gaussian""#, 2.0);
    }

    #[test]
    fn settings_that_are_refused() {
        let check = |json: &str, expected: &str| {
            let text = Config::parse(json.as_bytes()).err().unwrap().to_string();
            assert!(text.contains(expected), "{json}: {text}");
        };
        check("{}", "peft_type");
        check("[", "adapter_config.json");
        check(r#"{"peft_type":"IA3"}"#, "`IA3`");
        check(r#"{"peft_type":"LORA","use_qalora":true}"#, "`use_qalora`");
        check(r#"{"peft_type":"LORA","init_lora_weights":"pissa_niter_4"}"#, "`pissa_niter_4`, for which PEFT changes the base");
        check(r#"{"peft_type":"LORA","init_lora_weights":"olora"}"#, "`path_initial_model_for_weight_conversion`");
        check(r#"{"peft_type":"LORA","peft_type":"LORA"}"#, "duplicate");
        check(r#"{"peft_type":"LORA","r":0}"#, "`r` is `0`");
        check(r#"{"peft_type":"LORA","r":-1}"#, "invalid value");
        check(r#"{"peft_type":"LORA","r":4294967296}"#, "`r`");
        check(r#"{"peft_type":"LORA","lora_alpha":1e999}"#, "number out of range");
        check(r#"{"peft_type":"LORA","rank_pattern":{"a":4,"a":5}}"#, "`a` stands twice");
        check(&format!(r#"{{"peft_type":{}1}}"#, "[".repeat(200_000)), "adapter_config.json");
    }
}
