//! `weft adapter …`.

mod base;
mod generate;
mod learn;
mod space;
mod train;

use crate::args;
use crate::output::Answer;
use crate::table::{count, plain, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::Monitor;
use weft::adapters::{
    self, AdapterProfile, AdapterView, BaseChoice, Convert, ConvertView, Deploy, DeployView, Engine, FindingView, Import,
    ImportView, Lint, LintView, ModuleView, Runtime,
};

/// The variable that holds the key of a server.
const API_KEY: &str = "WEFT_API_KEY";

pub(super) fn dispatch(command: args::adapter::Adapter, monitor: &Monitor) -> anyhow::Result<Answer> {
    match command {
        args::adapter::Adapter::Space(command) => space::dispatch(command, monitor),
        args::adapter::Adapter::Train { run, settings } => train::train(&run, &settings, monitor),
        args::adapter::Adapter::Learn(arguments) => learn::learn(arguments, monitor),
        args::adapter::Adapter::Generate(arguments) => generate::generate(arguments, monitor),
        args::adapter::Adapter::Base(arguments) => base::export(arguments),
        args::adapter::Adapter::Logits(arguments) => base::logits(arguments),
        args::adapter::Adapter::Show { adapter, base } => {
            let view = adapters::show(&adapter, &choice(base))?;
            Ok(Answer { human: shown(&view), json: serde_json::to_value(&view).context("an adapter")?, done: true })
        }
        args::adapter::Adapter::Import { adapters, output, base, skip_bad } => {
            let view = adapters::import(&Import { inputs: adapters, output, base: choice(base), skip_bad }, monitor)?;
            Ok(Answer { human: imported(&view), json: serde_json::to_value(&view).context("imported adapters")?, done: true })
        }
        args::adapter::Adapter::Convert(arguments) => {
            let view = adapters::convert(&Convert {
                input: arguments.adapter,
                output: arguments.output,
                profile: profile(&arguments.profile)?,
                base: choice(arguments.base),
                component: arguments.component,
                rotary: arguments.rotary.as_deref().and_then(adapters::rotary_from_name),
            })?;
            Ok(Answer { human: converted(&view), json: serde_json::to_value(&view).context("a conversion")?, done: true })
        }
        args::adapter::Adapter::Lint(arguments) => {
            let named = |name: &String| Runtime::ALL.into_iter().find(|runtime| runtime.name() == name);
            let view = adapters::lint(&Lint {
                path: arguments.adapter,
                runtimes: arguments.runtimes.iter().filter_map(named).collect(),
                base: choice(arguments.base),
                max_lora_rank: arguments.max_lora_rank,
                fix: arguments.output,
            })?;
            Ok(Answer { human: linted(&view), json: serde_json::to_value(&view).context("a list of faults")?, done: view.sound })
        }
        args::adapter::Adapter::Deploy(arguments) => {
            let view = adapters::deploy(&Deploy {
                folder: arguments.adapter,
                to: Engine::parse(&arguments.to),
                name: arguments.name,
                replace: arguments.replace,
                ask: arguments.ask,
                allow_remote: arguments.allow_remote,
                timeout_secs: arguments.timeout,
                api_key: std::env::var(API_KEY).ok().filter(|key| !key.is_empty()),
            })?;
            Ok(Answer { human: deployed(&view), json: serde_json::to_value(&view).context("a deployment")?, done: true })
        }
    }
}

fn choice(base: args::adapter::Base) -> BaseChoice {
    BaseChoice { folder: base.base, name: base.base_name }
}

fn profile(name: &str) -> anyhow::Result<AdapterProfile> {
    AdapterProfile::ALL.into_iter().find(|profile| profile.name() == name).context("a profile")
}

fn notes(text: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "note: {}", plain(note));
    }
}

fn shown(view: &AdapterView) -> String {
    let base = view.base.as_deref().map_or_else(|| "a base that it does not name".to_owned(), |base| format!("`{}`", plain(base)));
    let mut text =
        format!("{}: {} of {base}, names of {}\n", view.path.display(), count(view.modules.len(), "update"), view.naming);
    let ranks: Vec<String> = view.ranks.iter().map(|(rank, modules)| format!("{rank} ({})", count(*modules, "module"))).collect();
    let _ = writeln!(text, "{}, ranks: {}; licence: {}\n", count(view.num_values, "value"), ranks.join(", "), plain(&view.licence));
    let row = |m: &ModuleView| {
        let mark = match (m.zero, m.dora) {
            (true, _) => "zero",
            (_, true) => "DoRA",
            _ => "",
        };
        let shape = format!("{} × {}", m.fan_out, m.fan_in);
        let norm = format!("{:.4}", m.norm);
        vec![m.module.clone(), m.kind.to_owned(), shape, m.rank.to_string(), format!("{}", m.scaling), norm, mark.to_owned()]
    };
    let rows: Vec<_> = view.modules.iter().map(row).collect();
    text.push_str(&table(&["module", "kind", "shape", "rank", "scaling", "norm", ""], &rows));
    if !view.whole.is_empty() {
        let _ = writeln!(text, "\nwhole tensors: {}", plain(&view.whole.join(", ")));
    }
    notes(&mut text, &view.notes);
    text
}

fn imported(view: &ImportView) -> String {
    let base = view.base.as_deref().map_or_else(|| "a base that they do not name".to_owned(), |base| format!("`{}`", plain(base)));
    let (adapters, modules) = (count(view.adapters.len(), "adapter"), count(view.modules, "module"));
    let mut text =
        format!("{}: {adapters} of {base}, {modules} each, {}\n", view.output.display(), count(view.num_values, "value"));
    for bad in &view.bad {
        let _ = writeln!(text, "left out `{}`: {}", plain(&bad.path.display().to_string()), plain(&bad.reason));
    }
    notes(&mut text, &view.notes);
    text
}

fn converted(view: &ConvertView) -> String {
    let mut text = format!("{}: {}, {}\n", view.output.display(), view.profile, count(view.modules, "module"));
    notes(&mut text, &view.notes);
    text
}

fn linted(view: &LintView) -> String {
    let mut text = String::new();
    if view.findings.is_empty() {
        let _ = writeln!(text, "{}: nothing is refused and nothing is left out", view.path.display());
    }
    findings(&mut text, &view.findings);
    if let Some(fixed) = &view.fixed {
        text.push_str("\nfixed: ");
        text.push_str(&converted(fixed));
        findings(&mut text, &view.remaining);
    } else if view.findings.iter().any(|finding| finding.fix.is_some()) {
        text.push_str("\n`--fix -o DIR` writes an adapter without what can be mended\n");
    }
    text
}

fn findings(text: &mut String, findings: &[FindingView]) {
    for FindingView { runtime, severity, rule, what, fix } in findings {
        let fix = fix.map_or_else(String::new, |fix| format!(" [fix: {fix}]"));
        let _ = writeln!(text, "{runtime}: {severity}: {} ({rule}){fix}", plain(what));
    }
}

fn deployed(view: &DeployView) -> String {
    let mut text = format!("{} is served as `{}`\n", view.target, view.name);
    if view.calls.is_empty() {
        text = format!("{} holds `{}`\n", view.target, view.name);
    }
    for call in &view.calls {
        let _ = writeln!(text, "  {}: {}", call.call, call.status);
    }
    notes(&mut text, &view.notes);
    text
}
