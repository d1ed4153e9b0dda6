//! What the token generator is trained on: networks of one or several architectures.

use crate::{Error, Result};
use std::sync::Arc;
use weft_core::{Condition, Population};

/// Canonical training networks of one architecture, of all snapshots, and the condition of each.
///
/// Whoever builds it has left out every held-out run.
#[derive(Debug, Clone)]
pub struct TokenPart {
    /// The networks.
    pub networks: Arc<Population>,
    /// Their conditions, `[n]`.
    pub conditions: Vec<Condition>,
}

/// Training networks of one or several architectures.
#[derive(Debug, Clone)]
pub struct TokenSet {
    parts: Vec<TokenPart>,
}

impl TokenSet {
    /// Collects networks, a part an architecture or a zoo.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no network in a part, or not a condition for each.
    pub fn new(parts: Vec<TokenPart>) -> Result<Self> {
        for part in &parts {
            let (networks, conditions) = (part.networks.len(), part.conditions.len());
            if networks != conditions {
                let got = format!("{conditions} for {networks} networks of `{}`", part.networks.architecture().name());
                return Err(Error::Setting { setting: "conditions", expected: "one for each network", got });
            }
        }
        if parts.is_empty() || parts.iter().any(|part| part.networks.is_empty()) {
            return Err(Error::Setting { setting: "networks", expected: "1 or more in each part", got: "none".to_owned() });
        }
        Ok(Self { parts })
    }

    /// The parts, in the order that they were given in.
    #[must_use]
    pub fn parts(&self) -> &[TokenPart] {
        &self.parts
    }

    /// Networks of all parts together.
    #[must_use]
    pub fn num_networks(&self) -> usize {
        self.parts.iter().map(|part| part.networks.len()).sum()
    }

    /// The conditions of all networks, part by part.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        self.parts.iter().flat_map(|part| part.conditions.iter().cloned()).collect()
    }
}
