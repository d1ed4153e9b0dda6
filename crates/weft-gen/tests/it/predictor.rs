//! The prediction of accuracy from weights: it ranks networks of runs that it never saw, and says honestly when it cannot.

use crate::support::{points, trained_set};
use weft_core::{Part, Population, Seed};
use weft_gen::AccuracyPredictor;
use weft_net::Device;

/// Trained networks with more and more noise: `copies` of each run.
fn worn(copies: usize) -> (Population, Vec<String>) {
    let finals = trained_set(None).finals;
    let mut networks = Population::zeros(finals.architecture().clone(), 0);
    let mut runs = Vec::new();
    for (run, row) in finals.rows().enumerate() {
        for copy in 0..copies {
            let scale = 0.4 * copy as f32;
            let noise = Seed::new(50).index(run as u64).index(copy as u64).normals(row.len());
            let row = row.iter().zip(noise).map(|(w, g)| w + scale * g).collect();
            networks
                .extend(&Population::new(finals.architecture().clone(), row).expect("a whole network"))
                .expect("one architecture");
            runs.push(format!("run-{run}"));
        }
    }
    (networks, runs)
}

#[test]
fn networks_of_other_runs_are_ranked() {
    let (networks, runs) = worn(6);
    let accuracies = weft_net::accuracies(&networks, &points(), Part::Validation, &Device::cpu()).expect("three classes");
    let codec = trained_set(None).codec;
    let predictor = AccuracyPredictor::fit(codec.clone(), &networks, &accuracies, &runs, Seed::new(1)).expect("24 runs");
    let quality = predictor.quality();
    assert_eq!((quality.num_networks, quality.num_runs), (18, 3));
    assert!(quality.r_squared > 0.3 && quality.kendall_tau > 0.4, "{quality:?}");
    // Of accuracies that have nothing to do with the weights there is nothing to know.
    let drawn: Vec<f64> = Seed::new(2).uniforms(accuracies.len()).into_iter().map(f64::from).collect();
    let none = AccuracyPredictor::fit(codec, &networks, &drawn, &runs, Seed::new(1)).expect("24 runs").quality();
    assert!(none.r_squared < 0.2 && none.kendall_tau.abs() < 0.4, "{none:?}");
    let predicted = predictor.predict(&networks).expect("the same architecture");
    let (least, most): (f64, f64) =
        (0..24).map(|run| (predicted[run * 6 + 5], predicted[run * 6])).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert!(most > least + 24.0 * 0.1, "the most worn are predicted to be worse");
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let (networks, runs) = worn(1);
    let codec = trained_set(None).codec;
    let fit = |accuracies: &[f64], runs: &[String]| {
        AccuracyPredictor::fit(codec.clone(), &networks, accuracies, runs, Seed::new(1)).expect_err("no predictor").to_string()
    };
    assert!(fit(&[0.5; 3], &runs).contains("`accuracies` must be one, and a run, for each network"));
    assert!(fit(&[0.5; 24], &vec!["one".to_owned(); 24]).contains("`runs` must be 3 or more"));
    let other = weft_testkit::random_population(&weft_testkit::mlp(&[8, 5, 3], weft_core::Activation::Relu), 2, Seed::new(3));
    let predictor = AccuracyPredictor::fit(codec.clone(), &networks, &[0.5; 24], &runs, Seed::new(1)).expect("24 runs");
    assert!(predictor.predict(&other).expect_err("another architecture").to_string().contains("`networks` must be"));
}
