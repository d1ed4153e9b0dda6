//! Inner products of updates, without the updates.
//!
//! With the rows of all `A` of a module in one matrix and the columns of all `B` in another, `tr((BᵢᵀBⱼ)(AⱼAᵢᵀ))` is the sum over the
//! block `(i, j)` of the entrywise product of the two matrices' own products. These are `[R, R]`: they are taken in tiles of whole
//! adapters, so that memory does not grow with their number.

use super::{Adapters, Module, read, same_modules};
use crate::centered::Centered;
use crate::linalg::{SUM_BLOCK, SymmetricSum, add_rectangle, rows_of, rows_of_mut};
use crate::normalize::Normalizer;
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use weft_core::products::Products;

/// The most rows of a tile, unless one adapter has more.
const TILE_RANKS: usize = 2048;
/// The most products of all modules: 4 GiB.
const MAX_PRODUCTS: usize = 1 << 29;

/// The inner products of adapters' updates, module by module.
#[derive(Debug, Clone, PartialEq)]
pub struct Grams {
    num_adapters: usize,
    modules: Vec<Module>,
    /// `[n, n]` a module.
    products: Vec<Vec<f64>>,
}

impl Grams {
    /// Computes the products in one pass over the adapters, or several if their ranks sum to more than 2048 in a module.
    ///
    /// The products of `[R, i]` and `[R, o]` may be computed elsewhere (`on`). Time is `O(m·R²·(i + o))`, memory that of one module's
    /// factors, at most two tiles of 2048 ranks of them.
    ///
    /// # Errors
    /// [`Error::NumAdapters`] for more than 2²⁹ products in all, [`Error::Factors`] for factors that cannot be, or what reading returns.
    pub fn of<A: Adapters + ?Sized>(adapters: &A, on: &dyn Products) -> Result<Self, A::Error> {
        let n = adapters.num_adapters();
        bounded([n, n], adapters.modules().len())?;
        let products = (0..adapters.modules().len()).map(|at| of_module(adapters, at, on)).collect::<Result<_, A::Error>>()?;
        Ok(Self { num_adapters: adapters.num_adapters(), modules: adapters.modules().to_vec(), products })
    }

    /// Products that were computed before, `[n, n]` a module.
    ///
    /// # Errors
    /// [`Error::Length`] if they are not `n²` for each module.
    pub fn from_products(num_adapters: usize, modules: Vec<Module>, products: Vec<Vec<f64>>) -> Result<Self> {
        let row = num_adapters * num_adapters;
        match products.iter().find(|own| own.len() != row) {
            Some(own) => Err(Error::Length { what: "inner products", row, got: own.len() }),
            None if products.len() != modules.len() => {
                Err(Error::Length { what: "modules", row: modules.len(), got: products.len() })
            }
            None => Ok(Self { num_adapters, modules, products }),
        }
    }

    /// The products of some of the adapters, in the order given.
    ///
    /// # Panics
    /// If there is no such adapter.
    #[must_use]
    pub fn select(&self, adapters: &[usize]) -> Self {
        let n = self.num_adapters;
        let of = |products: &Vec<f64>| adapters.iter().flat_map(|&i| adapters.iter().map(move |&j| products[i * n + j])).collect();
        Self { num_adapters: adapters.len(), modules: self.modules.clone(), products: self.products.iter().map(of).collect() }
    }

    /// The number of adapters, `n`.
    #[must_use]
    pub fn num_adapters(&self) -> usize {
        self.num_adapters
    }

    /// The modules, in the order of the products.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// `⟨ΔWᵢ, ΔWⱼ⟩` of one module, `[n, n]`.
    ///
    /// # Panics
    /// If there is no such module.
    #[must_use]
    pub fn module(&self, module: usize) -> &[f64] {
        &self.products[module]
    }

    /// The products of whole adapters, `[n, n]`: the sum over modules.
    #[must_use]
    pub fn total(&self) -> Vec<f64> {
        let mut sum = vec![0.0; self.num_adapters * self.num_adapters];
        for products in &self.products {
            sum.iter_mut().zip(products).for_each(|(sum, x)| *sum += x);
        }
        sum
    }

    /// The cosines of whole adapters, `[n, n]`; 0 where an update is zero.
    #[must_use]
    pub fn cosines(&self) -> Vec<f64> {
        let (n, total) = (self.num_adapters, self.total());
        let norm = |i: usize| total[i * n + i].max(0.0).sqrt();
        let cosine = |at: usize| match norm(at / n) * norm(at % n) {
            0.0 => 0.0,
            norms => (total[at] / norms).clamp(-1.0, 1.0),
        };
        (0..n * n).map(cosine).collect()
    }

    /// The distances of whole adapters, `‖ΔWᵢ − ΔWⱼ‖`, `[n, n]`.
    ///
    /// Those of adapters that differ by less than 10⁻⁷ of their size are rounding.
    #[must_use]
    pub fn distances(&self) -> Vec<f64> {
        let (n, total) = (self.num_adapters, self.total());
        let squared = |i: usize, j: usize| total[i * n + i] + total[j * n + j] - 2.0 * total[i * n + j];
        (0..n * n).map(|at| squared(at / n, at % n).max(0.0).sqrt()).collect()
    }
}

/// The inner products of some adapters' updates with those of others.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossGrams {
    shape: [usize; 2],
    /// `[p, n]` a module.
    products: Vec<Vec<f64>>,
}

impl CrossGrams {
    /// Computes the products of `p` adapters with `n` others.
    ///
    /// # Errors
    /// [`Error::Modules`] if they update different modules, else as [`Grams::of`].
    pub fn of<A, B>(left: &A, right: &B) -> Result<Self, A::Error>
    where
        A: Adapters + ?Sized,
        B: Adapters + ?Sized,
        A::Error: From<B::Error>,
    {
        same_modules(right.modules(), left.modules())?;
        let shape = [left.num_adapters(), right.num_adapters()];
        bounded(shape, left.modules().len())?;
        let mut products = Vec::with_capacity(left.modules().len());
        for at in 0..left.modules().len() {
            let mut sum = vec![0.0; shape[0] * shape[1]];
            let mut first = 0;
            while first < shape[0] {
                let rows = Tile::read(left, at, first)?;
                let mut second = 0;
                while second < shape[1] {
                    let columns = Tile::read(right, at, second)?;
                    rows.times(&columns, |i, j, x| sum[i * shape[1] + j] = x);
                    second = columns.adapters.end;
                }
                first = rows.adapters.end;
            }
            finite(&sum, shape[1], &left.modules()[at])?;
            products.push(sum);
        }
        Ok(Self { shape, products })
    }

    /// `[p, n]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The products of one module, `[p, n]`.
    ///
    /// # Panics
    /// If there is no such module.
    #[must_use]
    pub fn module(&self, module: usize) -> &[f64] {
        &self.products[module]
    }

    /// The products of whole adapters, `[p, n]`.
    #[must_use]
    pub fn total(&self) -> Vec<f64> {
        let mut sum = vec![0.0; self.shape[0] * self.shape[1]];
        for products in &self.products {
            sum.iter_mut().zip(products).for_each(|(sum, x)| *sum += x);
        }
        sum
    }
}

/// The products of one module's updates, `[n, n]`.
pub(super) fn of_module<A: Adapters + ?Sized>(adapters: &A, at: usize, on: &dyn Products) -> Result<Vec<f64>, A::Error> {
    let n = adapters.num_adapters();
    let mut products = vec![0.0; n * n];
    let mut first = 0;
    while first < n {
        let rows = Tile::read(adapters, at, first)?;
        rows.times_itself(on, |i, j, x| (products[i * n + j], products[j * n + i]) = (x, x));
        let mut second = 0;
        while second < first {
            let columns = Tile::read(adapters, at, second)?;
            rows.times(&columns, |i, j, x| (products[i * n + j], products[j * n + i]) = (x, x));
            second = columns.adapters.end;
        }
        first = rows.adapters.end;
    }
    finite(&products, n, &adapters.modules()[at])?;
    Ok(products)
}

/// Refuses more products than fit memory.
fn bounded([p, n]: [usize; 2], modules: usize) -> Result<()> {
    if p.saturating_mul(n).saturating_mul(modules) <= MAX_PRODUCTS {
        return Ok(());
    }
    Err(Error::NumAdapters { what: "a product of every pair in every module", needed: "fewer", got: p.max(n) })
}

/// Refuses products, rows of `n`, that left the range of numbers.
fn finite(products: &[f64], n: usize, module: &Module) -> Result<()> {
    match products.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(found) => {
            let module = module.name.clone();
            Err(Error::Factors { adapter: found / n.max(1), module, reason: "its update is too large" })
        }
    }
}

/// The factors of some adapters' updates of one module, one below the other.
struct Tile {
    adapters: Range<usize>,
    /// Where each adapter's rows begin, and where the last one's end.
    starts: Vec<usize>,
    scalings: Vec<f64>,
    /// `Bᵀ`, `[R, o]`, and `A`, `[R, i]`.
    sides: [(Vec<f32>, usize); 2],
}

impl Tile {
    /// Reads adapters from `first` on, as many as a tile has room for: where tiles end depends on the adapters alone.
    fn read<A: Adapters + ?Sized>(from: &A, at: usize, first: usize) -> Result<Self, A::Error> {
        let module = &from.modules()[at];
        let (mut starts, mut scalings) = (vec![0], Vec::new());
        let (mut b, mut a) = (Vec::new(), Vec::new());
        let mut next = first;
        while next < from.num_adapters() {
            let factors = read(from, next, at)?;
            let end = starts[starts.len() - 1] + factors.rank;
            if end > TILE_RANKS && next > first {
                break;
            }
            starts.push(end);
            scalings.push(factors.scaling);
            for row in 0..factors.rank {
                b.extend(factors.b.iter().skip(row).step_by(factors.rank));
            }
            a.extend_from_slice(&factors.a);
            next += 1;
        }
        Ok(Self { adapters: first..next, starts, scalings, sides: [(b, module.fan_out), (a, module.fan_in)] })
    }

    fn num_rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Gives `⟨ΔWᵢ, ΔWⱼ⟩` of all pairs of this tile with `j ≤ i`.
    fn times_itself(&self, on: &dyn Products, mut give: impl FnMut(usize, usize, f64)) {
        let size = self.num_rows();
        let [mut b, mut a] = [0, 1].map(|side| {
            let (rows, width) = &self.sides[side];
            let mut sum = SymmetricSum::zeros(size);
            if size > 0 && *width > 0 {
                let plain = Normalizer { mean: vec![0.0; *width], scale: vec![1.0; *width] };
                Centered::new(on, &plain, rows).add_gram(&mut sum);
            }
            sum
        });
        let (b, a) = (b.lower_mut(), a.lower_mut());
        for i in 0..self.scalings.len() {
            for j in 0..=i {
                let mut sum = 0.0;
                for row in self.starts[i]..self.starts[i + 1] {
                    let columns = self.starts[j]..self.starts[j + 1].min(row + 1);
                    let line = row * size + columns.start..row * size + columns.end;
                    let whole: f64 = b[line.clone()].iter().zip(&a[line]).map(|(b, a)| b * a).sum();
                    // Of an adapter with itself only the lower triangle is there: twice that, less the diagonal.
                    sum += if i == j { 2.0 * whole - b[row * size + row] * a[row * size + row] } else { whole };
                }
                give(self.adapters.start + i, self.adapters.start + j, self.scalings[i] * self.scalings[j] * sum);
            }
        }
    }

    /// Gives `⟨ΔWᵢ, ΔWⱼ⟩` of all pairs with another tile.
    fn times(&self, other: &Self, mut give: impl FnMut(usize, usize, f64)) {
        let (rows, columns) = (self.num_rows(), other.num_rows());
        let [b, a] = [0, 1].map(|side| between(&self.sides[side].0, &other.sides[side].0, (rows, columns, self.sides[side].1)));
        for i in 0..self.scalings.len() {
            for j in 0..other.scalings.len() {
                let mut sum = 0.0;
                for row in self.starts[i]..self.starts[i + 1] {
                    let line = row * columns + other.starts[j]..row * columns + other.starts[j + 1];
                    sum += b[line.clone()].iter().zip(&a[line]).map(|(b, a)| b * a).sum::<f64>();
                }
                give(self.adapters.start + i, other.adapters.start + j, self.scalings[i] * other.scalings[j] * sum);
            }
        }
    }
}

/// `x·yᵀ` of `[m, width]` and `[n, width]`, in f64, a piece of columns at a time.
fn between(x: &[f32], y: &[f32], (m, n, width): (usize, usize, usize)) -> Vec<f64> {
    let mut sum = vec![0.0; m * n];
    if m == 0 || n == 0 || width == 0 {
        return sum;
    }
    for start in (0..width).step_by(SUM_BLOCK) {
        let columns = start..(start + SUM_BLOCK).min(width);
        let [x, y] = [x, y].map(|rows| -> Vec<f64> {
            rows.par_chunks(width).flat_map_iter(|row| row[columns.clone()].iter().map(|&v| f64::from(v))).collect()
        });
        add_rectangle(rows_of_mut(&mut sum, n), rows_of(&x, columns.len()), rows_of(&y, columns.len()).transpose());
    }
    sum
}
