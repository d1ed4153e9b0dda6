//! Weight matching: the permutations and signs that bring one network closest to another.
//!
//! Minimizing `‖a − g·b‖²` is maximizing `⟨a, g·b⟩`. For one space with the others held, that is an assignment problem on
//! the matrix of unit inner products; coordinate ascent over the spaces ends in a fixed point. Without weights between two
//! hidden spaces the problems are independent, and one solve each is exact.
//!
//! A sign that is free is chosen with the unit's partner: `|⟨a_i, b_j⟩|` counts. Where units are made of directions with signs
//! of their own (heads), the absolute values of the directions' products add up. Groups of heads are assigned by the values of
//! the assignments within them.

use crate::element::{SpaceElement, random_permutation};
use crate::error::{Result, check_len};
use crate::layout::{CouplingLayout, Layout, Move, SpaceLayout};
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
/// Continuous symmetries are left alone: fix them in both first. What is found does not depend on the order and signs of the row's
/// units: the first ascent begins with weights whose other end is fixed, and all others begin at its end.
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
    // Without any fixed end the first assignment would take the order that it meets.
    let mut element = sorted_units(group, row)?;
    let mut framed = vec![0.0; dim];
    group.apply_to(&element, row, &mut framed)?;
    let mut matcher = Matcher::default();
    let mut rounds = vec![vec![Start::Forward]];
    if group.is_coupled() && matching.starts > 1 {
        rounds.push(further_starts(&layout, matching.starts, seed));
    }
    for starts in rounds {
        let gains = gains_of(&layout, anchor, &framed);
        let coupling = |c: &CouplingLayout| (anchor[c.range.clone()].as_ref(), framed[c.range.clone()].as_ref());
        let couplings: Vec<(&[f32], &[f32])> = layout.couplings.iter().map(coupling).collect();
        matcher.solve(&Problem { layout: &layout, gains: &gains, couplings: &couplings }, &starts, matching.max_sweeps);
        element = group.compose(&Element { spaces: matcher.best.clone() }, &element);
        group.apply_to(&element, row, &mut framed)?;
    }
    let squared = anchor.iter().zip(&framed).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    Ok((element, squared))
}

fn gains_of(layout: &Layout, a: &[f32], b: &[f32]) -> Vec<Vec<f32>> {
    let gains = |k: usize| {
        let gather = |row| {
            let mut units = vec![0.0; layout.unit_len(k)];
            layout.gather_units(k, row, &mut units);
            units
        };
        let mut gains = vec![0.0; layout.spaces[k].gain_len()];
        layout.spaces[k].fill_gains(&gather(a), &gather(b), &mut gains);
        gains
    };
    (0..layout.spaces.len()).map(gains).collect()
}

/// The element that sorts units by the norms of their weights, which permutations and signs leave alone.
fn sorted_units(group: &Group, row: &[f32]) -> Result<Element> {
    check_len("row", row.len(), group.architecture().num_parameters())?;
    let mut element = group.identity();
    for (space, part) in group.spaces().iter().zip(&mut element.spaces) {
        let (mut units, mut groups) = (vec![0.0_f64; space.size], vec![0.0_f64; space.size / space.members]);
        for axis in &space.axes {
            let spec = &group.architecture().tensors()[axis.tensor];
            let part = spec.shape[axis.axis + 1..].iter().product::<usize>() * axis.inner;
            let targets = if axis.grouped { &mut groups } else { &mut units };
            for block in row[spec.range()].chunks_exact(targets.len() * part) {
                for (target, part) in targets.iter_mut().zip(block.chunks_exact(part)) {
                    *target += part.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>();
                }
            }
        }
        let descending = |keys: &[f64], range: std::ops::Range<usize>| {
            let mut order: Vec<u32> = range.map(|i| i as u32).collect();
            order.sort_by(|&i, &j| keys[j as usize].total_cmp(&keys[i as usize]));
            order
        };
        units.chunks_exact(space.members).zip(&mut groups).for_each(|(units, group)| *group += units.iter().sum::<f64>());
        let m = space.members;
        let inside = |g: u32| descending(&units, g as usize * m..(g as usize + 1) * m);
        part.permutation = descending(&groups, 0..groups.len()).into_iter().flat_map(inside).collect();
    }
    Ok(element)
}

/// One matching problem: inner products of unit features a space, and both networks' coupling tensors.
pub(crate) struct Problem<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) gains: &'a [Vec<f32>],
    pub(crate) couplings: &'a [(&'a [f32], &'a [f32])],
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

/// Lists `count` starts: forward, backward, the identity, then random ones.
pub(crate) fn starts(group: &Group, layout: &Layout, count: usize, seed: Seed) -> Vec<Start> {
    let count = if group.is_coupled() { count.max(1) } else { 1 };
    std::iter::once(Start::Forward).chain(further_starts(layout, count, seed)).take(count).collect()
}

/// The starts that follow the first.
fn further_starts(layout: &Layout, count: usize, seed: Seed) -> Vec<Start> {
    let identity = Start::At(layout.spaces.iter().map(SpaceLayout::identity).collect());
    let random = |i: u64| {
        let seed = seed.fork("start").index(i);
        let spaces = layout.spaces.iter().enumerate();
        Start::At(spaces.map(|(k, space)| random_state(space, seed.index(k as u64))).collect())
    };
    // The identity first: where an earlier ascent has ended, it is the value to beat.
    [identity, Start::Backward].into_iter().chain((3..count.max(3) as u64).map(random)).take(count.max(2)).collect()
}

fn random_state(space: &SpaceLayout, seed: Seed) -> SpaceElement {
    let mut state = space.identity();
    state.permutation = random_permutation(space.size, space.members, seed.fork("permutation"));
    for (s, (first, step)) in space.segments.iter().filter_map(|s| s.sign).enumerate() {
        for (unit, flip) in seed.fork("sign").index(s as u64).indices(space.num_signs(), 2).into_iter().enumerate() {
            if flip == 1 {
                state.scale[first + unit * step] = -1.0;
            }
        }
    }
    space.follow(&mut state);
    state
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
    /// Inner products of each space's units, couplings counted in; empty before its first update of an ascent.
    sums: Vec<Vec<f32>>,
    /// The moves of columns and rows with which `sums` counts each coupling, for its rows and its columns; empty where it does not.
    counted: Vec<[Vec<Move>; 2]>,
    moves: Vec<Move>,
    moved: Vec<f32>,
    kept: Vec<f32>,
    scratch: [Vec<f32>; 2],
    cost: Vec<f64>,
    seen: Vec<u64>,
}

impl Matcher {
    /// Maximizes `⟨a, g·b⟩` from all starts and returns the largest value; the element is in `best`.
    pub(crate) fn solve(&mut self, problem: &Problem<'_>, starts: &[Start], max_sweeps: usize) -> f64 {
        let mut best = f64::NEG_INFINITY;
        self.seen.clear();
        let num_spaces = problem.layout.spaces.len();
        self.prices.resize(num_spaces, Vec::new());
        self.prices.iter_mut().for_each(Vec::clear);
        self.reset(problem);
        self.best.clone_from(&self.state);
        for start in starts {
            match start {
                Start::Forward | Start::Backward => self.reset(problem),
                Start::At(state) => {
                    self.state.clone_from(state);
                    self.known.fill(true);
                }
            }
            self.forget();
            self.stale.clear();
            self.stale.resize(num_spaces, true);
            for sweep in 0..max_sweeps {
                let backward = sweep == 0 && *start == Start::Backward;
                if !self.sweep(problem, backward) || problem.couplings.is_empty() {
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
            if value > best + 1e-9 * best.abs().min(f64::MAX) || best == f64::NEG_INFINITY {
                best = value;
                self.best.clone_from(&self.state);
            }
        }
        best
    }

    /// Solves for every stale space once; tells whether anything changed.
    fn sweep(&mut self, problem: &Problem<'_>, backward: bool) -> bool {
        let num_spaces = problem.layout.spaces.len();
        let mut changed = false;
        for step in 0..num_spaces {
            let k = if backward { num_spaces - 1 - step } else { step };
            if std::mem::take(&mut self.stale[k]) && self.update(problem, k) {
                changed = true;
                for c in &problem.layout.couplings {
                    let (out, into) = (c.out.space, c.into.space);
                    if out == k || into == k {
                        self.stale[out] |= out != k || into == k;
                        self.stale[into] |= into != k || out == k;
                    }
                }
            }
        }
        changed
    }

    fn reset(&mut self, problem: &Problem<'_>) {
        let spaces = &problem.layout.spaces;
        let fits = |(state, space): (&SpaceElement, &SpaceLayout)| state.permutation.len() == space.size;
        if self.state.len() != spaces.len() || !self.state.iter().zip(spaces).all(fits) {
            self.state = spaces.iter().map(SpaceLayout::identity).collect();
        }
        self.known.clear();
        self.known.resize(spaces.len(), false);
        self.sums.resize(spaces.len(), Vec::new());
        self.counted.resize(problem.couplings.len(), [Vec::new(), Vec::new()]);
    }

    /// Forgets the inner products of an earlier ascent, so that its rounding does not add up.
    fn forget(&mut self) {
        self.sums.iter_mut().for_each(Vec::clear);
        self.counted.iter_mut().flatten().for_each(Vec::clear);
    }

    /// Solves for one space with the others held; tells whether it changed.
    fn update(&mut self, problem: &Problem<'_>, k: usize) -> bool {
        self.fill_gain(problem, k);
        let space = &problem.layout.spaces[k];
        let mut found = space.identity();
        let size =
            if space.members == 1 { self.assign_units(space, k, &mut found) } else { self.assign_groups(space, k, &mut found) };
        space.follow(&mut found);
        if !std::mem::replace(&mut self.known[k], true) {
            self.state[k] = found;
            return true;
        }
        let (old, new) = (gain_of(space, &self.sums[k], &self.state[k]), gain_of(space, &self.sums[k], &found));
        if new <= old + 1e-6 * size {
            return false; // ties and rounding must not make the ascent run in circles
        }
        let tied = problem.layout.couplings.iter().any(|c| c.out.space == k && c.into.space == k);
        let before = tied.then(|| (self.value(problem), self.state[k].clone()));
        self.state[k] = found;
        if let Some((value, part)) = before
            && self.value(problem) <= value + 1e-6 * size
        {
            self.state[k] = part; // with both ends of a weight in one space the assignment is a linearization only
            return false;
        }
        true
    }

    /// Assigns units to units; returns the size of the values at hand.
    fn assign_units(&mut self, space: &SpaceLayout, k: usize, found: &mut SpaceElement) -> f64 {
        let n = space.size;
        self.cost.clear();
        self.cost.resize(n * n, 0.0);
        for (s, segment) in space.segments.iter().enumerate() {
            let gain = &self.sums[k][space.gain_range(s, false)];
            let signed = segment.sign.is_some();
            self.cost.iter_mut().zip(gain).for_each(|(c, &g)| *c -= f64::from(if signed { g.abs() } else { g }));
        }
        let prices = &mut self.prices[k];
        if prices.is_empty() {
            prices.resize(n, 0.0); // similar gains follow: the couplings move, the unit products stay
        }
        found.permutation.copy_from_slice(self.assigner.solve_from(prices, &self.cost, n));
        for (s, segment) in space.segments.iter().enumerate() {
            let Some((first, step)) = segment.sign else { continue };
            let gain = &self.sums[k][space.gain_range(s, false)];
            for (i, &j) in found.permutation.iter().enumerate() {
                found.scale[first + i * step] = if gain[i * n + j as usize] < 0.0 { -1.0 } else { 1.0 };
            }
        }
        found.permutation.iter().enumerate().map(|(i, &j)| self.cost[i * n + j as usize].abs()).sum()
    }

    /// Assigns groups to groups, and units to units within each pair of groups.
    fn assign_groups(&mut self, space: &SpaceLayout, k: usize, found: &mut SpaceElement) -> f64 {
        let (n, m) = (space.size, space.members);
        let groups = n / m;
        let mut inner: Vec<Vec<u32>> = Vec::with_capacity(groups * groups);
        let mut signs: Vec<Vec<f32>> = Vec::with_capacity(groups * groups);
        let mut outer = vec![0.0; groups * groups];
        let mut cost = vec![0.0; m * m];
        for (a, b) in (0..groups * groups).map(|i| (i / groups, i % groups)) {
            let unit = |s: usize, i: usize, j: usize| self.sums[k][space.gain_range(s, false).start + (a * m + i) * n + b * m + j];
            let of_group = |s: usize| self.sums[k][space.gain_range(s, true).start + a * groups + b];
            // A direction's sign is that of its key until the heads are paired, then that of everything.
            let mut sign: Vec<f32> = (0..space.segments.len()).map(|s| if of_group(s) < 0.0 { -1.0 } else { 1.0 }).collect();
            let mut pairs: Vec<u32> = Vec::new();
            for _ in 0..3 {
                for (at, c) in cost.iter_mut().enumerate() {
                    let terms = space.segments.iter().enumerate().map(|(s, segment)| {
                        let sign = if segment.sign.is_some() { sign[s] } else { 1.0 };
                        f64::from(sign * unit(s, at / m, at % m))
                    });
                    *c = -terms.sum::<f64>();
                }
                pairs = self.assigner.solve(&cost, m).to_vec();
                for (s, sign) in sign.iter_mut().enumerate() {
                    let all = of_group(s) + pairs.iter().enumerate().map(|(i, &j)| unit(s, i, j as usize)).sum::<f32>();
                    *sign = if all < 0.0 { -1.0 } else { 1.0 };
                }
            }
            for (s, segment) in space.segments.iter().enumerate() {
                let all = of_group(s) + pairs.iter().enumerate().map(|(i, &j)| unit(s, i, j as usize)).sum::<f32>();
                outer[a * groups + b] -= f64::from(if segment.sign.is_some() { all.abs() } else { all });
            }
            inner.push(pairs);
            signs.push(sign);
        }
        let chosen = self.assigner.solve(&outer, groups).to_vec();
        for (a, &b) in chosen.iter().enumerate() {
            let pair = a * groups + b as usize;
            for (i, &j) in inner[pair].iter().enumerate() {
                found.permutation[a * m + i] = b * m as u32 + j;
            }
            for (segment, &sign) in space.segments.iter().zip(&signs[pair]) {
                if let Some((first, step)) = segment.sign {
                    found.scale[first + a * step] = f64::from(sign);
                }
            }
        }
        chosen.iter().enumerate().map(|(a, &b)| outer[a * groups + b as usize].abs()).sum()
    }

    /// The inner products of units of space `k`, the known other spaces as they are.
    fn fill_gain(&mut self, problem: &Problem<'_>, k: usize) {
        if self.sums[k].is_empty() {
            self.sums[k].extend_from_slice(&problem.gains[k]);
        }
        for (index, c) in problem.layout.couplings.iter().enumerate() {
            if c.out.space == k && self.known[c.into.space] {
                self.count(problem, index, true);
            }
            if c.into.space == k && self.known[c.out.space] {
                self.count(problem, index, false);
            }
        }
    }

    /// Counts a coupling among the inner products of the space of its rows (or columns), its other end as it is now.
    ///
    /// Where it was counted already, only what has moved since makes a difference.
    fn count(&mut self, problem: &Problem<'_>, index: usize, at_rows: bool) {
        let (c, (a, b)) = (&problem.layout.couplings[index], problem.couplings[index]);
        let (own, other) = if at_rows { (&c.out, &c.into) } else { (&c.into, &c.out) };
        let spaces = &problem.layout.spaces;
        other.moves(&spaces[other.space], &self.state[other.space], &mut self.moves);
        let counted = &mut self.counted[index][usize::from(!at_rows)];
        let a = if counted.is_empty() {
            c.moved(b, &self.moves, at_rows, &mut self.moved);
            a
        } else {
            c.difference((a, b), (counted, &self.moves), at_rows, (&mut self.kept, &mut self.moved));
            &self.kept
        };
        std::mem::swap(counted, &mut self.moves);
        if !self.moved.is_empty() {
            c.add_gains((a, &self.moved), at_rows, &spaces[own.space], &mut self.sums[own.space], &mut self.scratch);
        }
    }

    /// `⟨a, g·b⟩` at the current state.
    fn value(&mut self, problem: &Problem<'_>) -> f64 {
        let spaces = &problem.layout.spaces;
        let own = self.state.iter().zip(spaces).zip(problem.gains).map(|((state, space), gain)| gain_of(space, gain, state));
        let mut value: f64 = own.sum();
        for (c, &(a, b)) in problem.layout.couplings.iter().zip(problem.couplings) {
            let mut columns = Vec::new();
            c.out.moves(&spaces[c.out.space], &self.state[c.out.space], &mut self.moves);
            c.into.moves(&spaces[c.into.space], &self.state[c.into.space], &mut columns);
            let width = c.cols * c.rest;
            for (a, &(from, s)) in a.chunks_exact(width).zip(&self.moves) {
                let b = &b[from as usize * width..(from as usize + 1) * width];
                let dot = |(a, &(from, t)): (&[f32], &(u32, f32))| {
                    let b = &b[from as usize * c.rest..(from as usize + 1) * c.rest];
                    f64::from(t) * a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>()
                };
                value += f64::from(s) * a.chunks_exact(c.rest).zip(&columns).map(dot).sum::<f64>();
            }
        }
        value
    }

    /// A hash of the current state (FNV-1a).
    fn hash(&self) -> u64 {
        let words = self.state.iter().flat_map(|part| {
            let permutation = part.permutation.iter().map(|&j| u64::from(j) << 1);
            permutation.chain(part.scale.iter().map(|&s| u64::from(s < 0.0)))
        });
        words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3))
    }
}

/// The sum of the inner products that a state picks.
pub(crate) fn gain_of(space: &SpaceLayout, gain: &[f32], state: &SpaceElement) -> f64 {
    let (n, m) = (space.size, space.members);
    let mut value = 0.0;
    for (s, segment) in space.segments.iter().enumerate() {
        let units = &gain[space.gain_range(s, false)];
        let sign = |unit: usize| segment.sign.map_or(1.0, |(first, step)| state.scale[first + unit * step]);
        for (i, &j) in state.permutation.iter().enumerate() {
            value += f64::from(units[i * n + j as usize]) * sign(if m > 1 { i / m } else { i });
        }
        if m > 1 {
            let groups = &gain[space.gain_range(s, true)];
            for (a, from) in state.permutation.iter().step_by(m).enumerate() {
                value += f64::from(groups[a * (n / m) + *from as usize / m]) * sign(a);
            }
        }
    }
    value
}
