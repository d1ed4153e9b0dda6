//! Files of llama.cpp; `tests/python/test_adapters.py` reads them with the package `gguf`.

use super::{adapter, linear, write};
use std::collections::BTreeMap;
use weft_zoo::AdapterKind;
use weft_zoo::adapter::{AdapterProfile, AdapterUpdate, AdapterWeights, BaseModel};

fn base(model_type: &str, tied: bool) -> BaseModel {
    let modules = ["model.layers.0.self_attn.q_proj", "lm_head", "model.layers.0.odd"].map(|name| (name.to_owned(), vec![4, 3]));
    let config = serde_json::json!({ "model_type": model_type, "num_attention_heads": 1, "tie_word_embeddings": tied });
    let config = config.as_object().unwrap().clone();
    BaseModel::of_modules("org/base", BTreeMap::from(modules)).with_config(config)
}

#[test]
fn the_file_is_laid_out_as_the_specification_says() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let weights = adapter(vec![linear("model.layers.0.self_attn.q_proj", [4, 1, 3], 2.0)]);
    write(&weights, AdapterProfile::Gguf, Some(&base("llama", false)), &out).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    assert_eq!(&bytes[..16], [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &2_u64.to_le_bytes()].concat());
    let find = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap();
    let at = find(b"general.architecture") + 20 + 4;
    assert_eq!(&bytes[at..at + 13], [&5_u64.to_le_bytes()[..], b"llama"].concat());
    let at = find(b"adapter.lora.alpha") + 18;
    assert_eq!(&bytes[at..at + 8], [6_u32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    // A 32-byte multiple, then 3 values of A padded to 32 bytes, then 4 of B, rows 0 2 1 3, padded as well.
    assert_eq!(bytes.len() % 32, 0);
    let data = &bytes[bytes.len() - 64..];
    let values =
        |at: usize, n: usize| (0..n).map(|i| f32::from_le_bytes(data[at + 4 * i..][..4].try_into().unwrap())).collect::<Vec<_>>();
    let update = &weights.updates[0];
    assert_eq!(values(0, 3), update.a);
    assert_eq!(values(32, 4), [0, 2, 1, 3].map(|row| update.b[row]));
    write(&weights, AdapterProfile::Gguf, Some(&base("qwen2", false)), &dir.path().join("q.gguf")).unwrap();
    let qwen = std::fs::read(dir.path().join("q.gguf")).unwrap();
    let data: Vec<u8> = update.b.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(qwen.ends_with(&[data, vec![0; 16]].concat()));
}

#[test]
fn what_has_no_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |weights: &AdapterWeights, base: Option<BaseModel>, expected: &str| {
        let error = write(weights, AdapterProfile::Gguf, base.as_ref(), &dir.path().join("x.gguf")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    let query = adapter(vec![linear("model.layers.0.self_attn.q_proj", [4, 1, 3], 1.0)]);
    refused(&query, None, "a GGUF file needs the base's folder with `config.json`");
    refused(&query, Some(base("bert", false)), "the base is of type `bert`, not one of `llama`");
    let odd = adapter(vec![linear("model.layers.0.odd", [4, 1, 3], 1.0)]);
    refused(&odd, Some(base("llama", false)), "module `model.layers.0.odd` has no name there");
    let head = adapter(vec![linear("lm_head", [4, 1, 3], 1.0)]);
    refused(&head, Some(base("llama", true)), "`lm_head` is tied to the embedding");
    // The output layer is the embedding where the settings say so, and where there is none.
    let table = AdapterUpdate { kind: AdapterKind::Embedding, ..linear("model.embed_tokens", [4, 1, 3], 1.0) };
    let embedding = adapter(vec![table]);
    let modules = ["model.embed_tokens", "lm_head"].map(|name| (name.to_owned(), vec![3, 4]));
    let of = |modules: &[(String, Vec<usize>)], tied: bool| {
        let config = serde_json::json!({ "model_type": "gemma", "num_attention_heads": 1, "tie_word_embeddings": tied });
        let base = BaseModel::of_modules("org/base", modules.iter().cloned().collect());
        base.with_config(config.as_object().unwrap().clone())
    };
    for base in [of(&modules, true), of(&modules[..1], false)] {
        refused(&embedding, Some(base), "module `model.embed_tokens` is the base's output layer too");
    }
    write(&embedding, AdapterProfile::Gguf, Some(&of(&modules, false)), &dir.path().join("own.gguf")).unwrap();
    std::fs::remove_file(dir.path().join("own.gguf")).unwrap();
    // Without their whole names, two modules are one.
    let base = BaseModel::of_modules(
        "org/base",
        ["model.layers.0.self_attn.q_proj", "model.layers.00.self_attn.q_proj"].map(|name| (name.to_owned(), vec![4, 3])).into(),
    );
    let config = serde_json::json!({ "model_type": "qwen2", "num_attention_heads": 1 });
    let base = base.with_config(config.as_object().unwrap().clone());
    let two = ["model.layers.0.self_attn.q_proj", "model.layers.00.self_attn.q_proj"].map(|name| linear(name, [4, 1, 3], 1.0));
    let expected = "modules `model.layers.0.self_attn.q_proj` and `model.layers.00.self_attn.q_proj` are one there";
    refused(&adapter(two.to_vec()), Some(base), expected);
}
