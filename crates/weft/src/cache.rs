//! Which stages are out of date.
//!
//! Every stage owns one folder of a run's output. When it is complete, and only then, `stages/NAME.toml` beside
//! the folders says so: the stage's version, the slice of the run file that it depends on, the digests of what
//! it read, and the digests of the files that it wrote. A later run reuses a folder whose stamp has the key
//! that it would write itself, and whose files have these digests. Because a stage's inputs enter its key by
//! their *content*, a stage that ran again and came to the same bytes does not drag its successors along.
//!
//! A stage that is killed leaves no stamp but `stages/NAME.in-progress.toml` with its key: the same stage may
//! then go on from what lies in its folder, another one starts on an empty folder. A folder that has neither is
//! not ours and is never touched.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use weft_core::Digest;

/// The folder of stamps in a run's output.
const STAMPS: &str = "stages";

/// What a stage is, for the purpose of deciding whether it must run.
#[derive(Debug, Clone)]
pub(crate) struct StageKey {
    name: &'static str,
    folder: &'static str,
    version: u32,
    config: toml::Table,
    inputs: BTreeMap<String, Digest>,
}

impl StageKey {
    /// The key of version `version` of a stage's code, which writes into `folder`, without settings or inputs.
    #[must_use]
    pub(crate) fn new(name: &'static str, folder: &'static str, version: u32) -> Self {
        Self { name, folder, version, config: toml::Table::new(), inputs: BTreeMap::new() }
    }

    /// Adds a part of the run file.
    ///
    /// # Panics
    /// Never, for the types of [`crate::config`]: all have a TOML form.
    #[must_use]
    pub(crate) fn setting(mut self, name: &str, value: &impl Serialize) -> Self {
        let value = toml::Value::try_from(value).expect("every part of a run file has a TOML form");
        self.config.insert(name.to_owned(), value);
        self
    }

    /// Adds something that the stage reads.
    #[must_use]
    pub(crate) fn input(mut self, name: &str, digest: Digest) -> Self {
        self.inputs.insert(name.to_owned(), digest);
        self
    }

    /// The digest of all of it.
    #[must_use]
    pub(crate) fn digest(&self) -> Digest {
        let config = toml::to_string(&self.config).unwrap_or_default();
        let version = self.version.to_le_bytes();
        let inputs: Vec<_> = self.inputs.iter().flat_map(|(name, digest)| [name.as_bytes(), digest.as_bytes()]).collect();
        let own = [self.name.as_bytes(), version.as_slice(), config.as_bytes()];
        Digest::of_parts(own.into_iter().chain(inputs))
    }
}

/// The record of a complete stage, as it lies on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StampFile {
    stage: String,
    version: u32,
    weft: String,
    key: String,
    output: String,
    wall_secs: f64,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    config: toml::Table,
}

/// A complete stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Completed {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The digest of what it wrote: the input digest of later stages.
    pub(crate) output: Digest,
    /// How long it took, in seconds, when it ran.
    pub(crate) wall_secs: f64,
}

/// Whether a stage must run.
#[derive(Debug)]
pub(crate) enum State {
    /// It is complete and unchanged.
    Fresh(Completed),
    /// It must run, or go on.
    Stale(Running),
}

/// A stage that has begun.
#[derive(Debug)]
pub(crate) struct Running {
    key: StageKey,
    paths: Paths,
    resumes: bool,
    since: Instant,
}

/// Looks at a stage's folder in a run's output, and prepares it if the stage must run.
///
/// # Errors
/// [`Error::Foreign`] if the folder holds something that no stage wrote; [`Error::Io`].
pub(crate) fn open(output: &Path, key: StageKey) -> Result<State> {
    if let Some(completed) = completed(output, &key)? {
        return Ok(State::Fresh(completed));
    }
    let paths = Paths::new(output, &key);
    let resumes = read_optional(&paths.in_progress)?.is_some_and(|text| text.contains(&key.digest().to_string()));
    if !resumes {
        paths.clear()?;
        for folder in [&paths.folder, &output.join(STAMPS)] {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let text = format!("stage = \"{}\"\nkey = \"{}\"\n", key.name, key.digest());
        weft_zoo::write_atomic(&paths.in_progress, text.as_bytes())?;
    }
    Ok(State::Stale(Running { key, paths, resumes, since: Instant::now() }))
}

/// The complete stage of this key in a run's output, if its files are those that it wrote.
///
/// # Errors
/// [`Error::Io`] if the stamp cannot be read.
pub(crate) fn completed(output: &Path, key: &StageKey) -> Result<Option<Completed>> {
    let paths = Paths::new(output, key);
    let Some(stamp) = read_optional(&paths.stamp)?.and_then(|text| toml::from_str::<StampFile>(&text).ok()) else {
        return Ok(None);
    };
    let unchanged = stamp.key == key.digest().to_string();
    Ok(if unchanged { stamp.whole(paths.folder) } else { None })
}

/// A complete stage of another run, whatever its settings, and the digest of the data that it read, if it did.
///
/// # Errors
/// [`Error::NotRun`] if it is not complete, or its files are no longer those that it wrote; [`Error::Io`].
pub(crate) fn complete_stage(output: &Path, (name, folder): (&'static str, &'static str)) -> Result<(Completed, Option<Digest>)> {
    let stamp = read_optional(&output.join(STAMPS).join(format!("{name}.toml")))?;
    let stamp = stamp.and_then(|text| toml::from_str::<StampFile>(&text).ok());
    let data = stamp.as_ref().and_then(|stamp| stamp.inputs.get("data")?.parse().ok());
    let completed = stamp.and_then(|stamp| stamp.whole(output.join(folder)));
    let completed = completed.ok_or_else(|| Error::NotRun { output: output.to_owned(), stage: name })?;
    Ok((completed, data))
}

impl StampFile {
    /// The complete stage in this folder, if its files are those that it wrote.
    fn whole(self, folder: PathBuf) -> Option<Completed> {
        let output = self.output.parse().ok()?;
        let is_whole =
            |(name, digest): (&String, &String)| digest_of_file(&folder.join(name)).is_ok_and(|d| d.to_string() == *digest);
        self.files.iter().all(is_whole).then_some(Completed { folder, output, wall_secs: self.wall_secs })
    }
}

impl Running {
    /// The stage's folder.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        &self.paths.folder
    }

    /// Whether it goes on from what an interrupted run of the same stage left.
    #[must_use]
    pub(crate) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Seals the stage: digests its files and writes the stamp, last of all.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or the stamp cannot be written.
    pub(crate) fn complete(self, files: &[&str]) -> Result<Completed> {
        self.seal(files, None)
    }

    /// As [`Running::complete`], with a digest of the output that does not depend on how it is stored.
    ///
    /// # Errors
    /// As [`Running::complete`].
    pub(crate) fn complete_as(self, files: &[&str], output: Digest) -> Result<Completed> {
        self.seal(files, Some(output))
    }

    fn seal(self, files: &[&str], output: Option<Digest>) -> Result<Completed> {
        let mut digests = BTreeMap::new();
        for &name in files {
            digests.insert(name.to_owned(), digest_of_file(&self.paths.folder.join(name))?);
        }
        let of_files = || Digest::of_parts(digests.iter().flat_map(|(name, d)| [name.as_bytes(), d.as_bytes().as_slice()]));
        let output = output.unwrap_or_else(of_files);
        let wall_secs = self.since.elapsed().as_secs_f64();
        let stamp = StampFile {
            stage: self.key.name.to_owned(),
            version: self.key.version,
            weft: env!("CARGO_PKG_VERSION").to_owned(),
            key: self.key.digest().to_string(),
            output: output.to_string(),
            wall_secs,
            inputs: self.key.inputs.iter().map(|(name, d)| (name.clone(), d.to_string())).collect(),
            files: digests.iter().map(|(name, d)| (name.clone(), d.to_string())).collect(),
            config: self.key.config.clone(),
        };
        let text = toml::to_string(&stamp).expect("a stamp has a TOML form");
        weft_zoo::write_atomic(&self.paths.stamp, text.as_bytes())?;
        std::fs::remove_file(&self.paths.in_progress).map_err(Error::io("remove", &self.paths.in_progress))?;
        Ok(Completed { folder: self.paths.folder, output, wall_secs })
    }
}

/// Where a stage and its marks lie.
#[derive(Debug)]
struct Paths {
    folder: PathBuf,
    stamp: PathBuf,
    in_progress: PathBuf,
}

impl Paths {
    fn new(output: &Path, key: &StageKey) -> Self {
        let mark = |ending: &str| output.join(STAMPS).join(format!("{}{ending}", key.name));
        Self { folder: output.join(key.folder), stamp: mark(".toml"), in_progress: mark(".in-progress.toml") }
    }

    /// Removes a folder that a stage wrote, its marks last, so that a kill in between leaves it recognizable.
    fn clear(&self) -> Result<()> {
        let is_ours = self.stamp.exists() || self.in_progress.exists();
        let mut entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("list", &self.folder)(e)),
        };
        if entries.next().is_none() {
            return Ok(());
        }
        if !is_ours {
            return Err(Error::Foreign { path: self.folder.clone() });
        }
        std::fs::remove_dir_all(&self.folder).map_err(Error::io("remove", &self.folder))?;
        for mark in [&self.stamp, &self.in_progress] {
            match std::fs::remove_file(mark) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", mark)(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// The digest of a file's bytes.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub(crate) fn digest_of_file(path: &Path) -> Result<Digest> {
    let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut file, &mut hasher).map_err(Error::io("read", path))?;
    hasher.finalize().to_hex().parse().map_err(Error::Core)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(version: u32, rank: usize, input: &[u8]) -> StageKey {
        StageKey::new("encode", "codec", version).setting("rank", &rank).input("zoo", Digest::of_bytes(input))
    }

    fn run(output: &Path, key: StageKey) -> Completed {
        let State::Stale(running) = open(output, key).unwrap() else { panic!("the stage should run") };
        std::fs::write(running.folder().join("codec.bin"), b"codes").unwrap();
        running.complete(&["codec.bin"]).unwrap()
    }

    fn is_fresh(output: &Path, key: &StageKey) -> bool {
        completed(output, key).unwrap().is_some()
    }

    #[test]
    fn an_unchanged_stage_is_reused_and_a_changed_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = run(dir.path(), key(1, 8, b"zoo"));
        let State::Fresh(again) = open(dir.path(), key(1, 8, b"zoo")).unwrap() else { panic!("it should be reused") };
        assert_eq!(again, first);
        for changed in
            [key(2, 8, b"zoo"), key(1, 9, b"zoo"), key(1, 8, b"another zoo"), key(1, 8, b"zoo").input("data", first.output)]
        {
            assert!(!is_fresh(dir.path(), &changed));
        }
    }

    #[test]
    fn a_changed_or_missing_file_is_found_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let file = run(dir.path(), key(1, 8, b"zoo")).folder.join("codec.bin");
        for damage in [Some(b"coded".as_slice()), None] {
            match damage {
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            assert!(!is_fresh(dir.path(), &key(1, 8, b"zoo")));
            run(dir.path(), key(1, 8, b"zoo"));
        }
    }

    #[test]
    fn equal_bytes_have_equal_output_digests_whatever_made_them() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(run(a.path(), key(1, 8, b"x")).output, run(b.path(), key(2, 9, b"y")).output);
    }

    #[test]
    fn a_killed_stage_goes_on_and_another_one_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("codec/state.bin");
        let stale = |key| match open(dir.path(), key).unwrap() {
            State::Stale(running) => running,
            State::Fresh(_) => panic!("the stage should run"),
        };
        assert!(!stale(key(1, 8, b"zoo")).resumes());
        std::fs::write(&state, b"half").unwrap();
        assert!(stale(key(1, 8, b"zoo")).resumes() && state.exists());
        assert!(!stale(key(1, 9, b"zoo")).resumes() && !state.exists());
        assert!(!is_fresh(dir.path(), &key(1, 9, b"zoo")));
    }

    #[test]
    fn a_folder_that_is_not_ours_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let thesis = dir.path().join("codec/thesis.tex");
        std::fs::create_dir(dir.path().join("codec")).unwrap();
        std::fs::write(&thesis, b"years of work").unwrap();
        assert!(matches!(open(dir.path(), key(1, 8, b"zoo")), Err(Error::Foreign { .. })));
        assert!(thesis.exists());
    }
}
