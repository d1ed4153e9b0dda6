//! Stage 3 without data.
//!
//! ```text
//! codec/
//!   codec.safetensors       the codes of the training networks, which are the basis too, and the spectrum
//!   codec.json              variance against rank
//! ```

use super::super::{Done, Session, canonicalize, models, write_json};
use super::{in_blocks, num_columns};
use crate::cache::{Completed, Running};
use crate::run::Stage;
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_codec::{CodecKind, Span};
use weft_core::{Condition, Digest, Split};
use weft_gen::CodeSet;
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 3;
/// The entry of the codec's file that names the networks.
const NETWORKS: &str = "networks";

/// `codec.json`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Figures {
    kind: &'static str,
    rank: usize,
    num_networks: usize,
    num_parameters: usize,
    kept_variance: f64,
    total_variance: f32,
    spectrum: Vec<f32>,
}

/// The codec of a complete stage, with the networks that are its basis.
pub(super) struct Basis {
    pub(super) span: Span,
    pub(super) zoo: Zoo,
    pub(super) entries: Vec<Entry>,
}

impl Basis {
    pub(super) fn of(done: &Done) -> Result<Self> {
        let path = done.of(Stage::Encode).folder.join("codec.safetensors");
        let file = weft_zoo::read_tensors(&path)?;
        let (zoo, entries) = training(done)?;
        let span = Span::from_tensors(file.tensors)?;
        if file.metadata.get(NETWORKS) != Some(&digest(&entries)) || span.num_rows() != entries.len() {
            return Err(Error::Damaged { path, reason: "its basis is other networks".to_owned() });
        }
        Ok(Self { span, zoo, entries })
    }
}

/// The canonical networks of training runs.
fn training(done: &Done) -> Result<(Zoo, Vec<Entry>)> {
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let entries = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
    Ok((zoo, entries))
}

/// One digest of many networks in their order.
fn digest(entries: &[Entry]) -> String {
    Digest::of_parts(entries.iter().map(|entry| entry.record().digest.as_bytes().as_slice())).to_string()
}

pub(in crate::stages) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let upstream = done.of(Stage::Canonicalize);
    let key = session
        .key(("encode", "codec"), VERSION, &[("canonical", upstream)])
        .setting("codec", &session.config.codec)
        .setting("basis", &"networks");
    session.unless_fresh(key, |running| fit(session, done, running))
}

fn fit(session: &Session, done: &Done, running: Running) -> Result<Completed> {
    let (zoo, entries) = training(done)?;
    let (n, dim) = (entries.len(), zoo.architecture().num_parameters());
    session.monitor.start("encode", n as u64, "networks");
    let config = session.config.codec.to_codec(n, dim);
    let CodecKind::Pca { rank, .. } = config.kind else { return Err(Error::RunWithoutData { stage: Stage::Encode.name() }) };
    let width = num_columns(session, Stage::Encode, n)?;
    let columns = zoo.columns(&entries, Purpose::Fit)?;
    let span = in_blocks((session, Stage::Encode), columns, width, |rows| Span::fit(rows, rank, config.normalize))?;
    session.monitor.note(format!(
        "encode: {} of {dim} numbers keep {:.2} % of the variance",
        span.rank(),
        span.kept_variance() * 100.0
    ));
    let metadata = BTreeMap::from([(NETWORKS.to_owned(), digest(&entries))]);
    weft_zoo::write_tensors(&running.folder().join("codec.safetensors"), &span.to_tensors(), &metadata)?;
    let figures = Figures {
        kind: "pca",
        rank: span.rank(),
        num_networks: n,
        num_parameters: dim,
        kept_variance: span.kept_variance(),
        total_variance: span.total_variance(),
        spectrum: span.spectrum().to_vec(),
    };
    write_json(&running.folder().join("codec.json"), &figures)?;
    session.monitor.progress(n as u64);
    session.monitor.finish();
    running.complete(&["codec.safetensors", "codec.json"])
}

/// What the flow learns from, and what is asked for where the run file does not say: no weight is read.
pub(in crate::stages) fn learn_from(session: &Session, done: &Done) -> Result<(CodeSet, Condition)> {
    let Basis { span, entries, .. } = Basis::of(done)?;
    let is_final = |entry: &Entry| entry.record().is_final;
    let rows = span.codes().chunks_exact(span.rank()).zip(&entries);
    let final_codes: Vec<f32> = rows.filter(|(_, entry)| is_final(entry)).flat_map(|(code, _)| code.to_vec()).collect();
    let finals: Vec<Entry> = entries.iter().filter(|e| is_final(e)).cloned().collect();
    let fields = session.fields();
    let conditions = entries.iter().map(|entry| session.condition_of(entry.record())).collect::<crate::Result<_>>()?;
    let set = CodeSet {
        code_len: span.rank(),
        codes: Arc::new(span.codes().to_vec()),
        final_codes: Arc::new(final_codes),
        conditions: Arc::new(conditions),
    };
    Ok((set, session.encode_texts(models::default_condition(session.config, &fields, &finals)?)?))
}
