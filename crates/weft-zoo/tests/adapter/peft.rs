//! Folders of PEFT.

use super::{adapter, assert_same_updates, conv, file, golden, linear, read, write};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use weft_zoo::AdapterKind;
use weft_zoo::adapter::{
    AdapterExport, AdapterNaming, AdapterProfile, AdapterProvenance, AdapterUpdate, AdapterWeights, BaseModel, WholeTensor,
};
use weft_zoo::read_tensors;

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn what_peft_wrote_comes_back() {
    for name in ["peft-lora", "peft-rslora", "peft-dora"] {
        let read_first = read(&golden(name));
        assert_eq!(read_first.naming, AdapterNaming::Peft);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("as-it-is");
        write(&read_first.weights, AdapterProfile::Peft, None, &out).unwrap();
        let again = read(&out);
        assert_same_updates(&read_first.weights, &again.weights);
        for (x, y) in read_first.weights.updates.iter().zip(&again.weights.updates) {
            assert_eq!((x.rank, &x.a, &x.b, &x.magnitude), (y.rank, &y.a, &y.b, &y.magnitude));
            assert!((x.scaling - y.scaling).abs() < 1e-12);
        }
        if name == "peft-dora" {
            let error = write(&read_first.weights, AdapterProfile::Portable, None, &dir.path().join("x")).unwrap_err();
            assert!(error.to_string().contains("has magnitudes (DoRA), which a portable adapter cannot hold"), "{error}");
            assert!(!dir.path().join("x").exists());
            continue;
        }
        let out = dir.path().join("portable");
        write(&read_first.weights, AdapterProfile::Portable, None, &out).unwrap();
        let portable = read(&out).weights;
        assert_same_updates(&read_first.weights, &portable);
        assert!(portable.updates.iter().all(|update| update.rank == 8 && (update.scaling - 1.0).abs() < 1e-12));
    }
}

/// The keys that `LoraConfig` of PEFT 0.3.0 had, of those that are written.
#[test]
fn a_portable_folder_says_what_old_versions_know() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let whole = vec![WholeTensor { name: "head.weight".to_owned(), shape: vec![2], values: vec![1.0, 2.0] }];
    let updates = vec![linear("m.1.q", [4, 2, 3], 0.3), conv("m.1.c", [4, 9, 2], 2.0), linear("m.0.q", [4, 2, 3], 1.0)];
    let weights = AdapterWeights { whole, ..adapter(updates) };
    let notes = write(&weights, AdapterProfile::Portable, None, &out).unwrap();
    assert!(notes.iter().any(|note| note.contains("of 1 modules is no power of two")), "{notes:?}");
    assert_eq!(
        config(&out),
        json!({
            "base_model_name_or_path": "org/base", "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "lora_alpha": 16, "lora_dropout": 0.0, "modules_to_save": ["head"], "peft_type": "LORA", "r": 16,
            "target_modules": ["m.0.q", "m.1.c", "m.1.q"], "task_type": null,
        })
    );
    let file = read_tensors(&out.join("adapter_model.safetensors")).unwrap();
    let shapes: Vec<_> = file.tensors.iter().map(|(name, (shape, _))| (name.as_str(), shape.clone())).collect();
    assert_eq!(shapes[0], ("base_model.model.head.weight", vec![2]));
    assert_eq!(shapes[3], ("base_model.model.m.1.c.lora_A.weight", vec![16, 2, 3, 3]));
    assert_eq!(shapes[4], ("base_model.model.m.1.c.lora_B.weight", vec![4, 16, 1, 1]));
    assert_eq!((&*file.metadata["format"], &*file.metadata["weft.licence"]), ("pt", "MIT"));
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for line in [
        "base_model: \"org/base\"",
        "license: \"mit\"",
        "- \"made: \\\"here\\\"\"",
        "  configuration: \"weft adapter convert parent -o out\"",
    ] {
        assert!(card.lines().any(|have| have == line), "{line} is not in\n{card}");
    }
    let weft: Value = serde_json::from_slice(&std::fs::read(out.join("weft.json")).unwrap()).unwrap();
    assert_eq!((&weft["ranks"], &weft["modules"], &weft["profile"]), (&json!([16]), &json!(3), &json!("portable")));
    assert_same_updates(&weights, &read(&out).weights);
    let again = write(&weights, AdapterProfile::Portable, None, &out).unwrap_err();
    assert!(matches!(again, weft_zoo::Error::Exists { .. }), "{again}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn embeddings_biases_and_magnitudes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let embedding = AdapterUpdate { kind: AdapterKind::Embedding, ..linear("wte", [5, 2, 7], 1.0) };
    let weights = AdapterWeights { fan_in_fan_out: true, ..adapter(vec![embedding, linear("h.q", [4, 3, 3], 0.25)]) };
    for profile in [AdapterProfile::Peft, AdapterProfile::Portable] {
        let out = dir.path().join(profile.name());
        write(&weights, profile, None, &out).unwrap();
        let again = read(&out).weights;
        assert_same_updates(&weights, &again);
        assert!(again.fan_in_fan_out);
    }
    let named = read_tensors(&dir.path().join("portable/adapter_model.safetensors")).unwrap();
    assert_eq!(named.tensors["base_model.model.wte.lora_embedding_A"].0, [8, 7]);
    let biased = adapter(vec![AdapterUpdate { b_bias: Some(vec![1.0; 4]), ..linear("h.q", [4, 3, 3], 0.25) }]);
    let out = dir.path().join("biased");
    write(&biased, AdapterProfile::Peft, None, &out).unwrap();
    assert_eq!(config(&out)["lora_bias"], true);
    assert_eq!(read(&out).weights.updates[0].b_bias, Some(vec![1.0; 4]));
    let error = write(&biased, AdapterProfile::Portable, None, &dir.path().join("x")).unwrap_err().to_string();
    assert!(error.contains("module `h.q` has a bias"), "{error}");
}

/// PEFT saves the base's own embedding beside its update: that is no module trained whole.
#[test]
fn a_base_layer_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let embedding = AdapterUpdate { kind: AdapterKind::Embedding, ..linear("wte", [5, 2, 7], 1.0) };
    let whole = vec![WholeTensor { name: "wte.base_layer.weight".to_owned(), shape: vec![7, 5], values: vec![1.0; 35] }];
    let weights = AdapterWeights { whole, ..adapter(vec![embedding]) };
    for profile in [AdapterProfile::Peft, AdapterProfile::Portable] {
        let out = dir.path().join(profile.name());
        write(&weights, profile, Some(&base(&[("wte", [7, 5])])), &out).unwrap();
        assert_eq!(config(&out)["modules_to_save"], Value::Null);
        assert_same_updates(&weights, &read(&out).weights);
    }
    let other = AdapterWeights { base: None, ..weights.clone() };
    let other = AdapterWeights { whole: vec![WholeTensor { shape: vec![5, 7], ..weights.whole[0].clone() }], ..other };
    let error =
        write(&other, AdapterProfile::Portable, Some(&base(&[("wte", [7, 5])])), &dir.path().join("x")).unwrap_err().to_string();
    assert!(error.contains("`wte.base_layer.weight` has shape [5, 7] in the adapter and [7, 5] in the base `org/base`"), "{error}");
}

fn base(modules: &[(&str, [usize; 2])]) -> BaseModel {
    BaseModel::of_modules(
        "org/base",
        modules.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect::<BTreeMap<_, _>>(),
    )
}

#[test]
fn target_modules_choose_what_the_adapter_has() {
    let dir = tempfile::tempdir().unwrap();
    let weights = adapter(vec![linear("m.0.q", [4, 2, 3], 1.0), linear("m.1.q", [4, 2, 3], 1.0)]);
    let written = |name: &str, base: &BaseModel| {
        let out = dir.path().join(name);
        write(&weights, AdapterProfile::Portable, Some(base), &out).map(|notes| (config(&out)["target_modules"].clone(), notes))
    };
    let all = base(&[("m.0.q", [4, 3]), ("m.1.q", [4, 3]), ("m.0.k", [4, 3])]);
    assert_eq!(written("all", &all).unwrap().0, json!(["q"]));
    let more = base(&[("m.0.q", [4, 3]), ("m.1.q", [4, 3]), ("m.2.q", [4, 3])]);
    assert_eq!(written("more", &more).unwrap().0, json!(["m.0.q", "m.1.q"]));
    let prefixed = base(&[("top.m.0.q", [4, 3]), ("top.m.1.q", [4, 3])]);
    let (targets, notes) = written("prefixed", &prefixed).unwrap();
    assert_eq!((targets, notes.len()), (json!(["q"]), 1));
    let twice = base(&[("m.0.q", [4, 3]), ("m.1.q", [4, 3]), ("other.m.0.q", [4, 3]), ("m.2.q", [4, 3])]);
    let error = written("twice", &twice).unwrap_err().to_string();
    assert!(error.contains("would not choose the adapter's modules alone: `other.m.0.q`"), "{error}");
    let lacking = written("lacking", &base(&[("m.0.q", [4, 3])])).unwrap_err().to_string();
    assert!(lacking.contains("the base `org/base` has no module `m.1.q`, which the adapter of `org/base` updates"), "{lacking}");
    let shape = written("shape", &base(&[("m.0.q", [4, 5]), ("m.1.q", [4, 3])])).unwrap_err().to_string();
    assert!(shape.contains("module `m.0.q` has shape [4, 3] in the adapter of `org/base` and [4, 5] in the base"), "{shape}");
}

#[test]
fn a_base_is_read_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tiny");
    std::fs::create_dir(&folder).unwrap();
    file(&folder.join("model.safetensors"), &[("h.q.weight", vec![4, 3], vec![0.5; 12]), ("norm.weight", vec![3], vec![1.0; 3])]);
    let base = BaseModel::open(&folder).unwrap();
    assert_eq!((base.name(), base.modules().len()), ("tiny", 1));
    std::fs::write(folder.join("config.json"), r#"{"_name_or_path": "org/Tiny"}"#).unwrap();
    assert_eq!(BaseModel::open(&folder).unwrap().name(), "org/Tiny");
    let pipeline = dir.path().join("pipeline");
    std::fs::create_dir_all(pipeline.join("unet")).unwrap();
    std::fs::copy(folder.join("model.safetensors"), pipeline.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    assert_eq!(BaseModel::open(&pipeline).unwrap().modules().keys().collect::<Vec<_>>(), ["unet.h.q"]);
}

/// A model's own names may begin like a part of a pipeline; only a pipeline's lose that part.
#[test]
fn names_of_a_model_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let provenance = AdapterProvenance::default();
    let export = AdapterExport::new(AdapterProfile::Peft, &provenance);
    let own = adapter(vec![linear("transformer.h.0.c_attn", [4, 2, 3], 1.0), linear("lm_head", [5, 2, 3], 1.0)]);
    own.clone().write(&export, &dir.path().join("own")).unwrap();
    assert_eq!(AdapterWeights::read(&dir.path().join("own"), None).unwrap().weights.updates, own.updates);
    own.write(&AdapterExport { of_pipeline: true, ..export }, &dir.path().join("part")).unwrap();
    let part = AdapterWeights::read(&dir.path().join("part"), None).unwrap().weights;
    assert_eq!(part.updates.iter().map(|update| update.module.as_str()).collect::<Vec<_>>(), ["h.0.c_attn"]);
}

/// A scaling that no factor can take on is refused, not written as infinity.
#[test]
fn scalings_beyond_single_precision_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let provenance = AdapterProvenance::default();
    let export = AdapterExport::new(AdapterProfile::Portable, &provenance);
    let message = adapter(vec![linear("q", [4, 2, 3], 1e300)]).write(&export, &dir.path().join("a")).unwrap_err();
    let causes = std::iter::successors(Some(&message as &dyn std::error::Error), |error| error.source());
    assert!(causes.map(ToString::to_string).any(|text| text.contains("the range of f32")));
    assert!(!dir.path().join("a").exists());
}
