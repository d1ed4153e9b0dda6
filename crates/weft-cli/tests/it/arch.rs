//! `weft arch`: what is listed, shown, checked and recognized.

use crate::{outcome, text};
use std::path::Path;

/// An output with the folder's name left out and the group, which has tests of its own, cut off.
fn shown(out: &str, folder: &Path) -> String {
    let before = out.split("\nsymmetries of").next().unwrap_or_default();
    before.replace(text(folder), "DIR").lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn families_and_built_in_architectures_are_listed() {
    let (code, out, err) = outcome(&["arch", "ls"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for line in ["vit ", "patch, d-model, depth, num-heads", "zoo-cnn-2464", "5868", "22713216", "124439808"] {
        assert!(out.contains(line), "`{line}` is not in\n{out}");
    }
    let (_, out, _) = outcome(&["arch", "ls", "--format", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    assert_eq!(value["families"].as_array().map(Vec::len), Some(9));
    assert_eq!(value["architectures"][0]["num-parameters"], 5258);
}

#[test]
fn an_architecture_is_shown() {
    let (code, out, err) = outcome(&["arch", "show", "mlp-64-16-10"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("symmetries of `mlp-64-16-10`"), "{out}");
    insta::assert_snapshot!(shown(&out, Path::new("?")), @r"
    mlp-64-16-10: 1210 parameters

    tensor           shape
    layers.0.weight  16 × 64
    layers.0.bias         16
    layers.1.weight  10 × 16
    layers.1.bias         10

       op      of  output  tensors
    0  input           64
    1  linear   0      16  layers.0.weight, layers.0.bias
    2  relu     1      16
    3  linear   2      10  layers.1.weight, layers.1.bias

    space     units
    layers.0     16
    ");
    let (_, out, _) = outcome(&["arch", "show", "mlp-64-16-10", "--format", "json"]);
    let mut value: serde_json::Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    let group = value["group"].take();
    assert!(group.as_str().is_some_and(|group| group.contains("16 units")), "{group}");
    assert_eq!(value["spaces"], serde_json::json!([{ "name": "layers.0", "size": 16 }]));
    assert_eq!(
        value["ops"][1],
        serde_json::json!({ "kind": "linear", "of": [0], "tensors": ["layers.0.weight", "layers.0.bias"], "shape": [16] })
    );
}

/// A safetensors file of zeros.
fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert((*name).to_owned(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; at]].concat();
    std::fs::write(path, bytes).expect("the folder can be written");
}

#[test]
fn a_file_is_recognized_and_checked() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (file, toml) = (dir.path().join("net.safetensors"), dir.path().join("net.toml"));
    write(&file, &[("0.bias", &[3]), ("0.weight", &[3, 4]), ("2.bias", &[2]), ("2.weight", &[2, 3])]);
    let (code, out, err) = outcome(&["arch", "infer", text(&file), "--activation", "tanh"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    insta::assert_snapshot!(shown(&out, dir.path()), @r#"
    DIR/net.safetensors: 1 network in safetensors, `mlp-4-3-2`; names: numbered layers
    family: mlp, 23 parameters

    name = "mlp-4-3-2"

    [family.mlp]
    widths = [4, 3, 2]
    activation = "tanh"
    "#);
    let (code, out, _) = outcome(&["arch", "infer", text(&file), "-o", text(&toml)]);
    assert!(code == Some(0) && out.contains("note: ReLU is assumed"), "{out}");
    let (code, _, err) = outcome(&["arch", "infer", text(&file), "-o", text(&toml)]);
    assert!(code == Some(1) && err.contains("cannot write"), "{err}");
    let (code, out, _) = outcome(&["arch", "check", text(&file), "--architecture", text(&toml), "--format", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    assert_eq!((code, &value["tensors"], &value["naming"]), (Some(0), &4.into(), &"numbered layers".into()));

    write(&file, &[("0.bias", &[3]), ("0.weight", &[3, 4]), ("2.bias", &[2]), ("2.weight", &[2, 5]), ("x", &[1])]);
    let (code, out, err) = outcome(&["arch", "check", text(&file), "--architecture", text(&toml)]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("tensor `x`: not a tensor of the architecture `mlp-4-3-2`"), "{err}");
}

#[test]
fn what_is_not_known_is_refused_with_a_way_out() {
    let (code, _, err) = outcome(&["arch", "show", "lenet"]);
    assert!(
        code == Some(1) && err.contains("`lenet` is neither an architecture file nor") && err.contains("zoo-cnn-2464"),
        "{err}"
    );
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("net.safetensors");
    write(&file, &[("a.weight", &[2, 2, 2])]);
    let (code, _, err) = outcome(&["arch", "infer", text(&file)]);
    assert!(code == Some(1) && err.contains("declare the architecture in a file"), "{err}");
    let (code, _, err) = outcome(&["arch", "infer", text(&file), "--image", "0,3"]);
    assert!(code == Some(2) && err.contains("expected height,width"), "{err}");
}
