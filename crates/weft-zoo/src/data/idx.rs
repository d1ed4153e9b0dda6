//! The idx format of MNIST and its kin: a magic number, the sizes of the axes, bytes; plain or gzipped.

use super::{MAX_ARRAY_BYTES, arrange, assemble, num_classes, read_exactly, reorder};
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use weft_core::{Dataset, Inputs};

const IMAGES: &str = "an idx file of images (magic number 0x00000803)";
const LABELS: &str = "an idx file of labels (magic number 0x00000801)";

/// Loads a folder with the four files of MNIST's layout, each plain or with `.gz`: `train-images-idx3-ubyte`,
/// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`.
///
/// Of the training images `validation`, drawn class by class, are the validation part; the `t10k` files are the test
/// part. The division and the order of each part are random, fixed, and the same for every caller. Bytes are scaled
/// to `[0, 1]`.
///
/// # Errors
/// [`Error::DataMissing`] says which file was looked for and how to get it; [`Error::Data`] names a file that is cut
/// short, too long or of another kind; [`Error::Domain`] if images and labels do not fit together.
pub fn idx_folder(path: &Path, name: &str, validation: usize) -> Result<Dataset> {
    let (mut data, features) = images(&find(path, name, "train-images-idx3-ubyte")?)?;
    let mut labels = labels(&find(path, name, "train-labels-idx1-ubyte")?)?;
    let test_images = find(path, name, "t10k-images-idx3-ubyte")?;
    let (test_data, test_features) = images(&test_images)?;
    if features != test_features {
        let reason = format!("its images have {test_features} values, the training images {features}");
        return Err(Error::Data { path: test_images, expected: IMAGES, reason });
    }
    let test_labels_path = find(path, name, "t10k-labels-idx1-ubyte")?;
    let test_labels = self::labels(&test_labels_path)?;
    for (part, values, count) in [("training", data.len(), labels.len()), ("test", test_data.len(), test_labels.len())] {
        if values != count * features {
            let reason = format!("{count} labels for {} {part} images", values / features);
            return Err(Error::Data { path: path.to_owned(), expected: "a folder of images with their labels", reason });
        }
    }
    let num_known = labels.len();
    data.extend_from_slice(&test_data);
    labels.extend_from_slice(&test_labels);
    let classes = num_classes(&labels, path, LABELS)?;
    let (order, sizes) = arrange(&labels, num_known, validation);
    let inputs = Inputs::Bytes { data: reorder(&data, &order, features), scale: 1.0 / 255.0 };
    assemble(name, inputs, reorder(&labels, &order, 1), classes, sizes)
}

/// The path of one of the four files, plain or gzipped.
fn find(folder: &Path, dataset: &str, file: &str) -> Result<PathBuf> {
    let candidates = [folder.join(file), folder.join(format!("{file}.gz"))];
    if let Some(path) = candidates.into_iter().find(|p| p.is_file()) {
        return Ok(path);
    }
    let wanted = format!("`{file}` or `{file}.gz`");
    Err(Error::DataMissing { dataset: dataset.to_owned(), wanted, path: folder.to_owned(), hint: hint(dataset) })
}

fn hint(dataset: &str) -> String {
    let four = "the four files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, \
                `t10k-labels-idx1-ubyte`, each plain or with `.gz`";
    if dataset.to_lowercase().contains("fashion") {
        return format!(
            "install the Debian package `dataset-fashion-mnist` and use `/usr/share/datasets/fashion-mnist`, or put {four} there"
        );
    }
    format!("put {four} there; any mirror of the data set has them")
}

/// Images as bytes, and the bytes of one.
fn images(path: &Path) -> Result<(Vec<u8>, usize)> {
    let (bytes, [_, rows, columns]) = read(path, IMAGES)?;
    Ok((bytes, rows as usize * columns as usize))
}

fn labels(path: &Path) -> Result<Vec<u32>> {
    let (bytes, [_]) = read(path, LABELS)?;
    Ok(bytes.iter().map(|&label| u32::from(label)).collect())
}

/// Reads a file of unsigned bytes with `N` axes, all of them longer than 0.
fn read<const N: usize>(path: &Path, expected: &'static str) -> Result<(Vec<u8>, [u32; N])> {
    let fail = |reason| Error::Data { path: path.to_owned(), expected, reason };
    let file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
    let mut stream: Box<dyn Read> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut number = || {
        let mut bytes = [0; 4];
        stream
            .read_exact(&mut bytes)
            .map(|()| u32::from_be_bytes(bytes))
            .map_err(|e| fail(format!("its header cannot be read: {e}")))
    };
    let (magic, wanted) = (number()?, 0x0800 + N as u32);
    if magic != wanted {
        return Err(fail(format!("its magic number is {magic:#010x}")));
    }
    let mut axes = [0; N];
    for axis in &mut axes {
        *axis = number()?;
    }
    let size = axes.iter().try_fold(1u64, |size, &axis| size.checked_mul(u64::from(axis)));
    match size {
        Some(size) if size > 0 => Ok((read_exactly(stream, (size, MAX_ARRAY_BYTES), path, expected)?, axes)),
        _ => Err(fail(format!("its axes are {axes:?}"))),
    }
}
