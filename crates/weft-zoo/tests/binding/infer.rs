//! Files become the architectures that they were written from; what they do not show is asked for or noted.

use crate::layouts::{cases, written};
use crate::{Tensors, row, stored};
use std::path::Path;
use weft_core::families::{Family, Gpt, Vit};
use weft_core::{Activation, Architecture};
use weft_zoo::{Error, Hints, infer};

const HEADS: Hints = Hints { name: None, activation: None, num_heads: Some(2), image: Some([4, 4]) };

#[test]
fn every_layout_of_every_family_is_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let mut recognized = 0;
    for (layout, architecture) in cases() {
        let what = format!("{} as {}", architecture.name(), layout.name);
        let weights = row(&architecture, 3);
        let source = stored(&path, &written(&layout, &architecture, &weights));
        // What names and shapes cannot say of these is tested below.
        if ["cnn", "cnn-batch-norm", "automaton", "lora"].contains(&architecture.name()) {
            continue;
        }
        let inferred = infer(&source, &HEADS).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(inferred.architecture.tensors(), architecture.tensors(), "{what}");
        assert_eq!(inferred.binding.bind(&source, &inferred.architecture).unwrap(), weights, "{what}");
        let same = inferred.architecture.same_graph(&architecture);
        let differs = match architecture.name() {
            // Its activation, its rotary angles.
            "mlp-tanh" | "mlp-gelu" | "llama-tied" | "llama-untied" => true,
            "vit" => layout.name == "hugging-face",
            name => name.starts_with("gpt") && layout.name.starts_with("nanogpt"),
        };
        assert_eq!(same, !differs, "{what}");
        assert!(same || !inferred.notes.is_empty() || architecture.name() == "vit", "{what}: {:?}", inferred.notes);
        recognized += 1;
    }
    assert!(recognized > 30, "{recognized}");
}

/// The error that inference ends in, with its cause.
fn message(folder: &Path, tensors: &Tensors, config: Option<&str>, hints: &Hints) -> String {
    let path = folder.join("config.json");
    match config {
        Some(text) => std::fs::write(path, text).expect("the folder can be written"),
        None => std::fs::remove_file(path).unwrap_or_default(),
    }
    let source = stored(&folder.join("a.safetensors"), tensors);
    infer(&source, hints).map_or_else(|error| error.to_string(), |inferred| format!("{:?}", inferred.family))
}

fn tensors_of(network: &str, layout: &str) -> Tensors {
    let (layout, architecture) =
        cases().into_iter().find(|(l, a)| a.name() == network && l.name == layout).expect("there is such a layout");
    written(&layout, &architecture, &row(&architecture, 1))
}

#[test]
fn settings_beside_a_file_say_what_it_does_not_show() {
    let dir = tempfile::tempdir().unwrap();
    let llama = tensors_of("llama-untied", "its own");
    let check = |tensors: &Tensors, config: Option<&str>, expected: &str| {
        let message = message(dir.path(), tensors, config, &Hints::default());
        assert!(message.contains(expected), "{config:?}: {message}");
    };
    check(&llama, None, "the number of heads does not show in weights of width 8; give it with `--heads`");
    let full = r#"{"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 2, "rope_theta": 100.0,
                   "rms_norm_eps": 1e-5, "max_position_embeddings": 4, "tie_word_embeddings": false}"#;
    check(
        &llama,
        Some(full),
        "num_heads: 2, num_kv_heads: 2, d_hidden: 3, tied: false, theta: 100.0, pairs: Halves, epsilon: 1e-5",
    );
    let changed = |from: &str, to: &str| full.replace(from, to);
    check(&llama, Some(&changed("\"llama\"", "\"gemma\"")), "`gemma`");
    check(
        &llama,
        Some(&changed("heads\": 2, \"num_key_value_heads\": 2", "heads\": 2, \"num_key_value_heads\": 1")),
        "do not fit heads",
    );
    check(&llama, Some(&changed("\"rope_theta\": 100.0", "\"rope_scaling\": {\"type\": \"linear\"}")), "rope_scaling");
    check(&llama, Some(&changed("\"num_attention_heads\": 2", "\"num_attention_heads\": 0")), "the number of heads");
    check(&llama, Some(&changed("\"num_attention_heads\": 2", "\"num_attention_heads\": 3")), "do not fit heads");
    check(&llama, Some(&changed("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true")), "must repeat");
    check(&llama, Some(&changed("\"rope_theta\"", "\"hidden_act\": \"tanh\", \"x\"")), "None");
    check(&llama, Some("{"), "it is not valid");
    let bert = tensors_of("bert", "its own");
    check(&bert, Some(r#"{"num_attention_heads": 2, "hidden_act": "quick"}"#), "`quick`");
    check(&bert, Some(r#"{"num_attention_heads": 3}"#), "`d-model` must be a multiple");
    check(&bert, Some(r#"{"num_attention_heads": 2, "position_embedding_type": "relative_key"}"#), "`relative_key`");
}

#[test]
fn what_is_not_recognized_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let check = |tensors: &Tensors, expected: &str| {
        let message = message(dir.path(), tensors, None, &HEADS);
        assert!(message.contains(expected), "{message}");
    };
    check(&vec![("a.weight".to_owned(), vec![2, 3, 4], vec![0.0; 24])], "no family has tensors of such names, `a.weight`");
    let mut bert = tensors_of("bert", "with a prefix");
    bert.push(("cls.predictions.bias".to_owned(), vec![5], vec![0.0; 5]));
    check(&bert, "1 of its tensors are not part of that, such as `cls.predictions.bias`");
    let mut gpt = tensors_of("gpt-untied", "nanogpt");
    gpt.retain(|(name, ..)| !name.ends_with("mlp.c_fc.weight"));
    check(&gpt, "h.0.mlp.fc1.weight");
    check(&tensors_of("cnn", "modules"), "2 convolutions, 2 linear maps and 0 norms");
    let shapes = |shapes: &[&[usize]]| -> Tensors {
        let tensor = |(i, shape): (usize, &&[usize])| (format!("{i}.weight"), shape.to_vec(), vec![0.5; shape.iter().product()]);
        shapes.iter().enumerate().map(tensor).collect()
    };
    check(&shapes(&[&[3, 2], &[2, 4]]), "1.weight");
    check(&Vec::new(), "");
}

#[test]
fn the_shapes_of_a_built_in_cnn_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let zoo = weft_zoo::find_architecture(Path::new("zoo-cnn-2464")).unwrap();
    let weights = row(&zoo, 5);
    let numbers = [
        ("convs.0", "module_list.0"),
        ("convs.1", "module_list.3"),
        ("convs.2", "module_list.6"),
        ("layers.0", "module_list.9"),
        ("layers.1", "module_list.11"),
    ];
    let rename = |name: &str| numbers.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    let tensors = zoo.tensors().iter().map(|t| (rename(&t.name), t.shape.clone(), weights[t.range()].to_vec())).collect();
    let source = stored(&dir.path().join("a.safetensors"), &tensors);
    let inferred = infer(&source, &Hints::default()).unwrap();
    assert_eq!((&inferred.architecture, inferred.notes.len()), (&zoo, 1));
    assert!(inferred.notes[0].contains("`zoo-cnn-2464`"), "{:?}", inferred.notes);
    assert_eq!(inferred.binding.bind(&source, &zoo).unwrap(), weights);
}

#[test]
fn published_widths_have_known_heads() {
    let dir = tempfile::tempdir().unwrap();
    let gpt = Gpt { vocabulary: 2, length: 1, d_model: 768, depth: 1, num_heads: 12, d_hidden: 1, tied: true };
    let vit = Vit { image: [1, 4, 4], patch: 2, d_model: 192, depth: 1, num_heads: 3, d_hidden: 1, num_classes: 2 };
    for family in [Family::Gpt(gpt), Family::Vit(vit)] {
        let architecture = family.build("x").unwrap();
        let name = if matches!(family, Family::Gpt(_)) { "hugging-face, bare" } else { "timm" };
        let (layout, _) = cases().into_iter().find(|(layout, _)| layout.name == name).unwrap();
        let tensors = written(&layout, &architecture, &row(&architecture, 1));
        let inferred = infer(&stored(&dir.path().join("a.safetensors"), &tensors), &Hints::default()).unwrap();
        assert_eq!(inferred.family, Some(family));
        assert!(inferred.notes[0].contains("heads are assumed"), "{:?}", inferred.notes);
    }
}

#[test]
fn networks_without_biases_and_with_another_activation() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors_of("gpt-untied", "nanogpt");
    tensors.retain(|(name, ..)| !name.ends_with("bias"));
    let source = stored(&dir.path().join("a.safetensors"), &tensors);
    let inferred = infer(&source, &Hints { activation: Some(Activation::Relu), ..HEADS }).unwrap();
    assert!(inferred.architecture.tensors().iter().all(|spec| spec.name.ends_with("weight")));
    assert!(inferred.family.is_none() && inferred.notes[0].contains("no biases"), "{:?}", inferred.notes);
    let text = weft_zoo::architecture_to_toml(&inferred.architecture);
    assert!(text.contains("relu") && !text.contains("gelu"));
    // A bias that one layer alone lacks is missed.
    let mlp = tensors_of("mlp-relu", "fc").into_iter().filter(|(name, ..)| name != "fc2.bias").collect();
    let error = infer(&stored(&dir.path().join("a.safetensors"), &mlp), &HEADS).unwrap_err();
    assert!(matches!(&error, Error::Misfit { faults, total: 1, .. } if faults[0].0 == "layers.1.bias"), "{error}");
}

#[test]
fn an_adapter_is_a_lora_set() {
    let dir = tempfile::tempdir().unwrap();
    let own: Architecture = (*weft_testkit::tiny_families().pop().unwrap()).clone();
    let weights = row(&own, 2);
    let rename = |name: &str| format!("base_model.model.{name}");
    let tensors = own.tensors().iter().map(|t| (rename(&t.name), t.shape.clone(), weights[t.range()].to_vec())).collect();
    stored(&dir.path().join("adapter_model.safetensors"), &tensors);
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"v": 1}, "alpha_pattern": {"v": 2}}"#;
    std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    let source = weft_zoo::open_sources(dir.path()).unwrap().remove(0);
    let inferred = infer(&source, &Hints::default()).unwrap();
    assert!(inferred.architecture.same_graph(&own), "{:?}", inferred.architecture);
    assert_eq!(inferred.binding.bind(&source, &own).unwrap(), weights);
    assert_eq!(crate::sorted(inferred.binding.unbind(&own, &weights)), crate::sorted(tensors));
}
