//! Files that are no sound adapters: each refused by name.

use super::{adapter, file, linear, numbers, read, write};
use std::path::Path;
use weft_zoo::adapter::{AdapterProfile, AdapterUpdate, AdapterWeights};

fn refused(path: &Path, expected: &str) {
    let error = AdapterWeights::read(path, None).unwrap_err().to_string();
    assert!(error.contains(expected), "{expected} is not in: {error}");
}

#[test]
fn unsound_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.safetensors");
    let (down, up) = ("lora_unet_proj_in.lora_down.weight", "lora_unet_proj_in.lora_up.weight");
    let ok = [(down, vec![2, 3], numbers(0, 6)), (up, vec![4, 2], numbers(1, 8))];
    let with = |more: (&'static str, Vec<usize>, Vec<f32>), expected: &str| {
        let [a, b] = ok.clone();
        file(&out, &[a, b, more]);
        refused(&out, expected);
    };
    with(("lora_unet_proj_in.alpha", vec![], vec![f32::NAN]), "value 0 of `alpha` is not finite");
    with(("lora_unet_proj_in.alpha", vec![2], vec![1.0, 1.0]), "`alpha` has 2 values, its shape speaks of 1");
    with(("lora_unet_proj_in.dora_scale", vec![3], vec![1.0; 3]), "`lora_magnitude_vector` has 3 values, its shape speaks of 4");
    with(("lora_unet_proj_in.dora_scale", vec![1, 4], vec![1.0; 4]), "magnitudes of shape [1, 4], which is not read");
    with(("lora_unet_proj_out.hada_w1_a", vec![1], vec![1.0]), "is of LoHa, which is not read");
    with(("lora_unet_proj_out.lokr_w1", vec![1], vec![1.0]), "is of LoKr");
    with(("lora_unet_proj_in.lora_mid.weight", vec![1], vec![1.0]), "a LoCon with three factors");
    with(("lora_unet_proj_in.weight", vec![1], vec![1.0]), "is no part of a low-rank update");
    with(("conv.lora_down.weight", vec![1], vec![1.0]), "begins with no known prefix");
    with(("lora_unet_proj_out.lora_down.weight", vec![1, 1], vec![1.0]), "module `unet.proj_out` has no `lora_B`");
    with(("lora_unet_.lora_down.weight", vec![1, 1], vec![1.0]), "no known word");
    with(("lora_unet_proj_in.lora_A.weight", vec![2, 3], vec![1.0; 6]), "module `unet.proj_in` stands twice");
    file(&out, &[(down, vec![2, 3], numbers(0, 6)), (up, vec![4, 3], numbers(1, 12))]);
    refused(&out, "its factors have shapes [2, 3] and [4, 3]");
    file(&out, &[(down, vec![2, 3], vec![f32::INFINITY; 6]), (up, vec![4, 2], numbers(1, 8))]);
    refused(&out, "module `unet.proj_in`: value 0 of `lora_A` is not finite");
    file(&out, &[("weight", vec![1], vec![1.0])]);
    refused(&out, "no tensor of the file is a factor");
    file(&out, &[("base_model.model.q.lora_A.weight", vec![2, 3], numbers(0, 6))]);
    refused(&out, "there is no `adapter_config.json` beside it");
    file(&dir.path().join("b.safetensors"), &[("weight", vec![1], vec![1.0])]);
    refused(dir.path(), "and 2 other safetensors files");
}

#[test]
fn nan_in_a_folder_of_peft() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), r#"{"peft_type": "LORA", "r": 2}"#).unwrap();
    let [a, b] = ["base_model.model.m.q.lora_A.weight", "base_model.model.m.q.lora_B.weight"];
    file(&dir.path().join("adapter_model.safetensors"), &[(a, vec![2, 3], numbers(0, 6)), (b, vec![4, 2], vec![f32::NAN; 8])]);
    refused(dir.path(), "module `m.q`: value 0 of `lora_B` is not finite");
}

#[test]
fn zero_updates_are_allowed_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let zero = AdapterUpdate { b: vec![0.0; 8], ..linear("unet.proj_in", [4, 2, 3], 1.0) };
    let some = adapter(vec![zero.clone(), linear("unet.proj_out", [4, 2, 3], 1.0)]);
    for (weights, expected) in [(some, "the updates of 1 of 2 modules are zero"), (adapter(vec![zero]), "every update is zero")] {
        let out = dir.path().join(weights.updates.len().to_string());
        write(&weights, AdapterProfile::Portable, None, &out).unwrap();
        let notes = read(&out).notes;
        assert!(notes.iter().any(|note| note.contains(expected)), "{notes:?}");
    }
}
