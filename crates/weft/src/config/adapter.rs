//! The run file of `weft adapter train`: many adapters over one frozen base.

use super::{ConfigError, DeviceConfig, GenerateConfig, IntentsConfig, RecipeConfig, ShownConfig, data_folder, require};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A whole run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdapterRunConfig {
    /// Name, seed, device and output.
    pub run: AdapterRunSection,
    /// The frozen base.
    pub base: BaseConfig,
    /// What an adapter updates.
    pub lora: LoraTable,
    /// What each adapter is for.
    pub task: AdapterTaskConfig,
    /// How each adapter is trained.
    pub recipe: RecipeConfig,
    /// How the one adapter of all training tasks is trained, which the others are held against.
    pub multi_task: RecipeConfig,
    /// What is learnt from the adapters of the training tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateConfig>,
}

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdapterRunSection {
    /// Name of the run.
    pub name: String,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// The folder to write; it must not be there.
    pub output: PathBuf,
    /// Where adapters are trained: `auto`, `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: DeviceConfig,
}

/// `[base]`: paths that are relative start at [`data_folder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BaseConfig {
    /// A file of weights.
    pub weights: PathBuf,
    /// A tokenizer of llama2.c; of an encoder, Hugging Face's `tokenizer.json`.
    pub vocabulary: PathBuf,
    /// What the base is called in the adapters' settings.
    pub name: String,
    /// Its licence, as an SPDX expression.
    pub licence: String,
}

/// `[lora]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoraTable {
    /// Last parts of the updated modules' names.
    pub modules: Vec<String>,
    /// The rank.
    pub rank: usize,
    /// The numerator of the scale `alpha / rank`.
    pub alpha: f64,
    /// Where the adapters of single tasks start; generators need them to start alike.
    #[serde(default)]
    pub start: StartConfig,
}

/// Where training of an adapter starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartConfig {
    /// Each at random factors of its own whose update is 0.
    #[default]
    Own,
    /// All at the same random factors, so that they stay comparable factor by factor.
    Shared,
    /// All at the one adapter of all training tasks.
    MultiTask,
}

/// What the adapters are for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterTaskConfig {
    /// A language each, on one text in many languages.
    Languages(LanguagesConfig),
    /// A set of intents each, to be told apart by the cosines of utterances and the intents' names.
    Intents(IntentsConfig),
}

/// `[task.languages]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LanguagesConfig {
    /// The archive; a relative path starts at [`data_folder`].
    pub path: PathBuf,
    /// Tokens of a window of text.
    pub tokens: usize,
    /// The last share of each language's passages, which no adapter is trained on.
    pub held_out_passages: f64,
    /// Languages at least that the one adapter of all is not trained on, chosen by the digests of their codes; variants of a code stand on one side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_languages: Option<usize>,
    /// Instead of a number, the codes of the languages that the one adapter of all is not trained on, with all their variants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out_codes: Vec<String>,
    /// Codes of languages that take no part, such as those that another run judges by while this one chooses settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out_codes: Vec<String>,
    /// Codes of languages that settings were chosen on, which are never held out.
    #[serde(default)]
    pub chosen_on: Vec<String>,
}

impl AdapterRunConfig {
    /// Reads a run file and applies overrides, as those of `weft run` are.
    ///
    /// # Errors
    /// [`ConfigError`] with the line and column of what is wrong, or with the override that is.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// Parses a run file's text and applies overrides; `origin` names the text in messages.
    ///
    /// # Errors
    /// As [`AdapterRunConfig::read`].
    ///
    /// # Examples
    /// ```
    /// use weft::config::AdapterRunConfig;
    /// let error = AdapterRunConfig::parse("[run]\nname = \"x\"\noutpt = \"y\"", "run.toml", &[]).unwrap_err();
    /// assert_eq!(error.to_string(), "run.toml:3:1: unknown key `outpt`");
    /// ```
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError::at(origin, text, &e))?;
        config.check().map_err(|(key, reason)| ConfigError::out_of_range(origin, text, key, &reason))?;
        super::overrides::apply(config, text, overrides, Self::check)
    }

    /// The configuration with every default written out.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field of a run file has a TOML form")
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        require("run.name", "a name", !self.run.name.is_empty(), "none")?;
        let output = self.run.output.file_name().is_some();
        require("run.output", "a folder's name", output, self.run.output.display())?;
        require("base.name", "a name", !self.base.name.is_empty(), "none")?;
        match &self.task {
            AdapterTaskConfig::Languages(task) => task.check()?,
            AdapterTaskConfig::Intents(task) => task.check()?,
        }
        require("lora.rank", "between 1 and 1024", (1..=1024).contains(&self.lora.rank), self.lora.rank)?;
        let Some(generate) = &self.generate else { return Ok(()) };
        let alike = self.lora.start != StartConfig::Own;
        require("lora.start", "`shared` or `multi-task`, for generators of adapters", alike, "own")?;
        let shown: Vec<&str> = generate.shown.iter().copied().map(ShownConfig::name).collect();
        let of_intents = matches!(self.task, AdapterTaskConfig::Intents(_));
        let twice = shown.len() == 2 && shown[0] == shown[1];
        let fits = shown.is_empty() != of_intents && shown.len() <= 2 && !twice;
        let expected = "`names`, `utterances` or both for intents, and left out for languages";
        require("generate.shown", expected, fits, format!("{shown:?}"))?;
        let fits = generate.few_steps.is_none() || !of_intents;
        require(
            "generate.variants",
            "0 for intents, which have no letters of their own",
            generate.variants == 0 || !of_intents,
            generate.variants,
        )?;
        require("generate.scripts", "0 for intents", generate.scripts == 0 || !of_intents, generate.scripts)?;
        require("generate.few-steps", "left out for intents: what shows them has no labels", fits, "a table")?;
        generate.check()
    }
}

impl BaseConfig {
    /// The files of weights and vocabulary.
    #[must_use]
    pub fn paths(&self) -> [PathBuf; 2] {
        [&self.weights, &self.vocabulary].map(|path| data_folder().join(path))
    }
}

impl LanguagesConfig {
    fn check(&self) -> Result<(), (&'static str, String)> {
        require("task.languages.tokens", "between 1 and 65536", (1..=65_536).contains(&self.tokens), self.tokens)?;
        let share = self.held_out_passages;
        require("task.languages.held-out-passages", "between 0 and 1", share > 0.0 && share < 1.0, share)?;
        let ways = usize::from(self.held_out_languages.is_some()) + usize::from(!self.held_out_codes.is_empty());
        let expected = "there or `task.languages.held-out-languages`, and not both";
        require("task.languages.held-out-codes", expected, ways == 1, if ways == 0 { "neither" } else { "both" })?;
        match self.held_out_codes.iter().find(|code| self.chosen_on.contains(code)) {
            Some(code) => {
                let reason = format!("has `{code}`, which is among `chosen-on`: settings were chosen on it");
                Err(("task.languages.held-out-codes", reason))
            }
            None => Ok(()),
        }
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        data_folder().join(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENTS: &str = include_str!("../../../../configs/intents.toml");
    const LANGUAGES: &str = include_str!("../../../../configs/languages.toml");

    #[test]
    fn the_run_file_of_languages_is_sound_and_written_back() {
        let config = AdapterRunConfig::parse(LANGUAGES, "languages.toml", &[]).unwrap();
        assert_eq!(AdapterRunConfig::parse(&config.to_toml(), "again", &[]).unwrap(), config);
        let AdapterTaskConfig::Languages(task) = &config.task else { panic!("languages") };
        assert!(task.held_out_languages.is_some_and(|languages| languages >= 60));
    }

    #[test]
    fn the_run_file_of_intents_is_sound_and_written_back() {
        let config = AdapterRunConfig::parse(INTENTS, "intents.toml", &[]).unwrap();
        assert_eq!(AdapterRunConfig::parse(&config.to_toml(), "again", &[]).unwrap(), config);
        let AdapterTaskConfig::Intents(task) = &config.task else { panic!("intents") };
        assert!(task.training_tasks >= 200 && task.test_tasks >= 24);
        let refused = |from: &str, to: &str, expected: &str| {
            assert!(INTENTS.contains(from), "{from}");
            let message = AdapterRunConfig::parse(&INTENTS.replace(from, to), "i.toml", &[]).unwrap_err().to_string();
            assert!(message.starts_with("i.toml:") && message.contains(expected), "{message}");
        };
        refused("ways = 8", "ways = 1", "`task.intents.ways`");
        refused("shown = [\"names\", \"utterances\"]", "shown = [\"names\", \"names\"]", "`generate.shown`");
        refused("shown = [\"names\", \"utterances\"]", "shown = []", "`generate.shown`");
        refused("shown = [\"names\", \"utterances\"]", "shown = [\"names\"]\nvariants = 2", "`generate.variants`");
        refused("shown = [\"names\", \"utterances\"]", "shown = [\"names\"]\nscripts = 2", "`generate.scripts`");
        refused("held-out-domains", "held-out-domain", "unknown key `held-out-domain`");
    }

    #[test]
    fn values_out_of_range_are_named_at_their_place() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(LANGUAGES.contains(from), "{from}");
            let message = AdapterRunConfig::parse(&LANGUAGES.replace(from, to), "l.toml", &[]).unwrap_err().to_string();
            assert!(message.starts_with("l.toml:") && message.contains(expected), "{message}");
        };
        check("rank = 4", "rank = 0", "`lora.rank`");
        check("variants = 16", "variants = 65", "`generate.variants`");
        check("variants = 16", "swaps = 0", "`generate.swaps`");
        check("scripts = 16", "scripts = 65", "`generate.scripts`");
        check("held-out-passages = 0.3", "held-out-passages = 1.0", "held-out-passages");
        check("[lora]", "[loar]", "unknown key `loar`");
    }

    #[test]
    fn overrides_are_checked_like_the_file() {
        let parse = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            AdapterRunConfig::parse(LANGUAGES, "l.toml", &overrides)
        };
        let changed = parse(&["run.seed=7", "run.device=cpu", "recipe.duration.steps=3", "generate.hyper.steps=9"]).unwrap();
        assert_eq!((changed.run.seed, changed.recipe.duration), (7, super::super::DurationConfig::Steps(3)));
        assert_eq!(changed.generate.unwrap().hyper.steps, 9);
        let check = |overrides: &[&str], expected: [&str; 2]| {
            let message = parse(overrides).unwrap_err().to_string();
            assert!(expected.iter().all(|expected| message.contains(expected)), "{message}");
        };
        check(&["lora.rank=0"], ["--set lora.rank=0", "`lora.rank`"]);
        check(&["lora.rnk=2"], ["--set lora.rnk=2", "unknown key `rnk`"]);
        check(&["generate.few-steps.steps=[4,2]"], ["few-steps.steps", "rising"]);
        check(&["generate.few-steps.learning-rates=[]"], ["few-steps.learning-rates", "positive"]);
    }

    const FAMILIES: &str = include_str!("../../../../configs/languages-families.toml");

    #[test]
    fn held_out_languages_are_counted_or_named_and_not_both() {
        let config = AdapterRunConfig::parse(FAMILIES, "f.toml", &[]).unwrap();
        assert_eq!(AdapterRunConfig::parse(&config.to_toml(), "again", &[]).unwrap(), config);
        let AdapterTaskConfig::Languages(task) = &config.task else { panic!("languages") };
        assert!(task.held_out_codes.len() > 50 && task.held_out_languages.is_none());
        assert!(task.held_out_codes.iter().all(|code| !task.chosen_on.contains(code)));
        let check = |text: &str, overrides: &[&str], expected: &str| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            let message = AdapterRunConfig::parse(text, "f.toml", &overrides).unwrap_err().to_string();
            assert!(message.contains("held-out-codes") && message.contains(expected), "{message}");
        };
        check(FAMILIES, &["task.languages.held-out-languages=9"], "both");
        check(&LANGUAGES.replace("held-out-languages = 60", ""), &[], "neither");
        check(FAMILIES, &["task.languages.held-out-codes=[\"fin\"]"], "`fin`");
    }
}
