//! Balanced scales: the representative of a network's scale orbit with the smallest weights.
//!
//! With log-scales `t`, the squared norm of the weights is a sum of terms `E·exp(2(t_i − t_j))`: convex, with a
//! unique minimum once units without incoming or outgoing weight are left alone. There every unit's incoming and
//! outgoing squared norms are equal. Coordinate descent has the closed form `s⁴ = outgoing / incoming`.
//!
//! A batch norm's gain stands between two classes of scales; it is 1 here, and the class before it follows the one behind.

use crate::error::{Result, check_len};
use crate::group::SpaceAxis;
use crate::{Element, Group};

/// Log-scale change below which a sweep counts as a fixed point.
const TOLERANCE: f64 = 1e-13;
/// An `f32` row whose scales are all this close to 1 is balanced already: its rounding explains the rest.
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

/// Squared weights between two families of scales, or within one.
struct Edge {
    out: usize,
    into: usize,
    /// `[scales of out, scales of into]`.
    energy: Vec<f64>,
}

/// The balancing problem of one row. A variable is a class of positive scales.
struct Problem<'a> {
    group: &'a Group,
    /// Space and class of each variable.
    variables: Vec<(usize, usize)>,
    scales: Vec<Vec<f64>>,
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
        let live = |i: usize| {
            let (a, b) = problem.energies(v, i);
            a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite()
        };
        let live: Vec<bool> = (0..problem.scales[v].len()).map(live).collect();
        ill_conditioned += live.iter().filter(|&&l| !l).count();
        free.push(live);
    }
    for _ in 0..MAX_SWEEPS {
        let mut largest = 0.0_f64;
        for (v, live) in free.iter().enumerate() {
            for (i, _) in live.iter().enumerate().filter(|&(_, &l)| l) {
                let (a, b) = problem.energies(v, i);
                let scale = (b / a).sqrt().sqrt();
                largest = largest.max((scale / problem.scales[v][i] - 1.0).abs());
                problem.scales[v][i] = scale;
            }
        }
        if largest < TOLERANCE {
            break;
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
        let (scales, incoming, outgoing) = (fill(1.0), fill(0.0), fill(0.0));
        let mut problem = Self { group, variables, scales, incoming, outgoing, edges: Vec::new() };
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
                    let width = problem.scales[*into].len();
                    let mut energy = vec![0.0; problem.scales[*out].len() * width];
                    for (at, w) in row[spec.range()].chunks_exact(rest).enumerate() {
                        energy[rows[at / cols] * width + columns[at % cols]] += square(w);
                    }
                    problem.edges.push(Edge { out: *out, into: *into, energy });
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
            let (out, into) = (&self.scales[edge.out], &self.scales[edge.into]);
            let tied = edge.out == edge.into; // a diagonal entry does not feel its own unit's scale
            if edge.out == v {
                let row = &edge.energy[i * into.len()..(i + 1) * into.len()];
                a +=
                    row.iter().zip(into).enumerate().map(|(j, (e, t))| if tied && j == i { 0.0 } else { e / (t * t) }).sum::<f64>();
            }
            if edge.into == v {
                let column = edge.energy.iter().skip(i).step_by(into.len());
                b += column.zip(out).enumerate().map(|(j, (e, s))| if tied && j == i { 0.0 } else { e * s * s }).sum::<f64>();
            }
        }
        (a, b)
    }
}

fn entries(space: &crate::HiddenSpace, of: &SpaceAxis, class: usize, len: usize) -> Vec<usize> {
    (0..len).map(|i| space.entry(class, of, i)).collect()
}
