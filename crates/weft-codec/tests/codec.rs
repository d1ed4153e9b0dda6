//! The identity codec, the decoder and persistence.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_codec::{Codec, CodecConfig, CodecKind, Decoder, Error, Normalization, Rank, Solver};
use weft_core::{Activation, Architecture, Population, Seed};

fn rows(n: usize, seed: u64) -> Population {
    let architecture = Arc::new(Architecture::mlp("mlp", &[4, 5, 3], Activation::Relu).unwrap());
    let d = architecture.num_parameters();
    let normals = Seed::new(seed).normals(n * d);
    let data = normals.iter().enumerate().map(|(i, x)| (x + 1.0) * (1 + i % d) as f32).collect();
    Population::new(architecture, data).unwrap()
}

fn fit(rows: &Population, kind: CodecKind, normalize: Normalization) -> Codec {
    Codec::fit(rows, &CodecConfig { kind, normalize }, Seed::new(0)).unwrap()
}

const PCA: CodecKind = CodecKind::Pca { rank: Rank::Fixed(6), solver: Solver::Auto };

fn owned(codec: &Codec) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    codec.to_tensors().into_iter().map(|(name, shape, values)| (name, (shape, values.to_vec()))).collect()
}

#[test]
fn raw_identity_is_exact() {
    let rows = rows(9, 1);
    let codec = Codec::raw(rows.dim());
    let codes = codec.encode(rows.data()).unwrap();
    assert_eq!(codes, rows.data());
    assert_eq!(codec.decode(&codes).unwrap(), rows.data());
    assert_eq!((codec.dim(), codec.code_len()), (rows.dim(), rows.dim()));
}

#[test]
fn identity_codes_have_unit_variance() {
    let rows = rows(50, 2);
    let variance = |codes: &[f32], j: usize| {
        let column: Vec<f32> = codes.iter().skip(j).step_by(rows.dim()).copied().collect();
        let mean = column.iter().sum::<f32>() / 50.0;
        assert!(mean.abs() < 1e-4);
        column.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 49.0
    };
    let codes = fit(&rows, CodecKind::Identity, Normalization::PerWeight).encode(rows.data()).unwrap();
    assert!((0..rows.dim()).all(|j| (variance(&codes, j) - 1.0).abs() < 1e-4));
    let codes = fit(&rows, CodecKind::Identity, Normalization::PerTensor).encode(rows.data()).unwrap();
    for tensor in rows.architecture().tensors() {
        let mean = tensor.range().map(|j| variance(&codes, j)).sum::<f32>() / tensor.num_values() as f32;
        assert!((mean - 1.0).abs() < 1e-4, "{}: {mean}", tensor.name);
    }
}

#[test]
fn identity_loses_nothing_and_refuses_what_pca_refuses() {
    let rows = rows(8, 3);
    let codec = fit(&rows, CodecKind::Identity, Normalization::PerTensor);
    assert_eq!(codec.reconstruction_error(rows.data(), &[1, 2]).unwrap(), [0.0, 0.0]);
    assert_eq!(codec.residual_variance(rows.data()).unwrap(), vec![0.0; rows.dim()]);
    assert_eq!(codec.encode(&[f32::NAN; 43]), Err(Error::NonFinite { row: 0, weight: 0 }));
    assert_eq!(codec.encode(&[0.0; 44]), Err(Error::Length { what: "weights", row: 43, got: 44 }));
    assert_eq!(codec.decode(&[0.0; 44]), Err(Error::Length { what: "codes", row: 43, got: 44 }));
}

/// The decoder's own formula, computed plainly, is what `decode` does.
#[test]
fn decoder_is_decode() {
    let rows = rows(12, 4);
    for kind in [CodecKind::Identity, PCA] {
        let codec = fit(&rows, kind, Normalization::PerTensor);
        let (k, d) = (codec.code_len(), codec.dim());
        let codes = Seed::new(5).normals(2 * k);
        let decoded = codec.decode(&codes).unwrap();
        let products = if matches!(codec, Codec::Pca(_)) { k * d } else { d };
        assert!((codec.decode_flops() - 2.0 * products as f64).abs() < 0.5, "{}", codec.name());
        for i in 0..2 {
            for j in 0..d {
                let expected = match codec.decoder() {
                    Decoder::Scale { mean, scale } => mean[j] + codes[i * k + j] * scale[j],
                    Decoder::Linear { mean, matrix } => mean[j] + (0..k).map(|c| codes[i * k + c] * matrix[c * d + j]).sum::<f32>(),
                };
                assert!((decoded[i * d + j] - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{}", codec.name());
            }
        }
    }
}

#[test]
fn tensors_hold_the_whole_codec() {
    let rows = rows(12, 6);
    for kind in [CodecKind::Identity, PCA] {
        for normalize in [Normalization::Off, Normalization::PerTensor, Normalization::PerWeight] {
            let codec = fit(&rows, kind, normalize);
            assert_eq!(Codec::from_tensors(owned(&codec)).unwrap(), codec);
        }
    }
}

#[test]
fn spoilt_tensors_are_refused_by_name() {
    let whole = owned(&fit(&rows(12, 7), PCA, Normalization::PerTensor));
    let check = |name: &str, expected: &str, spoil: &dyn Fn(&mut Vec<usize>, &mut Vec<f32>)| {
        let mut tensors = whole.clone();
        let (mut shape, mut values) = tensors.remove(name).unwrap_or_default();
        spoil(&mut shape, &mut values);
        tensors.insert(name.to_owned(), (shape, values));
        let error = Codec::from_tensors(tensors).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    for name in whole.keys().filter(|name| *name != "matrix") {
        let mut tensors = whole.clone();
        tensors.remove(name);
        let error = Codec::from_tensors(tensors).unwrap_err().to_string();
        assert!(error.contains(name.as_str()) && error.contains("lacks"), "{error}");
    }
    for name in whole.keys() {
        check(name, "finite", &|_, values| values[0] = f32::NAN);
        check(name, "as many values", &|_, values| values.truncate(values.len() - 1));
        check(name, "as many values", &|shape, _| *shape = vec![usize::MAX, usize::MAX]);
    }
    check("mean", "vector", &|shape, _| shape.insert(0, 1));
    check("scale", "positive", &|_, values| values[3] = 0.0);
    check("scale", "shape", &|shape, values| (*shape, *values) = (vec![2], vec![1.0; 2]));
    check("matrix", "as long as the mean", &|shape, _| shape.reverse());
    check("spectrum", "a value a component", &|shape, values| (*shape, *values) = (vec![1], vec![1.0]));
    check("spectrum", "descend", &|_, values| values.reverse());
    check("spectrum", "positive", &|_, values| values.fill(0.0));
    check("total-variance", "positive", &|_, values| values[0] = -1.0);
    check("surplus", "no tensor", &|_, _| ());
}

proptest! {
    /// The identity codec gives back what it was given, whatever that is.
    #[test]
    fn identity_decodes_what_was_encoded(seed: u64, n in 2_usize..12, mode in 0_usize..3) {
        let fitted = rows(n, seed);
        let normalize = [Normalization::Off, Normalization::PerTensor, Normalization::PerWeight][mode];
        let codec = fit(&fitted, CodecKind::Identity, normalize);
        let other = rows(3, seed ^ 1);
        let decoded = codec.decode(&codec.encode(other.data()).unwrap()).unwrap();
        for (got, expected) in decoded.iter().zip(other.data()) {
            prop_assert!((got - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{} {}", got, expected);
        }
    }
}
