//! A generator learnt from adapters that are there, whoever trained them, and what is said of each.
//!
//! Nothing is known of their data and the base is not run, so all is learnt in the space of updates: a ridge regression from descriptions to updates
//! ([`weft_codec::adapter::UpdateRidge`]), which makes one adapter of a text, and a flow on the codes of their principal components, which makes as many as are asked for. What
//! descriptions tell is measured on adapters that are left out ([`CheckView`]).

mod check;
mod codes;
mod store;
mod words;

pub use check::CheckView;
pub(super) use check::{FLOW, MEAN, RIDGE};
pub(super) use codes::{CodeConfig, CodeModels, Told};
pub(super) use store::{generate, is_one};
pub use words::Encoder;

use super::codec::AdapterCodec;
use super::generate::familiar;
use super::zoo::{AdapterZoo, same_updates};
use crate::config::CodeFlowConfig;
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use weft_codec::adapter::{Adapters as _, Per, UpdateRidge};
use weft_core::Seed;
use weft_core::products::Here;
use weft_net::Device;
use words::{Descriptions, Words};

/// What to learn, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Learn {
    /// A folder of adapters, one a folder of PEFT, as `weft adapter import` writes it.
    pub adapters: PathBuf,
    /// The file of descriptions: lines of a name, a tab and a text, or an object of JSON.
    pub descriptions: PathBuf,
    /// What reads them.
    pub encoder: Encoder,
    /// What has components of its own.
    pub per: Per,
    /// Components, at most.
    pub components: usize,
    /// Training steps of the flow.
    pub steps: u64,
    /// The width of its network.
    pub width: usize,
    /// Folds of the check on adapters that are left out; with 0 or 1 there is none.
    pub folds: usize,
    /// The seed.
    pub seed: u64,
    /// Where the flow is trained.
    pub device: String,
    /// The folder to write; it must not be there.
    pub output: PathBuf,
}

/// What was learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LearntView {
    /// The folder.
    pub generator: PathBuf,
    /// The base model.
    pub base: Option<String>,
    /// The adapters that it was learnt from.
    pub adapters: usize,
    /// The modules of each.
    pub modules: usize,
    /// Descriptions of all of them.
    pub descriptions: usize,
    /// The length of a code.
    pub code_len: usize,
    /// The part of the updates' variance that codes keep.
    pub kept_variance: f64,
    /// Seconds that inner products took, learning, and the check.
    pub secs: [f64; 3],
    /// What is foretold of adapters that were left out, where there are enough of them.
    pub check: Option<CheckView>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Learns a generator and writes its folder, or nothing.
///
/// # Errors
/// As [`AdapterZoo::open`]; descriptions that cannot be read or that an adapter lacks; fewer than two adapters, or all with the same update; settings out of range;
/// something at the output; or a stop.
pub fn learn(request: &Learn, monitor: &Monitor) -> Result<LearntView> {
    weft_zoo::refuse_existing(&request.output)?;
    for (what, expected, fits, got) in [
        ("`--components`", "between 1 and 4096", (1..=4096).contains(&request.components), request.components as u64),
        ("`--steps`", "between 1 and 1000000", (1..=1_000_000).contains(&request.steps), request.steps),
        ("`--width`", "between 1 and 16384", (1..=16_384).contains(&request.width), request.width as u64),
        ("`--folds`", "at most 100", request.folds <= 100, request.folds as u64),
    ] {
        if !fits {
            return Err(Error::Range { what, expected: expected.to_owned(), got: got.to_string() });
        }
    }
    let device = Device::open(&request.device)?;
    let words = Words::open(&request.encoder)?;
    let descriptions = words::read(&request.descriptions)?;
    let zoo = AdapterZoo::open(&request.adapters, monitor)?;
    let (texts, more) = texts_of(&zoo, descriptions)?;
    let n = zoo.num_adapters();
    if !(2..=UpdateRidge::MOST).contains(&n) {
        let expected = format!("between 2 and {}", UpdateRidge::MOST);
        let why =
            zoo.notes().iter().filter(|note| note.contains("left out")).map(String::as_str).take(3).collect::<Vec<_>>().join("; ");
        let got = if why.is_empty() { n.to_string() } else { format!("{n}: {why}") };
        return Err(Error::Range { what: "the number of adapters to learn from", expected, got });
    }
    let mut told = tell(&words, &texts, monitor)?;
    let started = std::time::Instant::now();
    let grams = zoo.grams(&Here, monitor)?;
    let gram_secs = started.elapsed().as_secs_f64();
    let same = same_updates(&grams);
    told.groups = joined(&told.groups, &same);
    let flow = CodeFlowConfig { steps: request.steps, width: request.width, ..CodeFlowConfig::default() };
    let config = CodeConfig { per: request.per, components: request.components, flow: Some(flow.clone()) };
    let seed = Seed::new(request.seed).fork("adapter learn");
    let started = std::time::Instant::now();
    let models = CodeModels::fit(&grams, &told, &config, (seed, &device), monitor)?;
    let learn_secs = started.elapsed().as_secs_f64();
    let started = std::time::Instant::now();
    let names: Vec<String> = zoo.names().map(ToOwned::to_owned).collect();
    let subjects = check::Subjects { names, grams: &grams, told: &told };
    let check = check::check(&subjects, &config, (request.folds, seed.fork("check"), &device), monitor)?;
    let check_secs = started.elapsed().as_secs_f64();
    let (means, count) = (told.means(), texts.iter().map(Vec::len).sum());
    let (code_len, kept_variance) = (models.pca.code_len(), models.pca.kept_variance());
    let codec = AdapterCodec::from_parts(zoo, grams, models.pca.clone());
    let description = store::Description {
        familiar: familiar(&means, &means.iter().map(Vec::as_slice).collect::<Vec<_>>(), &told.groups),
        sampler_steps: flow.sampler_steps,
        check: check.clone(),
        ..store::Description::new(words.stored(), texts, request.command())
    };
    weft_zoo::write_folder(&request.output, |folder| store::write(folder, (&codec, &models), (&means, description)))?;
    let zoo = codec.zoo();
    let names: Vec<&str> = zoo.names().collect();
    let total = codec.grams().total();
    let zero = (0..n).filter(|&i| total[i * n + i] <= 0.0).map(|i| format!("the updates of `{}` are zero", names[i]));
    let same = same.iter().map(|&[i, j]| {
        format!("`{}` and `{}` have the same update but for its size: they are left out together", names[i], names[j])
    });
    let notes =
        zoo.notes().iter().cloned().chain(more).chain(zero).chain(same).chain(said_of(check.as_ref(), request.folds)).collect();
    Ok(LearntView {
        generator: request.output.clone(),
        base: zoo.base().map(ToOwned::to_owned),
        adapters: zoo.num_adapters(),
        modules: zoo.modules().len(),
        descriptions: count,
        code_len,
        kept_variance,
        secs: [gram_secs, learn_secs, check_secs],
        check,
        notes,
    })
}

impl Learn {
    /// The command that makes the generator again.
    fn command(&self) -> String {
        let encoder = match &self.encoder {
            Encoder::Hashing => "hashing".to_owned(),
            Encoder::Bytes => "bytes".to_owned(),
            Encoder::Bert(folder) => folder.display().to_string(),
        };
        let [adapters, descriptions, output] =
            [&self.adapters, &self.descriptions, &self.output].map(|path| quoted(&path.display().to_string()));
        format!(
            "weft adapter learn {adapters} --descriptions {descriptions} --encoder {} --per {} --components {} --steps {} --width {} --folds {} --seed {} --device {} -o {output}",
            quoted(&encoder),
            self.per.name(),
            self.components,
            self.steps,
            self.width,
            self.folds,
            self.seed,
            quoted(&self.device)
        )
    }
}

/// A word of a shell's command.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The texts of each adapter, in the zoo's order, and what is to be said of those that are of none.
fn texts_of(zoo: &AdapterZoo, mut descriptions: Descriptions) -> Result<(Vec<Vec<String>>, Vec<String>)> {
    let mut texts = Vec::with_capacity(zoo.num_adapters());
    let mut without = Vec::new();
    for name in zoo.names() {
        match descriptions.remove(name) {
            Some(own) => texts.push(own),
            None => without.push(name),
        }
    }
    if let Some(first) = without.first() {
        let expected = "a text for each adapter; move those aside that are to be left out".to_owned();
        let got = format!("none for {} of {}, such as `{first}`", without.len(), zoo.num_adapters());
        return Err(Error::Range { what: "descriptions", expected, got });
    }
    let others: Vec<&str> = descriptions.keys().take(3).map(String::as_str).collect();
    let note =
        format!("descriptions of {} that are no adapters of the folder are not read: {}", descriptions.len(), others.join(", "));
    Ok((texts, if others.is_empty() { Vec::new() } else { vec![note] }))
}

/// Vectors of texts; adapters that share one go together.
fn tell(words: &Words, texts: &[Vec<String>], monitor: &Monitor) -> Result<Told> {
    let mut vectors = Vec::with_capacity(texts.len());
    monitor.start("read descriptions", texts.len() as u64, "adapters");
    for (done, own) in texts.iter().enumerate() {
        if monitor.should_stop() {
            return Err(Error::Interrupted { stage: "adapter learn" });
        }
        vectors.push(own.iter().map(|text| words.vector(text.as_bytes())).collect::<Result<Vec<_>>>()?);
        monitor.progress(done as u64 + 1);
    }
    monitor.finish();
    Ok(Told { vectors, groups: groups_of(texts) })
}

/// The groups of adapters that share a text, or share one with adapters that do, numbered by their first members.
fn groups_of(texts: &[Vec<String>]) -> Vec<u32> {
    let mut of_text: BTreeMap<&str, usize> = BTreeMap::new();
    let texts_of = texts.iter().enumerate().flat_map(|(i, own)| own.iter().map(move |text| (i, text)));
    let pairs: Vec<[usize; 2]> = texts_of.map(|(i, text)| [*of_text.entry(text).or_insert(i), i]).filter(|[i, j]| i != j).collect();
    joined(&(0..texts.len() as u32).collect::<Vec<_>>(), &pairs)
}

/// Groups that have a pair are one.
fn joined(groups: &[u32], pairs: &[[usize; 2]]) -> Vec<u32> {
    let mut groups = groups.to_vec();
    for &[i, j] in pairs {
        let (one, other) = (groups[i].min(groups[j]), groups[i].max(groups[j]));
        groups.iter_mut().filter(|group| **group == other).for_each(|group| *group = one);
    }
    groups
}

/// What the check says in words.
fn said_of(check: Option<&CheckView>, folds: usize) -> Vec<String> {
    let Some(check) = check else {
        let why = if folds < 2 { "no check was asked for" } else { "there are fewer than three descriptions" };
        return vec![format!("{why}: nothing says that descriptions tell anything of the adapters")];
    };
    let told = |name: &str| check.evaluation.verdicts.iter().find(|verdict| verdict.generator == name);
    let mut notes = Vec::new();
    for name in [RIDGE, FLOW] {
        let Some(verdict) = told(name) else { continue };
        let controlled = check.evaluation.rows.iter().any(|row| row.of.as_deref() == Some(name));
        if controlled && !verdict.uses_condition {
            notes.push(format!("{name}: told another adapter's description it does as well within two standard errors: what it makes is hardly of the text"));
        }
        if verdict.not_beaten.iter().any(|other| other == MEAN) {
            notes.push(format!("{name}: not nearer to adapters that were left out than the mean of all, by two standard errors"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_that_share_a_text_are_one_group() {
        let texts = |of: &[&[&str]]| of.iter().map(|own| own.iter().map(|&text| text.to_owned()).collect()).collect::<Vec<_>>();
        assert_eq!(groups_of(&texts(&[&["x", "y"], &["z"], &["y", "x"], &["w", "z"], &["v"]])), [0, 1, 0, 1, 4]);
        // By way of others as well.
        assert_eq!(joined(&[0, 1, 2, 1, 4], &[[0, 4], [1, 2]]), [0, 1, 1, 1, 0]);
        assert_eq!(groups_of(&texts(&[&["a"], &["b"], &["c"], &["b", "c"], &["a", "c"]])), [0; 5]);
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them() {
        assert_eq!(
            [quoted("a/b-1.tsv"), quoted("my zoo"), quoted("it's $x"), quoted("")],
            ["a/b-1.tsv", "'my zoo'", r"'it'\''s $x'", "''"]
        );
    }
}
