//! Stage 3: a codec between canonical weights and codes, fitted on training runs alone.
//!
//! ```text
//! codec/
//!   codec.safetensors       the codec
//!   residual.safetensors    the variance that it cuts off, a weight
//!   codec.json              error and accuracy against rank
//! ```

use super::{Done, Session, canonicalize, estimate, tasks_of, write_json};
use crate::Result;
use crate::cache::{Completed, Running};
use crate::report::data::{CodecFigures, RankFigures};
use crate::run::Stage;
use std::collections::BTreeMap;
use weft_codec::Codec;
use weft_core::{Part, Population, Split, Task};
use weft_eval::Estimate;
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 2;
/// Networks of each kind on which the codec's loss is measured.
const MEASURED: usize = 128;
/// Leading eigenvalues that the report keeps.
const SPECTRUM: usize = 1_024;

/// Reads the codec of a complete stage.
pub(super) fn codec_of(session: &Session, stage: &Completed) -> Result<Codec> {
    let path = stage.folder.join("codec.safetensors");
    let file = weft_zoo::read_tensors(&path)?;
    Ok(Codec::from_tensors(file.tensors)?.on(&session.place))
}

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let upstream = done.of(Stage::Canonicalize);
    let key = session
        .key(("encode", "codec"), VERSION, &[("canonical", upstream)])
        .setting("codec", &session.config.codec)
        .setting("recalibrate", &session.config.sample.recalibrate);
    session.unless_fresh(key, |running| fit(session, &Zoo::open(&canonicalize::zoo_of(upstream))?, running))
}

fn fit(session: &Session, zoo: &Zoo, running: Running) -> Result<Completed> {
    let monitor = session.monitor;
    let train = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
    monitor.start("encode", train.len() as u64, "networks");
    let rows = zoo.load(&train, Purpose::Fit)?;
    let (config, seed) = (session.config.codec.to_codec(rows.len(), rows.dim()), session.seed.fork("codec"));
    let codec = Codec::fit_on(&session.place, &rows, &config, seed)?;
    session.check_stop(Stage::Encode)?;
    let residual = codec.residual_variance(rows.data())?;
    drop(rows);
    let num_classes = session.dataset(Stage::Encode)?.num_classes();
    let finals = |split| -> Result<Measured> {
        let filter = Filter { split: Some(split), final_only: true, limit: Some(MEASURED), ..Filter::default() };
        let entries = zoo.records(&filter)?;
        let tasks = tasks_of(entries.iter().map(Entry::record), zoo.architecture(), num_classes)?;
        Ok(Measured { networks: zoo.load(&entries, Purpose::Transform)?, tasks })
    };
    let figures = figures(session, &codec, [&finals(Split::Train)?, &finals(Split::Test)?])?;
    monitor.note(format!(
        "encode: {} of {} numbers keep {:.2} % of the variance; decoded networks reach {:.2} % of {:.2} %",
        figures.rank,
        figures.num_parameters,
        figures.kept_variance * 100.0,
        figures.ranks.last().map_or(0.0, |r| r.accuracy_fitted.mean * 100.0),
        figures.accuracy_before * 100.0
    ));
    let none = BTreeMap::new();
    weft_zoo::write_tensors(&running.folder().join("codec.safetensors"), &codec.to_tensors(), &none)?;
    let residual = [("residual-variance".to_owned(), vec![residual.len()], residual.as_slice())];
    weft_zoo::write_tensors(&running.folder().join("residual.safetensors"), &residual, &none)?;
    write_json(&running.folder().join("codec.json"), &figures)?;
    monitor.progress(train.len() as u64);
    monitor.finish();
    running.complete(&["codec.safetensors", "residual.safetensors", "codec.json"])
}

/// Networks on which the codec's loss is measured, with their tasks if they have their own.
struct Measured {
    networks: Population,
    tasks: Option<Vec<Task>>,
}

/// Error and accuracy against rank, on networks that the codec was fitted on and on others.
fn figures(session: &Session, codec: &Codec, [fitted, unseen]: [&Measured; 2]) -> Result<CodecFigures> {
    let dataset = session.dataset(Stage::Encode)?;
    let full = codec.code_len();
    let ranks = match codec {
        Codec::Pca(_) => ranks(full),
        Codec::Identity(_) => vec![full],
    };
    let errors =
        [codec.reconstruction_error(fitted.networks.data(), &ranks)?, codec.reconstruction_error(unseen.networks.data(), &ranks)?];
    let codes = [codec.encode(fitted.networks.data())?, codec.encode(unseen.networks.data())?];
    let accuracy = |codes: &[f32], of: &Measured, rank: usize| -> Result<Estimate> {
        let rows = match codec {
            Codec::Pca(pca) => pca.decode_at_rank(codes, rank)?,
            Codec::Identity(_) => codec.decode(codes)?,
        };
        let mut decoded = Population::new(of.networks.architecture().clone(), rows)?;
        weft_net::recalibrate(&mut decoded, dataset, session.config.sample.recalibrate, &session.device)?;
        Ok(estimate(&weft_net::accuracies(&decoded, (dataset, of.tasks.as_deref()), Part::Validation, &session.device)?))
    };
    let mut figures = Vec::with_capacity(ranks.len());
    for (i, &rank) in ranks.iter().enumerate() {
        session.check_stop(Stage::Encode)?;
        figures.push(RankFigures {
            rank,
            error_fitted: errors[0][i],
            error_unseen: errors[1][i],
            accuracy_fitted: accuracy(&codes[0], fitted, rank)?,
            accuracy_unseen: accuracy(&codes[1], unseen, rank)?,
        });
    }
    let (kept_variance, spectrum, total_variance) = match codec {
        Codec::Pca(pca) => {
            let spectrum = pca.spectrum().iter().take(SPECTRUM).map(|&v| f64::from(v)).collect();
            (pca.kept_variance(), spectrum, f64::from(pca.total_variance()))
        }
        Codec::Identity(_) => (1.0, Vec::new(), 0.0),
    };
    let before = weft_net::accuracies(&fitted.networks, (dataset, fitted.tasks.as_deref()), Part::Validation, &session.device)?;
    Ok(CodecFigures {
        kind: codec.name().to_owned(),
        rank: full,
        num_parameters: codec.dim(),
        kept_variance,
        spectrum,
        total_variance,
        ranks: figures,
        accuracy_before: estimate(&before).mean,
    })
}

/// Powers of two below the full rank, and the full rank.
fn ranks(full: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = std::iter::successors(Some(1), |rank| Some(rank * 2)).take_while(|&rank| rank < full).collect();
    ranks.push(full);
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_end_at_the_full_one() {
        assert_eq!(ranks(1), [1]);
        assert_eq!(ranks(8), [1, 2, 4, 8]);
        assert_eq!(ranks(9), [1, 2, 4, 8, 9]);
    }
}
