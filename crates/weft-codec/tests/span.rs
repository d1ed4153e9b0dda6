//! PCA of networks that are read in blocks, against the same in memory.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use weft_codec::{Blocks, Codec, CodecConfig, CodecKind, Error, Normalization, Pca, Rank, Solver, Span};
use weft_core::families::{Family, ResNet};
use weft_core::{Activation, Architecture, Population, Seed, Window};

/// Wide enough that a row is several pieces of a sum; with or without batch norms.
fn rows(n: usize, seed: u64, norms: bool) -> Population {
    let stem = Window { size: [3, 3], stride: [1, 1], padding: [1, 1] };
    let blocks = ResNet { image: [1, 4, 4], stem, stem_pool: false, widths: vec![10, 12], blocks: 1, num_classes: 3 };
    let architecture = Arc::new(if norms {
        Family::ResNet(blocks).build("blocks").unwrap()
    } else {
        Architecture::mlp("mlp", &[40, 60, 30], Activation::Relu).unwrap()
    });
    let d = architecture.num_parameters();
    let (z, basis, noise) = (Seed::new(seed).normals(n * 4), Seed::new(1).normals(4 * d), Seed::new(seed + 1).normals(n * d));
    let value = |i: usize, j: usize| (0..4).map(|k| z[i * 4 + k] * basis[k * d + j] / (k + 1) as f32).sum::<f32>();
    let data = (0..n * d).map(|at| value(at / d, at % d) + 0.05 * noise[at] + (at % d % 7) as f32).collect();
    Population::new(architecture, data).unwrap()
}

fn in_blocks<T>(rows: &Population, width: usize, work: impl FnOnce(&mut Blocks<'_, Error>) -> T) -> T {
    let mut read = |columns: Range<usize>, out: &mut [f32]| {
        for (out, row) in out.chunks_exact_mut(columns.len()).zip(rows.rows()) {
            out.copy_from_slice(&row[columns.clone()]);
        }
        Ok(())
    };
    work(&mut Blocks::new(rows.architecture(), rows.len(), width, &mut read))
}

fn span(rows: &Population, width: usize, normalize: Normalization) -> Result<Span, Error> {
    in_blocks(rows, width, |blocks| Span::fit(blocks, Rank::Fixed(5), normalize))
}

fn decode(span: &Span, rows: &Population, width: usize, codes: &[f32]) -> Vec<f32> {
    let (m, d) = (codes.len() / span.rank(), rows.dim());
    let mut all = vec![0.0; m * d];
    in_blocks(rows, width, |blocks| {
        span.decode(codes, blocks, &mut |columns, part| {
            for (out, part) in all.chunks_exact_mut(d).zip(part.chunks_exact(columns.len())) {
                out[columns.clone()].copy_from_slice(part);
            }
            Ok(())
        })
    })
    .unwrap();
    all
}

fn pca(rows: &Population, normalize: Normalization) -> Pca {
    let kind = CodecKind::Pca { rank: Rank::Fixed(5), solver: Solver::Gram };
    match Codec::fit(rows, &CodecConfig { kind, normalize }, Seed::new(0)).unwrap() {
        Codec::Pca(pca) => pca,
        Codec::Identity(_) => panic!("asked for PCA"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn blocks_change_nothing(
        n in 7_usize..14,
        seed in 0_u64..1000,
        width in 1_usize..6000,
        kind in 0_usize..3,
        norms in any::<bool>(),
    ) {
        let normalize = [Normalization::Off, Normalization::PerTensor, Normalization::PerWeight][kind];
        let rows = rows(n, seed, norms);
        let (whole, parts) = (pca(&rows, normalize), span(&rows, width, normalize).unwrap());
        // The sums are the same, bit for bit.
        prop_assert_eq!(whole.spectrum(), parts.spectrum());
        prop_assert_eq!(whole.total_variance().to_bits(), parts.total_variance().to_bits());
        prop_assert_eq!(&parts, &span(&rows, rows.dim(), normalize).unwrap());
        for (a, b) in whole.encode(rows.data()).unwrap().iter().zip(parts.codes()) {
            prop_assert!((a - b).abs() < 1e-3, "{} in memory, {} in blocks", a, b);
        }
        let codes = Seed::new(seed).fork("codes").normals(2 * parts.rank());
        let decoded = decode(&parts, &rows, width, &codes);
        prop_assert_eq!(&decoded, &decode(&parts, &rows, rows.dim(), &codes));
        for (a, b) in whole.decode(&codes).unwrap().iter().zip(&decoded) {
            prop_assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{} in memory, {} in blocks", a, b);
        }
    }
}

#[test]
fn threads_change_nothing() {
    let rows = rows(9, 3, false);
    let fit = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| span(&rows, 2048, Normalization::PerTensor).unwrap())
    };
    assert_eq!(fit(1), fit(3));
}

type Stored = std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)>;

#[test]
fn a_stored_span_is_the_same_and_a_damaged_one_is_refused() {
    let rows = rows(8, 5, false);
    let span = span(&rows, 1024, Normalization::Off).unwrap();
    let stored = || span.to_tensors().into_iter().map(|(name, shape, values)| (name, (shape, values.to_vec()))).collect();
    assert_eq!(Span::from_tensors(stored()).unwrap(), span);
    let damage = |change: &dyn Fn(&mut Stored)| {
        let mut tensors = stored();
        change(&mut tensors);
        Span::from_tensors(tensors).unwrap_err()
    };
    assert!(matches!(damage(&|t| drop(t.remove("spectrum"))), Error::MissingTensor { .. }));
    assert!(matches!(damage(&|t| drop(t.insert("more".to_owned(), (vec![1], vec![0.0])))), Error::UnknownTensor { .. }));
    assert!(matches!(damage(&|t| t.get_mut("training-codes").unwrap().0 = vec![40]), Error::Tensor { .. }));
    assert!(matches!(damage(&|t| t.get_mut("training-codes").unwrap().1[0] = f32::NAN), Error::Tensor { .. }));
    assert!(matches!(damage(&|t| t.get_mut("total-variance").unwrap().1[0] = -1.0), Error::Tensor { .. }));
    assert!(matches!(
        in_blocks(&rows.select(&[0, 1, 2]), 64, |blocks| span.decode(&[0.0; 5], blocks, &mut |_, _| Ok(()))),
        Err(Error::Networks { expected: 8, got: 3 })
    ));
    assert_eq!(span.nearest(&span.codes()[5..10]).0, 1);
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let mut bad = rows(8, 6, false);
    let (row, weight) = (3, 2500);
    let d = bad.dim();
    bad.data_mut()[row * d + weight] = f32::INFINITY;
    assert_eq!(span(&bad, 1024, Normalization::Off).unwrap_err(), Error::NonFinite { row, weight });
    assert!(matches!(span(&rows(1, 1, false), 64, Normalization::Off), Err(Error::TooFewRows { .. })));
    assert!(matches!(span(&rows(4, 1, false), 64, Normalization::Off), Err(Error::Rank { .. })));
}

#[test]
fn running_statistics_have_no_say_in_the_directions_and_come_back() {
    let mut rows = rows(9, 3, true);
    let before = pca(&rows, Normalization::Off);
    let (d, architecture) = (rows.dim(), rows.architecture().clone());
    let places = architecture.statistics();
    for row in rows.data_mut().chunks_exact_mut(d) {
        for place in &places {
            row[place.clone()].iter_mut().for_each(|w| *w *= 50.0);
        }
    }
    let after = pca(&rows, Normalization::Off);
    for (a, b) in before.spectrum().iter().zip(after.spectrum()) {
        assert!((a - b).abs() < 1e-3 * a, "{a} became {b}");
    }
    // With all directions that nine networks have, they are decoded as they were.
    let kind = CodecKind::Pca { rank: Rank::Fixed(8), solver: Solver::Gram };
    let whole = Codec::fit(&rows, &CodecConfig { kind, normalize: Normalization::Off }, Seed::new(0)).unwrap();
    let decoded = whole.decode(&whole.encode(rows.data()).unwrap()).unwrap();
    let largest = rows.data().iter().fold(0.0_f32, |most, w| most.max(w.abs()));
    assert!(decoded.iter().zip(rows.data()).all(|(a, b)| (a - b).abs() < 1e-3 * largest));
    // Where each weight is a code of its own, statistics are codes like any other.
    let each = CodecConfig { kind: CodecKind::Identity, normalize: Normalization::PerTensor };
    let codes = Codec::fit(&rows, &each, Seed::new(0)).unwrap().encode(rows.data()).unwrap();
    let of_place: Vec<f32> = codes.chunks_exact(d).flat_map(|row| row[places[0].clone()].to_vec()).collect();
    let square = of_place.iter().map(|z| z * z).sum::<f32>() / of_place.len() as f32;
    assert!((0.5..1.5).contains(&square), "{square}");
}
