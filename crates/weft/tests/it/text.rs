//! Folders that hold no encoder of texts.

use weft::text::TextEncoder;

#[test]
fn what_is_no_encoder_is_refused_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |expected: &str| {
        let error = TextEncoder::open(dir.path()).err().expect("no encoder");
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let error = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(error.contains(expected), "{error}");
    };
    refused("model.safetensors");
    let weights = dir.path().join("model.safetensors");
    std::fs::write(&weights, b"no tensors").unwrap();
    refused("model.safetensors");
    let mlp = weft_core::Architecture::mlp("mlp", &[3, 2], weft_core::Activation::Relu).unwrap();
    weft_zoo::write_checkpoint(&weights, &mlp, &[0.5; 8], &weft_zoo::Metadata::new()).unwrap();
    refused("does not read tokens");
    let bert = weft_core::families::Bert {
        vocabulary: 7,
        length: 5,
        segments: 2,
        d_model: 4,
        depth: 1,
        num_heads: 2,
        d_hidden: 8,
        pooler: false,
    };
    let bert = weft_core::families::Family::Bert(bert).build("bert").unwrap();
    let row: Vec<f32> = (0..bert.num_parameters()).map(|i| (i as f32).sin()).collect();
    weft_zoo::write_checkpoint(&weights, &bert, &row, &weft_zoo::Metadata::new()).unwrap();
    refused("the number of heads does not show");
    std::fs::write(dir.path().join("config.json"), b"{\"num_attention_heads\": 2}").unwrap();
    refused("tokenizer.json");
    let tokenizer = dir.path().join("tokenizer.json");
    std::fs::write(&tokenizer, b"{\"version\": \"1.0\"").unwrap();
    refused("tokenizer.json` cannot be used");
    let words = |count: usize| (0..count).map(|i| format!("\"w{i}\": {i}")).collect::<Vec<_>>().join(", ");
    let model = |count| {
        format!(
            "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], \"normalizer\": null, \
             \"pre_tokenizer\": {{\"type\": \"WhitespaceSplit\"}}, \"post_processor\": null, \"decoder\": null, \
             \"model\": {{\"type\": \"WordLevel\", \"vocab\": {{{}}}, \"unk_token\": \"w0\"}}}}",
            words(count)
        )
    };
    std::fs::write(&tokenizer, model(9)).unwrap();
    refused("it has 9 tokens and the network knows 7");
    std::fs::write(&tokenizer, model(7)).unwrap();
    let encoder = TextEncoder::open(dir.path()).unwrap();
    let [a, b] = ["w1 w2", "w2 w1"].map(|text| encoder.encode(text).unwrap());
    assert!(a.len() == 4 && a != b, "{a:?}");
    assert_eq!(encoder.encode("w1 w1 w1 w1 w1 w2 w3").unwrap(), encoder.encode("w1 w1 w1 w1 w1").unwrap(), "cut off after five");
    assert!(encoder.encode("  ").is_err());
}
