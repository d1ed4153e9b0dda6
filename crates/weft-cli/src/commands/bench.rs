//! `weft bench`.

use crate::args::Bench;
use crate::output::Answer;
use crate::table::table;
use anyhow::Context as _;
use weft::Monitor;
use weft::bench::{Figure, Options};

pub(super) fn bench(arguments: &Bench, monitor: &Monitor) -> anyhow::Result<Answer> {
    let device = arguments.device.parse().map_err(anyhow::Error::msg).context("--device")?;
    let options = Options { device, quick: arguments.quick, peer: arguments.peer.is_some(), only: arguments.only.clone() };
    let figures = weft::bench::run(&options, monitor)?;
    let row = |f: &Figure| vec![f.name.clone(), format!("{:.4}", f.value), f.unit.to_owned(), f.note.clone()];
    let human = table(&["measurement", "value", "unit", ""], &figures.iter().map(row).collect::<Vec<_>>());
    Ok(Answer { human, json: serde_json::to_value(&figures).context("benchmark figures")?, done: true })
}
