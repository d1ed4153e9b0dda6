//! Adapters in and out, in every naming.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod gguf;
mod hostile;
mod lints;
mod namings;
mod peft;

use std::path::{Path, PathBuf};
use weft_zoo::adapter::{
    AdapterExport, AdapterFile, AdapterParent, AdapterProfile, AdapterProvenance, AdapterUpdate, AdapterWeights, BaseModel,
};
use weft_zoo::{AdapterKind, Metadata, write_tensors};

/// A folder that PEFT wrote.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/formats").join(name)
}

/// Reads without a base.
pub(crate) fn read(path: &Path) -> AdapterFile {
    AdapterWeights::read(path, None).unwrap()
}

pub(crate) fn provenance() -> AdapterProvenance {
    AdapterProvenance {
        parents: vec![AdapterParent { name: "parent".to_owned(), sha256: "00".repeat(32), licence: "MIT".to_owned() }],
        configuration: "weft adapter convert parent -o out".to_owned(),
        synthetic: false,
        tags: vec!["made: \"here\"".to_owned()],
    }
}

/// Writes under a profile and gives the notes.
pub(crate) fn write(
    weights: &AdapterWeights,
    profile: AdapterProfile,
    base: Option<&BaseModel>,
    out: &Path,
) -> Result<Vec<String>, weft_zoo::Error> {
    let provenance = provenance();
    let export = AdapterExport { profile, base, component: None, of_pipeline: true, provenance: &provenance };
    weights.clone().write(&export, out)
}

/// `s·B·A`, row by row.
pub(crate) fn product(update: &AdapterUpdate) -> Vec<f64> {
    let mut product = Vec::with_capacity(update.fan_out * update.fan_in);
    for b in update.b.chunks_exact(update.rank) {
        for i in 0..update.fan_in {
            let terms = b.iter().enumerate().map(|(r, &b)| f64::from(b) * f64::from(update.a[r * update.fan_in + i]));
            product.push(update.scaling * terms.sum::<f64>());
        }
    }
    product
}

/// Whether two adapters add the same to their base.
pub(crate) fn assert_same_updates(one: &AdapterWeights, other: &AdapterWeights) {
    let names = |adapter: &AdapterWeights| adapter.updates.iter().map(|u| (u.module.clone(), u.kind)).collect::<Vec<_>>();
    assert_eq!(names(one), names(other));
    for (x, y) in one.updates.iter().zip(&other.updates) {
        assert_eq!((x.fan_in, x.fan_out, &x.kernel), (y.fan_in, y.fan_out, &y.kernel), "{}", x.module);
        for (p, q) in product(x).into_iter().zip(product(y)) {
            assert!((p - q).abs() <= 1e-6 * (1.0 + p.abs()), "{}: {p} {q}", x.module);
        }
    }
    assert_eq!(one.whole, other.whole);
}

/// Numbers that depend on a start.
pub(crate) fn numbers(start: usize, len: usize) -> Vec<f32> {
    (start..start + len).map(|i| (i as f32 * 0.61).sin()).collect()
}

/// An update of a linear map with made-up factors.
pub(crate) fn linear(module: &str, [fan_out, rank, fan_in]: [usize; 3], scaling: f64) -> AdapterUpdate {
    let (a, b) = (numbers(module.len(), rank * fan_in), numbers(module.len() + 7, fan_out * rank));
    AdapterUpdate { scaling, ..AdapterUpdate::linear(module, [fan_out, rank, fan_in], a, b) }
}

/// A convolution of 3 × 3 taps.
pub(crate) fn conv(module: &str, [fan_out, rank, channels]: [usize; 3], scaling: f64) -> AdapterUpdate {
    AdapterUpdate { kind: AdapterKind::Conv, kernel: vec![3, 3], ..linear(module, [fan_out, rank, channels * 9], scaling) }
}

/// An adapter of these updates.
pub(crate) fn adapter(updates: Vec<AdapterUpdate>) -> AdapterWeights {
    AdapterWeights { base: Some("org/base".to_owned()), updates, ..AdapterWeights::default() }.checked().unwrap()
}

/// A safetensors file.
pub(crate) fn file(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, values)| ((*name).to_owned(), shape.clone(), values.as_slice())).collect();
    write_tensors(path, &tensors, &Metadata::new()).unwrap();
}
