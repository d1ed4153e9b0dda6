//! Many adapters trained over one frozen base, and judged on text that none of them has seen.
//!
//! The output holds a folder of PEFT for each adapter in `adapters/`, the one adapter of all training tasks in `multi-task/`, the resolved
//! run file and `report.json`. It appears under its name when all of it is written; until then, what is trained is kept beside it in
//! `OUTPUT.kept`, from where a run that was stopped goes on.

use super::generate::{self, Experiment, GeneratedView, Stored, Subject};
use super::kept::Kept;
use super::merge::refuse_existing;
use super::twins::with_twins;
use crate::config::{AdapterRunConfig, AdapterTaskConfig, LanguagesConfig, StartConfig};
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::families::{Family, Lora, LoraModule};
use weft_core::{Digest, Op, Population, RopePairs, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, LoraConfig, Measured, Windows, initial_adapter};
use weft_zoo::Vocabulary;
use weft_zoo::adapter::{AdapterExport, AdapterProfile, AdapterProvenance, AdapterWeights};
use weft_zoo::data::{Language, Languages, languages};

/// The file of figures.
const REPORT: &str = "report.json";

/// What a language costs, in bits a byte of its held-out passages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanguageRow {
    /// Its name in the archive.
    pub id: String,
    /// What it is called in words.
    pub title: String,
    /// Whether the adapter of all training languages has not seen it.
    pub held_out: bool,
    /// Bytes of its training and of its held-out passages.
    pub bytes: [usize; 2],
    /// The base alone.
    pub base: f64,
    /// With the adapter of all training languages.
    pub multi_task: f64,
    /// With its own adapter.
    pub oracle: f64,
}

/// Means over languages, in bits a byte.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LanguageMeans {
    /// Languages.
    pub languages: usize,
    /// The base alone.
    pub base: f64,
    /// With the adapter of all training languages.
    pub multi_task: f64,
    /// With each one's own adapter.
    pub oracle: f64,
    /// Languages whose own adapter is better than that of all.
    pub oracle_wins: usize,
}

/// What a run of `weft adapter train` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedView {
    /// The folder that was written.
    pub output: PathBuf,
    /// Weights of an adapter.
    pub parameters: usize,
    /// Where it was trained.
    pub device: String,
    /// Seconds that training all adapters of one task took.
    pub train_secs: f64,
    /// Means over the training languages, then over the held-out ones.
    pub means: [LanguageMeans; 2],
    /// What generators are worth on held-out languages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedView>,
    /// A row a language.
    pub rows: Vec<LanguageRow>,
    /// Languages that were left out, and why.
    pub skipped: Vec<(String, String)>,
}

/// Trains and measures all adapters of a run file.
///
/// # Errors
/// An output that is there already, files that are missing or damaged, a base that adapters are not trained on, settings that do not fit the
/// data, a failed device, or a stop.
pub fn train(config: &AdapterRunConfig, monitor: &Monitor) -> Result<TrainedView> {
    refuse_existing(&config.run.output)?;
    let AdapterTaskConfig::Languages(task) = &config.task;
    let [weights, vocabulary] = config.base.paths();
    let (base, vocabulary) = (Arc::new(super::base::read(&weights)?), Vocabulary::open(&vocabulary)?);
    if vocabulary.len() > base.vocabulary() {
        let reason = format!("it has {} tokens and the base knows {}", vocabulary.len(), base.vocabulary());
        return Err(Error::Misfit { what: "the vocabulary".to_owned(), other: "the base".to_owned(), reason });
    }
    let Languages { read, skipped } = languages(&task.archive())?;
    let read = with_twins(read, monitor);
    let held_out = match task.held_out_languages {
        Some(at_least) => held_out(&read, at_least, &task.chosen_on)?,
        None => held_out_codes((&read, &skipped), &task.held_out_codes, &task.chosen_on)?,
    };
    if config.generate.is_some() {
        enough_for_generators(&read, &held_out)?;
    }
    let texts = read.iter().map(|language| Text::new(language, task, &vocabulary)).collect::<Result<Vec<_>>>()?;
    let device = Device::open(&config.run.device.to_string())?;
    let lora = LoraConfig { modules: config.lora.modules.clone(), rank: config.lora.rank, alpha: config.lora.alpha };
    let layout = AdapterLayout::new(&base, &lora)?;
    let adapters = Adapters::new(base, layout, &device)?;
    let run = Run { config, adapters: &adapters, vocabulary: &vocabulary, texts: &texts, held_out: &held_out, monitor };
    let kept = Kept::new(config, &device.to_string(), monitor)?;
    let architecture = adapters.layout().architecture();
    let key = kept.stage("multi-task").setting("recipe", &config.multi_task);
    let (multi_task, all) = kept.adapters(key, architecture, || run.multi_task())?;
    let key = kept.stage("adapters").setting("recipe", &config.recipe).input("multi-task", all.output);
    let (trained, own) = kept.adapters(key, architecture, || run.each(&multi_task))?;
    let train_secs = own.wall_secs;
    let key = kept.stage("rows").input("multi-task", all.output).input("adapters", own.output);
    let rows = kept.figures(key, || run.rows(&read, &trained, &multi_task))?;
    let generated = run.generated(&read, (&trained, &multi_task), train_secs)?;
    let (generated, stored) = generated.map_or((None, None), |(view, stored)| (Some(view), Some(stored)));
    let view = TrainedView {
        output: config.run.output.clone(),
        parameters: adapters.layout().num_parameters(),
        device: device.to_string(),
        train_secs,
        means: [false, true].map(|held_out| means(&rows, held_out)),
        generated,
        rows,
        skipped,
    };
    let rotary = adapters.base().rope_pairs();
    write(config, &Made { languages: &read, each: &trained, multi_task: &multi_task, stored: stored.as_ref(), rotary }, &view)?;
    kept.remove()?;
    Ok(view)
}

/// A language's text as windows, and how many bytes they are of: for training, and held out.
struct Text {
    tasks: [AdapterTask; 2],
    bytes: [usize; 2],
}

impl Text {
    fn new(language: &Language, task: &LanguagesConfig, vocabulary: &Vocabulary) -> Result<Self> {
        let share = task.held_out_passages;
        let (train, test) = language.split(share).ok_or_else(|| Error::Range {
            what: "the share of held-out passages",
            expected: format!("one that leaves `{}` a passage on both sides", language.id),
            got: share.to_string(),
        })?;
        let windows = |passages: &[String]| -> Result<AdapterTask> {
            let documents: Vec<Vec<u32>> = passages.iter().map(|passage| vocabulary.encode(passage)).collect();
            Ok(AdapterTask::Text(Windows::new(&documents, Vocabulary::START, task.tokens)?))
        };
        let bytes = [train, test].map(|passages| passages.iter().map(String::len).sum());
        Ok(Self { tasks: [windows(train)?, windows(test)?], bytes })
    }
}

/// Which languages are held out: codes in the order of their digests, until so many languages are; variants of a code go together.
fn held_out(languages: &[Language], at_least: usize, chosen_on: &[String]) -> Result<Vec<bool>> {
    known("`task.languages.chosen-on`", chosen_on, languages, &[])?;
    let mut codes: Vec<&str> = languages.iter().map(|language| language.code.as_str()).collect();
    codes.retain(|code| !chosen_on.iter().any(|chosen| chosen == code));
    codes.sort_unstable();
    codes.dedup();
    codes.sort_by_key(|code| *Digest::of_parts([b"held-out language".as_slice(), code.as_bytes()]).as_bytes());
    let mut chosen = vec![false; languages.len()];
    for code in codes {
        if chosen.iter().filter(|&&chosen| chosen).count() >= at_least {
            break;
        }
        chosen.iter_mut().zip(languages).filter(|(_, language)| language.code == code).for_each(|(chosen, _)| *chosen = true);
    }
    if chosen.iter().all(|&chosen| chosen) {
        let expected = format!("less than all languages, of which there are {}", languages.len());
        return Err(Error::Range { what: "the number of held-out languages", expected, got: at_least.to_string() });
    }
    Ok(chosen)
}

/// Which languages are held out where their codes are named; those that were left out for want of text may be named too.
fn held_out_codes(
    (languages, skipped): (&[Language], &[(String, String)]),
    codes: &[String],
    chosen_on: &[String],
) -> Result<Vec<bool>> {
    known("`task.languages.chosen-on`", chosen_on, languages, &[])?;
    known("`task.languages.held-out-codes`", codes, languages, skipped)?;
    let chosen: Vec<bool> = languages.iter().map(|language| codes.contains(&language.code)).collect();
    for (side, expected) in [(true, "codes of languages with enough text"), (false, "less than all languages")] {
        if chosen.iter().all(|&chosen| chosen != side) {
            let (expected, got) = (expected.to_owned(), if side { "none of them" } else { "all of them" }.to_owned());
            return Err(Error::Range { what: "`task.languages.held-out-codes`", expected, got });
        }
    }
    Ok(chosen)
}

/// Refuses codes that no language of the archive has.
fn known(what: &'static str, codes: &[String], languages: &[Language], skipped: &[(String, String)]) -> Result<()> {
    let has = |code: &&String| {
        languages.iter().any(|language| language.code == **code)
            || skipped.iter().any(|(id, _)| id.split('_').next() == Some(code.as_str()))
    };
    match codes.iter().find(|code| !has(code)) {
        Some(code) => {
            let expected = "codes of the archive's languages".to_owned();
            Err(Error::Range { what, expected, got: format!("`{code}`") })
        }
        None => Ok(()),
    }
}

/// Refuses languages that generators cannot be learnt from or judged by, before anything is trained.
fn enough_for_generators(languages: &[Language], held_out: &[bool]) -> Result<()> {
    for (what, side) in
        [("the number of training languages for generators", false), ("the number of held-out languages for generators", true)]
    {
        let of_side = languages.iter().zip(held_out).filter(|(_, held_out)| **held_out == side);
        let codes: std::collections::BTreeSet<&str> = of_side.map(|(language, _)| language.code.as_str()).collect();
        if codes.len() < 2 {
            let expected =
                "2 or more that are no variants of each other; see `held-out-languages` and `held-out-codes` in `[task.languages]`";
            let expected = expected.to_owned();
            return Err(Error::Range { what, expected, got: codes.len().to_string() });
        }
    }
    Ok(())
}

/// What all steps of a run share.
struct Run<'a> {
    config: &'a AdapterRunConfig,
    adapters: &'a Adapters,
    vocabulary: &'a Vocabulary,
    texts: &'a [Text],
    held_out: &'a [bool],
    monitor: &'a Monitor<'a>,
}

impl Run<'_> {
    fn seed(&self, name: &str) -> Seed {
        Seed::new(self.config.run.seed).fork(name)
    }

    /// The one adapter of all training languages.
    fn multi_task(&self) -> Result<Population> {
        let seen = self.texts.iter().zip(self.held_out).filter(|(_, held_out)| !**held_out);
        let windows =
            seen.filter_map(|(text, _)| if let AdapterTask::Text(windows) = &text.tasks[0] { Some(windows) } else { None });
        let task = [AdapterTask::Text(Windows::join(windows)?)];
        let recipe = self.config.multi_task.to_recipe(task[0].len())?;
        self.monitor.note(format!("one adapter of all training languages: {} windows", task[0].len()));
        Ok(self.adapters.train(&task, &recipe, self.seed("multi-task"), self.monitor)?)
    }

    /// An adapter a language.
    fn each(&self, multi_task: &Population) -> Result<Population> {
        let tasks: Vec<AdapterTask> = self.texts.iter().map(|text| text.tasks[0].clone()).collect();
        let most = tasks.iter().map(AdapterTask::len).max().unwrap_or(1);
        let recipe = self.config.recipe.to_recipe(most)?;
        let seed = self.seed("adapters");
        let adapters = self.adapters.clone();
        let adapters = match self.config.lora.start {
            StartConfig::Own => adapters,
            StartConfig::Shared => adapters.with_start(&initial_adapter(self.adapters.layout(), seed.fork("init")))?,
            StartConfig::MultiTask => adapters.with_start(multi_task.row(0))?,
        };
        Ok(adapters.train(&tasks, &recipe, seed, self.monitor)?)
    }

    /// Generators that learn from the training languages, on the held-out ones.
    fn generated(
        &self,
        languages: &[Language],
        (own, multi_task): (&Population, &Population),
        train_secs: f64,
    ) -> Result<Option<(GeneratedView, Stored)>> {
        let Some(config) = &self.config.generate else { return Ok(None) };
        let AdapterTaskConfig::Languages(task) = &self.config.task;
        let mut subjects = Vec::with_capacity(languages.len());
        for ((language, text), &held_out) in languages.iter().zip(self.texts).zip(self.held_out) {
            let (train, _) = language.split(task.held_out_passages).unwrap_or_default();
            let (id, code, windows) = (language.id.as_str(), language.code.as_str(), &text.tasks);
            subjects.push(Subject { id, code, held_out, text: train.join("\n"), test_bytes: text.bytes[1], windows });
        }
        let read = |text: &str| -> Result<AdapterTask> {
            let document = self.vocabulary.encode(text);
            let tokens = task.tokens.min(document.len().max(1));
            Ok(AdapterTask::Text(Windows::new(&[document], Vocabulary::START, tokens)?))
        };
        let experiment = Experiment {
            config,
            on: self.adapters,
            lora: &family_of(own.architecture())?,
            subjects: &subjects,
            own,
            multi_task,
            grew_from_all: self.config.lora.start == StartConfig::MultiTask,
            read: &read,
            own_secs: train_secs / languages.len() as f64,
            seed: self.seed("generate"),
            monitor: self.monitor,
        };
        Ok(Some(generate::experiment(&experiment)?))
    }

    /// All languages by the base, the adapter of all and their own, on held-out passages.
    fn rows(&self, languages: &[Language], trained: &Population, multi_task: &Population) -> Result<Vec<LanguageRow>> {
        let dim = trained.dim();
        self.monitor.start("measure adapters", 3 * self.texts.len() as u64, "measurements");
        let mut rows = Vec::with_capacity(languages.len());
        for (i, ((language, text), &held_out)) in languages.iter().zip(self.texts).zip(self.held_out).enumerate() {
            if self.monitor.should_stop() {
                return Err(Error::Interrupted { stage: "adapter train" });
            }
            let measure = |adapter: &[f32]| -> Result<f64> {
                let measured: Vec<Measured> = self.adapters.measure(adapter, &[&text.tasks[1]])?;
                Ok(measured[0].bits_per_byte(text.bytes[1]))
            };
            rows.push(LanguageRow {
                id: language.id.clone(),
                title: language.title(),
                held_out,
                bytes: text.bytes,
                base: measure(&vec![0.0; dim])?,
                multi_task: measure(multi_task.row(0))?,
                oracle: measure(trained.row(i))?,
            });
            self.monitor.progress(3 * (i as u64 + 1));
        }
        self.monitor.finish();
        Ok(rows)
    }
}

fn means(rows: &[LanguageRow], held_out: bool) -> LanguageMeans {
    let rows: Vec<&LanguageRow> = rows.iter().filter(|row| row.held_out == held_out).collect();
    let languages = rows.len();
    let mean = |of: fn(&LanguageRow) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / languages.max(1) as f64;
    let [base, multi_task, oracle] = [mean(|row| row.base), mean(|row| row.multi_task), mean(|row| row.oracle)];
    let oracle_wins = rows.iter().filter(|row| row.oracle < row.multi_task).count();
    LanguageMeans { languages, base, multi_task, oracle, oracle_wins }
}

/// What a run made.
struct Made<'a> {
    languages: &'a [Language],
    each: &'a Population,
    multi_task: &'a Population,
    stored: Option<&'a Stored>,
    /// In which order rows of queries and keys stand.
    rotary: Option<RopePairs>,
}

/// Writes everything, or nothing.
fn write(config: &AdapterRunConfig, made: &Made, view: &TrainedView) -> Result<()> {
    weft_zoo::write_folder(&config.run.output, |folder| write_all(config, made, view, folder))
}

fn write_all(config: &AdapterRunConfig, made: &Made, view: &TrainedView, folder: &Path) -> Result<()> {
    let Made { languages, each, multi_task, stored, rotary } = *made;
    let adapters = folder.join("adapters");
    std::fs::create_dir_all(&adapters).map_err(Error::io("create", &adapters))?;
    let lora = family_of(each.architecture())?;
    let provenance = AdapterProvenance {
        parents: Vec::new(),
        configuration: config.to_toml(),
        synthetic: false,
        tags: vec![config.run.name.clone()],
    };
    let export =
        AdapterExport { profile: AdapterProfile::Peft, base: None, component: None, of_pipeline: false, provenance: &provenance };
    let write_one = |row: &[f32], to: &Path| -> Result<()> {
        let weights = AdapterWeights::from_lora(&lora, row, Some(config.base.name.clone())).map_err(|fault| fault.at(to))?;
        AdapterWeights { rotary, ..weights }.write(&export, to)?;
        Ok(())
    };
    for (language, row) in languages.iter().zip(each.rows()) {
        write_one(row, &adapters.join(&language.id))?;
    }
    write_one(multi_task.row(0), &folder.join("multi-task"))?;
    if let Some(stored) = stored {
        stored.write(&folder.join("generator"), config, each.architecture())?;
    }
    weft_zoo::write_atomic(&folder.join("run.toml"), config.to_toml().as_bytes())?;
    let report = serde_json::to_vec_pretty(view).map_err(|error| {
        let reason = error.to_string();
        Error::Damaged { path: folder.join(REPORT), reason }
    })?;
    weft_zoo::write_atomic(&folder.join(REPORT), &report)?;
    Ok(())
}

/// The family of adapters of an architecture.
///
/// # Errors
/// [`Error::Misfit`] if it is none of low-rank updates.
pub(super) fn family_of(architecture: &weft_core::Architecture) -> Result<Lora> {
    let scales =
        architecture.nodes().iter().filter_map(|node| if let Op::Scale { factor } = node.op { Some(factor) } else { None });
    let pairs = architecture.tensors().chunks_exact(2).zip(scales);
    let module = |(pair, scaling): (&[weft_core::TensorSpec], f64)| {
        let name = pair[0].name.strip_suffix(".lora_A.weight")?.to_owned();
        let ([rank, fan_in], [fan_out, _]) = (pair[0].shape[..].try_into().ok()?, pair[1].shape[..].try_into().ok()?);
        Some(LoraModule { name, fan_in, fan_out, rank, scaling })
    };
    let lora = pairs.map(module).collect::<Option<Vec<_>>>().map(|modules| Lora { modules });
    // What the family builds of it must be the same network.
    let same =
        |lora: &Lora| Family::Lora(lora.clone()).build(architecture.name()).is_ok_and(|built| built.same_graph(architecture));
    lora.filter(same).ok_or_else(|| Error::Misfit {
        what: format!("the architecture `{}`", architecture.name()),
        other: "an adapter".to_owned(),
        reason: "it is no set of low-rank updates".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(id: &str) -> Language {
        let code = id.split('_').next().unwrap_or(id).to_owned();
        Language { id: id.to_owned(), code, name: None, passages: Vec::new() }
    }

    #[test]
    fn generators_need_two_languages_on_each_side() {
        let all: Vec<Language> = ["a_x", "a_y", "b", "c"].map(language).to_vec();
        let check = |held_out: [bool; 4], expected: &str| {
            let message = enough_for_generators(&all, &held_out).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check([true, true, false, false], "held-out");
        check([false, false, true, true], "training");
        let more: Vec<Language> = ["a", "b", "c", "d"].map(language).to_vec();
        assert!(enough_for_generators(&more, &[true, true, false, false]).is_ok());
    }

    #[test]
    fn variants_are_held_out_together_and_by_name_alone() {
        let ids: Vec<String> =
            (0..40).flat_map(|i| [format!("c{i}_x"), format!("c{i}_y")]).chain((0..40).map(|i| format!("d{i}"))).collect();
        let all: Vec<Language> = ids.iter().map(|id| language(id)).collect();
        let chosen = held_out(&all, 31, &[]).unwrap();
        let count = chosen.iter().filter(|&&c| c).count();
        assert!((31..=32).contains(&count), "{count}");
        assert!(chosen[..80].chunks_exact(2).all(|pair| pair[0] == pair[1]));
        // Which others there are does not change whether a code comes before another.
        let fewer = held_out(&all[..100], 25, &[]).unwrap();
        assert!(fewer.iter().zip(&chosen).filter(|(fewer, _)| **fewer).all(|(_, chosen)| *chosen));
        let first = all.iter().zip(&chosen).find(|(_, chosen)| **chosen).map(|(language, _)| language.code.clone()).unwrap();
        let spared = held_out(&all, 31, std::slice::from_ref(&first)).unwrap();
        assert!(all.iter().zip(&spared).all(|(language, held_out)| !held_out || language.code != first));
        assert!(held_out(&all, 31, &["nowhere".to_owned()]).unwrap_err().to_string().contains("nowhere"));
        assert!(held_out(&all, 120, &[]).unwrap_err().to_string().contains("120"));
        assert!(held_out(&all, 0, &[]).unwrap().iter().all(|chosen| !chosen));
    }

    #[test]
    fn named_codes_are_held_out_with_their_variants_and_unknown_ones_refused() {
        let all: Vec<Language> = ["a_x", "a_y", "b", "c"].map(language).to_vec();
        let short = [("d_z".to_owned(), "3 of 8 passages or more".to_owned())];
        let of = |codes: &[&str], chosen_on: &[&str]| {
            let owned = |codes: &[&str]| codes.iter().map(|&code| code.to_owned()).collect::<Vec<_>>();
            held_out_codes((&all, &short), &owned(codes), &owned(chosen_on))
        };
        assert_eq!(of(&["a", "d"], &["b"]).unwrap(), [true, true, false, false]);
        assert_eq!(of(&["c"], &[]).unwrap(), [false, false, false, true]);
        let check = |codes: &[&str], chosen_on: &[&str], expected: [&str; 2]| {
            let message = of(codes, chosen_on).unwrap_err().to_string();
            assert!(expected.iter().all(|expected| message.contains(expected)), "{message}");
        };
        check(&["a", "a_x"], &[], ["held-out-codes", "`a_x`"]);
        check(&["zz"], &[], ["held-out-codes", "`zz`"]);
        check(&["a"], &["d"], ["chosen-on", "`d`"]);
        check(&["d"], &[], ["held-out-codes", "none of them"]);
        check(&["a", "b", "c"], &[], ["held-out-codes", "all of them"]);
    }
}
