//! Adapters compared, encoded, decoded and merged.

use crate::args::adapter::space::{Decode, Encode, Merge, Method, Per, Space};
use crate::output::Answer;
use crate::table::{count, table};
use anyhow::Context as _;
use clap::ValueEnum as _;
use std::fmt::Write as _;
use weft::Monitor;
use weft::adapters::codec::{self, CodecView, Codes, DecodeRequest, Rank};
use weft::adapters::merge::{self, MergeRequest, WrittenView};
use weft::adapters::zoo::{self, GramView};

/// Adapters whose cosines are printed as a matrix.
const MATRIX: usize = 12;
/// The part of an update's entries that is kept where it is not said, as the papers have it.
const TIES_DENSITY: f64 = 0.2;
const DARE_DENSITY: f64 = 0.5;
/// The place between two adapters where it is not said.
const SLERP_T: f64 = 0.5;

pub(super) fn dispatch(command: Space, monitor: &Monitor) -> anyhow::Result<Answer> {
    match command {
        Space::Gram { folder } => {
            let view = zoo::gram(&folder, monitor)?;
            Ok(Answer { human: compared(&view), json: serde_json::to_value(&view).context("a comparison")?, done: true })
        }
        Space::Encode(arguments) => encode(arguments, monitor),
        Space::Decode(arguments) => decode(arguments, monitor),
        Space::Merge(arguments) => merge(arguments, monitor),
    }
}

fn compared(view: &GramView) -> String {
    let n = view.adapters.len();
    let mut text = format!("{} of {}", count(n, "adapter"), count(view.modules, "module"));
    let _ = writeln!(text, "{}", view.base.as_ref().map_or_else(String::new, |base| format!(", base `{base}`")));
    if n > 0 {
        text.push('\n');
        let others = |i: usize| (0..n).filter(move |&j| j != i);
        let header: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let mut header: Vec<&str> = header.iter().map(String::as_str).collect();
        let fixed = ["", "adapter", "norm"];
        if n > MATRIX {
            header = vec!["nearest", "cosine", "mean cosine"];
        }
        let row = |i: usize| {
            let cosines = &view.cosines[i];
            let mut row = vec![i.to_string(), view.adapters[i].clone(), format!("{:.4}", view.norms[i])];
            if n <= MATRIX {
                row.extend(cosines.iter().map(|c| format!("{c:.3}")));
            } else if let Some(nearest) = others(i).max_by(|&a, &b| cosines[a].total_cmp(&cosines[b])) {
                let mean = others(i).map(|j| cosines[j]).sum::<f64>() / (n - 1) as f64;
                row.extend([view.adapters[nearest].clone(), format!("{:.3}", cosines[nearest]), format!("{mean:.3}")]);
            }
            row
        };
        text.push_str(&table(&[&fixed[..], &header].concat(), &(0..n).map(row).collect::<Vec<_>>()));
    }
    for (one, other) in &view.same {
        let _ = writeln!(text, "the same update: `{one}` and `{other}`, but for its size");
    }
    say(&mut text, &view.notes);
    text
}

fn say(text: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
}

fn encode(arguments: Encode, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Encode { folder, rank, keep, per, output } = arguments;
    let rank = keep.map(Rank::KeptVariance).or(rank.map(Rank::Fixed));
    let per = match per {
        Per::Adapter => codec::Per::Adapter,
        Per::Module => codec::Per::Module,
    };
    let view = codec::encode(&folder, (per, rank), &output, monitor)?;
    Ok(Answer { human: encoded(&view), json: serde_json::to_value(&view).context("a codec")?, done: true })
}

fn encoded(view: &CodecView) -> String {
    let of = count(view.adapters.len(), "adapter");
    let mut text = format!(
        "{}: codes of {} for {of} of {}, components of each {}; they keep {:.2} % of the variance\n",
        view.codec.display(),
        count(view.code_len, "number"),
        count(view.modules, "module"),
        view.per,
        view.kept_variance * 100.0
    );
    say(&mut text, &view.notes);
    text
}

fn decode(arguments: Decode, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Decode { codec, codes, rank, adapters, output } = arguments;
    let codes = match codes.file {
        Some(file) => Codes::File(file),
        None if codes.mean => Codes::Mean,
        None => Codes::Of(codes.adapter),
    };
    let view = codec::decode(&DecodeRequest { codec, adapters, codes, rank, output }, monitor)?;
    written(&view)
}

fn merge(arguments: Merge, monitor: &Monitor) -> anyhow::Result<Answer> {
    refuse_unread(&arguments)?;
    let Merge { adapters, method, weights, density, scale, t, rank, seed, output } = arguments;
    let (scale, t, seed) = (scale.unwrap_or(1.0), t.unwrap_or(SLERP_T), seed.unwrap_or(0));
    let method = match method {
        Method::Mean => merge::Method::Mean,
        Method::Linear => merge::Method::Linear,
        Method::TaskArithmetic => merge::Method::TaskArithmetic { scale },
        Method::Ties => merge::Method::Ties { density: density.unwrap_or(TIES_DENSITY), scale },
        Method::DareLinear => merge::Method::DareLinear { density: density.unwrap_or(DARE_DENSITY), scale },
        Method::DareTies => merge::Method::DareTies { density: density.unwrap_or(DARE_DENSITY), scale },
        Method::Slerp => merge::Method::Slerp { t },
        Method::Knots => merge::Method::Knots { density, scale },
    };
    written(&merge::merge(&MergeRequest { adapters, method, weights, rank, seed, output }, monitor)?)
}

/// Refuses options that the method does not read: whoever gives one means something by it.
fn refuse_unread(merge: &Merge) -> anyhow::Result<()> {
    let method = merge.method;
    let dare = matches!(method, Method::DareLinear | Method::DareTies);
    let kept = dare || matches!(method, Method::Ties | Method::Knots);
    let given = [
        ("--density", merge.density.is_some(), kept, "ties, dare-linear, dare-ties and knots do"),
        (
            "--scale",
            merge.scale.is_some(),
            kept || method == Method::TaskArithmetic,
            "task-arithmetic, ties, dare-linear, dare-ties and knots do",
        ),
        ("--t", merge.t.is_some(), method == Method::Slerp, "slerp does"),
        ("--weights", merge.weights.is_some(), method != Method::Slerp, "all but slerp do, which has `--t`"),
        ("--seed", merge.seed.is_some(), dare, "dare-linear and dare-ties do"),
    ];
    let unread = given.into_iter().find(|(_, given, read, _)| *given && !read);
    let Some((option, _, _, readers)) = unread else { return Ok(()) };
    let name = method.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    anyhow::bail!("`{option}` is not read by the method `{name}`; {readers}")
}

fn written(view: &WrittenView) -> anyhow::Result<Answer> {
    let mut human = String::new();
    for (path, lost) in view.written.iter().zip(&view.lost) {
        let _ = writeln!(human, "{}: rank {}, truncation lost {:.3} % of the energy", path.display(), view.rank, lost * 100.0);
    }
    say(&mut human, &view.notes);
    Ok(Answer { human, json: serde_json::to_value(view).context("what was written")?, done: true })
}
