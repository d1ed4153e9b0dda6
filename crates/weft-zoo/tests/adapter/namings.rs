//! diffusers' and kohya's names.

use super::{adapter, assert_same_updates, conv, file, golden, linear, numbers, provenance, read, write};
use std::collections::BTreeMap;
use weft_zoo::adapter::{AdapterExport, AdapterNaming, AdapterProfile, AdapterWeights, BaseModel};
use weft_zoo::{Metadata, read_tensors, write_tensors};

fn pipeline() -> AdapterWeights {
    adapter(vec![
        linear("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", [6, 4, 5], 0.5),
        linear("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0", [6, 2, 5], 0.3),
        conv("unet.up_blocks.1.resnets.0.conv1", [6, 3, 2], 1.5),
        linear("text_encoder.text_model.encoder.layers.3.self_attn.q_proj", [6, 4, 5], 1.0),
    ])
}

#[test]
fn files_there_and_back() {
    let (dir, weights) = (tempfile::tempdir().unwrap(), pipeline());
    for (profile, naming) in [(AdapterProfile::Diffusers, AdapterNaming::Diffusers), (AdapterProfile::Kohya, AdapterNaming::Kohya)]
    {
        let out = dir.path().join(format!("{}.safetensors", profile.name()));
        write(&weights, profile, None, &out).unwrap();
        let again = read(&out);
        assert_eq!(again.naming, naming);
        assert_same_updates(&weights, &again.weights);
        assert!(matches!(write(&weights, profile, None, &out), Err(weft_zoo::Error::Exists { .. })));
        // And on to the other one.
        for next in [AdapterProfile::Kohya, AdapterProfile::Diffusers] {
            let out = dir.path().join(format!("{}-{}", profile.name(), next.name()));
            write(&again.weights, next, None, &out).unwrap();
            assert_same_updates(&weights, &read(&out).weights);
        }
    }
    // A folder of PEFT is one model's.
    let error = write(&weights, AdapterProfile::Portable, None, &dir.path().join("x")).unwrap_err().to_string();
    assert!(error.contains("modules of several parts (`text_encoder`, `unet`; `--component` chooses one)"), "{error}");
    let (provenance, out) = (provenance(), dir.path().join("unet"));
    let export = AdapterExport {
        profile: AdapterProfile::Portable,
        base: None,
        component: Some("unet"),
        of_pipeline: true,
        provenance: &provenance,
    };
    let notes = weights.clone().write(&export, &out).unwrap();
    assert!(notes.iter().any(|note| note.contains("1 of 4 modules belong to other parts")), "{notes:?}");
    let own = read(&out).weights;
    assert_eq!(own.updates[0].module, "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q");
    let back = dir.path().join("back.safetensors");
    own.write(&AdapterExport { profile: AdapterProfile::Kohya, ..export }, &back).unwrap();
    let unet = weights.updates.iter().filter(|update| update.module.starts_with("unet.")).cloned().collect();
    assert_same_updates(&adapter(unet), &read(&back).weights);
    let kohya = read_tensors(&dir.path().join("kohya.safetensors")).unwrap();
    let conv = "lora_unet_up_blocks_1_resnets_0_conv1";
    assert_eq!(kohya.tensors[&format!("{conv}.alpha")], (vec![], vec![4.5]));
    assert_eq!(kohya.tensors[&format!("{conv}.lora_down.weight")].0, [3, 2, 3, 3]);
    assert_eq!(kohya.tensors[&format!("{conv}.lora_up.weight")].0, [6, 3, 1, 1]);
    assert!(kohya.tensors.contains_key("lora_te_text_model_encoder_layers_3_self_attn_q_proj.alpha"));
}

#[test]
fn older_spellings_of_diffusers() {
    let (dir, path) = (tempfile::tempdir().unwrap(), "unet.mid_block.attentions.0.transformer_blocks.0.attn1");
    let out = dir.path().join("pytorch_lora_weights.safetensors");
    let (a, b) = (numbers(1, 6), numbers(2, 8));
    let spellings = [
        ("to_q", format!("{path}.to_q.lora.down.weight"), format!("{path}.to_q.lora.up.weight")),
        ("to_k", format!("{path}.processor.to_k_lora.down.weight"), format!("{path}.processor.to_k_lora.up.weight")),
        ("to_out.0", format!("{path}.processor.to_out_lora.down.weight"), format!("{path}.processor.to_out_lora.up.weight")),
        ("to_v", format!("{path}.to_v.lora_linear_layer.down.weight"), format!("{path}.to_v.lora_linear_layer.up.weight")),
    ];
    for (leaf, down, up) in &spellings {
        file(&out, &[(down, vec![2, 3], a.clone()), (up, vec![4, 2], b.clone())]);
        let adapter = read(dir.path());
        assert!(adapter.notes.iter().any(|note| note.contains("it is the rank")), "{:?}", adapter.notes);
        let update = &adapter.weights.updates[0];
        assert_eq!((update.module.clone(), &update.a, &update.b, update.scaling), (format!("{path}.{leaf}"), &a, &b, 1.0));
    }
    let (down, up) = (format!("{path}.to_q.lora_A.weight"), format!("{path}.to_q.lora_B.weight"));
    let tensors = [(down, vec![2, 3], a.as_slice()), (up, vec![4, 2], b.as_slice())];
    let settings =
        r#"{"unet.r": 4, "unet.lora_alpha": 4, "unet.rank_pattern": {"to_q": 2}, "unet.alpha_pattern": {"attn1.to_q": 6}}"#;
    write_tensors(&out, &tensors, &Metadata::from([("lora_adapter_metadata".to_owned(), settings.to_owned())])).unwrap();
    assert!((read(&out).weights.updates[0].scaling - 3.0).abs() < 1e-12);
    let wrong = settings.replace("\"to_q\": 2", "\"to_q\": 3");
    write_tensors(&out, &tensors, &Metadata::from([("lora_adapter_metadata".to_owned(), wrong)])).unwrap();
    let error = AdapterWeights::read(&out, None).unwrap_err().to_string();
    assert!(error.contains("has rank 2, the metadata say 3"), "{error}");
}

/// `.alpha` and rank make the scaling; without alpha it is 1.
#[test]
fn alphas_of_kohya() {
    let (dir, name) = (tempfile::tempdir().unwrap(), "lora_unet_mid_block_attentions_0_proj_in");
    let out = dir.path().join("a.safetensors");
    let (down, up, alpha) = (format!("{name}.lora_down.weight"), format!("{name}.lora_up.weight"), format!("{name}.alpha"));
    let pair = [(&*down, vec![2, 3], numbers(1, 6)), (&*up, vec![4, 2], numbers(2, 8))];
    file(&out, &pair);
    assert!((read(&out).weights.updates[0].scaling - 1.0).abs() < 1e-12);
    let [a, b] = pair.clone();
    file(&out, &[a, b, (&alpha, vec![], vec![0.5])]);
    assert!((read(&out).weights.updates[0].scaling - 0.25).abs() < 1e-12);
    // A base decides what the words leave open.
    let strange = |name: &str| (format!("lora_unet_{name}.lora_down.weight"), format!("lora_unet_{name}.lora_up.weight"));
    let (down, up) = strange("odd_part_a");
    file(&out, &[(&down, vec![2, 3], numbers(1, 6)), (&up, vec![4, 2], numbers(2, 8))]);
    let error = AdapterWeights::read(&out, None).unwrap_err().to_string();
    assert!(error.contains("`odd` is no known word") && error.contains("`--base` decides it"), "{error}");
    let base = |names: &[&str]| {
        let modules: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), vec![4, 3])).collect();
        BaseModel::of_modules("org/base", modules)
    };
    let found = AdapterWeights::read(&out, Some(&base(&["unet.odd_part.a", "unet.odd.b"]))).unwrap();
    assert_eq!(found.weights.updates[0].module, "unet.odd_part.a");
    let both = AdapterWeights::read(&out, Some(&base(&["unet.odd_part.a", "unet.odd.part.a"]))).unwrap_err().to_string();
    assert!(both.contains("could be `unet.odd.part.a` or `unet.odd_part.a`"), "{both}");
}

#[test]
fn what_a_pipeline_cannot_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |weights: &AdapterWeights, profile: AdapterProfile, expected: &str| {
        let error = write(weights, profile, None, &dir.path().join("x")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let plain = adapter(vec![linear("model.layers.0.self_attn.q_proj", [4, 2, 3], 1.0)]);
    refused(&plain, AdapterProfile::Kohya, "belongs to no part of a pipeline");
    let whole = read(&golden("peft-lora")).weights;
    refused(&whole, AdapterProfile::Diffusers, "the adapter replaces `head.bias` as a whole");
    let original = adapter(vec![linear("unet.input_blocks.4.1.proj_in", [4, 2, 3], 1.0)]);
    refused(&original, AdapterProfile::Diffusers, "has its name of the original repository");
    write(&original, AdapterProfile::Kohya, None, &dir.path().join("y")).unwrap();
    let notes = read(&dir.path().join("y")).notes;
    assert!(notes.iter().any(|note| note.contains("of the original repository")), "{notes:?}");
    assert!(!dir.path().join("x").exists());
}
