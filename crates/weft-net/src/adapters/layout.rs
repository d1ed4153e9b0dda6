//! Which modules of a base have low-rank updates, and where their factors lie in an adapter's row.

use super::base::{Base, Site};
use crate::{Error, Result};
use std::sync::Arc;
use weft_core::families::{Family, Lora, LoraModule};
use weft_core::{Architecture, Op};
use weft_ops::backend::LowRank;

/// The low-rank updates of a base's linear modules: a network architecture of the family `lora`, and what each part of it updates.
#[derive(Debug, Clone)]
pub struct AdapterLayout {
    architecture: Arc<Architecture>,
    updates: Vec<Update>,
}

/// One module's update.
#[derive(Debug, Clone)]
pub(super) struct Update {
    pub(super) block: usize,
    pub(super) site: Site,
    pub(super) factors: LowRank,
}

/// Which modules are updated, and by how much.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Endings of modules' names, such as `q_proj`: each takes the modules whose last part it is.
    pub modules: Vec<String>,
    /// The rank.
    pub rank: usize,
    /// The numerator of the scale `alpha / rank`.
    pub alpha: f64,
}

impl LoraConfig {
    /// Query and value of every block, as Hu et al. (2022) recommend, with the scale 2.
    #[must_use]
    pub fn query_and_value(base: &Base, rank: usize) -> Self {
        let names: &[&str] = if base.is_decoder() { &["q_proj", "v_proj"] } else { &["query", "value"] };
        Self { modules: names.iter().map(|&name| name.to_owned()).collect(), rank, alpha: 2.0 * rank as f64 }
    }
}

impl AdapterLayout {
    /// Updates of all modules that the endings name.
    ///
    /// # Errors
    /// An ending that no module of the base has, no ending at all, or a rank or scale that is none.
    pub fn new(base: &Base, config: &LoraConfig) -> Result<Self> {
        let refuse = |what: String, reason: String| Error::Adapter { what, base: base.architecture().name().to_owned(), reason };
        let is_of = |name: &str, ending: &str| name == ending || name.ends_with(&format!(".{ending}"));
        for ending in &config.modules {
            if !base.modules.iter().any(|module| is_of(&module.name, ending)) {
                let known: Vec<&str> = base.modules.iter().filter(|m| m.block == 0).map(|m| m.name.as_str()).collect();
                return Err(refuse(
                    format!("module `{ending}`"),
                    format!("it has none of this name; of block 0 it has {}", known.join(", ")),
                ));
            }
        }
        let scaling = config.alpha / config.rank.max(1) as f64;
        if !scaling.is_finite() {
            return Err(refuse("`alpha`".to_owned(), format!("it must be a number, got {}", config.alpha)));
        }
        let chosen = base.modules.iter().filter(|module| config.modules.iter().any(|ending| is_of(&module.name, ending)));
        let modules: Vec<LoraModule> = chosen
            .map(|module| {
                let [fan_out, fan_in] = module.shape;
                LoraModule { name: module.name.clone(), fan_in, fan_out, rank: config.rank, scaling }
            })
            .collect();
        let name = format!("{}-lora", base.architecture().name());
        Self::of(base, Arc::new(Family::Lora(Lora { modules }).build(&name)?))
    }

    /// The updates that an architecture of the family `lora` declares, such as that of an imported adapter.
    ///
    /// # Errors
    /// A tensor that is no factor of an update, or an update of a module that the base does not have or that has another shape there.
    pub fn of(base: &Base, architecture: Arc<Architecture>) -> Result<Self> {
        let refuse = |what: &str, reason: String| Error::Adapter {
            what: format!("`{what}`"),
            base: base.architecture().name().to_owned(),
            reason,
        };
        let scales: Vec<f64> = architecture
            .nodes()
            .iter()
            .filter_map(|node| if let Op::Scale { factor } = node.op { Some(factor) } else { None })
            .collect();
        let tensors = architecture.tensors();
        if !tensors.len().is_multiple_of(2) || scales.len() != tensors.len() / 2 {
            return Err(refuse(architecture.name(), "it is no set of low-rank updates".to_owned()));
        }
        let mut updates = Vec::with_capacity(scales.len());
        for (pair, &scale) in tensors.chunks_exact(2).zip(&scales) {
            let [a, b] = pair else { continue };
            let name = a.name.strip_suffix(".lora_A.weight");
            let Some(name) = name.filter(|name| b.name.strip_suffix(".lora_B.weight") == Some(*name)) else {
                return Err(refuse(&a.name, "it is no factor of a low-rank update".to_owned()));
            };
            let module = base.modules.iter().find(|module| module.name == name);
            let module = module.ok_or_else(|| refuse(name, "it has no such module".to_owned()))?;
            let ([outputs, inputs], rank) = (module.shape, a.shape[0]);
            if a.shape != [rank, inputs] || b.shape != [outputs, rank] {
                let reason = format!("there it maps {inputs} to {outputs} features, not {:?} and {:?}", a.shape, b.shape);
                return Err(refuse(name, reason));
            }
            let columns = base.blocks[module.block].maps[module.site as usize].outputs;
            let [a, b] = [a.range().start, b.range().start];
            let factors = LowRank { a, b, inputs, outputs, rank, scale, columns, first: module.first };
            updates.push(Update { block: module.block, site: module.site, factors });
        }
        Ok(Self { architecture, updates })
    }

    /// The same updates in a base, by their modules' names.
    pub(super) fn on(self, base: &Base) -> Result<Self> {
        Self::of(base, self.architecture)
    }

    /// The architecture of an adapter: two factors a module, `[rank, in]` and `[out, rank]`.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// The number of weights of an adapter, `P`.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.architecture.num_parameters()
    }

    /// The updates at a map.
    pub(super) fn at(&self, block: usize, site: Site) -> impl Iterator<Item = &LowRank> {
        self.updates.iter().filter(move |update| update.block == block && update.site == site).map(|update| &update.factors)
    }

    /// The first block that has one.
    pub(super) fn first_block(&self) -> usize {
        self.updates.iter().map(|update| update.block).min().unwrap_or(0)
    }

    /// All updates.
    pub(super) fn updates(&self) -> &[Update] {
        &self.updates
    }
}
