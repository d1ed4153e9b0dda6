//! A made-up report for tests of the page. Its figures are invented, and its title says so.

use super::data::*;
use crate::structure::{Dimension, SharpnessPoint, Structure, TensorSpectrum};

/// A report in which every part is present.
pub(crate) fn sample() -> Report {
    Report {
        recipes: None,
        tasks: None,
        textures: None,
        title: "Sample report with invented figures".to_owned(),
        zoo: ZooFacts {
            name: "invented".to_owned(),
            architecture: "64-16-10, relu".to_owned(),
            num_parameters: 1_210,
            num_train_runs: 448,
            num_test_runs: 64,
            num_checkpoints: 2_560,
            dataset: "digits 8×8".to_owned(),
            num_test_examples: 300,
            num_validation_examples: 300,
            recipe: "adam, rate 0.003, cosine, batch 32, 30 epochs".to_owned(),
            licence: "CC-BY-4.0".to_owned(),
        },
        evaluation: evaluation(),
        filters: (0..6).map(filter_pair).collect(),
        canonicalization: Some(canonicalization()),
        structure: Some(structure()),
        codec: Some(codec()),
        training: vec![loss_curve("flow", "velocity MSE", 1.4), loss_curve("refiner", "cross-entropy + μ·|r|²", 2.4)],
        ablation: ablation(),
        costs: Costs {
            machine: "2 invented cores".to_owned(),
            zoo_secs: Some(31.0),
            run_secs: Some(0.061),
            fit_secs: Some(48.2),
            sample_secs: Some(0.0021),
            sample_batch: 256,
            sgd_secs: Some(0.052),
            peak_memory_bytes: Some(612 << 20),
        },
        stages: ["collect", "canonicalize", "encode", "generate", "validate"]
            .iter()
            .enumerate()
            .map(|(i, name)| StageTime { name: (*name).to_owned(), secs: 31.0 / (i + 1) as f64, reused: i == 0 })
            .collect(),
        provenance: Provenance {
            weft_version: "0.1.0".to_owned(),
            seeds: vec![fact("run", "7")],
            digests: vec![fact("zoo", &"3f9a".repeat(16)), fact("codec", &"77c1".repeat(16))],
            config_toml: "[zoo]\nruns = 512\n\n[generator.flow]\nwidth = 512\n".to_owned(),
        },
    }
}

fn fact(name: &str, value: &str) -> Fact {
    Fact { name: name.to_owned(), value: value.to_owned() }
}

fn e(mean: f64, se: f64) -> Estimate {
    Estimate { mean, se }
}

/// A number in `[-1, 1]` that looks random.
fn wobble(i: usize) -> f64 {
    (i as f64 * 12.9898).sin() * 43_758.545_3 % 1.0
}

const THRESHOLDS: [f64; 5] = [0.25, 0.5, 0.75, 1.0, 1.5];

fn evaluation() -> Evaluation {
    let rows = [
        ("held-out runs", RowKind::Runs, 0.957, 1.0, 1.0),
        ("null-direction copies", RowKind::NullCopy, 0.958, 0.02, 0.98),
        ("noise copies σ=0.05", RowKind::Baseline, 0.941, 0.24, 1.0),
        ("noise copies σ=0.2", RowKind::Baseline, 0.70, 0.74, 1.0),
        ("per-weight Gaussian", RowKind::Baseline, 0.31, 1.32, 1.2),
        ("PCA-Gaussian", RowKind::Baseline, 0.71, 0.87, 1.09),
        ("KDE", RowKind::Baseline, 0.83, 0.52, 0.98),
        ("interpolation, raw", RowKind::Baseline, 0.45, 1.1, 0.9),
        ("interpolation, aligned", RowKind::Baseline, 0.905, 0.41, 0.82),
        ("soup-16, raw", RowKind::Baseline, 0.12, 1.6, 0.3),
        ("soup-16, aligned", RowKind::Baseline, 0.80, 0.62, 0.25),
        ("mean", RowKind::Baseline, 0.77, 0.66, 0.0),
        ("nearest neighbour", RowKind::Baseline, 0.957, 0.0, 1.0),
        ("flow", RowKind::Generator, 0.872, 0.71, 0.93),
        ("flow + refiner", RowKind::Refined, 0.954, 0.93, 0.91),
        ("PCA-Gaussian + refiner", RowKind::Refined, 0.951, 0.96, 0.94),
        ("interpolation, aligned + refiner", RowKind::Refined, 0.949, 0.72, 0.77),
        ("KDE + refiner", RowKind::Refined, 0.95, 0.83, 0.9),
        ("soup-16, aligned + refiner", RowKind::Refined, 0.953, 0.81, 0.31),
    ];
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|(name, kind, accuracy, distance, pairwise)| row(name, kind, [accuracy, distance, pairwise]))
        .collect();
    let npd = |name: &str, t: usize| rows.iter().find(|r| r.name == name).map_or(e(0.0, 0.0), |r| r.curves[0].npd[t]);
    let verdicts = ["median", "quartile"]
        .iter()
        .flat_map(|bar| THRESHOLDS.iter().enumerate().map(move |(t, threshold)| (bar, t, threshold)))
        .map(|(bar, t, threshold)| Verdict {
            threshold: *threshold,
            bar: (*bar).to_owned(),
            finding: [Finding::Matched, Finding::Novel, Finding::Novel, Finding::Matched, Finding::Replay][t],
            ours: "flow + refiner".to_owned(),
            ours_npd: npd("flow + refiner", t),
            baseline: "interpolation, aligned".to_owned(),
            baseline_npd: npd("interpolation, aligned", t),
            held_out_npd: npd("held-out runs", t),
        })
        .collect();
    let counts = [
        ("accuracy", 0.954, 0.957),
        ("distance / d₁", 0.93, 0.9),
        ("functional / f₁", 0.94, 0.9),
        ("pairwise", 0.91, 0.9),
        ("disagreement", 0.86, 0.9),
    ];
    let parity = ["flow", "flow + refiner"]
        .iter()
        .flat_map(|generator| counts.iter().map(move |(count, value, target)| (generator, count, *value, *target)))
        .map(|(generator, count, value, target)| Parity {
            generator: (*generator).to_owned(),
            count: (*count).to_owned(),
            value,
            target,
            met: value >= target,
        })
        .collect();
    let units = Units {
        d1: 5.1,
        f1: 2.2,
        bar_median: 0.957,
        bar_quartile: 0.95,
        zoo_mean: 0.956,
        zoo_std: 0.008,
        orbit_check: 2e-4,
        exact: true,
        ..Units::default()
    };
    Evaluation { thresholds: THRESHOLDS.to_vec(), units, rows, verdicts, parity, snapshot_thresholds: vec![1.0, 2.0] }
}

fn row(name: &str, kind: RowKind, [accuracy, distance, pairwise]: [f64; 3]) -> Row {
    let spread = if kind == RowKind::Baseline { 0.03 } else { 0.008 };
    let fraction = |threshold: f64, ease: f64| {
        let far = 1.0 / (1.0 + ((threshold - distance) * 9.0).exp());
        let good = 1.0 / (1.0 + ((0.955 - ease - accuracy) * 250.0).exp());
        e(far * good * 0.97, 0.015)
    };
    let curve = |bar: &str, at: f64, ease: f64| ThresholdCurve {
        bar: bar.to_owned(),
        accuracy: at,
        npd: THRESHOLDS.iter().map(|t| fraction(*t, ease)).collect(),
        np: THRESHOLDS.iter().map(|t| fraction(*t * 0.95, ease)).collect(),
    };
    let is_runs = kind == RowKind::Runs;
    Row {
        name: name.to_owned(),
        kind,
        num_seeds: 3,
        num_samples: 256,
        accuracy: e(accuracy, 0.001),
        accuracy_std: spread,
        distance: e(distance, 0.01),
        distance_quartiles: [distance * 0.93, distance * 1.06],
        functional: e(distance * 1.05, 0.01),
        distance_weighted: Some(e(distance * 0.98, 0.01)),
        fellow_distance: e(distance * pairwise, 0.01),
        pairwise: e(pairwise, 0.006),
        pairwise_functional: e(pairwise * 0.97, 0.006),
        disagreement: e(pairwise * 1.1, 0.02),
        max_iou: e(0.31, 0.004),
        vote_gain: e(0.012, 0.002),
        curves: vec![curve("median", 0.957, 0.0), curve("quartile", 0.95, 0.008)],
        sample_secs: (!is_runs).then_some(0.0021),
        fit_secs: (!is_runs).then_some(48.0),
        sample_run_equivalents: (!is_runs).then_some(0.004),
        fit_run_equivalents: (!is_runs).then_some(310.0),
        num_invalid: usize::from(name == "per-weight Gaussian") * 9,
        snapshot_curves: vec![ThresholdCurve {
            bar: "0.85".to_owned(),
            accuracy: 0.85,
            npd: vec![e(0.4, 0.01); 2],
            np: vec![e(0.5, 0.01); 2],
        }],
        points: (0..200)
            .map(|i| {
                (
                    distance * (1.0 + 0.09 * (wobble(i) + wobble(i + 991))),
                    (accuracy + spread * (wobble(i + 77) + wobble(i + 501))).min(1.0),
                )
            })
            .collect(),
    }
}

fn canonicalization() -> Canonicalization {
    let lambda: Vec<f64> = (0..11).map(|i| f64::from(i) / 10.0).collect();
    let path = |depth: f64| InterpolationPath {
        accuracy: lambda.iter().map(|l| e(0.957 - depth * 4.0 * l * (1.0 - l), 0.02 * depth)).collect(),
        loss: lambda.iter().map(|l| e(0.15 + depth * 9.0 * l * (1.0 - l), 0.1 * depth)).collect(),
        lambda: lambda.clone(),
        num_pairs: 32,
    };
    Canonicalization {
        group: "the 16 hidden units may be permuted, and each rescaled by a positive factor".to_owned(),
        num_networks: 2_560,
        distance: BeforeAfter { before: e(9.4, 0.02), after: e(5.3, 0.02) },
        barrier: Some(BeforeAfter { before: e(1.31, 0.04), after: e(0.11, 0.01) }),
        path_before: path(0.5),
        path_after: path(0.05),
        num_ill_conditioned: 3,
        max_function_deviation: 3.1e-6,
        num_proven_in_f64: 0,
        mean_history: vec![6.2, 5.6, 5.4, 5.3],
    }
}

fn structure() -> ZooStructure {
    let form = |depth: f64| {
        let spectrum = |name: &str, shape: &[usize], rank: f64| TensorSpectrum {
            name: name.to_owned(),
            shape: shape.to_vec(),
            max_rank: 127,
            total_variance: 40.0,
            variances: (0..64).map(|i| 40.0 / rank * (-f64::from(i) / rank).exp()).collect(),
            dimension: Dimension {
                participation_ratio: e(2.0 * rank, 0.4),
                entropy_rank: e(2.7 * rank, 0.5),
                components_90: (2.3 * rank) as usize,
                components_99: (4.6 * rank) as usize,
            },
            shuffled: Dimension {
                participation_ratio: e(96.0, 0.3),
                entropy_rank: e(108.0, 0.2),
                components_90: 96,
                components_99: 122,
            },
            random_basis: e(0.02, 0.001),
        };
        Structure {
            num_networks: 128,
            spectra: vec![
                spectrum("all weights", &[1_210], 12.0 * depth),
                spectrum("layers.0.weight", &[16, 64], 11.0 * depth),
                spectrum("layers.0.bias", &[16], 3.0),
            ],
            pairwise: e(9.4 * depth, 0.02),
            to_mean: e(6.6 * depth, 0.02),
            accuracy: Some(e(0.957, 0.001)),
            mean_accuracy: Some(0.9 - 0.6 * depth),
            barrier: Some(e(1.31 * depth, 0.04)),
            path: None,
        }
    };
    let noise = |scale: f64| SharpnessPoint {
        scale,
        loss_increase: e(3.0 * scale * scale, 0.01),
        accuracy_decrease: e(scale / 3.0, 0.001),
    };
    ZooStructure {
        num_sampled: 128,
        num_runs: 512,
        dataset: Some("digits".to_owned()),
        raw: form(1.0),
        canonical: Some(form(0.4)),
        sharpness: [0.01, 0.03, 0.1, 0.3].map(noise).to_vec(),
        num_sharp: 16,
        ..ZooStructure::default()
    }
}

fn codec() -> CodecFigures {
    let spectrum: Vec<f64> = (0..448).map(|i| 40.0 * (-f64::from(i) / 60.0).exp() + 0.002).collect();
    let ranks = [8, 16, 32, 64, 128, 256, 448].map(|rank| {
        let miss = (-(rank as f64) / 90.0).exp();
        RankFigures {
            rank,
            error_fitted: miss,
            error_unseen: 0.35 + 0.65 * miss,
            accuracy_fitted: e(0.957 - 0.3 * miss, 0.002),
            accuracy_unseen: e(0.93 - 0.4 * miss, 0.003),
        }
    });
    CodecFigures {
        kind: "pca".to_owned(),
        rank: 256,
        num_parameters: 1_210,
        kept_variance: 0.981,
        total_variance: spectrum.iter().sum(),
        spectrum,
        ranks: ranks.to_vec(),
        accuracy_before: 0.958,
    }
}

fn loss_curve(name: &str, loss: &str, start: f64) -> TrainingCurve {
    let points =
        (0..1_500).map(|i| (i as f64 * 2.0, start * (0.3 + 0.7 * (-(i as f64) / 250.0).exp()) * (1.0 + 0.1 * wobble(i)))).collect();
    TrainingCurve { name: name.to_owned(), loss: loss.to_owned(), points }
}

fn ablation() -> Vec<AblationRow> {
    let rows = [
        ("μ = 0.003", 0.951, 0.78, 0.54, 280.0),
        ("μ = 0.001", 0.957, 0.84, 0.45, 280.0),
        ("μ = 0.003, own data", 0.952, 0.88, 0.79, 291.0),
        ("μ = 0.003, own data, repulsion", 0.954, 0.93, 0.91, 310.0),
        ("μ = 0.003, hinge", 0.948, 0.75, 0.66, 284.0),
    ];
    rows.into_iter()
        .enumerate()
        .map(|(i, (settings, accuracy, distance, pairwise, cost))| AblationRow {
            settings: settings.to_owned(),
            chosen: i == 3,
            accuracy: e(accuracy, 0.001),
            distance: e(distance, 0.01),
            functional: e(distance, 0.01),
            pairwise: e(pairwise, 0.01),
            disagreement: e(pairwise, 0.01),
            run_equivalents: cost,
        })
        .collect()
}

fn filter_pair(index: usize) -> FilterPair {
    let unit = |unit: usize, phase: f64| {
        let angle = unit as f64 * 0.7 + index as f64;
        (0..64)
            .map(|p| {
                let (x, y) = (f64::from(p % 8) - 3.5, f64::from(p / 8) - 3.5);
                let bump = (-(x * x + y * y) / 14.0).exp();
                (bump * (angle.cos() * x + angle.sin() * y + phase).sin() + 0.08 * wobble(unit * 64 + p as usize + index)) as f32
            })
            .collect()
    };
    FilterPair {
        name: format!("flow + refiner, sample {index}"),
        side: 8,
        sampled: (0..16).map(|u| unit(u, 0.0)).collect(),
        nearest: (0..16).map(|u| unit(u, 0.9)).collect(),
        distance: 0.91 + 0.02 * index as f64,
        accuracy: 0.957,
        nearest_accuracy: 0.953,
    }
}
