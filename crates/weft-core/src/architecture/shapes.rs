//! The shape of every node's output, and the checks that go with it.

use super::{Architecture, Node, Op, TensorId, Window};
use crate::{Error, Result};

/// The largest number of values of one node's output, so that no declaration asks for absurd memory.
const MAX_VALUES: usize = 1 << 32;

type Checked = std::result::Result<Vec<usize>, String>;

/// Infers the shapes of all nodes in order.
pub(super) fn infer(architecture: &Architecture) -> Result<Vec<Vec<usize>>> {
    let nodes = architecture.nodes();
    let mut shapes: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    let mut used_by: Vec<Option<usize>> = vec![None; architecture.tensors().len()];
    for (at, node) in nodes.iter().enumerate() {
        let fail = |reason| Error::Graph { architecture: architecture.name().to_owned(), op: at, kind: node.op.name(), reason };
        check_inputs(at, node).map_err(fail)?;
        for (tensor, axes) in node.op.tensors() {
            let spec = architecture.tensors().get(tensor).ok_or_else(|| fail("its tensor is not a declared one".to_owned()))?;
            if spec.shape.len() != axes {
                return Err(fail(format!("`{}` has the shape {:?}, expected {axes} axes", spec.name, spec.shape)));
            }
            match used_by[tensor] {
                Some(other) if !may_share(&nodes[other].op, &node.op) => {
                    return Err(fail(format!("`{}` is a tensor that another op uses", spec.name)));
                }
                _ => used_by[tensor] = Some(at),
            }
        }
        let shape = Shapes { architecture, shapes: &shapes }.of(node).map_err(fail)?;
        let size = shape.iter().try_fold(1_usize, |size, &axis| size.checked_mul(axis)).filter(|&s| s <= MAX_VALUES);
        match size {
            None => return Err(fail(format!("its output {shape:?} has more than {MAX_VALUES} values"))),
            Some(0) => return Err(fail("its output is empty".to_owned())),
            Some(_) => shapes.push(shape),
        }
    }
    let unused = used_by.iter().position(Option::is_none).map(|t| architecture.tensors()[t].name.clone());
    let reason = match unused {
        Some(name) => format!("the graph leaves the tensor `{name}` unused"),
        None if nodes.len() < 2 => "the graph has no op but its input".to_owned(),
        None => return Ok(shapes),
    };
    Err(Error::Graph { architecture: architecture.name().to_owned(), op: nodes.len(), kind: "end", reason })
}

/// A tied output layer: one table embeds tokens and scores them.
fn may_share(a: &Op, b: &Op) -> bool {
    matches!((a, b), (Op::Embedding { .. }, Op::Linear { .. }))
}

fn check_inputs(at: usize, node: &Node) -> std::result::Result<(), String> {
    if node.inputs.iter().any(|&i| i >= at) {
        return Err("it reads a node that does not come before it".to_owned());
    }
    let arity = node.op.arity();
    let fits = if node.op == Op::Concat { node.inputs.len() >= arity } else { node.inputs.len() == arity };
    if !fits {
        return Err(format!("it reads {} nodes, expected {arity}", node.inputs.len()));
    }
    if matches!(node.op, Op::Input { .. } | Op::InputIds { .. }) != (at == 0) {
        return Err("the first op, and no other, must be the input".to_owned());
    }
    Ok(())
}

struct Shapes<'a> {
    architecture: &'a Architecture,
    shapes: &'a [Vec<usize>],
}

impl Shapes<'_> {
    fn of(&self, node: &Node) -> Checked {
        let x = node.inputs.first().map_or(&[][..], |&i| self.shapes[i].as_slice());
        match &node.op {
            Op::Input { shape } if (1..=3).contains(&shape.len()) => Ok(shape.clone()),
            Op::Input { shape } => Err(format!("an input has 1 to 3 axes, not {shape:?}")),
            Op::InputIds { length, vocabulary } if *vocabulary > 0 => Ok(vec![*length]),
            Op::InputIds { .. } => Err("its vocabulary is empty".to_owned()),
            Op::Linear { weight, bias } => self.linear(x, *weight, *bias),
            Op::Conv2d { weight, bias, stride, padding, groups } => {
                let shape = &self.architecture.tensors()[*weight].shape;
                let window = Window { size: [shape[2], shape[3]], stride: *stride, padding: *padding };
                self.conv(x, (*weight, *bias), *groups, window)
            }
            Op::Perception { kernels } => match x {
                [c, h, w] if !kernels.is_empty() => Ok(vec![kernels.len().saturating_mul(*c), *h, *w]),
                _ => Err(format!("it needs kernels and an image [c, h, w], not {x:?}")),
            },
            Op::Embedding { weight } => self.embedding(x, *weight),
            Op::Position { weight } => self.rows(x, *weight, |rows, t| rows >= t, "at least as many rows as there are tokens"),
            Op::Segment { weight, row } => self.rows(x, *weight, |rows, _| *row < rows, "the row that is added"),
            Op::ClassToken { weight } => match x {
                [t, d] => self.vector(*weight, *d).map(|()| vec![t + 1, *d]),
                _ => Err(format!("it needs tokens [t, d], not {x:?}")),
            },
            Op::BatchNorm { gain, bias, mean, variance, epsilon } => {
                check_epsilon(*epsilon)?;
                if x.len() == 2 {
                    return Err("it needs channels, [c] or [c, h, w], not tokens".to_owned());
                }
                [gain, bias, mean, variance].into_iter().try_for_each(|&t| self.vector(t, first(x)?))?;
                Ok(x.to_vec())
            }
            Op::LayerNorm { gain, bias, epsilon } => {
                check_epsilon(*epsilon)?;
                [gain, bias].into_iter().flatten().try_for_each(|&t| self.vector(t, last(x)?))?;
                features(x)
            }
            Op::RmsNorm { gain, epsilon } => {
                check_epsilon(*epsilon)?;
                gain.iter().try_for_each(|&t| self.vector(t, last(x)?))?;
                features(x)
            }
            Op::Attention { heads, kv_heads, rope, .. } => self.attention(node, *heads, *kv_heads, rope.is_some()),
            Op::Clip { min, max } if min < max => Ok(x.to_vec()),
            Op::Clip { .. } => Err("its smallest value is not below its largest".to_owned()),
            Op::Scale { factor } if !factor.is_finite() || factor.abs() == 0.0 => {
                Err("its factor must be finite and not 0".to_owned())
            }
            Op::Activation(_) | Op::Scale { .. } => Ok(x.to_vec()),
            Op::Add | Op::Mul => {
                let y = &self.shapes[node.inputs[1]];
                if x == y { Ok(x.to_vec()) } else { Err(format!("its inputs have different shapes, {x:?} and {y:?}")) }
            }
            Op::MaxPool(window) | Op::AvgPool(window) => match x {
                [c, h, w] => pooled(*window, [*h, *w]).map(|[h, w]| vec![*c, h, w]),
                _ => Err(format!("it needs an image [c, h, w], not {x:?}")),
            },
            Op::GlobalAvgPool => match x {
                [c, _, _] => Ok(vec![*c]),
                [_, d] => Ok(vec![*d]),
                _ => Err(format!("it needs an image [c, h, w] or tokens [t, d], not {x:?}")),
            },
            Op::Flatten => Ok(vec![x.iter().product()]),
            Op::Patches => match x {
                [c, h, w] => Ok(vec![h * w, *c]),
                _ => Err(format!("it needs an image [c, h, w], not {x:?}")),
            },
            Op::Token { index } => match x {
                [t, d] if index < t => Ok(vec![*d]),
                _ => Err(format!("there is no token {index} in {x:?}")),
            },
            Op::Slice { start, len } => {
                let mut shape = features(x)?;
                match (start.checked_add(*len), shape.last_mut()) {
                    (Some(end), Some(width)) if end <= *width => *width = *len,
                    _ => return Err(format!("{start} + {len} reaches past the last axis of {x:?}")),
                }
                Ok(shape)
            }
            Op::Concat => self.concat(node),
        }
    }

    fn shape_of(&self, tensor: TensorId) -> &[usize] {
        &self.architecture.tensors()[tensor].shape
    }

    fn misfit(&self, tensor: TensorId, expected: &str) -> String {
        let spec = &self.architecture.tensors()[tensor];
        format!("`{}` has the shape {:?}, expected {expected}", spec.name, spec.shape)
    }

    /// Checks that a tensor is a vector of a length.
    fn vector(&self, tensor: TensorId, len: usize) -> std::result::Result<(), String> {
        if self.shape_of(tensor) == [len] { Ok(()) } else { Err(self.misfit(tensor, &format!("[{len}]"))) }
    }

    fn linear(&self, x: &[usize], weight: TensorId, bias: Option<TensorId>) -> Checked {
        let (mut shape, fan_in) = (features(x)?, last(x)?);
        let out = self.shape_of(weight)[0];
        if self.shape_of(weight)[1] != fan_in {
            return Err(self.misfit(weight, &format!("[_, {fan_in}], as long as its input")));
        }
        bias.iter().try_for_each(|&b| self.vector(b, out))?;
        if let Some(width) = shape.last_mut() {
            *width = out;
        }
        Ok(shape)
    }

    fn conv(&self, x: &[usize], (weight, bias): (TensorId, Option<TensorId>), groups: usize, window: Window) -> Checked {
        let [c, h, w] = *x else { return Err(format!("it needs an image [c, h, w], not {x:?}")) };
        let out = self.shape_of(weight)[0];
        if groups == 0 || !c.is_multiple_of(groups) || !out.is_multiple_of(groups) {
            return Err(format!("{groups} groups do not divide {c} and {out} channels"));
        }
        if self.shape_of(weight)[1] != c / groups {
            return Err(self.misfit(weight, &format!("[_, {}, _, _], as many channels as its input", c / groups)));
        }
        bias.iter().try_for_each(|&b| self.vector(b, out))?;
        windows(window, [h, w]).map(|[h, w]| vec![out, h, w])
    }

    fn embedding(&self, x: &[usize], weight: TensorId) -> Checked {
        let [rows, d] = *self.shape_of(weight) else { return Err(self.misfit(weight, "a matrix")) };
        match (x, &self.architecture.nodes()[0].op) {
            ([t], Op::InputIds { vocabulary, .. }) if rows == *vocabulary => Ok(vec![*t, d]),
            (_, Op::InputIds { vocabulary, .. }) => Err(self.misfit(weight, &format!("[{vocabulary}, _], a row an id"))),
            _ => Err("it reads what is no token id".to_owned()),
        }
    }

    fn rows(&self, x: &[usize], weight: TensorId, fits: impl Fn(usize, usize) -> bool, expected: &str) -> Checked {
        let [rows, width] = *self.shape_of(weight) else { return Err(self.misfit(weight, "a matrix")) };
        match *x {
            [t, d] if d == width && fits(rows, t) => Ok(vec![t, d]),
            _ => Err(self.misfit(weight, &format!("the width of {x:?} and {expected}"))),
        }
    }

    fn attention(&self, node: &Node, heads: usize, kv_heads: usize, rope: bool) -> Checked {
        let [q, k, v] = [0, 1, 2].map(|i| self.shapes[node.inputs[i]].as_slice());
        let ([t, q], [tk, k], [tv, v]) = (q, k, v) else { return Err("it needs tokens [t, d]".to_owned()) };
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) || !q.is_multiple_of(heads) {
            return Err(format!("{heads} query and {kv_heads} key heads do not divide a width of {q}"));
        }
        let kv = q / heads * kv_heads;
        if t != tk || t != tv || *k != kv || *v != kv {
            return Err(format!("keys [{tk}, {k}] and values [{tv}, {v}] do not fit queries [{t}, {q}], expected a width of {kv}"));
        }
        if rope && !(q / heads).is_multiple_of(2) {
            return Err(format!("heads of {} values cannot be rotated in pairs", q / heads));
        }
        Ok(vec![*t, *q])
    }

    fn concat(&self, node: &Node) -> Checked {
        let (mut shape, mut width) = (Vec::new(), 0_usize);
        for &input in &node.inputs {
            let x = features(&self.shapes[input])?;
            if !shape.is_empty() && shape[..shape.len() - 1] != x[..x.len() - 1] {
                return Err(format!("its inputs differ before the last axis, {shape:?} and {x:?}"));
            }
            width = width.saturating_add(last(&x)?);
            shape = x;
        }
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        Ok(shape)
    }
}

fn first(x: &[usize]) -> std::result::Result<usize, String> {
    x.first().copied().ok_or_else(|| "its input has no axis".to_owned())
}

fn last(x: &[usize]) -> std::result::Result<usize, String> {
    x.last().copied().ok_or_else(|| "its input has no axis".to_owned())
}

/// A shape whose last axis runs over features: a vector or tokens.
fn features(x: &[usize]) -> Checked {
    if matches!(x.len(), 1 | 2) { Ok(x.to_vec()) } else { Err(format!("it needs a vector [f] or tokens [t, d], not {x:?}")) }
}

fn check_epsilon(epsilon: f64) -> std::result::Result<(), String> {
    if (0.0..1.0).contains(&epsilon) { Ok(()) } else { Err(format!("its epsilon {epsilon} is not in [0, 1)")) }
}

fn pooled(window: Window, image: [usize; 2]) -> std::result::Result<[usize; 2], String> {
    if (0..2).any(|i| window.padding[i] * 2 > window.size[i]) {
        return Err("its padding is more than half its window".to_owned());
    }
    windows(window, image)
}

/// The number of windows down and across.
fn windows(window: Window, image: [usize; 2]) -> std::result::Result<[usize; 2], String> {
    let mut counts = [0; 2];
    for (i, count) in counts.iter_mut().enumerate() {
        let (size, stride, padding) = (window.size[i], window.stride[i], window.padding[i]);
        let room = padding.checked_mul(2).and_then(|p| p.checked_add(image[i])).and_then(|room| room.checked_sub(size));
        match room {
            Some(room) if size > 0 && stride > 0 => *count = room / stride + 1,
            _ => {
                return Err(format!(
                    "its {:?} window with stride {:?} does not fit an image of {image:?}",
                    window.size, window.stride
                ));
            }
        }
    }
    Ok(counts)
}
