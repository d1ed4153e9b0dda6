//! What runtimes refuse in an adapter or leave out, and the fix.

use super::{BaseChoice, Convert, ConvertView, write};
use crate::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;
use weft_zoo::adapter::{AdapterFile, AdapterProfile, AdapterWeights, BaseModel, LintOptions, Runtime, Severity};

/// An adapter and the runtimes that should load it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lint {
    /// The adapter.
    pub path: PathBuf,
    /// Whose rules.
    pub runtimes: Vec<Runtime>,
    /// The base.
    pub base: BaseChoice,
    /// vLLM's `--max-lora-rank`, if it is not the default.
    pub max_lora_rank: Option<usize>,
    /// Where the mended adapter goes, if one is wanted.
    pub fix: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LintView {
    /// The adapter.
    pub path: PathBuf,
    /// By runtime, the worst first.
    pub findings: Vec<FindingView>,
    /// What was written.
    pub fixed: Option<ConvertView>,
    /// What is found in the mended adapter.
    pub remaining: Vec<FindingView>,
    /// Whether every runtime loads all of it, after the fix if there was one; what depends on a server or a version is no fault.
    pub sound: bool,
}

/// Something that a runtime refuses or leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FindingView {
    /// Whose.
    pub runtime: &'static str,
    /// `refused`, `silent` or `depends`.
    pub severity: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// What there is and what becomes of it.
    pub what: String,
    /// The profile that mends it.
    pub fix: Option<&'static str>,
}

/// Says what each runtime would refuse or leave out, and writes what mends it.
///
/// # Errors
/// The adapter is unsound, or the fix cannot be written.
pub fn lint(lint: &Lint) -> Result<LintView> {
    let base = lint.base.open()?;
    let file = AdapterWeights::read(&lint.path, base.as_ref())?;
    let findings = find(&file, lint, base.as_ref())?;
    let mut view = LintView {
        path: lint.path.clone(),
        sound: is_sound(&findings),
        findings: findings.iter().map(FindingView::of).collect(),
        fixed: None,
        remaining: Vec::new(),
    };
    let Some(output) = &lint.fix else { return Ok(view) };
    let profile = [AdapterProfile::Portable, AdapterProfile::Kohya].into_iter();
    let Some(profile) = profile.into_iter().find(|profile| findings.iter().any(|finding| finding.fix == Some(*profile))) else {
        return if findings.is_empty() { Ok(view) } else { Err(Error::NoFix { path: lint.path.clone() }) };
    };
    let convert = Convert {
        input: lint.path.clone(),
        output: output.clone(),
        profile,
        base: lint.base.clone(),
        component: None,
        rotary: None,
    };
    view.fixed = Some(write(&file, base.as_ref(), &convert)?);
    let mended = AdapterWeights::read(output, base.as_ref())?;
    let remaining = find(&mended, lint, base.as_ref())?;
    view.sound = is_sound(&remaining);
    view.remaining = remaining.iter().map(FindingView::of).collect();
    Ok(view)
}

fn find(file: &AdapterFile, lint: &Lint, base: Option<&BaseModel>) -> Result<Vec<weft_zoo::adapter::Finding>> {
    let options = LintOptions { base, max_lora_rank: lint.max_lora_rank, vllm_version: None };
    Ok(weft_zoo::adapter::lint(file, &lint.runtimes, &options)?)
}

fn is_sound(findings: &[weft_zoo::adapter::Finding]) -> bool {
    findings.iter().all(|finding| finding.severity == Severity::Depends)
}

impl FindingView {
    fn of(finding: &weft_zoo::adapter::Finding) -> Self {
        Self {
            runtime: finding.runtime.name(),
            severity: finding.severity.name(),
            rule: finding.rule,
            what: finding.what.clone(),
            fix: finding.fix.map(AdapterProfile::name),
        }
    }
}
