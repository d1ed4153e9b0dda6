//! Files that the formats' own tools wrote (`goldens/formats/make.py`), against the values that they read back.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_zoo::{AdapterKind, Source, SourceDtype, SourceFormat, TensorFault, open_sources};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/formats")
}

fn open(name: &str) -> Source {
    let mut sources = open_sources(&goldens().join(name)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(sources.len(), 1);
    sources.remove(0)
}

type Expected = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

fn expected(name: &str) -> Expected {
    let text = std::fs::read_to_string(goldens().join("expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let tensor = |value: &Value| {
        let shape = value["shape"].as_array().unwrap().iter().map(|axis| axis.as_u64().unwrap() as usize).collect();
        (shape, value["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect())
    };
    all[name].as_object().unwrap().iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
}

/// All tensors of a file are those that its tool reads, in shape and value.
fn check(name: &str, format: SourceFormat) -> Source {
    let (source, expected) = (open(name), expected(name));
    assert_eq!(source.format(), format);
    let names: Vec<_> = source.tensors().keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{name}");
    for (tensor, (shape, values)) in expected {
        let found = &source.tensors()[&tensor];
        assert_eq!(found.shape, shape, "{name} {tensor}");
        let read = if found.is_weight() { source.read(&tensor) } else { source.read_raw(&tensor) }.unwrap();
        let same = read.iter().zip(&values).all(|(got, want)| (f64::from(*got) - want).abs() <= 1e-6 * want.abs());
        assert!(read.len() == values.len() && same, "{name} {tensor}: {read:?} {values:?}");
    }
    assert_eq!(source.first_non_finite().unwrap(), None);
    source
}

#[test]
fn pytorch() {
    for name in ["state.pt", "legacy.pth", "protocol4.bin"] {
        let source = check(name, SourceFormat::PyTorch);
        assert_eq!(source.stripped(), [""; 0]);
        assert_eq!(source.tensors()["layers.1.bias"].dtype, SourceDtype::Bf16);
        let error = source.read("num_batches_tracked").unwrap_err();
        assert!(error.to_string().contains("`num_batches_tracked`: dtype I64"), "{error}");
    }
}

/// A training checkpoint: the weights of a wrapped model, nested, beside an optimizer's state.
#[test]
fn training_checkpoint() {
    let source = check("training.ckpt", SourceFormat::PyTorch);
    assert_eq!(source.stripped(), ["state_dict.", "module."]);
    assert_eq!(source.tensors()["0.weight"].stored_name, "state_dict.module.0.weight");
    let metadata = source.metadata();
    assert_eq!((&*metadata["epoch"], &*metadata["best"], &*metadata["name"]), ("3", "0.5", "net"));
}

#[test]
fn sharded() {
    for (folder, index) in
        [("sharded-safetensors", "model.safetensors.index.json"), ("sharded-pytorch", "pytorch_model.bin.index.json")]
    {
        let source = check(folder, SourceFormat::Sharded);
        assert_eq!(source.files().len(), 3);
        let path = goldens().join(folder).join(index);
        assert_eq!(source.path(), path);
        assert_eq!(open_sources(&path).unwrap()[0].tensors().len(), source.tensors().len());
    }
}

#[test]
fn npz() {
    for name in ["plain.npz", "compressed.npz"] {
        let source = check(name, SourceFormat::Npz);
        assert_eq!(source.tensors()["half"].dtype, SourceDtype::F16);
    }
}

#[test]
fn eight_bits_with_scales() {
    let source = check("quantized.safetensors", SourceFormat::Safetensors);
    let error = open_without_scales().read("w").unwrap_err();
    assert!(matches!(error, weft_zoo::Error::Tensor { fault: TensorFault::Dtype { dtype: SourceDtype::F8E4m3 }, .. }), "{error}");
    assert!(source.tensors().values().all(weft_zoo::SourceTensor::is_weight));
}

fn open_without_scales() -> Source {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let json = r#"{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#;
    let bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0x38, 0x40]].concat();
    std::fs::write(&path, bytes).unwrap();
    open_sources(&path).unwrap().remove(0)
}

/// `scaling · B · A` for each module is what PEFT's `get_delta_weight` gives.
#[test]
fn adapters() {
    for folder in ["peft-lora", "peft-rslora", "peft-dora"] {
        let (source, expected) = (open(folder), expected(folder));
        assert_eq!(source.format(), SourceFormat::Peft);
        let adapter = source.adapter().unwrap();
        let modules: Vec<_> = adapter.modules.iter().map(|module| &module.module).collect();
        assert_eq!(modules, expected.keys().collect::<Vec<_>>());
        for module in &adapter.modules {
            let (shape, values) = &expected[&module.module];
            let (a, b) = (source.read(&module.a).unwrap(), source.read(&module.b).unwrap());
            let (outputs, inputs) = (b.len() / module.rank, a.len() / module.rank);
            let product = |out: usize, column: usize| -> f64 {
                (0..module.rank).map(|r| f64::from(b[out * module.rank + r]) * f64::from(a[r * inputs + column])).sum::<f64>()
                    * module.scaling
            };
            assert_eq!(shape.iter().product::<usize>(), outputs * inputs);
            for (i, want) in values.iter().enumerate() {
                // An embedding's table is entries × width, the transpose of the product.
                let (out, column) =
                    if module.kind == AdapterKind::Embedding { (i % outputs, i / outputs) } else { (i / inputs, i % inputs) };
                let got = product(out, column);
                assert!((got - want).abs() < 1e-5 * (1.0 + want.abs()), "{folder} {}: {got} {want}", module.module);
            }
            assert_eq!(module.is_dora(), folder == "peft-dora");
        }
    }
    let source = open("peft-lora");
    let adapter = source.adapter().unwrap();
    let kinds: Vec<_> = adapter.modules.iter().map(|module| module.kind).collect();
    assert_eq!(kinds, [AdapterKind::Linear, AdapterKind::Linear, AdapterKind::Conv, AdapterKind::Embedding]);
    assert_eq!(adapter.replaced["head.weight"], "base_model.model.head.weight");
    assert_eq!(source.files().len(), 2);
    let ranks: Vec<_> = open("peft-rslora").adapter().unwrap().modules.iter().map(|module| module.rank).collect();
    assert_eq!(ranks, [1, 4, 1, 2]);
}
