//! One perceptron in many dialects; and the layers beside it.

use crate::model::{Attr, Model, Store, floats, some, transposed};
use weft_core::{Activation, Architecture, Digest, Op, Window};
use weft_testkit::{assert_close_f64, forward};
use weft_zoo::onnx::{Head, OnnxNetwork, read_onnx_bytes};

pub(crate) fn read(model: &Model) -> OnnxNetwork {
    read_onnx_bytes(&model.bytes()).unwrap()
}

/// Weights of 6-4-2: `[4, 6]`, `[4]`, `[2, 4]`, `[2]`.
fn weights() -> [Vec<f32>; 4] {
    [some(24, 1), some(4, 2), some(8, 3), some(2, 4)]
}

/// `Gemm` as PyTorch writes it.
fn plain() -> Model {
    let [w1, b1, w2, b2] = weights();
    let mut model = Model::new(&[-1, 2, 3]);
    model.floats("a", &[4, 6], &w1).floats("b", &[4], &b1).floats("c", &[2, 4], &w2).floats("d", &[2], &b2);
    model.node("Flatten", &["x"], "f", &[]);
    model.node("Gemm", &["f", "a", "b"], "h", &[Attr::Int("transB", 1)]).node("Relu", &["h"], "r", &[]);
    model.node("Gemm", &["r", "c", "d"], "y", &[Attr::Int("transB", 1), Attr::Float("alpha", 1.0)]);
    model
}

/// `MatMul` and `Add` with transposed weights, bias first or last, behind a shape computed at run time.
fn folded() -> Model {
    let [w1, b1, w2, b2] = weights();
    let mut model = Model::new(&[1, 2, 3]);
    model.floats("p", &[6, 4], &transposed(&w1, 6)).floats("q", &[1, 4], &b1);
    model.floats("r", &[4, 2], &transposed(&w2, 4)).floats("s", &[2], &b2);
    model.ints("zero", &[0]).ints("rest", &[-1]);
    model.node("Shape", &["x"], "shape", &[]).node("Gather", &["shape", "zero"], "batch", &[]);
    model.node("Concat", &["batch", "rest"], "target", &[Attr::Int("axis", 0)]).node("Reshape", &["x", "target"], "f", &[]);
    model.node("MatMul", &["f", "p"], "h", &[]).node("Add", &["q", "h"], "hb", &[]);
    model.node("Clip", &["hb", "low"], "c", &[]).node("Identity", &["c"], "i", &[]).node("Dropout", &["i"], "o", &[]);
    model.initializer(&floats("low", &[], &[0.0], Store::FloatData));
    model.node("MatMul", &["o", "r"], "l", &[]).node("Add", &["l", "s"], "y", &[]);
    model
}

/// Weights that the graph itself transposes, reshapes, casts and scales, in half precision and in constant nodes.
fn computed() -> Model {
    let [w1, b1, w2, b2] = weights();
    let halved: Vec<f32> = w2.iter().map(|v| v / 2.0).collect();
    let mut model = Model::new(&[1, 2, 3]);
    model.initializer(&floats("a", &[4, 6], &w1, Store::RawF16)).initializer(&floats("b", &[4, 1], &b1, Store::Int32DataF16));
    model.initializer(&floats("c", &[2, 4], &halved, Store::DoubleData)).ints("four", &[4]).ints("one", &[1]);
    model.node("Unsqueeze", &["x", "one"], "u", &[]).node("Squeeze", &["u", "one"], "same", &[]);
    model.node("Flatten", &["same"], "f", &[]);
    model.node("Transpose", &["a"], "at", &[]).node("Cast", &["at"], "af", &[Attr::Int("to", 1)]);
    model.node("Reshape", &["b", "four"], "bf", &[]);
    model.node("Constant", &[], "two", &[Attr::Float("value_float", 2.0)]).node("Mul", &["c", "two"], "cc", &[]);
    model.node("Constant", &[], "d", &[Attr::Tensor("value", floats("", &[2], &b2, Store::RawBf16))]);
    model.node("Gemm", &["f", "af", "bf"], "h", &[]).node("Relu", &["h"], "r", &[]);
    model.node("Gemm", &["r", "cc", "d"], "y", &[Attr::Int("transB", 1)]);
    model
}

#[test]
fn dialects_of_one_network_are_one_network() {
    let expected = Architecture::mlp("mlp", &[6, 4, 2], Activation::Relu).unwrap();
    let row = weights().concat();
    for (name, model) in [("plain", plain()), ("folded", folded()), ("computed", computed())] {
        let network = read(&model);
        assert!(network.architecture.same_graph(&expected), "{name}: {:?}", network.architecture);
        assert_eq!(network.weights(), row, "{name}");
        assert_eq!(Digest::of_weights(&network.architecture, &network.weights()), Digest::of_weights(&expected, &row));
        assert_eq!((network.head, network.input_shape.as_slice()), (None, [2, 3].as_slice()), "{name}");
        assert_eq!(network.architecture.name(), "onnx-6-4-2");
    }
    let origins = |model| -> Vec<_> {
        read(&model)
            .origins()
            .map(|origin| origin.map(|o| (o.tensor.clone(), o.is_transposed(), o.is_verbatim())).unwrap())
            .collect()
    };
    let origin = |name: &str, transposed, verbatim| (name.to_owned(), transposed, verbatim);
    assert_eq!(origins(folded())[0], origin("p", true, true));
    assert_eq!(origins(computed())[..3], [origin("a", false, true), origin("b", false, true), origin("c", false, false)]);
}

#[test]
fn what_follows_the_logits_is_the_head() {
    let check = |op: &str, head| {
        let mut model = plain();
        model.graph = rename_output(&model.graph);
        model.node(op, &["l"], "y", &[]);
        let network = read(&model);
        assert_eq!(network.head, Some(head));
        assert_eq!(network.architecture.num_parameters(), 38);
        assert!(matches!(network.architecture.nodes().last().unwrap().op, Op::Linear { .. }));
    };
    check("Sigmoid", Head::Sigmoid);
    check("Softmax", Head::Softmax);
    check("LogSoftmax", Head::LogSoftmax);
}

/// The plain graph with its last value called `l`; the declared output stays `y`.
fn rename_output(graph: &[u8]) -> Vec<u8> {
    let last = graph.iter().rposition(|&byte| byte == b'y').unwrap();
    let mut graph = graph.to_vec();
    graph[last] = b'l';
    graph
}

#[test]
fn a_bias_of_zeros_is_a_bias() {
    let mut model = Model::new(&[1, 2]);
    model.floats("w", &[2, 1], &[1.0, 2.0]).floats("b", &[1], &[0.0]);
    model.node("MatMul", &["x", "w"], "h", &[]).node("Add", &["h", "b"], "y", &[]);
    let network = read(&model);
    assert_eq!(network.architecture.tensors().len(), 2);
    assert_eq!(network.weights(), [1.0, 2.0, 0.0]);
}

#[test]
fn a_convolutional_network() {
    let mut model = Model::new(&[1, 2, 8, 8]);
    model.floats("w", &[4, 2, 3, 3], &some(72, 1)).floats("b", &[4], &some(4, 2));
    for (i, name) in ["gain", "shift", "mean", "variance"].into_iter().enumerate() {
        model.floats(name, &[4], &some(4, i as u64).iter().map(|v| v.abs()).collect::<Vec<_>>());
    }
    model.floats("v", &[3, 4], &some(12, 5)).ints("target", &[0, -1]);
    model.node("Conv", &["x", "w", "b"], "c", &[Attr::Ints("pads", &[1, 1, 1, 1]), Attr::Ints("strides", &[2, 2])]);
    model.node("BatchNormalization", &["c", "gain", "shift", "mean", "variance"], "n", &[Attr::Float("epsilon", 1e-3)]);
    model.node("Relu", &["n"], "r", &[]).node(
        "MaxPool",
        &["r"],
        "m",
        &[Attr::Ints("kernel_shape", &[2, 2]), Attr::Ints("strides", &[2, 2])],
    );
    model.node("Add", &["m", "m"], "a", &[]).node("GlobalAveragePool", &["a"], "g", &[]);
    model.node("Reshape", &["g", "target"], "f", &[]).node("Gemm", &["f", "v"], "y", &[Attr::Int("transB", 1)]);
    let network = read(&model);
    let ops: Vec<_> = network.architecture.nodes().iter().map(|node| node.op.clone()).collect();
    assert_eq!(ops[1], Op::Conv2d { weight: 0, bias: Some(1), stride: [2, 2], padding: [1, 1], groups: 1 });
    assert_eq!(ops[2], Op::BatchNorm { gain: 2, bias: 3, mean: 4, variance: 5, epsilon: 1e-3 });
    assert_eq!(ops[4..8], [Op::MaxPool(Window::square(2, 2, 0)), Op::Add, Op::GlobalAvgPool, Op::Linear { weight: 6, bias: None }]);
    let names: Vec<_> = network.architecture.tensors().iter().map(|t| t.name.as_str()).collect();
    let expected =
        ["layers.0.weight", "layers.0.bias", "norms.0.weight", "norms.0.bias", "norms.0.running_mean", "norms.0.running_var"];
    assert_eq!(names, [&expected[..], &["layers.1.weight"]].concat());
    let output = forward(&network.architecture, &network.weights(), &vec![0.5; 128]);
    assert!(output.len() == 3 && output.iter().all(|v| v.is_finite() && *v != 0.0));
}

#[test]
fn an_image_made_of_a_vector_and_channels_last() {
    let mut model = Model::new(&[1, 4, 4, 1]);
    model.floats("w", &[2, 1, 2, 2], &some(8, 1)).floats("v", &[1, 18], &some(18, 2));
    model.node("Transpose", &["x"], "t", &[Attr::Ints("perm", &[0, 3, 1, 2])]).node("Conv", &["t", "w"], "c", &[]);
    model.node("Flatten", &["c"], "f", &[]).node("Gemm", &["f", "v"], "y", &[Attr::Int("transB", 1)]);
    let network = read(&model);
    assert_eq!(network.architecture.shapes()[..3], [vec![1, 4, 4], vec![2, 3, 3], vec![18]]);
    assert_eq!(network.input_shape, [4, 4, 1]);
}

/// The network that the model's nodes from `x` to `y` are, applied to some inputs.
fn apply(shape: &[i64], build: impl Fn(&mut Model)) -> (Vec<Op>, Vec<f64>) {
    let mut model = Model::new(shape);
    model.floats("eye", &[4, 4], &(0..16).map(|i| f32::from(u8::from(i % 5 == 0))).collect::<Vec<_>>());
    model.node("MatMul", &["x", "eye"], "u", &[]);
    build(&mut model);
    let network = read(&model);
    let ops = network.architecture.nodes()[2..].iter().map(|node| node.op.clone()).collect();
    (ops, forward(&network.architecture, &network.weights(), &[-1.5, 0.25, 1.0, 2.0]))
}

#[test]
fn activations_as_ops_and_spelled_out() {
    let gelu = |model: &mut Model| {
        model.node("Gelu", &["u"], "y", &[]);
    };
    let (ops, expected) = apply(&[1, 4], gelu);
    assert_eq!(ops, [Op::Activation(Activation::Gelu)]);
    // x·½·(1 + erf(x/√2)), factors in three orders.
    for order in 0..3 {
        let spelled = |model: &mut Model| {
            model.floats("root", &[], &[2f32.sqrt()]).floats("one", &[], &[1.0]).floats("half", &[], &[0.5]);
            model.node("Div", &["u", "root"], "s", &[]).node("Erf", &["s"], "e", &[]).node("Add", &["e", "one"], "o", &[]);
            match order {
                0 => model.node("Mul", &["u", "o"], "m", &[]).node("Mul", &["m", "half"], "y", &[]),
                1 => model.node("Mul", &["half", "u"], "m", &[]).node("Mul", &["m", "o"], "y", &[]),
                _ => model.node("Mul", &["o", "half"], "m", &[]).node("Mul", &["m", "u"], "y", &[]),
            };
        };
        let (ops, got) = apply(&[1, 4], spelled);
        assert_eq!(ops, [Op::Activation(Activation::Gelu)], "order {order}");
        assert_close_f64(&got, &expected, 1e-12);
    }
    let (ops, _) = apply(&[1, 4], |model| {
        model.node("Sigmoid", &["u"], "s", &[]).node("Mul", &["u", "s"], "y", &[]);
    });
    assert_eq!(ops, [Op::Activation(Activation::Silu)]);
    let (ops, _) = apply(&[1, 4], |model| {
        model.node("Gelu", &["u"], "y", &[Attr::Text("approximate", "tanh")]);
    });
    assert_eq!(ops, [Op::Activation(Activation::GeluTanh)]);
    let (ops, got) = apply(&[1, 4], |model| {
        model.floats("low", &[], &[-1.0]).floats("high", &[], &[1.5]).node("Clip", &["u", "low", "high"], "y", &[]);
    });
    assert_eq!(ops, [Op::Clip { min: -1.0, max: 1.5 }]);
    assert_eq!(got, [-1.0, 0.25, 1.0, 1.5]);
    let (ops, got) = apply(&[1, 4], |model| {
        model.node("Tanh", &["u"], "t", &[]).node("Neg", &["t"], "n", &[]).node("Add", &["u", "n"], "y", &[]);
    });
    assert_eq!(ops, [Op::Activation(Activation::Tanh), Op::Scale { factor: -1.0 }, Op::Add]);
    assert_close_f64(&got[2..3], &[1.0 - 1f64.tanh()], 1e-12);
}
