//! One step of the ascent: the best permutation and signs of one space, all others held.
//!
//! The inner products of its units are kept between updates. Late in an ascent few units of a neighbor move from one update to the
//! next, and what a weight tensor adds to the inner products changes by what has moved alone.

use crate::Assigner;
use crate::element::SpaceElement;
use crate::layout::{CouplingLayout, Move, SpaceLayout};
use crate::matching::Problem;
use rayon::prelude::*;

/// What is kept of a space between its updates.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Column prices of its last assignment for the current problem.
    prices: Vec<f64>,
    /// Inner products of its units, couplings counted in; empty before its first update of an ascent.
    gain: Vec<f32>,
    /// The moves of the other end with which `gain` counts each coupling, by its rows and by its columns; empty where it does not.
    counted: Vec<[Vec<Move>; 2]>,
    /// Floating-point operations of the products so far.
    pub(crate) flops: f64,
}

/// Buffers of an update.
#[derive(Default)]
pub(crate) struct Workspace {
    assigner: Assigner,
    cost: Vec<f64>,
    moves: Vec<Move>,
    moved: Vec<f32>,
    kept: Vec<f32>,
    transposed: [Vec<f32>; 2],
}

/// What of a space is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Permutation and signs.
    All,
    /// Signs; the permutation stays.
    Signs,
}

/// Solves for one space with the others held; none if it has the best already. Spaces that are not known yet do not count.
pub(crate) fn update(
    problem: &Problem<'_>,
    (k, choice): (usize, Choice),
    (state, known): (&[SpaceElement], &[bool]),
    memory: &mut Memory,
    workspace: &mut Workspace,
) -> Option<SpaceElement> {
    let (space, couplings) = (&problem.layout.spaces[k], &problem.layout.couplings);
    memory.refresh(problem, k, (state, known), workspace);
    let mut found = space.identity();
    let size = if choice == Choice::Signs {
        found.permutation.clone_from(&state[k].permutation);
        choose_signs(space, &memory.gain, &mut found)
    } else if space.members == 1 {
        workspace.assign_units(space, memory, &mut found)
    } else {
        workspace.assign_groups(space, &memory.gain, &mut found)
    };
    space.follow(&mut found);
    if !known[k] {
        return Some(found);
    }
    let (old, new) = (gain_of(space, &memory.gain, &state[k]), gain_of(space, &memory.gain, &found));
    if new <= old + 1e-6 * size {
        return None; // ties and rounding must not make the ascent run in circles
    }
    if couplings.iter().any(|c| c.out.space == k && c.into.space == k) {
        // With both ends of a weight in one space the assignment is a linearization only.
        let mut moved = state.to_vec();
        moved[k].clone_from(&found);
        if value(problem, &moved) <= value(problem, state) + 1e-6 * size {
            return None;
        }
    }
    Some(found)
}

/// Chooses the signs of units that are assigned already; returns the size of the values at hand.
fn choose_signs(space: &SpaceLayout, gain: &[f32], found: &mut SpaceElement) -> f64 {
    let (n, m) = (space.size, space.members);
    let mut size = 0.0;
    for (s, segment) in space.segments.iter().enumerate() {
        let Some((first, step)) = segment.sign else { continue };
        let units = &gain[space.gain_range(s, false)];
        for (a, members) in found.permutation.chunks_exact(m).enumerate() {
            let mut all: f64 = members.iter().enumerate().map(|(i, &j)| f64::from(units[(a * m + i) * n + j as usize])).sum();
            if m > 1 {
                all += f64::from(gain[space.gain_range(s, true)][a * (n / m) + members[0] as usize / m]);
            }
            found.scale[first + a * step] = if all < 0.0 { -1.0 } else { 1.0 };
            size += all.abs();
        }
    }
    size
}

/// `⟨a, g·b⟩` at a state.
pub(crate) fn value(problem: &Problem<'_>, state: &[SpaceElement]) -> f64 {
    let spaces = &problem.layout.spaces;
    let own = state.iter().zip(spaces).zip(problem.gains).map(|((state, space), gain)| gain_of(space, gain, state));
    let of_coupling = |(c, &(a, b)): (&CouplingLayout, &(&[f32], &[f32]))| {
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        c.out.moves(&spaces[c.out.space], &state[c.out.space], &mut rows);
        c.into.moves(&spaces[c.into.space], &state[c.into.space], &mut columns);
        let width = c.cols * c.rest;
        let of_row = |(a, &(from, s)): (&[f32], &Move)| {
            let b = &b[from as usize * width..(from as usize + 1) * width];
            let dot = |(a, &(from, t)): (&[f32], &Move)| {
                let b = &b[from as usize * c.rest..(from as usize + 1) * c.rest];
                f64::from(t) * a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>()
            };
            f64::from(s) * a.chunks_exact(c.rest).zip(&columns).map(dot).sum::<f64>()
        };
        a.chunks_exact(width).zip(&rows).map(of_row).sum::<f64>()
    };
    let (values, couplings) = (problem.couplings, &problem.layout.couplings);
    if values.iter().map(|(a, _)| a.len()).sum::<usize>() > PARALLEL_WORK {
        let each: Vec<f64> = couplings.par_iter().zip(values).map(of_coupling).collect();
        own.sum::<f64>() + each.iter().sum::<f64>()
    } else {
        own.sum::<f64>() + couplings.iter().zip(values).map(of_coupling).sum::<f64>()
    }
}

/// Couplings of more weights than this together are shared between threads.
const PARALLEL_WORK: usize = 1 << 16;

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

impl Memory {
    /// Forgets another problem.
    pub(crate) fn clear(&mut self) {
        self.prices.clear();
        self.begin_ascent();
    }

    /// Forgets the inner products of an earlier ascent, whose rounding would add up. Prices stay good.
    pub(crate) fn begin_ascent(&mut self) {
        self.gain.clear();
        self.counted.iter_mut().flatten().for_each(Vec::clear);
    }

    /// Computes the inner products of units of space `k`, the known other spaces as they are.
    fn refresh(&mut self, problem: &Problem<'_>, k: usize, (state, known): (&[SpaceElement], &[bool]), workspace: &mut Workspace) {
        if self.gain.is_empty() {
            self.gain.extend_from_slice(&problem.gains[k]);
            self.counted.resize_with(problem.couplings.len(), Default::default);
        }
        for (index, c) in problem.layout.couplings.iter().enumerate() {
            if c.out.space == k && known[c.into.space] {
                self.count(problem, (index, true), state, workspace);
            }
            if c.into.space == k && known[c.out.space] {
                self.count(problem, (index, false), state, workspace);
            }
        }
    }

    /// Counts a coupling with its rows (or columns) in the space, its other end as it is now.
    ///
    /// Where it was counted already, only what has moved since makes a difference.
    fn count(&mut self, problem: &Problem<'_>, (index, at_rows): (usize, bool), state: &[SpaceElement], workspace: &mut Workspace) {
        let Workspace { moves, moved, kept, transposed, .. } = workspace;
        let (c, (a, b)) = (&problem.layout.couplings[index], problem.couplings[index]);
        let (own, other) = if at_rows { (&c.out, &c.into) } else { (&c.into, &c.out) };
        let spaces = &problem.layout.spaces;
        other.moves(&spaces[other.space], &state[other.space], moves);
        let counted = &mut self.counted[index][usize::from(!at_rows)];
        let a = if counted.is_empty() {
            c.moved(b, moves, at_rows, moved);
            a
        } else {
            c.difference((a, b), (counted, moves), at_rows, (kept, moved));
            kept
        };
        std::mem::swap(counted, moves);
        if !moved.is_empty() {
            let own = (&spaces[own.space], &*problem.layout.place);
            self.flops += c.add_gains((a, moved), at_rows, own, &mut self.gain, transposed);
        }
    }
}

impl Workspace {
    /// Assigns units to units; returns the size of the values at hand.
    fn assign_units(&mut self, space: &SpaceLayout, memory: &mut Memory, found: &mut SpaceElement) -> f64 {
        let n = space.size;
        self.cost.clear();
        self.cost.resize(n * n, 0.0);
        for (s, segment) in space.segments.iter().enumerate() {
            let gain = &memory.gain[space.gain_range(s, false)];
            let signed = segment.sign.is_some();
            self.cost.iter_mut().zip(gain).for_each(|(c, &g)| *c -= f64::from(if signed { g.abs() } else { g }));
        }
        let prices = &mut memory.prices;
        if prices.is_empty() {
            prices.resize(n, 0.0); // similar gains follow: the couplings move, the unit products stay
        }
        found.permutation.copy_from_slice(self.assigner.solve_from(prices, &self.cost, n));
        for (s, segment) in space.segments.iter().enumerate() {
            let Some((first, step)) = segment.sign else { continue };
            let gain = &memory.gain[space.gain_range(s, false)];
            for (i, &j) in found.permutation.iter().enumerate() {
                found.scale[first + i * step] = if gain[i * n + j as usize] < 0.0 { -1.0 } else { 1.0 };
            }
        }
        found.permutation.iter().enumerate().map(|(i, &j)| self.cost[i * n + j as usize].abs()).sum()
    }

    /// Assigns groups to groups, and units to units within each pair of groups.
    fn assign_groups(&mut self, space: &SpaceLayout, gain: &[f32], found: &mut SpaceElement) -> f64 {
        let (n, m) = (space.size, space.members);
        let groups = n / m;
        let mut inner: Vec<Vec<u32>> = Vec::with_capacity(groups * groups);
        let mut signs: Vec<Vec<f32>> = Vec::with_capacity(groups * groups);
        let mut outer = vec![0.0; groups * groups];
        let mut cost = vec![0.0; m * m];
        for (a, b) in (0..groups * groups).map(|i| (i / groups, i % groups)) {
            let unit = |s: usize, i: usize, j: usize| gain[space.gain_range(s, false).start + (a * m + i) * n + b * m + j];
            let of_group = |s: usize| gain[space.gain_range(s, true).start + a * groups + b];
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Group;
    use crate::layout::Layout;
    use weft_core::Seed;
    use weft_testkit::{random_row, tiny_families};

    /// What is kept of a space while its neighbors move, beside what is computed anew.
    #[test]
    fn kept_inner_products_are_those_of_a_fresh_start() {
        for architecture in tiny_families() {
            let group = Group::derive(architecture.clone());
            let layout = Layout::new(&group, &[]);
            let [a, b] = [1, 2].map(|i| random_row(&architecture, Seed::new(i)));
            let gains: Vec<Vec<f32>> = layout.spaces.iter().map(|space| vec![0.0; space.gain_len()]).collect();
            let couplings: Vec<(&[f32], &[f32])> =
                layout.couplings.iter().map(|c| (&a[c.range.clone()], &b[c.range.clone()])).collect();
            let problem = Problem { layout: &layout, gains: &gains, couplings: &couplings };
            let known = vec![true; layout.spaces.len()];
            let mut workspace = Workspace::default();
            for k in 0..layout.spaces.len() {
                let (mut kept, mut fresh) = (Memory::default(), Memory::default());
                for i in 0..4 {
                    let state = group.random(Seed::new(3).index(i)).without_scale().spaces;
                    kept.refresh(&problem, k, (&state, &known), &mut workspace);
                    fresh.clear();
                    fresh.refresh(&problem, k, (&state, &known), &mut workspace);
                    weft_testkit::assert_close(&kept.gain, &fresh.gain, 1e-4);
                }
            }
        }
    }
}
