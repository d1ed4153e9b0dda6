//! A tiny network of every family, small enough for dense Jacobians.

use std::sync::Arc;
use weft_core::families::{Automaton, Bert, Cnn, ConvLayer, Family, Gpt, Llama, Lora, LoraModule, Mlp, Pool, ResNet, Vit};
use weft_core::{Activation, Architecture, RopePairs, Window};

/// Tiny instances of every family, with names that say what is special about each.
///
/// # Panics
/// Never: the sizes fit.
#[must_use]
pub fn tiny_families() -> Vec<Arc<Architecture>> {
    let build = |(name, family): (&str, Family)| Arc::new(family.build(name).expect("the sizes fit"));
    tiny_family_sizes().into_iter().map(build).collect()
}

/// The sizes of [`tiny_families`].
#[must_use]
pub fn tiny_family_sizes() -> Vec<(&'static str, Family)> {
    let mlp = |activation| Family::Mlp(Mlp { widths: vec![4, 5, 3, 2], activation });
    let conv = |out, size, batch_norm, pool| ConvLayer { out, window: Window::square(size, 1, 0), batch_norm, pool };
    let pool = |average| Some(Pool { window: Window::square(2, 2, 0), average });
    let cnn = |batch_norm, average| {
        Family::Cnn(Cnn {
            image: [1, 6, 6],
            layers: vec![conv(3, 3, batch_norm, pool(average)), conv(2, 1, batch_norm, None)],
            hidden: vec![3],
            num_classes: 2,
            activation: Activation::Relu,
        })
    };
    let resnet = Family::ResNet(ResNet {
        image: [1, 4, 4],
        stem: Window::square(3, 1, 1),
        stem_pool: false,
        widths: vec![2, 3],
        blocks: 1,
        num_classes: 2,
    });
    let vit = Vit { image: [1, 4, 4], patch: 2, d_model: 4, depth: 2, num_heads: 2, d_hidden: 3, num_classes: 2 };
    let bert = |pooler| {
        Family::Bert(Bert { vocabulary: 9, length: 3, segments: 1, d_model: 4, depth: 1, num_heads: 2, d_hidden: 3, pooler })
    };
    let gpt = |tied| Family::Gpt(Gpt { vocabulary: 9, length: 3, d_model: 4, depth: 1, num_heads: 2, d_hidden: 3, tied });
    let llama = |tied, num_kv_heads, pairs| {
        Family::Llama(Llama {
            vocabulary: 10,
            length: 3,
            d_model: 8,
            depth: 1,
            num_heads: 2,
            num_kv_heads,
            d_hidden: 3,
            tied,
            theta: 100.0,
            pairs,
            epsilon: 1e-5,
        })
    };
    let module = |name: &str, fan_in, fan_out, rank| LoraModule { name: name.to_owned(), fan_in, fan_out, rank, scaling: 2.0 };
    vec![
        ("mlp-relu", mlp(Activation::Relu)),
        ("mlp-tanh", mlp(Activation::Tanh)),
        ("mlp-gelu", mlp(Activation::Gelu)),
        ("cnn", cnn(false, false)),
        ("cnn-batch-norm", cnn(true, true)),
        ("resnet", resnet),
        ("vit", Family::Vit(vit)),
        ("bert", bert(true)),
        ("bert-without-pooler", bert(false)),
        ("gpt-tied", gpt(true)),
        ("gpt-untied", gpt(false)),
        ("llama-tied", llama(true, 1, RopePairs::Interleaved)),
        ("llama-untied", llama(false, 2, RopePairs::Halves)),
        ("automaton", Family::Automaton(Automaton { channels: 3, width: 4, image: [4, 4] })),
        ("lora", Family::Lora(Lora { modules: vec![module("q", 4, 3, 2), module("v", 3, 5, 1)] })),
    ]
}
