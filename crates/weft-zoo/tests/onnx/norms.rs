//! Layer norm in every form that exporters spell it, and RMS norm.

use crate::dialects::read;
use crate::model::{Attr, Model, some};
use weft_core::{Architecture, Op};
use weft_testkit::{assert_close_f64, forward};

/// `u = x·W`, then whatever `build` makes of it.
fn network(opset: i64, build: impl Fn(&mut Model)) -> (Architecture, Vec<f32>) {
    let mut model = Model::new(&[-1, 3]);
    model.opset = opset;
    model.floats("w", &[3, 4], &some(12, 1)).node("MatMul", &["x", "w"], "u", &[]);
    model.floats("gain", &[4], &some(4, 2)).floats("bias", &[1, 4], &some(4, 3));
    model.floats("eps", &[], &[1e-5]).floats("two", &[], &[2.0]).floats("one", &[1], &[1.0]).floats("half", &[], &[0.5]);
    build(&mut model);
    let network = read(&model);
    let row = network.weights();
    (network.architecture, row)
}

fn mean(model: &mut Model, from: &str, to: &str) {
    if model.opset < 18 {
        model.node("ReduceMean", &[from], to, &[Attr::Ints("axes", &[-1]), Attr::Int("keepdims", 1)]);
    } else {
        model.ints(&format!("axes of {to}"), &[1]);
        let axes = format!("axes of {to}");
        model.node("ReduceMean", &[from, &axes], to, &[]);
    }
}

/// `variance + ε` of `u` as `v`, with `m` its mean and `c` the centered values.
fn variance(model: &mut Model, with: &str) {
    mean(model, "u", "m");
    model.node("Sub", &["u", "m"], "c", &[]);
    match with {
        "pow" => {
            model.node("Pow", &["c", "two"], "s", &[]);
            mean(model, "s", "q");
        }
        "mul" => {
            model.node("Mul", &["c", "c"], "s", &[]);
            mean(model, "s", "q");
        }
        // The centered values computed a second time.
        "twice" => {
            model.node("Sub", &["u", "m"], "d", &[]).node("Mul", &["c", "d"], "s", &[]);
            mean(model, "s", "q");
        }
        _ => {
            model.node("Mul", &["u", "u"], "s", &[]).node("Mul", &["m", "m"], "mm", &[]);
            mean(model, "s", "sm");
            model.node("Sub", &["sm", "mm"], "q", &[]);
        }
    }
    model.node("Add", &["q", "eps"], "v", &[]);
}

/// A name, and the nodes from the pieces of [`variance`] to the output.
type Form = (&'static str, fn(&mut Model));

/// Gain and bias behind normalized values.
fn end(model: &mut Model, from: &str) {
    model.node("Mul", &[from, "gain"], "g", &[]).node("Add", &["bias", "g"], "y", &[]);
}

#[test]
fn every_spelling_is_one_layer() {
    let (expected, row) = network(17, |model| {
        model.node("LayerNormalization", &["u", "gain", "bias"], "y", &[Attr::Float("epsilon", 1e-5)]);
    });
    assert_eq!(expected.nodes()[2].op, Op::LayerNorm { gain: Some(1), bias: Some(2), epsilon: 1e-5 });
    let forms: [Form; 9] = [
        ("(u − μ)/σ", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Div", &["c", "r"], "n", &[]);
            end(model, "n");
        }),
        ("(u − μ)·(1/σ)", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Reciprocal", &["r"], "i", &[]).node("Mul", &["i", "c"], "n", &[]);
            end(model, "n");
        }),
        ("1/σ by division", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Div", &["one", "r"], "i", &[]).node("Mul", &["c", "i"], "n", &[]);
            end(model, "n");
        }),
        ("1/σ by power", |model| {
            model.floats("minus", &[], &[-0.5]).node("Pow", &["v", "minus"], "i", &[]).node("Mul", &["c", "i"], "n", &[]);
            end(model, "n");
        }),
        ("σ by power", |model| {
            model.node("Pow", &["v", "half"], "r", &[]).node("Div", &["c", "r"], "n", &[]);
            end(model, "n");
        }),
        ("gain before the division", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Mul", &["c", "gain"], "g", &[]).node("Div", &["g", "r"], "n", &[]);
            model.node("Add", &["n", "bias"], "y", &[]);
        }),
        ("gain into 1/σ", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Reciprocal", &["r"], "i", &[]).node("Mul", &["gain", "i"], "g", &[]);
            model.node("Mul", &["c", "g"], "n", &[]).node("Add", &["n", "bias"], "y", &[]);
        }),
        ("u·s + (β − μ·s)", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Reciprocal", &["r"], "i", &[]).node("Mul", &["i", "gain"], "g", &[]);
            model.node("Mul", &["m", "g"], "mg", &[]).node("Sub", &["bias", "mg"], "o", &[]);
            model.node("Mul", &["u", "g"], "ug", &[]).node("Add", &["ug", "o"], "y", &[]);
        }),
        ("u·s − μ·s + β", |model| {
            model.node("Sqrt", &["v"], "r", &[]).node("Reciprocal", &["r"], "i", &[]).node("Mul", &["i", "gain"], "g", &[]);
            model.node("Mul", &["g", "m"], "mg", &[]).node("Mul", &["g", "u"], "ug", &[]);
            model.node("Sub", &["ug", "mg"], "n", &[]).node("Add", &["n", "bias"], "y", &[]);
        }),
    ];
    for (name, form) in forms {
        for opset in [13, 18] {
            for with in ["pow", "mul", "twice", "mean of squares"] {
                let (architecture, weights) = network(opset, |model| {
                    variance(model, with);
                    form(model);
                });
                assert!(architecture.same_graph(&expected), "{name}, {with}: {architecture:?}");
                assert_eq!(weights, row, "{name}, {with}");
            }
        }
    }
    let got = forward(&expected, &row, &[1.0, -2.0, 0.5]);
    let u: Vec<f64> = (0..4).map(|j| (0..3).map(|i| [1.0, -2.0, 0.5][i] * f64::from(some(12, 1)[4 * i + j])).sum()).collect();
    let mean = u.iter().sum::<f64>() / 4.0;
    let deviation = (u.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4.0 + 1e-5).sqrt();
    let by_hand = |j: usize| (u[j] - mean) / deviation * f64::from(some(4, 2)[j]) + f64::from(some(4, 3)[j]);
    assert_close_f64(&got, &(0..4).map(by_hand).collect::<Vec<_>>(), 1e-12);
}

#[test]
fn the_epsilon_is_a_part_of_the_architecture() {
    let with = |epsilon| {
        network(17, |model| {
            model.node("LayerNormalization", &["u", "gain", "bias"], "y", &[Attr::Float("epsilon", epsilon)]);
        })
        .0
    };
    assert!(with(1e-5).same_graph(&with(1e-5)));
    assert!(!with(1e-5).same_graph(&with(1e-6)));
}

#[test]
fn rms_norm() {
    let (architecture, _) = network(17, |model| {
        model.node("Pow", &["u", "two"], "s", &[]);
        mean(model, "s", "q");
        model.node("Add", &["q", "eps"], "v", &[]).node("Sqrt", &["v"], "r", &[]).node("Reciprocal", &["r"], "i", &[]);
        model.node("Mul", &["u", "i"], "n", &[]).node("Mul", &["gain", "n"], "y", &[]);
    });
    assert_eq!(architecture.nodes()[2].op, Op::RmsNorm { gain: Some(1), epsilon: 1e-5 });
}
