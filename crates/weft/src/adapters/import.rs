//! Adapters that were trained elsewhere, as one folder of them over one base.

use super::zoo::difference;
use super::{BaseChoice, is_synthetic, parent, read};
use crate::zoos::FileFault;
use crate::{Error, Monitor, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_codec::adapter::Module;
use weft_zoo::adapter::{
    AdapterExport, AdapterFile, AdapterNaming, AdapterParent, AdapterProfile, AdapterProvenance, AdapterUpdate, AdapterWeights,
    BaseModel, same_base,
};

/// Files that make a folder an adapter: PEFT's and diffusers'.
const MARKS: [&str; 2] = ["adapter_config.json", "pytorch_lora_weights.safetensors"];
/// Folders above an adapter that may be in its name.
const ABOVE: usize = 4;
/// The most adapters of one folder.
const MOST: usize = 100_000;

/// What to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Adapters, or folders of adapters.
    pub inputs: Vec<PathBuf>,
    /// The folder to write, with one of PEFT for each; it must not be there.
    pub output: PathBuf,
    /// The base that all are checked against.
    pub base: BaseChoice,
    /// Whether adapters that are unsound, or do not fit the first sound one, are left out and told; else they are errors.
    pub skip_bad: bool,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImportView {
    /// The folder.
    pub output: PathBuf,
    /// The base that they name.
    pub base: Option<String>,
    /// Their names, in order.
    pub adapters: Vec<String>,
    /// Modules that each updates.
    pub modules: usize,
    /// The number of values of all.
    pub num_values: usize,
    /// Adapters that were left out as bad ones, if that was asked for.
    pub bad: Vec<FileFault>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Writes adapters of whatever naming as folders of PEFT beside each other: all of one base and of the same modules, each once, or nothing.
///
/// An adapter is called as its folder or file is; of several that are called alike, as all `checkpoint-500` are, the folders above tell them apart.
///
/// # Errors
/// Nothing to import, one that is given twice, an adapter that is unsound, of another base, or with other modules or shapes than the first, both
/// named; something at the output; or a stop. With [`Import::skip_bad`], bad adapters are errors only if there are no others; then the first is.
pub fn import(import: &Import, monitor: &Monitor) -> Result<ImportView> {
    weft_zoo::refuse_existing(&import.output)?;
    let base = import.base.open()?;
    let (found, mut notes) = find(&import.inputs)?;
    let (mut made, mut bad) = (Imported::default(), Vec::new());
    monitor.start("import adapters", found.len() as u64, "adapters");
    weft_zoo::write_folder(&import.output, |folder| -> Result<()> {
        for (done, (name, path)) in found.iter().enumerate() {
            if monitor.should_stop() {
                return Err(Error::Interrupted { stage: "import adapters" });
            }
            monitor.progress(done as u64);
            let (mut file, parent, same) = match taken(&mut made, (name, path), base.as_ref()) {
                Ok(taken) => taken,
                Err(error) if import.skip_bad => {
                    bad.push((path, error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(note) = same {
                notes.push(note);
                continue;
            }
            let configuration = format!("weft adapter import {}", path.display());
            let synthetic = is_synthetic(&file.weights);
            let provenance = AdapterProvenance { parents: vec![parent], configuration, synthetic, ..AdapterProvenance::default() };
            let of_pipeline = file.naming != AdapterNaming::Peft;
            let profile = AdapterProfile::Peft;
            let export = AdapterExport { profile, base: base.as_ref(), component: None, of_pipeline, provenance: &provenance };
            file.notes.extend(beyond_updates(&file.weights));
            let said = file.notes.into_iter().chain(file.weights.write(&export, &folder.join(name))?);
            notes.extend(said.map(|note| format!("`{name}`: {note}")));
        }
        if made.names.is_empty() && !bad.is_empty() {
            return Err(bad.swap_remove(0).1);
        }
        Ok(())
    })?;
    monitor.progress(found.len() as u64);
    monitor.finish();
    let Imported { first, names, num_values, .. } = made;
    let (base, modules) = first.map_or((None, 0), |first| (first.base, first.modules.len()));
    let bad = bad.into_iter().map(|(path, error)| FileFault { path: path.clone(), reason: whole_reason(&error) }).collect();
    Ok(ImportView { output: import.output.clone(), base, adapters: names, modules, num_values, bad, notes })
}

/// An error with all that caused it.
fn whole_reason(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// Reads an adapter and takes it in, or says whose file it has.
fn taken(
    made: &mut Imported,
    (name, path): (&str, &Path),
    base: Option<&BaseModel>,
) -> Result<(AdapterFile, AdapterParent, Option<String>)> {
    let mut file = read(path, base)?;
    file.weights.base = file.weights.base.or_else(|| base.map(|base| base.name().to_owned()));
    let parent = parent(&file)?;
    let same = made.add(name, &file, &parent.sha256)?;
    Ok((file, parent, same))
}

/// What an adapter has that the space of low-rank updates has no place for.
fn beyond_updates(weights: &AdapterWeights) -> Option<String> {
    let what = [
        (weights.updates.iter().any(AdapterUpdate::is_dora), "magnitudes (DoRA)"),
        (weights.updates.iter().any(|update| update.b_bias.is_some()), "biases of `B`"),
        (!weights.whole.is_empty(), "whole tensors (`modules_to_save`)"),
    ];
    let what: Vec<&str> = what.into_iter().filter(|(has, _)| *has).map(|(_, what)| what).collect();
    let refuses = "`gram`, `encode`, `merge` and `learn` refuse it; `weft adapter convert --base DIR` makes magnitudes plain";
    (!what.is_empty()).then(|| format!("it has {}: {refuses}", what.join(" and ")))
}

/// What the first adapter says that all others must agree with.
struct First {
    path: PathBuf,
    base: Option<String>,
    modules: Vec<Module>,
}

#[derive(Default)]
struct Imported {
    first: Option<First>,
    names: Vec<String>,
    num_values: usize,
    /// Names by the digest of the weights and the scalings.
    seen: BTreeMap<(String, Vec<u64>), String>,
}

impl Imported {
    /// Takes an adapter in, or says why it is left out.
    fn add(&mut self, name: &str, file: &AdapterFile, sha256: &str) -> Result<Option<String>> {
        let weights = &file.weights;
        let module =
            |update: &AdapterUpdate| Module { name: update.module.clone(), fan_out: update.fan_out, fan_in: update.fan_in };
        let mut modules: Vec<Module> = weights.updates.iter().map(module).collect();
        modules.sort_by(|a, b| a.name.cmp(&b.name));
        match &self.first {
            None => self.first = Some(First { path: file.path.clone(), base: weights.base.clone(), modules }),
            Some(first) => {
                if let Some(reason) = first.differs(weights.base.as_deref(), &modules) {
                    let [what, other] = [&file.path, &first.path].map(|path| format!("adapter `{}`", path.display()));
                    return Err(Error::Misfit { what, other, reason });
                }
            }
        }
        let scalings = weights.updates.iter().map(|update| update.scaling.to_bits()).collect();
        let key = (sha256.to_owned(), scalings);
        if let Some(same) = self.seen.get(&key) {
            return Ok(Some(format!("`{name}` has the file of `{same}` and is left out")));
        }
        self.seen.insert(key, name.to_owned());
        self.names.push(name.to_owned());
        self.num_values += weights.num_values();
        Ok(None)
    }
}

impl First {
    /// How another adapter differs.
    fn differs(&self, base: Option<&str>, modules: &[Module]) -> Option<String> {
        match (base, &self.base) {
            (Some(own), Some(first)) if !same_base(own, first) => Some(format!("its base is `{own}`, the other's is `{first}`")),
            _ => difference(modules, &self.modules),
        }
    }
}

/// Adapters with their names, and what is to be said of what is none.
fn find(inputs: &[PathBuf]) -> Result<(BTreeMap<String, PathBuf>, Vec<String>)> {
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for input in inputs {
        if is_adapter(input) || !input.is_dir() {
            found.push(input.clone());
            continue;
        }
        let listed = std::fs::read_dir(input).map_err(Error::io("read", input))?.take(MOST + 1);
        let mut paths =
            listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(Error::io("read", input))?;
        if paths.len() > MOST {
            let (expected, got) = (format!("at most {MOST} in `{}`", input.display()), "more".to_owned());
            return Err(Error::Range { what: "the number of adapters", expected, got });
        }
        let all = paths.len();
        paths.retain(|path| is_adapter(path));
        paths.sort();
        if paths.len() < all {
            notes.push(format!("{} of {all} entries of `{}` are no adapters", all - paths.len(), input.display()));
        }
        found.extend(paths);
    }
    if found.is_empty() {
        let expected = "folders of PEFT or diffusers, or files of safetensors".to_owned();
        return Err(Error::Range { what: "adapters to import", expected, got: "none".to_owned() });
    }
    Ok((named(found)?, notes))
}

fn is_adapter(path: &Path) -> bool {
    let is_file = path.extension().is_some_and(|extension| extension == "safetensors") && path.is_file();
    is_file || MARKS.iter().any(|mark| path.join(mark).is_file())
}

/// Names adapters by their folders, or by their files without what these end in; those that would be called alike by the folders above as well, up
/// to where they differ.
fn named(mut paths: Vec<PathBuf>) -> Result<BTreeMap<String, PathBuf>> {
    let mut names = BTreeMap::new();
    for above in 0..=ABOVE {
        let mut alike: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in std::mem::take(&mut paths) {
            alike.entry(called(&path, above)).or_default().push(path);
        }
        for (name, mut those) in alike {
            match those.pop() {
                Some(path) if those.is_empty() && !names.contains_key(&name) => {
                    names.insert(name, path);
                }
                last => paths.extend(those.into_iter().chain(last)),
            }
        }
        if paths.is_empty() {
            return Ok(names);
        }
    }
    let (name, expected) = (called(&paths[0], 0), "a name of its own for each".to_owned());
    let other = paths.get(1).or_else(|| names.get(&called(&paths[0], ABOVE))).unwrap_or(&paths[0]);
    let got = format!("`{name}` for `{}` and `{}`", paths[0].display(), other.display());
    Err(Error::Range { what: "the adapters' names", expected, got })
}

/// What an adapter is called with so many of the folders above it.
fn called(path: &Path, above: usize) -> String {
    let own = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let folders = path.ancestors().skip(1).map_while(Path::file_name).take(above);
    let mut parts: Vec<String> = own.into_iter().chain(folders).map(|part| part.to_string_lossy().into_owned()).collect();
    parts.reverse();
    if parts.is_empty() { "adapter".to_owned() } else { parts.join("-") }
}
