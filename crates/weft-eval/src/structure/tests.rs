//! Zoos whose structure is known.

use super::*;
use std::sync::Arc;
use weft_core::{Activation, Architecture, Inputs};

fn architecture() -> Arc<Architecture> {
    Arc::new(Architecture::mlp("m", &[8, 10, 3], Activation::Relu).unwrap())
}

fn options(seed: u64) -> StructureOptions<'static> {
    StructureOptions { trial: None, num_pairs: 4, seed: Seed::new(seed) }
}

fn trial(dataset: &Dataset) -> Trial<'_> {
    static CPU: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    Trial { dataset, device: CPU.get_or_init(Device::cpu), recalibrate: 0 }
}

/// `n` networks around a common one in `rank` directions of equal variance.
fn few_dimensional(n: usize, rank: usize) -> Population {
    let architecture = architecture();
    let d = architecture.num_parameters();
    let basis = Seed::new(1).normals(rank * d);
    let center = Seed::new(2).normals(d);
    let codes = Seed::new(3).normals(n * rank);
    let row = |code: &[f32]| -> Vec<f32> {
        let at = |j: usize| center[j] + code.iter().enumerate().map(|(k, c)| c * basis[k * d + j]).sum::<f32>();
        (0..d).map(at).collect()
    };
    Population::new(architecture, codes.chunks_exact(rank).flat_map(row).collect()).unwrap()
}

#[test]
fn a_zoo_of_three_dimensions_has_effective_rank_three() {
    let networks = few_dimensional(120, 3);
    let found = structure(&networks, options(0)).unwrap();
    let names: Vec<_> = found.spectra.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["all weights", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]);
    for spectrum in &found.spectra[..2] {
        let Dimension { participation_ratio, entropy_rank, components_90, components_99 } = spectrum.dimension;
        assert!((2.6..=3.0001).contains(&participation_ratio.mean), "{participation_ratio:?}");
        assert!((2.7..=3.0001).contains(&entropy_rank.mean), "{entropy_rank:?}");
        assert!(participation_ratio.se > 0.0 && participation_ratio.se < 0.3);
        assert_eq!((components_90, components_99), (3, 3));
        // What f32 leaves of the other directions is rounding.
        assert!(spectrum.variances[3..].iter().all(|v| v / spectrum.variances[0] < 1e-9));
        // Without the correlations nearly every direction is one; a random basis of three keeps next to nothing.
        assert!(spectrum.shuffled.participation_ratio.mean > 20.0, "{:?}", spectrum.shuffled);
        let d: usize = spectrum.shape.iter().product();
        assert!((spectrum.random_basis.mean - 3.0 / d as f64).abs() < 0.1, "{:?}", spectrum.random_basis);
    }
    assert_eq!(found.spectra[2].max_rank, 10);
}

#[test]
fn independent_coordinates_look_like_their_control() {
    let architecture = architecture();
    let d = architecture.num_parameters();
    let networks = Population::new(architecture, Seed::new(7).normals(60 * d)).unwrap();
    let whole = &structure(&networks, options(1)).unwrap().spectra[0];
    let (found, control) = (whole.dimension.participation_ratio, whole.shuffled.participation_ratio);
    // Marchenko–Pastur: the ratio is nd/(n + d) for n − 1 degrees of freedom.
    let expected = 59.0 * d as f64 / (59.0 + d as f64);
    assert!((found.mean / expected - 1.0).abs() < 0.06 && (control.mean / expected - 1.0).abs() < 0.06, "{found:?} {control:?}");
    assert!((whole.total_variance / d as f64 - 1.0).abs() < 0.1);
}

#[test]
fn distances_of_independent_networks_are_those_of_normals() {
    let architecture = architecture();
    let d = architecture.num_parameters();
    let networks = Population::new(architecture, Seed::new(8).normals(80 * d)).unwrap();
    let found = structure(&networks, options(2)).unwrap();
    assert!((found.pairwise.mean / (2.0 * d as f64).sqrt() - 1.0).abs() < 0.03, "{:?}", found.pairwise);
    // To the mean of n it is √(d(1 − 1/n)): 1/√2 of the distance of a pair.
    assert!((found.to_mean.mean / (d as f64).sqrt() - 1.0).abs() < 0.03, "{:?}", found.to_mean);
    assert!(found.pairwise.se > 0.0 && found.pairwise.se < 0.05 * found.pairwise.mean);
}

#[test]
fn identical_networks_have_no_dimension_no_distance_and_no_barrier() {
    let architecture = architecture();
    let row = weft_net::initial_weights(&architecture, Seed::new(1));
    let networks = Population::new(architecture, row.repeat(5)).unwrap();
    let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
    let dataset = Dataset::new("noise", Inputs::Floats(Seed::new(4).normals(480)), labels, 3, [20, 20]).unwrap();
    let found = structure(&networks, StructureOptions { trial: Some(trial(&dataset)), ..options(3) }).unwrap();
    assert!(found.pairwise.mean < 1e-6 && found.to_mean.mean < 1e-6);
    let whole = &found.spectra[0];
    assert!(whole.total_variance < 1e-12, "{}", whole.total_variance);
    assert!(found.barrier.unwrap().mean < 1e-6);
    assert!((found.mean_accuracy.unwrap() - found.accuracy.unwrap().mean).abs() < 1e-9);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Structure>(&json).unwrap(), found);
}

#[test]
fn noise_costs_more_the_more_there_is_and_the_same_on_the_whole_orbit() {
    let architecture = Arc::new(Architecture::mlp("m", &[2, 2, 2], Activation::Relu).unwrap());
    // Logits ±10x, by units relu(x) and relu(−x): sure of the sign of x.
    let row = [10.0, 0.0, -10.0, 0.0, 0.0, 0.0, 1.0, -1.0, -1.0, 1.0, 0.0, 0.0];
    let scaled = [40.0, 0.0, -2.5, 0.0, 0.0, 0.0, 0.25, -4.0, -0.25, 4.0, 0.0, 0.0];
    let inputs: Vec<f32> = (0..60).flat_map(|i| [if i % 2 == 0 { 0.3 } else { -0.3 }, 1.0]).collect();
    let dataset = Dataset::new("sign", Inputs::Floats(inputs), (0..60).map(|i| i % 2).collect(), 2, [20, 20]).unwrap();
    let measure = |row: [f32; 12]| {
        let networks = Population::new(architecture.clone(), row.repeat(6)).unwrap();
        sharpness(&networks, trial(&dataset), Seed::new(5)).unwrap()
    };
    let (points, other) = (measure(row), measure(scaled));
    assert!(points.windows(2).all(|w| w[0].scale < w[1].scale));
    assert!(points[0].loss_increase.mean.abs() < points[3].loss_increase.mean);
    for (a, b) in points.iter().zip(&other) {
        assert!((a.loss_increase.mean - b.loss_increase.mean).abs() < 1e-5, "{a:?} {b:?}");
    }
}

#[test]
fn too_few_networks_and_infinite_weights_are_refused() {
    let networks = few_dimensional(2, 1);
    assert!(structure(&networks, options(0)).unwrap_err().to_string().contains("2 given, at least 3"));
    let mut networks = few_dimensional(4, 1);
    networks.data_mut()[7] = f32::NAN;
    assert!(matches!(structure(&networks, options(0)), Err(Error::NonFinite { .. })));
}
