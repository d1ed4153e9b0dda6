//! Every way to store every family: bound, the weights are those that were stored; unbound, the file is what it was.

use crate::{Tensors, row, sorted, stored};
use proptest::prelude::*;
use std::sync::Arc;
use weft_core::Architecture;
use weft_zoo::{Binding, Error, TensorFault};

/// How a file differs from the architecture's own tensors.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// The tiny networks that it stores.
    pub(crate) networks: &'static [&'static str],
    pub(crate) name: &'static str,
    /// The name of a declared tensor in the file.
    rename: fn(&str) -> String,
    forms: &'static [Form],
}

/// What a file does to the tensors themselves.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Queries, keys and values below each other.
    Fused,
    /// Matrices of blocks in × out.
    Transposed,
    /// Axes of length 1 in front of what has no module.
    Batched,
    /// Repeats the first tensor as the output layer.
    Repeats,
}

impl Layout {
    const fn new(networks: &'static [&'static str], name: &'static str, rename: fn(&str) -> String) -> Self {
        Self { networks, name, rename, forms: &[] }
    }
}

fn replaced(name: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

fn hf_resnet(name: &str) -> String {
    let name = replaced(
        name,
        &[
            (".conv1.", ".layer.0.convolution."),
            (".conv2.", ".layer.1.convolution."),
            (".bn1.", ".layer.0.normalization."),
            (".bn2.", ".layer.1.normalization."),
            (".downsample.0.", ".shortcut.convolution."),
            (".downsample.1.", ".shortcut.normalization."),
            ("fc.", "classifier.1."),
        ],
    );
    match name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) {
        Some((stage, rest)) => format!("resnet.encoder.stages.{}.layers.{rest}", stage.parse::<usize>().expect("a number") - 1),
        None => replaced(
            &name,
            &[("conv1.", "resnet.embedder.embedder.convolution."), ("bn1.", "resnet.embedder.embedder.normalization.")],
        ),
    }
}

fn hf_vit(name: &str) -> String {
    replaced(
        name,
        &[
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            ("norm.", "vit.layernorm."),
            (".attn.q.", ".attention.attention.query."),
            (".attn.k.", ".attention.attention.key."),
            (".attn.v.", ".attention.attention.value."),
            (".attn.proj.", ".attention.output.dense."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
            ("blocks.", "vit.encoder.layer."),
            ("cls_token", "vit.embeddings.cls_token"),
            ("pos_embed", "vit.embeddings.position_embeddings"),
            ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
            ("head.", "classifier."),
        ],
    )
}

fn torchvision_vit(name: &str) -> String {
    replaced(
        name,
        &[
            (".norm1.", ".ln_1."),
            (".norm2.", ".ln_2."),
            ("norm.", "encoder.ln."),
            (".attn.q.", ".self_attention.in_proj_"),
            (".attn.proj.", ".self_attention.out_proj."),
            (".mlp.fc1.", ".mlp.0."),
            (".mlp.fc2.", ".mlp.3."),
            ("blocks.", "encoder.layers.encoder_layer_"),
            ("cls_token", "class_token"),
            ("pos_embed", "encoder.pos_embedding"),
            ("patch_embed.proj", "conv_proj"),
            ("head.", "heads.head."),
        ],
    )
}

fn gpt(name: &str) -> String {
    let pairs = [(".attn.q.", ".attn.c_attn."), (".attn.proj.", ".attn.c_proj."), (".fc1.", ".c_fc."), (".fc2.", ".c_proj.")];
    replaced(name, &pairs)
}

fn prefixed_gpt(name: &str) -> String {
    if name.starts_with("lm_head") { name.to_owned() } else { format!("transformer.{}", gpt(name)) }
}

const RESNET: &[&str] = &["resnet"];
const VIT: &[&str] = &["vit"];
const BERT: &[&str] = &["bert", "bert-without-pooler"];
const LLAMA: &[&str] = &["llama-tied", "llama-untied"];
const MLP: &[&str] = &["mlp-relu"];
const GPT: &[&str] = &["gpt-tied", "gpt-untied"];
const ALL: &[&str] = &[
    "mlp-relu",
    "mlp-tanh",
    "mlp-gelu",
    "cnn",
    "cnn-batch-norm",
    "resnet",
    "vit",
    "bert",
    "bert-without-pooler",
    "gpt-tied",
    "gpt-untied",
    "llama-tied",
    "llama-untied",
    "automaton",
    "lora",
];

pub(crate) fn layouts() -> Vec<Layout> {
    let new = Layout::new;
    let cnn = |name: &str| {
        let pairs = [("convs.0", "features.conv1"), ("convs.1", "features.conv2"), ("norms.0", "bn1"), ("norms.1", "bn2")];
        replaced(name, &[&pairs[..], &[("layers.0", "classifier"), ("layers.1", "output")]].concat())
    };
    vec![
        new(ALL, "its own", str::to_owned),
        new(RESNET, "another torchvision", |name| replaced(name, &[("downsample", "shortcut"), ("fc.", "linear.")])),
        new(RESNET, "hugging-face", hf_resnet),
        Layout { forms: &[Form::Fused, Form::Batched], ..new(VIT, "timm", |name| name.replace(".attn.q.", ".attn.qkv.")) },
        Layout { forms: &[Form::Batched], ..new(VIT, "hugging-face", hf_vit) },
        Layout { forms: &[Form::Fused, Form::Batched], ..new(VIT, "torchvision", torchvision_vit) },
        new(BERT, "with a prefix", |name| format!("bert.{name}")),
        new(BERT, "old", |name| {
            let pairs = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];
            format!("bert.{}", replaced(name, &pairs))
        }),
        Layout { forms: &[Form::Fused, Form::Transposed], ..new(GPT, "hugging-face", prefixed_gpt) },
        Layout { forms: &[Form::Fused, Form::Transposed], ..new(GPT, "hugging-face, bare", gpt) },
        Layout { forms: &[Form::Fused, Form::Transposed, Form::Repeats], ..new(&["gpt-tied"], "hugging-face, tied", prefixed_gpt) },
        Layout { forms: &[Form::Fused], ..new(GPT, "nanogpt", prefixed_gpt) },
        Layout { forms: &[Form::Fused, Form::Repeats], ..new(&["gpt-tied"], "nanogpt, tied", prefixed_gpt) },
        new(LLAMA, "bare", |name| name.replace("model.", "")),
        Layout { forms: &[Form::Repeats], ..new(&["llama-tied"], "tied", str::to_owned) },
        new(MLP, "fc", |name| replaced(name, &[("layers.2", "fc3"), ("layers.1", "fc2"), ("layers.0", "fc1")])),
        new(MLP, "sequential", |name| replaced(name, &[("layers.2", "4"), ("layers.1", "2"), ("layers.0", "0")])),
        new(MLP, "net", |name| replaced(name, &[("layers.2", "net.10"), ("layers.1", "net.9"), ("layers.0", "net.1")])),
        new(MLP, "groups", |name| replaced(name, &[("layers.2", "a"), ("layers.1", "hidden.1"), ("layers.0", "hidden.0")])),
        new(&["cnn", "cnn-batch-norm"], "modules", cnn),
    ]
}

/// The file of a network in a layout; made here, not by the code under test.
pub(crate) fn written(layout: &Layout, architecture: &Architecture, row: &[f32]) -> Tensors {
    let mut tensors = Tensors::new();
    for spec in architecture.tensors() {
        let (mut shape, mut values) = (spec.shape.clone(), row[spec.range()].to_vec());
        if layout.forms.contains(&Form::Fused) && (spec.name.contains(".attn.k.") || spec.name.contains(".attn.v.")) {
            continue;
        }
        if layout.forms.contains(&Form::Fused) && spec.name.contains(".attn.q.") {
            for other in [".attn.k.", ".attn.v."] {
                let name = spec.name.replace(".attn.q.", other);
                let other = architecture.tensors().iter().find(|spec| spec.name == name).expect("it has all three");
                values.extend_from_slice(&row[other.range()]);
            }
            shape[0] *= 3;
        }
        if layout.forms.contains(&Form::Transposed) && spec.name.starts_with("h.") && shape.len() == 2 {
            values =
                (0..shape[1]).flat_map(|c| (0..shape[0]).map(move |r| (r, c))).map(|(r, c)| values[r * shape[1] + c]).collect();
            shape.reverse();
        }
        if layout.forms.contains(&Form::Batched) && !spec.name.contains('.') {
            shape.splice(0..0, vec![1; 3 - shape.len()]);
        }
        tensors.push(((layout.rename)(&spec.name), shape, values));
    }
    if layout.forms.contains(&Form::Repeats) {
        let (_, shape, values) = tensors[0].clone();
        tensors.push(("lm_head.weight".to_owned(), shape, values));
    }
    tensors
}

/// All layouts with all networks that have them.
pub(crate) fn cases() -> Vec<(Layout, Arc<Architecture>)> {
    let networks = weft_testkit::tiny_families();
    let of = |layout: Layout| {
        let networks = networks.iter().filter(move |network| layout.networks.contains(&network.name()));
        networks.map(move |network| (layout, network.clone()))
    };
    layouts().into_iter().flat_map(of).collect()
}

#[test]
fn every_layout_has_its_networks() {
    let cases = cases();
    assert_eq!(cases.len(), layouts().iter().map(|layout| layout.networks.len()).sum::<usize>());
    assert!(cases.len() > 40, "{}", cases.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn what_comes_in_goes_out(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        for (layout, architecture) in cases() {
            let weights = row(&architecture, seed);
            let tensors = written(&layout, &architecture, &weights);
            let source = stored(&dir.path().join("a.safetensors"), &tensors);
            let what = format!("{} as {}", architecture.name(), layout.name);
            let binding = Binding::find(&source, &architecture).unwrap_or_else(|e| panic!("{what}: {e}"));
            prop_assert_eq!(binding.bind(&source, &architecture).unwrap(), weights.clone(), "{}", what);
            prop_assert_eq!(sorted(binding.unbind(&architecture, &weights)), sorted(tensors), "{}", what);
            let text = weft_zoo::binding_to_json(&binding);
            prop_assert_eq!(&weft_zoo::binding_from_json(&text, &architecture).unwrap(), &binding, "{}", what);
            // Other weights of the same architecture come out in the same layout, and back in.
            let other = row(&architecture, seed.wrapping_add(1));
            let tensors = binding.unbind(&architecture, &other);
            let source = stored(&dir.path().join("b.safetensors"), &tensors);
            prop_assert_eq!(binding.bind(&source, &architecture).unwrap(), other, "{}", what);
        }
    }
}

/// The file of a layout, by names.
fn file(network: &str, layout: &str) -> (Arc<Architecture>, Tensors) {
    let (layout, architecture) =
        cases().into_iter().find(|(l, network_)| network_.name() == network && l.name == layout).expect("there is such a layout");
    let tensors = written(&layout, &architecture, &row(&architecture, 1));
    (architecture, tensors)
}

#[test]
fn buffers_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let check = |network: &str, layout: &str, name: &str, shape: &[usize], is_buffer: bool| {
        let (architecture, mut tensors) = file(network, layout);
        tensors.push((name.to_owned(), shape.to_vec(), vec![1.0; shape.iter().product()]));
        let source = stored(&dir.path().join("a.safetensors"), &tensors);
        match Binding::find(&source, &architecture) {
            Ok(binding) => assert!(is_buffer && binding.ignored() == [name], "{name}"),
            Err(error) => assert!(!is_buffer && error.to_string().contains("not a tensor of"), "{error}"),
        }
    };
    check("resnet", "its own", "bn1.num_batches_tracked", &[], true);
    check("gpt-tied", "hugging-face", "transformer.h.0.attn.bias", &[1, 1, 4, 4], true);
    check("gpt-tied", "hugging-face", "transformer.h.0.attn.bias", &[4], false);
    check("bert", "with a prefix", "bert.embeddings.position_ids", &[1, 3], true);
    check("llama-tied", "its own", "model.layers.0.self_attn.rotary_emb.inv_freq", &[2], true);
    check("bert", "its own", "classifier.weight", &[2, 4], false);
}

#[test]
fn what_does_not_fit_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (architecture, own) = file("bert", "its own");
    let find = |tensors: &Tensors| {
        let source = stored(&dir.path().join("a.safetensors"), tensors);
        Binding::find(&source, &architecture).unwrap_err()
    };
    let mut tensors = own.clone();
    tensors.retain(|(name, ..)| name != "pooler.dense.bias");
    tensors[0].1 = vec![4, 9];
    tensors.push(("other".to_owned(), vec![1], vec![0.0]));
    insta::assert_snapshot!(find(&tensors).to_string().replace(&dir.path().display().to_string(), "DIR"), @r"
    `DIR/a.safetensors` does not fit the architecture `bert`:
      tensor `embeddings.word_embeddings.weight`: shape [4, 9], expected [9, 4]
      tensor `pooler.dense.bias`: missing
      tensor `other`: not a tensor of the architecture `bert`
    ");
    let error = find(&vec![("x".to_owned(), vec![1], vec![0.0])]);
    assert!(
        matches!(&error, Error::Misfit { faults, total, .. } if faults.len() == 10 && *total == architecture.tensors().len() + 1)
    );
    assert!(error.to_string().ends_with(&format!("and {} more", architecture.tensors().len() - 9)), "{error}");
    // Two spellings of one tensor.
    let mut tensors = own;
    let (_, shape, values) = tensors[3].clone();
    tensors.push(("bert.embeddings.LayerNorm.gamma".to_owned(), shape, values));
    assert!(matches!(find(&tensors), Error::Misfit { .. }));
}

#[test]
fn integers_are_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let header = br#"{"fc1.weight":{"dtype":"I64","shape":[2,1],"data_offsets":[0,16]},"fc2.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[16,24]}}"#;
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header, &[0; 24]].concat()).unwrap();
    let source = weft_zoo::open_sources(&path).unwrap().remove(0);
    let error = weft_zoo::infer(&source, &weft_zoo::Hints::default()).unwrap_err().to_string();
    assert!(error.contains("tensor `fc1.weight`: dtype I64 is not read as weights"), "{error}");
}

#[test]
fn a_tied_output_layer_must_repeat_the_embedding() {
    let dir = tempfile::tempdir().unwrap();
    let (architecture, mut tensors) = file("llama-tied", "tied");
    let path = dir.path().join("a.safetensors");
    let binding = Binding::find(&stored(&path, &tensors), &architecture).unwrap();
    assert_eq!(binding.repeats().len(), 1);
    let value = &mut tensors.last_mut().unwrap().2[7];
    *value = f32::from_bits(value.to_bits() ^ 1);
    let error = binding.bind(&stored(&path, &tensors), &architecture).unwrap_err();
    assert!(
        matches!(&error, Error::Tensor { tensor, fault: TensorFault::Repeat { index: 7, .. }, .. } if tensor == "lm_head.weight")
    );
}

#[test]
fn a_binding_refuses_files_of_other_layouts_and_values_that_are_no_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let (architecture, mut tensors) = file("mlp-relu", "fc");
    let binding = Binding::find(&stored(&path, &tensors), &architecture).unwrap();
    let other = stored(&path, &file("mlp-relu", "net").1);
    assert!(binding.bind(&other, &architecture).unwrap_err().to_string().contains("`fc1.weight`: missing"));
    tensors[2].2[1] = f32::NAN;
    let error = binding.bind(&stored(&path, &tensors), &architecture).unwrap_err().to_string();
    assert!(error.contains("value 1 is not finite"), "{error}");
}

#[test]
fn damaged_compressed_bindings_are_refused() {
    let (architecture, _) = file("mlp-relu", "fc");
    let check = |text: &str, expected: &str| {
        let error = weft_zoo::binding_from_text(text, &architecture).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("deflate:*", "nvalid");
    check("deflate:", "binding");
    check("deflate:AAAA", "binding");
    check("deflat", "line 1");
}

#[test]
fn damaged_bindings_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (architecture, tensors) = file("gpt-tied", "hugging-face, tied");
    let binding = Binding::find(&stored(&dir.path().join("a.safetensors"), &tensors), &architecture).unwrap();
    let text = weft_zoo::binding_to_json(&binding);
    let check = |from: &str, to: &str, expected: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "`{from}` is not in {text}");
        let error = weft_zoo::binding_from_json(&changed, &architecture).unwrap_err().to_string();
        assert!(error.contains(expected), "{from} → {to}: {error}");
    };
    check("{", "[", "line 1");
    check("\"naming\"", "\"name\"", "unknown field");
    check("[0,false,0,36]", "[0,false,1,37]", "overlap, leave values out");
    check("[0,false,0,36]", "[0,false,0,35]", "number of values");
    check("[0,false,0,36]", "[99,false,0,36]", "number of values");
    check("[0,false,0,36]", "[0,false,36,0]", "number of values");
    check("true,0,16", "false,0,16", "differ in being transposed");
    check("[9,4]", "[4294967296,4294967296]", "absurd");
    check("[0,false,0,36],", "", "parts");
    let (other, _) = file("mlp-relu", "fc");
    assert!(weft_zoo::binding_from_json(&text, &other).is_err());
}
