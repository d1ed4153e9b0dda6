//! All networks of a population at once, each operation over all of them: how a GPU runs and trains networks.
//!
//! A CPU works through one network after the other instead, in a core's cache ([`Engine`](crate::Engine)). Here images have their
//! channels innermost, and a convolution is a linear map of its windows.
//!
//! Shape legend: `n` networks, `r` examples of each, `D` parameters of a network, `c` channels, `o` outputs.

mod recalibrate;
mod run;
mod train;

pub(crate) use recalibrate::recalibrate;
pub(crate) use run::{activity, logits, runs};
pub(crate) use train::train;

use crate::engine::plan::{Step, plan};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;
use weft_core::{Activation, Architecture};
use weft_ops::backend::{Backend, Batch, BatchNorm, ImageSizes, Linear};
use weft_ops::kernels::{ConvShape, PoolShape, Pooling};
use weft_ops::tensor::{Network, Pass, Ran};

/// A population that is run in lock step.
#[derive(Debug, Clone)]
pub(crate) struct LockStep {
    architecture: Arc<Architecture>,
    nodes: Arc<Vec<Node>>,
    networks: usize,
    /// Whether all networks read the same rows.
    shared: bool,
    /// Whether batch norm takes a batch's own statistics.
    training: bool,
}

/// A node with where its values come from.
#[derive(Debug, Clone)]
struct Node {
    work: Work,
    inputs: Vec<usize>,
    /// Channels and pixels of its values; a vector has one pixel.
    channels: usize,
    pixels: usize,
    /// Whether its values follow from the inputs alone: networks that share these share them, and nobody asks for their gradient.
    of_inputs: bool,
    /// The last node that reads its buffer.
    until: usize,
}

/// What a node does to values with channels innermost.
#[derive(Debug, Clone)]
enum Work {
    /// The input; of images with channels, these are moved inwards.
    Input,
    /// The values of another node as they are.
    Same,
    Linear(Linear),
    /// A linear map with the activation that follows it; both values are kept.
    Activated(Linear, Activation),
    /// Of an [`Work::Activated`] before it: already done.
    Done,
    Conv(ConvShape, Linear, Option<Activation>),
    Activation(Activation),
    BatchNorm(BatchNorm),
    Add,
    Pool(Pooling, PoolShape),
    /// Channels moved outwards.
    Flatten,
}

/// The values of a node.
enum Value<B: Backend> {
    /// Those of the inputs, which are borrowed.
    Input,
    /// Those of another node.
    Of(usize),
    /// Its own.
    Own(Own<B>),
}

/// What a node computed.
struct Own<B: Backend> {
    /// Its values; taken out where they are the network's.
    after: Option<B::Buffer>,
    /// Before a fused activation.
    before: Option<B::Buffer>,
    /// A convolution's windows.
    patches: Option<B::Buffer>,
    /// A batch norm's statistics.
    statistics: Option<B::Wide>,
    /// The running statistics after this batch.
    moved: Option<B::Wide>,
}

impl<B: Backend> Own<B> {
    fn new(after: B::Buffer) -> Self {
        Self { after: Some(after), before: None, patches: None, statistics: None, moved: None }
    }
}

/// What the backward pass needs of the forward pass.
pub(crate) struct Saved<B: Backend> {
    values: Vec<Value<B>>,
}

impl LockStep {
    /// Plans a population.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names an op that does not run in lock step.
    pub(crate) fn new(architecture: &Arc<Architecture>, networks: usize, shared: bool) -> Result<Self> {
        let steps = plan(architecture)?;
        let mut readers = vec![0usize; steps.len()];
        architecture.nodes().iter().flat_map(|node| &node.inputs).for_each(|&i| readers[i] += 1);
        let mut nodes: Vec<Node> = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let inputs = architecture.nodes()[at].inputs.clone();
            let (channels, pixels) = match architecture.shapes()[at][..] {
                [channels, height, width] => (channels, height * width),
                [width] => (width, 1),
                _ => return Err(unsupported(architecture, at)),
            };
            let mut work = work_of(step).ok_or_else(|| unsupported(architecture, at))?;
            // Of values that networks share there is one copy until a map gives each network its own: nothing else mixes the two.
            let own = matches!(work, Work::BatchNorm(_) | Work::Activation(_) | Work::Add);
            if shared && own && inputs.iter().any(|&i| nodes[i].of_inputs) {
                return Err(unsupported(architecture, at));
            }
            let weights = matches!(work, Work::Linear(_) | Work::Conv(..) | Work::BatchNorm(_));
            let of_inputs = !weights && inputs.iter().all(|&i| nodes[i].of_inputs);
            if let (Work::Activation(activation), [from]) = (&work, &inputs[..])
                && readers[*from] == 1
            {
                match &mut nodes[*from].work {
                    Work::Linear(map) => {
                        nodes[*from].work = Work::Activated(*map, *activation);
                        work = Work::Done;
                    }
                    Work::Conv(_, _, fused @ None) => {
                        *fused = Some(*activation);
                        work = Work::Done;
                    }
                    _ => {}
                }
            }
            if let (Work::Flatten, [from]) = (&work, &inputs[..])
                && (nodes[*from].pixels == 1 || nodes[*from].channels == 1)
            {
                work = Work::Same;
            }
            nodes.push(Node { work, inputs, channels, pixels, of_inputs, until: at });
        }
        let last = nodes.len() - 1;
        nodes[last].until = usize::MAX;
        for at in (0..=last).rev() {
            let alias = matches!(nodes[at].work, Work::Same | Work::Done);
            let until = if alias { nodes[at].until } else { at };
            for i in nodes[at].inputs.clone() {
                nodes[i].until = nodes[i].until.max(until);
            }
        }
        Ok(Self { architecture: architecture.clone(), nodes: Arc::new(nodes), networks, shared, training: false })
    }

    /// The same in training: batch norm takes a batch's own statistics.
    pub(crate) fn training(self) -> Self {
        Self { training: true, ..self }
    }

    /// Takes the running statistics of batch norms after a pass in training.
    fn moved<B: Backend>(&self, saved: &mut Saved<B>) -> Vec<(BatchNorm, B::Wide)> {
        let nodes = self.nodes.iter().zip(&mut saved.values);
        let moved = nodes.filter_map(|(node, value)| match (&node.work, value) {
            (Work::BatchNorm(norm), Value::Own(own)) => own.moved.take().map(|moved| (*norm, moved)),
            _ => None,
        });
        moved.collect()
    }

    /// The batch norms, in the order of the nodes.
    fn norms(&self) -> Vec<BatchNorm> {
        let norm = |node: &Node| if let Work::BatchNorm(norm) = &node.work { Some(*norm) } else { None };
        self.nodes.iter().filter_map(norm).collect()
    }

    /// The most values of any one buffer, for one network and example.
    pub(crate) fn widest(&self) -> usize {
        let values = |node: &Node| match &node.work {
            Work::Conv(shape, ..) => (shape.taps() * node.pixels).max(node.channels * node.pixels),
            _ => node.channels * node.pixels,
        };
        self.nodes.iter().map(values).max().unwrap_or(1)
    }

    /// The channels or features of a node.
    fn units(&self, node: usize) -> usize {
        self.nodes[node].channels
    }

    fn batch(&self, rows: usize, shared: bool) -> Batch {
        Batch { networks: self.networks, rows, stride: self.architecture.num_parameters(), shared: shared && self.networks > 1 }
    }

    /// The node whose buffer holds a node's values.
    fn holder<B: Backend>(values: &[Value<B>], mut node: usize) -> usize {
        while let Value::Of(other) = values[node] {
            node = other;
        }
        node
    }

    fn view<'a, B: Backend>(backend: &B, values: &'a [Value<B>], node: usize, x: B::View<'a>) -> B::View<'a> {
        match &values[Self::holder(values, node)] {
            Value::Own(Own { after: Some(after), .. }) => backend.view(after),
            _ => x,
        }
    }

    /// Runs one node; `rows` are each network's examples.
    fn step<B: Backend>(&self, pass: Pass<'_, B>, at: usize, values: &[Value<B>], x: B::View<'_>) -> weft_ops::Result<Value<B>> {
        let (backend, theta) = (pass.backend, pass.theta);
        let node = &self.nodes[at];
        let images = pass.rows / self.networks;
        // Values that all networks share exist once.
        let shared = self.shared && node.inputs.first().is_none_or(|&i| self.nodes[i].of_inputs);
        let copies = if shared { 1 } else { self.networks };
        let input = |i: usize| Self::view(backend, values, node.inputs[i], B::shorten(x));
        let own = |after| Value::Own(Own::new(after));
        Ok(match &node.work {
            Work::Input if node.channels > 1 && node.pixels > 1 => {
                own(backend.transpose([copies * images, node.channels, node.pixels], x)?)
            }
            Work::Input => Value::Input,
            Work::Same | Work::Done => Value::Of(node.inputs[0]),
            Work::Linear(map) => own(backend.linear(map, self.batch(images, shared), input(0), theta)?),
            Work::Activated(map, activation) => {
                let batch = self.batch(images, shared);
                let (before, after) = backend.linear_activated((map, *activation), batch, input(0), theta)?;
                Value::Own(Own { before: pass.keep.then_some(before), ..Own::new(after) })
            }
            Work::Conv(shape, map, activation) => {
                let patches = backend.patches(shape, copies * images, input(0))?;
                let batch = self.batch(images * node.pixels, shared);
                let view = backend.view(&patches);
                let (before, after) = match activation {
                    Some(activation) => {
                        let (before, after) = backend.linear_activated((map, *activation), batch, view, theta)?;
                        (Some(before), after)
                    }
                    None => (None, backend.linear(map, batch, view, theta)?),
                };
                let (before, patches) = (before.filter(|_| pass.keep), pass.keep.then_some(patches));
                Value::Own(Own { before, patches, ..Own::new(after) })
            }
            Work::Activation(activation) => own(backend.activate(*activation, input(0))?),
            Work::BatchNorm(norm) => {
                let batch = self.batch(images * node.pixels, false);
                let (after, statistics, moved) = backend.batch_norm(norm, batch, input(0), theta, self.training)?;
                Value::Own(Own { statistics: Some(statistics), moved, ..Own::new(after) })
            }
            Work::Add => {
                let mut sum = backend.copy(input(0))?;
                backend.add(&mut sum, input(1))?;
                own(sum)
            }
            Work::Pool(pooling, shape) => {
                let sizes = ImageSizes { images: copies * images, channels: node.channels };
                own(backend.pool((*pooling, shape), sizes, input(0))?)
            }
            Work::Flatten => {
                let from = &self.nodes[node.inputs[0]];
                own(backend.transpose([copies * images, from.pixels, from.channels], input(0))?)
            }
        })
    }

    /// Takes one node's gradient to its inputs and parameters.
    fn step_backward<B: Backend>(
        &self,
        pass: Pass<'_, B>,
        at: usize,
        (saved, x): (&Saved<B>, B::View<'_>),
        gradients: &mut [Option<B::Buffer>],
        gradient: &mut B::Wide,
    ) -> weft_ops::Result<()> {
        let (backend, theta) = (pass.backend, pass.theta);
        let node = &self.nodes[at];
        let images = pass.rows / self.networks;
        let Some(mut dy) = gradients[at].take() else { return Ok(()) };
        let input = |i: usize| Self::view(backend, &saved.values, node.inputs[i], B::shorten(x));
        let wanted = node.inputs.first().is_some_and(|&i| !self.nodes[i].of_inputs);
        let (before, patches) = match &saved.values[at] {
            Value::Own(own) => (own.before.as_ref(), own.patches.as_ref()),
            _ => (None, None),
        };
        let dx = match &node.work {
            Work::Input => return Ok(()),
            Work::Same | Work::Done => Some(dy),
            Work::Linear(map) => {
                let batch = self.batch(images, false);
                backend.linear_backward((map, wanted), batch, input(0), theta, backend.view(&dy), gradient)?
            }
            Work::Activated(map, activation) => {
                if let Some(before) = before {
                    backend.activate_backward(*activation, backend.view(before), &mut dy)?;
                }
                let batch = self.batch(images, false);
                backend.linear_backward((map, wanted), batch, input(0), theta, backend.view(&dy), gradient)?
            }
            Work::Conv(shape, map, activation) => {
                if let (Some(activation), Some(before)) = (activation, before) {
                    backend.activate_backward(*activation, backend.view(before), &mut dy)?;
                }
                let Some(patches) = patches else { return Ok(()) };
                let batch = self.batch(images * node.pixels, false);
                let view = backend.view(patches);
                let d = backend.linear_backward((map, wanted), batch, view, theta, backend.view(&dy), gradient)?;
                d.map(|d| backend.patches_backward(shape, pass.rows, backend.view(&d))).transpose()?
            }
            Work::Activation(activation) => {
                backend.activate_backward(*activation, input(0), &mut dy)?;
                Some(dy)
            }
            Work::BatchNorm(norm) => {
                let Value::Own(Own { statistics: Some(statistics), .. }) = &saved.values[at] else { return Ok(()) };
                let (batch, dy) = (self.batch(images * node.pixels, false), backend.view(&dy));
                Some(backend.batch_norm_backward(norm, batch, input(0), statistics, theta, self.training, dy, gradient)?)
            }
            Work::Add => {
                match &mut gradients[node.inputs[1]] {
                    Some(gradient) => backend.add(gradient, backend.view(&dy))?,
                    none => *none = Some(backend.copy(backend.view(&dy))?),
                }
                Some(dy)
            }
            Work::Pool(pooling, shape) => {
                let sizes = ImageSizes { images: pass.rows, channels: node.channels };
                wanted.then(|| backend.pool_backward((*pooling, shape), sizes, input(0), backend.view(&dy))).transpose()?
            }
            Work::Flatten => {
                let from = &self.nodes[node.inputs[0]];
                Some(backend.transpose([pass.rows, from.channels, from.pixels], backend.view(&dy))?)
            }
        };
        match dx {
            Some(dx) => accumulate(backend, &mut gradients[node.inputs[0]], dx),
            None => Ok(()),
        }
    }

    /// Runs the networks, and shows the values of each node as they come.
    fn forward_seen<B: Backend>(
        &self,
        pass: Pass<'_, B>,
        x: B::View<'_>,
        mut seen: impl FnMut(usize, B::View<'_>) -> weft_ops::Result<()>,
    ) -> weft_ops::Result<(B::Buffer, Option<Saved<B>>)> {
        let mut values: Vec<Value<B>> = Vec::with_capacity(self.nodes.len());
        for at in 0..self.nodes.len() {
            let value = self.step(pass, at, &values, x)?;
            values.push(value);
            seen(at, Self::view(pass.backend, &values, at, B::shorten(x)))?;
            let done = values.iter_mut().zip(&*self.nodes).filter(|(_, node)| !pass.keep && node.until == at);
            for (value, _) in done {
                *value = Value::Input;
            }
        }
        let holder = Self::holder(&values, self.nodes.len() - 1);
        let out = match &mut values[holder] {
            Value::Own(own) => own.after.take(),
            _ => None,
        };
        let Some(out) = out else { return Err(candle_core::Error::Msg("a network without an op".to_owned()).into()) };
        Ok((out, pass.keep.then_some(Saved { values })))
    }
}

impl Network for LockStep {
    type Saved<B: Backend + 'static> = Saved<B>;

    fn num_parameters(&self) -> usize {
        self.networks * self.architecture.num_parameters()
    }

    fn features(&self) -> [usize; 2] {
        [self.architecture.num_inputs(), self.architecture.num_outputs()]
    }

    fn conditioning(&self) -> Option<[usize; 2]> {
        None
    }

    fn rows_at_once(&self) -> usize {
        self.networks
    }

    /// `pass.rows` are the rows of all outputs; where networks share their inputs, these have fewer.
    fn forward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        x: B::View<'_>,
        _: Option<B::View<'_>>,
    ) -> weft_ops::Result<Ran<B, Self>> {
        self.forward_seen(pass, x, |_, _| Ok(()))
    }

    /// There is no gradient of the inputs, which are data: what is returned for it is a single 0.
    fn backward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        (x, _): (B::View<'_>, Option<B::View<'_>>),
        mut saved: Saved<B>,
        dy: B::View<'_>,
        gradient: &mut B::Wide,
    ) -> weft_ops::Result<(B::Buffer, Option<B::Buffer>)> {
        let backend = pass.backend;
        let last = self.nodes.len() - 1;
        let mut gradients: Vec<Option<B::Buffer>> = self.nodes.iter().map(|_| None).collect();
        gradients[last] = Some(backend.copy(dy)?);
        for at in (0..=last).rev() {
            self.step_backward(pass, at, (&saved, x), &mut gradients, gradient)?;
            // Whoever read these values has had them: their memory holds gradients next.
            saved.values[at] = Value::Input;
        }
        // Inputs are data: nobody asks for their gradient.
        Ok((backend.zeros(1)?, None))
    }
}

/// Adds to a node's gradient.
fn accumulate<B: Backend>(backend: &B, to: &mut Option<B::Buffer>, from: B::Buffer) -> weft_ops::Result<()> {
    if let Some(to) = to {
        return backend.add(to, backend.view(&from));
    }
    *to = Some(from);
    Ok(())
}

/// What lock step does at a step of the engine's plan, if it can.
fn work_of(step: &Step) -> Option<Work> {
    let linear = |weight: &Range<usize>, bias: &Option<Range<usize>>, inputs: usize| Linear {
        weight: weight.start,
        bias: bias.as_ref().map(|bias| bias.start),
        inputs,
        outputs: weight.len() / inputs,
        input_major: false,
    };
    Some(match step {
        Step::Input => Work::Input,
        Step::Linear { weight, bias, width_in } => Work::Linear(linear(weight, bias, *width_in)),
        Step::Conv { weight, bias, shape } => Work::Conv(*shape, linear(weight, bias, shape.taps()), None),
        Step::Activation(activation) => Work::Activation(*activation),
        Step::Add => Work::Add,
        Step::Pool(pooling, shape) => Work::Pool(*pooling, *shape),
        Step::GlobalPool(shape) => Work::Pool(Pooling::Average, *shape),
        Step::Flatten => Work::Flatten,
        Step::BatchNorm(norm) => Work::BatchNorm(BatchNorm {
            width: norm.gain.len(),
            epsilon: f64::from(norm.epsilon),
            gain: norm.gain.start,
            bias: norm.bias.start,
            mean: norm.mean.start,
            variance: norm.variance.start,
        }),
        _ => return None,
    })
}

fn unsupported(architecture: &Architecture, node: usize) -> Error {
    let (op, by) = (architecture.nodes()[node].op.name(), "the lock step of a GPU (use `device = \"cpu\"`)");
    Error::Unsupported { architecture: architecture.name().to_owned(), node, op, by }
}

#[cfg(test)]
mod tests;
