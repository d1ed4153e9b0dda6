//! A folder of adapters that share a base model and the modules that they update.

use crate::{Error, Monitor, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use weft_codec::adapter::{AdapterSet, Adapters, Factors, Grams, Module};
use weft_core::products::Products;
use weft_core::{Digest, RopePairs, Sha256};
use weft_zoo::adapter::{AdapterParent, AdapterUpdate, AdapterWeights, licence_beside, rotary_in, same_base};
use weft_zoo::{Adapter, AdapterKind, AdapterModule, Source};

/// The file that makes a folder an adapter.
const CONFIG: &str = "adapter_config.json";
/// Bytes of factors that are read before mapped pages are given back.
const RELEASE_BYTES: u64 = 256 << 20;
/// Adapters of which fewer let a codec do no more than interpolate.
const FEW: usize = 8;
/// The entry of metadata that says what PEFT's classes call the task.
pub(super) const TASK_TYPE: &str = "task_type";
/// Cosines above which two updates count as one by different factors.
const SAME: f64 = 1.0 - 1e-7;

/// Adapters of one base that update the same modules, as folders of PEFT; factors are read when they are asked for.
#[derive(Debug)]
pub struct AdapterZoo {
    base: Option<String>,
    fan_in_fan_out: bool,
    rotary: Option<RopePairs>,
    /// What PEFT's classes call the task, if all that say it say the same.
    task_type: Option<String>,
    modules: Vec<Module>,
    forms: Vec<Form>,
    members: Vec<Member>,
    notes: Vec<String>,
    touched: AtomicU64,
}

/// What a module is, beside its sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    kind: AdapterKind,
    kernel: Vec<usize>,
}

#[derive(Debug)]
struct Member {
    path: PathBuf,
    name: String,
    source: Source,
    updates: Vec<AdapterModule>,
    rotary: Option<RopePairs>,
    sha256: Sha256,
}

impl AdapterZoo {
    /// Opens all adapters of a folder, one a folder in it, in the order of their names.
    ///
    /// Those whose file of weights is another's, byte by byte, are left out, and a note says so. A folder without adapters is a zoo of none.
    ///
    /// # Errors
    /// [`Error::Misfit`] with both named if two have different bases or modules, [`Error::Adapter`] for parts that a low-rank update has
    /// no place for (magnitudes, biases, whole tensors), or what opening a file returns.
    pub fn open(folder: &Path, monitor: &Monitor) -> Result<Self> {
        if folder.join(CONFIG).is_file() {
            let reason = "the folder is an adapter itself; name the one that it lies in".to_owned();
            return Err(Error::Adapter { path: folder.to_owned(), reason });
        }
        let listed = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
        let mut paths =
            listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(Error::io("read", folder))?;
        let all = paths.len();
        paths.retain(|path| path.join(CONFIG).is_file());
        paths.sort();
        let mut zoo = Self::of(&paths, monitor)?;
        if paths.len() < all {
            zoo.notes.push(format!("{} of {all} entries of `{}` are no adapters of PEFT", all - paths.len(), folder.display()));
        }
        zoo.leave_out_copies();
        match zoo.members.len() {
            0 => zoo.notes.push(format!("`{}` has no adapter", folder.display())),
            n if n < FEW => zoo.notes.push(format!("of {n} adapters a codec can only interpolate between these")),
            _ => {}
        }
        Ok(zoo)
    }

    /// Opens adapters, each a folder of PEFT, in the order given.
    ///
    /// # Errors
    /// As [`AdapterZoo::open`].
    pub fn of(paths: &[PathBuf], monitor: &Monitor) -> Result<Self> {
        monitor.start("open adapters", paths.len() as u64, "adapters");
        let done = AtomicU64::new(0);
        let open = |path: &PathBuf| {
            if monitor.should_stop() {
                return Err(Error::Interrupted { stage: "open adapters" });
            }
            let member = Member::open(path)?;
            monitor.progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(member)
        };
        let members = paths.par_iter().map(open).collect::<Result<Vec<_>>>()?;
        monitor.finish();
        let mut zoo = Self {
            base: None,
            fan_in_fan_out: false,
            rotary: None,
            task_type: None,
            modules: Vec::new(),
            forms: Vec::new(),
            members: Vec::new(),
            notes: Vec::new(),
            touched: AtomicU64::new(0),
        };
        let mut said: Vec<&String> = members.iter().filter_map(|member| member.source.metadata().get(TASK_TYPE)).collect();
        said.sort_unstable();
        said.dedup();
        zoo.task_type = said.first().filter(|_| said.len() == 1).map(|said| (*said).clone());
        for member in members {
            zoo.add(member)?;
        }
        Ok(zoo)
    }

    fn add(&mut self, member: Member) -> Result<()> {
        let adapter = member.adapter()?;
        let (modules, forms): (Vec<Module>, Vec<Form>) = member.updates.iter().map(|update| member.module(update)).unzip();
        if let Some(first) = self.members.first() {
            let misfit = |reason| {
                let [what, other] = [&member.path, &first.path].map(|path| format!("adapter `{}`", path.display()));
                Err(Error::Misfit { what, other, reason })
            };
            match (&adapter.base_model, &self.base) {
                (Some(own), Some(base)) if !same_base(own, base) => {
                    return misfit(format!("its base is `{own}`, the other's is `{base}`"));
                }
                _ => {}
            }
            if adapter.fan_in_fan_out != self.fan_in_fan_out {
                return misfit("one of their bases stores its linear maps transposed (`fan_in_fan_out`)".to_owned());
            }
            if let Some(reason) = difference(&modules, &self.modules).or_else(|| of_forms(&modules, &forms, &self.forms)) {
                return misfit(reason);
            }
        } else {
            (self.fan_in_fan_out, self.modules, self.forms) = (adapter.fan_in_fan_out, modules, forms);
        }
        // An adapter that does not say it has that of PEFT, and others are refused one by one.
        self.rotary = self.rotary.or(member.rotary);
        if self.base.is_none() {
            self.base.clone_from(&adapter.base_model);
        }
        self.members.push(member);
        Ok(())
    }

    fn leave_out_copies(&mut self) {
        let mut seen: BTreeMap<([u8; 32], Vec<u64>), String> = BTreeMap::new();
        let mut notes = Vec::new();
        self.members.retain(|member| {
            // The same factors with other scalings are another adapter.
            let key = (member.sha256.0, member.updates.iter().map(|update| update.scaling.to_bits()).collect());
            let first = seen.entry(key).or_insert_with(|| member.name.clone());
            let keep = *first == member.name;
            if !keep {
                notes.push(format!("`{}` has the file of `{first}` and is left out", member.name));
            }
            keep
        });
        self.notes.append(&mut notes);
    }

    /// The base model, as the first adapter that names one does.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The adapters' names: those of their folders.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// What a user should know: copies, entries that are no adapters, too few of them.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The number of values in all factors of all adapters.
    #[must_use]
    pub fn num_values(&self) -> u64 {
        let sides = |at: usize| (self.modules[at].fan_in + self.modules[at].fan_out) as u64;
        let of = |member: &Member| member.updates.iter().enumerate().map(|(at, u)| u.rank as u64 * sides(at)).sum::<u64>();
        self.members.iter().map(of).sum()
    }

    /// The largest rank of an update.
    #[must_use]
    pub fn max_rank(&self) -> usize {
        self.members.iter().flat_map(|member| &member.updates).map(|update| update.rank).max().unwrap_or(0)
    }

    /// What each adapter is as a parent of others: name, digest and licence.
    #[must_use]
    pub fn parents(&self) -> Vec<AdapterParent> {
        let parent = |member: &Member| AdapterParent {
            name: member.name.clone(),
            sha256: member.sha256.to_string(),
            licence: licence_beside(&member.path),
        };
        self.members.iter().map(parent).collect()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.members.iter().map(|member| member.path.as_path())
    }

    pub(super) fn digests(&self) -> impl Iterator<Item = Sha256> {
        self.members.iter().map(|member| member.sha256)
    }

    /// Digests of what the adapters' settings say beside their weights: the scaling of each module.
    pub(super) fn scalings(&self) -> impl Iterator<Item = Digest> {
        let of = |member: &Member| {
            let scaling = |update: &AdapterModule| format!("{} {:e}", update.module, update.scaling);
            Digest::of_bytes(member.updates.iter().map(scaling).collect::<Vec<_>>().join("\n").as_bytes())
        };
        self.members.iter().map(of)
    }

    /// The adapters, with a progress bar of so many reads of each and a look at the wish to stop.
    #[must_use]
    pub fn watched<'a>(&'a self, task: &'static str, passes: u64, monitor: &'a Monitor<'a>) -> Watched<'a> {
        let reads = (self.members.len() * self.modules.len()) as u64 * passes;
        monitor.start(task, reads, "factors");
        Watched { zoo: self, task, monitor, done: Cell::new(0) }
    }

    /// Computes the inner products of all updates.
    ///
    /// # Errors
    /// What reading returns, or [`Error::Interrupted`].
    pub fn grams(&self, on: &dyn Products, monitor: &Monitor) -> Result<Grams> {
        let grams = Grams::of(&self.watched("multiply updates", 1, monitor), on)?;
        monitor.finish();
        Ok(grams)
    }

    /// An adapter of these modules as a file's content.
    ///
    /// # Panics
    /// If `set` has no such adapter or other modules.
    #[must_use]
    pub fn weights_of(&self, set: &AdapterSet, adapter: usize) -> AdapterWeights {
        assert_eq!(set.modules(), self.modules, "the modules of these adapters");
        let update = |((module, form), factors): ((&Module, &Form), &Factors)| AdapterUpdate {
            kind: form.kind,
            kernel: form.kernel.clone(),
            scaling: factors.scaling,
            ..AdapterUpdate::linear(
                &module.name,
                [module.fan_out, factors.rank, module.fan_in],
                factors.a.clone(),
                factors.b.clone(),
            )
        };
        let updates = self.modules.iter().zip(&self.forms).zip(set.adapter(adapter)).map(update).collect();
        let metadata = self.task_type.iter().map(|said| (TASK_TYPE.to_owned(), said.clone())).collect();
        AdapterWeights {
            base: self.base.clone(),
            updates,
            metadata,
            fan_in_fan_out: self.fan_in_fan_out,
            rotary: self.rotary,
            ..AdapterWeights::default()
        }
    }
}

impl Adapters for AdapterZoo {
    type Error = Error;

    fn num_adapters(&self) -> usize {
        self.members.len()
    }

    fn modules(&self) -> &[Module] {
        &self.modules
    }

    fn read(&self, adapter: usize, module: usize) -> Result<Factors> {
        let member = &self.members[adapter];
        let update = &member.updates[module];
        let factors = Factors {
            rank: update.rank,
            scaling: update.scaling,
            b: member.source.read(&update.b)?,
            a: member.source.read(&update.a)?,
        };
        let faulty = [(&factors.b, &update.b), (&factors.a, &update.a)]
            .into_iter()
            .find(|(values, _)| !values.iter().all(|x| x.is_finite()));
        if let Some((_, name)) = faulty {
            let reason = format!("`{name}` holds a value that is not finite");
            return Err(Error::Adapter { path: member.path.clone(), reason });
        }
        let bytes = 4 * (factors.a.len() + factors.b.len()) as u64;
        if self.touched.fetch_add(bytes, Ordering::Relaxed) + bytes > RELEASE_BYTES {
            self.touched.store(0, Ordering::Relaxed);
            self.members.iter().for_each(|member| member.source.release());
        }
        Ok(factors)
    }
}

/// Adapters whose reading is watched.
#[derive(Debug)]
pub struct Watched<'a> {
    zoo: &'a AdapterZoo,
    task: &'static str,
    monitor: &'a Monitor<'a>,
    done: Cell<u64>,
}

impl Adapters for Watched<'_> {
    type Error = Error;

    fn num_adapters(&self) -> usize {
        self.zoo.num_adapters()
    }

    fn modules(&self) -> &[Module] {
        self.zoo.modules()
    }

    fn read(&self, adapter: usize, module: usize) -> Result<Factors> {
        if self.monitor.should_stop() {
            return Err(Error::Interrupted { stage: self.task });
        }
        self.done.set(self.done.get() + 1);
        self.monitor.progress(self.done.get());
        self.zoo.read(adapter, module)
    }
}

impl Member {
    fn open(path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::Adapter { path: path.to_owned(), reason };
        let mut sources = weft_zoo::open_sources(path)?;
        let source = sources.pop().filter(|source| sources.is_empty() && source.adapter().is_some());
        let source =
            source.ok_or_else(|| fail("it is no folder of PEFT; `weft adapter convert --profile peft` makes one".to_owned()))?;
        let adapter = source.adapter().ok_or_else(|| fail("it is no adapter".to_owned()))?;
        if let Some(name) = adapter.replaced.values().next() {
            return Err(fail(format!("it has `{name}` whole, and the space of low-rank updates has no place for that")));
        }
        for update in &adapter.modules {
            let extra = [("a magnitude (DoRA)", &update.magnitude), ("a bias", &update.b_bias)]
                .into_iter()
                .find(|(_, name)| name.is_some());
            if let Some((what, _)) = extra {
                let module = &update.module;
                return Err(fail(format!("module `{module}` has {what}, and the space of low-rank updates has no place for that")));
            }
        }
        let rotary = rotary_in(source.metadata()).map_err(|fault| fault.at(path))?;
        if rotary == Some(RopePairs::Interleaved) {
            let reason = "its rows of queries and keys are in the order of llama2.c; `weft adapter convert --base DIR` brings them into that of Transformers";
            return Err(fail(reason.to_owned()));
        }
        let updates = adapter.modules.clone();
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        let weights = source.files().last().cloned().unwrap_or_else(|| path.to_owned());
        let sha256 = weft_zoo::sha256_of_file(&weights)?;
        Ok(Self { path: path.to_owned(), name, source, updates, rotary, sha256 })
    }

    fn adapter(&self) -> Result<&Adapter> {
        let refused = || Error::Adapter { path: self.path.clone(), reason: "it is no adapter".to_owned() };
        self.source.adapter().ok_or_else(refused)
    }

    fn module(&self, update: &AdapterModule) -> (Module, Form) {
        let (a, b) = (&self.source.tensors()[&update.a].shape, &self.source.tensors()[&update.b].shape);
        let kernel = if update.kind == AdapterKind::Conv { a[2..].to_vec() } else { Vec::new() };
        let module = Module { name: update.module.clone(), fan_out: b[0], fan_in: a[1..].iter().product() };
        (module, Form { kind: update.kind, kernel })
    }
}

/// How lists of modules differ.
pub(super) fn difference(own: &[Module], other: &[Module]) -> Option<String> {
    let missing =
        |of: &[Module], list: &[Module]| of.iter().find(|m| list.iter().all(|o| o.name != m.name)).map(|m| m.name.clone());
    if own == other {
        return None;
    }
    if let Some(name) = missing(own, other) {
        return Some(format!("it updates `{name}`, the other does not"));
    }
    if let Some(name) = missing(other, own) {
        return Some(format!("it does not update `{name}`, the other does"));
    }
    let pair = own.iter().zip(other).find(|(a, b)| a != b)?;
    let say = |m: &Module| format!("{} × {}", m.fan_out, m.fan_in);
    Some(format!("`{}` is {} in it and {} in the other", pair.0.name, say(pair.0), say(pair.1)))
}

fn of_forms(modules: &[Module], own: &[Form], other: &[Form]) -> Option<String> {
    let at = own.iter().zip(other).position(|(a, b)| a != b)?;
    Some(format!("`{}` is another kind of module, or has another kernel", modules[at].name))
}

/// Pairs of adapters with the same update up to its size, by whatever factors, the first of them first.
pub(super) fn same_updates(grams: &Grams) -> Vec<[usize; 2]> {
    let (n, cosines) = (grams.num_adapters(), grams.cosines());
    let pairs = (0..n).flat_map(|i| (0..i).map(move |j| [j, i]));
    pairs.filter(|[j, i]| cosines[i * n + j] > SAME).collect()
}

/// How the adapters of a zoo lie to each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GramView {
    /// The base model.
    pub base: Option<String>,
    /// The adapters' names.
    pub adapters: Vec<String>,
    /// The number of modules that each updates.
    pub modules: usize,
    /// `‖ΔW‖` of each, over all modules.
    pub norms: Vec<f64>,
    /// The cosines of their updates, a row an adapter; 0 where an update is zero.
    pub cosines: Vec<Vec<f64>>,
    /// Pairs with the same update up to its size, by whatever factors.
    pub same: Vec<(String, String)>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Compares the adapters of a folder by their updates.
///
/// # Errors
/// As [`AdapterZoo::open`], or [`Error::Interrupted`].
pub fn gram(folder: &Path, monitor: &Monitor) -> Result<GramView> {
    let zoo = AdapterZoo::open(folder, monitor)?;
    let grams = zoo.grams(&weft_core::products::Here, monitor)?;
    Ok(GramView::new(&zoo, &grams))
}

impl GramView {
    /// The view of products that were computed.
    #[must_use]
    pub fn new(zoo: &AdapterZoo, grams: &Grams) -> Self {
        let n = grams.num_adapters();
        let (total, cosines) = (grams.total(), grams.cosines());
        let adapters: Vec<String> = zoo.names().map(ToOwned::to_owned).collect();
        let same = same_updates(grams).into_iter().map(|[i, j]| (adapters[i].clone(), adapters[j].clone())).collect();
        let zero = (0..n).filter(|&i| total[i * n + i] <= 0.0).map(|i| format!("the updates of `{}` are zero", adapters[i]));
        Self {
            base: zoo.base().map(ToOwned::to_owned),
            modules: zoo.modules().len(),
            norms: (0..n).map(|i| total[i * n + i].max(0.0).sqrt()).collect(),
            cosines: cosines.chunks(n.max(1)).map(<[f64]>::to_vec).collect(),
            same,
            notes: zoo.notes().iter().cloned().chain(zero).collect(),
            adapters,
        }
    }
}
