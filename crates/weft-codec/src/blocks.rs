//! Networks that are not in memory, read a block of weights at a time.

use crate::centered::Centered;
use crate::linalg::{SUM_BLOCK, SymmetricSum};
use crate::normalize::{Normalizer, moments};
use crate::{Error, Result};
use std::ops::Range;
use weft_core::Architecture;
use weft_core::products::{Here, Products};

/// Fills `out`, `[n, columns]`, with these weights of every network.
pub type ReadColumns<'a, E> = dyn FnMut(Range<usize>, &mut [f32]) -> Result<(), E> + 'a;

/// The networks of one architecture, of which some columns are in memory at a time.
///
/// What is computed of them does not depend on how many: sums are taken in the pieces in which they are taken in memory.
pub struct Blocks<'a, E> {
    architecture: &'a Architecture,
    num_rows: usize,
    width: usize,
    read: &'a mut ReadColumns<'a, E>,
    values: Vec<f32>,
    on: &'a dyn Products,
}

impl<'a, E: From<Error>> Blocks<'a, E> {
    /// Bytes that a block takes for each of its columns, `n` networks of it.
    #[must_use]
    pub fn bytes_a_column(n: usize) -> usize {
        // The weights, twice where they are decoded, and in double precision their means, variances and scales.
        8 * n + 32
    }

    /// Networks of which `width` columns are read at a time, rounded up to whole pieces of a sum.
    pub fn new(architecture: &'a Architecture, num_rows: usize, width: usize, read: &'a mut ReadColumns<'a, E>) -> Self {
        let width = width.max(1).next_multiple_of(SUM_BLOCK).min(architecture.num_parameters());
        Self { architecture, num_rows, width, read, values: Vec::new(), on: &Here }
    }

    /// The same networks, whose great products are computed on a device.
    #[must_use]
    pub fn on(self, products: &'a dyn Products) -> Self {
        Self { on: products, ..self }
    }

    /// Where great products are computed.
    pub(crate) fn products(&self) -> &'a dyn Products {
        self.on
    }

    /// The architecture of all networks.
    #[must_use]
    pub fn architecture(&self) -> &'a Architecture {
        self.architecture
    }

    /// The number of networks, `n`.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Gives every block in turn: its columns, and their weights `[n, columns]`.
    pub(crate) fn each(&mut self, mut use_block: impl FnMut(Range<usize>, &[f32]) -> Result<(), E>) -> Result<(), E> {
        let d = self.architecture.num_parameters();
        for start in (0..d).step_by(self.width) {
            let columns = start..(start + self.width).min(d);
            self.values.resize(self.num_rows * columns.len(), 0.0);
            (self.read)(columns.clone(), &mut self.values)?;
            use_block(columns, &self.values)?;
        }
        Ok(())
    }
}

/// How networks lie to each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// The covariance's eigenvalues, largest first.
    pub spectrum: Vec<f64>,
    /// The mean distance of two networks.
    pub mean_distance: f64,
    /// The root of the mean square of their norms.
    pub norm: f64,
}

/// Measures networks as they are, in one pass.
///
/// # Errors
/// Fewer than two networks, a weight that is not finite, or what reading returns.
pub fn geometry<E: From<Error>>(rows: &mut Blocks<'_, E>) -> Result<Geometry, E> {
    let (n, on) = (rows.num_rows(), rows.products());
    let (mut sum, mut squares) = (SymmetricSum::zeros(n), 0.0);
    rows.each(|columns, values| {
        let (means, _) = moments(values, columns.len(), columns.start)?;
        squares += values.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
        let normalizer = Normalizer { mean: means.into_iter().map(|m| m as f32).collect(), scale: vec![1.0; columns.len()] };
        Centered::new(on, &normalizer, values).add_gram(&mut sum);
        Ok(())
    })?;
    let mut distances = 0.0;
    for i in 0..n {
        for j in 0..i {
            distances += (sum.at(i, i) + sum.at(j, j) - 2.0 * sum.at(i, j)).max(0.0).sqrt();
        }
    }
    let (mut spectrum, _) = sum.eigen()?;
    spectrum.truncate(n - 1);
    for variance in &mut spectrum {
        *variance /= (n - 1) as f64;
    }
    let mean_distance = distances / (n * (n - 1) / 2) as f64;
    Ok(Geometry { spectrum, mean_distance, norm: (squares / n as f64).sqrt() })
}
