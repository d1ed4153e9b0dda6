//! Symmetry groups derived from the architecture's graph, canonical forms, alignment and distances in the quotient.
//!
//! Many weights compute one function: hidden units can be renamed, `ReLU` units rescaled, `tanh` units flipped.
//! [`Group::derive`] finds these symmetries from the op graph alone; no specification is written by hand. On the
//! group stand
//!
//! - [`Element`]: composing, inverting and applying group elements, and drawing them at random;
//! - [`balance`]: the representative with the smallest weights on a scale orbit;
//! - [`match_to`]: the permutation (and signs) that bring one network closest to another;
//! - [`AlignBy`]: whether units count as the same by their weights or by what they do on data;
//! - [`Canonicalizer`]: balance, then match to an anchor that is fitted to training runs: `canon(g·w) = canon(w)`,
//!   and twice is once;
//! - [`distance`]: distances between orbits and an exact nearest-neighbor search with proven pruning.
//!
//! `docs/concepts/symmetry.md` has the mathematics. Nothing here runs a network: who aligns by activations passes an
//! [`Observer`], and that elements keep the function is shown by the tests' reference implementation and by the façade on real ones.
//!
//! Shape letters: `n` networks, `D` weights of one, `h` units of a space, `f` features of a unit.

mod activations;
mod assign;
mod balance;
mod canonical;
pub mod distance;
mod element;
mod error;
mod fix;
mod group;
mod layout;
mod linalg;
mod matching;
pub mod product;
mod statistics;
mod transform;
mod update;

pub use activations::{AlignBy, Observer};
pub use assign::{Assigner, assign};
pub use balance::{Balanced, balance};
pub use canonical::{Canonical, CanonicalPopulation, Canonicalizer, ReadRow};
pub use element::{Element, SpaceElement};
pub use error::{Error, Result};
pub use group::{
    Absorber, Commutant, Factor, Fold, Gauge, GaugeAxis, Group, HiddenSpace, Hop, Rotation, ScaleClass, Sign, Sink, Slots,
    SpaceAxis,
};
pub use matching::{Matched, Matching, match_counted, match_to};
pub use transform::{Step, Transform};
