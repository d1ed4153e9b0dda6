//! What a run of `weft adapter train` has done, kept beside its output until that is written, so that a run which was stopped goes on.
//!
//! The folder `OUTPUT.kept` has a stage each for the adapter of all, the own adapters and their measurements, stamped as stages of `weft run` are
//! (`crate::cache`): a stage is reused if its settings and the content of what it read are the same, and its files are those that it wrote.
//! It is removed when the output is there.

use crate::cache::{self, Completed, StageKey, State};
use crate::config::{AdapterRunConfig, AdapterTaskConfig};
use crate::stages::{read_artifact, read_json, write_artifact, write_json};
use crate::{Error, Monitor, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{Architecture, Digest, Population};
use weft_gen::Artifact;

/// The version of what stages write.
const VERSION: u32 = 3;
/// What stages are called.
const STAGES: [&str; 3] = ["multi-task", "adapters", "rows"];
const ADAPTERS: &str = "adapters.safetensors";
const FIGURES: &str = "figures.json";
/// The tensor in [`ADAPTERS`].
const ROWS: &str = "rows";

/// Stages of one run.
pub(super) struct Kept<'a> {
    folder: PathBuf,
    config: &'a AdapterRunConfig,
    device: String,
    inputs: Vec<(&'static str, Digest)>,
    monitor: &'a Monitor<'a>,
}

impl<'a> Kept<'a> {
    /// Of a run file, whose base has a digest; reads what the run reads beside it, for theirs.
    pub(super) fn new(config: &'a AdapterRunConfig, (device, base): (&str, Digest), monitor: &'a Monitor<'a>) -> Result<Self> {
        let [_, vocabulary] = config.base.paths();
        let mut read = vec![("vocabulary", vocabulary)];
        match &config.task {
            AdapterTaskConfig::Languages(task) => read.push(("texts", task.archive())),
            AdapterTaskConfig::Intents(task) => read.extend(task.files()),
        }
        let mut inputs = vec![("base", base)];
        for (name, path) in read {
            inputs.push((name, cache::digest_of_file(&path)?));
        }
        Ok(Self { folder: folder(&config.run.output), config, device: device.to_owned(), inputs, monitor })
    }

    /// A stage of all runs that read the same and have the same base, adapters, tasks, seed and device.
    pub(super) fn stage(&self, name: &'static str) -> StageKey {
        let AdapterRunConfig { run, lora, task, .. } = self.config;
        let key = StageKey::new(name, name, VERSION).setting("lora", lora).setting("task", task);
        let key = key.setting("seed", &run.seed).setting("device", &self.device);
        self.inputs.iter().fold(key, |key, &(name, digest)| key.input(name, digest))
    }

    /// The adapters of a stage: those that are there, or what is made now.
    pub(super) fn adapters(
        &self,
        key: StageKey,
        architecture: &Arc<Architecture>,
        make: impl FnOnce() -> Result<Population>,
    ) -> Result<(Population, Completed)> {
        match cache::open(&self.folder, key)? {
            State::Fresh(completed) => {
                self.reused(&completed);
                let path = completed.folder.join(ADAPTERS);
                let artifact = read_artifact(&path)?;
                let len = artifact.tensors.get(ROWS).map_or(0, |(_, values)| values.len());
                Ok((Population::new(architecture.clone(), artifact.vector(ROWS, len)?)?, completed))
            }
            State::Stale(running) => {
                let made = make()?;
                write_artifact(&running.folder().join(ADAPTERS), &Artifact::default().with_vector(ROWS, made.data()))?;
                Ok((made, running.complete(&[ADAPTERS])?))
            }
        }
    }

    /// The figures of a stage.
    pub(super) fn figures<T: Serialize + DeserializeOwned>(&self, key: StageKey, make: impl FnOnce() -> Result<T>) -> Result<T> {
        match cache::open(&self.folder, key)? {
            State::Fresh(completed) => {
                self.reused(&completed);
                read_json(&completed.folder.join(FIGURES))
            }
            State::Stale(running) => {
                let made = make()?;
                write_json(&running.folder().join(FIGURES), &made)?;
                running.complete(&[FIGURES])?;
                Ok(made)
            }
        }
    }

    fn reused(&self, completed: &Completed) {
        self.monitor.note(format!("goes on with `{}`, which a run that was stopped left", completed.folder.display()));
    }

    /// Removes the stages, when the output is there, and the folder if nobody put anything else into it.
    pub(super) fn remove(&self) -> Result<()> {
        for part in STAGES.into_iter().chain(["stages"]) {
            let path = self.folder.join(part);
            if path.exists() {
                std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        match std::fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(Error::io("remove", &self.folder)(error)),
            _ => Ok(()),
        }
    }
}

/// The folder beside an output.
fn folder(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".kept");
    output.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use weft_core::families::{Family, Lora, LoraModule};

    fn kept<'a>(config: &'a AdapterRunConfig, monitor: &'a Monitor<'a>) -> Kept<'a> {
        let inputs = vec![("base", Digest::of_bytes(b"base"))];
        Kept { folder: folder(&config.run.output), config, device: "cpu".to_owned(), inputs, monitor }
    }

    #[test]
    fn a_stage_is_made_once_and_again_when_what_it_depends_on_changed() {
        let dir = tempfile::tempdir().unwrap();
        let languages = include_str!("../../../../configs/languages.toml");
        let mut config = AdapterRunConfig::parse(languages, "l.toml", &[]).unwrap();
        config.run.output = dir.path().join("out");
        let module = LoraModule { name: "q".to_owned(), fan_in: 3, fan_out: 2, rank: 1, scaling: 1.0 };
        let architecture = Arc::new(Family::Lora(Lora { modules: vec![module] }).build("tiny").unwrap());
        let (monitor, made) = (Monitor::silent(), Cell::new(0));
        let run = |config: &AdapterRunConfig, recipe: &str| {
            let kept = kept(config, &monitor);
            let make = || {
                made.set(made.get() + 1);
                Ok(Population::new(architecture.clone(), vec![made.get() as f32; 10])?)
            };
            let (adapters, completed) =
                kept.adapters(kept.stage("adapters").setting("recipe", &recipe), &architecture, make).unwrap();
            let of = kept.stage("rows").input("adapters", completed.output);
            (adapters.data().to_vec(), kept.figures(of, || Ok(vec![f64::from(made.get()) / 3.0])).unwrap())
        };
        let first = run(&config, "short");
        assert_eq!((first.0.len(), made.get()), (10, 1));
        assert_eq!(run(&config, "short"), first);
        assert_eq!(made.get(), 1);
        // Another recipe makes other adapters, which are measured anew; another seed or rank does too.
        assert_eq!(run(&config, "long"), (vec![2.0; 10], vec![2.0 / 3.0]));
        config.run.seed += 1;
        assert_eq!(run(&config, "long").0, vec![3.0; 10]);
        config.lora.rank += 1;
        assert_eq!(run(&config, "long").0, vec![4.0; 10]);
        // What is no longer as it was written is made again.
        std::fs::write(dir.path().join("out.kept/adapters").join(ADAPTERS), b"nothing").unwrap();
        assert_eq!(run(&config, "long").0, vec![5.0; 10]);
        // What somebody put there is not ours.
        let foreign = dir.path().join("out.kept/notes.txt");
        std::fs::write(&foreign, "mine").unwrap();
        kept(&config, &monitor).remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("out.kept")).unwrap().count(), 1);
        std::fs::remove_file(foreign).unwrap();
        kept(&config, &monitor).remove().unwrap();
        assert!(!dir.path().join("out.kept").exists());
        assert_eq!(run(&config, "long").0, vec![6.0; 10]);
    }

    #[test]
    fn a_stage_that_failed_leaves_nothing_to_go_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let languages = include_str!("../../../../configs/languages.toml");
        let mut config = AdapterRunConfig::parse(languages, "l.toml", &[]).unwrap();
        config.run.output = dir.path().join("out");
        let monitor = Monitor::silent();
        let kept = kept(&config, &monitor);
        let stopped = || Err::<Vec<f64>, _>(Error::Interrupted { stage: "adapter train" });
        assert!(matches!(kept.figures(kept.stage("rows"), stopped), Err(Error::Interrupted { .. })));
        assert_eq!(kept.figures(kept.stage("rows"), || Ok(vec![1.5])).unwrap(), [1.5]);
    }
}
