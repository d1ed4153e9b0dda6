//! `weft arch …`.

use crate::args;
use crate::output::Answer;
use crate::table::{count, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;
use weft::arch::{self, ArchitectureView, CheckView, FamilyView, InstanceView, OpView, TensorView};

pub(super) fn dispatch(command: args::arch::Arch) -> anyhow::Result<Answer> {
    match command {
        args::arch::Arch::Ls => list(),
        args::arch::Arch::Show { architecture } => show(&architecture),
        args::arch::Arch::Check { file, architecture } => {
            let view = arch::check(&file, &architecture)?;
            Ok(Answer { human: fitted(&view), json: serde_json::to_value(&view).context("a check")?, done: true })
        }
        args::arch::Arch::Infer(arguments) => infer(arguments),
    }
}

fn list() -> anyhow::Result<Answer> {
    let known = arch::list()?;
    let family = |f: &FamilyView| vec![f.name.to_owned(), f.summary.to_owned(), f.sizes.join(", ")];
    let mut human = table(&["family", "", "sizes"], &known.families.iter().map(family).collect::<Vec<_>>());
    human.push('\n');
    let row = |a: &InstanceView| vec![a.name.clone(), a.family.to_owned(), a.num_parameters.to_string(), a.summary.clone()];
    let rows: Vec<_> = known.architectures.iter().map(row).collect();
    human.push_str(&table(&["architecture", "family", "parameters", ""], &rows));
    Ok(Answer { human, json: serde_json::to_value(&known).context("a list of architectures")?, done: true })
}

fn show(architecture: &Path) -> anyhow::Result<Answer> {
    let view = arch::show(architecture)?;
    Ok(Answer { human: described(&view), json: serde_json::to_value(&view).context("an architecture")?, done: true })
}

/// An extent after the other, as papers write them.
fn shape(extents: &[usize]) -> String {
    if extents.is_empty() { "1".to_owned() } else { extents.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ") }
}

fn described(view: &ArchitectureView) -> String {
    let mut text = format!("{}: {}\n\n", view.name, count(view.num_parameters, "parameter"));
    let tensor = |t: &TensorView| vec![t.name.clone(), shape(&t.shape)];
    text.push_str(&table(&["tensor", "shape"], &view.tensors.iter().map(tensor).collect::<Vec<_>>()));
    text.push('\n');
    let op = |(i, op): (usize, &OpView)| {
        let of = op.of.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        vec![i.to_string(), op.kind.to_owned(), of, shape(&op.shape), op.tensors.join(", ")]
    };
    let ops: Vec<_> = view.ops.iter().enumerate().map(op).collect();
    text.push_str(&table(&["", "op", "of", "output", "tensors"], &ops));
    if !view.spaces.is_empty() {
        text.push('\n');
        let spaces: Vec<_> = view.spaces.iter().map(|s| vec![s.name.clone(), s.size.to_string()]).collect();
        text.push_str(&table(&["space", "units"], &spaces));
    }
    let _ = writeln!(text, "\n{}", view.group);
    text
}

fn fitted(view: &CheckView) -> String {
    let mut text = format!(
        "{}: {} in {}, `{}`; names: {}\n",
        view.file.display(),
        count(view.networks, "network"),
        view.format,
        view.architecture,
        view.naming
    );
    for (what, names) in [("repeats another", &view.repeated), ("no weights", &view.ignored)] {
        for name in names {
            let _ = writeln!(text, "{what}: {name}");
        }
    }
    text
}

fn infer(arguments: args::arch::Infer) -> anyhow::Result<Answer> {
    let activation = arguments.activation.map(|word| word.parse()).transpose().map_err(weft::Error::Core)?;
    let args::arch::Infer { file, output, name, heads: num_heads, image, .. } = arguments;
    let image = image.map(|image| [image.height, image.width]);
    let view = arch::infer(&file, &arch::Hints { name, activation, num_heads, image })?;
    let mut human = fitted(&view.check);
    let _ = writeln!(human, "family: {}, {}", view.family, count(view.num_parameters, "parameter"));
    for note in &view.notes {
        let _ = writeln!(human, "note: {note}");
    }
    match &output {
        Some(path) => {
            arch::write(path, &view.toml)?;
            let _ = writeln!(human, "written: {}", path.display());
        }
        None => {
            let _ = write!(human, "\n{}", view.toml);
        }
    }
    Ok(Answer { human, json: serde_json::to_value(&view).context("an inferred architecture")?, done: true })
}
