//! A forward pass in `f64`, op by op as the definitions have it.

use weft_core::{Activation, Architecture, Node, Op, Rope, RopePairs, Window};

/// The network's outputs for a batch of inputs, computed in `f64` from `f64` weights.
///
/// # Shapes
/// `inputs` is `[b, values]`, the result `[b, outputs]`. Token ids are whole numbers.
///
/// # Panics
/// If `row` or `inputs` does not fit.
#[must_use]
pub fn forward_f64(architecture: &Architecture, row: &[f64], inputs: &[f64]) -> Vec<f64> {
    assert_eq!(row.len(), architecture.num_parameters(), "row length");
    assert_eq!(inputs.len() % architecture.num_inputs(), 0, "whole examples");
    inputs.chunks_exact(architecture.num_inputs()).flat_map(|x| one(architecture, row, x)).collect()
}

fn one(architecture: &Architecture, row: &[f64], input: &[f64]) -> Vec<f64> {
    let mut outputs: Vec<Vec<f64>> = Vec::new();
    for node in architecture.nodes() {
        let state = State { architecture, row, input, outputs: &outputs };
        outputs.push(state.run(node));
    }
    outputs.pop().expect("a checked graph has nodes")
}

struct State<'a> {
    architecture: &'a Architecture,
    row: &'a [f64],
    input: &'a [f64],
    outputs: &'a [Vec<f64>],
}

impl State<'_> {
    fn tensor(&self, t: usize) -> &[f64] {
        &self.row[self.architecture.tensors()[t].range()]
    }

    fn shape(&self, node: usize) -> &[usize] {
        &self.architecture.shapes()[node]
    }

    fn run(&self, node: &Node) -> Vec<f64> {
        let from = node.inputs.first().copied().unwrap_or(0);
        let x: &[f64] = node.inputs.first().map_or(self.input, |&i| &self.outputs[i]);
        let shape = self.shape(from);
        let width = *shape.last().expect("shapes have axes");
        match &node.op {
            Op::Input { .. } | Op::InputIds { .. } => x.to_vec(),
            Op::Linear { weight, bias } => {
                let w = self.tensor(*weight);
                let each = |token: &[f64]| {
                    let mut y: Vec<f64> = w.chunks_exact(width).map(|w| dot(w, token)).collect();
                    bias.iter().for_each(|&b| add(&mut y, self.tensor(b)));
                    y
                };
                x.chunks_exact(width).flat_map(each).collect()
            }
            Op::Conv2d { .. } => self.conv(node, x, [shape[0], shape[1], shape[2]]),
            Op::Perception { kernels } => perception(kernels, x, [shape[0], shape[1], shape[2]]),
            Op::Embedding { weight } => {
                let d = self.architecture.tensors()[*weight].shape[1];
                x.iter().flat_map(|&id| self.tensor(*weight)[id as usize * d..(id as usize + 1) * d].to_vec()).collect()
            }
            Op::Position { weight } => x.iter().zip(self.tensor(*weight)).map(|(a, b)| a + b).collect(),
            Op::Segment { weight, row } => {
                let added = &self.tensor(*weight)[row * width..(row + 1) * width];
                x.iter().zip(added.iter().cycle()).map(|(a, b)| a + b).collect()
            }
            Op::ClassToken { weight } => [self.tensor(*weight), x].concat(),
            Op::BatchNorm { gain, bias, mean, variance, epsilon } => {
                let [gain, bias, mean, variance] = [gain, bias, mean, variance].map(|&t| self.tensor(t));
                let area = x.len() / shape[0];
                let norm = |(i, v): (usize, &f64)| {
                    let c = i / area;
                    gain[c] * (v - mean[c]) / (variance[c] + epsilon).sqrt() + bias[c]
                };
                x.iter().enumerate().map(norm).collect()
            }
            Op::LayerNorm { gain, bias, epsilon } => x
                .chunks_exact(width)
                .flat_map(|token| {
                    let mean = token.iter().sum::<f64>() / width as f64;
                    let centered: Vec<f64> = token.iter().map(|v| v - mean).collect();
                    let mut y = rms(&centered, *epsilon);
                    gain.iter().for_each(|&g| y.iter_mut().zip(self.tensor(g)).for_each(|(y, g)| *y *= g));
                    bias.iter().for_each(|&b| add(&mut y, self.tensor(b)));
                    y
                })
                .collect(),
            Op::RmsNorm { gain, epsilon } => x
                .chunks_exact(width)
                .flat_map(|token| {
                    let mut y = rms(token, *epsilon);
                    gain.iter().for_each(|&g| y.iter_mut().zip(self.tensor(g)).for_each(|(y, g)| *y *= g));
                    y
                })
                .collect(),
            Op::Attention { heads, kv_heads, causal, rope } => {
                let inputs = [0, 1, 2].map(|i| self.outputs[node.inputs[i]].as_slice());
                attention(inputs, shape[0], [*heads, *kv_heads], *causal, *rope)
            }
            Op::Activation(a) => x.iter().map(|&v| activate(*a, v)).collect(),
            Op::Clip { min, max } => x.iter().map(|v| v.clamp(*min, *max)).collect(),
            Op::Scale { factor } => x.iter().map(|v| v * factor).collect(),
            Op::Add => x.iter().zip(&self.outputs[node.inputs[1]]).map(|(a, b)| a + b).collect(),
            Op::Mul => x.iter().zip(&self.outputs[node.inputs[1]]).map(|(a, b)| a * b).collect(),
            Op::MaxPool(w) => pool(*w, x, [shape[0], shape[1], shape[2]], |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            Op::AvgPool(w) => pool(*w, x, [shape[0], shape[1], shape[2]], |v| v.iter().sum::<f64>() / v.len() as f64),
            Op::GlobalAvgPool if shape.len() == 3 => {
                let area = shape[1] * shape[2];
                x.chunks_exact(area).map(|v| v.iter().sum::<f64>() / area as f64).collect()
            }
            Op::GlobalAvgPool => (0..width).map(|j| x.iter().skip(j).step_by(width).sum::<f64>() / shape[0] as f64).collect(),
            Op::Flatten => x.to_vec(),
            Op::Patches => {
                let area = shape[1] * shape[2];
                (0..x.len()).map(|i| x[i % shape[0] * area + i / shape[0]]).collect()
            }
            Op::Token { index } => x[index * width..(index + 1) * width].to_vec(),
            Op::Slice { start, len } => x.chunks_exact(width).flat_map(|token| token[*start..start + len].to_vec()).collect(),
            Op::Concat => {
                let tokens = if shape.len() == 2 { shape[0] } else { 1 };
                let part = |i: usize, t: usize| {
                    let x = &self.outputs[i];
                    let width = x.len() / tokens;
                    x[t * width..(t + 1) * width].to_vec()
                };
                (0..tokens).flat_map(|t| node.inputs.iter().flat_map(move |&i| part(i, t))).collect()
            }
        }
    }

    fn conv(&self, node: &Node, x: &[f64], [channels, height, width]: [usize; 3]) -> Vec<f64> {
        let Op::Conv2d { weight, bias, stride, padding, groups } = &node.op else { unreachable!("the caller matched it") };
        let [out, into, kh, kw] = self.architecture.tensors()[*weight].shape[..] else { unreachable!("shapes are checked") };
        let rows = (height + 2 * padding[0] - kh) / stride[0] + 1;
        let cols = (width + 2 * padding[1] - kw) / stride[1] + 1;
        let w = self.tensor(*weight);
        let mut y = Vec::with_capacity(out * rows * cols);
        for o in 0..out {
            let first = o / (out / groups) * (channels / groups);
            for (r, c) in (0..rows * cols).map(|i| (i / cols, i % cols)) {
                let mut sum = bias.map_or(0.0, |b| self.tensor(b)[o]);
                for (i, u, v) in (0..into * kh * kw).map(|k| (k / (kh * kw), k / kw % kh, k % kw)) {
                    let (at_row, at_col) = (r * stride[0] + u, c * stride[1] + v);
                    if (padding[0]..height + padding[0]).contains(&at_row) && (padding[1]..width + padding[1]).contains(&at_col) {
                        let pixel = ((first + i) * height + at_row - padding[0]) * width + at_col - padding[1];
                        sum += w[((o * into + i) * kh + u) * kw + v] * x[pixel];
                    }
                }
                y.push(sum);
            }
        }
        y
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(y: &mut [f64], b: &[f64]) {
    y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
}

fn rms(x: &[f64], epsilon: f64) -> Vec<f64> {
    let mean_square = dot(x, x) / x.len() as f64;
    x.iter().map(|v| v / (mean_square + epsilon).sqrt()).collect()
}

fn perception(kernels: &[[f32; 9]], x: &[f64], [channels, height, width]: [usize; 3]) -> Vec<f64> {
    let at = |c: usize, r: usize, q: usize| x[(c * height + r % height) * width + q % width];
    let mut y = Vec::with_capacity(kernels.len() * x.len());
    for kernel in kernels {
        for (c, r, q) in (0..channels * height * width).map(|i| (i / (height * width), i / width % height, i % width)) {
            let tap = |(k, &w): (usize, &f32)| f64::from(w) * at(c, r + height + k / 3 - 1, q + width + k % 3 - 1);
            y.push(kernel.iter().enumerate().map(tap).sum());
        }
    }
    y
}

fn pool(window: Window, x: &[f64], [channels, height, width]: [usize; 3], reduce: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let Window { size, stride, padding } = window;
    let rows = (height + 2 * padding[0] - size[0]) / stride[0] + 1;
    let cols = (width + 2 * padding[1] - size[1]) / stride[1] + 1;
    let mut y = Vec::with_capacity(channels * rows * cols);
    for (c, r, q) in (0..channels * rows * cols).map(|i| (i / (rows * cols), i / cols % rows, i % cols)) {
        let mut seen = Vec::new();
        for (u, v) in (0..size[0] * size[1]).map(|k| (k / size[1], k % size[1])) {
            let (row, col) = (r * stride[0] + u, q * stride[1] + v);
            if (padding[0]..height + padding[0]).contains(&row) && (padding[1]..width + padding[1]).contains(&col) {
                seen.push(x[(c * height + row - padding[0]) * width + col - padding[1]]);
            }
        }
        y.push(reduce(&seen));
    }
    y
}

fn attention([q, k, v]: [&[f64]; 3], tokens: usize, [heads, kv_heads]: [usize; 2], causal: bool, rope: Option<Rope>) -> Vec<f64> {
    let d = q.len() / tokens / heads;
    let head = |x: &[f64], t: usize, h: usize, heads: usize| x[(t * heads + h) * d..(t * heads + h + 1) * d].to_vec();
    let turn = |x: Vec<f64>, t: usize| rope.map_or(x.clone(), |rope| rotate(&x, t, rope));
    let mut y = Vec::with_capacity(q.len());
    for (t, h) in (0..tokens * heads).map(|i| (i / heads, i % heads)) {
        let from = h / (heads / kv_heads);
        let query = turn(head(q, t, h, heads), t);
        let seen = if causal { t + 1 } else { tokens };
        let scores: Vec<f64> = (0..seen).map(|s| dot(&query, &turn(head(k, s, from, kv_heads), s)) / (d as f64).sqrt()).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut mixed = vec![0.0; d];
        for (s, w) in weights.iter().enumerate() {
            mixed.iter_mut().zip(head(v, s, from, kv_heads)).for_each(|(m, v)| *m += w / total * v);
        }
        y.extend(mixed);
    }
    y
}

fn rotate(x: &[f64], position: usize, rope: Rope) -> Vec<f64> {
    let half = x.len() / 2;
    let mut y = x.to_vec();
    for i in 0..half {
        let angle = position as f64 * rope.theta.powf(-2.0 * i as f64 / x.len() as f64);
        let (a, b) = match rope.pairs {
            RopePairs::Interleaved => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        y[a] = x[a] * angle.cos() - x[b] * angle.sin();
        y[b] = x[a] * angle.sin() + x[b] * angle.cos();
    }
    y
}

/// An activation in `f64`.
#[must_use]
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => x * 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The error function to about 1e-13: its series `2/√π · e^(−x²) · Σ 2ⁿx²ⁿ⁺¹/(2n+1)!!`, all of whose terms have one sign.
#[must_use]
pub fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}
