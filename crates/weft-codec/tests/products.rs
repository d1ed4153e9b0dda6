//! A codec whose great products are computed elsewhere is the codec that is computed here.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::sync::Arc;
use weft_codec::{Blocks, Codec, CodecConfig, CodecKind, Error, Normalization, Rank, Solver, Span, geometry};
use weft_core::products::Place;
use weft_core::{Activation, Architecture, Population, Seed};
use weft_testkit::{PlainProducts, assert_close, assert_close_f64};

/// Networks in general position whose weights have means and sizes of their own.
fn rows(n: usize) -> Population {
    let architecture = Arc::new(Architecture::mlp("mlp", &[30, 20, 3], Activation::Relu).unwrap());
    let d = architecture.num_parameters();
    let (seed, mean) = (Seed::new(7), Seed::new(8).normals(d));
    let data = seed.normals(n * d).into_iter().enumerate();
    let data = data.map(|(i, x)| (1.0 + (i % d % 7) as f32) * (mean[i % d] + (0.2 + (i / d) as f32) * x)).collect();
    Population::new(architecture, data).unwrap()
}

/// A place that takes every product, and its count.
fn elsewhere() -> (Arc<PlainProducts>, Place) {
    let products = Arc::new(PlainProducts::default());
    (products.clone(), Place::new(products))
}

#[test]
fn exact_and_randomized_fits_and_their_codes() {
    let (rows, seed) = (rows(12), Seed::new(1));
    for (solver, expected) in [(Solver::Gram, [0, 0, 1, 1]), (Solver::Randomized, [1, 2, 0, 0])] {
        let config = CodecConfig { kind: CodecKind::Pca { rank: Rank::Fixed(5), solver }, normalize: Normalization::PerTensor };
        let here = Codec::fit(&rows, &config, seed).unwrap();
        let (products, place) = elsewhere();
        let there = Codec::fit_on(&place, &rows, &config, seed).unwrap();
        let counts = products.counts();
        assert!(counts.iter().zip(&expected).all(|(got, least)| got >= least && (*got > 0) == (*least > 0)), "{counts:?}");
        let (Codec::Pca(a), Codec::Pca(b)) = (&here, &there) else { panic!("asked for PCA") };
        assert_close(b.spectrum(), a.spectrum(), 1e-4);
        assert_close(b.decode_matrix(), a.decode_matrix(), 2e-3);
        // The codec keeps the place, and one that was stored gets it.
        let (codes, moved) = (here.encode(rows.data()).unwrap(), here.clone().on(&place));
        assert_eq!(moved, here);
        let before = products.counts();
        assert_close(&moved.encode(rows.data()).unwrap(), &codes, 1e-4);
        assert_close(&moved.decode(&codes).unwrap(), &here.decode(&codes).unwrap(), 1e-4);
        let (Codec::Pca(a), Codec::Pca(b)) = (&here, &moved) else { panic!("asked for PCA") };
        assert_close(&b.decode_at_rank(&codes, 2).unwrap(), &a.decode_at_rank(&codes, 2).unwrap(), 1e-4);
        assert_eq!([0, 1].map(|i| products.counts()[i] - before[i]), [2, 1]);
        there.encode(rows.data()).unwrap();
        assert_eq!(products.counts()[1], before[1] + 2);
    }
}

#[test]
fn spans_and_geometry_of_networks_in_blocks() {
    let rows = rows(9);
    let in_blocks = |on: Option<&PlainProducts>| {
        let mut read = |columns: std::ops::Range<usize>, out: &mut [f32]| -> Result<(), Error> {
            for (out, row) in out.chunks_exact_mut(columns.len()).zip(rows.rows()) {
                out.copy_from_slice(&row[columns.clone()]);
            }
            Ok(())
        };
        let mut blocks = Blocks::new(rows.architecture(), rows.len(), 512, &mut read);
        if let Some(on) = on {
            blocks = blocks.on(on);
        }
        let span = Span::fit(&mut blocks, Rank::Fixed(4), Normalization::PerTensor).unwrap();
        (span, geometry(&mut blocks).unwrap())
    };
    let products = PlainProducts::default();
    let ((here, near), (there, far)) = (in_blocks(None), in_blocks(Some(&products)));
    // Two blocks: a Gram matrix of each for the fit and for the geometry, and combinations of each for the signs.
    assert_eq!(products.counts(), [0, 0, 4, 2]);
    assert_close(there.codes(), here.codes(), 1e-5);
    assert_close(there.spectrum(), here.spectrum(), 1e-5);
    assert_close_f64(&far.spectrum, &near.spectrum, 1e-9);
    assert_close_f64(&[far.mean_distance], &[near.mean_distance], 1e-9);
}
