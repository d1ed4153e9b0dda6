//! Proven lower bounds on the quotient distance, for all pairs at once.
//!
//! **Sketch.** For orthonormal directions `u_k` of the feature space and any matching `π`,
//! `Σ_i ‖a_i − b_π(i)‖² ≥ Σ_k Σ_i ⟨a_i − b_π(i), u_k⟩² + Σ_i (‖a_i^⊥‖ − ‖b_π(i)^⊥‖)²`, and each sum of squares over `i` is
//! smallest when both sides are sorted. So the sorted projections and sorted residual norms of a network form one vector,
//! and the Euclidean distance of two such vectors bounds the distance of their orbits: one matrix product for all pairs.
//! Where units may flip, absolute values are sorted. A matrix between two hidden spaces enters through its sorted rows and
//! columns (half each), sorted apart for each position of a kernel, which no permutation of the other space changes.
//!
//! **Groups.** References that resemble each other (snapshots of a run) share a small orthonormal basis. Inner products with
//! a query are exact inside the basis and at most the product of the residual norms outside it; the sum of row maxima of
//! these bounds exceeds every matching's value. Near-equal references have tiny residuals, so the bound is tight, and costs
//! a tenth of the exact products.

use super::pair::ROUNDING;
use super::{Prepared, Quotient};
use crate::layout::SpaceLayout;
use crate::product::{View, multiply};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Directions of the sketch.
const SKETCH: usize = 32;
/// Directions that all groups share.
const SHARED: usize = 64;
/// Units that the directions are fitted to, at most.
const SAMPLE: usize = 4096;
/// Power iterations; the directions only steer how tight the bound is.
const ITERATIONS: usize = 6;
/// A group's basis stops growing when no residual exceeds this part of the largest feature norm.
const RESIDUAL: f32 = 0.03;
/// Groups smaller than this on average are not worth a basis.
const MIN_GROUP: usize = 3;
/// Clusters whose bases are multiplied at once.
const PANEL: usize = 32;

/// What a search among references needs beside them.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Orthonormal directions a space, `[m, f]`.
    directions: Vec<Vec<f32>>,
    /// Sketches, `[n, s]`.
    pub(super) sketches: Vec<f32>,
    /// Their squared norms.
    pub(super) sketch_norms: Vec<f64>,
    /// Sorted coupling matrices of each reference.
    pub(super) extras: Vec<Vec<Extra>>,
    /// Groups with bases of their own, if that helps.
    pub(super) panels: Vec<Panel>,
}

/// Clusters whose bases stand below each other, for one large product.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) clusters: Vec<Cluster>,
    /// All clusters' bases, `[Σ r, f]` a space.
    bases: Vec<Vec<f32>>,
}

/// References that share a basis.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Indices of the references.
    pub(super) members: Vec<u32>,
    spaces: Vec<ClusterSpace>,
}

/// A cluster's view of one space.
#[derive(Debug, Clone)]
struct ClusterSpace {
    /// The rank of its basis, `r`.
    rank: usize,
    /// The basis' first row in the panel's.
    first: usize,
    /// Of each member's units: shared coordinates, own coordinates, residual norm, `[members·h, m + r + 1]`.
    coordinates: Vec<f32>,
}

impl Index {
    pub(super) fn build(quotient: &Quotient, references: &Prepared) -> Self {
        let directions: Vec<Vec<f32>> =
            (0..quotient.layout.spaces.len()).map(|k| principal_directions(quotient, references, k)).collect();
        let mut index = Self { directions, sketches: Vec::new(), sketch_norms: Vec::new(), extras: Vec::new(), panels: Vec::new() };
        index.sketches = index.sketch(quotient, references, 0..references.len);
        let width = index.sketches.len() / references.len.max(1);
        index.sketch_norms = (0..references.len).map(|i| squared_norm(&index.sketches[i * width..(i + 1) * width])).collect();
        index.extras =
            (0..references.len).into_par_iter().map(|i| sorted_couplings(quotient, references.couplings_of(i))).collect();
        let bounded = quotient.is_exact() && quotient.layout.spaces.iter().all(|s| !s.sign);
        if let Some(groups) = references.groups.as_ref().filter(|_| bounded) {
            let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            groups.iter().enumerate().for_each(|(i, &g)| members.entry(g).or_default().push(i as u32));
            if groups.len() >= MIN_GROUP * members.len() {
                let members: Vec<Vec<u32>> = members.into_values().collect();
                index.panels = members.par_chunks(PANEL).map(|m| index.panel(quotient, references, m)).collect();
            }
        }
        index
    }

    /// Sketches of a range of networks, `[range, s]`.
    pub(super) fn sketch(&self, quotient: &Quotient, networks: &Prepared, range: Range<usize>) -> Vec<f32> {
        let sketches: Vec<Vec<f32>> = range.into_par_iter().map(|i| self.sketch_one(quotient, networks, i)).collect();
        sketches.concat()
    }

    fn sketch_one(&self, quotient: &Quotient, networks: &Prepared, i: usize) -> Vec<f32> {
        let mut sketch = networks.rest_of(i).to_vec();
        for (k, space) in quotient.layout.spaces.iter().enumerate() {
            let (h, f) = (space.size, space.features);
            let units = networks.units_of(k, i);
            let m = (self.directions[k].len() / f.max(1)).min(SKETCH);
            let mut projections = vec![0.0; h * m];
            multiply(&mut projections, View::new(&self.directions[k], m, f), View::new(units, h, f).t(), false);
            let residual = |u: usize| {
                let inside: f64 = projections.iter().skip(u).step_by(h).map(|&p| f64::from(p).powi(2)).sum();
                (squared_norm(&units[u * f..(u + 1) * f]) - inside).max(0.0).sqrt() as f32
            };
            let residuals: Vec<f32> = (0..h).map(residual).collect();
            projections.chunks_exact_mut(h).for_each(|p| push_sorted(&mut sketch, p.iter().copied(), space.sign));
            push_sorted(&mut sketch, residuals.into_iter(), false);
        }
        for extra in sorted_couplings(quotient, networks.couplings_of(i)) {
            for column in 0..extra.width {
                push_sorted(&mut sketch, extra.values.iter().skip(column).step_by(extra.width).copied(), false);
            }
        }
        sketch
    }

    fn panel(&self, quotient: &Quotient, references: &Prepared, groups: &[Vec<u32>]) -> Panel {
        let mut panel = Panel { clusters: Vec::with_capacity(groups.len()), bases: vec![Vec::new(); quotient.layout.spaces.len()] };
        for members in groups {
            let space = |((k, space), bases): ((usize, &SpaceLayout), &mut Vec<f32>)| {
                let units: Vec<f32> = members.iter().flat_map(|&i| references.units_of(k, i as usize)).copied().collect();
                let (basis, coordinates) = adapt_basis(&self.directions[k], units, space.features, space.size + space.size / 2);
                let [first, rank] = [bases.len(), basis.len()].map(|len| len / space.features.max(1));
                bases.extend(basis);
                ClusterSpace { rank, first, coordinates }
            };
            let spaces = quotient.layout.spaces.iter().enumerate().zip(&mut panel.bases).map(space).collect();
            panel.clusters.push(Cluster { members: members.clone(), spaces });
        }
        panel
    }
}

/// Queries that are bounded together, with what does not depend on the cluster.
pub(super) struct QueryBlock<'a> {
    queries: &'a Prepared,
    range: Range<usize>,
    /// Shared coordinates of the units, `[block·h, m]` a space.
    shared: Vec<Vec<f32>>,
    /// Squared norms of the units, and what the shared directions leave of them, `[block·h]` a space.
    norms: Vec<Vec<(f64, f64)>>,
}

impl<'a> QueryBlock<'a> {
    pub(super) fn new(quotient: &Quotient, index: &Index, queries: &'a Prepared, range: Range<usize>) -> Self {
        let mut block = Self { queries, range, shared: Vec::new(), norms: Vec::new() };
        for (k, space) in quotient.layout.spaces.iter().enumerate() {
            let (f, units) = (space.features, block.units(k, space));
            let (m, rows) = (index.directions[k].len() / f.max(1), block.range.len() * space.size);
            let mut shared = vec![0.0; rows * m];
            multiply(&mut shared, View::new(units, rows, f), View::new(&index.directions[k], m, f).t(), false);
            let norms = (0..rows).map(|u| {
                let all = squared_norm(&units[u * f..(u + 1) * f]);
                (all, all - squared_norm(&shared[u * m..(u + 1) * m]))
            });
            block.norms.push(norms.collect());
            block.shared.push(shared);
        }
        block
    }

    fn units(&self, k: usize, space: &SpaceLayout) -> &'a [f32] {
        let width = space.size * space.features;
        &self.queries.units[k][self.range.start * width..self.range.end * width]
    }
}

impl Panel {
    /// Coordinates of a block's units in all bases of the panel, `[block·h, Σ r]` a space.
    pub(super) fn inside(&self, quotient: &Quotient, block: &QueryBlock<'_>) -> Vec<Vec<f32>> {
        let coordinates = |((k, space), bases): ((usize, &SpaceLayout), &Vec<f32>)| {
            let (rows, f) = (block.range.len() * space.size, space.features);
            let total = bases.len() / f.max(1);
            let mut inside = vec![0.0; rows * total];
            multiply(&mut inside, View::new(block.units(k, space), rows, f), View::new(bases, total, f).t(), false);
            inside
        };
        quotient.layout.spaces.iter().enumerate().zip(&self.bases).map(coordinates).collect()
    }
}

impl Cluster {
    /// Lower bounds on the squared distances from a block of queries to the members, `[block, members]`.
    pub(super) fn bounds(
        &self,
        quotient: &Quotient,
        block: &QueryBlock<'_>,
        references: &Prepared,
        inside: &[Vec<f32>],
    ) -> Vec<f32> {
        let count = self.members.len();
        let mut gains = vec![0.0_f64; block.range.len() * count];
        for (k, space) in quotient.layout.spaces.iter().enumerate() {
            let (h, rows, own) = (space.size, block.range.len() * space.size, &self.spaces[k]);
            let (m, total) = (block.shared[k].len() / rows.max(1), inside[k].len() / rows.max(1));
            let width = m + own.rank + 1;
            let mut coordinates = Vec::with_capacity(rows * width);
            for u in 0..rows {
                let inside = &inside[k][u * total + own.first..u * total + own.first + own.rank];
                let (all, left) = block.norms[k][u];
                coordinates.extend_from_slice(&block.shared[k][u * m..(u + 1) * m]);
                coordinates.extend_from_slice(inside);
                coordinates.push(((left - squared_norm(inside)).max(0.0) + ROUNDING * all).sqrt() as f32);
            }
            let mut bound = vec![0.0; rows * count * h];
            multiply(&mut bound, View::new(&coordinates, rows, width), View::new(&own.coordinates, count * h, width).t(), false);
            for (q, gains) in gains.chunks_exact_mut(count).enumerate() {
                let rows = &bound[q * h * count * h..(q + 1) * h * count * h];
                for (member, gain) in gains.iter_mut().enumerate() {
                    *gain += matching_bound(&rows[member * h..], h, count * h);
                }
            }
        }
        let squared = |(at, gain): (usize, &f64)| {
            let (q, j) = (block.range.start + at / count, self.members[at % count] as usize);
            let rest: f64 =
                block.queries.rest_of(q).iter().zip(references.rest_of(j)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let norms = block.queries.norms[q] + references.norms[j];
            (norms * (1.0 - ROUNDING) - 2.0 * (gain + rest)) as f32
        };
        gains.iter().enumerate().map(squared).collect()
    }
}

/// An upper bound on the value of every matching of an `[n, n]` block of rows `stride` apart.
///
/// For any `c`, `Σ_j c_j + Σ_i max_j (g_ij − c_j)` is one; `c` are the column maxima, or, transposed, the row maxima, whichever gives less.
pub(super) fn matching_bound(gain: &[f32], n: usize, stride: usize) -> f64 {
    const WIDE: usize = 64;
    if n > WIDE {
        return (0..n).map(|i| f64::from(row_maximum(&gain[i * stride..i * stride + n], &[0.0; WIDE]))).sum();
    }
    let (mut columns, mut rows) = ([f32::NEG_INFINITY; WIDE], [0.0_f32; WIDE]);
    for (i, by_row) in rows[..n].iter_mut().enumerate() {
        let row = &gain[i * stride..i * stride + n];
        for (m, &g) in columns.iter_mut().zip(row) {
            *m = if g > *m { g } else { *m };
        }
        *by_row = row_maximum(row, &[0.0; WIDE]);
    }
    let (mut below_columns, mut reduced) = (0.0_f64, [f32::NEG_INFINITY; WIDE]);
    for (i, &by_row) in rows[..n].iter().enumerate() {
        let row = &gain[i * stride..i * stride + n];
        below_columns += f64::from(row_maximum(row, &columns));
        for (m, &g) in reduced.iter_mut().zip(row) {
            *m = if g - by_row > *m { g - by_row } else { *m };
        }
    }
    let sum = |values: &[f32; WIDE]| values[..n].iter().map(|&v| f64::from(v)).sum::<f64>();
    (sum(&columns) + below_columns).min(sum(&rows) + sum(&reduced))
}

/// The maximum of `row − shift` in eight lanes; a shift that is too short counts as 0.
fn row_maximum(row: &[f32], shift: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let mut shifts = shift.chunks_exact(8);
    for chunk in row.chunks(8) {
        let shift = shifts.next().unwrap_or(&[0.0; 8]);
        for ((m, &g), s) in lanes.iter_mut().zip(chunk).zip(shift) {
            *m = if g - s > *m { g - s } else { *m };
        }
    }
    lanes.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l))
}

/// Features of the units of one space that stand for one coupling matrix in bounds: `[h, width]`.
#[derive(Debug, Clone)]
pub(super) struct Extra {
    pub(super) space: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// Sorted rows and columns of the coupling matrices, halved in square so that both together count once.
pub(super) fn sorted_couplings(quotient: &Quotient, mut couplings: &[f32]) -> Vec<Extra> {
    let mut extras = Vec::new();
    for c in &quotient.layout.couplings {
        let (out, into) = (&quotient.layout.spaces[c.out.space], &quotient.layout.spaces[c.into.space]);
        let sign = out.sign || into.sign;
        let (tensor, tail) = couplings.split_at(c.range.len());
        couplings = tail;
        let half = |w: &f32| w * std::f32::consts::FRAC_1_SQRT_2;
        let (mut by_row, mut by_column) = (Vec::with_capacity(tensor.len()), Vec::with_capacity(tensor.len()));
        // Permuting the other end only rearranges a unit's weights, position by position: a kernel's stay in their places.
        let (width, block) = (c.cols * c.rest, c.into.inner * c.rest);
        let unit = tensor.len() / out.size;
        for row in tensor.chunks_exact(unit) {
            for (part, at) in row.chunks_exact(width).flat_map(|part| (0..block).map(move |at| (part, at))) {
                push_sorted(&mut by_row, part.iter().skip(at).step_by(block).map(half), sign);
            }
        }
        for column in 0..into.size {
            for (inner, at) in (0..unit / width).flat_map(|inner| (0..block).map(move |at| (inner, at))) {
                let of_unit = tensor[inner * width + column * block + at..].iter().step_by(unit);
                push_sorted(&mut by_column, of_unit.map(half), sign);
            }
        }
        extras.push(Extra { space: c.out.space, width: unit, values: by_row });
        extras.push(Extra { space: c.into.space, width: tensor.len() / into.size, values: by_column });
    }
    extras
}

fn push_sorted(target: &mut Vec<f32>, values: impl Iterator<Item = f32>, absolute: bool) {
    let start = target.len();
    target.extend(values.map(|v| if absolute { v.abs() } else { v }));
    target[start..].sort_unstable_by(f32::total_cmp);
}

/// Orthonormal directions of high energy of the pooled unit features of space `k`, `[m, f]`.
///
/// # References
/// Subspace iteration, Halko, Martinsson & Tropp 2011, Algorithm 4.4.
fn principal_directions(quotient: &Quotient, networks: &Prepared, k: usize) -> Vec<f32> {
    let (h, f) = (quotient.layout.spaces[k].size, quotient.layout.spaces[k].features);
    let total = networks.len * h;
    let m = SHARED.min(f);
    if total == 0 || m == 0 {
        return Vec::new();
    }
    let count = total.min(SAMPLE);
    let pick = |s: usize| {
        let u = s * total / count;
        &networks.units[k][u * f..(u + 1) * f]
    };
    let sample: Vec<f32> = (0..count).flat_map(pick).copied().collect();
    let sample = View::new(&sample, count, f);
    let mut directions = quotient.options.seed.fork("directions").index(k as u64).normals(m * f);
    let mut projected = vec![0.0; m * count];
    let mut rank = orthonormalize(&mut directions, f, 0);
    for _ in 0..ITERATIONS {
        let projected = &mut projected[..rank * count];
        multiply(projected, View::new(&directions, rank, f), sample.t(), false);
        multiply(&mut directions[..rank * f], View::new(projected, rank, count), sample, false);
        directions.truncate(rank * f);
        rank = orthonormalize(&mut directions, f, 0);
    }
    directions.truncate(rank * f);
    directions
}

/// Makes the rows from `first` on orthonormal (modified Gram–Schmidt, twice); rows that vanish are dropped. Returns the number of rows
/// that are left at the front.
fn orthonormalize(rows: &mut [f32], f: usize, first: usize) -> usize {
    let mut kept = first;
    for at in first..rows.len() / f {
        rows.copy_within(at * f..(at + 1) * f, kept * f);
        let (done, row) = rows.split_at_mut(kept * f);
        let row = &mut row[..f];
        let before = norm(row);
        for _ in 0..2 {
            done.chunks_exact(f).for_each(|d| subtract(row, d, dot(row, d)));
        }
        let after = norm(row);
        if after > 1e-4 * before {
            for x in row.iter_mut() {
                *x /= after;
            }
            kept += 1;
        }
    }
    kept
}

/// Chooses a basis for what the shared directions leave of a cluster's units, always the largest residual next.
///
/// Returns the basis, orthonormal and orthogonal to the shared directions, `[r, f]`, and the units' coordinates.
fn adapt_basis(shared: &[f32], mut units: Vec<f32>, f: usize, max_rank: usize) -> (Vec<f32>, Vec<f32>) {
    let (m, count) = (shared.len() / f.max(1), units.len() / f.max(1));
    let norms: Vec<f64> = units.chunks_exact(f.max(1)).map(squared_norm).collect();
    let tolerance = RESIDUAL * norms.iter().copied().fold(0.0, f64::max).sqrt() as f32;
    let mut inside = vec![0.0; count * m];
    multiply(&mut inside, View::new(&units, count, f), View::new(shared, m, f).t(), false);
    let mut projection = vec![0.0; units.len()];
    multiply(&mut projection, View::new(&inside, count, m), View::new(shared, m, f), false);
    units.iter_mut().zip(&projection).for_each(|(u, p)| *u -= p);
    let mut rows = shared.to_vec();
    let mut own: Vec<Vec<f32>> = Vec::new();
    let mut left: Vec<f32> = units.chunks_exact(f.max(1)).map(norm).collect();
    while own.len() < max_rank.min(f - m.min(f)) {
        let Some(pivot) = (0..count).max_by(|&i, &j| left[i].total_cmp(&left[j])).filter(|&i| left[i] > tolerance) else { break };
        rows.extend_from_slice(&units[pivot * f..(pivot + 1) * f]);
        let kept = rows.len() / f - 1;
        if orthonormalize(&mut rows, f, kept) == kept {
            rows.truncate(kept * f);
            break;
        }
        let direction = &rows[kept * f..];
        let mut coordinates = Vec::with_capacity(count);
        for (unit, left) in units.chunks_exact_mut(f).zip(&mut left) {
            let c = dot(unit, direction);
            subtract(unit, direction, c);
            *left = (*left * *left - c * c).max(0.0).sqrt();
            coordinates.push(c);
        }
        own.push(coordinates);
    }
    let width = m + own.len() + 1;
    let mut coordinates = Vec::with_capacity(count * width);
    for u in 0..count {
        coordinates.extend_from_slice(&inside[u * m..(u + 1) * m]);
        coordinates.extend(own.iter().map(|c| c[u]));
        let residual = f64::from(norm(&units[u * f..(u + 1) * f]));
        coordinates.push((residual * residual + ROUNDING * norms[u]).sqrt() as f32);
    }
    (rows.split_off(m * f), coordinates)
}

/// An inner product in eight lanes, so that it vectorizes with a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// The squared norm in `f64`.
pub(super) fn squared_norm(a: &[f32]) -> f64 {
    a.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

fn norm(a: &[f32]) -> f32 {
    dot(a, a).sqrt()
}

fn subtract(target: &mut [f32], direction: &[f32], factor: f32) {
    target.iter_mut().zip(direction).for_each(|(t, d)| *t -= factor * d);
}
