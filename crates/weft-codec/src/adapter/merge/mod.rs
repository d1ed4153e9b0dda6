//! Merging adapters into one, by the methods of the literature.
//!
//! | method | what it makes | depends on |
//! |---|---|---|
//! | [`Method::Mean`] | `Σ wᵢ·ΔWᵢ / Σ wᵢ` | updates alone |
//! | [`Method::TaskArithmetic`] | `λ·Σ wᵢ·ΔWᵢ` | updates alone |
//! | [`Method::Ties`] | of each entry the mean of those that agree with the elected sign, after trimming small ones | updates alone |
//! | [`Method::DareLinear`] | the mean of updates of which random entries were dropped and the others enlarged | updates and the seed |
//! | [`Method::DareTies`] | the same with elected signs | updates and the seed |
//! | [`Method::Slerp`] | a point on the arc between two updates, with an angle from their inner product | updates alone |
//! | [`Method::Knots`] | means, or elected entries, of right factors in a basis that all updates share | updates alone |
//! | [`Method::Linear`] | `(Σ wᵢ·√sᵢ·Bᵢ)(Σ wᵢ·√sᵢ·Aᵢ) / (Σ wᵢ)²` | **factors**: another gauge of an input is another result |
//!
//! All but the last give the same for any `GL(r)` gauge of the inputs, up to rounding. They end in an update that has more ranks than
//! asked for, as a rule: it is truncated to the nearest one of that rank, and [`Lost`] says what that cost.
//!
//! Entries of updates are formed in blocks of rows, a module at a time; what holds more than 2²⁸ values at once is refused. Trimming and
//! electing see a module at a time, as its entries are compared with each other.

mod entries;
mod knots;

use super::combine::{Combined, check, combine};
use super::stack::{Leading, Update};
use super::{AdapterSet, Adapters, Factors, Grams, Lost, Module, read};
use crate::{Error, Result};
use entries::{Keep, Rule};
use weft_core::Seed;
use weft_core::products::Here;

/// The most values of an update that are held at once.
const MAX_VALUES: usize = 1 << 28;

/// How adapters become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// The weighted mean of updates.
    Mean,
    /// The product of the factors' weighted means, as federated averaging takes it; with equal weights PEFT's `linear` is a multiple of
    /// it. For comparison: it depends on the gauge, mixes the factors of different adapters, and needs equal ranks.
    Linear,
    /// The weighted sum of updates times `scale` (Ilharco et al. 2023, section 2).
    TaskArithmetic {
        /// `λ`.
        scale: f64,
    },
    /// Trim, elect sign, disjoint merge (Yadav et al. 2023, algorithm 1).
    Ties {
        /// The part of an update's entries that is kept, those of largest size; entries equal to the last one stay.
        density: f64,
        /// `λ`, by which the result is multiplied.
        scale: f64,
    },
    /// Drop and rescale, then the weighted mean (Yu et al. 2023, section 3).
    DareLinear {
        /// The probability that an entry is kept, `1 − p`.
        density: f64,
        /// By what the result is multiplied.
        scale: f64,
    },
    /// Drop and rescale, then elect sign and merge disjointly.
    DareTies {
        /// The probability that an entry is kept, `1 − p`.
        density: f64,
        /// By what the result is multiplied.
        scale: f64,
    },
    /// Spherical interpolation of two updates, whole adapters at once (Shoemake 1985, section 3.3): directions on the arc, norms on the
    /// line between the two.
    Slerp {
        /// The place on the arc, 0 at the first adapter and 1 at the second.
        t: f64,
    },
    /// Right factors in a shared basis, `[ΔW₁ … ΔWₙ] = U·S·[V₁ … Vₙ]ᵀ`, merged to one (Stoica et al. 2024, section 4).
    Knots {
        /// The part of the right factors' entries that is kept before signs are elected; `None` takes their mean, which is that of updates.
        density: Option<f64>,
        /// By what the result is multiplied.
        scale: f64,
    },
}

impl Method {
    /// The method's name, as commands have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Linear => "linear",
            Self::TaskArithmetic { .. } => "task-arithmetic",
            Self::Ties { .. } => "ties",
            Self::DareLinear { .. } => "dare-linear",
            Self::DareTies { .. } => "dare-ties",
            Self::Slerp { .. } => "slerp",
            Self::Knots { .. } => "knots",
        }
    }

    /// Whether the result depends on the updates alone, not on their factors.
    #[must_use]
    pub fn is_gauge_free(&self) -> bool {
        !matches!(self, Self::Linear)
    }
}

/// How to merge, and into what.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeConfig {
    /// The method.
    pub method: Method,
    /// A weight for each adapter; all 1 if there are none.
    pub weights: Option<Vec<f64>>,
    /// The rank of the result.
    pub rank: usize,
    /// What is taken out of its factors.
    pub scaling: f64,
    /// What random entries are dropped by.
    pub seed: Seed,
}

/// Merges adapters into one of the rank asked for.
///
/// # Errors
/// [`Error::Setting`] for a setting out of its range, [`Error::NumAdapters`] for no adapters, other than two for
/// [`Method::Slerp`], or as many weights as there are not; [`Error::NoArc`] for opposite ones; [`Error::TooLarge`] for a module whose
/// update would not fit; or what reading returns.
///
/// # Examples
/// ```
/// use weft_codec::adapter::merge::{MergeConfig, Method, merge};
/// use weft_codec::adapter::{AdapterSet, Adapters, Factors, Module};
/// use weft_core::Seed;
/// let module = Module { name: "q".to_owned(), fan_out: 1, fan_in: 2 };
/// let update = |x: f32, y: f32| vec![Factors { rank: 1, scaling: 1.0, b: vec![1.0], a: vec![x, y] }];
/// let set = AdapterSet::new(vec![module], vec![update(2.0, 1.0), update(4.0, -3.0)])?;
/// let method = Method::Ties { density: 1.0, scale: 1.0 };
/// let merged = merge(&set, &MergeConfig { method, weights: None, rank: 1, scaling: 1.0, seed: Seed::new(0) })?;
/// let made = merged.adapters.read(0, 0)?; // 2 and 4 agree; of 1 and -3 the latter is elected
/// assert!((made.b[0] * made.a[0] - 3.0).abs() < 1e-6 && (made.b[0] * made.a[1] + 3.0).abs() < 1e-6);
/// # Ok::<(), weft_codec::Error>(())
/// ```
pub fn merge<A: Adapters + ?Sized>(adapters: &A, config: &MergeConfig) -> Result<Combined, A::Error> {
    check(config.rank, config.scaling)?;
    let weights = weights(adapters.num_adapters(), config)?;
    let total: f64 = weights.iter().sum();
    let linear = |c: Vec<f64>| combine(adapters, None, (1, &|_, _| c.clone()), (config.rank, config.scaling));
    match config.method {
        Method::Mean => {
            positive(total)?;
            linear(weights.iter().map(|w| w / total).collect())
        }
        Method::TaskArithmetic { scale } => {
            finite("scale", scale)?;
            linear(weights.iter().map(|w| w * scale).collect())
        }
        Method::Slerp { t } => {
            finite("t", t)?;
            linear(arc(&Grams::of(adapters, &Here)?, t)?)
        }
        Method::Linear => {
            positive(total)?;
            let weights: Vec<f64> = weights.iter().map(|w| w / total).collect();
            each_module(adapters, config, |module, factors| factors_mean(module, factors, &weights))
        }
        Method::Ties { density, scale } => entrywise(adapters, config, &weights, (Keep::Largest(density), true, scale)),
        Method::DareLinear { density, scale } => entrywise(adapters, config, &weights, (Keep::Random(density), false, scale)),
        Method::DareTies { density, scale } => entrywise(adapters, config, &weights, (Keep::Random(density), true, scale)),
        Method::Knots { density, scale } => {
            finite("scale", scale)?;
            positive(total)?;
            let keep = density.map_or(Keep::All, Keep::Largest);
            keep.check()?;
            let rule = Rule { keep, elect: density.is_some(), scale, seed: config.seed };
            each_module(adapters, config, |module, factors| knots::update(module, factors, (&rule, &weights)))
        }
    }
}

fn weights(n: usize, config: &MergeConfig) -> Result<Vec<f64>> {
    let refuse = |what, needed| Err(Error::NumAdapters { what, needed, got: n });
    if n == 0 {
        return refuse("a merger", "1 or more");
    }
    if matches!(config.method, Method::Slerp { .. }) && n != 2 {
        return refuse("`slerp`", "exactly 2");
    }
    let weights = config.weights.clone().unwrap_or_else(|| vec![1.0; n]);
    if weights.len() != n {
        return refuse("a merger with weights", "as many as weights for its");
    }
    match weights.iter().find(|w| !w.is_finite()) {
        None => Ok(weights),
        Some(got) => Err(Error::Setting { setting: "weights", expected: "finite", got: got.to_string() }),
    }
}

fn finite(setting: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::Setting { setting, expected: "finite", got: value.to_string() }) }
}

fn positive(total: f64) -> Result<()> {
    let expected = "of a sum above 0, by which they are divided";
    if total > 0.0 { Ok(()) } else { Err(Error::Setting { setting: "weights", expected, got: total.to_string() }) }
}

/// The weights of two adapters at a place of the arc between them.
fn arc(grams: &Grams, t: f64) -> Result<Vec<f64>> {
    let total = grams.total();
    let (first, second) = (total[0].max(0.0).sqrt(), total[3].max(0.0).sqrt());
    let cosine = grams.cosines()[1];
    let angle = cosine.acos();
    let norm = (1.0 - t) * first + t * second;
    if first == 0.0 || second == 0.0 || std::f64::consts::PI - angle < 1e-6 {
        return Err(Error::NoArc);
    }
    // Of two that point the same way the arc is a line.
    let along = |part: f64| if angle < 1e-6 { part } else { (part * angle).sin() / angle.sin() };
    Ok(vec![norm * along(1.0 - t) / first, norm * along(t) / second])
}

/// Merges entry by entry.
fn entrywise<A: Adapters + ?Sized>(
    adapters: &A,
    config: &MergeConfig,
    weights: &[f64],
    (keep, elect, scale): (Keep, bool, f64),
) -> Result<Combined, A::Error> {
    keep.check()?;
    finite("scale", scale)?;
    positive(weights.iter().sum())?;
    let rule = Rule { keep, elect, scale, seed: config.seed };
    each_module(adapters, config, |module, factors| {
        bounded(module, config.method.name(), module.fan_out.saturating_mul(module.fan_in))?;
        Ok(Update::Formed(rule.merge(module, factors, weights)))
    })
}

fn bounded(module: &Module, method: &'static str, values: usize) -> Result<()> {
    let module = module.name.clone();
    if values <= MAX_VALUES { Ok(()) } else { Err(Error::TooLarge { module, method, values, limit: MAX_VALUES }) }
}

/// Merges module by module.
fn each_module<A: Adapters + ?Sized>(
    adapters: &A,
    config: &MergeConfig,
    merged: impl Fn(&Module, &[Factors]) -> Result<Update>,
) -> Result<Combined, A::Error> {
    let (mut made, mut lost) = (Vec::new(), Lost::default());
    for (at, module) in adapters.modules().iter().enumerate() {
        let factors = (0..adapters.num_adapters()).map(|i| read(adapters, i, at)).collect::<Result<Vec<_>, _>>()?;
        let leading: Leading = merged(module, &factors)?.leading(config.rank, None)?;
        lost.add(leading.energy, leading.lost());
        made.push(leading.factors(config.rank, config.scaling));
    }
    let adapters = AdapterSet::new(adapters.modules().to_vec(), vec![made])?;
    Ok(Combined { adapters, lost: vec![lost] })
}

/// The product of the factors' means.
fn factors_mean(module: &Module, factors: &[Factors], weights: &[f64]) -> Result<Update> {
    let rank = factors.first().map_or(0, |f| f.rank);
    if let Some(adapter) = factors.iter().position(|f| f.rank != rank) {
        let reason = "`linear` adds factors, and its rank is not that of the first adapter";
        return Err(Error::Factors { adapter, module: module.name.clone(), reason });
    }
    let (mut b, mut a) = (vec![0.0_f64; module.fan_out * rank], vec![0.0_f64; rank * module.fan_in]);
    for (adapter, (factors, weight)) in factors.iter().zip(weights).enumerate() {
        if factors.scaling < 0.0 {
            let reason = "`linear` takes roots of scalings, and its own is below 0";
            return Err(Error::Factors { adapter, module: module.name.clone(), reason });
        }
        let side = weight * factors.scaling.sqrt();
        b.iter_mut().zip(&factors.b).for_each(|(sum, &x)| *sum += side * f64::from(x));
        a.iter_mut().zip(&factors.a).for_each(|(sum, &x)| *sum += side * f64::from(x));
    }
    let b = faer::Mat::from_fn(module.fan_out, rank, |o, p| b[o * rank + p]);
    let a = faer::Mat::from_fn(module.fan_in, rank, |i, p| a[p * module.fan_in + i]);
    Ok(Update::Stacked { b, a })
}
