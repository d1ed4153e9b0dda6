//! What a runtime would refuse in an adapter, or leave out without a word.
//!
//! Each rule repeats a check, or the lack of one, in the runtime's own loader, and names the place:
//!
//! | runtime | what was read |
//! |---|---|
//! | PEFT | `PeftConfigMixin.from_peft_type` (unknown settings), `check_target_module_exists`, `set_peft_model_state_dict` (`strict=False`) |
//! | vLLM | 0.32 `vllm/lora/peft_helper.py` (`_validate_features`, `validate_legal`, `get_rank_and_scaling`), `lora_model.py` (`check_unexpected_modules`), `utils.py` (`parse_fine_tuned_lora_name`) |
//! | llama.cpp | `convert_lora_to_gguf.py` (`get_tensors`: names that are no factor end it; `lora_alpha` alone is read) |
//! | kohya | `networks/lora.py` (`create_network_from_weights`, `load_state_dict(…, False)`: names that fit nothing are left out) |

use super::base::BaseModel;
use super::read::{AdapterFile, AdapterNaming, PEFT_CONFIG};
use super::write::AdapterProfile;
use super::{AdapterFault, AdapterUpdate, WholeTensor, parts};
use crate::source::AdapterKind;
use crate::{Error, Result, read_bounded};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The largest rank that vLLM takes where the server does not say another (`--max-lora-rank`).
pub const VLLM_DEFAULT_RANK: usize = 16;

/// The version of vLLM, major and minor, from which on ranks and scalings are read from patterns.
const VLLM_READS_PATTERNS: [u32; 2] = [0, 32];

/// The longest settings that are read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The settings of `LoraConfig` in PEFT 0.3; an older version than the one that wrote others may refuse these.
const OLD_SETTINGS: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "peft_version",
];

/// What loads adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    /// The PEFT library.
    Peft,
    /// vLLM.
    Vllm,
    /// llama.cpp, through its converter.
    LlamaCpp,
    /// kohya's scripts, and the programs that read their files.
    Kohya,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Peft, Self::Vllm, Self::LlamaCpp, Self::Kohya];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Vllm => "vllm",
            Self::LlamaCpp => "llama.cpp",
            Self::Kohya => "kohya",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The runtime refuses the adapter.
    Refused,
    /// The runtime loads it, and something of it is left out or computed wrongly without a word.
    Silent,
    /// It depends on the server or on the version.
    Depends,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Depends => "depends",
        }
    }
}

/// Something that a runtime would do with an adapter and that its owner may not expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose.
    pub runtime: Runtime,
    /// How bad it is.
    pub severity: Severity,
    /// The rule's name.
    pub rule: &'static str,
    /// What there is and what becomes of it.
    pub what: String,
    /// The profile that mends it, if one does.
    pub fix: Option<AdapterProfile>,
}

/// What is known of the place where an adapter is to be loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LintOptions<'a> {
    /// The base.
    pub base: Option<&'a BaseModel>,
    /// vLLM's `--max-lora-rank`; [`VLLM_DEFAULT_RANK`] where it is not said.
    pub max_lora_rank: Option<usize>,
    /// vLLM's version, major and minor; what depends on it is said to do so where it is not known.
    pub vllm_version: Option<[u32; 2]>,
}

/// What each runtime would refuse or leave out, in the order of `runtimes`; nothing if all is well.
///
/// # Errors
/// [`Error::Adapter`] for settings of PEFT that cannot be read again.
pub fn lint(file: &AdapterFile, runtimes: &[Runtime], options: &LintOptions<'_>) -> Result<Vec<Finding>> {
    let settings = settings(file)?;
    let mut findings = Vec::new();
    for &runtime in runtimes {
        let mut subject = Subject { file, settings: settings.as_ref(), options, runtime, findings: Vec::new() };
        match runtime {
            Runtime::Peft => subject.peft(),
            Runtime::Vllm => subject.vllm(),
            Runtime::LlamaCpp => subject.llama_cpp(),
            Runtime::Kohya => subject.kohya(),
        }
        subject.findings.sort_by_key(|finding| finding.severity);
        findings.append(&mut subject.findings);
    }
    Ok(findings)
}

/// The settings of a folder of PEFT.
fn settings(file: &AdapterFile) -> Result<Option<Map<String, Value>>> {
    if file.naming != AdapterNaming::Peft {
        return Ok(None);
    }
    let Some(path) = file.files.iter().find(|path| path.ends_with(PEFT_CONFIG)) else { return Ok(None) };
    let bytes = read_bounded(path, MAX_CONFIG_BYTES)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Json { what: "`adapter_config.json`", reason: error.to_string() })
}

/// An adapter before a runtime.
struct Subject<'a> {
    file: &'a AdapterFile,
    settings: Option<&'a Map<String, Value>>,
    options: &'a LintOptions<'a>,
    runtime: Runtime,
    findings: Vec<Finding>,
}

impl Subject<'_> {
    fn updates(&self) -> &[AdapterUpdate] {
        &self.file.weights.updates
    }

    fn find(&mut self, severity: Severity, rule: &'static str, what: String, fix: Option<AdapterProfile>) {
        self.findings.push(Finding { runtime: self.runtime, severity, rule, what, fix });
    }

    /// Names the modules for which something holds; nothing if there is none.
    fn modules(&self, holds: impl Fn(&AdapterUpdate) -> bool) -> Option<String> {
        let names: Vec<&str> = self.updates().iter().filter(|u| holds(u)).map(|u| u.module.as_str()).collect();
        list(&names)
    }

    /// The profile that mends scalings, ranks and settings, unless something stands in its way.
    fn portable(&self) -> Option<AdapterProfile> {
        self.file.weights.portable_rank().is_ok().then_some(AdapterProfile::Portable)
    }

    /// Whether the folder is one of PEFT; if not, that is the finding.
    fn is_peft(&mut self) -> bool {
        if self.file.naming == AdapterNaming::Peft {
            return true;
        }
        let what = format!("the names are {}'s; a folder with `{PEFT_CONFIG}` is read", self.file.naming.name());
        let fix = self.portable();
        self.find(Severity::Refused, "naming", what, fix);
        false
    }

    fn peft(&mut self) {
        if !self.is_peft() {
            return;
        }
        let Some(settings) = self.settings else { return };
        let newer: Vec<&str> = settings.keys().map(String::as_str).filter(|key| !OLD_SETTINGS.contains(key)).collect();
        if let Some(names) = list(&newer) {
            let what = format!("settings that PEFT 0.3 did not know, which older versions refuse: {names}");
            self.find(Severity::Depends, "settings", what, self.portable());
        }
        let own: Vec<&str> = self.file.weights.updates.iter().map(|update| update.module.as_str()).collect();
        if let Some(targets) = targets(settings) {
            let left_out: Vec<&str> = own.iter().copied().filter(|module| !chosen(module, &targets)).collect();
            if let Some(names) = list(&left_out) {
                let what = format!("`target_modules` does not choose modules that the file has; PEFT leaves them out: {names}");
                self.find(Severity::Silent, "target-modules", what, self.portable());
            }
            let prefix = self.options.base.and_then(|base| Some((base, base.check(&self.file.weights, true).ok()?)));
            if let Some((base, prefix)) = prefix {
                let names: Vec<String> = base.modules().keys().filter_map(|module| prefix.undo(module)).collect();
                let empty: Vec<&str> =
                    names.iter().map(String::as_str).filter(|name| chosen(name, &targets) && !own.contains(name)).collect();
                if let Some(names) = list(&empty) {
                    let what = format!(
                        "`target_modules` chooses modules that the file has no factors for; PEFT keeps them zero, and warns in newer versions: {names}"
                    );
                    self.find(Severity::Silent, "target-modules", what, self.portable());
                }
            }
        }
        self.base();
    }

    fn vllm(&mut self) {
        if !self.is_peft() {
            return;
        }
        let Some(settings) = self.settings else { return };
        let missing: Vec<&str> =
            ["r", "lora_alpha", "target_modules"].into_iter().filter(|key| !settings.contains_key(*key)).collect();
        if let Some(names) = list(&missing) {
            self.find(Severity::Refused, "settings", format!("required settings are missing: {names}"), self.portable());
        }
        if let Some(bias) = settings.get("bias").and_then(Value::as_str).filter(|bias| *bias != "none") {
            self.find(Severity::Refused, "bias", format!("`bias` is `{bias}` and must be `none`"), None);
        }
        self.more_than_factors(
            "vLLM does not support DoRA",
            "`modules_to_save` must be empty, and a tensor that is no factor is refused",
        );
        if let Some(names) = self.modules(|u| u.kind == AdapterKind::Conv) {
            self.find(
                Severity::Refused,
                "convolution",
                format!("linear maps and embeddings are updated, not convolutions: {names}"),
                None,
            );
        }
        if let Some(names) = self.modules(|u| u.kind == AdapterKind::Embedding) {
            let what = format!("embeddings are updated only in models that declare them, with the base's vocabulary: {names}");
            self.find(Severity::Depends, "embedding", what, None);
        }
        let limit = self.options.max_lora_rank.unwrap_or(VLLM_DEFAULT_RANK);
        let largest = self.updates().iter().map(|u| u.rank).max().unwrap_or(0);
        if largest > limit {
            let said = if self.options.max_lora_rank.is_some() { "" } else { ", the server's default" };
            let what = format!("rank {largest} is above `--max-lora-rank` {limit}{said}; start the server with a larger one");
            self.find(Severity::Refused, "rank", what, None);
        }
        self.vllm_patterns(settings);
        self.base();
    }

    /// `PEFTHelper.get_rank_and_scaling` reads patterns as PEFT does; before, there was `vllm_lora_scaling_factor` for all modules.
    fn vllm_patterns(&mut self, settings: &Map<String, Value>) {
        let severity = match self.options.vllm_version {
            Some(version) if version >= VLLM_READS_PATTERNS => return,
            Some(_) => Severity::Silent,
            None => Severity::Depends,
        };
        let declared = rank(settings);
        if let Some(names) = self.modules(|u| u.rank != declared) {
            let what = format!("ranks other than `r` = {declared} are not read from `rank_pattern` before vLLM 0.32: {names}");
            self.find(Severity::Depends, "rank-pattern", what, self.portable());
        }
        let root = |rank: f64| if flag(settings, "use_rslora") { rank.sqrt() } else { rank };
        let why = "`lora_alpha` and `r` alone are read before vLLM 0.32";
        self.scaling(severity, alpha(settings) / root(declared as f64), |_, theirs| theirs, why);
    }

    fn llama_cpp(&mut self) {
        if !self.is_peft() {
            return;
        }
        let Some(settings) = self.settings else { return };
        self.more_than_factors(
            "the converter ends at magnitudes",
            "the converter ends at tensors that are no factors, norms excepted",
        );
        if let Some(names) = self.modules(|u| u.kind == AdapterKind::Conv) {
            self.find(Severity::Refused, "convolution", format!("factors have two axes there: {names}"), None);
        }
        let tied = self.options.base.is_some_and(BaseModel::is_tied);
        let head = self.modules(|u| u.module.ends_with("lm_head"));
        if let Some(names) = head.filter(|_| tied) {
            let what = format!("the base's output layer is its embedding and has no update: {names}");
            self.find(Severity::Refused, "tied-head", what, None);
        }
        if let Some(names) = self.modules(|u| u.kind == AdapterKind::Embedding).filter(|_| tied) {
            let what = format!("the base's output layer is its embedding, and an update of both ends the program: {names}");
            self.find(Severity::Refused, "tied-embedding", what, None);
        }
        // The program divides the file's alpha by each pair's own rank.
        let why = "`lora_alpha` alone is read, and divided by each rank";
        self.scaling(Severity::Silent, alpha(settings), |u, alpha| alpha / u.rank as f64, why);
        self.base();
    }

    fn kohya(&mut self) {
        let pipeline = |module: &str| super::flat::flatten(module, true).is_some();
        let plain = self.updates().iter().all(|u| pipeline(&u.module) && u.kind != AdapterKind::Embedding);
        let fix = Some(AdapterProfile::Kohya).filter(|_| plain && self.file.weights.portable_rank().is_ok());
        if self.file.naming != AdapterNaming::Kohya {
            let what = format!("the names are {}'s; names that fit nothing are left out, here all", self.file.naming.name());
            self.find(Severity::Silent, "naming", what, fix.filter(|_| self.file.weights.whole.is_empty()));
        }
        if let Some(names) = self.modules(|u| !pipeline(&u.module)) {
            self.find(Severity::Silent, "modules", format!("modules of no part of an image pipeline: {names}"), None);
        }
        self.more_than_factors(
            "`dora_scale` fits nothing and is left out",
            "tensors that are no factors fit nothing and are left out",
        );
        if let Some(names) = self.modules(|u| parts::is_original(&u.module)).filter(|_| self.file.naming == AdapterNaming::Kohya) {
            let what = format!(
                "names of the original UNet: the SDXL scripts and most programs read them, diffusers converts them: {names}"
            );
            self.find(Severity::Depends, "original-names", what, None);
        }
    }

    /// Magnitudes, biases and whole tensors.
    fn more_than_factors(&mut self, dora: &str, whole: &str) {
        let severity = if self.runtime == Runtime::Kohya { Severity::Silent } else { Severity::Refused };
        if let Some(names) = self.modules(AdapterUpdate::is_dora) {
            // With the base's weights a magnitude may go: the conversion says it.
            let fix = self.options.base.map(|_| AdapterProfile::Portable).filter(|_| self.runtime != Runtime::Kohya);
            self.find(severity, "dora", format!("{dora}: {names}"), fix);
        }
        if let Some(names) = self.modules(|u| u.b_bias.is_some()) {
            self.find(severity, "lora-bias", format!("biases of the second factor are not read: {names}"), None);
        }
        // vLLM and the converter pass over `….base_layer.weight`.
        let kept = |tensor: &&WholeTensor| self.runtime == Runtime::Kohya || !tensor.is_base_layer();
        let tensors: Vec<&str> = self.file.weights.whole.iter().filter(kept).map(|tensor| tensor.name.as_str()).collect();
        let norm = |name: &&str| self.runtime == Runtime::LlamaCpp && (name.contains("_layernorm") || name.contains(".norm"));
        let tensors: Vec<&str> = tensors.into_iter().filter(|name| !norm(name)).collect();
        if let Some(names) = list(&tensors) {
            self.find(severity, "whole-tensors", format!("{whole}: {names}"), None);
        }
    }

    /// Modules that get another scaling than they were trained with.
    fn scaling(&mut self, severity: Severity, of: f64, theirs: impl Fn(&AdapterUpdate, f64) -> f64, why: &str) {
        let differs = |u: &AdapterUpdate| (theirs(u, of) - u.scaling).abs() > 1e-6 * u.scaling.abs();
        let Some(first) = self.updates().iter().find(|u| differs(u)) else { return };
        let example = format!("`{}` gets {:.4} for {:.4}", first.module, theirs(first, of), first.scaling);
        let number = self.updates().iter().filter(|u| differs(u)).count();
        let what = format!("{why}: {number} of {} modules get another scaling, such as {example}", self.updates().len());
        self.find(severity, "scaling", what, self.portable());
    }

    /// Whether the base is another.
    fn base(&mut self) {
        let Some(base) = self.options.base else { return };
        match base.check(&self.file.weights, false) {
            Ok(_) => {}
            Err(fault @ AdapterFault::OtherBase { .. }) => self.find(Severity::Depends, "base", fault.to_string(), None),
            Err(fault) => self.find(Severity::Refused, "base", fault.to_string(), None),
        }
    }
}

/// Some names, and how many more.
fn list(names: &[&str]) -> Option<String> {
    let shown: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    (!names.is_empty()).then(|| shown.join(", ") + &more)
}

/// The names of `target_modules`, where it is a list: an expression or `all-linear` is for the library to say.
fn targets(settings: &Map<String, Value>) -> Option<BTreeSet<&str>> {
    settings.get("target_modules")?.as_array().map(|names| names.iter().filter_map(Value::as_str).collect())
}

/// Whether PEFT would update a module: its name stands there, or its end behind a dot.
fn chosen(module: &str, targets: &BTreeSet<&str>) -> bool {
    targets.contains(module) || module.match_indices('.').any(|(dot, _)| targets.contains(&module[dot + 1..]))
}

fn rank(settings: &Map<String, Value>) -> usize {
    settings.get("r").and_then(Value::as_u64).map_or(8, |rank| rank as usize)
}

fn alpha(settings: &Map<String, Value>) -> f64 {
    settings.get("lora_alpha").and_then(Value::as_f64).unwrap_or(8.0)
}

fn flag(settings: &Map<String, Value>, key: &str) -> bool {
    settings.get(key).and_then(Value::as_bool).unwrap_or(false)
}
