//! Principal components against what is known about them.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use proptest::prelude::*;
use std::sync::Arc;
use weft_codec::{Codec, CodecConfig, CodecKind, Error, Normalization, Pca, Rank, Solver};
use weft_core::{Activation, Architecture, Population, Seed};

const SOLVERS: [Solver; 4] = [Solver::Auto, Solver::Gram, Solver::Covariance, Solver::Randomized];
const NORMALIZATIONS: [Normalization; 3] = [Normalization::Off, Normalization::PerTensor, Normalization::PerWeight];

fn population(widths: &[usize], data: Vec<f32>) -> Population {
    Population::new(Arc::new(Architecture::mlp("mlp", widths, Activation::Relu).unwrap()), data).unwrap()
}

/// Rows in general position: `latents` factors of falling size, plus noise, each weight with its own mean and size.
fn factor_rows(widths: &[usize], n: usize, latents: usize, noise: f32, seed: Seed) -> Population {
    let architecture = Architecture::mlp("mlp", widths, Activation::Relu).unwrap();
    let d = architecture.num_parameters();
    let (z, basis) = (seed.fork("z").normals(n * latents), seed.fork("basis").normals(latents * d));
    let (mean, extra) = (seed.fork("mean").normals(d), seed.fork("noise").normals(n * d));
    let mut data = vec![0.0; n * d];
    for i in 0..n {
        for j in 0..d {
            let factors = (0..latents).map(|k| z[i * latents + k] * basis[k * d + j] * 0.8_f32.powi(k as i32));
            data[i * d + j] = (mean[j] + factors.sum::<f32>() + noise * extra[i * d + j]) * (1.0 + (j % 5) as f32);
        }
    }
    population(widths, data)
}

fn fit(rows: &Population, rank: Rank, solver: Solver, normalize: Normalization) -> Result<Pca, Error> {
    let config = CodecConfig { kind: CodecKind::Pca { rank, solver }, normalize };
    Codec::fit(rows, &config, Seed::new(1)).map(|codec| match codec {
        Codec::Pca(pca) => pca,
        Codec::Identity(_) => panic!("asked for PCA"),
    })
}

fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squared = |x: f64| x * x;
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| squared(f64::from(a) - f64::from(b))).sum();
    (error / b.iter().map(|&b| squared(f64::from(b))).sum::<f64>()).sqrt()
}

/// Two weights `(w, b)`: points at `center ± 3·(0.6, 0.8)` and `center ± 1·(−0.8, 0.6)`. By hand: the sums of squares
/// along the two directions are 18 and 2, so over `n − 1 = 3` the eigenvalues are 6 and 2/3.
#[test]
fn four_points_on_a_cross() {
    let points = [(1.8, 2.4), (-1.8, -2.4), (-0.8, 0.6), (0.8, -0.6)];
    let rows = population(&[1, 1], points.iter().flat_map(|(x, y)| [x + 10.0, y - 5.0]).collect());
    for solver in SOLVERS {
        let pca = fit(&rows, Rank::Fixed(2), solver, Normalization::Off).unwrap();
        let close = |got: &[f32], expected: &[f32]| got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-5);
        assert!(close(pca.normalizer().mean(), &[10.0, -5.0]), "{solver:?}");
        assert!(close(pca.spectrum(), &[6.0, 2.0 / 3.0]), "{solver:?}: {:?}", pca.spectrum());
        let (major, minor) = (6.0_f32.sqrt(), (2.0_f32 / 3.0).sqrt());
        let matrix = [0.6 * major, 0.8 * major, 0.8 * minor, -0.6 * minor];
        assert!(close(pca.decode_matrix(), &matrix), "{solver:?}: {:?}", pca.decode_matrix());
        let codes = pca.encode(rows.data()).unwrap();
        let expected = [3.0 / major, 0.0, -3.0 / major, 0.0, 0.0, -1.0 / minor, 0.0, 1.0 / minor];
        assert!(close(&codes, &expected), "{solver:?}: {codes:?}");
    }
}

#[test]
fn solvers_agree() {
    for (n, widths) in [(40, vec![6, 7, 3]), (160, vec![6, 7, 3])] {
        let rows = factor_rows(&widths, n, 12, 0.02, Seed::new(n as u64));
        let reference = fit(&rows, Rank::Fixed(8), Solver::Gram, Normalization::PerTensor).unwrap();
        for solver in SOLVERS {
            let pca = fit(&rows, Rank::Fixed(8), solver, Normalization::PerTensor).unwrap();
            let spectrum = relative_error(&pca.spectrum()[..8], &reference.spectrum()[..8]);
            assert!(spectrum < 1e-4, "{solver:?}: {spectrum}");
            let matrix = relative_error(pca.decode_matrix(), reference.decode_matrix());
            assert!(matrix < 1e-2, "{solver:?}: {matrix}");
        }
    }
}

#[test]
fn codes_have_unit_variance_and_the_spectrum_sums_to_the_total() {
    let rows = factor_rows(&[9, 8, 4], 30, 10, 0.3, Seed::new(3));
    for normalize in NORMALIZATIONS {
        let pca = fit(&rows, Rank::Fixed(29), Solver::Auto, normalize).unwrap();
        let codes = pca.encode(rows.data()).unwrap();
        for k in 0..29 {
            let column: Vec<f64> = codes.iter().skip(k).step_by(29).map(|&z| f64::from(z)).collect();
            let mean = column.iter().sum::<f64>() / 30.0;
            let variance = column.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / 29.0;
            assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{normalize:?}, {k}: {mean}, {variance}");
        }
        let sum: f64 = pca.spectrum().iter().map(|&v| f64::from(v)).sum();
        assert!((sum / f64::from(pca.total_variance()) - 1.0).abs() < 1e-5, "{normalize:?}");
        assert!((pca.kept_variance() - 1.0).abs() < 1e-5, "{normalize:?}");
    }
    let per_weight = fit(&rows, Rank::Fixed(1), Solver::Auto, Normalization::PerWeight).unwrap();
    assert!((per_weight.total_variance() / rows.dim() as f32 - 1.0).abs() < 1e-5);
}

#[test]
fn kept_variance_is_the_fewest_components() {
    let rows = factor_rows(&[9, 8, 4], 60, 10, 0.3, Seed::new(4));
    for solver in SOLVERS {
        for fraction in [0.3, 0.8, 0.95] {
            let pca = fit(&rows, Rank::KeptVariance(fraction), solver, Normalization::PerTensor).unwrap();
            assert!(pca.kept_variance() >= fraction - 1e-6, "{solver:?}: {}", pca.kept_variance());
            if pca.rank() > 1 {
                let fewer = pca.truncated(pca.rank() - 1).unwrap();
                assert!(fewer.kept_variance() < fraction, "{solver:?}");
            }
        }
        let all = fit(&rows, Rank::KeptVariance(1.0), solver, Normalization::PerTensor).unwrap();
        assert!(all.rank() >= 58, "{solver:?}: {}", all.rank());
    }
}

#[test]
fn reconstruction_error_is_what_decoding_loses() {
    let rows = factor_rows(&[7, 6, 3], 50, 8, 0.2, Seed::new(5));
    let fresh = factor_rows(&[7, 6, 3], 50, 8, 0.2, Seed::new(6));
    let pca = fit(&rows, Rank::Fixed(20), Solver::Auto, Normalization::PerTensor).unwrap();
    let codec = Codec::Pca(pca.clone());
    for rows in [&rows, &fresh] {
        let errors = codec.reconstruction_error(rows.data(), &[0, 3, 20]).unwrap();
        let codes = pca.encode(rows.data()).unwrap();
        let normalized = |data: &[f32]| -> Vec<f64> {
            let normalizer = pca.normalizer();
            let terms = data.iter().enumerate().map(|(i, &x)| (i % pca.dim(), f64::from(x)));
            terms.map(|(j, x)| (x - f64::from(normalizer.mean()[j])) / f64::from(normalizer.scale()[j])).collect()
        };
        let total: f64 = normalized(rows.data()).iter().map(|x| x * x).sum();
        for (rank, error) in [0, 3, 20].into_iter().zip(errors) {
            let decoded = normalized(&pca.decode_at_rank(&codes, rank).unwrap());
            let lost: f64 = normalized(rows.data()).iter().zip(decoded).map(|(x, y)| (x - y).powi(2)).sum();
            assert!((error - lost / total).abs() < 1e-4, "rank {rank}: {error} against {}", lost / total);
            let short = if rank == 0 { continue } else { pca.truncated(rank).unwrap() };
            let decoded = short.decode(&short.encode(rows.data()).unwrap()).unwrap();
            assert!(relative_error(&decoded, &pca.decode_at_rank(&codes, rank).unwrap()) < 1e-5);
        }
    }
    let of_fit = codec.reconstruction_error(rows.data(), &[20]).unwrap()[0];
    assert!((of_fit - (1.0 - pca.kept_variance())).abs() < 1e-4);
}

/// With unnormalized weights the residual variances sum to the discarded eigenvalues (times `(n − 1)/n`).
#[test]
fn residual_variance_sums_to_the_discarded_eigenvalues() {
    let rows = factor_rows(&[7, 6, 3], 40, 8, 0.2, Seed::new(7));
    let pca = fit(&rows, Rank::Fixed(5), Solver::Auto, Normalization::Off).unwrap();
    let residual = Codec::Pca(pca.clone()).residual_variance(rows.data()).unwrap();
    assert_eq!(residual.len(), rows.dim());
    let sum: f64 = residual.iter().map(|&v| f64::from(v)).sum();
    let discarded: f64 = pca.spectrum()[5..].iter().map(|&v| f64::from(v)).sum();
    assert!((sum / (discarded * 39.0 / 40.0) - 1.0).abs() < 1e-3, "{sum} against {discarded}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let rows = factor_rows(&[30, 40, 10], 300, 20, 0.1, Seed::new(8));
    let all = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            SOLVERS.map(|solver| {
                let pca = fit(&rows, Rank::Fixed(24), solver, Normalization::PerTensor).unwrap();
                let codes = pca.encode(rows.data()).unwrap();
                let decoded = pca.decode(&codes).unwrap();
                let residual = Codec::Pca(pca.clone()).residual_variance(rows.data()).unwrap();
                (pca, codes, decoded, residual)
            })
        })
    };
    let one = all(1);
    for threads in [2, 5] {
        assert!(all(threads) == one, "{threads} threads");
    }
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let rows = factor_rows(&[3, 4, 2], 12, 20, 0.5, Seed::new(9));
    let check = |rows: &Population, rank, expected: &str| {
        for solver in SOLVERS {
            let error = fit(rows, rank, solver, Normalization::PerTensor).unwrap_err().to_string();
            assert!(error.contains(expected), "{solver:?}: {error}");
        }
    };
    check(&rows, Rank::Fixed(0), "rank 0 is not in 1..=11");
    check(&rows, Rank::Fixed(12), "rank 12 is not in 1..=11");
    check(&rows, Rank::Fixed(usize::MAX), "is not in 1..=11");
    for got in [0.0, -1.0, 1.1, f64::NAN] {
        check(&rows, Rank::KeptVariance(got), "above 0 and at most 1");
    }
    check(&rows.select(&[0]), Rank::Fixed(1), "at least 2 networks");
    check(&rows.select(&[]), Rank::Fixed(1), "at least 2 networks");
    check(&rows.select(&[3, 3, 3]), Rank::Fixed(1), "do not vary");
    check(&rows.select(&[0, 1, 0, 1, 2]), Rank::Fixed(3), "rank 3 is not in 1..=2");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut rows = rows.clone();
        let at = 4 * rows.dim() + 7;
        rows.data_mut()[at] = bad;
        check(&rows, Rank::Fixed(2), "network 4, weight 7 is not finite");
    }
    let mut wild = rows.clone();
    wild.data_mut()[3] = f32::MAX;
    check(&wild, Rank::Fixed(2), "more than a codec can hold");
}

#[test]
fn what_cannot_be_encoded_or_decoded_is_refused() {
    let rows = factor_rows(&[3, 4, 2], 12, 20, 0.5, Seed::new(9));
    let pca = fit(&rows, Rank::Fixed(4), Solver::Auto, Normalization::PerTensor).unwrap();
    let d = rows.dim();
    assert_eq!(pca.encode(&rows.data()[1..]), Err(Error::Length { what: "weights", row: d, got: 12 * d - 1 }));
    let mut spoilt = rows.data().to_vec();
    spoilt[2 * d + 1] = f32::NAN;
    assert_eq!(pca.encode(&spoilt), Err(Error::NonFinite { row: 2, weight: 1 }));
    assert_eq!(pca.decode(&[0.0; 6]), Err(Error::Length { what: "codes", row: 4, got: 6 }));
    assert_eq!(pca.decode_at_rank(&[0.0; 8], 5), Err(Error::Rank { asked: 5, available: 4 }));
    assert_eq!(pca.truncated(0), Err(Error::Rank { asked: 0, available: 4 }));
    let codec = Codec::Pca(pca.clone());
    assert_eq!(codec.residual_variance(&[]), Err(Error::TooFewRows { needed: 1, got: 0 }));
    assert_eq!(codec.reconstruction_error(rows.data(), &[5]), Err(Error::Rank { asked: 5, available: 4 }));
    assert_eq!(pca.encode(&[]), Ok(vec![]));
    assert_eq!(pca.decode(&[]), Ok(vec![]));
}

/// Dead weights never vary: they must come back exactly and must not disturb the rest.
#[test]
fn constant_weights_stay() {
    let mut rows = factor_rows(&[5, 4, 2], 20, 30, 0.5, Seed::new(10));
    let d = rows.dim();
    for row in rows.data_mut().chunks_exact_mut(d) {
        row[2] = 0.25;
        row[20..24].fill(-1.5); // the whole first bias
    }
    for normalize in NORMALIZATIONS {
        let pca = fit(&rows, Rank::Fixed(19), Solver::Auto, normalize).unwrap();
        let decoded = pca.decode(&pca.encode(rows.data()).unwrap()).unwrap();
        for row in decoded.chunks_exact(d) {
            assert!((row[2] - 0.25).abs() < 1e-6, "{normalize:?}: {}", row[2]);
            assert_eq!(row[20..24], [-1.5; 4], "{normalize:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// At full rank the rows fitted on, and all their affine combinations, come back.
    #[test]
    fn full_rank_decodes_what_was_encoded(
        seed: u64, n in 2_usize..40, hidden in 1_usize..6, normalize in 0_usize..3, solver in 0_usize..4,
    ) {
        let rows = factor_rows(&[4, hidden, 2], n, 60, 0.5, Seed::new(seed));
        let rank = Rank::KeptVariance(1.0);
        let pca = fit(&rows, rank, SOLVERS[solver], NORMALIZATIONS[normalize]).unwrap();
        let mut data = rows.data().to_vec();
        let mix: Vec<f32> = rows.row(0).iter().zip(rows.row(n - 1)).map(|(a, b)| 1.5 * a - 0.5 * b).collect();
        data.extend(mix);
        let decoded = pca.decode(&pca.encode(&data).unwrap()).unwrap();
        let error = relative_error(&decoded, &data);
        prop_assert!(error < 1e-3, "{}", error);
    }

    /// Encoding a decoded code gives the code, at any rank.
    #[test]
    fn codes_survive_decoding(seed: u64, rank in 1_usize..10, normalize in 0_usize..3) {
        let rows = factor_rows(&[4, 5, 2], 25, 60, 0.5, Seed::new(seed));
        let pca = fit(&rows, Rank::Fixed(rank), Solver::Auto, NORMALIZATIONS[normalize]).unwrap();
        let codes = Seed::new(seed).fork("codes").normals(7 * rank);
        let error = relative_error(&pca.encode(&pca.decode(&codes).unwrap()).unwrap(), &codes);
        prop_assert!(error < 1e-3, "{}", error);
    }
}
