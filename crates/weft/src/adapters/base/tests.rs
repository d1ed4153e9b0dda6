//! A tiny binary of llama2.c with an adapter, against its copy for Transformers and the interpreter.

use super::super::{BaseChoice, Convert, convert, show};
use super::*;
use weft_core::Architecture;
use weft_core::families::{Lora, LoraModule};
use weft_zoo::adapter::{AdapterExport, AdapterProfile, AdapterProvenance, AdapterWeights};

const VOCABULARY: usize = 266;

fn family(tied: bool) -> Llama {
    let (length, d_model, depth, num_heads, num_kv_heads, d_hidden) = (12, 16, 2, 4, 2, 12);
    let (theta, pairs, epsilon) = (1e4, RopePairs::Interleaved, 1e-5);
    Llama { vocabulary: VOCABULARY, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta, pairs, epsilon }
}

/// A binary of llama2.c of a network's weights.
fn binary(family: &Llama, architecture: &Architecture, row: &[f32]) -> Vec<u8> {
    let tensor = |name: &str| {
        let found = architecture.tensors().iter().find(|tensor| tensor.name == name).expect("a tensor");
        row[found.range()].to_vec()
    };
    let vocabulary = if family.tied { VOCABULARY as i32 } else { -(VOCABULARY as i32) };
    let sizes = [family.d_model, family.d_hidden, family.depth, family.num_heads, family.num_kv_heads].map(|size| size as i32);
    let mut values = tensor("model.embed_tokens.weight");
    let parts = [
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "mlp.gate_proj",
        "mlp.down_proj",
        "mlp.up_proj",
    ];
    for part in parts {
        (0..family.depth).for_each(|layer| values.extend(tensor(&format!("model.layers.{layer}.{part}.weight"))));
    }
    values.extend(tensor("model.norm.weight"));
    values.extend(vec![0.0; family.length * family.d_model / family.num_heads]);
    if !family.tied {
        values.extend(tensor("lm_head.weight"));
    }
    let header = sizes.into_iter().chain([vocabulary, family.length as i32]).flat_map(i32::to_le_bytes);
    header.chain(values.into_iter().flat_map(f32::to_le_bytes)).collect()
}

/// A tokenizer of llama2.c.
fn vocabulary() -> Vec<u8> {
    let special = ["<unk>", "\n<s>\n", "\n</s>\n"].map(ToOwned::to_owned).into_iter();
    let bytes = special.chain((0..256).map(|byte| format!("<0x{byte:02X}>"))).map(|piece| (piece, 0.0));
    let pieces = [(" ", -9.0), ("a", -8.0), ("b", -7.0), ("ab", -3.0), ("ba", -2.0), (" a", -4.0), ("aba", -1.0)];
    let mut file = 8_u32.to_le_bytes().to_vec();
    for (piece, score) in bytes.chain(pieces.map(|(piece, score)| (piece.to_owned(), score))) {
        file.extend(f32::to_le_bytes(score));
        file.extend((piece.len() as u32).to_le_bytes());
        file.extend(piece.as_bytes());
    }
    file
}

/// Low-rank updates of all modules that rotary positions touch, and of two that they do not, with scalings that differ.
fn lora() -> Lora {
    let module = |(at, part, fan_out): (usize, &str, usize)| LoraModule {
        name: format!("model.layers.{at}.self_attn.{part}"),
        fan_in: 16,
        fan_out,
        rank: 2,
        scaling: 0.5 + at as f64,
    };
    let parts = [("k_proj", 8), ("o_proj", 16), ("q_proj", 16), ("v_proj", 8)];
    Lora { modules: (0..2).flat_map(|at| parts.map(|(part, outputs)| (at, part, outputs))).map(module).collect() }
}

/// `W + s·B·A`, in the layout of the network.
fn merged(architecture: &Architecture, row: &[f32], factors: &[f32]) -> Vec<f64> {
    let mut row: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
    let mut rest = factors;
    for module in lora().modules {
        let (a, others) = rest.split_at(module.rank * module.fan_in);
        let (b, others) = others.split_at(module.fan_out * module.rank);
        rest = others;
        let name = format!("{}.weight", module.name);
        let tensor = architecture.tensors().iter().find(|tensor| tensor.name == name).expect("a module of the base");
        for (at, weight) in row[tensor.range()].iter_mut().enumerate() {
            let (o, i) = (at / module.fan_in, at % module.fan_in);
            let product = (0..module.rank).map(|k| f64::from(b[o * module.rank + k]) * f64::from(a[k * module.fan_in + i]));
            *weight += module.scaling * product.sum::<f64>();
        }
    }
    row
}

const TOKENS: [u32; 7] = [1, 260, 3, 265, 77, 0, 262];

fn interpreted(architecture: &Architecture, row: &[f64]) -> Vec<f64> {
    let network = weft_net::with_tokens(architecture, TOKENS.len()).expect("tokens");
    weft_net::interpret_f64(&network, row.into(), &TOKENS.map(f64::from)).expect("logits")
}

fn computed(base: &Path, adapter: Option<&Path>, output: &Path) -> Result<Vec<f64>> {
    let (prompt, adapter) = (Prompt::Tokens(TOKENS.to_vec()), adapter.map(ToOwned::to_owned));
    let base_name = adapter.is_some().then(|| "tiny".to_owned());
    let view = logits(&LogitsRequest { base: base.to_owned(), base_name, adapter, prompt, output: output.to_owned() })?;
    assert_eq!((view.vocabulary, view.tokens.len()), (VOCABULARY, TOKENS.len()));
    let (shape, values) = weft_zoo::read_tensors(output)?.tensors.remove("logits").expect("logits");
    assert_eq!(shape, [TOKENS.len(), VOCABULARY]);
    Ok(values.into_iter().map(f64::from).collect())
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_copy_for_transformers_computes_what_the_binary_does_with_adapters_too() {
    for tied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let family = family(tied);
        let architecture = Family::Llama(family.clone()).build("tiny").unwrap();
        let row = weft_testkit::random_row(&architecture, Seed::new(1));
        std::fs::write(at("tiny.bin"), binary(&family, &architecture, &row)).unwrap();
        let request =
            BaseExport { input: at("tiny.bin"), output: at("base"), vocabulary: None, name: None, licence: Some("MIT".to_owned()) };
        let view = export_base(&request).unwrap();
        assert_eq!((view.name.as_str(), view.from, view.parameters), ("tiny", "interleaved", row.len()));
        let file = weft_zoo::read_tensors(&at("base/model.safetensors")).unwrap();
        assert_eq!(file.tensors.contains_key("lm_head.weight"), !tied);
        let wide: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
        let expected = interpreted(&architecture, &wide);
        for (base, output) in [("tiny.bin", "1"), ("base", "2")] {
            assert!(apart(&computed(&at(base), None, &at(output)).unwrap(), &expected) < 1e-4);
        }
        // An adapter in the order of the binary, as a folder of PEFT that does not say it.
        let count = Family::Lora(lora()).build("a").unwrap().num_parameters();
        let factors: Vec<f32> = Seed::new(2).normals(count).into_iter().map(|v| 0.5 * v).collect();
        let adapter = AdapterWeights::from_lora(&lora(), &factors, Some("tiny".to_owned())).unwrap();
        let provenance = AdapterProvenance::default();
        let profile = AdapterProfile::Peft;
        let export = AdapterExport::new(profile, &provenance);
        adapter.write(&export, &at("turned")).unwrap();
        let base = BaseChoice { folder: Some(at("base")), name: None };
        let turn = |input: &str, rotary: Option<RopePairs>, output: &str| {
            convert(&Convert { input: at(input), output: at(output), profile, base: base.clone(), component: None, rotary })
        };
        turn("turned", Some(RopePairs::Interleaved), "adapter").unwrap();
        let expected = interpreted(&architecture, &merged(&architecture, &row, &factors));
        for (base, output) in [("tiny.bin", "3"), ("base", "4")] {
            let got = computed(&at(base), Some(&at("adapter")), &at(output)).unwrap();
            assert!(apart(&got, &expected) < 1e-4, "{base}: {}", apart(&got, &expected));
        }
        let mixed_up = computed(&at("base"), Some(&at("turned")), &at("5")).unwrap();
        assert!(apart(&mixed_up, &expected) > 1e-2, "{}", apart(&mixed_up, &expected));
        let said = std::fs::read_to_string(at("adapter/weft.json")).unwrap();
        assert!(said.contains("\"rotary\": \"halves\""), "{said}");
        let message = turn("adapter", Some(RopePairs::Interleaved), "twice").unwrap_err().to_string();
        assert!(message.contains("q_proj") || message.contains("k_proj"), "{message}");
        let binary = BaseChoice { folder: Some(at("tiny.bin")), name: Some("tiny".to_owned()) };
        let error = show(&at("adapter"), &binary).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("weft adapter base")), "{error}");
        assert!(!at("twice").exists());
    }
}

#[test]
fn the_tokenizer_is_that_of_the_binary() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let family = family(true);
    let architecture = Family::Llama(family.clone()).build("tiny").unwrap();
    let row = weft_testkit::random_row(&architecture, Seed::new(1));
    std::fs::write(at("model.bin"), binary(&family, &architecture, &row)).unwrap();
    std::fs::write(at("tok.bin"), vocabulary()).unwrap();
    let (name, licence) = (Some("org/tiny".to_owned()), None);
    let request = BaseExport { input: at("model.bin"), output: at("base"), vocabulary: Some(at("tok.bin")), name, licence };
    let view = export_base(&request).unwrap();
    assert_eq!((view.files.len(), view.licence.as_str()), (5, "unknown"));
    let own = Vocabulary::open(&at("tok.bin")).unwrap();
    let theirs = tokenizers::Tokenizer::from_file(at("base/tokenizer.json")).unwrap();
    for text in ["abaab", "b a  ba", "aé€ab", "", "abababba ab"] {
        let expected: Vec<u32> = std::iter::once(Vocabulary::START).chain(own.encode(text)).collect();
        let got = theirs.encode(text, true).unwrap();
        assert_eq!(got.get_ids(), expected, "{text}");
        assert_eq!(theirs.decode(got.get_ids(), true).unwrap(), text);
    }
    let prompt = Prompt::Text("abaab".to_owned(), at("tok.bin"));
    let request = LogitsRequest { base: at("base"), base_name: None, adapter: None, prompt, output: at("l") };
    assert_eq!(logits(&request).unwrap().tokens[0], Vocabulary::START);
    assert!(logits(&request).unwrap_err().to_string().contains("is there already"));
    let unknown = LogitsRequest { prompt: Prompt::Tokens(vec![266]), output: at("m"), ..request };
    assert!(logits(&unknown).unwrap_err().to_string().contains("token 266"));
}

#[test]
fn what_is_no_decoder_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    weft_zoo::write_tensors(
        &at("x.safetensors"),
        &[("0.weight".to_owned(), vec![2, 3], &[0.0; 6]), ("0.bias".to_owned(), vec![2], &[0.0; 2])],
        &Metadata::new(),
    )
    .unwrap();
    let request = BaseExport { input: at("x.safetensors"), output: at("base"), vocabulary: None, name: None, licence: None };
    assert!(export_base(&request).is_err());
    std::fs::write(at("short.bin"), [1; 40]).unwrap();
    assert!(export_base(&BaseExport { input: at("short.bin"), ..request }).is_err());
    assert!(!at("base").exists());
}
