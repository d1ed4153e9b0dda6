//! The architectures that people have, by their sizes.
//!
//! A family is a set of sizes; [`Family::build`] turns them into the op graph. Tensor names are those of the
//! checkpoints that people publish: torchvision's for residual networks, Hugging Face's for BERT and Llama; where a
//! published layout is fused or transposed (GPT-2, timm's ViT), the parts have names of their own and readers split it.

mod automaton;
mod cnn;
mod lora;
mod resnet;
mod transformer;

pub use automaton::Automaton;
pub use cnn::{Cnn, ConvLayer, Pool};
pub use lora::{Lora, LoraModule};
pub use resnet::ResNet;
pub use transformer::{Bert, Gpt, Llama, Vit};

use crate::{Activation, Architecture, Error, Result};

/// A multi-layer perceptron.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// From the input to the output.
    pub widths: Vec<usize>,
    /// Between the linear maps.
    pub activation: Activation,
}

/// A family with its sizes.
#[derive(Debug, Clone, PartialEq)]
pub enum Family {
    /// Linear maps and an activation.
    Mlp(Mlp),
    /// Convolutions, pools and linear maps.
    Cnn(Cnn),
    /// A residual network with batch norm (He et al. 2016).
    ResNet(ResNet),
    /// A vision transformer (Dosovitskiy et al. 2021).
    Vit(Vit),
    /// A post-norm text encoder (Devlin et al. 2019).
    Bert(Bert),
    /// A pre-norm causal decoder with learned positions (Radford et al. 2019).
    Gpt(Gpt),
    /// A causal decoder with RMS norm, rotary positions, grouped queries and `SwiGLU` (Touvron et al. 2023).
    Llama(Llama),
    /// A texture automaton (Mordvintsev & Niklasson 2021).
    Automaton(Automaton),
    /// Low-rank updates of the linear maps of another network (Hu et al. 2022).
    Lora(Lora),
}

impl Family {
    /// The names of all families.
    pub const NAMES: [&str; 9] = ["mlp", "cnn", "resnet", "vit", "bert", "gpt", "llama", "automaton", "lora"];

    /// The family's name in files and messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mlp(_) => "mlp",
            Self::Cnn(_) => "cnn",
            Self::ResNet(_) => "resnet",
            Self::Vit(_) => "vit",
            Self::Bert(_) => "bert",
            Self::Gpt(_) => "gpt",
            Self::Llama(_) => "llama",
            Self::Automaton(_) => "automaton",
            Self::Lora(_) => "lora",
        }
    }

    /// Builds the op graph.
    ///
    /// # Errors
    /// [`Error::Size`] for a size that is out of range or does not fit the others, and those of [`Architecture::new`].
    pub fn build(&self, name: &str) -> Result<Architecture> {
        match self {
            Self::Mlp(f) => Architecture::mlp(name, &f.widths, f.activation),
            Self::Cnn(f) => f.build(name),
            Self::ResNet(f) => f.build(name),
            Self::Vit(f) => f.build(name),
            Self::Bert(f) => f.build(name),
            Self::Gpt(f) => f.build(name),
            Self::Llama(f) => f.build(name),
            Self::Automaton(f) => f.build(name),
            Self::Lora(f) => f.build(name),
        }
    }
}

/// The largest number of layers or blocks: graphs are built before their weights are counted.
const MAX_DEPTH: usize = 4096;
/// The largest width of anything, so that products of two cannot overflow.
const MAX_WIDTH: usize = 1 << 24;

/// Checks that a size is at least 1 and at most `limit`.
fn check(family: &'static str, size: &'static str, got: usize, limit: usize) -> Result<usize> {
    if (1..=limit).contains(&got) {
        return Ok(got);
    }
    Err(Error::Size { family, size, expected: "at least 1, and not absurd", got })
}

/// Checks that a size is a multiple of another.
fn check_multiple(family: &'static str, size: &'static str, got: usize, of: usize) -> Result<usize> {
    if of > 0 && got.is_multiple_of(of) {
        return Ok(got / of);
    }
    Err(Error::Size { family, size, expected: "a multiple of the number of heads, groups or patches that divide it", got })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RopePairs, Window};

    fn count(family: &Family) -> usize {
        family.build("x").unwrap().num_parameters()
    }

    #[test]
    fn published_sizes() {
        // torchvision's resnet18 has 11,689,512 parameters and 9,620 running statistics, of which 20 count batches.
        assert_eq!(count(&Family::ResNet(ResNet::resnet18([3, 224, 224], 1000))), 11_689_512 + 9_600);
        // ResNet-20 on CIFAR-10: 272,474 with projection shortcuts (He et al. 2016, option B), and 1,568 statistics.
        assert_eq!(count(&Family::ResNet(ResNet::resnet20([3, 32, 32], 10))), 272_474 + 2 * 784);
        let vit =
            Vit { image: [3, 224, 224], patch: 16, d_model: 768, depth: 12, num_heads: 12, d_hidden: 3072, num_classes: 1000 };
        assert_eq!(count(&Family::Vit(vit)), 86_567_656);
        let gpt = Gpt { vocabulary: 50_257, length: 1024, d_model: 768, depth: 12, num_heads: 12, d_hidden: 3072, tied: true };
        assert_eq!(count(&Family::Gpt(gpt)), 124_439_808);
        let minilm = Bert {
            vocabulary: 30_522,
            length: 512,
            segments: 2,
            d_model: 384,
            depth: 6,
            num_heads: 12,
            d_hidden: 1536,
            pooler: true,
        };
        assert_eq!(count(&Family::Bert(minilm)), 22_713_216);
        let stories = Llama {
            vocabulary: 512,
            length: 512,
            d_model: 64,
            depth: 5,
            num_heads: 8,
            num_kv_heads: 4,
            d_hidden: 172,
            tied: true,
            theta: 10_000.0,
            pairs: RopePairs::Interleaved,
            epsilon: 1e-5,
        };
        assert_eq!(count(&Family::Llama(stories)), 260_032);
        let hexells = Automaton { channels: 12, width: 96, image: [16, 16] };
        assert_eq!(count(&Family::Automaton(hexells)), 5_868);
    }

    #[test]
    fn the_zoo_cnn() {
        let conv = |out, size, pool| ConvLayer { out, window: Window::square(size, 1, 0), batch_norm: false, pool };
        let two = Some(Pool { window: Window::square(2, 2, 0), average: false });
        let zoo = Cnn {
            image: [1, 28, 28],
            layers: vec![conv(8, 5, two), conv(6, 5, two), conv(4, 2, None)],
            hidden: vec![20],
            num_classes: 10,
            activation: Activation::Gelu,
        };
        assert_eq!(count(&Family::Cnn(zoo)), 2_464);
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let vit = Vit { image: [3, 32, 32], patch: 5, d_model: 8, depth: 1, num_heads: 2, d_hidden: 16, num_classes: 10 };
        assert!(Family::Vit(vit.clone()).build("v").unwrap_err().to_string().contains("`patch`"));
        let vit = Vit { patch: 4, num_heads: 3, ..vit };
        assert!(Family::Vit(vit).build("v").unwrap_err().to_string().contains("`d-model`"));
        let lora = Lora { modules: vec![LoraModule { name: "q".into(), fan_in: 4, fan_out: 4, rank: 0, scaling: 1.0 }] };
        assert!(Family::Lora(lora).build("l").unwrap_err().to_string().contains("`rank`"));
    }
}
