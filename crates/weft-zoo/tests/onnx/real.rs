//! The wake-word networks of the folder that `WEFT_DATA` names: five dialects by many authors, one function.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use weft_core::{Activation, Digest, GraphBuilder, Op};
use weft_testkit::forward;
use weft_zoo::onnx::{Head, OnnxFault, OnnxNetwork, read_onnx};

/// The folder of the networks, or `None` with a word about it.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder =
        std::env::var_os("WEFT_DATA").map(|folder| PathBuf::from(folder).join("openwakeword")).filter(|folder| folder.is_dir());
    if folder.is_none() {
        let note = b"skipped: WEFT_DATA names no folder with `openwakeword`\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note);
    }
    folder
}

/// All networks in the folders of languages, by path as the goldens have them.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    folders.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn networks(folder: &Path) -> Vec<OnnxNetwork> {
    files(folder).iter().map(|path| read_onnx(path).unwrap_or_else(|error| panic!("{error}"))).collect()
}

#[test]
fn five_dialects_are_one_architecture() {
    let Some(folder) = folder() else { return };
    let networks = networks(&folder);
    assert_eq!(networks.len(), 122);
    let mut builder = GraphBuilder::new(Op::Input { shape: vec![1536] });
    let mut x = builder.linear(0, "layers.0", [32, 1536], true);
    for layer in 0..2 {
        x = builder.layer_norm(x, &format!("norms.{layer}"), 32, 1e-5);
        x = builder.activation(x, Activation::Relu);
        x = builder.linear(x, &format!("layers.{}", layer + 1), [[32, 32], [1, 32]][layer], true);
    }
    let expected = builder.build("wake words").unwrap();
    assert_eq!(expected.num_parameters(), 50_401);
    let mut digests = BTreeSet::new();
    for network in &networks {
        assert!(network.architecture.same_graph(&expected), "{:?}", network.architecture);
        assert_eq!((network.head, network.input_shape.as_slice()), (Some(Head::Sigmoid), [16, 96].as_slice()));
        assert!(network.origins().all(|origin| origin.is_some_and(weft_zoo::onnx::Origin::is_verbatim)));
        digests.insert(Digest::of_weights(&network.architecture, &network.weights()));
    }
    assert_eq!(digests.len(), 121);
    let transposed = networks.iter().filter(|network| network.origins().next().flatten().unwrap().is_transposed()).count();
    assert_eq!(transposed, 113);
}

#[test]
fn logits_are_those_of_onnx_runtime() {
    let Some(folder) = folder() else { return };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/onnx/openwakeword.safetensors");
    let golden = weft_zoo::read_tensors(&golden).unwrap();
    let (shape, inputs) = &golden.tensors["inputs"];
    assert_eq!(shape, &[64, 16, 96]);
    let inputs: Vec<f64> = inputs.iter().map(|&v| f64::from(v)).collect();
    let (_, logits) = &golden.tensors["logits"];
    let names: Vec<&str> = golden.metadata["networks"].lines().collect();
    let files = files(&folder);
    assert_eq!((files.len(), names.len()), (122, 122));
    let mut worst = 0f64;
    for ((path, name), expected) in files.iter().zip(names).zip(logits.chunks_exact(64)) {
        let digest = Digest::of_bytes(&std::fs::read(path).unwrap()).to_string();
        assert!(digest.starts_with(name), "{}: not the file that the goldens were made from", path.display());
        let network = read_onnx(path).unwrap();
        let got = forward(&network.architecture, &network.weights(), &inputs);
        let size = (expected.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 64.0).sqrt();
        for (&got, &expected) in got.iter().zip(expected) {
            // Relative to the logit, or to the network's usual one where the logit happens to lie near 0.
            let error = (got - f64::from(expected)).abs() / f64::from(expected).abs().max(size);
            assert!(error < 1e-4, "{}: {got} where ONNX Runtime has {expected}", path.display());
            worst = worst.max(error);
        }
    }
    println!("122 networks, 64 inputs each: largest relative deviation {worst:.1e}");
}

#[test]
fn backbones_are_refused_by_the_op_that_is_not_known() {
    let Some(folder) = folder() else { return };
    let check = |name: &str, expected: &str| match read_onnx(&folder.join(name)) {
        Err(weft_zoo::Error::Onnx { fault: OnnxFault::UnknownOp { op, .. }, .. }) => assert_eq!(op, expected),
        other => panic!("{other:?}"),
    };
    check("melspectrogram.onnx", "Log");
    check("embedding_model.onnx", "LeakyRelu");
}
