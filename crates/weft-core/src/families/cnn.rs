//! Convolutions, pools and linear maps.

use super::{MAX_DEPTH, MAX_WIDTH, check};
use crate::{Activation, Architecture, GraphBuilder, Op, Result, Window};

/// A small convolutional classifier: `layers` (convolution, batch norm, activation, pool), flattened, then linear maps.
#[derive(Debug, Clone, PartialEq)]
pub struct Cnn {
    /// Channels, height and width of the input.
    pub image: [usize; 3],
    /// The convolutions, in order.
    pub layers: Vec<ConvLayer>,
    /// Widths of hidden linear maps.
    pub hidden: Vec<usize>,
    /// The number of outputs.
    pub num_classes: usize,
    /// After each convolution and each hidden linear map.
    pub activation: Activation,
}

/// One convolution with what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvLayer {
    /// Its channels.
    pub out: usize,
    /// Its kernel.
    pub window: Window,
    /// Whether batch norm stands before the activation; the convolution has no bias then.
    pub batch_norm: bool,
    /// A pool after the activation.
    pub pool: Option<Pool>,
}

/// A pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its window.
    pub window: Window,
    /// The mean instead of the maximum.
    pub average: bool,
}

impl Cnn {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        check("cnn", "layers", self.layers.len(), MAX_DEPTH)?;
        let mut graph = GraphBuilder::new(Op::Input { shape: self.image.to_vec() });
        let (mut x, mut channels) = (0, self.image[0]);
        for (i, layer) in self.layers.iter().enumerate() {
            check("cnn", "out", layer.out, MAX_WIDTH)?;
            x = graph.conv2d(x, &format!("convs.{i}"), [layer.out, channels], layer.window, !layer.batch_norm);
            if layer.batch_norm {
                x = graph.batch_norm(x, &format!("norms.{i}"), layer.out);
            }
            x = graph.activation(x, self.activation);
            if let Some(pool) = layer.pool {
                x = graph.push(if pool.average { Op::AvgPool(pool.window) } else { Op::MaxPool(pool.window) }, &[x]);
            }
            channels = layer.out;
        }
        // The flattened width is known once the shapes are: the graph so far is checked as an architecture of its own.
        let shapes = graph.clone().build(name)?.shapes()[x].clone();
        let mut width = shapes.iter().product();
        x = graph.push(Op::Flatten, &[x]);
        for (i, &hidden) in self.hidden.iter().enumerate() {
            check("cnn", "hidden", hidden, MAX_WIDTH)?;
            x = graph.linear(x, &format!("layers.{i}"), [hidden, width], true);
            x = graph.activation(x, self.activation);
            width = hidden;
        }
        check("cnn", "num-classes", self.num_classes, MAX_WIDTH)?;
        graph.linear(x, &format!("layers.{}", self.hidden.len()), [self.num_classes, width], true);
        graph.build(name)
    }
}
