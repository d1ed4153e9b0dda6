//! `[task.intents]`: adapters of an encoder, each for telling a few intents apart.

use super::{data_folder, require};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[task.intents]`: tasks are sets of intents of `CLINC150`, of `BANKING77`, or of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IntentsConfig {
    /// The folder of `CLINC150`; a relative path starts at [`data_folder`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clinc150: Option<PathBuf>,
    /// The folder of `BANKING77`, which is one domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banking77: Option<PathBuf>,
    /// Tokens of an utterance or a name at most, those at its ends counted; what is longer is cut off.
    pub tokens: usize,
    /// Intents of a task.
    pub ways: usize,
    /// The share of tasks whose intents are all of one domain, which is harder; the others mix all domains. Where no domain has intents enough
    /// on the side of a task for another set, it mixes them.
    pub within_domain: f64,
    /// Tasks of training intents, which generators learn from.
    pub training_tasks: usize,
    /// Tasks of held-out intents, and as many of intents of held-out domains.
    pub test_tasks: usize,
    /// The share of each other domain's intents that is held out, by a hash of their names.
    pub held_out_intents: f64,
    /// Domains that are held out whole.
    pub held_out_domains: Vec<String>,
    /// Utterances of each intent that adapters are trained on, at most.
    pub utterances: usize,
    /// Utterances of each intent that they are judged on, at most; in a task all intents have the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_utterances: Option<usize>,
    /// Names of intents in words that settings were chosen on, which are never held out.
    #[serde(default)]
    pub chosen_on: Vec<String>,
}

/// What shows a task of intents to a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShownConfig {
    /// The intents' names: mean and deviation of their vectors by the base.
    Names,
    /// Utterances without a label: mean and deviation of their vectors.
    Utterances,
}

impl ShownConfig {
    /// What it is called in a run file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Utterances => "utterances",
        }
    }
}

impl IntentsConfig {
    /// The folders of `CLINC150` and `BANKING77`, of those that are used.
    #[must_use]
    pub fn folders(&self) -> [Option<PathBuf>; 2] {
        [&self.clinc150, &self.banking77].map(|path| path.as_ref().map(|path| data_folder().join(path)))
    }

    /// The files of these folders that are read, by what they are.
    pub(crate) fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let [clinc, banking] = self.folders();
        let of_clinc = [("clinc150", "data_full.json"), ("clinc150 domains", "domains.json")];
        let of_banking = [("banking77 train", "train.csv"), ("banking77 test", "test.csv"), ("banking77", "categories.json")];
        let within = |folder: Option<PathBuf>, files: &[(&'static str, &str)]| -> Vec<(&'static str, PathBuf)> {
            folder.map(|folder| files.iter().map(|&(what, file)| (what, folder.join(file))).collect()).unwrap_or_default()
        };
        [within(clinc, &of_clinc), within(banking, &of_banking)].concat()
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let any = self.clinc150.is_some() || self.banking77.is_some();
        require("task.intents", "of `clinc150` or `banking77` at least", any, "neither")?;
        require("task.intents.tokens", "between 3 and 512", (3..=512).contains(&self.tokens), self.tokens)?;
        require("task.intents.ways", "between 2 and 256", (2..=256).contains(&self.ways), self.ways)?;
        let share = self.within_domain;
        require("task.intents.within-domain", "a fraction in [0, 1]", (0.0..=1.0).contains(&share), share)?;
        let counts = [self.training_tasks, self.test_tasks, self.utterances, self.test_utterances.unwrap_or(1)];
        let [training, test, of_intent, judged] = counts;
        let within = |n: usize| (2..=100_000).contains(&n);
        require("task.intents.training-tasks", "between 2 and 100000", within(training), training)?;
        require("task.intents.test-tasks", "between 2 and 100000", within(test), test)?;
        require("task.intents.utterances", "1 or more", of_intent > 0, of_intent)?;
        require("task.intents.test-utterances", "1 or more", judged > 0, judged)?;
        let share = self.held_out_intents;
        require("task.intents.held-out-intents", "between 0 and 1", share > 0.0 && share < 1.0, share)
    }
}
