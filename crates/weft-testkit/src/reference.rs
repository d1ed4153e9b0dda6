//! A forward pass in `f64`, op by op as the definitions have it; and the same in dual numbers, for exact derivatives.

mod real;

use real::{Dual, Real};
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
    forward_in(architecture, row, inputs)
}

/// The derivatives of all outputs with respect to weight `index`, exact up to rounding.
///
/// # Shapes
/// As [`forward_f64`].
///
/// # Panics
/// If `row`, `inputs` or `index` does not fit.
#[must_use]
pub fn derivative(architecture: &Architecture, row: &[f64], inputs: &[f64], index: usize) -> Vec<f64> {
    let mut dual: Vec<Dual> = row.iter().map(|&w| Dual::of(w)).collect();
    dual[index].slope = 1.0;
    forward_in(architecture, &dual, inputs).into_iter().map(|y| y.slope).collect()
}

fn forward_in<T: Real>(architecture: &Architecture, row: &[T], inputs: &[f64]) -> Vec<T> {
    assert_eq!(row.len(), architecture.num_parameters(), "row length");
    assert_eq!(inputs.len() % architecture.num_inputs(), 0, "whole examples");
    inputs.chunks_exact(architecture.num_inputs()).flat_map(|x| one(architecture, row, x)).collect()
}

/// The values of every node, for each node `[b, width]`.
///
/// # Panics
/// If `row` or `inputs` does not fit.
#[must_use]
pub fn node_values(architecture: &Architecture, row: &[f64], inputs: &[f64]) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::new(); architecture.nodes().len()];
    for input in inputs.chunks_exact(architecture.num_inputs()) {
        values.iter_mut().zip(all(architecture, row, input)).for_each(|(values, one)| values.extend(one));
    }
    values
}

fn one<T: Real>(architecture: &Architecture, row: &[T], input: &[f64]) -> Vec<T> {
    all(architecture, row, input).pop().expect("a checked graph has nodes")
}

fn all<T: Real>(architecture: &Architecture, row: &[T], input: &[f64]) -> Vec<Vec<T>> {
    let input: Vec<T> = input.iter().map(|&x| T::of(x)).collect();
    let mut outputs: Vec<Vec<T>> = Vec::new();
    for node in architecture.nodes() {
        let state = State { architecture, row, input: &input, outputs: &outputs };
        outputs.push(state.run(node));
    }
    outputs
}

struct State<'a, T> {
    architecture: &'a Architecture,
    row: &'a [T],
    input: &'a [T],
    outputs: &'a [Vec<T>],
}

impl<T: Real> State<'_, T> {
    fn tensor(&self, t: usize) -> &[T] {
        &self.row[self.architecture.tensors()[t].range()]
    }

    fn shape(&self, node: usize) -> &[usize] {
        &self.architecture.shapes()[node]
    }

    fn run(&self, node: &Node) -> Vec<T> {
        let from = node.inputs.first().copied().unwrap_or(0);
        let x: &[T] = node.inputs.first().map_or(self.input, |&i| &self.outputs[i]);
        let shape = self.shape(from);
        let width = *shape.last().expect("shapes have axes");
        match &node.op {
            Op::Input { .. } | Op::InputIds { .. } | Op::Flatten => x.to_vec(),
            Op::Linear { weight, bias } => {
                let w = self.tensor(*weight);
                let each = |token: &[T]| {
                    let mut y: Vec<T> = w.chunks_exact(width).map(|w| dot(w, token)).collect();
                    if let Some(bias) = *bias {
                        add(&mut y, self.tensor(bias));
                    }
                    y
                };
                x.chunks_exact(width).flat_map(each).collect()
            }
            Op::Conv2d { .. } => self.conv(node, x, [shape[0], shape[1], shape[2]]),
            Op::Perception { kernels } => perception(kernels, x, [shape[0], shape[1], shape[2]]),
            Op::Embedding { weight } => {
                let d = self.architecture.tensors()[*weight].shape[1];
                x.iter()
                    .flat_map(|&id| self.tensor(*weight)[id.value() as usize * d..(id.value() as usize + 1) * d].to_vec())
                    .collect()
            }
            Op::Position { weight } => x.iter().zip(self.tensor(*weight)).map(|(&a, &b)| a + b).collect(),
            Op::Segment { weight, row } => {
                let added = &self.tensor(*weight)[row * width..(row + 1) * width];
                x.iter().zip(added.iter().cycle()).map(|(&a, &b)| a + b).collect()
            }
            Op::ClassToken { weight } => [self.tensor(*weight), x].concat(),
            Op::BatchNorm { gain, bias, mean, variance, epsilon } => {
                let [gain, bias, mean, variance] = [gain, bias, mean, variance].map(|&t| self.tensor(t));
                let area = x.len() / shape[0];
                let norm = |(i, &v): (usize, &T)| {
                    let c = i / area;
                    gain[c] * (v - mean[c]) / (variance[c] + T::of(*epsilon)).sqrt() + bias[c]
                };
                x.iter().enumerate().map(norm).collect()
            }
            Op::LayerNorm { gain, bias, epsilon } => x
                .chunks_exact(width)
                .flat_map(|token| {
                    let mean = mean(token);
                    let centered: Vec<T> = token.iter().map(|&v| v - mean).collect();
                    let mut y = rms(&centered, *epsilon);
                    if let Some(gain) = *gain {
                        y.iter_mut().zip(self.tensor(gain)).for_each(|(y, &g)| *y = *y * g);
                    }
                    if let Some(bias) = *bias {
                        add(&mut y, self.tensor(bias));
                    }
                    y
                })
                .collect(),
            Op::RmsNorm { gain, epsilon } => x
                .chunks_exact(width)
                .flat_map(|token| {
                    let mut y = rms(token, *epsilon);
                    if let Some(gain) = *gain {
                        y.iter_mut().zip(self.tensor(gain)).for_each(|(y, &g)| *y = *y * g);
                    }
                    y
                })
                .collect(),
            Op::Attention { heads, kv_heads, causal, rope } => {
                let inputs = [0, 1, 2].map(|i| self.outputs[node.inputs[i]].as_slice());
                attention(inputs, shape[0], [*heads, *kv_heads], *causal, *rope)
            }
            Op::Activation(a) => x.iter().map(|&v| activation(*a, v)).collect(),
            Op::Clip { min, max } => x.iter().map(|&v| v.above(T::of(*min)).below(T::of(*max))).collect(),
            Op::Scale { factor } => x.iter().map(|&v| v * T::of(*factor)).collect(),
            Op::Add => x.iter().zip(&self.outputs[node.inputs[1]]).map(|(&a, &b)| a + b).collect(),
            Op::Mul => x.iter().zip(&self.outputs[node.inputs[1]]).map(|(&a, &b)| a * b).collect(),
            Op::MaxPool(w) => pool(*w, x, [shape[0], shape[1], shape[2]], |v| {
                v.iter().copied().reduce(T::above).expect("a window sees something")
            }),
            Op::AvgPool(w) => pool(*w, x, [shape[0], shape[1], shape[2]], mean),
            Op::GlobalAvgPool if shape.len() == 3 => {
                let area = shape[1] * shape[2];
                x.chunks_exact(area).map(mean).collect()
            }
            Op::GlobalAvgPool => (0..width).map(|j| mean(&x.iter().skip(j).step_by(width).copied().collect::<Vec<_>>())).collect(),
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

    fn conv(&self, node: &Node, x: &[T], [channels, height, width]: [usize; 3]) -> Vec<T> {
        let Op::Conv2d { weight, bias, stride, padding, groups } = &node.op else { unreachable!("the caller matched it") };
        let [out, into, kh, kw] = self.architecture.tensors()[*weight].shape[..] else { unreachable!("shapes are checked") };
        let rows = (height + 2 * padding[0] - kh) / stride[0] + 1;
        let cols = (width + 2 * padding[1] - kw) / stride[1] + 1;
        let w = self.tensor(*weight);
        let mut y = Vec::with_capacity(out * rows * cols);
        for o in 0..out {
            let first = o / (out / groups) * (channels / groups);
            for (r, c) in (0..rows * cols).map(|i| (i / cols, i % cols)) {
                let mut sum = bias.map_or(T::of(0.0), |b| self.tensor(b)[o]);
                for (i, u, v) in (0..into * kh * kw).map(|k| (k / (kh * kw), k / kw % kh, k % kw)) {
                    let (at_row, at_col) = (r * stride[0] + u, c * stride[1] + v);
                    if (padding[0]..height + padding[0]).contains(&at_row) && (padding[1]..width + padding[1]).contains(&at_col) {
                        let pixel = ((first + i) * height + at_row - padding[0]) * width + at_col - padding[1];
                        sum = sum + w[((o * into + i) * kh + u) * kw + v] * x[pixel];
                    }
                }
                y.push(sum);
            }
        }
        y
    }
}

fn sum<T: Real>(values: impl Iterator<Item = T>) -> T {
    values.fold(T::of(0.0), |sum, v| sum + v)
}

fn mean<T: Real>(x: &[T]) -> T {
    sum(x.iter().copied()) / T::of(x.len() as f64)
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    sum(a.iter().zip(b).map(|(&a, &b)| a * b))
}

fn add<T: Real>(y: &mut [T], b: &[T]) {
    y.iter_mut().zip(b).for_each(|(y, &b)| *y = *y + b);
}

fn rms<T: Real>(x: &[T], epsilon: f64) -> Vec<T> {
    let size = (dot(x, x) / T::of(x.len() as f64) + T::of(epsilon)).sqrt();
    x.iter().map(|&v| v / size).collect()
}

fn perception<T: Real>(kernels: &[[f32; 9]], x: &[T], [channels, height, width]: [usize; 3]) -> Vec<T> {
    let at = |c: usize, r: usize, q: usize| x[(c * height + r % height) * width + q % width];
    let mut y = Vec::with_capacity(kernels.len() * x.len());
    for kernel in kernels {
        for (c, r, q) in (0..channels * height * width).map(|i| (i / (height * width), i / width % height, i % width)) {
            let tap = |(k, &w): (usize, &f32)| T::of(f64::from(w)) * at(c, r + height + k / 3 - 1, q + width + k % 3 - 1);
            y.push(sum(kernel.iter().enumerate().map(tap)));
        }
    }
    y
}

fn pool<T: Real>(window: Window, x: &[T], [channels, height, width]: [usize; 3], reduce: impl Fn(&[T]) -> T) -> Vec<T> {
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

fn attention<T: Real>(
    [q, k, v]: [&[T]; 3],
    tokens: usize,
    [heads, kv_heads]: [usize; 2],
    causal: bool,
    rope: Option<Rope>,
) -> Vec<T> {
    let d = q.len() / tokens / heads;
    let head = |x: &[T], t: usize, h: usize, heads: usize| x[(t * heads + h) * d..(t * heads + h + 1) * d].to_vec();
    let turn = |x: Vec<T>, t: usize| rope.map_or(x.clone(), |rope| rotate(&x, t, rope));
    let mut y = Vec::with_capacity(q.len());
    for (t, h) in (0..tokens * heads).map(|i| (i / heads, i % heads)) {
        let from = h / (heads / kv_heads);
        let query = turn(head(q, t, h, heads), t);
        let seen = if causal { t + 1 } else { tokens };
        let scores: Vec<T> =
            (0..seen).map(|s| dot(&query, &turn(head(k, s, from, kv_heads), s)) / T::of((d as f64).sqrt())).collect();
        let top = T::of(scores.iter().map(|s| s.value()).fold(f64::NEG_INFINITY, f64::max));
        let weights: Vec<T> = scores.iter().map(|&s| (s - top).exp()).collect();
        let total = sum(weights.iter().copied());
        let mut mixed = vec![T::of(0.0); d];
        for (s, &w) in weights.iter().enumerate() {
            mixed.iter_mut().zip(head(v, s, from, kv_heads)).for_each(|(m, v)| *m = *m + w / total * v);
        }
        y.extend(mixed);
    }
    y
}

fn rotate<T: Real>(x: &[T], position: usize, rope: Rope) -> Vec<T> {
    let half = x.len() / 2;
    let mut y = x.to_vec();
    for i in 0..half {
        let angle = position as f64 * rope.theta.powf(-2.0 * i as f64 / x.len() as f64);
        let (a, b) = match rope.pairs {
            RopePairs::Interleaved => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let [cos, sin] = [angle.cos(), angle.sin()].map(T::of);
        y[a] = x[a] * cos - x[b] * sin;
        y[b] = x[a] * sin + x[b] * cos;
    }
    y
}

/// An activation in `f64`.
#[must_use]
pub fn activate(of: Activation, x: f64) -> f64 {
    activation(of, x)
}

fn activation<T: Real>(of: Activation, x: T) -> T {
    let n = T::of;
    match of {
        Activation::Relu => x.above(n(0.0)),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * n(0.5) * (n(1.0) + (x / n(std::f64::consts::SQRT_2)).erf()),
        Activation::GeluTanh => {
            let inner = n((2.0 / std::f64::consts::PI).sqrt()) * (x + n(0.044_715) * x * x * x);
            x * n(0.5) * (n(1.0) + inner.tanh())
        }
        Activation::Silu => x / (n(1.0) + (n(0.0) - x).exp()),
        Activation::Sigmoid => n(1.0) / (n(1.0) + (n(0.0) - x).exp()),
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
