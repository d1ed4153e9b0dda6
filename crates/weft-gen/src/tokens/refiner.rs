//! A trained refiner of tokens, alone and behind a proposal.

use super::model::TokenModel;
use super::space::Space;
use crate::refine::SIGNS;
use crate::refine::terms::signs;
use crate::refine::told::conditioning;
use crate::{Artifact, Error, Generator, Result, same_architecture, schema};
use candle_core::Tensor;
use std::sync::Arc;
use weft_codec::Directions;
use weft_core::{Architecture, Condition, Population, Seed};
use weft_net::Device;
use weft_ops::tensor::{Parameters, Precision, Transformer};

/// An architecture whose tokens fit a pass, with what decodes shifts of them.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) space: Space,
    mask: Tensor,
    /// The slot of each value, `[V]`; what is in no token has any, and the scale 0.
    slots: Tensor,
    scale: Tensor,
    /// Where rows in coefficients are among the values: their start and shape, and what they are made of, `[rank, inputs]`.
    directions: Vec<(usize, [usize; 3], Tensor)>,
}

impl Fit {
    /// Refuses an architecture of more tokens than a window, by its name.
    pub(super) fn new(space: Space, window: usize, device: &Device) -> Result<Self> {
        let (device, tokens) = (device.candle(), space.layout.num_tokens());
        if tokens > window {
            let got = format!("{window} for the {tokens} tokens of `{}`", space.architecture.name());
            return Err(Error::Setting { setting: "window", expected: "as long as a network that is refined", got });
        }
        let slots: Vec<u32> = space.layout.slot_of_value().into_iter().map(|slot| slot.unwrap_or(0) as u32).collect();
        let values = slots.len();
        let slots = Tensor::from_vec(slots, values, device)?;
        let scale = Tensor::from_slice(&space.moments.scale, (1, values), device)?;
        let directions = space.moments.directions().map(|Directions { start, shape, directions }| {
            Ok((start, shape, Tensor::from_slice(directions, (shape[1], shape[2]), device)?))
        });
        let directions = directions.collect::<Result<_>>()?;
        let mask = space.mask(0..tokens, device)?;
        Ok(Self { space, mask, slots, scale, directions })
    }

    /// What the transformer makes of networks: shifts of their normalized tokens.
    ///
    /// # Shapes
    /// `[n, D]` → `[n, t, f]`.
    pub(super) fn shift(
        &self,
        rows: &[f32],
        conditioning: &Tensor,
        (network, parameters): (&Transformer, &Parameters),
    ) -> Result<Tensor> {
        let tokens = 0..self.space.layout.num_tokens();
        let x = self.space.with_coordinates(&self.space.tokens(rows, conditioning.device())?, tokens.clone())?;
        let shift = network.of_tokens(tokens.len()).forward(&x, Some(conditioning), parameters)?;
        Ok(shift.broadcast_mul(&self.mask)?)
    }

    /// What shifts of tokens make of weights, differentiable.
    ///
    /// # Shapes
    /// `[n, t, f]` → `[n, D]`.
    pub(super) fn decode(&self, shift: &Tensor) -> Result<Tensor> {
        let n = shift.dim(0)?;
        let flat = shift.reshape((n, shift.elem_count() / n))?; // [n, t·f]
        let values = flat.index_select(&self.slots, 1)?.broadcast_mul(&self.scale)?; // [n, V]
        if self.directions.is_empty() {
            return Ok(values);
        }
        let (mut parts, mut at) = (Vec::new(), 0);
        for (start, [rows, rank, inputs], directions) in &self.directions {
            parts.push(values.narrow(1, at, start - at)?);
            let coefficients = values.narrow(1, *start, rows * rank)?.reshape((n * rows, *rank))?;
            parts.push(coefficients.matmul(directions)?.reshape((n, rows * inputs))?); // [n, rows·inputs]
            at = start + rows * rank;
        }
        parts.push(values.narrow(1, at, values.dim(1)? - at)?);
        parts.retain(|part| part.elem_count() > 0);
        Ok(Tensor::cat(&parts, 1)?)
    }
}

/// A trained refiner of tokens, for whatever architecture.
#[derive(Debug, Clone)]
pub struct TokenRefiner {
    pub(super) model: TokenModel,
    pub(super) own_data: bool,
}

impl TokenRefiner {
    /// What refining needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        self.model.save("token-refiner").with_text("own-data", self.own_data)
    }

    /// Restores a saved refiner.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or does not fit.
    pub fn load(saved: &Artifact, device: &Device) -> Result<Self> {
        Ok(Self { model: TokenModel::load(saved, SIGNS, device)?, own_data: saved.text("own-data")? })
    }

    /// Puts the refiner behind a proposal of networks of an architecture.
    ///
    /// # Errors
    /// [`Error::Setting`] for an architecture of more tokens than a window, [`Error::Codec`] for one with a tensor of a kind of place that no
    /// training network has.
    pub fn behind(&self, proposal: Arc<dyn Generator>, architecture: Arc<Architecture>) -> Result<TokenRefined> {
        let fit = Fit::new(self.model.space(architecture)?, self.model.window, &self.model.device)?;
        let name = format!("{} + refiner", proposal.name());
        Ok(TokenRefined { proposal, refiner: self.clone(), fit, name })
    }
}

/// A generator of one architecture whose samples are refined.
pub struct TokenRefined {
    proposal: Arc<dyn Generator>,
    refiner: TokenRefiner,
    fit: Fit,
    name: String,
}

impl std::fmt::Debug for TokenRefined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenRefined({})", self.name)
    }
}

impl TokenRefined {
    /// Refines networks, each told a condition; the seed draws their signs.
    fn refine(&self, mut networks: Population, told: &[Vec<f32>], seed: Seed) -> Result<Population> {
        same_architecture(networks.architecture(), &self.fit.space.architecture)?;
        let (refiner, device) = (&self.refiner, self.refiner.model.device.candle());
        let theta = Parameters::frozen(&refiner.model.theta, device, Precision::Single)?;
        let signs = signs(seed.fork("signs"), networks.len());
        let (dim, at_once) = (networks.dim(), (refiner.model.window / self.fit.space.layout.num_tokens()).max(1));
        let pieces = networks.data_mut().chunks_mut(dim * at_once).zip(signs.chunks(at_once).zip(told.chunks(at_once)));
        for (rows, (signs, told)) in pieces {
            let conditioning = conditioning(signs, &told.concat(), refiner.own_data, device)?;
            let shift = self.fit.shift(rows, &conditioning, (&refiner.model.network, &theta))?;
            let shift = self.fit.decode(&shift)?.flatten_all()?.to_vec1::<f32>()?;
            rows.iter_mut().zip(shift).for_each(|(w, s)| *w += s);
        }
        Ok(networks)
    }
}

impl Generator for TokenRefined {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        let told = vec![self.refiner.model.schema.encode(condition)?; n];
        self.refine(self.proposal.sample(n, condition, seed.fork("proposal"))?, &told, seed.fork("refine"))
    }

    fn sample_each(&self, conditions: &[Condition], seed: Seed) -> Result<Population> {
        let told = schema::encode_each(&self.refiner.model.schema, conditions)?;
        self.refine(self.proposal.sample_each(conditions, seed.fork("proposal"))?, &told, seed.fork("refine"))
    }

    fn flops_per_sample(&self) -> f64 {
        let tokens = self.fit.space.layout.num_tokens();
        self.proposal.flops_per_sample() + self.refiner.model.network.of_tokens(tokens).flops_per_sequence()
    }
}
