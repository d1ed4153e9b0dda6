//! Weight matching: the permutations (and signs) that bring one network closest to another.
//!
//! Minimizing `‖a − g·b‖²` is maximizing `⟨a, g·b⟩`. For one space with the others held, that is an assignment problem on
//! the matrix of unit inner products; coordinate ascent over the spaces ends in a fixed point. Without weights between two
//! hidden spaces the problems are independent, and one solve each is exact.

use crate::element::SpaceElement;
use crate::error::{Result, check_len};
use crate::layout::{Layout, SpaceLayout};
use crate::product::{View, multiply};
use crate::{Assigner, Element, Group};
use weft_core::Seed;

/// How hard to look for the best match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matching {
    /// Starts of the ascent; the best end is taken. One suffices, and is exact, without coupled hidden spaces.
    pub starts: usize,
    /// Sweeps over the spaces a start, at most.
    pub max_sweeps: usize,
}

impl Default for Matching {
    fn default() -> Self {
        Self { starts: 8, max_sweeps: 50 }
    }
}

/// Finds the permutations and signs `g` that minimize `‖anchor − g·row‖²`, and that squared distance.
///
/// Scales are left alone: balance both first. The starts do not depend on the order of the row's units: they are taken
/// after sorting units by their norms, so that two rows of one orbit get the same image. The first two starts match
/// space by space, from the inputs and from the outputs; the third pairs units by rank; the others are random.
///
/// # Errors
/// [`crate::Error::Length`] if a row does not fit the architecture.
///
/// # References
/// Ainsworth, Hayase & Srinivasa 2023, Algorithm 1.
pub fn match_to(group: &Group, row: &[f32], anchor: &[f32], matching: &Matching, seed: Seed) -> Result<(Element, f64)> {
    let dim = group.architecture().num_parameters();
    check_len("row", row.len(), dim)?;
    check_len("anchor", anchor.len(), dim)?;
    let layout = Layout::new(group, &[]);
    let frame = sorted_frame(group, row)?;
    let mut framed = vec![0.0; dim];
    group.apply_to(&frame, row, &mut framed)?;
    let gains: Vec<Vec<f32>> = (0..layout.spaces.len())
        .map(|k| {
            let space = &layout.spaces[k];
            let gather = |row| {
                let mut units = vec![0.0; space.size * space.features];
                layout.gather_units(k, row, &mut units);
                units
            };
            let mut gain = vec![0.0; space.size * space.size];
            let (a, b) = (gather(anchor), gather(&framed));
            multiply(&mut gain, View::new(&a, space.size, space.features), View::new(&b, space.size, space.features).t(), false);
            gain
        })
        .collect();
    let coupling = |c: &crate::layout::CouplingLayout| Coupling {
        out: c.out,
        into: c.into,
        a: &anchor[c.range.clone()],
        b: &framed[c.range.clone()],
    };
    let couplings: Vec<Coupling<'_>> = layout.couplings.iter().map(coupling).collect();
    let problem = Problem { spaces: &layout.spaces, gains: &gains, couplings: &couplings };
    let by_rank = sorted_frame(group, anchor)?.inverse().without_scale();
    let starts = starts(group, matching.starts, Some(by_rank), seed);
    let mut matcher = Matcher::default();
    matcher.solve(&problem, &starts, matching.max_sweeps);
    let element = Element { spaces: matcher.best }.compose(&frame);
    group.apply_to(&element, row, &mut framed)?;
    let squared = anchor.iter().zip(&framed).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    Ok((element, squared))
}

/// The element that sorts units by a key that permutations and signs of any space leave alone.
///
/// The key is the squared norm of a unit's incoming weights, then of its outgoing ones; its sign becomes that of the sum of its
/// incoming weights, earlier spaces being framed already.
fn sorted_frame(group: &Group, row: &[f32]) -> Result<Element> {
    let mut frame = group.identity();
    let mut framed = row.to_vec();
    for (k, space) in group.spaces().iter().enumerate() {
        let mut keys = vec![(0.0, 0.0, 0.0); space.size];
        for axis in space.incoming.iter().chain(&space.outgoing) {
            let spec = &group.architecture().tensors()[axis.tensor];
            let cols = spec.shape.get(1).copied().unwrap_or(1);
            for (index, &w) in framed[spec.range()].iter().enumerate() {
                let w = f64::from(w);
                if axis.axis == 0 {
                    let key: &mut (f64, f64, f64) = &mut keys[index / cols];
                    key.0 += w * w;
                    key.2 += w;
                } else {
                    keys[index % cols].1 += w * w;
                }
            }
        }
        let mut order: Vec<u32> = (0..space.size as u32).collect();
        let key = |i: u32| keys[i as usize];
        order.sort_by(|&i, &j| key(j).0.total_cmp(&key(i).0).then(key(j).1.total_cmp(&key(i).1)));
        let part = &mut frame.spaces[k];
        if space.sign {
            part.scale = order.iter().map(|&i| if key(i).2 < 0.0 { -1.0 } else { 1.0 }).collect();
        }
        part.permutation = order;
        if space.sign {
            group.apply_to(&frame, row, &mut framed)?;
            // Later spaces see this one's signs; its order changes none of their sums, but this loop's indices would.
            let mut unsort = group.identity();
            for (unsort, part) in unsort.spaces.iter_mut().zip(&frame.spaces) {
                unsort.permutation.clone_from(&part.permutation);
            }
            group.apply(&unsort.inverse(), &mut framed)?;
        }
    }
    Ok(frame)
}

/// A matrix that joins two hidden spaces, of the network that stays (`a`) and of the one that moves (`b`).
#[derive(Clone, Copy)]
pub(crate) struct Coupling<'a> {
    pub(crate) out: usize,
    pub(crate) into: usize,
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
}

/// One matching problem.
pub(crate) struct Problem<'a> {
    pub(crate) spaces: &'a [SpaceLayout],
    /// Inner products of the unit features, `[h, h]` a space, rows for the network that stays.
    pub(crate) gains: &'a [Vec<f32>],
    pub(crate) couplings: &'a [Coupling<'a>],
}

/// Where an ascent begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    /// Space by space from the first; a space that has not been matched yet does not count.
    Forward,
    /// The same from the last.
    Backward,
    /// At given elements.
    At(Vec<SpaceElement>),
}

/// Lists `count` starts: forward, backward, `third` (or the identity), then random ones.
pub(crate) fn starts(group: &Group, count: usize, third: Option<Element>, seed: Seed) -> Vec<Start> {
    let count = if group.is_coupled() { count.max(1) } else { 1 };
    let random = |i: u64| Start::At(group.random(seed.fork("start").index(i)).without_scale().spaces);
    let third = Start::At(third.unwrap_or_else(|| group.identity()).spaces);
    [Start::Forward, Start::Backward, third].into_iter().chain((3..count as u64).map(random)).take(count).collect()
}

/// Workspace of the ascent for problems of one shape; `best` holds the last result.
#[derive(Default)]
pub(crate) struct Matcher {
    pub(crate) best: Vec<SpaceElement>,
    state: Vec<SpaceElement>,
    known: Vec<bool>,
    /// Spaces of which a neighbor has changed since they were solved.
    stale: Vec<bool>,
    assigner: Assigner,
    /// Column prices of each space's last assignment for the current problem.
    prices: Vec<Vec<f64>>,
    gain: Vec<f32>,
    moved: Vec<f32>,
    cost: Vec<f64>,
    seen: Vec<u64>,
}

impl Matcher {
    /// Maximizes `⟨a, g·b⟩` from all starts and returns the largest value; the element is in `best`.
    pub(crate) fn solve(&mut self, problem: &Problem<'_>, starts: &[Start], max_sweeps: usize) -> f64 {
        let mut best = f64::NEG_INFINITY;
        self.seen.clear();
        self.prices.resize(problem.spaces.len(), Vec::new());
        self.prices.iter_mut().for_each(Vec::clear);
        self.reset(problem);
        self.best.clone_from(&self.state);
        let num_spaces = problem.spaces.len();
        for start in starts {
            match start {
                Start::Forward | Start::Backward => self.reset(problem),
                Start::At(state) => {
                    self.state.clone_from(state);
                    self.known.fill(true);
                }
            }
            self.stale.clear();
            self.stale.resize(num_spaces, true);
            for sweep in 0..max_sweeps {
                let backward = sweep == 0 && *start == Start::Backward;
                let mut changed = false;
                for step in 0..num_spaces {
                    let k = if backward { num_spaces - 1 - step } else { step };
                    if std::mem::take(&mut self.stale[k]) && self.update(problem, k) {
                        changed = true;
                        for c in problem.couplings.iter().filter(|c| c.out == k || c.into == k) {
                            self.stale[c.out] |= c.out != k || c.into == k;
                            self.stale[c.into] |= c.into != k || c.out == k;
                        }
                    }
                }
                if !changed || problem.couplings.is_empty() {
                    break;
                }
                // The future depends on the state alone: an ascent that meets an earlier one ends as it did.
                let hash = self.hash();
                let met = self.seen.contains(&hash);
                self.seen.push(hash);
                if met {
                    break;
                }
            }
            let value = self.value(problem);
            if value > best {
                best = value;
                self.best.clone_from(&self.state);
            }
        }
        best
    }

    fn reset(&mut self, problem: &Problem<'_>) {
        if self.state.len() != problem.spaces.len() {
            self.state = problem.spaces.iter().map(|s| SpaceElement::identity(s.size)).collect();
        }
        self.known.clear();
        self.known.resize(problem.spaces.len(), false);
    }

    /// Solves for one space with the others held; tells whether it changed.
    fn update(&mut self, problem: &Problem<'_>, k: usize) -> bool {
        self.fill_gain(problem, k);
        let (n, sign) = (problem.spaces[k].size, problem.spaces[k].sign);
        self.cost.clear();
        self.cost.extend(self.gain.iter().map(|&g| -f64::from(if sign { g.abs() } else { g })));
        let prices = &mut self.prices[k];
        if prices.is_empty() {
            prices.resize(n, 0.0); // similar gains follow: the couplings move, the unit products stay
        }
        let found = self.assigner.solve_from(prices, &self.cost, n);
        let gain = &self.gain;
        let sign_of = |i: usize, j: u32| if sign && gain[i * n + j as usize] < 0.0 { -1.0 } else { 1.0 };
        if !std::mem::replace(&mut self.known[k], true) {
            let part = &mut self.state[k];
            part.permutation.copy_from_slice(found);
            part.scale.iter_mut().enumerate().for_each(|(i, s)| *s = sign_of(i, found[i]));
            return true;
        }
        let part = &self.state[k];
        let (mut old, mut new, mut size) = (0.0, 0.0, 0.0);
        for i in 0..n {
            old += f64::from(gain[i * n + part.permutation[i] as usize]) * part.scale[i];
            new -= self.cost[i * n + found[i] as usize];
            size += self.cost[i * n + found[i] as usize].abs();
        }
        if new <= old + 1e-6 * size {
            return false; // ties and rounding must not make the ascent run in circles
        }
        let tied = problem.couplings.iter().any(|c| c.out == k && c.into == k);
        let before = tied.then(|| (self.value(problem), self.state[k].clone()));
        let part = &mut self.state[k];
        let found = self.assigner.assignment();
        part.permutation.copy_from_slice(found);
        part.scale.iter_mut().enumerate().for_each(|(i, s)| *s = sign_of(i, found[i]));
        if let Some((value, part)) = before
            && self.value(problem) <= value + 1e-6 * size
        {
            self.state[k] = part; // with both ends of a weight in one space the assignment is a linearization only
            return false;
        }
        true
    }

    /// The inner products of units of space `k`, the known other spaces as they are.
    fn fill_gain(&mut self, problem: &Problem<'_>, k: usize) {
        self.gain.clear();
        self.gain.extend_from_slice(&problem.gains[k]);
        for c in problem.couplings {
            let (rows, cols) = (problem.spaces[c.out].size, problem.spaces[c.into].size);
            let a = View::new(c.a, rows, cols);
            if c.out == k && self.known[c.into] {
                let part = &self.state[c.into];
                self.moved.clear();
                for b in c.b.chunks_exact(cols) {
                    self.moved.extend(part.permutation.iter().zip(&part.scale).map(|(&j, &s)| b[j as usize] * s as f32));
                }
                multiply(&mut self.gain, a, View::new(&self.moved, rows, cols).t(), true);
            }
            if c.into == k && self.known[c.out] {
                let part = &self.state[c.out];
                self.moved.clear();
                for (&i, &s) in part.permutation.iter().zip(&part.scale) {
                    self.moved.extend(c.b[i as usize * cols..(i as usize + 1) * cols].iter().map(|b| b * s as f32));
                }
                multiply(&mut self.gain, a.t(), View::new(&self.moved, rows, cols), true);
            }
        }
    }

    /// `⟨a, g·b⟩` at the current state.
    fn value(&self, problem: &Problem<'_>) -> f64 {
        let mut value = 0.0;
        for (part, gain) in self.state.iter().zip(problem.gains) {
            let n = part.permutation.len();
            for (i, (&j, s)) in part.permutation.iter().zip(&part.scale).enumerate() {
                value += f64::from(gain[i * n + j as usize]) * s;
            }
        }
        for c in problem.couplings {
            let (rows, columns) = (&self.state[c.out], &self.state[c.into]);
            let cols = columns.permutation.len();
            for ((a, &i), s) in c.a.chunks_exact(cols).zip(&rows.permutation).zip(&rows.scale) {
                let b = &c.b[i as usize * cols..(i as usize + 1) * cols];
                let terms = a.iter().zip(&columns.permutation).zip(&columns.scale);
                value += s * terms.map(|((a, &j), t)| f64::from(a * b[j as usize]) * t).sum::<f64>();
            }
        }
        value
    }

    /// A hash of the current state (FNV-1a).
    fn hash(&self) -> u64 {
        let words = self.state.iter().flat_map(|part| {
            let signed = |(&j, &s): (&u32, &f64)| u64::from(j) << 1 | u64::from(s < 0.0);
            part.permutation.iter().zip(&part.scale).map(signed)
        });
        words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3))
    }
}
