//! What generators are fitted on: training runs alone.

use crate::Result;
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Architecture, Condition, Population};

/// Canonical training checkpoints with their codes and conditions.
///
/// Whoever builds it has left out every held-out run: nothing here can reach a test split.
#[derive(Debug, Clone)]
pub struct TrainingSet {
    /// The codec, fitted on the same checkpoints.
    pub codec: Arc<Codec>,
    /// Canonical weights of the last snapshot of each run.
    pub finals: Arc<Population>,
    /// The same networks as they came from training, before canonicalization.
    pub raw_finals: Arc<Population>,
    /// Codes of all snapshots, `[N, k]`.
    pub codes: Arc<Vec<f32>>,
    /// Codes of the last snapshots, `[n, k]`.
    pub final_codes: Arc<Vec<f32>>,
    /// Conditions of all snapshots, `[N]`.
    pub conditions: Arc<Vec<Condition>>,
}

/// What a generator of codes is fitted on: training checkpoints without their weights.
#[derive(Debug, Clone)]
pub struct CodeSet {
    /// The code length, `k`.
    pub code_len: usize,
    /// Codes of all snapshots, `[N, k]`.
    pub codes: Arc<Vec<f32>>,
    /// Codes of the last snapshots, `[n, k]`.
    pub final_codes: Arc<Vec<f32>>,
    /// Conditions of all snapshots, `[N]`.
    pub conditions: Arc<Vec<Condition>>,
}

impl TrainingSet {
    /// Encodes canonical training checkpoints.
    ///
    /// # Errors
    /// If the weights are not of the codec's dimension.
    pub fn new(
        codec: Arc<Codec>,
        all: &Population,
        finals: Population,
        raw_finals: Population,
        conditions: Vec<Condition>,
    ) -> Result<Self> {
        let codes = codec.encode(all.data())?;
        let final_codes = codec.encode(finals.data())?;
        Ok(Self {
            codec,
            finals: Arc::new(finals),
            raw_finals: Arc::new(raw_finals),
            codes: Arc::new(codes),
            final_codes: Arc::new(final_codes),
            conditions: Arc::new(conditions),
        })
    }

    /// The architecture of all checkpoints.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        self.finals.architecture()
    }

    /// The codes alone.
    #[must_use]
    pub fn code_set(&self) -> CodeSet {
        let (codes, final_codes) = (self.codes.clone(), self.final_codes.clone());
        CodeSet { code_len: self.code_len(), codes, final_codes, conditions: self.conditions.clone() }
    }

    /// The code length, `k`.
    #[must_use]
    pub fn code_len(&self) -> usize {
        self.codec.code_len()
    }

    /// Decodes codes to networks.
    ///
    /// # Errors
    /// If the codes are not `[n, k]`.
    pub fn decode(&self, codes: &[f32]) -> Result<Population> {
        Ok(Population::new(self.architecture().clone(), self.codec.decode(codes)?)?)
    }
}
