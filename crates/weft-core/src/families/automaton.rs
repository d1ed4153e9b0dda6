//! Texture automata: one small network in every cell of a grid (Mordvintsev & Niklasson 2021).

use super::{MAX_WIDTH, check};
use crate::{Architecture, GraphBuilder, Op, Result, Window};

/// One step of a texture automaton on a torus, with all cells updated:
/// `s' = clip(s + W₁·clip(W₀·[s, sobel_x s, sobel_y s, laplace s] + b₀, 0, 2) + b₁, −2, 2)`, filters divided by 8.
#[derive(Debug, Clone, PartialEq)]
pub struct Automaton {
    /// Channels of a cell's state; the first three are its color.
    pub channels: usize,
    /// Hidden units of a cell.
    pub width: usize,
    /// Height and width of the grid that the step is shown on.
    pub image: [usize; 2],
}

/// The cell itself, its horizontal and vertical gradient and its Laplacian.
const PERCEPTION: [[f32; 9]; 4] = [
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    [-0.125, 0.0, 0.125, -0.25, 0.0, 0.25, -0.125, 0.0, 0.125],
    [-0.125, -0.25, -0.125, 0.0, 0.0, 0.0, 0.125, 0.25, 0.125],
    [0.125, 0.25, 0.125, 0.25, -1.5, 0.25, 0.125, 0.25, 0.125],
];

impl Automaton {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        check("automaton", "channels", self.channels, MAX_WIDTH)?;
        check("automaton", "width", self.width, MAX_WIDTH)?;
        let cell = Window::square(1, 1, 0);
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![self.channels, self.image[0], self.image[1]] });
        let mut x = graph.push(Op::Perception { kernels: PERCEPTION.to_vec() }, &[0]);
        x = graph.conv2d(x, "layers.0", [self.width, PERCEPTION.len() * self.channels], cell, true);
        x = graph.push(Op::Clip { min: 0.0, max: 2.0 }, &[x]);
        x = graph.conv2d(x, "layers.1", [self.channels, self.width], cell, true);
        let sum = graph.add(0, x);
        graph.push(Op::Clip { min: -2.0, max: 2.0 }, &[sum]);
        graph.build(name)
    }
}
