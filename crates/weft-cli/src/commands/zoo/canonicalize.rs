//! `weft zoo canonicalize`.

use crate::args::zoo::{Align, By, Canonicalize};
use crate::output::Answer;
use crate::table::{count, plain};
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::{Monitor, config, zoos};

/// Writes a zoo of canonical forms and says what moved.
pub(super) fn canonicalize(arguments: Canonicalize, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Canonicalize { zoo, align, by, data, starts, seed, output } = arguments;
    let align = match align {
        Align::Mean => config::Align::Mean,
        Align::Consistent => config::Align::Consistent,
        Align::Anchor => config::Align::Anchor,
    };
    let by = match by {
        By::Weights => config::By::Weights,
        By::Activations => config::By::Activations,
    };
    let starts = usize::try_from(starts).context("the number of starts")?;
    let done = zoos::canonicalize(&zoos::Canonicalize { zoo, output, align, by, data, starts, seed }, monitor)?;
    // The whole group fills pages; `weft arch show` prints it.
    let mut human = format!("{}\n", plain(done.group.lines().next().unwrap_or_default().trim_end_matches(':')));
    let _ = writeln!(
        human,
        "{} in {}; functions moved by at most {:.1e} ({} proved in f64)",
        count(done.networks, "canonical network"),
        done.zoo.display(),
        done.max_deviation,
        done.proven_in_f64,
    );
    if done.duplicates > 0 {
        let _ = writeln!(human, "{} of an orbit that was there already", count(done.duplicates, "network"));
    }
    if done.ill_conditioned > 0 {
        let _ = writeln!(human, "{} that weights leave open", count(done.ill_conditioned, "choice"));
    }
    if let Some([raw, canonical]) = done.distance {
        let _ = writeln!(
            human,
            "distance of two training runs over their norm: {:.4} ± {:.4} raw, {:.4} ± {:.4} canonical",
            raw.mean, raw.se, canonical.mean, canonical.se,
        );
    }
    Ok(Answer { human, json: serde_json::to_value(&done).context("a canonicalization")?, done: true })
}
