//! Balanced scales: the representative of a network's scale orbit with the smallest weights.
//!
//! With log-scales `t`, the squared norm of the weights is a sum of terms `E·exp(2(t_i − t_j))`: convex, with a
//! unique minimum once units without incoming or outgoing weight are left alone. There every unit's incoming and
//! outgoing squared norms are equal. Coordinate descent has the closed form `s⁴ = outgoing / incoming`; units of a variable that no
//! weight connects move at once. Along one log-scale the norm is a hyperbolic cosine around its minimum, so steps up to twice as long
//! lower it as well: descent over-relaxes by what its own rate of convergence asks for.
//!
//! A batch norm's gain stands between two classes of scales; it is 1 here, and the class before it follows the one behind.

use crate::error::{Result, check_len};
use crate::group::SpaceAxis;
use crate::{Element, Group};
use rayon::prelude::*;

/// Log-scale change below which a sweep counts as a fixed point.
const TOLERANCE: f64 = 1e-13;
/// An `f32` row whose scales are all this close to 1 is balanced already: its rounding explains the rest.
const SNAP: f64 = 1e-5;
/// Sweeps after which the descent ends in any case; networks need tens.
const MAX_SWEEPS: usize = 10_000;
/// Sweeps between two looks at the rate of convergence.
const RATE_SWEEPS: usize = 8;
/// Steps are at most this many times as long as to the minimum along one log-scale.
const MAX_RELAXATION: f64 = 1.95;
/// Variables that meet more energies than this are shared between threads.
const PARALLEL_WORK: usize = 1 << 16;

/// The scales that balance a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Balanced {
    /// Scales without permutations; exactly the identity for a balanced row.
    pub element: Element,
    /// Units whose scale is undetermined, since nothing comes in or nothing goes out. They keep scale 1.
    pub ill_conditioned: usize,
}

/// Squared weights between two families of scales, or within one.
struct Edge {
    out: usize,
    into: usize,
    /// `[scales of out, scales of into]`, 0 where a unit meets itself: no scale changes that weight.
    energy: Vec<f64>,
    /// Its transpose.
    transposed: Vec<f64>,
}

/// The balancing problem of one row. A variable is a class of positive scales.
struct Problem<'a> {
    group: &'a Group,
    /// Space and class of each variable.
    variables: Vec<(usize, usize)>,
    scales: Vec<Vec<f64>>,
    /// `s²` of all scales.
    squares: Vec<Vec<f64>>,
    /// `1/s²` of all scales.
    inverses: Vec<Vec<f64>>,
    /// Squared norm that a scale multiplies alone, a variable.
    incoming: Vec<Vec<f64>>,
    /// Squared norm that it divides alone.
    outgoing: Vec<Vec<f64>>,
    edges: Vec<Edge>,
}

/// Finds the positive scales that minimize the squared norm of the weights.
///
/// # Errors
/// [`crate::Error::Length`] if the row does not fit the architecture.
///
/// # References
/// Path-norm balancing as in Neyshabur, Salakhutdinov & Srebro 2015; the fixed point is the matrix balancing of Osborne 1960.
pub fn balance(group: &Group, row: &[f32]) -> Result<Balanced> {
    let wide: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
    balance_f64(group, &wide, SNAP)
}

/// The same in `f64`; scales within `snap` of 1 count as 1 if all are.
pub(crate) fn balance_f64(group: &Group, row: &[f64], snap: f64) -> Result<Balanced> {
    check_len("row", row.len(), group.architecture().num_parameters())?;
    let mut problem = Problem::new(group, row);
    let mut ill_conditioned = 0;
    let mut free: Vec<Vec<bool>> = Vec::with_capacity(problem.variables.len());
    for v in 0..problem.variables.len() {
        let live = |(a, b): (f64, f64)| a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite();
        let live: Vec<bool> = problem.all_energies(v).into_iter().map(live).collect();
        ill_conditioned += live.iter().filter(|&&l| !l).count();
        free.push(live);
    }
    let (mut relaxation, mut earlier) = (1.0, f64::INFINITY);
    for sweep in 1..=MAX_SWEEPS {
        let changes = free.iter().enumerate().map(|(v, live)| problem.descend(v, live, relaxation));
        let largest = changes.fold(0.0, f64::max);
        if largest < TOLERANCE {
            break;
        }
        if sweep % RATE_SWEEPS == 0 {
            let rate = (largest / earlier).powf(1.0 / RATE_SWEEPS as f64);
            (relaxation, earlier) = (relaxed(relaxation, rate), largest);
        }
    }
    let mut element = group.identity();
    if problem.scales.iter().flatten().any(|s| (s - 1.0).abs() >= snap) {
        for (&(k, c), scales) in problem.variables.iter().zip(&problem.scales) {
            let space = &group.spaces()[k];
            for class in std::iter::once(c).chain(space.classes[c].followers.iter().copied()) {
                let first = space.first_scale(class);
                element.spaces[k].scale[first..first + scales.len()].copy_from_slice(scales);
            }
        }
    }
    Ok(Balanced { element, ill_conditioned })
}

/// The over-relaxation that a descent with `relaxation` and the given rate of convergence asks for.
///
/// With `r` the rate and `ω` the relaxation, `(r + ω − 1)² = r·ω²·μ²` for the rate `μ` of simultaneous steps; `2/(1 + √(1 − μ²))` is best.
///
/// # References
/// Young 1954; Hageman & Young 1981, Chapter 9.
fn relaxed(relaxation: f64, rate: f64) -> f64 {
    if rate <= relaxation - 1.0 || rate >= 1.0 {
        return relaxation; // long enough, or too early to tell
    }
    let simultaneous = (rate + relaxation - 1.0).powi(2) / (rate * relaxation * relaxation);
    (2.0 / (1.0 + (1.0 - simultaneous).max(0.0).sqrt())).clamp(relaxation, MAX_RELAXATION)
}

impl<'a> Problem<'a> {
    fn new(group: &'a Group, row: &[f64]) -> Self {
        let classes = group.spaces().iter().enumerate().flat_map(|(k, s)| (0..s.classes.len()).map(move |c| (k, c)));
        let balanced = |&(k, c): &(usize, usize)| {
            let class = &group.spaces()[k].classes[c];
            class.positive && class.gain.is_none()
        };
        let variables: Vec<(usize, usize)> = classes.filter(balanced).collect();
        let fill = |value: f64| -> Vec<Vec<f64>> {
            let len = |&(k, c): &(usize, usize)| group.spaces()[k].classes[c].entries(&group.spaces()[k]);
            variables.iter().map(|v| vec![value; len(v)]).collect()
        };
        let [scales, squares, inverses] = [fill(1.0), fill(1.0), fill(1.0)];
        let [incoming, outgoing] = [fill(0.0), fill(0.0)];
        let mut problem = Self { group, variables, scales, squares, inverses, incoming, outgoing, edges: Vec::new() };
        for (tensor, spec) in group.architecture().tensors().iter().enumerate() {
            let ends = [0, 1].map(|axis| problem.end(tensor, axis, spec.shape.get(axis).copied().unwrap_or(1)));
            let cols = spec.shape.get(1).copied().unwrap_or(1);
            let rest: usize = spec.shape.iter().skip(2).product();
            let square = |w: &[f64]| w.iter().map(|w| w * w).sum::<f64>();
            let add = |list: &mut [f64], entries: &[usize], along: usize| {
                for (at, w) in row[spec.range()].chunks_exact(rest).enumerate() {
                    list[entries[if along == 0 { at / cols } else { at % cols }]] += square(w);
                }
            };
            match &ends {
                [None, None] => {}
                [Some((v, sign, entries)), None] => {
                    let list = if *sign > 0 { &mut problem.incoming } else { &mut problem.outgoing };
                    add(&mut list[*v], entries, 0);
                }
                [None, Some((v, sign, entries))] => {
                    let list = if *sign > 0 { &mut problem.incoming } else { &mut problem.outgoing };
                    add(&mut list[*v], entries, 1);
                }
                [Some((out, _, rows)), Some((into, _, columns))] => {
                    let [height, width] = [*out, *into].map(|v| problem.scales[v].len());
                    let mut energy = vec![0.0; height * width];
                    for (at, w) in row[spec.range()].chunks_exact(rest).enumerate() {
                        let (i, j) = (rows[at / cols], columns[at % cols]);
                        if out != into || i != j {
                            energy[i * width + j] += square(w);
                        }
                    }
                    let transposed = (0..energy.len()).map(|at| energy[at % height * width + at / height]).collect();
                    problem.edges.push(Edge { out: *out, into: *into, energy, transposed });
                }
            }
        }
        problem
    }

    /// The variable that an axis feels, whether it multiplies (1) or divides (−1), and which of its scales each entry feels.
    fn end(&self, tensor: usize, axis: usize, len: usize) -> Option<(usize, i32, Vec<usize>)> {
        let (k, of) = self.group.hidden(tensor, axis)?;
        let space = &self.group.spaces()[k];
        let leader = |class: usize| {
            let leads = |&(j, c): &(usize, usize)| j == k && (c == class || space.classes[c].followers.contains(&class));
            self.variables.iter().position(leads)
        };
        let felt: Vec<(usize, i32, usize)> =
            of.factors.iter().filter_map(|f| Some((leader(f.class)?, if f.inverse { -1 } else { 1 }, f.class))).collect();
        // A batch norm's gain is multiplied by the class behind it and divided by its follower before it: it stays.
        let total: i32 = felt.iter().map(|f| f.1).sum();
        let &(variable, _, class) = felt.first().filter(|_| total != 0)?;
        Some((variable, total.signum(), entries(space, of, class, len)))
    }

    /// The squared norms that multiply `s²` and `s⁻²` of scale `i` of variable `v`, the other scales as they are.
    fn energies(&self, v: usize, i: usize) -> (f64, f64) {
        let (mut a, mut b) = (self.incoming[v][i], self.outgoing[v][i]);
        for edge in &self.edges {
            if edge.out == v {
                let inverses = &self.inverses[edge.into];
                a += dot(&edge.energy[i * inverses.len()..(i + 1) * inverses.len()], inverses);
            }
            if edge.into == v {
                let squares = &self.squares[edge.out];
                b += dot(&edge.transposed[i * squares.len()..(i + 1) * squares.len()], squares);
            }
        }
        (a, b)
    }

    /// The same for all scales of a variable.
    fn all_energies(&self, v: usize) -> Vec<(f64, f64)> {
        let met: usize = self.edges.iter().filter(|e| e.out == v || e.into == v).map(|e| e.energy.len()).sum();
        let units = 0..self.scales[v].len();
        if met > PARALLEL_WORK {
            units.into_par_iter().map(|i| self.energies(v, i)).collect()
        } else {
            units.map(|i| self.energies(v, i)).collect()
        }
    }

    /// Takes a step with all live scales of a variable; returns the largest relative change.
    fn descend(&mut self, v: usize, live: &[bool], relaxation: f64) -> f64 {
        // A step of one unit moves the minimum of those that it is connected with.
        let tied = self.edges.iter().any(|e| e.out == v && e.into == v);
        let energies = if tied { Vec::new() } else { self.all_energies(v) };
        let mut largest = 0.0_f64;
        for i in (0..live.len()).filter(|&i| live[i]) {
            let (a, b) = if tied { self.energies(v, i) } else { energies[i] };
            let ratio = (b / a).sqrt().sqrt() / self.scales[v][i];
            let scale = self.scales[v][i] * if relaxation > 1.0 { ratio.powf(relaxation) } else { ratio };
            largest = largest.max((ratio - 1.0).abs());
            self.scales[v][i] = scale;
            self.squares[v][i] = scale * scale;
            self.inverses[v][i] = 1.0 / (scale * scale);
        }
        largest
    }
}

/// The inner product, summed in lanes that a processor can add at once.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let ((a, last_a), (b, last_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + last_a.iter().zip(last_b).map(|(a, b)| a * b).sum::<f64>()
}

fn entries(space: &crate::HiddenSpace, of: &SpaceAxis, class: usize, len: usize) -> Vec<usize> {
    (0..len).map(|i| space.entry(class, of, i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relaxation_follows_the_rate() {
        let check = |relaxation: f64, rate: f64, expected: f64| {
            let found = relaxed(relaxation, rate);
            assert!((found - expected).abs() < 1e-3, "({relaxation}, {rate}): {found}, not {expected}");
        };
        check(1.0, 0.0, 1.0); // the first look has nothing to compare with
        check(1.0, 1.2, 1.0);
        check(1.0, 0.75, 4.0 / 3.0);
        check(1.0, 0.999_999_9, MAX_RELAXATION);
        check(1.5, 0.4, 1.5); // faster cannot be: steps are long enough
        check(1.5, 0.8, 1.6036);
    }
}
