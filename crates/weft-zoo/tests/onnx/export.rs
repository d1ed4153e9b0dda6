//! Weights written back into the model that they belong to.

use crate::model::{Attr, Model, Store, field, floats, int, some, tensor, transposed, varint};
use std::path::{Path, PathBuf};
use weft_core::{Activation, Architecture, Seed};
use weft_zoo::onnx::{OnnxFault, export_onnx, read_onnx};

/// A folder with a model in it.
fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// `y = relu(x·Wᵀ + b)·V` with every tensor stored as `store` says, and fields that are not read.
fn model(store: Store) -> Vec<u8> {
    let mut model = Model::new(&[1, 3]);
    model.graph.extend([field(2, b"main"), field(10, b"a word about it"), field(14, b"\x0a\x01q"), int(99, 7)].concat());
    model.initializer(&[field(12, b"doc"), floats("w", &[3, 4], &transposed(&some(12, 1), 3), store)].concat());
    model.initializer(&[floats("b", &[4], &some(4, 2), store), field(16, b"meta")].concat());
    model.node("Constant", &[], "v", &[Attr::Tensor("value", floats("", &[4, 2], &transposed(&some(8, 3), 4), store))]);
    model.node("MatMul", &["x", "w"], "h", &[]).node("Add", &["h", "b"], "hb", &[]).node("Relu", &["hb"], "r", &[]);
    model.node("MatMul", &["r", "v"], "y", &[]);
    model.bytes()
}

const STORES: [Store; 7] =
    [Store::RawF32, Store::FloatData, Store::RawF64, Store::DoubleData, Store::RawF16, Store::Int32DataF16, Store::RawBf16];

#[test]
fn own_weights_give_the_same_bytes() {
    for store in STORES {
        let bytes = model(store);
        let (dir, path) = written(&bytes);
        let network = read_onnx(&path).unwrap();
        assert_eq!(network.weights(), [some(12, 1), some(4, 2), some(8, 3)].concat(), "{store:?}");
        let target = dir.path().join("same.onnx");
        export_onnx(&path, &network.architecture, &network.weights(), &target).unwrap();
        assert!(std::fs::read(&target).unwrap() == bytes, "{store:?}");
    }
}

/// Where two byte strings of one length differ.
fn differing(a: &[u8], b: &[u8]) -> Vec<usize> {
    assert_eq!(a.len(), b.len());
    (0..a.len()).filter(|&i| a[i] != b[i]).collect()
}

#[test]
fn one_changed_weight_changes_its_bytes_alone() {
    for store in STORES {
        let bytes = model(store);
        let (dir, path) = written(&bytes);
        let network = read_onnx(&path).unwrap();
        for changed in [1, 13, 20] {
            let mut row = network.weights();
            row[changed] = if row[changed] > 3.0 { 2.5 } else { 3.5 };
            let target = dir.path().join("changed.onnx");
            export_onnx(&path, &network.architecture, &row, &target).unwrap();
            assert_eq!(read_onnx(&target).unwrap().weights(), row, "{store:?}");
            let places = differing(&bytes, &std::fs::read(&target).unwrap());
            let size = if matches!(store, Store::RawF64 | Store::DoubleData) { 8 } else { 4 };
            assert!(!places.is_empty() && places[places.len() - 1] - places[0] < size, "{store:?}: {places:?}");
        }
    }
}

#[test]
fn random_weights_come_back() {
    for store in [Store::RawF32, Store::FloatData, Store::RawF64, Store::DoubleData] {
        let (dir, path) = written(&model(store));
        let network = read_onnx(&path).unwrap();
        let row = Seed::new(1).normals(network.architecture.num_parameters());
        let target = dir.path().join("random.onnx");
        export_onnx(&path, &network.architecture, &row, &target).unwrap();
        assert_eq!(read_onnx(&target).unwrap().weights(), row, "{store:?}");
    }
    for (store, tolerance) in
        [(Store::RawF16, 2f32.powi(-11)), (Store::Int32DataF16, 2f32.powi(-11)), (Store::RawBf16, 2f32.powi(-8))]
    {
        let (dir, path) = written(&model(store));
        let network = read_onnx(&path).unwrap();
        let row = Seed::new(2).normals(network.architecture.num_parameters());
        let target = dir.path().join("random.onnx");
        export_onnx(&path, &network.architecture, &row, &target).unwrap();
        for (got, expected) in read_onnx(&target).unwrap().weights().iter().zip(&row) {
            assert!((got - expected).abs() <= tolerance * expected.abs(), "{store:?}: {got} for {expected}");
        }
    }
}

/// A model whose weight is half of a stored one, plus a shared bias in two places.
fn coupled() -> Vec<u8> {
    let mut model = Model::new(&[1, 2]);
    model.floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]).floats("half", &[], &[0.5]).floats("b", &[2], &[0.25, -0.5]);
    model.node("Mul", &["w", "half"], "wh", &[]).node("Gemm", &["x", "wh", "b"], "h", &[]).node("Relu", &["h"], "r", &[]);
    model.node("MatMul", &["r", "w"], "g", &[]).node("Add", &["g", "b"], "y", &[]);
    model.bytes()
}

fn refused(path: &Path, row: &[f32]) -> (String, OnnxFault) {
    let architecture = read_onnx(path).unwrap().architecture;
    let target = path.with_extension("refused");
    match export_onnx(path, &architecture, row, &target) {
        Err(weft_zoo::Error::Onnx { fault, .. }) => {
            assert!(!target.exists());
            (fault.to_string(), fault)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn weights_that_share_a_place_must_agree() {
    let (dir, path) = written(&coupled());
    let network = read_onnx(&path).unwrap();
    let mut row = network.weights();
    assert_eq!(row, [0.5, 1.5, 1.0, 2.0, 0.25, -0.5, 1.0, 3.0, 2.0, 4.0, 0.25, -0.5]);
    // Both weights twice as large, both biases the same: one stored value each.
    let doubled: Vec<f32> = row.iter().map(|v| v * 2.0).collect();
    let target = dir.path().join("doubled.onnx");
    export_onnx(&path, &network.architecture, &doubled, &target).unwrap();
    assert_eq!(read_onnx(&target).unwrap().weights(), doubled);
    row[4] = 7.0;
    let (message, fault) = refused(&path, &row);
    assert!(matches!(fault, OnnxFault::Origin { .. }) && message.contains("stored in the same place"), "{message}");
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let mut model = Model::new(&[1, 2]);
    model.floats("w", &[2, 2], &[1.0; 4]).floats("b", &[1], &[0.5]);
    model.node("MatMul", &["x", "w"], "h", &[]).node("Add", &["h", "b"], "y", &[]);
    let (_dir, path) = written(&model.bytes());
    let (message, _) = refused(&path, &[1.0, 1.0, 1.0, 1.0, 2.0, 3.0]);
    assert!(message.contains("`layers.0.bias`") && message.contains("one number"), "{message}");
    let (message, _) = {
        let mut halves = Model::new(&[1, 1]);
        halves.initializer(&floats("w", &[1, 1], &[1.0], Store::RawF16)).node("MatMul", &["x", "w"], "y", &[]);
        std::fs::write(&path, halves.bytes()).unwrap();
        refused(&path, &[1e6])
    };
    assert!(message.contains("too large for the 16-bit type"), "{message}");
    let other = Architecture::mlp("other", &[1, 2], Activation::Relu).unwrap();
    let error = export_onnx(&path, &other, &[0.0; 4], &path).unwrap_err().to_string();
    assert!(error.contains("the weights are of `other`"), "{error}");
    let architecture = read_onnx(&path).unwrap().architecture;
    let error = export_onnx(&path, &architecture, &[0.0; 2], &path).unwrap_err();
    assert!(matches!(error, weft_zoo::Error::Domain { .. }), "{error}");
    let error = export_onnx(&path, &architecture, &[f32::NAN], &path).unwrap_err();
    assert!(matches!(error, weft_zoo::Error::Tensor { .. }), "{error}");
}

#[test]
fn a_weight_that_is_also_a_constant_of_the_graph() {
    // The bias is the factor that makes `1 + erf` a GELU, too.
    let mut model = Model::new(&[1, 1]);
    model.floats("w", &[1, 1], &[2.0]).floats("half", &[1], &[0.5]).floats("root", &[], &[2f32.sqrt()]).floats("one", &[], &[1.0]);
    model.node("Gemm", &["x", "w", "half"], "u", &[]).node("Div", &["u", "root"], "s", &[]).node("Erf", &["s"], "e", &[]);
    model.node("Add", &["e", "one"], "o", &[]).node("Mul", &["u", "o"], "m", &[]).node("Mul", &["m", "half"], "y", &[]);
    let (dir, path) = written(&model.bytes());
    let (_, fault) = refused(&path, &[2.0, 0.25]);
    assert_eq!(fault, OnnxFault::Entangled);
    let architecture = read_onnx(&path).unwrap().architecture;
    export_onnx(&path, &architecture, &[3.0, 0.5], &dir.path().join("weight.onnx")).unwrap();
}

#[test]
fn external_data_go_into_the_exported_file() {
    let dir = tempfile::tempdir().unwrap();
    let values = some(4, 1);
    let data: Vec<u8> = [0; 8].into_iter().chain(values.iter().flat_map(|v| v.to_le_bytes())).collect();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/weights.bin"), data).unwrap();
    let entry = |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let place = [entry("location", "data/weights.bin"), entry("offset", "8"), entry("length", "16"), int(14, 1)].concat();
    let mut model = Model::new(&[1, 2]);
    model.initializer(&tensor("w", &[2, 2], 1, &place)).node("MatMul", &["x", "w"], "y", &[]);
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, model.bytes()).unwrap();
    let network = read_onnx(&path).unwrap();
    assert_eq!(network.weights(), transposed(&values, 2));
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("alone.onnx");
    export_onnx(&path, &network.architecture, &network.weights(), &target).unwrap();
    assert_eq!(read_onnx(&target).unwrap(), network);
}

#[test]
fn a_real_network_keeps_every_byte_but_its_weights() {
    let Some(folder) = crate::real::folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("exported.onnx");
    for path in crate::real::files(&folder).iter().step_by(5) {
        let network = read_onnx(path).unwrap();
        let original = std::fs::read(path).unwrap();
        export_onnx(path, &network.architecture, &network.weights(), &target).unwrap();
        assert!(std::fs::read(&target).unwrap() == original, "{}", path.display());
        let row = Seed::new(3).normals(network.architecture.num_parameters());
        export_onnx(path, &network.architecture, &row, &target).unwrap();
        assert_eq!(read_onnx(&target).unwrap().weights(), row, "{}", path.display());
        let changed = differing(&original, &std::fs::read(&target).unwrap()).len();
        assert!((150_000..=4 * 50_401).contains(&changed), "{}: {changed} bytes", path.display());
    }
}

#[test]
fn lengths_of_all_messages_around_are_mended() {
    // A half stored as a varint may need another number of bytes.
    let mut model = Model::new(&[1, 1]);
    let mut packed = Vec::new();
    varint(&mut packed, 0x0001);
    model.initializer(&tensor("w", &[1, 1], 10, &field(5, &packed))).node("MatMul", &["x", "w"], "y", &[]);
    let (dir, path) = written(&model.bytes());
    let network = read_onnx(&path).unwrap();
    let target = dir.path().join("longer.onnx");
    export_onnx(&path, &network.architecture, &[-1.5], &target).unwrap();
    assert_eq!(read_onnx(&target).unwrap().weights(), [-1.5]);
    assert_eq!(std::fs::read(&target).unwrap().len(), std::fs::read(&path).unwrap().len() + 2);
}
