//! The continuous part of the canonical form: every gauge is fixed in closed form, but for signs and order.
//!
//! 1. Constants go where they end: biases of 0 where another bias absorbs them, tables of mean 0, writers to a layer norm of
//!    mean 0 over units, batch norms with mean 0 and variance 1.
//! 2. Norms' gains become 1 where what reads (or, for batch norm, writes) them takes the factor.
//! 3. Scales are balanced.
//! 4. Matrix gauges: with `P` what writes to the coordinates of a block and `Q` what reads them, `PᵀQ` is what the network
//!    computes. Its singular value decomposition `U·S·Vᵀ` gives `P = √S·Uᵀ`, `Q = √S·Vᵀ`: balanced, and ordered by `S`. Rotary
//!    pairs allow less: `P` and `Q` get equal norms a pair, and the pair's principal axis becomes its first coordinate.
//!
//! 5. A sign that all units share makes the sum of cubes of their weights positive.
//!
//! Weights along what a layer norm never writes are cleared after the gains, the constant input of maps without bias comes last.
//! Signs of single coordinates stay open; matching chooses them together with permutations.

use crate::balance::balance_f64;
use crate::error::{Result, check_len};
use crate::group::{Commutant, Factor, Fold, Gauge, GaugeAxis, Sign};
use crate::linalg::{settle, upper_triangle};
use crate::transform::{Step, Transform, inverse_gain};
use crate::{Error, Group};
use faer::{Mat, MatRef};
use rayon::prelude::*;
use weft_core::RopePairs;

/// What counts as rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Precision {
    /// Scales and matrices this close to the identity are the identity.
    snap: f64,
    /// Singular values that differ by less than this part of the largest count as one, and less than this part as 0.
    tie: f64,
}

impl Precision {
    /// For weights that were rounded to `f32`.
    pub(crate) const F32: Self = Self { snap: 1e-5, tie: 1e-3 };
    /// For weights in `f64`.
    pub(crate) const F64: Self = Self { snap: 1e-12, tie: 1e-7 };
}

/// What was done to a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fixed {
    pub(crate) transform: Transform,
    /// Scales, gains and directions that the weights leave undetermined.
    pub(crate) ill_conditioned: usize,
}

/// Rounds of balancing and gauges, where one moves the other.
const MAX_ROUNDS: usize = 200;

/// Fixes the continuous symmetries of a row in place.
pub(crate) fn fix(group: &Group, row: &mut [f64], precision: Precision) -> Result<Fixed> {
    check_len("row", row.len(), group.architecture().num_parameters())?;
    let mut fixed = Fixed { transform: Transform::default(), ill_conditioned: 0 };
    fix_folds(group, row, (&mut fixed, precision), |f| !matches!(f, Fold::Unread { .. } | Fold::Constant { .. }))?;
    unit_gains(group, row, &mut fixed, precision)?;
    fix_folds(group, row, (&mut fixed, precision), |f| matches!(f, Fold::Unread { .. }))?;
    // A norm's bias that nothing absorbs has come out of the maps behind it as constants.
    fix_folds(group, row, (&mut fixed, precision), |f| matches!(f, Fold::Shift { .. }))?;
    for round in 0..MAX_ROUNDS {
        let balanced = balance_f64(group, row, precision.snap)?;
        let mut moved = !balanced.element.is_identity();
        let mut ill_conditioned = balanced.ill_conditioned;
        if moved {
            take(group, Step::Units(balanced.element), row, &mut fixed)?;
        }
        for (index, gauge) in group.gauges().iter().enumerate() {
            let (matrices, ill) = gauge_matrices(group, gauge, row, precision);
            ill_conditioned += ill;
            if let Some(matrices) = matrices {
                take(group, Step::Gauge(index, matrices), row, &mut fixed)?;
                moved = true;
            }
        }
        if !moved || !interact(group) || round + 1 == MAX_ROUNDS {
            fixed.ill_conditioned += ill_conditioned;
            break;
        }
    }
    common_signs(group, row, &mut fixed)?;
    // Last, since a bias of 1 does not survive a change of sign.
    fix_folds(group, row, (&mut fixed, precision), |f| matches!(f, Fold::Constant { .. }))?;
    Ok(fixed)
}

/// Brings the folds of some kinds to their fixed form, in order.
fn fix_folds(
    group: &Group,
    row: &mut [f64],
    (fixed, precision): (&mut Fixed, Precision),
    which: impl Fn(&Fold) -> bool,
) -> Result<()> {
    for (index, fold) in group.folds().iter().enumerate().filter(|(_, fold)| which(fold)) {
        let values = fold_values(group, fold, row, precision)?;
        if values.iter().any(|v| !v.is_finite()) {
            fixed.ill_conditioned += values.len(); // a gain of 0, or a bias that has no part along 1/γ
        } else if values.iter().any(|v| v.abs() > 0.0) {
            take(group, Step::Fold(index, statistics(fold, values)), row, fixed)?;
        }
    }
    Ok(())
}

/// Flips spaces whose units change sign all together so that the sum of cubes of what they are written by is positive.
fn common_signs(group: &Group, row: &mut [f64], fixed: &mut Fixed) -> Result<()> {
    for (k, space) in group.spaces().iter().enumerate() {
        for (c, _) in space.classes.iter().enumerate().filter(|(_, class)| class.sign == Sign::Common) {
            let mut sum = 0.0;
            // What feels the class and a follower, as a norm's gain does, feels neither.
            let moves = |f: &&Factor| f.class == c || space.classes[c].followers.contains(&f.class);
            let odd = |a: &&crate::SpaceAxis| a.factors.iter().filter(moves).count() % 2 == 1;
            let writes = |a: &&crate::SpaceAxis| a.factors.iter().any(|f| f.class == c && !f.inverse);
            for axis in space.axes.iter().filter(odd).filter(writes) {
                let spec = &group.architecture().tensors()[axis.tensor];
                // The other end must not change sign, or the sum would not be the orbit's.
                let other = group.hidden(axis.tensor, 1 - axis.axis).is_some_and(|(j, _)| group.spaces()[j].sign());
                // A norm's gain feels the class on its other side too: earlier classes are fixed already.
                let open = |f: &&Factor| {
                    f.class > c && space.classes[f.class].gain.is_none() && space.classes[f.class].sign != Sign::Fixed
                };
                let later = axis.factors.iter().any(|f| open(&f));
                if !other && !later {
                    sum += row[spec.range()].iter().map(|w| w.powi(3)).sum::<f64>();
                }
            }
            if sum < 0.0 {
                let mut element = group.identity();
                for class in std::iter::once(c).chain(space.classes[c].followers.iter().copied()) {
                    let first = space.first_scale(class);
                    element.spaces[k].scale[first..first + space.classes[class].entries(space)].fill(-1.0);
                }
                take(group, Step::Units(element), row, fixed)?;
            }
        }
    }
    Ok(())
}

fn take(group: &Group, step: Step, row: &mut [f64], fixed: &mut Fixed) -> Result<()> {
    group.take(&step, row)?;
    fixed.transform.steps.push(step);
    Ok(())
}

/// Whether some tensor is scaled on one axis and mixed on another, so that balancing and gauges move each other.
fn interact(group: &Group) -> bool {
    let mixed = |tensor: usize| group.gauges().iter().any(|g| g.writers.iter().chain(&g.readers).any(|a| a.tensor == tensor));
    let scaled = |space: &crate::HiddenSpace| {
        let balanced = |c: usize| space.classes[c].positive && space.classes[c].gain.is_none();
        space.axes.iter().any(|a| mixed(a.tensor) && a.factors.iter().any(|f| balanced(f.class)))
    };
    let shared = |gauge: &Gauge| {
        let tensors = || gauge.writers.iter().chain(&gauge.readers).map(|a| a.tensor);
        group
            .gauges()
            .iter()
            .any(|g| !std::ptr::eq(g, gauge) && g.writers.iter().chain(&g.readers).any(|a| tensors().any(|t| t == a.tensor)))
    };
    group.spaces().iter().any(scaled) || group.gauges().iter().any(shared)
}

/// The values that bring a fold to its fixed form; all 0 if it has it. Those of statistics are made relative to no change.
fn fold_values(group: &Group, fold: &Fold, row: &[f64], precision: Precision) -> Result<Vec<f64>> {
    let tensors = group.architecture().tensors();
    let values = |t: usize| &row[tensors[t].range()];
    // What rounding leaves of a mean of `n` numbers is not worth another change.
    let snap = |mean: f64, rms: f64| if mean.abs() <= precision.snap * 0.1 * rms { 0.0 } else { -mean };
    Ok(match *fold {
        Fold::Shift { emitter, .. } => {
            let width = fold.num_values(group.architecture());
            let rows = tensors[emitter].num_values() / width.max(1);
            let column = |j: usize| {
                let column = || values(emitter).iter().skip(j).step_by(width);
                let mean = column().sum::<f64>() / rows as f64;
                if rows == 1 { -mean } else { snap(mean, (column().map(|v| v * v).sum::<f64>() / rows as f64).sqrt()) }
            };
            (0..width).map(column).collect()
        }
        Fold::Center { tensor, axis } => {
            let shape = &tensors[tensor].shape;
            let (width, rest) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
            let values = values(tensor);
            let position = |p: usize| {
                let start = p / rest * rest * width + p % rest;
                let along = || values[start..].iter().step_by(rest).take(width);
                snap(along().sum::<f64>() / width as f64, (along().map(|v| v * v).sum::<f64>() / width as f64).sqrt())
            };
            (0..fold.num_values(group.architecture())).map(position).collect()
        }
        Fold::Unread { weight, gain, .. } => {
            let width = tensors[weight].shape[1];
            let inverse = inverse_gain(group.architecture(), gain, width, row);
            let size: f64 = inverse.iter().map(|g| g * g).sum();
            let part = |w: &[f64]| {
                let along = w.iter().zip(&inverse).map(|(w, g)| w * g).sum::<f64>() / size;
                let rms = (w.iter().map(|w| w * w).sum::<f64>() / size).sqrt();
                snap(along, rms)
            };
            values(weight).chunks_exact(width).map(part).collect()
        }
        Fold::Constant { gain, bias, .. } => {
            let inverse = inverse_gain(group.architecture(), gain, values(bias).len(), row);
            let d = inverse.len() as f64;
            let excess: Vec<f64> = values(bias).iter().zip(&inverse).map(|(b, g)| (b * g - 1.0) / d).collect();
            let determinant = 1.0 + excess.iter().sum::<f64>();
            if excess.iter().all(|e| e.abs() * d <= precision.snap * 0.1) {
                vec![0.0; excess.len()]
            } else if determinant.abs() < precision.tie * 0.01 {
                vec![f64::NAN; excess.len()]
            } else {
                excess
            }
        }
        Fold::Statistics { mean, variance, epsilon, .. } => {
            let mut changes = Vec::new();
            for (index, &value) in values(variance).iter().enumerate() {
                let total = value + epsilon;
                if total.is_nan() || total <= 0.0 {
                    return Err(Error::Variance { tensor: tensors[variance].name.clone(), index, value });
                }
                let factor = 1.0 / total.sqrt() - 1.0;
                changes.push(if factor.abs() <= precision.snap { 0.0 } else { factor });
            }
            changes.extend(values(mean).iter().map(|m| if *m == 0.0 { 0.0 } else { -m }));
            changes
        }
    })
}

/// Turns relative changes of standard deviations into factors.
fn statistics(fold: &Fold, mut values: Vec<f64>) -> Vec<f64> {
    if let Fold::Statistics { .. } = fold {
        let factors = values.len() / 2;
        values[..factors].iter_mut().for_each(|v| *v += 1.0);
    }
    values
}

/// Makes norms' gains 1 where the scales of a class can take them.
fn unit_gains(group: &Group, row: &mut [f64], fixed: &mut Fixed, precision: Precision) -> Result<()> {
    let mut element = group.identity();
    for (space, part) in group.spaces().iter().zip(&mut element.spaces) {
        for (c, class) in space.classes.iter().enumerate() {
            let Some(gain) = class.gain else { continue };
            let Some(axis) = space.axes.iter().find(|a| a.tensor == gain) else { continue };
            // A batch norm's gain is divided by the scale of what it reads, a layer norm's multiplied by that of what it writes.
            let divides = axis.factors.iter().any(|f| f.class == c && f.inverse);
            let first = space.first_scale(c);
            for (scale, &g) in
                part.scale[first..first + class.entries(space)].iter_mut().zip(&row[group.architecture().tensors()[gain].range()])
            {
                if g.abs() < 1e-30 {
                    fixed.ill_conditioned += 1;
                } else if (g - 1.0).abs() > precision.snap * 0.1 {
                    *scale = if divides { g } else { 1.0 / g };
                }
            }
        }
    }
    if !element.is_identity() {
        take(group, Step::Units(element), row, fixed)?;
    }
    Ok(())
}

/// The matrices that bring a gauge to its canonical form, or none if it has it; and the directions that are undetermined.
fn gauge_matrices(group: &Group, gauge: &Gauge, row: &[f64], precision: Precision) -> (Option<Vec<f64>>, usize) {
    let b = gauge.size;
    let of_block = |block: usize| {
        let [p, q] = [&gauge.writers, &gauge.readers].map(|axes| gather(group, axes, b, block, row));
        match gauge.commutant {
            Commutant::All => {
                let found = balanced_svd(p.as_ref(), q.as_ref(), precision);
                settle();
                found
            }
            Commutant::Pairs(pairs) => balanced_pairs(p.as_ref(), q.as_ref(), pairs, precision),
        }
    };
    let found: Vec<(Option<Vec<f64>>, usize)> = (0..gauge.blocks).into_par_iter().map(of_block).collect();
    let ill = found.iter().map(|(_, ill)| ill).sum();
    if found.iter().all(|(matrix, _)| matrix.is_none()) {
        return (None, ill);
    }
    let identity = || (0..b * b).map(|i| if i / b == i % b { 1.0 } else { 0.0 }).collect();
    (Some(found.into_iter().flat_map(|(matrix, _)| matrix.unwrap_or_else(identity)).collect()), ill)
}

/// The weights of one block, `[m, b]`: a row for everything that runs over its coordinates.
fn gather(group: &Group, axes: &[GaugeAxis], size: usize, block: usize, row: &[f64]) -> Mat<f64> {
    let mut vectors: Vec<f64> = Vec::new();
    for of in axes {
        let spec = &group.architecture().tensors()[of.tensor];
        let values = &row[spec.range()];
        let rest: usize = spec.shape[of.axis + 1..].iter().product();
        let (stride, per_row) = (rest * of.fine, spec.shape[of.axis] * rest);
        for start in (0..spec.shape[..of.axis].iter().product::<usize>()).map(|b| b * per_row) {
            for member in 0..of.members {
                let first = start + (block * of.members + member) * size * stride;
                for p in 0..stride {
                    vectors.extend(values[first + p..].iter().step_by(stride).take(size));
                }
            }
        }
    }
    let rows = vectors.len() / size;
    Mat::from_fn(rows, size, |i, j| vectors[i * size + j])
}

/// `g` with `g·Pᵀ = √S·Uᵀ` and `g⁻ᵀ·Qᵀ = √S·Vᵀ` for `P·Qᵀ = U·S·Vᵀ`, given as rows that run over the coordinates; none if that is so.
///
/// With `P = Q_P·R_P`, `Q = Q_Q·R_Q` and the small decomposition `R_P·R_Qᵀ = U·S·Vᵀ` it is `g = S^(−½)·Vᵀ·R_Q`. A singular value near 0
/// leaves the block as it is.
fn balanced_svd(p: MatRef<'_, f64>, q: MatRef<'_, f64>, precision: Precision) -> (Option<Vec<f64>>, usize) {
    let b = p.ncols();
    if p.nrows() < b || q.nrows() < b {
        return (None, b);
    }
    let (r_p, r_q) = (upper_triangle(p), upper_triangle(q));
    let core = &r_p * r_q.transpose();
    let Ok(svd) = core.svd() else { return (None, b) };
    let s: Vec<f64> = (0..b).map(|i| svd.S()[i]).collect();
    if s[0].is_nan() || s[0] <= 0.0 || s[b - 1] < 1e-9 * s[0] {
        return (None, b);
    }
    let tied = |i: usize| {
        let near = |j: usize| (s[i] - s[j]).abs() < precision.tie * s[0];
        s[i] < precision.tie * s[0] || (i > 0 && near(i - 1)) || (i + 1 < b && near(i + 1))
    };
    let ill = (0..b).filter(|&i| tied(i)).count();
    if is_canonical(p, q, &s, precision) {
        return (None, ill);
    }
    let v = svd.V();
    let mut g = v.transpose() * &r_q;
    for i in 0..b {
        let scale = 1.0 / s[i].sqrt();
        (0..b).for_each(|j| g[(i, j)] *= scale);
    }
    // The sign that makes the largest written weight positive: something definite, until matching decides.
    for i in 0..b {
        let written = p * g.row(i).transpose();
        let largest = (0..written.nrows()).map(|k| written[k]).fold(0.0_f64, |m, w| if w.abs() > m.abs() { w } else { m });
        if largest < 0.0 {
            (0..b).for_each(|j| g[(i, j)] = -g[(i, j)]);
        }
    }
    (Some(crate::linalg::row_major(g.as_ref())), ill)
}

/// Whether both sides have the Gram matrix `diag(s)` up to rounding.
fn is_canonical(p: MatRef<'_, f64>, q: MatRef<'_, f64>, s: &[f64], precision: Precision) -> bool {
    [p, q].into_iter().all(|side| {
        let gram = side.transpose() * side;
        let fits = |i: usize, j: usize| {
            let expected = if i == j { s[i] } else { 0.0 };
            (gram[(i, j)] - expected).abs() <= precision.snap * 0.1 * (s[i] * s[j]).sqrt()
        };
        (0..s.len()).all(|i| (0..s.len()).all(|j| fits(i, j)))
    })
}

/// The same for rotary pairs: a rotation and a scale each.
fn balanced_pairs(p: MatRef<'_, f64>, q: MatRef<'_, f64>, pairs: RopePairs, precision: Precision) -> (Option<Vec<f64>>, usize) {
    let b = p.ncols();
    let (mut matrix, mut ill, mut changed) = (vec![0.0; b * b], 0, false);
    for pair in 0..b / 2 {
        let (x, y) = coordinates(pairs, pair, b);
        let gram = |m: MatRef<'_, f64>| {
            let dot = |i: usize, j: usize| (0..m.nrows()).map(|r| m[(r, i)] * m[(r, j)]).sum::<f64>();
            [dot(x, x), dot(x, y), dot(y, y)]
        };
        let (of_p, of_q) = (gram(p), gram(q));
        let (norm_p, norm_q) = (of_p[0] + of_p[2], of_q[0] + of_q[2]);
        let mut turn = [1.0, 0.0];
        if norm_p > 0.0 && norm_q > 0.0 {
            let scale = (norm_q / norm_p).sqrt().sqrt();
            let both = [0, 1, 2].map(|i| of_p[i] * scale * scale + of_q[i] / (scale * scale));
            let (difference, twice) = (both[0] - both[2], 2.0 * both[1]);
            let spread = difference.hypot(twice) / (both[0] + both[2]);
            ill += if spread < precision.tie { 2 } else { 0 };
            let angle = -0.5 * twice.atan2(difference); // turns the principal axis into the first coordinate
            let is_one = (scale - 1.0).abs() < precision.snap && angle.abs() * spread < precision.snap;
            if !is_one {
                changed = true;
                turn = [scale * angle.cos(), scale * angle.sin()];
            }
        } else {
            ill += 2;
        }
        matrix[x * b + x] = turn[0];
        matrix[x * b + y] = -turn[1];
        matrix[y * b + x] = turn[1];
        matrix[y * b + y] = turn[0];
    }
    (changed.then_some(matrix), ill)
}

fn coordinates(pairs: RopePairs, pair: usize, size: usize) -> (usize, usize) {
    match pairs {
        RopePairs::Interleaved => (2 * pair, 2 * pair + 1),
        RopePairs::Halves => (pair, pair + size / 2),
    }
}

/// A matrix that a gauge allows, from a square of normal numbers.
pub(crate) fn random_block(gauge: &Gauge, noise: &[f64]) -> Vec<f64> {
    let b = gauge.size;
    let mut matrix = vec![0.0; b * b];
    match gauge.commutant {
        Commutant::All => {
            for (i, (m, z)) in matrix.iter_mut().zip(noise).enumerate() {
                *m = 0.4 / (b as f64).sqrt() * z + if i / b == i % b { 1.0 } else { 0.0 };
            }
        }
        Commutant::Pairs(pairs) => {
            for pair in 0..b / 2 {
                let (x, y) = coordinates(pairs, pair, b);
                let (scale, angle) = ((0.3 * noise[x * b + y]).exp(), noise[y * b + x]);
                matrix[x * b + x] = scale * angle.cos();
                matrix[y * b + y] = scale * angle.cos();
                matrix[x * b + y] = -scale * angle.sin();
                matrix[y * b + x] = scale * angle.sin();
            }
        }
    }
    matrix
}
