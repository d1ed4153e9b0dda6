//! Stages of a run without data: networks of any size, read in pieces, in as much memory as the run file allows.
//!
//! Canonical forms are made a few networks at a time. The codec is a [`Span`]: its basis is the networks that it was fitted on,
//! so nothing of the size of a network times the rank is ever held or stored. Codes are small, and the flow learns them as in
//! any run. Samples are decoded into their files a block of columns at a time.

mod canonicalize;
mod encode;
mod sample;

pub(super) use canonicalize::run as canonicalize;
pub(super) use encode::{learn_from, run as encode};
pub(super) use sample::{on_demand, run as sample, samples_of};

use super::Session;
use crate::run::Stage;
use crate::{Error, Result};
use std::ops::Range;
use weft_codec::Blocks;
use weft_core::Architecture;
use weft_zoo::Columns;

/// What a process takes before it holds any weight: code, the catalogue, training of the flow, buffers of files.
const RESERVE: u64 = 300_000_000;
/// Columns that are read at a time, at least and at most: fewer make reading slow, more gain nothing.
const FEWEST_COLUMNS: usize = 1 << 14;
const MOST_COLUMNS: usize = 1 << 20;

/// What is left of the allowed memory for weights, of which at least `needed` must fit.
pub(super) fn room(session: &Session, stage: Stage, needed: u64) -> Result<u64> {
    let allowed = session.config.run.memory.unwrap_or_default().bytes();
    match allowed.checked_sub(RESERVE) {
        Some(room) if room >= needed => Ok(room),
        _ => Err(Error::Memory { stage: stage.name(), needed: needed + RESERVE, allowed }),
    }
}

/// Columns of `n` networks, and as many of `more`, that fit.
fn num_columns(session: &Session, stage: Stage, n: usize) -> Result<usize> {
    let each = Blocks::<Error>::bytes_a_column(n);
    let room = room(session, stage, (FEWEST_COLUMNS * each) as u64)?;
    Ok(usize::try_from(room).unwrap_or(usize::MAX).div_euclid(each).min(MOST_COLUMNS))
}

/// Does something with networks that are read in blocks of columns, unless the user asks for a stop.
fn in_blocks<T>(
    (session, stage): (&Session, Stage),
    mut columns: Columns,
    width: usize,
    work: impl FnOnce(&mut Blocks<'_, Error>) -> Result<T>,
) -> Result<T> {
    let (architecture, n) = (columns.architecture().clone(), columns.len());
    let mut read = |block: Range<usize>, out: &mut [f32]| {
        session.check_stop(stage)?;
        Ok(columns.read(block, out)?)
    };
    work(&mut Blocks::new(&architecture as &Architecture, n, width, &mut read).on(&*session.place))
}
