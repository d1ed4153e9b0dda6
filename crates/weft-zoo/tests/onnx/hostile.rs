//! Models that want to do harm, or that are damaged: each is refused with its own fault, and fast.

use crate::model::{Attr, Model, field, int, some, tensor, value, varint};
use std::path::Path;
use weft_zoo::onnx::{OnnxFault, read_onnx, read_onnx_bytes};
use weft_zoo::{Error, TensorFault};

fn fault(bytes: &[u8]) -> OnnxFault {
    read_onnx_bytes(bytes).unwrap_err()
}

/// A sound network, 40-8-2.
fn sound() -> Model {
    let mut model = Model::new(&[1, 40]);
    model.floats("w", &[40, 8], &some(320, 1)).floats("b", &[8], &some(8, 2)).floats("v", &[8, 2], &some(16, 3));
    model.node("Gemm", &["x", "w", "b"], "h", &[]).node("Relu", &["h"], "r", &[]).node("MatMul", &["r", "v"], "y", &[]);
    model
}

#[test]
fn truncated_anywhere() {
    let bytes = sound().bytes();
    read_onnx_bytes(&bytes).unwrap();
    let mut faults = 0;
    for end in (0..bytes.len()).step_by(64).chain(bytes.len() - 80..bytes.len()) {
        match read_onnx_bytes(&bytes[..end]) {
            Err(OnnxFault::Truncated | OnnxFault::Missing { .. }) => faults += 1,
            Err(other) => panic!("{end}: {other}"),
            // The last field is a note that a model may lack.
            Ok(_) => assert_eq!(bytes[end..], field(14, &[field(1, b"key"), field(2, b"kept as it is")].concat()), "{end}"),
        }
    }
    assert!(faults > 80);
}

/// What fuzzing starts from must get past the wire format, or it finds nothing behind it.
#[test]
fn seeds_of_the_fuzz_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/onnx");
    let seed = |name: &str| std::fs::read(corpus.join(name)).unwrap();
    for (name, parameters) in [("gemm", 21), ("norm", 27), ("image", 22)] {
        let network = read_onnx_bytes(&seed(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(network.architecture.num_parameters(), parameters, "{name}");
    }
    assert!(matches!(fault(&seed("external")), OnnxFault::External { .. }));
}

#[test]
fn single_bytes_changed() {
    let bytes = sound().bytes();
    for place in (0..bytes.len()).filter(|place| place % 7 == 0 || *place < 64 || *place + 300 > bytes.len()) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] ^= flip;
            // Either a sound model with another word or weight in it, or a fault that says something.
            if let Err(fault) = read_onnx_bytes(&bytes) {
                assert!(!fault.to_string().is_empty());
            }
        }
    }
}

#[test]
fn what_is_no_model() {
    assert_eq!(fault(b""), OnnxFault::Missing { what: "graph" });
    assert!(matches!(fault(b"{\"not\": \"onnx\"}"), OnnxFault::Wire { .. } | OnnxFault::Truncated));
    assert!(matches!(fault(&[0xff; 64]), OnnxFault::Wire { .. }));
    // Lengths of 2⁶³ and of a little more than there is.
    let mut long = vec![0x3a];
    varint(&mut long, 1 << 63);
    assert_eq!(fault(&long), OnnxFault::Truncated);
    assert_eq!(fault(&[0x3a, 0x05, 0, 0]), OnnxFault::Truncated);
    // A name that is not text.
    let graph = field(1, &field(4, &[0xff, 0xfe]));
    assert!(matches!(fault(&[field(7, &graph), field(8, &int(2, 17))].concat()), OnnxFault::Decode { .. }));
    // Deeply nested groups, which ONNX does not use.
    assert!(matches!(fault(&[0x0b; 10_000]), OnnxFault::Wire { .. }));
}

#[test]
fn versions_of_ops() {
    for opset in [-1, 0, 6, 1_000] {
        let mut model = sound();
        model.opset = opset;
        assert!(matches!(fault(&model.bytes()), OnnxFault::Opset { got, .. } if got == opset));
    }
    let without = [int(1, 8), field(7, &sound().graph)].concat();
    assert_eq!(fault(&without), OnnxFault::Missing { what: "opset_import" });
}

#[test]
fn bombs() {
    // 300,000 empty nodes of two bytes each would become structs a hundred times as large.
    let nodes = field(1, b"").repeat(300_000);
    assert!(matches!(fault(&field(7, &nodes)), OnnxFault::TooMany { what: "fields", .. }));
    let names = field(1, b"").repeat(300_000);
    assert!(matches!(fault(&field(7, &field(1, &names))), OnnxFault::TooMany { what: "fields", .. }));
    let dims = field(1, &vec![1; 9 << 20]);
    assert!(matches!(fault(&field(7, &field(5, &dims))), OnnxFault::TooMany { .. }));
    let types = field(1, b"").repeat(300_000);
    assert!(matches!(fault(&field(7, &field(11, &field(2, &types)))), OnnxFault::TooMany { what: "fields", .. }));
}

#[test]
fn absurd_shapes() {
    let check = |shape: &[i64]| {
        let mut model = Model::new(&[1, 2]);
        model.initializer(&tensor("w", shape, 1, &field(9, &[0; 16]))).node("MatMul", &["x", "w"], "y", &[]);
        let fault = fault(&model.bytes());
        assert!(matches!(&fault, OnnxFault::Size { tensor, .. } if tensor == "w"), "{fault}");
    };
    check(&[2, 3]);
    check(&[-1, 4]);
    check(&[1 << 40, 1 << 40]);
    check(&[i64::MAX, 2]);
    check(&[0, 2]);
    check(&[0, 1 << 62, 100]);
    let input = |shape: &[i64]| {
        let mut model = Model::new(shape);
        model.node("Relu", &["x"], "y", &[]);
        fault(&model.bytes())
    };
    for shape in [&[1, -1][..], &[1, 0], &[1], &[], &[1, 1 << 40, 1 << 40], &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[1 << 62, 4]] {
        assert!(matches!(input(shape), OnnxFault::Input { .. }), "{shape:?}");
    }
    // A constant of one value stands for as many as an axis has: here far more than the file.
    let mut model = Model::new(&[1, 1 << 31]);
    model.floats("one", &[], &[1.0]).node("LayerNormalization", &["x", "one"], "y", &[]);
    assert!(fault(&model.bytes()).to_string().contains("too much from its constants"));
}

#[test]
fn folding_is_bounded() {
    let mut model = Model::new(&[1, 100]);
    model.floats("c0", &[100, 100], &some(10_000, 1));
    for i in 0..2_000 {
        model.node("Transpose", &[&format!("c{i}")], &format!("c{}", i + 1), &[]);
    }
    model.node("MatMul", &["x", "c2000"], "y", &[]);
    assert!(fault(&model.bytes()).to_string().contains("too much from its constants"));
}

#[test]
fn graphs_that_make_no_sense() {
    let check = |build: fn(&mut Model), expected: &OnnxFault| {
        let mut model = sound();
        build(&mut model);
        assert_eq!(&fault(&model.bytes()), expected);
    };
    let name = |name: &str| name.to_owned();
    let cycle = OnnxFault::Cycle { node: name("node 3"), op: name("Relu") };
    check(|m| _ = m.node("Relu", &["q"], "p", &[]).node("Relu", &["p"], "q", &[]), &cycle);
    check(|m| _ = m.node("Relu", &["s"], "s", &[]), &cycle);
    let missing = OnnxFault::MissingValue { node: name("node 3"), op: name("Relu"), value: name("nothing") };
    check(|m| _ = m.node("Relu", &["nothing"], "s", &[]), &missing);
    check(|m| _ = m.floats("w", &[1], &[1.0]), &OnnxFault::DuplicateName { name: name("w") });
    check(|m| _ = m.node("Relu", &["h"], "r", &[]), &OnnxFault::DuplicateName { name: name("r") });
    check(|m| _ = m.node("Relu", &["h"], "x", &[]), &OnnxFault::DuplicateName { name: name("x") });
    check(|m| m.graph.extend(field(11, &value("z", &[1, 2]))), &OnnxFault::Ends { what: "inputs", got: 2 });
    check(|m| m.graph.extend(field(12, &value("h", &[]))), &OnnxFault::Ends { what: "outputs", got: 2 });
    let mut model = Model::new(&[1, 2]);
    assert_eq!(fault(&model.bytes()), OnnxFault::MissingOutput { value: name("y") });
    model.floats("c", &[2], &[1.0, 2.0]).node("Identity", &["c"], "y", &[]);
    assert!(fault(&model.bytes()).to_string().contains("does not depend on its input"));
}

#[test]
fn nodes_out_of_order_are_put_in_order() {
    let mut model = Model::new(&[1, 40]);
    model.node("MatMul", &["r", "v"], "y", &[]).node("Relu", &["h"], "r", &[]).node("Gemm", &["x", "w", "b"], "h", &[]);
    model.floats("w", &[40, 8], &some(320, 1)).floats("b", &[8], &some(8, 2)).floats("v", &[8, 2], &some(16, 3));
    let (network, expected) = (read_onnx_bytes(&model.bytes()).unwrap(), read_onnx_bytes(&sound().bytes()).unwrap());
    assert_eq!((network.architecture.same_graph(&expected.architecture), network.weights()), (true, expected.weights()));
}

#[test]
fn ops_that_are_not_known_are_named_with_their_node() {
    let with = |op: &str, attributes: &[Attr<'_>]| {
        let mut model = Model::new(&[1, 2]);
        model.node(op, &["x"], "y", attributes);
        fault(&model.bytes())
    };
    let unknown = with("Fourier", &[]);
    assert!(matches!(&unknown, OnnxFault::UnknownOp { node, op, .. } if (node.as_str(), op.as_str()) == ("node 0", "Fourier")));
    let message = unknown.to_string();
    assert!(message.starts_with("op `Fourier` of node `node 0` is not known; remove it") && message.contains("Gemm"), "{message}");
    let mut model = Model::new(&[1, 2]);
    model.node("Relu", &["x", "x"], "y", &[]);
    assert!(fault(&model.bytes()).to_string().contains("too many inputs"));
    // A known op in a form for which there is no layer.
    let check = |op: &str, attributes: &[Attr<'_>], expected: &str| {
        let message = with(op, attributes).to_string();
        assert!(message.starts_with(&format!("node `node 0` (op `{op}`): ")) && message.contains(expected), "{message}");
    };
    check("Flatten", &[Attr::Int("axis", 0)], "mix examples");
    check("Transpose", &[], "batch as the first axis");
    check("Softmax", &[Attr::Int("axis", 0)], "last axis");
    check("Cast", &[Attr::Int("to", 7)], "another type than float");
    check("ReduceMean", &[Attr::Ints("axes", &[0])], "no layer");
    check("ReduceMean", &[Attr::Ints("axes", &[-1])], "part of a norm that is not completed");
    check("Sqrt", &[], "root");
    check("Erf", &[], "error function");
    check("Concat", &[], "for constants only");
    check("Gemm", &[], "no weight");
    check("MaxPool", &[Attr::Ints("kernel_shape", &[2, 2])], "no image");
}

#[test]
fn attributes_at_their_limits() {
    let conv = |attributes: &[Attr<'_>]| {
        let mut model = Model::new(&[1, 1, 4, 4]);
        model.floats("w", &[1, 1, 2, 2], &some(4, 1)).node("Conv", &["x", "w"], "y", attributes);
        fault(&model.bytes())
    };
    let max = i64::MAX;
    for attributes in [
        &[Attr::Ints("pads", &[max, max, max, max])][..],
        &[Attr::Ints("pads", &[-1, 0, 0, 0])],
        &[Attr::Ints("strides", &[0, 1])],
        &[Attr::Ints("strides", &[1])],
        &[Attr::Ints("dilations", &[2, 2])],
        &[Attr::Int("group", 0)],
        &[Attr::Int("group", i64::MIN)],
        &[Attr::Text("auto_pad", "SAME_UPPER")],
    ] {
        let fault = conv(attributes);
        assert!(matches!(fault, OnnxFault::Unsupported { .. }), "{fault}");
    }
    let reshape = |target: &[i64]| {
        let mut model = Model::new(&[1, 4]);
        model.ints("target", target).node("Reshape", &["x", "target"], "y", &[]);
        fault(&model.bytes())
    };
    for target in [&[-1, -1][..], &[1, max, max], &[1, 5], &[4, 1], &[i64::MIN, 4], &[], &[0, 0, 0], &[1; 20]] {
        assert!(matches!(reshape(target), OnnxFault::Unsupported { .. }), "{target:?}");
    }
    let squeeze = |op: &str, axes: &[i64]| {
        let mut model = Model::new(&[1, 4]);
        model.ints("axes", axes).node(op, &["x", "axes"], "y", &[]);
        fault(&model.bytes())
    };
    for (op, axes) in [
        ("Squeeze", &[0][..]),
        ("Squeeze", &[]),
        ("Squeeze", &[max]),
        ("Unsqueeze", &[0]),
        ("Unsqueeze", &[i64::MIN]),
        ("Unsqueeze", &[1; 40]),
    ] {
        assert!(matches!(squeeze(op, axes), OnnxFault::Unsupported { .. }), "{op} {axes:?}");
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut model = Model::new(&[1, 2]);
        model.floats("w", &[2, 2], &[1.0, bad, 3.0, 4.0]).node("MatMul", &["x", "w"], "y", &[]);
        assert_eq!(fault(&model.bytes()), OnnxFault::NonFinite { tensor: "layers.0.weight".to_owned(), index: 2 });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nan.onnx");
        std::fs::write(&path, model.bytes()).unwrap();
        assert!(matches!(read_onnx(&path), Err(Error::Tensor { fault: TensorFault::NonFinite { index: 2 }, .. })));
    }
}

#[test]
fn types_of_tensors() {
    let check = |dtype: i64, data: &[u8], expected: &str| {
        let mut model = Model::new(&[1, 1]);
        model.initializer(&tensor("w", &[1, 1], dtype, data)).node("MatMul", &["x", "w"], "y", &[]);
        let message = fault(&model.bytes()).to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(8, &field(6, b"text"), "tensor `w` has element type 8");
    check(0, &field(9, &[0; 4]), "element type 0");
    check(-5, &field(9, &[0; 4]), "element type -5");
    check(7, &field(9, &[0; 8]), "matrix of integers");
    check(1, &field(4, &[0; 8]), "another number of values");
    check(1, &[], "another number of values");
}

/// A model whose weight lies outside; 16 bytes are asked for unless `more` says otherwise.
fn external(folder: &Path, location: &str, more: &[(&str, &str)]) -> Result<Vec<f32>, String> {
    let entry = |(key, value): &(&str, &str)| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let entries: Vec<u8> = std::iter::once(&("location", location)).chain(more).flat_map(entry).collect();
    let mut model = Model::new(&[1, 2]);
    model.initializer(&tensor("w", &[2, 2], 1, &[entries, int(14, 1)].concat())).node("MatMul", &["x", "w"], "y", &[]);
    let path = folder.join("model.onnx");
    std::fs::write(&path, model.bytes()).unwrap();
    match read_onnx(&path) {
        Ok(network) => Ok(network.weights()),
        Err(Error::Onnx { fault: fault @ OnnxFault::External { .. }, .. }) => Err(fault.to_string()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn external_data_stay_in_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("models");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let secret = outer.path().join("secret.bin");
    let values: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(&secret, &values).unwrap();
    std::fs::write(folder.join("data/w.bin"), &values).unwrap();
    assert_eq!(external(&folder, "data/w.bin", &[]), Ok(vec![1.0, 3.0, 2.0, 4.0]));
    let check = |location: &str, more: &[(&str, &str)], expected: &str| {
        let message = external(&folder, location, more).unwrap_err();
        assert!(message.contains(expected) && message.starts_with("tensor `w` has external data in"), "{message}");
    };
    check("../secret.bin", &[], "without `..`");
    check("data/../../secret.bin", &[], "without `..`");
    check(secret.to_str().unwrap(), &[], "relative path");
    check("", &[], "relative path");
    check("absent.bin", &[], "no such file");
    check("data", &[], "");
    check("data/w.bin", &[("offset", "1")], "does not have 16 bytes from byte 1");
    check("data/w.bin", &[("offset", "18446744073709551615")], "does not have 16 bytes");
    check("data/w.bin", &[("offset", "-1")], "offset is not a number");
    check("data/w.bin", &[("length", "12")], "not the 16 bytes");
    check("data/w.bin", &[("length", "x")], "length is not a number");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, folder.join("link.bin")).unwrap();
        std::os::unix::fs::symlink(outer.path(), folder.join("up")).unwrap();
        check("link.bin", &[], "leads out");
        check("up/secret.bin", &[], "leads out");
    }
    let model = std::fs::read(folder.join("model.onnx")).unwrap();
    assert!(fault(&model).to_string().contains("no folder"));
}

#[test]
fn tensors_cannot_claim_a_file_many_times() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("w.bin"), vec![0; 6 * 6 * 4]).unwrap();
    let location = field(13, &[field(1, b"location"), field(2, b"w.bin")].concat());
    let mut model = Model::new(&[1, 6]);
    for layer in 0..3 {
        let from = if layer == 0 { "x".to_owned() } else { format!("h{layer}") };
        let to = if layer == 2 { "y".to_owned() } else { format!("h{}", layer + 1) };
        let name = format!("w{layer}");
        model.initializer(&tensor(&name, &[6, 6], 1, &[location.clone(), int(14, 1)].concat()));
        model.node("MatMul", &[&from, &name], &to, &[]);
    }
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, model.bytes()).unwrap();
    let error = read_onnx(&path).unwrap_err().to_string();
    assert!(error.contains("claim more bytes than the file has"), "{error}");
}
