//! npz archives of arrays: examples and labels for training and test.

use super::npy::{Element, NpyHeader, read_header};
use super::{MAX_ARRAY_BYTES, arrange, assemble, num_classes, read_exactly, reorder};
use crate::{Error, Result};
use npyz::npz::NpzArchive;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use weft_core::{Dataset, ExampleSet, InputSet, Inputs};

const WHAT: &str = "an npz archive of `x_train`, `y_train`, `x_test` and `y_test` (or `x`, `y`, `x_test`, `y_test`)";
const EXAMPLES: &str = "an npz archive of `x`, examples, and `y`, a label for each";
const INPUTS: &str = "an npz archive of `x` (or `inputs`), one or more inputs";
/// More bytes than an array of a handful of examples may have.
const MAX_HANDFUL_BYTES: u64 = 1 << 27;

/// Loads an archive with the arrays `x_train`, `y_train`, `x_test`, `y_test`, or `x`, `y`, `x_test`, `y_test`.
///
/// All axes of an example become one. A tenth of the training examples, drawn class by class, is the validation part.
/// The division and the order of each part are random, fixed, and the same for every caller. Examples of unsigned
/// bytes are scaled to `[0, 1]`, others are taken as they are.
///
/// # Errors
/// [`Error::DataMissing`] if there is no such file; [`Error::Data`] if an array is missing, cut short, of a type
/// that is not read, not finite, or without fitting labels.
pub fn npz(path: &Path, name: &str) -> Result<Dataset> {
    let mut arrays = Arrays::open(path, name, (WHAT, MAX_ARRAY_BYTES))?;
    let suffix = if arrays.has("x_train") { "_train" } else { "" };
    let (train, test) = (arrays.examples(suffix)?, arrays.examples("_test")?);
    let features = |examples: &Examples| examples.header.shape.iter().skip(1).product::<u64>();
    if features(&train) != features(&test) || train.header.element != test.header.element {
        return Err(arrays.fail("test examples differ from training examples in size or type".to_owned()));
    }
    let num_known = train.labels.len();
    let num_features = features(&train) as usize;
    let labels = [train.labels, test.labels].concat();
    let classes = num_classes(&labels, path, WHAT)?;
    let bytes = [train.bytes, test.bytes].concat();
    let (order, sizes) = arrange(&labels, num_known, num_known / 10);
    let inputs = match train.header.element {
        Element::U8 => Inputs::Bytes { data: reorder(&bytes, &order, num_features), scale: 1.0 / 255.0 },
        element => {
            let values: Vec<f32> = element.values(&bytes).iter().map(|&v| v as f32).collect();
            if values.iter().any(|v| !v.is_finite()) {
                return Err(arrays.fail("an example has a value that is not finite".to_owned()));
            }
            Inputs::Floats(reorder(&values, &order, num_features))
        }
    };
    assemble(name, inputs, reorder(&labels, &order, 1), classes, sizes)
}

/// Loads a handful of labelled examples: the arrays `x`, `[m, …]`, and `y`, `[m]`.
///
/// All axes of an example become one. Unsigned bytes are scaled to `[0, 1]`, other values are taken as they are, as in [`npz`].
///
/// # Errors
/// [`Error::DataMissing`] if there is no such file; [`Error::Data`] if an array is missing, cut short or of a type that is not read;
/// [`Error::Domain`] if a value is not finite or there is no example.
pub fn examples(path: &Path) -> Result<ExampleSet> {
    let mut arrays = Arrays::open(path, "examples", (EXAMPLES, MAX_HANDFUL_BYTES))?;
    let Examples { header, bytes, labels } = arrays.examples("")?;
    let inputs = scaled(header.element, &bytes);
    ExampleSet::new(inputs, labels).map_err(|source| Error::Domain { origin: format!("`{}`", path.display()), source })
}

/// Loads a handful of inputs without labels: the array `x`, or else `inputs`, `[m, …]`. With them comes whether the archive has labels, `y`, which are
/// not read.
///
/// All axes of an input become one. Unsigned bytes are scaled to `[0, 1]`, other values are taken as they are, as in [`npz`].
///
/// # Errors
/// [`Error::DataMissing`] if there is no such file; [`Error::Data`] if the array is missing, empty, cut short, of one axis or of a type that is not
/// read; [`Error::Domain`] if a value is not finite.
pub fn inputs(path: &Path) -> Result<(InputSet, bool)> {
    let mut arrays = Arrays::open(path, "inputs", (INPUTS, MAX_HANDFUL_BYTES))?;
    let name = if !arrays.has("x") && arrays.has("inputs") { "inputs" } else { "x" };
    let (header, bytes) = arrays.array(name)?;
    let [count, _, ..] = header.shape[..] else {
        return Err(arrays.fail(format!("`{name}` has shape {:?}, expected a row for each input", header.shape)));
    };
    let inputs = InputSet::new(scaled(header.element, &bytes), count as usize);
    let inputs = inputs.map_err(|source| Error::Domain { origin: format!("`{}`", path.display()), source })?;
    Ok((inputs, arrays.has("y")))
}

/// Values of an array, unsigned bytes brought to `[0, 1]`.
fn scaled(element: Element, bytes: &[u8]) -> Vec<f32> {
    let scale = if element == Element::U8 { 1.0 / 255.0 } else { 1.0 };
    element.values(bytes).iter().map(|&v| v as f32 * scale).collect()
}

/// The examples of one part, with a label each.
struct Examples {
    header: NpyHeader,
    bytes: Vec<u8>,
    labels: Vec<u32>,
}

struct Arrays<'a> {
    archive: NpzArchive<BufReader<File>>,
    path: &'a Path,
    /// What it is to hold, as errors say it.
    what: &'static str,
    /// The most bytes of an array.
    limit: u64,
}

impl<'a> Arrays<'a> {
    fn open(path: &'a Path, name: &str, (what, limit): (&'static str, u64)) -> Result<Self> {
        if !path.is_file() {
            let hint = "give the path of a `.npz` file".to_owned();
            return Err(Error::DataMissing { dataset: name.to_owned(), wanted: what.to_owned(), path: path.to_owned(), hint });
        }
        let file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
        let archive =
            NpzArchive::new(file).map_err(|e| Error::Data { path: path.to_owned(), expected: what, reason: e.to_string() })?;
        Ok(Self { archive, path, what, limit })
    }

    fn fail(&self, reason: String) -> Error {
        Error::Data { path: self.path.to_owned(), expected: self.what, reason }
    }

    fn has(&self, name: &str) -> bool {
        self.archive.array_names().any(|n| n == name)
    }

    fn examples(&mut self, suffix: &str) -> Result<Examples> {
        let (header, bytes) = self.array(&format!("x{suffix}"))?;
        let name = format!("y{suffix}");
        let (label_header, label_bytes) = self.array(&name)?;
        if label_header.shape.len() != 1 || header.shape.len() < 2 || header.shape[0] != label_header.shape[0] {
            let reason = format!("`x{suffix}` has shape {:?}, `{name}` {:?}", header.shape, label_header.shape);
            return Err(self.fail(reason));
        }
        let labels = label_header.element.values(&label_bytes);
        if let Some(label) = labels.iter().find(|&&l| l.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&l)) {
            return Err(self.fail(format!("`{name}` has the value {label}, which is not a class")));
        }
        Ok(Examples { header, bytes, labels: labels.iter().map(|&l| l as u32).collect() })
    }

    /// Reads one array; the archive's own statement of its size is not believed.
    fn array(&mut self, name: &str) -> Result<(NpyHeader, Vec<u8>)> {
        let (path, expected) = (self.path, self.what);
        let fail = |reason: String| Error::Data { path: path.to_owned(), expected, reason };
        let entry = self.archive.zip_archive().by_name(&npyz::npz::file_name_from_array_name(name));
        let mut stream = entry.map_err(|e| fail(format!("`{name}`: {e}")))?;
        let header = read_header(&mut stream).map_err(|reason| fail(format!("`{name}`: {reason}")))?;
        if header.by_columns {
            return Err(fail(format!("`{name}` is stored column by column")));
        }
        let size = header.shape.iter().try_fold(header.element.size(), |size, &axis| size.checked_mul(axis));
        let size = size.filter(|&s| s > 0).ok_or_else(|| fail(format!("`{name}` has shape {:?}", header.shape)))?;
        Ok((header, read_exactly(stream, (size, self.limit), path, expected)?))
    }
}
