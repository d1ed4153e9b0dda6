//! The interpreter against the naive reference, op by op through a tiny network of every family.

use std::sync::Arc;
use weft_core::families::{Bert, Family, Gpt, Llama, ResNet, Vit};
use weft_core::{Activation, Architecture, GraphBuilder, Op, RopePairs, Seed, Window};
use weft_core::{Dataset, Inputs, Part, Population};
use weft_net::{interpret_captured, interpret_f32, interpret_f64, random_inputs, with_tokens};
use weft_testkit::{assert_close, assert_close_f64, forward_f64, random_row, tiny_families};

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Families, and a network of the ops and options that no family has.
fn architectures() -> Vec<Arc<Architecture>> {
    let mut all = tiny_families();
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![4, 7, 6] });
    let weight = graph.tensor("grouped", &[6, 2, 3, 2]);
    let mut x = graph.push(Op::Conv2d { weight, bias: None, stride: [2, 1], padding: [1, 1], groups: 2 }, &[0]);
    x = graph.activation(x, Activation::GeluTanh);
    x = graph.push(Op::MaxPool(Window { size: [2, 3], stride: [1, 2], padding: [1, 1] }), &[x]);
    x = graph.push(Op::AvgPool(Window { size: [3, 2], stride: [2, 1], padding: [1, 1] }), &[x]);
    x = graph.push(Op::Patches, &[x]);
    let silu = graph.activation(x, Activation::Silu);
    let sigmoid = graph.activation(x, Activation::Sigmoid);
    let product = graph.push(Op::Mul, &[silu, sigmoid]);
    let square = graph.push(Op::Mul, &[x, x]);
    x = graph.push(Op::Concat, &[product, square, x]);
    let slice = graph.push(Op::Slice { start: 3, len: 7 }, &[x]);
    x = graph.push(Op::LayerNorm { gain: None, bias: None, epsilon: 1e-6 }, &[slice]);
    x = graph.push(Op::GlobalAvgPool, &[x]);
    graph.linear(x, "head", [3, 7], false);
    all.push(Arc::new(graph.build("rare-ops").expect("the graph is sound")));
    all
}

#[test]
fn every_family_computes_what_the_reference_does() {
    for (i, architecture) in architectures().iter().enumerate() {
        let seed = Seed::new(3).index(i as u64);
        let row = random_row(architecture, seed);
        let inputs = random_inputs(architecture, 5, seed.fork("inputs"));
        let expected = forward_f64(architecture, &widen(&row), &widen(&inputs));
        assert!(expected.iter().any(|v| v.abs() > 1e-3), "{}: the outputs say nothing", architecture.name());
        let got = interpret_f64(architecture, row.as_slice().into(), &widen(&inputs)).unwrap();
        assert_close_f64(&got, &expected, 1e-11);
        let got = interpret_f64(architecture, widen(&row).as_slice().into(), &widen(&inputs)).unwrap();
        assert_close_f64(&got, &expected, 1e-11);
        let got = interpret_f32(architecture, row.as_slice().into(), &inputs).unwrap();
        assert_close_f64(&widen(&got), &expected, 2e-5);
        // One at a time is the same as all at once, up to the order in which products are summed.
        let single =
            inputs.chunks(architecture.num_inputs()).flat_map(|x| interpret_f32(architecture, row.as_slice().into(), x).unwrap());
        assert_close(&single.collect::<Vec<_>>(), &got, 1e-5);
    }
}

#[test]
fn captured_values_are_those_of_the_graph_cut_there() {
    for architecture in architectures() {
        let row = random_row(&architecture, Seed::new(5));
        let inputs = random_inputs(&architecture, 3, Seed::new(6));
        let nodes: Vec<usize> = (0..architecture.nodes().len()).rev().collect();
        let captured = interpret_captured(&architecture, row.as_slice().into(), &inputs, &nodes).unwrap();
        assert_eq!(captured.last().unwrap(), &inputs);
        for (&node, values) in nodes.iter().zip(&captured) {
            assert_eq!(values.len(), 3 * architecture.widths()[node]);
            let alone = interpret_captured(&architecture, row.as_slice().into(), &inputs, &[node]).unwrap();
            assert_eq!(&alone[0], values, "{} node {node}", architecture.name());
        }
        let output = interpret_f32(&architecture, row.as_slice().into(), &inputs).unwrap();
        assert_eq!(captured[0], output);
    }
    // By hand: relu(2x − 1) of the first activation.
    let mlp = Architecture::mlp("m", &[1, 1, 1], Activation::Relu).unwrap();
    let captured = interpret_captured(&mlp, (&[2.0_f32, -1.0, 3.0, 0.5][..]).into(), &[2.0, 0.0], &[2, 1]).unwrap();
    assert_eq!(captured, [vec![3.0, 0.0], vec![3.0, -1.0]]);
}

/// Sizes at which products are shared out in blocks, so that every path of the interpreter runs.
fn larger() -> Vec<Architecture> {
    let resnet = ResNet {
        image: [3, 20, 20],
        stem: Window::square(7, 2, 3),
        stem_pool: true,
        widths: vec![80, 96],
        blocks: 1,
        num_classes: 300,
    };
    let vit = Vit { image: [3, 36, 36], patch: 4, d_model: 24, depth: 1, num_heads: 3, d_hidden: 300, num_classes: 7 };
    [("resnet", Family::ResNet(resnet)), ("vit", Family::Vit(vit))].map(|(name, f)| f.build(name).expect("the sizes fit")).to_vec()
}

#[test]
fn larger_networks_are_the_same_at_any_number_of_threads() {
    for architecture in larger() {
        let row = random_row(&architecture, Seed::new(8));
        let inputs = random_inputs(&architecture, 2, Seed::new(9));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| interpret_f32(&architecture, row.as_slice().into(), &inputs).unwrap())
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(5));
        let expected = forward_f64(&architecture, &widen(&row), &widen(&inputs));
        let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let far = one.iter().zip(&expected).fold(0.0_f64, |m, (a, b)| m.max((f64::from(*a) - b).abs()));
        assert!(far < 1e-5 * scale, "{}: {far} of {scale}", architecture.name());
    }
}

#[test]
fn shorter_sequences_run() {
    let (vocabulary, d_model, depth, num_heads, d_hidden) = (11, 8, 2, 2, 6);
    let bert = Bert { vocabulary, length: 9, segments: 2, d_model, depth, num_heads, d_hidden, pooler: true };
    let gpt = Gpt { vocabulary, length: 9, d_model, depth, num_heads, d_hidden, tied: true };
    let llama = Llama {
        vocabulary,
        length: 9,
        d_model,
        depth,
        num_heads,
        num_kv_heads: 1,
        d_hidden,
        tied: true,
        theta: 100.0,
        pairs: RopePairs::Halves,
        epsilon: 1e-5,
    };
    for family in [Family::Bert(bert), Family::Gpt(gpt), Family::Llama(llama)] {
        let long = family.build("text").unwrap();
        let short = with_tokens(&long, 4).unwrap();
        let row = random_row(&long, Seed::new(1));
        let inputs = random_inputs(&short, 2, Seed::new(2));
        let got = interpret_f64(&short, row.as_slice().into(), &widen(&inputs)).unwrap();
        assert_close_f64(&got, &forward_f64(&short, &widen(&row), &widen(&inputs)), 1e-11);
        if !matches!(family, Family::Bert(_)) {
            // A causal network says the same of the first tokens whatever comes after them.
            let padded: Vec<f64> = widen(&inputs).chunks(4).flat_map(|x| [x, &[0.0; 5]].concat()).collect();
            let whole = interpret_f64(&long, row.as_slice().into(), &padded).unwrap();
            let stride = long.num_outputs();
            let first: Vec<f64> = whole.chunks(stride).flat_map(|y| y[..4 * vocabulary].to_vec()).collect();
            assert_close_f64(&got, &first, 1e-11);
        }
    }
    assert!(with_tokens(&Architecture::mlp("m", &[3, 2], Activation::Relu).unwrap(), 2).is_err());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let gpt = Gpt { vocabulary: 5, length: 3, d_model: 4, depth: 1, num_heads: 2, d_hidden: 3, tied: true };
    let gpt = Family::Gpt(gpt).build("tiny-gpt").unwrap();
    let row = random_row(&gpt, Seed::new(0));
    let message =
        |row: &[f32], inputs: &[f32], nodes: &[usize]| interpret_captured(&gpt, row.into(), inputs, nodes).unwrap_err().to_string();
    assert!(message(&row[1..], &[0.0, 1.0, 2.0], &[0]).contains("`tiny-gpt`"));
    assert!(message(&row, &[0.0, 1.0], &[0]).contains("2 input values"));
    assert!(message(&row, &[0.0, 1.0, 5.0], &[0]).contains("5 is no token id below 5"));
    assert!(message(&row, &[0.0, 1.5, 4.0], &[0]).contains("1.5 is no token id"));
    assert!(message(&row, &[0.0, f32::NAN, 4.0], &[0]).contains("NaN is no token id"));
    assert!(message(&row, &[0.0, 1.0, 4.0], &[99]).contains("node 99"));
    assert_eq!(interpret_f32(&gpt, row.as_slice().into(), &[]).unwrap(), Vec::<f32>::new());
    // One example of this small network would need 32 GiB.
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![1, 4096, 4096] });
    let conv = graph.conv2d(0, "conv", [256, 1], Window::square(1, 1, 0), false);
    graph.activation(conv, Activation::Relu);
    let wide = graph.build("wide").unwrap();
    let message = interpret_f32(&wide, (&[0.0_f32; 256][..]).into(), &[]).unwrap_err().to_string();
    assert!(message.contains("MiB of values"), "{message}");
}

#[test]
fn random_inputs_have_the_documented_scale() {
    let mlp = Architecture::mlp("m", &[50, 2], Activation::Relu).unwrap();
    let x = random_inputs(&mlp, 2000, Seed::new(1));
    let square = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
    assert!((square - 1.0).abs() < 0.02, "{square}");
    let gpt = Gpt { vocabulary: 7, length: 5, d_model: 4, depth: 1, num_heads: 2, d_hidden: 3, tied: true };
    let ids = random_inputs(&Family::Gpt(gpt).build("g").unwrap(), 100, Seed::new(1));
    assert_eq!(ids.len(), 500);
    assert!((0..7).all(|id| ids.contains(&(id as f32))) && ids.iter().all(|id| *id < 7.0));
}

#[test]
fn populations_that_the_engine_lacks_an_op_for_are_scored_all_the_same() {
    let vit = Vit { image: [1, 4, 4], patch: 2, d_model: 4, depth: 1, num_heads: 2, d_hidden: 6, num_classes: 3 };
    let vit = Arc::new(Family::Vit(vit).build("vit").unwrap());
    assert!(weft_net::Engine::new(vit.clone()).is_err());
    let networks = weft_testkit::random_population(&vit, 3, Seed::new(4));
    let values = random_inputs(&vit, 300, Seed::new(5));
    let labels: Vec<u32> = (0..300).map(|i| i % 3).collect();
    let data = Dataset::new("noise", Inputs::Floats(values), labels, 3, [4, 280]).unwrap();
    let inputs = data.gather(data.range(Part::Validation));
    let logits = weft_net::logits(&networks, &inputs, &weft_net::Device::cpu()).unwrap();
    let scores = weft_net::scores(&networks, &data, Part::Validation, &weft_net::Device::cpu()).unwrap();
    let predictions = weft_net::predictions(&networks, &data, Part::Validation, &weft_net::Device::cpu()).unwrap();
    for (i, row) in networks.rows().enumerate() {
        let z = forward_f64(&vit, &widen(row), &widen(&inputs));
        assert_close_f64(&widen(&logits[i * 840..(i + 1) * 840]), &z, 1e-5);
        let (mut correct, mut loss) = (0, 0.0);
        for ((z, &label), &class) in z.chunks_exact(3).zip(data.labels(Part::Validation)).zip(&predictions[i * 280..]) {
            let best = (0..3).fold(0, |best, c| if z[c] > z[best] { c } else { best });
            assert_eq!(best as u32, class);
            correct += usize::from(class == label);
            loss += z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[label as usize];
        }
        assert!((scores[i].accuracy - f64::from(correct as u32) / 280.0).abs() < 1e-12);
        assert!((scores[i].loss - loss / 280.0).abs() < 1e-5);
    }
}

#[test]
fn a_feature_of_tokens_is_active_if_it_is_in_any_token() {
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![2, 1] });
    let x = graph.linear(0, "up", [2, 1], true);
    let x = graph.activation(x, Activation::Relu);
    let x = graph.push(Op::GlobalAvgPool, &[x]);
    graph.linear(x, "head", [2, 2], false);
    let tokens = Arc::new(graph.build("tokens").unwrap());
    // relu(x) and relu(−x − 5)
    let networks = Population::new(tokens, vec![1.0, -1.0, 0.0, -5.0, 1.0, 0.0, 0.0, 1.0]).unwrap();
    let active = |inputs: &[f32]| weft_net::hidden_activity(&networks, inputs, &weft_net::Device::cpu()).unwrap();
    assert_eq!(active(&[1.0, -2.0, -3.0, -4.0]), [[vec![true, false]]]);
    assert_eq!(active(&[-1.0, -6.0]), [[vec![false, true]]]);
}
