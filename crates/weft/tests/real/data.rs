//! MNIST and MNIST-1D as they are published.

use weft_core::{Dataset, Part};

const PARTS: [Part; 3] = [Part::Train, Part::Validation, Part::Test];

fn sizes(dataset: &Dataset) -> [usize; 3] {
    PARTS.map(|part| dataset.range(part).len())
}

/// The share of each class in a part, smallest and largest.
fn shares(dataset: &Dataset, part: Part) -> (f64, f64) {
    let labels = dataset.labels(part);
    let share = |class| labels.iter().filter(|&&label| label as usize == class).count() as f64 / labels.len() as f64;
    let shares = (0..dataset.num_classes()).map(share);
    shares.fold((1.0, 0.0), |(low, high): (f64, f64), share| (low.min(share), high.max(share)))
}

#[test]
fn mnist() {
    let Some(folder) = crate::data("mnist") else { return };
    let mnist = weft_zoo::data::idx_folder(&folder, "mnist", 5_000).unwrap();
    assert_eq!((mnist.num_features(), mnist.num_classes(), sizes(&mnist)), (784, 10, [55_000, 5_000, 10_000]));
    for part in PARTS {
        let (low, high) = shares(&mnist, part);
        assert!(low > 0.085 && high < 0.118, "{}: {low} {high}", part.name());
    }
    // Pixels lie in [0, 1], and their mean is the published 0.1307.
    let pixels = mnist.gather(mnist.range(Part::Train));
    let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len() as f64;
    assert!((mean - 0.1307).abs() < 5e-4 && pixels.iter().all(|p| (0.0..=1.0).contains(p)), "{mean}");
    // Copies sorted by class exist: batches in file order must hold all classes nevertheless.
    assert!(mnist.labels(Part::Train).chunks(200).all(|chunk| (0..10).all(|class| chunk.contains(&class) || chunk.len() < 200)));
}

#[test]
fn mnist_1d() {
    let Some(file) = crate::data("mnist1d.npz") else { return };
    let data = weft_zoo::data::npz(&file, "mnist1d").unwrap();
    assert_eq!((data.num_features(), data.num_classes(), sizes(&data)), (40, 10, [3_600, 400, 1_000]));
    for part in PARTS {
        let (low, high) = shares(&data, part);
        assert!(low > 0.06 && high < 0.14, "{}: {low} {high}", part.name());
    }
}
