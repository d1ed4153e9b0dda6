//! Adapter folders, llama2.c binaries and hexells' JSON.

use crate::make::{adapter, fault, hexells, layer, llama2c, llama2c_values, open, png_url, truncations};
use weft_zoo::{Error, SourceFault, SourceFormat};

const LORA: &str = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}"#;
const A: &str = "base_model.model.q.lora_A.weight";
const B: &str = "base_model.model.q.lora_B.weight";

fn adapter_fault(config: &str, tensors: &[(&str, &[usize])]) -> SourceFault {
    match adapter(config, tensors).1 {
        Err(Error::Source { format: SourceFormat::Peft, fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn adapters() {
    let (dir, opened) = adapter(LORA, &[(A, &[2, 3]), (B, &[4, 2])]);
    let source = opened.unwrap().remove(0);
    let found = source.adapter().unwrap();
    assert_eq!((found.base_model.as_deref(), found.modules.len(), found.modules[0].rank), (Some("base"), 1, 2));
    assert!((found.modules[0].scaling - 2.0).abs() < 1e-12);
    assert_eq!(source.path(), dir.path());
    for len in 0..LORA.len() {
        assert!(matches!(adapter_fault(&LORA[..len], &[(A, &[2, 3]), (B, &[4, 2])]), SourceFault::Malformed { .. }), "{len}");
    }
    assert_eq!(adapter_fault(LORA, &[]), SourceFault::Empty);
    let half = adapter_fault(LORA, &[(A, &[2, 3])]);
    assert!(matches!(&half, SourceFault::MissingTensor { tensor, .. } if tensor == "q.lora_B"), "{half}");
    for shapes in [([3, 3], [4, 3]), ([2, 3], [4, 3])] {
        let other_rank = adapter_fault(LORA, &[(A, &shapes.0), (B, &shapes.1)]);
        assert!(other_rank.to_string().contains("its rank is 2"), "{other_rank}");
    }
    let axes = adapter_fault(LORA, &[(A, &[2]), (B, &[4, 2])]);
    assert!(axes.to_string().contains("1 axes"), "{axes}");
    let kernel = adapter_fault(LORA, &[(A, &[2, 3, 3, 3]), (B, &[4, 2, 3, 3])]);
    assert!(kernel.to_string().contains("module `q`"), "{kernel}");
    let twice = adapter_fault(LORA, &[(A, &[2, 3]), ("base_model.model.q.lora_A.default.weight", &[2, 3]), (B, &[4, 2])]);
    assert!(matches!(twice, SourceFault::Duplicate { .. }), "{twice}");
    let name = adapter_fault(LORA, &[("q.lora_A.weight", &[2, 3]), (B, &[4, 2])]);
    assert!(name.to_string().contains("`q.lora_A.weight`"), "{name}");
    let dora = adapter_fault(&LORA.replace("\"r\"", "\"use_dora\": true, \"r\""), &[(A, &[2, 3]), (B, &[4, 2])]);
    assert!(dora.to_string().contains("lora_magnitude_vector"), "{dora}");
    assert!(matches!(adapter_fault(&LORA.replace("LORA", "VERA"), &[]), SourceFault::NotRead { .. }));
    let alone = tempfile::tempdir().unwrap();
    std::fs::write(alone.path().join("adapter_config.json"), LORA).unwrap();
    let missing = weft_zoo::open_sources(alone.path()).unwrap_err().to_string();
    assert!(missing.contains("`adapter_model.safetensors`"), "{missing}");
}

const TINY: [i32; 7] = [4, 6, 2, 2, 1, 8, 3];

#[test]
fn llama2c_binaries() {
    for header in [TINY, [4, 6, 2, 2, 1, -8, 3]] {
        let whole = llama2c(header, llama2c_values(header));
        let source = open("model.bin", &whole).unwrap().remove(0);
        assert_eq!(source.format(), SourceFormat::Llama2c);
        assert_eq!(source.tensors().contains_key("lm_head.weight"), header[5] < 0);
        assert_eq!(source.tensors()["model.layers.1.self_attn.k_proj.weight"].shape, [2, 4]);
        // Values count up: the place of each tensor shows. 32 of the embedding, 8 of the norms, 16 + 16 of
        // `wq`, 8 of the first layer's `wk`.
        assert_eq!(source.read("model.layers.1.self_attn.k_proj.weight").unwrap()[0].to_bits(), 80f32.to_bits());
        let last = source.read(if header[5] < 0 { "lm_head.weight" } else { "model.norm.weight" }).unwrap();
        let expected = if header[5] < 0 { whole.len() / 4 - 8 } else { whole.len() / 4 - 8 - 6 };
        assert_eq!(last.last().unwrap().to_bits(), (expected as f32).to_bits());
        truncations("model.bin", &whole);
        let longer = open("model.bin", &[&whole[..], &[0; 4]].concat());
        assert!(longer.unwrap_err().to_string().contains("its header speaks of"));
    }
}

#[test]
fn llama2c_headers_that_lie() {
    let check = |header: [i32; 7], expected: &str| {
        let error = open("model.bin", &llama2c(header, 100)).unwrap_err();
        assert!(matches!(error, Error::UnknownFormat { .. }) && error.to_string().contains(expected), "{error}");
    };
    check([i32::MAX, i32::MAX, i32::MAX, 1, 1, i32::MAX, i32::MAX], "`n_heads` is `1`");
    check([i32::MAX - 1, i32::MAX, i32::MAX, 1, 1, i32::MIN, i32::MAX], "its header speaks of 18446744073709551615");
    check([0; 7], "`dim` is `0`");
    check([4, 6, -2, 2, 1, 8, 3], "`n_layers` is `-2`");
    check([4, 6, 2, 3, 1, 8, 3], "`n_heads` is `3`");
    check([8, 6, 2, 4, 3, 8, 3], "`n_kv_heads` is `3`");
}

/// Two tiles across, one down, of one input and a bias, four outputs; the byte counts up from 100.
fn automata() -> (String, Vec<u8>) {
    let pixels: Vec<u8> = (100..116).collect();
    let url = png_url(2, 2, &pixels);
    (url.clone(), hexells(&["x", "y"], &[layer(&url, [2, 4], [2, 1])]))
}

#[test]
fn automata_by_tiles() {
    let (_, json) = automata();
    let sources = open("models.json", &json).unwrap();
    let names: Vec<_> = sources.iter().map(|source| source.member().unwrap()).collect();
    assert_eq!(names, ["x", "y"]);
    // Line 0: the weights of x, of y; line 1: their biases. `(b − 127) / 255 · 2.55` is a hundredth a step.
    let check = |source: usize, tensor: &str, first: u8| {
        let values = sources[source].read(tensor).unwrap();
        let expected = (0..4).map(|i| (f64::from(first + i) - 127.0) / 100.0);
        assert!(values.iter().zip(expected).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-6), "{values:?}");
    };
    check(0, "layers.0.weight", 100);
    check(1, "layers.0.weight", 104);
    check(0, "layers.0.bias", 108);
    check(1, "layers.0.bias", 112);
    assert_eq!(sources[0].tensors()["layers.0.weight"].shape, [4, 1]);
    assert_eq!(sources[1].metadata()["name"], "y");
    truncations("models.json", &json);
}

#[test]
fn automata_that_lie() {
    let (url, _) = automata();
    let check = |names: &[&str], layers: &[String], expected: &str| {
        let fault = fault("models.json", &hexells(names, layers));
        assert!(fault.to_string().contains(expected), "{fault}");
    };
    let one = |shape, layout| vec![layer(&url, shape, layout)];
    check(&["x", "x"], &one([2, 4], [2, 1]), "`x` stands twice");
    check(&["x", "y", "z"], &one([2, 4], [2, 1]), "layout");
    check(&["x"], &one([2, 4], [1, 1]), "it should be 1 × 2");
    check(&["x"], &one([1, 4], [2, 1]), "shape");
    check(&["x"], &one([2, 6], [2, 1]), "by fours");
    check(&["x"], &one([u64::MAX, 4], [u64::MAX, 4]), "layout");
    check(&["x"], &one([1 << 20, 1 << 20], [1, 1]), "layout");
    check(&["x"], &[layer(&url, [2, 4], [2, 1]), layer(&url, [2, 4], [2, 1])], "layers.1.shape");
    check(&["x"], &[], "no tensor");
    check(&[], &one([2, 4], [2, 1]), "no tensor");
    check(&["x"], &[layer("data:image/png;base64,!!!!", [2, 4], [2, 1])], "image of layer 0");
    check(&["x"], &[layer("data:image/png;base64,AAAA", [2, 4], [2, 1])], "image of layer 0");
    check(&["x"], &[layer("hello", [2, 4], [2, 1])], "no data URL");
    check(&["x"], &[layer("data:text/html,x", [2, 4], [2, 1])], "no PNG");
    check(&["x"], &[layer(&url, [2, 4], [2, 1]).replace("2.55", "1e999")], "out of range");
    check(&["x"], &[layer(&url, [2, 4], [2, 1]).replace("2.55", "\"a\"")], "its JSON is not valid");
    // A picture of 2³¹ × 2³¹ pixels, in a header of 13 bytes.
    let mut huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06\0\0\0".to_vec();
    let mut crc = flate2::Crc::new();
    crc.update(&huge[12..]);
    huge.extend(crc.sum().to_be_bytes());
    huge.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, huge);
    check(&["x"], &[layer(&format!("data:image/png;base64,{text}"), [2, 4], [2, 1])], "image of layer 0");
}
