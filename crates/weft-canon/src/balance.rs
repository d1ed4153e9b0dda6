//! Balanced scales: the representative of a network's scale orbit with the smallest weights.
//!
//! With log-scales `t`, the squared norm of the weights is a sum of terms `E·exp(2(t_i − t_j))`: convex, with a
//! unique minimum once units without incoming or outgoing weight are left alone. There every unit's incoming and
//! outgoing squared norms are equal. Coordinate descent has the closed form `s⁴ = outgoing / incoming`.

use crate::error::{Result, check_len};
use crate::{Element, Group};

/// Log-scale change below which a sweep counts as a fixed point.
const TOLERANCE: f64 = 1e-12;
/// A row whose scales are all this close to 1 is balanced already: its rounding to `f32` explains the rest.
const SNAP: f64 = 1e-5;
/// Sweeps after which the descent ends in any case; networks need tens.
const MAX_SWEEPS: usize = 10_000;

/// The scales that balance a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Balanced {
    /// Scales without permutations; exactly the identity for a balanced row.
    pub element: Element,
    /// Units whose scale is undetermined, since nothing comes in or nothing goes out. They keep scale 1.
    pub ill_conditioned: usize,
}

/// Squared weights between two scaled spaces, or the same one.
struct Edge {
    out: usize,
    into: usize,
    /// `[size of out, size of into]`.
    energy: Vec<f64>,
}

/// The balancing problem of one row.
struct Problem {
    /// Squared norm that a unit's scale multiplies alone, a space.
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
    check_len("row", row.len(), group.architecture().num_parameters())?;
    let problem = Problem::new(group, row);
    let mut element = group.identity();
    let mut ill_conditioned = 0;
    let mut free: Vec<Vec<bool>> = Vec::with_capacity(group.spaces().len());
    for (k, space) in group.spaces().iter().enumerate() {
        let live = |i: usize| {
            let (a, b) = problem.energies(k, i, &element);
            a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite()
        };
        let live: Vec<bool> = (0..space.size).map(|i| space.positive_scale && live(i)).collect();
        ill_conditioned += live.iter().filter(|&&l| space.positive_scale && !l).count();
        free.push(live);
    }
    for _ in 0..MAX_SWEEPS {
        let mut largest = 0.0_f64;
        for (k, live) in free.iter().enumerate() {
            for (i, _) in live.iter().enumerate().filter(|&(_, &l)| l) {
                let (a, b) = problem.energies(k, i, &element);
                let scale = (b / a).sqrt().sqrt();
                largest = largest.max((scale / element.spaces[k].scale[i] - 1.0).abs());
                element.spaces[k].scale[i] = scale;
            }
        }
        if largest < TOLERANCE {
            break;
        }
    }
    if element.spaces.iter().flat_map(|s| &s.scale).all(|s| (s - 1.0).abs() < SNAP) {
        element = group.identity();
    }
    Ok(Balanced { element, ill_conditioned })
}

impl Problem {
    fn new(group: &Group, row: &[f32]) -> Self {
        let zeros = || group.spaces().iter().map(|s| vec![0.0; s.size]).collect::<Vec<_>>();
        let mut problem = Self { incoming: zeros(), outgoing: zeros(), edges: Vec::new() };
        let scaled = |tensor, axis| group.role(tensor, axis).hidden.filter(|&k| group.spaces()[k].positive_scale);
        for (tensor, spec) in group.architecture().tensors().iter().enumerate() {
            let cols = spec.shape.get(1).copied().unwrap_or(1);
            let rows = row[spec.range()].chunks_exact(cols);
            let square = |w: &f32| f64::from(*w) * f64::from(*w);
            match (scaled(tensor, 0), scaled(tensor, 1)) {
                (None, None) => {}
                (Some(k), None) => {
                    rows.zip(&mut problem.incoming[k]).for_each(|(w, e)| *e += w.iter().map(square).sum::<f64>());
                }
                (None, Some(k)) => {
                    rows.for_each(|w| problem.outgoing[k].iter_mut().zip(w).for_each(|(e, w)| *e += square(w)));
                }
                (Some(out), Some(into)) => {
                    let energy = row[spec.range()].iter().map(square).collect();
                    problem.edges.push(Edge { out, into, energy });
                }
            }
        }
        problem
    }

    /// The squared norms that multiply `s²` and `s⁻²` of unit `i` of space `k`, the other scales as they are.
    fn energies(&self, k: usize, i: usize, element: &Element) -> (f64, f64) {
        let (mut a, mut b) = (self.incoming[k][i], self.outgoing[k][i]);
        for edge in &self.edges {
            let (out, into) = (&element.spaces[edge.out].scale, &element.spaces[edge.into].scale);
            let tied = edge.out == edge.into; // a diagonal entry does not feel its own unit's scale
            if edge.out == k {
                let row = &edge.energy[i * into.len()..(i + 1) * into.len()];
                a +=
                    row.iter().zip(into).enumerate().map(|(j, (e, t))| if tied && j == i { 0.0 } else { e / (t * t) }).sum::<f64>();
            }
            if edge.into == k {
                let column = edge.energy.iter().skip(i).step_by(into.len());
                b += column.zip(out).enumerate().map(|(j, (e, s))| if tied && j == i { 0.0 } else { e * s * s }).sum::<f64>();
            }
        }
        (a, b)
    }
}
