//! The handwritten digits of the UCI repository, 8 × 8, which the crate `smartcore` carries.

use super::division::hold_out;
use super::{assemble, division_seed};
use crate::Result;
use weft_core::{Dataset, Inputs};

/// Examples of the validation part, and of the test part.
const HELD_OUT: usize = 300;

/// Loads the 1,797 digits: 64 values of 0 to 16, scaled to `[0, 1]`, in 10 classes.
///
/// The division into 1,197 training, 300 validation and 300 test examples is stratified and never changes.
///
/// # Errors
/// None that a working build can meet.
pub fn digits() -> Result<Dataset> {
    let raw = smartcore::dataset::digits::load_dataset();
    let labels: Vec<u32> = raw.target.iter().map(|&label| label as u32).collect();
    let all: Vec<usize> = (0..labels.len()).collect();
    let [known, test] = hold_out(&all, &labels, HELD_OUT, division_seed().fork("test"));
    let [train, validation] = hold_out(&known, &labels, HELD_OUT, division_seed().fork("validation"));
    let sizes = [train.len(), validation.len()];
    let order = [train, validation, test].concat();
    let pixels = |&i: &usize| raw.data[i * raw.num_features..(i + 1) * raw.num_features].iter().map(|&v| v as u8);
    let data = order.iter().flat_map(pixels).collect();
    let labels = order.iter().map(|&i| labels[i]).collect();
    assemble("digits", Inputs::Bytes { data, scale: 1.0 / 16.0 }, labels, 10, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Part;

    #[test]
    fn parts_are_stratified_and_cover_everything_once() {
        let digits = digits().unwrap();
        assert_eq!((digits.num_features(), digits.num_classes()), (64, 10));
        for (part, size) in [(Part::Train, 1197), (Part::Validation, 300), (Part::Test, 300)] {
            let labels = digits.labels(part);
            assert_eq!(labels.len(), size);
            for class in 0..10 {
                let share = labels.iter().filter(|&&l| l == class).count() as f64 / size as f64;
                assert!((share - 0.1).abs() < 0.01, "{part:?}: class {class} has {share}");
            }
        }
        let values = digits.gather(0..1797);
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        let mut rows: Vec<Vec<u8>> = values.chunks(64).map(|r| r.iter().map(|v| (v * 16.0) as u8).collect()).collect();
        rows.sort();
        let raw = smartcore::dataset::digits::load_dataset();
        let mut source: Vec<Vec<u8>> = raw.data.chunks(64).map(|r| r.iter().map(|&v| v as u8).collect()).collect();
        source.sort();
        assert_eq!(rows, source);
    }

    /// The division is part of the contract: figures on these digits are comparable for ever.
    #[test]
    fn golden_division() {
        assert_eq!(digits().unwrap().digest().short(), GOLDEN);
    }
    const GOLDEN: &str = "0342fcb001b6";
}
