//! Adapters in memory.

use super::{Adapters, Factors, Module, fault, same_modules};
use crate::{Error, Result};

/// Adapters of the same modules, all in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSet {
    modules: Vec<Module>,
    /// Adapter by adapter, module by module.
    factors: Vec<Vec<Factors>>,
}

impl AdapterSet {
    /// Adapters, each with the factors of every module in the modules' order.
    ///
    /// # Errors
    /// [`Error::Factors`] for sizes that are not the module's or values that are not finite, [`Error::Modules`] if an adapter has
    /// another number of modules.
    pub fn new(modules: Vec<Module>, factors: Vec<Vec<Factors>>) -> Result<Self> {
        for (adapter, own) in factors.iter().enumerate() {
            if own.len() != modules.len() {
                let (expected, got) = (format!("{} modules", modules.len()), format!("{} in adapter {adapter}", own.len()));
                return Err(Error::Modules { expected, got });
            }
            let faults = own.iter().zip(&modules).find_map(|(factors, module)| Some((module, fault(factors, module)?)));
            if let Some((module, reason)) = faults {
                return Err(Error::Factors { adapter, module: module.name.clone(), reason });
            }
        }
        Ok(Self { modules, factors })
    }

    /// Brings adapters into memory.
    ///
    /// # Errors
    /// What reading them returns, or [`Error::Factors`].
    pub fn load<A: Adapters + ?Sized>(adapters: &A) -> Result<Self, A::Error> {
        let (n, m) = (adapters.num_adapters(), adapters.modules().len());
        let read = |i: usize| (0..m).map(|at| super::read(adapters, i, at)).collect();
        let factors = (0..n).map(read).collect::<Result<_, _>>()?;
        Ok(Self { modules: adapters.modules().to_vec(), factors })
    }

    /// An adapter's factors, one a module.
    ///
    /// # Panics
    /// If there is no such adapter.
    #[must_use]
    pub fn adapter(&self, adapter: usize) -> &[Factors] {
        &self.factors[adapter]
    }

    /// Adds the adapters of another set.
    ///
    /// # Errors
    /// [`Error::Modules`] if the modules differ.
    pub fn extend(&mut self, other: Self) -> Result<()> {
        same_modules(&self.modules, &other.modules)?;
        self.factors.extend(other.factors);
        Ok(())
    }
}

impl Adapters for AdapterSet {
    type Error = Error;

    fn num_adapters(&self) -> usize {
        self.factors.len()
    }

    fn modules(&self) -> &[Module] {
        &self.modules
    }

    fn read(&self, adapter: usize, module: usize) -> Result<Factors> {
        Ok(self.factors[adapter][module].clone())
    }
}
