//! `adapter_config.json`, as far as it decides what an adapter computes.

use crate::pairs::Pairs;
use crate::source::SourceFault;
use crate::tensors::Metadata;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The most patterns of one kind.
const MAX_PATTERNS: usize = 1 << 14;

/// The longest pattern.
const MAX_PATTERN_BYTES: usize = 1024;

/// The largest rank that is believed.
const MAX_RANK: u64 = 1 << 20;

/// Memory that one compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 1 << 20;

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

fn says_nothing(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The settings of an adapter, checked.
pub(super) struct Config {
    pub(super) base_model: Option<String>,
    pub(super) fan_in_fan_out: bool,
    pub(super) use_dora: bool,
    use_rslora: bool,
    rank: u64,
    alpha: f64,
    ranks: Patterns<u64>,
    alphas: Patterns<f64>,
}

impl Config {
    pub(super) fn parse(json: &[u8]) -> Result<Self, SourceFault> {
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
        };
        let ranks = config.ranks.0.iter().map(|pattern| pattern.value).chain([rank]);
        if let Some(rank) = ranks.into_iter().find(|rank| !(1..=MAX_RANK).contains(rank)) {
            return Err(SourceFault::Setting { field: "r".to_owned(), got: rank.to_string(), expected: "a rank of at least 1" });
        }
        let alphas = config.alphas.0.iter().map(|pattern| pattern.value).chain([alpha]);
        if let Some(alpha) = alphas.into_iter().find(|alpha| !alpha.is_finite()) {
            let field = "lora_alpha".to_owned();
            return Err(SourceFault::Setting { field, got: alpha.to_string(), expected: "a finite number" });
        }
        Ok(config)
    }

    pub(super) fn rank_of(&self, module: &str) -> usize {
        self.ranks.find(module).unwrap_or(self.rank) as usize
    }

    pub(super) fn alpha_of(&self, module: &str) -> f64 {
        self.alphas.find(module).unwrap_or(self.alpha)
    }

    pub(super) fn scaling(&self, rank: usize, alpha: f64) -> f64 {
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
        metadata
    }
}

/// Values by patterns of module names, in the order of the file: the first that matches counts.
struct Patterns<V>(Vec<Pattern<V>>);

struct Pattern<V> {
    text: String,
    regex: Regex,
    value: V,
}

impl<V: Copy> Patterns<V> {
    fn new(field: &str, pairs: Option<Pairs<V>>) -> Result<Self, SourceFault> {
        let pairs = pairs.unwrap_or_default().0;
        if pairs.len() > MAX_PATTERNS {
            let what = format!("`{field}`");
            return Err(SourceFault::TooLarge { what, got: pairs.len() as u64, limit: MAX_PATTERNS as u64 });
        }
        let (mut seen, mut patterns) = (BTreeSet::new(), Vec::new());
        for (text, value) in pairs {
            if !seen.insert(text.clone()) {
                return Err(SourceFault::Duplicate { name: text });
            }
            patterns.push(Pattern { regex: compile(field, &text)?, text, value });
        }
        Ok(Self(patterns))
    }

    fn find(&self, module: &str) -> Option<V> {
        let matching = self.0.iter().find(|pattern| pattern.regex.is_match(module));
        // A name that is no pattern of itself, such as one with brackets, still counts as it is.
        let found = matching.or_else(|| self.0.iter().find(|pattern| pattern.text == module));
        found.map(|pattern| pattern.value)
    }
}

/// A pattern as the library applies it: at the end of a name, behind its start or a dot. Crate `regex` takes time
/// linear in the name, whatever the pattern; it has no look-around, which is refused by name.
fn compile(field: &str, text: &str) -> Result<Regex, SourceFault> {
    let fail = |reason: String| SourceFault::malformed(format!("the pattern `{text:.80}` of `{field}`"), reason);
    if text.len() > MAX_PATTERN_BYTES {
        return Err(fail(format!("it has {} bytes", text.len())));
    }
    let regex = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{text})$")).size_limit(MAX_COMPILED_BYTES).build();
    regex.map_err(|error| fail(error.to_string().lines().last().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(fields: &str) -> Result<Config, SourceFault> {
        Config::parse(format!(r#"{{"peft_type":"LORA"{fields}}}"#).as_bytes())
    }

    /// What the library's `get_pattern_key` gives for the same patterns and names.
    #[test]
    fn patterns_match_the_ends_of_names() {
        let check = |patterns: &str, module: &str, expected: usize| {
            let config = config(&format!(r#","r":8,"rank_pattern":{{{patterns}}}"#)).unwrap();
            assert_eq!(config.rank_of(module), expected, "{patterns} {module}");
        };
        check(r#""q_proj":4"#, "model.layers.0.self_attn.q_proj", 4);
        check(r#""q_proj":4"#, "q_proj", 4);
        check(r#""q_proj":4"#, "model.xq_proj", 8);
        check(r#""q_proj":4"#, "model.q_proj.inner", 8);
        check(r#""layers.1.q":4"#, "model.layers.1.q", 4);
        check(r#""layers.1.q":4"#, "model.layers.11.q", 8);
        check(r#""layers\\.[01]\\.q":4,"q":2"#, "model.layers.1.q", 4);
        check(r#""layers\\.[01]\\.q":4,"q":2"#, "model.layers.7.q", 2);
        check(r#""q":2,"layers\\.1\\.q":4"#, "model.layers.1.q", 2);
        check(r#""^model.q":16"#, "model.q", 16);
        check(r#""a|b":4"#, "model.b", 4);
        check(r#""a|b":4"#, "model.bb", 8);
    }

    #[test]
    fn scalings() {
        let check = |fields: &str, expected: f64| {
            let config = config(fields).unwrap();
            let scaling = config.scaling(config.rank_of("m.q"), config.alpha_of("m.q"));
            assert!((scaling - expected).abs() < 1e-12, "{fields}: {scaling}");
        };
        check("", 1.0);
        check(r#","r":16,"lora_alpha":32"#, 2.0);
        check(r#","r":16,"lora_alpha":32,"use_rslora":true"#, 8.0);
        check(r#","r":16,"lora_alpha":32,"rank_pattern":{"q":4}"#, 8.0);
        check(r#","r":16,"lora_alpha":32,"rank_pattern":{"q":4},"alpha_pattern":{"q":2}"#, 0.5);
        check(r#","r":16,"lora_alpha":32,"rank_pattern":{},"alpha_pattern":null"#, 2.0);
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
        check(r#"{"peft_type":"LORA","peft_type":"LORA"}"#, "duplicate");
        check(r#"{"peft_type":"LORA","r":0}"#, "`r` is `0`");
        check(r#"{"peft_type":"LORA","r":-1}"#, "invalid value");
        check(r#"{"peft_type":"LORA","r":4294967296}"#, "`r`");
        check(r#"{"peft_type":"LORA","lora_alpha":1e999}"#, "number out of range");
        check(r#"{"peft_type":"LORA","rank_pattern":{"a":4,"a":5}}"#, "`a` stands twice");
        check(r#"{"peft_type":"LORA","rank_pattern":{"(?<!x)a":4}}"#, "look");
        check(r#"{"peft_type":"LORA","rank_pattern":{"a{1000}{1000}{1000}":4}}"#, "size limit");
        check(&format!(r#"{{"peft_type":"LORA","rank_pattern":{{"{}":4}}}}"#, "a".repeat(2000)), "bytes");
        check(&format!(r#"{{"peft_type":{}1}}"#, "[".repeat(200_000)), "adapter_config.json");
    }
}
