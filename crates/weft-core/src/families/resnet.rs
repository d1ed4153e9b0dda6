//! Residual networks of basic blocks (He et al. 2016), with torchvision's names.

use super::{MAX_DEPTH, MAX_WIDTH, check};
use crate::{Activation, Architecture, GraphBuilder, Op, Result, Window};

/// A residual network: a stem, stages of basic blocks of growing width, a mean over positions and a linear map.
///
/// The first block of every stage but the first halves the image; where width or image change, the shortcut is a 1×1
/// convolution with batch norm (option B).
#[derive(Debug, Clone, PartialEq)]
pub struct ResNet {
    /// Channels, height and width of the input.
    pub image: [usize; 3],
    /// The stem's kernel: 7×7 with stride 2 for large images, 3×3 for small ones.
    pub stem: Window,
    /// Whether a 3×3 max pool with stride 2 follows the stem.
    pub stem_pool: bool,
    /// The width of each stage.
    pub widths: Vec<usize>,
    /// The blocks of each stage.
    pub blocks: usize,
    /// The number of outputs.
    pub num_classes: usize,
}

impl ResNet {
    /// `ResNet-18`, 11.2M parameters, for large images; for small ones set the stem to `Window::square(3, 1, 1)` without a pool.
    #[must_use]
    pub fn resnet18(image: [usize; 3], num_classes: usize) -> Self {
        let widths = vec![64, 128, 256, 512];
        Self { image, stem: Window::square(7, 2, 3), stem_pool: true, widths, blocks: 2, num_classes }
    }

    /// `ResNet-20` for small images (He et al. 2016, Section 4.2).
    #[must_use]
    pub fn resnet20(image: [usize; 3], num_classes: usize) -> Self {
        Self { image, stem: Window::square(3, 1, 1), stem_pool: false, widths: vec![16, 32, 64], blocks: 3, num_classes }
    }

    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        check("resnet", "widths", self.widths.len(), MAX_DEPTH)?;
        // All of them, not only those of one stage: each is built before its weights are counted.
        check("resnet", "blocks", self.blocks.saturating_mul(self.widths.len()), MAX_DEPTH)?;
        check("resnet", "num-classes", self.num_classes, MAX_WIDTH)?;
        self.widths.iter().try_for_each(|&width| check("resnet", "widths", width, MAX_WIDTH).map(|_| ()))?;
        let mut graph = GraphBuilder::new(Op::Input { shape: self.image.to_vec() });
        let mut x = graph.conv2d(0, "conv1", [self.widths[0], self.image[0]], self.stem, false);
        x = graph.batch_norm(x, "bn1", self.widths[0]);
        x = graph.activation(x, Activation::Relu);
        if self.stem_pool {
            x = graph.push(Op::MaxPool(Window::square(3, 2, 1)), &[x]);
        }
        let mut channels = self.widths[0];
        for (stage, &width) in self.widths.iter().enumerate() {
            for block in 0..self.blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = basic_block(&mut graph, x, &format!("layer{}.{block}", stage + 1), [width, channels], stride);
                channels = width;
            }
        }
        x = graph.push(Op::GlobalAvgPool, &[x]);
        graph.linear(x, "fc", [self.num_classes, channels], true);
        graph.build(name)
    }
}

fn basic_block(graph: &mut GraphBuilder, x: usize, name: &str, [out, into]: [usize; 2], stride: usize) -> usize {
    let mut y = graph.conv2d(x, &format!("{name}.conv1"), [out, into], Window::square(3, stride, 1), false);
    y = graph.batch_norm(y, &format!("{name}.bn1"), out);
    y = graph.activation(y, Activation::Relu);
    y = graph.conv2d(y, &format!("{name}.conv2"), [out, out], Window::square(3, 1, 1), false);
    y = graph.batch_norm(y, &format!("{name}.bn2"), out);
    let shortcut = if stride == 1 && out == into {
        x
    } else {
        let projected = graph.conv2d(x, &format!("{name}.downsample.0"), [out, into], Window::square(1, stride, 0), false);
        graph.batch_norm(projected, &format!("{name}.downsample.1"), out)
    };
    let sum = graph.add(y, shortcut);
    graph.activation(sum, Activation::Relu)
}
