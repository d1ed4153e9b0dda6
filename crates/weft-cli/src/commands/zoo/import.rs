//! `weft zoo import`.

use super::describe;
use crate::args::zoo::Import;
use crate::output::Answer;
use crate::table::count;
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::Monitor;
use weft::zoos;

pub(super) fn import(arguments: Import, monitor: &Monitor) -> anyhow::Result<Answer> {
    let activation = arguments.activation.as_deref().map(str::parse).transpose().map_err(weft::Error::Core)?;
    let Import { paths, output: zoo, architecture, test_fraction, licence, license, label, .. } = arguments;
    let request = zoos::Import {
        paths,
        zoo,
        architecture,
        activation,
        test_fraction,
        licence,
        allowed_licences: license.into_iter().map(|licence| licence.trim().to_owned()).collect(),
        labels: label,
    };
    let view = zoos::import(&request, monitor)?;
    let mut human = format!("{} into {}\n", count(view.read, "network"), view.zoo.display());
    let parts = [("skipped", &view.skipped), ("quarantined", &view.quarantined), ("refused", &view.refused)];
    let numbers: Vec<String> =
        parts.iter().filter(|(_, files)| !files.is_empty()).map(|(w, f)| format!("{} {w}", f.len())).collect();
    for (what, files) in parts {
        describe(&mut human, what, files);
    }
    // A long report ends with its sum, where it can be seen.
    if parts.iter().map(|(_, files)| files.len()).sum::<usize>() > 10 {
        let _ = writeln!(human, "{} imported, {}", count(view.read, "network"), numbers.join(", "));
    }
    if view.ignored > 0 {
        let _ = writeln!(human, "{} of other kinds ignored", count(view.ignored, "file"));
    }
    let done = view.refused.is_empty() && view.quarantined.is_empty();
    Ok(Answer { human, json: serde_json::to_value(&view).context("the report of an import")?, done })
}
