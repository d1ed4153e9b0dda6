//! Every trivial generator does what its name says.

use crate::support::{NETWORKS, RANK, distance, moments, nearest, random_set};
use weft_core::{Condition, Population, Seed};
use weft_gen::trivial::{Trivial, TrivialGenerator};
use weft_gen::{Generator, TrainingSet};
use weft_testkit::assert_close_f64;

const ALL: [(Trivial, &str); 10] = [
    (Trivial::NoiseCopies { scale: 0.1 }, "noise-copies-0.1"),
    (Trivial::WeightGaussian, "weight-gaussian"),
    (Trivial::PcaGaussian, "pca-gaussian"),
    (Trivial::Kde, "kde"),
    (Trivial::InterpolationRaw, "interpolation-raw"),
    (Trivial::InterpolationAligned, "interpolation-aligned"),
    (Trivial::SoupRaw { k: 3 }, "soup-3-raw"),
    (Trivial::SoupAligned { k: 3 }, "soup-3-aligned"),
    (Trivial::Mean, "mean"),
    (Trivial::Nearest, "nearest"),
];

fn sample(kind: Trivial, data: &TrainingSet, n: usize, seed: u64) -> Population {
    let generator = TrivialGenerator::new(kind, data.clone());
    generator.sample(n, &Condition::unknown(), Seed::new(seed)).expect("trivial generators cannot fail on their own data")
}

#[test]
fn names_costs_and_seeds() {
    let data = random_set();
    for (kind, name) in ALL {
        let generator = TrivialGenerator::new(kind, data.clone());
        assert_eq!((generator.name(), kind.name().as_str()), (name, name));
        let five = sample(kind, &data, 5, 1);
        assert_eq!((five.len(), five.dim()), (5, data.finals.dim()));
        assert!(five.data().iter().all(|w| w.is_finite()), "{name}");
        assert_eq!(five, sample(kind, &data, 5, 1), "{name}: one seed, other networks");
        assert_eq!(five.select(&[0, 1, 2]), sample(kind, &data, 3, 1), "{name}: a sample depends on how many follow");
        let same = five == sample(kind, &data, 5, 2);
        assert_eq!(same, kind == Trivial::Mean, "{name}: another seed");
        assert_eq!(generator.flops_per_sample() > 0.0, !matches!(kind, Trivial::Mean | Trivial::Nearest), "{name}");
        assert!(generator.sample(0, &Condition::unknown(), Seed::new(1)).expect("none is a number").is_empty());
    }
}

#[test]
fn means_and_copies() {
    let data = random_set();
    let (expected, _) = moments(data.finals.data(), data.finals.dim());
    for row in sample(Trivial::Mean, &data, 3, 1).rows() {
        let row: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
        assert_close_f64(&row, &expected, 1e-6);
    }
    let copies = sample(Trivial::Nearest, &data, 200, 1);
    assert!(copies.rows().all(|copy| data.finals.rows().any(|row| row == copy)));
    assert!(data.finals.rows().all(|row| copies.rows().any(|copy| row == copy)), "200 draws miss a network");
}

/// The distance of a row to the nearest segment between two networks.
fn off_segments(row: &[f32], among: &Population) -> f64 {
    let dot = |a: &[f32], b: &[f32], from: &[f32]| {
        a.iter().zip(b).zip(from).map(|((a, b), f)| f64::from(a - f) * f64::from(b - f)).sum::<f64>()
    };
    let mut best = f64::INFINITY;
    for a in among.rows() {
        for b in among.rows() {
            let lambda = (dot(row, b, a) / dot(b, b, a).max(1e-12)).clamp(0.0, 1.0) as f32;
            let foot: Vec<f32> = a.iter().zip(b).map(|(a, b)| a + lambda * (b - a)).collect();
            best = best.min(distance(row, &foot));
        }
    }
    best
}

#[test]
fn interpolations_lie_on_segments() {
    let data = random_set();
    for (kind, on, off) in [
        (Trivial::InterpolationAligned, &data.finals, &data.raw_finals),
        (Trivial::InterpolationRaw, &data.raw_finals, &data.finals),
    ] {
        let samples = sample(kind, &data, 40, 3);
        assert!(samples.rows().all(|row| off_segments(row, on) < 1e-4), "{kind:?}");
        assert!(samples.rows().all(|row| off_segments(row, off) > 0.1), "{kind:?} draws from the other population");
        let between = samples.rows().filter(|row| nearest(row, on) > 0.1).count();
        assert!(between > 20, "{kind:?}: {between} of 40 lie between networks");
    }
}

/// The distance of a row to the nearest mean of three different networks.
fn off_triples(row: &[f32], among: &Population) -> f64 {
    let mut best = f64::INFINITY;
    for a in 0..NETWORKS {
        for b in a + 1..NETWORKS {
            for c in b + 1..NETWORKS {
                let members = among.select(&[a, b, c]);
                let (mean, _) = moments(members.data(), members.dim());
                let mean: Vec<f32> = mean.into_iter().map(|v| v as f32).collect();
                best = best.min(distance(row, &mean));
            }
        }
    }
    best
}

#[test]
fn soups_are_means_of_their_members() {
    let data = random_set();
    for (kind, on, off) in [
        (Trivial::SoupAligned { k: 3 }, &data.finals, &data.raw_finals),
        (Trivial::SoupRaw { k: 3 }, &data.raw_finals, &data.finals),
    ] {
        let samples = sample(kind, &data, 12, 4);
        assert!(samples.rows().all(|row| off_triples(row, on) < 1e-5), "{kind:?}");
        assert!(samples.rows().all(|row| off_triples(row, off) > 0.1), "{kind:?} draws from the other population");
    }
    // More members than there are networks is the mean of all.
    let all = sample(Trivial::SoupAligned { k: 99 }, &data, 1, 4);
    assert!(distance(all.row(0), sample(Trivial::Mean, &data, 1, 4).row(0)) < 1e-5);
}

#[test]
fn noise_has_its_scale_in_each_tensor() {
    let data = random_set();
    let samples = sample(Trivial::NoiseCopies { scale: 0.05 }, &data, 2_000, 5);
    for tensor in data.architecture().tensors() {
        let range = tensor.range();
        let own: Vec<f32> = data.finals.rows().flat_map(|row| &row[range.clone()]).copied().collect();
        let noise: Vec<f32> = samples
            .rows()
            .flat_map(|row| {
                let origin = data.finals.rows().min_by(|a, b| distance(row, a).total_cmp(&distance(row, b)));
                let origin = origin.expect("there are training networks");
                row[range.clone()].iter().zip(&origin[range.clone()]).map(|(a, b)| a - b).collect::<Vec<_>>()
            })
            .collect();
        let ratio = moments(&noise, 1).1[0] / moments(&own, 1).1[0];
        assert!((ratio / 0.05 - 1.0).abs() < 0.05, "{}: noise of {ratio} standard deviations", tensor.name);
    }
}

#[test]
fn each_weight_has_its_own_gaussian() {
    let data = random_set();
    let d = data.finals.dim();
    let (mean, std) = moments(data.finals.data(), d);
    let (got_mean, got_std) = moments(sample(Trivial::WeightGaussian, &data, 4_000, 6).data(), d);
    for w in 0..d {
        assert!((got_mean[w] - mean[w]).abs() < 0.1 * std[w], "weight {w}: mean {} for {}", got_mean[w], mean[w]);
        assert!((got_std[w] / std[w] - 1.0).abs() < 0.08, "weight {w}: deviation {} for {}", got_std[w], std[w]);
    }
}

/// The covariance of rows of codes, divided by `n − correction`.
fn covariance(codes: &[f32], correction: f64) -> Vec<f64> {
    let (mean, _) = moments(codes, RANK);
    let mut out = vec![0.0; RANK * RANK];
    for code in codes.chunks_exact(RANK) {
        for (at, slot) in out.iter_mut().enumerate() {
            let (i, j) = (at / RANK, at % RANK);
            *slot += (f64::from(code[i]) - mean[i]) * (f64::from(code[j]) - mean[j]);
        }
    }
    let n = (codes.len() / RANK) as f64;
    out.into_iter().map(|v| v / (n - correction)).collect()
}

#[test]
fn the_gaussian_on_codes_has_mean_and_covariance_of_the_training_codes() {
    let data = random_set();
    let samples = sample(Trivial::PcaGaussian, &data, 8_000, 7);
    let codes = data.codec.encode(samples.data()).expect("samples are networks");
    let (mean, std) = moments(&data.final_codes, RANK);
    let (got_mean, _) = moments(&codes, RANK);
    let (expected, got) = (covariance(&data.final_codes, 1.0), covariance(&codes, 0.0));
    for i in 0..RANK {
        assert!((got_mean[i] - mean[i]).abs() < 0.07 * std[i], "code {i}: mean {} for {}", got_mean[i], mean[i]);
        for j in 0..RANK {
            let (e, g) = (expected[i * RANK + j], got[i * RANK + j]);
            assert!((e - g).abs() < 0.08 * std[i] * std[j], "covariance of {i} and {j}: {g} for {e}");
        }
    }
}

#[test]
fn the_density_estimate_is_wider_by_its_bandwidth() {
    let data = random_set();
    let samples = sample(Trivial::Kde, &data, 8_000, 8);
    let codes = data.codec.encode(samples.data()).expect("samples are networks");
    let bandwidth = (NETWORKS as f64).powf(-1.0 / (RANK as f64 + 4.0));
    let (mean, std) = moments(&data.final_codes, RANK);
    let (got_mean, got_std) = moments(&codes, RANK);
    for i in 0..RANK {
        let expected = std[i] * (1.0 + bandwidth * bandwidth).sqrt();
        assert!((got_mean[i] - mean[i]).abs() < 0.08 * std[i], "code {i}: mean {} for {}", got_mean[i], mean[i]);
        assert!((got_std[i] / expected - 1.0).abs() < 0.05, "code {i}: deviation {} for {expected}", got_std[i]);
    }
}
