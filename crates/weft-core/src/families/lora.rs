//! Low-rank updates of the linear maps of another network.

use super::{MAX_DEPTH, MAX_WIDTH, check};
use crate::{Architecture, GraphBuilder, Op, Result};

/// A set of low-rank updates `ΔW = s·B·A`, one a module of the base network (Hu et al. 2022).
///
/// What the set computes is all its updates: the graph maps the modules' inputs, one after the other, to `ΔW·x` of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The updated modules.
    pub modules: Vec<LoraModule>,
}

/// The update of one linear map.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraModule {
    /// The module's name in the base network; tensors are `{name}.lora_A.weight` and `{name}.lora_B.weight`.
    pub name: String,
    /// Inputs of the linear map.
    pub fan_in: usize,
    /// Its outputs.
    pub fan_out: usize,
    /// The rank, `r`.
    pub rank: usize,
    /// The factor `s`: `alpha / r`, or `alpha / √r` with rank-stabilized scaling.
    pub scaling: f64,
}

impl Lora {
    pub(super) fn build(&self, name: &str) -> Result<Architecture> {
        check("lora", "modules", self.modules.len(), 64 * MAX_DEPTH)?;
        for module in &self.modules {
            check("lora", "rank", module.rank, MAX_WIDTH)?;
            check("lora", "fan-in", module.fan_in, MAX_WIDTH)?;
            check("lora", "fan-out", module.fan_out, MAX_WIDTH)?;
        }
        let total = self.modules.iter().map(|m| m.fan_in).sum();
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![total] });
        let (mut start, mut updates) = (0, Vec::with_capacity(self.modules.len()));
        for module in &self.modules {
            let x = graph.push(Op::Slice { start, len: module.fan_in }, &[0]);
            let low = graph.linear(x, &format!("{}.lora_A", module.name), [module.rank, module.fan_in], false);
            let update = graph.linear(low, &format!("{}.lora_B", module.name), [module.fan_out, module.rank], false);
            updates.push(graph.push(Op::Scale { factor: module.scaling }, &[update]));
            start += module.fan_in;
        }
        if updates.len() > 1 {
            graph.push(Op::Concat, &updates);
        }
        graph.build(name)
    }
}
