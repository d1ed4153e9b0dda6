//! Data sets: a labelled one that is built in, readers of the two formats that small ones come in, and one text in many languages,
//! and what people ask for.

mod digits;
mod division;
mod idx;
mod intents;
pub(crate) mod npy;
mod npz;
mod udhr;

pub use digits::digits;
pub use idx::idx_folder;
pub use intents::{BANKING77_DOMAIN, Intent, banking77, clinc150};
pub use npz::{examples, inputs, npz};
pub use udhr::{Language, Languages, MIN_PASSAGES, languages};

use crate::{Error, Result};
use division::{hold_out, shuffled};
use std::io::Read;
use std::path::Path;
use weft_core::{Dataset, Inputs, Seed};

/// More bytes than any array of a data set may have once it is decompressed.
const MAX_ARRAY_BYTES: u64 = 1 << 31;

/// More values of a label than a classifier here has classes.
const MAX_CLASSES: u32 = 1 << 16;

/// Reads a stream of which the file promises `expected` bytes; one byte more or less is an error, and memory is
/// taken as the bytes come, so that a small file cannot ask for much. No more than `limit` bytes are read.
fn read_exactly(stream: impl Read, (expected, limit): (u64, u64), path: &Path, what: &'static str) -> Result<Vec<u8>> {
    let fail = |reason| Error::Data { path: path.to_owned(), expected: what, reason };
    if expected > limit {
        return Err(fail(format!("it would hold {expected} bytes, at most {limit} are read")));
    }
    let mut bytes = Vec::new();
    stream.take(expected + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    match bytes.len() as u64 {
        got if got == expected => Ok(bytes),
        got if got < expected => Err(fail(format!("it ends after {got} of {expected} bytes of data"))),
        _ => Err(fail(format!("it has more than the {expected} bytes of data that its header promises"))),
    }
}

/// The number of classes that labels need.
fn num_classes(labels: &[u32], path: &Path, what: &'static str) -> Result<usize> {
    let largest = labels.iter().copied().max().unwrap_or(0);
    if largest < MAX_CLASSES {
        return Ok(largest as usize + 1);
    }
    Err(Error::Data { path: path.to_owned(), expected: what, reason: format!("label {largest} is not a class") })
}

/// Assembles a data set, naming its origin if the pieces do not fit.
fn assemble(name: &str, inputs: Inputs, labels: Vec<u32>, classes: usize, sizes: [usize; 2]) -> Result<Dataset> {
    let fail = |source| Error::Domain { origin: format!("data set `{name}`"), source };
    Dataset::new(name, inputs, labels, classes, sizes).map_err(fail)
}

/// What every division of examples is drawn from.
fn division_seed() -> Seed {
    Seed::new(0).fork("division")
}

/// The order in which examples of a file with a test part of its own stand in a data set, with the sizes of the
/// training and the validation part; `labels` are those of the file's `num_known` training examples, then of its test
/// examples.
fn arrange(labels: &[u32], num_known: usize, validation: usize) -> (Vec<usize>, [usize; 2]) {
    let known: Vec<usize> = (0..num_known).collect();
    let test: Vec<usize> = (num_known..labels.len()).collect();
    let [train, held] = hold_out(&known, labels, validation, division_seed().fork("validation"));
    let sizes = [train.len(), held.len()];
    ([train, held, shuffled(&test, division_seed().fork("test"))].concat(), sizes)
}

/// The rows of `features` values at `order`.
fn reorder<T: Copy>(data: &[T], order: &[usize], features: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for &example in order {
        out.extend_from_slice(&data[example * features..(example + 1) * features]);
    }
    out
}
