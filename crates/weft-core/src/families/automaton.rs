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

impl Automaton {
    /// What a cell sees: itself, its horizontal and vertical gradient and its Laplacian, as kernels row by row.
    pub const PERCEPTION: [[f32; 9]; 4] = [
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [-0.125, 0.0, 0.125, -0.25, 0.0, 0.25, -0.125, 0.0, 0.125],
        [-0.125, -0.25, -0.125, 0.0, 0.0, 0.0, 0.125, 0.25, 0.125],
        [0.125, 0.25, 0.125, 0.25, -1.5, 0.25, 0.125, 0.25, 0.125],
    ];
    /// What a hidden unit is clipped to.
    pub const HIDDEN: [f64; 2] = [0.0, 2.0];
    /// What a cell's state is clipped to.
    pub const STATE: [f64; 2] = [-2.0, 2.0];

    /// The automaton that an architecture is a step of, whatever its name; none if it is something else.
    ///
    /// # Examples
    /// ```
    /// use weft_core::families::{Automaton, Family};
    /// let automaton = Automaton { channels: 12, width: 96, image: [8, 8] };
    /// let architecture = Family::Automaton(automaton.clone()).build("texture").unwrap();
    /// assert_eq!(Automaton::of(&architecture), Some(automaton));
    /// ```
    #[must_use]
    pub fn of(architecture: &Architecture) -> Option<Self> {
        let &[channels, height, width] = &architecture.shapes()[0][..] else { return None };
        let hidden = *architecture.tensors().first()?.shape.first()?;
        let automaton = Self { channels, width: hidden, image: [height, width] };
        let built = automaton.build(architecture.name()).ok()?;
        built.same_graph(architecture).then_some(automaton)
    }

    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        check("automaton", "channels", self.channels, MAX_WIDTH)?;
        check("automaton", "width", self.width, MAX_WIDTH)?;
        let cell = Window::square(1, 1, 0);
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![self.channels, self.image[0], self.image[1]] });
        let mut x = graph.push(Op::Perception { kernels: Self::PERCEPTION.to_vec() }, &[0]);
        x = graph.conv2d(x, "layers.0", [self.width, Self::PERCEPTION.len() * self.channels], cell, true);
        x = graph.push(Op::Clip { min: Self::HIDDEN[0], max: Self::HIDDEN[1] }, &[x]);
        x = graph.conv2d(x, "layers.1", [self.channels, self.width], cell, true);
        let sum = graph.add(0, x);
        graph.push(Op::Clip { min: Self::STATE[0], max: Self::STATE[1] }, &[sum]);
        graph.build(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    #[test]
    fn other_networks_are_no_automata() {
        let mlp = Architecture::mlp("m", &[3, 2], Activation::Relu).unwrap();
        assert_eq!(Automaton::of(&mlp), None);
        // The same tensors, clipped elsewhere.
        let automaton = Automaton { channels: 4, width: 8, image: [4, 4] };
        let built = automaton.build("a").unwrap();
        let mut nodes = built.nodes().to_vec();
        for node in &mut nodes {
            if let Op::Clip { max, .. } = &mut node.op {
                *max = 1.0;
            }
        }
        let tensors = built.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        assert_eq!(Automaton::of(&Architecture::new("a", tensors, nodes).unwrap()), None);
    }
}
