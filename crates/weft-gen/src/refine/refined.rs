//! A trained refiner, alone and behind a proposal.

use super::terms::signs;
use super::told::{Told, conditioning};
use crate::decoder::{decode_shift, decode_tensor};
use crate::{Artifact, Error, Generator, Result};
use candle_core::Tensor;
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Condition, Population, Seed};
use weft_net::Device;
use weft_ops::tensor::{Parameters, Precision, ResidualMlp, ResidualMlpConfig};

/// A trained refiner.
#[derive(Debug, Clone)]
pub struct Refiner {
    pub(super) network: ResidualMlp,
    pub(super) theta: Vec<f32>,
    pub(super) told: Told,
    pub(super) own_data: bool,
    pub(super) codec: Arc<Codec>,
    pub(super) device: Device,
}

impl Refiner {
    /// Refines networks; the seed draws each sample's own signs and loss level.
    ///
    /// Running statistics of batch norms stay as the proposal had them: no training step reads what a shift would make of them.
    ///
    /// A refiner of many tasks follows the condition, one of a single task ignores it. A condition that leaves the task open is nothing that
    /// training showed: what it makes of that is not meant to work.
    ///
    /// # Errors
    /// If the population is not of the codec's dimension, a condition is not of the schema, or a tensor operation fails.
    pub fn apply(&self, proposals: &Population, condition: &Condition, seed: Seed) -> Result<Population> {
        let conditions = (0..proposals.len()).map(|_| condition);
        self.refine(proposals, &self.told.of(conditions, seed.fork("levels"))?, seed)
    }

    /// The same under a condition a network.
    ///
    /// # Errors
    /// As [`Refiner::apply`], or if there are not as many conditions as networks.
    pub fn apply_each(&self, proposals: &Population, conditions: &[Condition], seed: Seed) -> Result<Population> {
        if conditions.len() != proposals.len() {
            let got = format!("{} for {} networks", conditions.len(), proposals.len());
            return Err(Error::Setting { setting: "conditions", expected: "one for each network", got });
        }
        self.refine(proposals, &self.told.of(conditions.iter(), seed.fork("levels"))?, seed)
    }

    fn refine(&self, proposals: &Population, told: &[f32], seed: Seed) -> Result<Population> {
        let device = self.device.candle();
        let (n, k) = (proposals.len(), self.codec.code_len());
        let codes = Tensor::from_vec(self.codec.encode(proposals.data())?, (n, k), device)?;
        let conditioning = conditioning(&signs(seed.fork("signs"), n), told, self.own_data, device)?;
        let theta = Parameters::frozen(&self.theta, device, Precision::Single)?;
        let shift = self.network.forward(&codes, &conditioning, &theta)?;
        let decode = decode_tensor(&self.codec, &proposals.architecture().statistics(), &self.device)?;
        let shift = decode_shift(&shift, &decode)?.flatten_all()?.to_vec1::<f32>()?;
        let mut refined = proposals.clone();
        refined.data_mut().iter_mut().zip(shift).for_each(|(w, s)| *w += s);
        Ok(refined)
    }

    /// Floating-point operations to refine one network.
    #[must_use]
    pub fn flops_per_sample(&self) -> f64 {
        self.network.flops_per_row() + 2.0 * self.codec.decode_flops()
    }

    /// What refining needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        let artifact = Artifact::default()
            .with_vector("theta", &self.theta)
            .with_text("kind", "refiner")
            .with_text("own-data", self.own_data)
            .with_text("width", self.network.config().width)
            .with_text("blocks", self.network.config().blocks);
        self.told.save(artifact)
    }

    /// Restores a saved refiner.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or does not fit the codec.
    pub fn load(saved: &Artifact, codec: Arc<Codec>, device: &Device) -> Result<Self> {
        let [width, blocks] = saved.network_size()?;
        let (k, told) = (codec.code_len(), Told::load(saved)?);
        let conditioning = told.num_features();
        let network = ResidualMlp::new(ResidualMlpConfig { inputs: k, conditioning, width, blocks, outputs: k });
        let theta = saved.vector("theta", network.num_parameters())?;
        Ok(Self { network, theta, told, own_data: saved.text("own-data")?, codec, device: device.clone() })
    }
}

/// A generator whose samples are refined.
pub struct Refined {
    proposal: Arc<dyn Generator>,
    refiner: Refiner,
    name: String,
}

impl std::fmt::Debug for Refined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Refined({})", self.name)
    }
}

impl Refined {
    /// Puts a refiner behind a proposal.
    #[must_use]
    pub fn new(proposal: Arc<dyn Generator>, refiner: Refiner) -> Self {
        let name = format!("{} + refiner", proposal.name());
        Self { proposal, refiner, name }
    }
}

impl Generator for Refined {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        self.refiner.apply(&self.proposal.sample(n, condition, seed.fork("proposal"))?, condition, seed.fork("refine"))
    }

    fn sample_each(&self, conditions: &[Condition], seed: Seed) -> Result<Population> {
        let proposals = self.proposal.sample_each(conditions, seed.fork("proposal"))?;
        self.refiner.apply_each(&proposals, conditions, seed.fork("refine"))
    }

    fn flops_per_sample(&self) -> f64 {
        self.proposal.flops_per_sample() + self.refiner.flops_per_sample()
    }
}
