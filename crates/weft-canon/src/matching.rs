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
use crate::layout::{CouplingLayout, Layout, SpaceLayout};
use crate::update::{Choice, Memory, Workspace, update, value};
use crate::{Element, Group};
use rayon::prelude::*;
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
    let found = match_counted(group, row, anchor, matching, seed)?;
    Ok((found.element, found.squared))
}

/// What a matching found, and what its matrix products took.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched {
    /// The permutations and signs.
    pub element: Element,
    /// The squared distance that they leave.
    pub squared: f64,
    /// Floating-point operations of the matrix products; the assignment problems are not counted.
    pub flops: f64,
}

/// The same as [`match_to`], and the size of its matrix products, by which a machine is measured.
///
/// # Errors
/// As [`match_to`].
pub fn match_counted(group: &Group, row: &[f32], anchor: &[f32], matching: &Matching, seed: Seed) -> Result<Matched> {
    let dim = group.architecture().num_parameters();
    check_len("row", row.len(), dim)?;
    check_len("anchor", anchor.len(), dim)?;
    let layout = Layout::new(group, &[]);
    // Without any fixed end the first assignment would take the order that it meets.
    let mut element = sorted_units(group, row)?;
    let mut framed = vec![0.0; dim];
    group.apply_to(&element, row, &mut framed)?;
    let mut matcher = Matcher::default();
    let mut flops = 0.0;
    let mut rounds = vec![vec![Start::Forward]];
    if group.is_coupled() && matching.starts > 1 {
        rounds.push(further_starts(&layout, matching.starts, seed));
    }
    for starts in rounds {
        let gains = gains_of(&layout, anchor, &framed);
        flops += layout.spaces.iter().enumerate().map(|(k, space)| 2.0 * (space.size * layout.unit_len(k)) as f64).sum::<f64>();
        let coupling = |c: &CouplingLayout| (anchor[c.range.clone()].as_ref(), framed[c.range.clone()].as_ref());
        let couplings: Vec<(&[f32], &[f32])> = layout.couplings.iter().map(coupling).collect();
        matcher.solve(&Problem { layout: &layout, gains: &gains, couplings: &couplings }, &starts, matching.max_sweeps);
        element = group.compose(&Element { spaces: matcher.best.clone() }, &element);
        group.apply_to(&element, row, &mut framed)?;
    }
    flops += matcher.memories.iter().map(|memory| memory.flops).sum::<f64>();
    Ok(Matched { element, squared: squared_distance(anchor, &framed), flops })
}

/// Chooses the signs that minimize `‖anchor − g·row‖²` in the spaces that `open` marks; permutations, and the signs of the other
/// spaces, stay those of `held`.
pub(crate) fn match_signs(group: &Group, (row, anchor): (&[f32], &[f32]), held: &Element, open: &[bool]) -> Element {
    let layout = Layout::new(group, &[]);
    let gains = gains_of(&layout, anchor, row);
    let coupling = |c: &CouplingLayout| (anchor[c.range.clone()].as_ref(), row[c.range.clone()].as_ref());
    let couplings: Vec<(&[f32], &[f32])> = layout.couplings.iter().map(coupling).collect();
    let mut matcher = Matcher { state: held.spaces.clone(), signs_of: Some(open.to_vec()), ..Matcher::default() };
    let problem = Problem { layout: &layout, gains: &gains, couplings: &couplings };
    matcher.solve(&problem, &[Start::Forward], Matching::default().max_sweeps);
    Element { spaces: matcher.best }
}

pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    const BLOCK: usize = 1 << 16;
    let of_block = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let blocks: Vec<f64> = a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK)).map(of_block).collect();
    blocks.iter().sum()
}

/// Spaces that are solved at once are shared between threads if their units' inner products are more than this.
const PARALLEL_ENTRIES: usize = 1 << 16;

fn gains_of(layout: &Layout, a: &[f32], b: &[f32]) -> Vec<Vec<f32>> {
    let gains = |k: usize| {
        let gather = |row| {
            let mut units = vec![0.0; layout.unit_len(k)];
            layout.gather_units(k, row, &mut units);
            units
        };
        let mut gains = vec![0.0; layout.spaces[k].gain_len()];
        layout.spaces[k].fill_gains(&*layout.place, (&gather(a), &gather(b)), &mut gains);
        gains
    };
    (0..layout.spaces.len()).into_par_iter().map(gains).collect()
}

/// The element that sorts units by the norms of their weights, which permutations and signs leave alone.
fn sorted_units(group: &Group, row: &[f32]) -> Result<Element> {
    check_len("row", row.len(), group.architecture().num_parameters())?;
    let mut element = group.identity();
    group.spaces().par_iter().zip(&mut element.spaces).for_each(|(space, part)| {
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
    });
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
    /// The spaces of which signs alone are chosen, the others being known; all of everything if there are none.
    signs_of: Option<Vec<bool>>,
    memories: Vec<Memory>,
    workspace: Workspace,
    seen: Vec<u64>,
}

impl Matcher {
    /// Maximizes `⟨a, g·b⟩` from all starts and returns the largest value; the element is in `best`.
    pub(crate) fn solve(&mut self, problem: &Problem<'_>, starts: &[Start], max_sweeps: usize) -> f64 {
        let mut best = f64::NEG_INFINITY;
        self.seen.clear();
        let num_spaces = problem.layout.spaces.len();
        self.memories.resize_with(num_spaces, Memory::default);
        self.memories.iter_mut().for_each(Memory::clear);
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
            self.memories.iter_mut().for_each(Memory::begin_ascent);
            self.stale.clear();
            self.stale.resize(num_spaces, true);
            if let Some(open) = &self.signs_of {
                self.stale.copy_from_slice(open);
            }
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
            let value = value(problem, &self.state);
            if value > best + 1e-9 * best.abs().min(f64::MAX) || best == f64::NEG_INFINITY {
                best = value;
                self.best.clone_from(&self.state);
            }
        }
        best
    }

    /// Solves for every stale space once; tells whether anything changed.
    fn sweep(&mut self, problem: &Problem<'_>, backward: bool) -> bool {
        let batches = &problem.layout.batches;
        let choice = if self.signs_of.is_some() { Choice::Signs } else { Choice::All };
        let mut changed = false;
        for step in 0..batches.len() {
            let batch = batches[if backward { batches.len() - 1 - step } else { step }].clone();
            let entries: usize = batch.clone().filter(|&k| self.stale[k]).map(|k| problem.layout.spaces[k].size.pow(2)).sum();
            if batch.len() > 1 && entries > PARALLEL_ENTRIES {
                let (stale, state, known) = (&self.stale, &self.state[..], &self.known[..]);
                let memories = (batch.clone(), &mut self.memories[batch.clone()]).into_par_iter().filter(|(k, _)| stale[*k]);
                let update = |workspace: &mut Workspace, (k, memory): (usize, &mut Memory)| {
                    (k, update(problem, (k, choice), (state, known), memory, workspace))
                };
                let found: Vec<_> = memories.map_init(Workspace::default, update).collect();
                for (k, found) in found {
                    changed |= self.accept(problem, k, found);
                }
            } else {
                for k in batch {
                    if !self.stale[k] {
                        continue;
                    }
                    let (state, known) = (&self.state[..], &self.known[..]);
                    let found = update(problem, (k, choice), (state, known), &mut self.memories[k], &mut self.workspace);
                    changed |= self.accept(problem, k, found);
                }
            }
        }
        changed
    }

    /// Takes what an update of a space has found; tells whether anything changed.
    fn accept(&mut self, problem: &Problem<'_>, k: usize, found: Option<SpaceElement>) -> bool {
        self.stale[k] = false;
        self.known[k] = true;
        let Some(found) = found else { return false };
        self.state[k] = found;
        for c in &problem.layout.couplings {
            let (out, into) = (c.out.space, c.into.space);
            if out == k || into == k {
                self.stale[out] |= out != k || into == k;
                self.stale[into] |= into != k || out == k;
            }
        }
        if let Some(open) = &self.signs_of {
            self.stale.iter_mut().zip(open).for_each(|(stale, open)| *stale &= open);
        }
        true
    }

    fn reset(&mut self, problem: &Problem<'_>) {
        let spaces = &problem.layout.spaces;
        let fits = |(state, space): (&SpaceElement, &SpaceLayout)| state.permutation.len() == space.size;
        if self.state.len() != spaces.len() || !self.state.iter().zip(spaces).all(fits) {
            self.state = spaces.iter().map(SpaceLayout::identity).collect();
        }
        self.known.clear();
        self.known.resize(spaces.len(), false);
        if let Some(open) = &self.signs_of {
            self.known.iter_mut().zip(open).for_each(|(known, open)| *known = !open);
        }
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
