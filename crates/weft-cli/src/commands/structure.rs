//! The part of `weft zoo stats` on structure.

use crate::args;
use crate::table::{count, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::report::data::Estimate;
use weft::structure::{Structure, StructureRequest, TensorSpectrum, ZooStructure};
use weft::{Error, Monitor};

/// Measures, adds the figures to the text for people, and gives them as JSON; null where there are too few networks.
pub(super) fn measure(arguments: args::zoo::ZooStats, human: &mut String, monitor: &Monitor) -> anyhow::Result<serde_json::Value> {
    let args::zoo::ZooStats { zoo, data, sample, seed } = arguments;
    if sample == 0 {
        return Ok(serde_json::Value::Null);
    }
    match weft::structure::measure(&StructureRequest { zoo, data, sample, seed }, monitor) {
        Ok(found) => {
            describe(human, &found);
            serde_json::to_value(&found).context("a zoo's structure")
        }
        Err(error @ Error::Range { .. }) => {
            let _ = writeln!(human, "\nstructure was not measured: {error}");
            Ok(serde_json::Value::Null)
        }
        Err(error) => Err(error.into()),
    }
}

fn describe(human: &mut String, found: &ZooStructure) {
    let on = found.dataset.as_ref().map_or_else(String::new, |name| format!(", on {name}"));
    let runs = count(found.num_runs, "training run");
    let _ = writeln!(human, "\nstructure of {} of {runs}{on} (± one standard error)", count(found.num_sampled, "network"));
    if let Some(reason) = &found.not_canonical {
        let _ = writeln!(human, "no canonical form: {reason}");
    }
    let forms: Vec<&Structure> = std::iter::once(&found.raw).chain(&found.canonical).collect();
    let row = |name: &str, pick: &dyn Fn(&Structure) -> Option<String>| {
        let cells = forms.iter().map(|form| pick(form).unwrap_or_else(|| "–".to_owned()));
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let mut rows = vec![
        row("median distance of two networks", &|s| Some(plus_minus(s.pairwise, 3))),
        row("  control: to the mean network", &|s| Some(plus_minus(s.to_mean, 3))),
    ];
    if found.dataset.is_some() {
        rows.push(row("accuracy", &|s| s.accuracy.map(|e| plus_minus(e, 4))));
        rows.push(row("  control: of the mean network", &|s| s.mean_accuracy.map(|a| format!("{a:.4}"))));
        rows.push(row("loss barrier, nats", &|s| s.barrier.map(|e| plus_minus(e, 4))));
        rows.push(row("accuracy half-way", &|s| {
            let path = s.path.as_ref()?;
            path.accuracy.get(path.lambda.len() / 2).map(|&e| plus_minus(e, 4))
        }));
    }
    let header: Vec<&str> = ["", "as stored", "canonical"].into_iter().take(forms.len() + 1).collect();
    human.push_str(&table(&header, &rows));
    for (name, form) in ["as stored", "canonical"].into_iter().zip(&forms) {
        let _ = writeln!(human, "\neffective rank, {name}");
        human.push_str(&table(&SPECTRUM, &form.spectra.iter().map(spectrum).collect::<Vec<_>>()));
    }
    if !found.sharpness.is_empty() {
        let _ = writeln!(human, "\nsharpness, {}", count(found.num_sharp, "network"));
        let row = |p: &weft::structure::SharpnessPoint| {
            vec![p.scale.to_string(), plus_minus(p.loss_increase, 4), plus_minus(p.accuracy_decrease, 4)]
        };
        let header = ["relative noise", "loss increase, nats", "accuracy decrease"];
        human.push_str(&table(&header, &found.sharpness.iter().map(row).collect::<Vec<_>>()));
    }
}

/// The columns of [`spectrum`].
const SPECTRUM: [&str; 9] =
    ["tensor", "shape", "participation", "shuffled", "entropy", "shuffled", "90 %/99 %", "of", "random basis keeps"];

fn spectrum(s: &TensorSpectrum) -> Vec<String> {
    let shape = s.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
    vec![
        s.name.clone(),
        shape,
        plus_minus(s.dimension.participation_ratio, 1),
        plus_minus(s.shuffled.participation_ratio, 1),
        plus_minus(s.dimension.entropy_rank, 1),
        plus_minus(s.shuffled.entropy_rank, 1),
        format!("{}/{}", s.dimension.components_90, s.dimension.components_99),
        s.max_rank.to_string(),
        plus_minus(s.random_basis, 3),
    ]
}

fn plus_minus(e: Estimate, decimals: usize) -> String {
    format!("{:.decimals$} ± {:.decimals$}", e.mean, e.se)
}
