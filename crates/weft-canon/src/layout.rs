//! A row of weights rearranged for matching: features of the units of each hidden space, the tensors that couple two spaces,
//! and the rest, which nothing discrete touches.
//!
//! Units of a space are matched by the inner products of their features; features are all weights of a unit whose other end is
//! fixed. They come in *segments* whose signs are chosen together: one segment as a rule, one a direction for the heads of an
//! attention. Keys of grouped attention are features of a group of units.

use crate::group::{HiddenSpace, Slots, SpaceAxis};
use crate::product::{View, multiply_on};
use crate::{Group, SpaceElement};
use rayon::prelude::*;
use std::ops::Range;
use weft_core::products::{Place, Products};

/// Where an entry of an axis comes from, and its sign.
pub(crate) type Move = (u32, f32);

/// One end of a tensor in a hidden space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    /// The space.
    pub(crate) space: usize,
    /// Entries of a unit (or of a group).
    pub(crate) inner: usize,
    /// Entries of a coordinate.
    fine: usize,
    /// Whether it runs over groups of units.
    pub(crate) grouped: bool,
    /// First scale and slots of the class whose signs it feels; whether the class is shared by groups.
    sign: Option<(usize, Slots, bool)>,
}

impl Side {
    fn new(space: usize, of: &HiddenSpace, axis: &SpaceAxis) -> Self {
        let sign = of.sign_of(axis).map(|c| (of.first_scale(c), of.classes[c].slots, of.classes[c].grouped));
        Self { space, inner: axis.inner, fine: axis.fine, grouped: axis.grouped, sign }
    }

    /// The number of segments that its units fall into.
    fn num_segments(&self) -> usize {
        self.sign.map_or(1, |(_, slots, _)| slots.len())
    }

    /// The segment of an entry within a unit.
    fn segment(&self, within: usize) -> usize {
        self.sign.map_or(0, |(_, slots, _)| slots.of(within / self.fine))
    }

    /// For each new entry of the axis, the old one and its sign.
    pub(crate) fn moves(&self, layout: &SpaceLayout, state: &SpaceElement, moves: &mut Vec<Move>) {
        moves.clear();
        let step = if self.grouped { layout.members } else { 1 };
        for (new, from) in state.permutation.iter().step_by(step).enumerate() {
            let from = *from as usize / step;
            for within in 0..self.inner {
                let sign = self.sign.map_or(1.0, |(first, slots, grouped)| {
                    let unit = if grouped && !self.grouped { new / layout.members } else { new };
                    state.scale[first + unit * slots.len() + slots.of(within / self.fine)]
                });
                moves.push(((from * self.inner + within) as u32, sign as f32));
            }
        }
    }
}

/// Where a stretch of a unit's features comes from.
#[derive(Debug, Clone)]
struct Source {
    start: usize,
    rows: usize,
    cols: usize,
    rest: usize,
    /// 0 if units are rows, 1 if they are columns.
    axis: usize,
    inner: usize,
    /// Entries of a unit that belong to the segment.
    within: Vec<u32>,
    /// The inputs that live, if not all do.
    kept: Option<Vec<u32>>,
}

/// Features whose signs are chosen together.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// The scale of the first unit that holds its sign, and how far the next unit's is; `None` if it has no sign.
    pub(crate) sign: Option<(usize, usize)>,
    /// Its place in a unit's features.
    pub(crate) features: Range<usize>,
    /// Its place in a group's features.
    pub(crate) group_features: Range<usize>,
    sources: Vec<Source>,
    group_sources: Vec<Source>,
}

/// The features of one hidden space.
#[derive(Debug, Clone)]
pub(crate) struct SpaceLayout {
    /// The number of units, `h`.
    pub(crate) size: usize,
    /// Units of a group.
    pub(crate) members: usize,
    /// The number of features a unit, `f`.
    pub(crate) features: usize,
    /// The number of features a group of units.
    pub(crate) group_features: usize,
    /// Whether all segments have signs: then so have the units.
    pub(crate) sign: bool,
    /// All segments.
    pub(crate) segments: Vec<Segment>,
    num_scales: usize,
    followers: Vec<(usize, usize, usize)>,
}

/// A tensor between two hidden spaces, `[rows, cols, rest]`.
#[derive(Debug, Clone)]
pub(crate) struct CouplingLayout {
    /// Its place in the row.
    pub(crate) range: Range<usize>,
    /// Its rows.
    pub(crate) out: Side,
    /// Its columns.
    pub(crate) into: Side,
    pub(crate) cols: usize,
    pub(crate) rest: usize,
}

/// The rearrangement for one group.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// One entry a hidden space.
    pub(crate) spaces: Vec<SpaceLayout>,
    /// The coupling tensors.
    pub(crate) couplings: Vec<CouplingLayout>,
    /// Spaces that follow each other, without weights between them.
    pub(crate) batches: Vec<Range<usize>>,
    rest: Vec<(Range<usize>, usize, Option<Vec<u32>>)>,
    /// Where products of units are computed.
    pub(crate) place: Place,
}

impl Layout {
    /// Lays out a group's rows, leaving out the inputs that `dead` marks.
    pub(crate) fn new(group: &Group, dead: &[bool]) -> Self {
        let kept: Option<Vec<u32>> = dead.contains(&true).then(|| (0..dead.len() as u32).filter(|&i| !dead[i as usize]).collect());
        let spaces = group.spaces().iter().map(SpaceLayout::new).collect();
        let place = group.place().clone();
        let mut layout = Self { spaces, couplings: Vec::new(), batches: Vec::new(), rest: Vec::new(), place };
        for (tensor, spec) in group.architecture().tensors().iter().enumerate() {
            let (rows, cols) = (spec.shape[0], spec.shape.get(1).copied().unwrap_or(1));
            let rest: usize = spec.shape.iter().skip(2).product();
            let kept =
                kept.clone().filter(|_| rest == 1 && spec.shape.len() == 2 && group.role(tensor, 1).input && cols == dead.len());
            let side = |axis| group.hidden(tensor, axis).map(|(k, of)| Side::new(k, &group.spaces()[k], of));
            match (side(0), side(1)) {
                (Some(out), Some(into)) => layout.couplings.push(CouplingLayout { range: spec.range(), out, into, cols, rest }),
                (None, None) => layout.rest.push((spec.range(), cols * rest, kept)),
                (Some(side), None) | (None, Some(side)) => {
                    let axis = usize::from(group.hidden(tensor, 0).is_none());
                    let source =
                        Source { start: spec.range().start, rows, cols, rest, axis, inner: side.inner, within: Vec::new(), kept };
                    layout.spaces[side.space].add(&side, &source);
                }
            }
        }
        let couplings = layout.couplings.iter().flat_map(|c| [c.out.clone(), c.into.clone()]).collect::<Vec<_>>();
        for side in &couplings {
            layout.spaces[side.space].declare(side);
        }
        layout.spaces.iter_mut().for_each(SpaceLayout::place);
        layout.batches = layout.batches();
        layout
    }

    fn batches(&self) -> Vec<Range<usize>> {
        let mut batches: Vec<Range<usize>> = Vec::new();
        for k in 0..self.spaces.len() {
            let within = |batch: &Range<usize>, j: usize| j != k && batch.contains(&j);
            let free = |batch: &&mut Range<usize>| {
                let meets = |c: &CouplingLayout| {
                    (c.out.space == k && within(batch, c.into.space)) || (c.into.space == k && within(batch, c.out.space))
                };
                !self.couplings.iter().any(meets)
            };
            match batches.last_mut().filter(free) {
                Some(batch) => batch.end = k + 1,
                None => batches.push(k..k + 1),
            }
        }
        batches
    }

    /// The number of values in the part that nothing discrete touches.
    pub(crate) fn rest_len(&self) -> usize {
        self.rest
            .iter()
            .map(|(range, width, kept)| kept.as_ref().map_or(range.len(), |kept| range.len() / width * kept.len()))
            .sum()
    }

    /// The number of values in the coupling tensors together.
    pub(crate) fn coupling_len(&self) -> usize {
        self.couplings.iter().map(|c| c.range.len()).sum()
    }

    /// The number of feature values of space `k`, of units and of groups.
    pub(crate) fn unit_len(&self, k: usize) -> usize {
        let space = &self.spaces[k];
        space.size * space.features + space.size / space.members * space.group_features
    }

    /// Writes the features of space `k`: `[h, f]`, then those of its groups.
    pub(crate) fn gather_units(&self, k: usize, row: &[f32], units: &mut [f32]) {
        let space = &self.spaces[k];
        let (units, groups) = units.split_at_mut(space.size * space.features);
        let gather = |target: &mut [f32], width: usize, of: &dyn Fn(&Segment) -> &[Source]| {
            for (i, mut unit) in target.chunks_exact_mut(width.max(1)).enumerate() {
                for source in space.segments.iter().flat_map(of) {
                    let (head, tail) = unit.split_at_mut(source.len());
                    source.gather(row, i, head);
                    unit = tail;
                }
            }
        };
        gather(units, space.features, &|s| &s.sources);
        gather(groups, space.group_features, &|s| &s.group_sources);
    }

    /// Writes the coupling tensors one after the other.
    pub(crate) fn gather_couplings(&self, row: &[f32], mut target: &mut [f32]) {
        for coupling in &self.couplings {
            let (head, tail) = target.split_at_mut(coupling.range.len());
            head.copy_from_slice(&row[coupling.range.clone()]);
            target = tail;
        }
    }

    /// Writes the part that nothing discrete touches.
    pub(crate) fn gather_rest(&self, row: &[f32], mut target: &mut [f32]) {
        for (range, width, kept) in &self.rest {
            for values in row[range.clone()].chunks_exact(*width) {
                let (head, tail) = target.split_at_mut(kept.as_ref().map_or(*width, Vec::len));
                pick(values, kept.as_deref(), head);
                target = tail;
            }
        }
    }
}

impl SpaceLayout {
    fn new(space: &HiddenSpace) -> Self {
        let mut followers = Vec::new();
        for (c, class) in space.classes.iter().enumerate() {
            let of = |&f: &usize| (space.first_scale(c), space.first_scale(f), class.entries(space));
            followers.extend(class.followers.iter().map(of));
        }
        Self {
            size: space.size,
            members: space.members,
            features: 0,
            group_features: 0,
            sign: false,
            segments: Vec::new(),
            num_scales: space.num_scales(),
            followers,
        }
    }

    /// The element that changes nothing.
    pub(crate) fn identity(&self) -> SpaceElement {
        SpaceElement { permutation: (0..self.size as u32).collect(), scale: vec![1.0; self.num_scales] }
    }

    /// The number of units (or groups, where they share signs) that a segment's sign is stored for.
    pub(crate) fn num_signs(&self) -> usize {
        self.size / self.members
    }

    /// Gives classes that follow others the signs of those.
    pub(crate) fn follow(&self, state: &mut SpaceElement) {
        for &(leader, follower, len) in &self.followers {
            state.scale.copy_within(leader..leader + len, follower);
        }
    }

    /// Makes sure that the segments of a side are there; returns their indices.
    fn declare(&mut self, side: &Side) -> Vec<usize> {
        let mut found = Vec::with_capacity(side.num_segments());
        for slot in 0..side.num_segments() {
            let sign = side.sign.map(|(first, slots, _)| (first + slot, slots.len()));
            let at = self.segments.iter().position(|s| s.sign == sign).unwrap_or_else(|| {
                let (sources, group_sources) = (Vec::new(), Vec::new());
                self.segments.push(Segment { sign, features: 0..0, group_features: 0..0, sources, group_sources });
                self.segments.len() - 1
            });
            found.push(at);
        }
        found
    }

    fn add(&mut self, side: &Side, source: &Source) {
        for (slot, at) in self.declare(side).into_iter().enumerate() {
            let within = (0..side.inner).filter(|&w| side.segment(w) == slot).map(|w| w as u32).collect();
            let source = Source { within, ..source.clone() };
            let segment = &mut self.segments[at];
            if side.grouped { segment.group_sources.push(source) } else { segment.sources.push(source) }
        }
    }

    fn place(&mut self) {
        let (mut features, mut group_features) = (0, 0);
        for segment in &mut self.segments {
            let len = |sources: &[Source]| sources.iter().map(Source::len).sum::<usize>();
            segment.features = features..features + len(&segment.sources);
            segment.group_features = group_features..group_features + len(&segment.group_sources);
            (features, group_features) = (segment.features.end, segment.group_features.end);
        }
        (self.features, self.group_features) = (features, group_features);
        self.sign = !self.segments.is_empty() && self.segments.iter().all(|s| s.sign.is_some());
    }

    /// The number of inner products of two networks' units: a matrix a segment, then one a segment for groups.
    pub(crate) fn gain_len(&self) -> usize {
        let groups = if self.members > 1 { self.size / self.members } else { 0 };
        self.segments.len() * (self.size * self.size + groups * groups)
    }

    /// Where the matrix of a segment lies among the inner products; with `grouped`, that of its groups.
    pub(crate) fn gain_range(&self, segment: usize, grouped: bool) -> Range<usize> {
        let groups = self.size / self.members;
        let (first, n) = if grouped {
            (self.segments.len() * self.size * self.size + segment * groups * groups, groups * groups)
        } else {
            (segment * self.size * self.size, self.size * self.size)
        };
        first..first + n
    }

    /// Computes the inner products of the units of two networks, from their features.
    pub(crate) fn fill_gains(&self, on: &dyn Products, (a, b): (&[f32], &[f32]), gains: &mut [f32]) {
        let units = self.size * self.features;
        for (s, segment) in self.segments.iter().enumerate() {
            let product = |gains: &mut [f32], (a, b): (&[f32], &[f32]), n: usize, width: usize, part: &Range<usize>| {
                if part.is_empty() {
                    gains.fill(0.0);
                } else {
                    let [a, b] = [a, b].map(|of| View::strided(&of[part.start..], n, part.len(), width));
                    multiply_on(on, gains, a, b.t(), false);
                }
            };
            let range = self.gain_range(s, false);
            product(&mut gains[range], (&a[..units], &b[..units]), self.size, self.features, &segment.features);
            if self.members > 1 {
                let range = self.gain_range(s, true);
                product(
                    &mut gains[range],
                    (&a[units..], &b[units..]),
                    self.size / self.members,
                    self.group_features,
                    &segment.group_features,
                );
            }
        }
    }

    /// The segments of a side's entries, by slot.
    pub(crate) fn segments_of(&self, side: &Side) -> Vec<usize> {
        let find = |slot| {
            let sign = side.sign.map(|(first, slots, _)| (first + slot, slots.len()));
            self.segments.iter().position(|s| s.sign == sign).unwrap_or(0)
        };
        (0..side.num_segments()).map(find).collect()
    }
}

impl CouplingLayout {
    /// Adds to the inner products of the units of one end those of this tensor, the other end of `b` being moved already. Returns the
    /// floating-point operations of that.
    pub(crate) fn add_gains(
        &self,
        (a, b): (&[f32], &[f32]),
        at_rows: bool,
        (layout, on): (&SpaceLayout, &dyn Products),
        gains: &mut [f32],
        scratch: &mut [Vec<f32>; 2],
    ) -> f64 {
        let side = if at_rows { &self.out } else { &self.into };
        let n = if side.grouped { layout.size / layout.members } else { layout.size };
        let flops = 2.0 * (n * a.len()) as f64;
        let rows = a.len() / (self.cols * self.rest);
        let segments = layout.segments_of(side);
        let grouped = side.grouped && layout.members > 1;
        if !at_rows && side.inner == 1 && self.rest == 1 {
            let [a, b] = [a, b].map(|of| View::new(of, rows, self.cols));
            multiply_on(on, &mut gains[layout.gain_range(segments[0], grouped)], a.t(), b, true);
            return flops;
        }
        let (a, b) = if at_rows {
            (a, b)
        } else {
            let [x, y] = scratch;
            transpose(a, [rows, self.cols, self.rest], x);
            transpose(b, [rows, self.cols, self.rest], y);
            (x.as_slice(), y.as_slice())
        };
        let width = a.len() / (n * side.inner);
        if segments.len() == 1 {
            let [a, b] = [a, b].map(|of| View::new(of, n, width * side.inner));
            multiply_on(on, &mut gains[layout.gain_range(segments[0], grouped)], a, b.t(), true);
            return flops;
        }
        for within in 0..side.inner {
            let range = layout.gain_range(segments[side.segment(within)], grouped);
            let [a, b] = [a, b].map(|of| View::strided(&of[within * width..], n, width, width * side.inner));
            multiply_on(on, &mut gains[range], a, b.t(), true);
        }
        flops
    }

    /// Moves the columns (or rows) of `b`.
    pub(crate) fn moved(&self, b: &[f32], moves: &[Move], columns: bool, target: &mut Vec<f32>) {
        target.resize(b.len(), 0.0);
        let width = self.cols * self.rest;
        let part = if columns { self.rest } else { width };
        for_each_row(target, width, |i, target| {
            let (row, moves) = if columns { (&b[i * width..(i + 1) * width], moves) } else { (b, &moves[i..=i]) };
            for (target, &(from, sign)) in target.chunks_exact_mut(part).zip(moves) {
                let part = &row[from as usize * part..(from as usize + 1) * part];
                target.iter_mut().zip(part).for_each(|(t, w)| *t = w * sign);
            }
        });
    }
}

impl CouplingLayout {
    /// What the moves of the columns (or rows) of `b` change, and what of `a` it meets: both tensors without the entries that stay.
    pub(crate) fn difference(
        &self,
        (a, b): (&[f32], &[f32]),
        (before, after): (&[Move], &[Move]),
        columns: bool,
        (kept, change): (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        kept.clear();
        change.clear();
        let changed: Vec<usize> = (0..after.len()).filter(|&i| before[i] != after[i]).collect();
        let (width, part) = if columns { (self.cols * self.rest, self.rest) } else { (a.len().max(1), self.cols * self.rest) };
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            for &i in &changed {
                kept.extend_from_slice(&a[i * part..(i + 1) * part]);
                let [(old, old_sign), (new, new_sign)] = [before[i], after[i]];
                let [old, new] = [old, new].map(|from| &b[from as usize * part..(from as usize + 1) * part]);
                change.extend(new.iter().zip(old).map(|(new, old)| new * new_sign - old * old_sign));
            }
        }
    }
}

/// `[rows, cols, rest] → [cols, rows, rest]`.
fn transpose(source: &[f32], [rows, cols, rest]: [usize; 3], target: &mut Vec<f32>) {
    target.resize(source.len(), 0.0);
    for_each_row(target, rows * rest, |c, target| {
        for (r, part) in target.chunks_exact_mut(rest).enumerate() {
            part.copy_from_slice(&source[(r * cols + c) * rest..(r * cols + c + 1) * rest]);
        }
    });
}

/// Fills the rows of a matrix, those of a large one on all cores.
fn for_each_row(target: &mut [f32], width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    if target.len() > PARALLEL_WORK {
        let rows = target.par_chunks_exact_mut(width).enumerate().with_min_len(1 + PARALLEL_WORK / (4 * width));
        rows.for_each(|(i, row)| fill(i, row));
    } else {
        target.chunks_exact_mut(width).enumerate().for_each(|(i, row)| fill(i, row));
    }
}

/// Tensors of more values than this are shared between threads.
const PARALLEL_WORK: usize = 1 << 16;

fn pick(values: &[f32], kept: Option<&[u32]>, target: &mut [f32]) {
    match kept {
        None => target.copy_from_slice(values),
        Some(kept) => target.iter_mut().zip(kept).for_each(|(t, &j)| *t = values[j as usize]),
    }
}

impl Source {
    fn len(&self) -> usize {
        let across = if self.axis == 0 { self.kept.as_ref().map_or(self.cols, Vec::len) } else { self.rows };
        self.within.len() * across * self.rest
    }

    fn gather(&self, row: &[f32], unit: usize, target: &mut [f32]) {
        let width = self.cols * self.rest;
        let across = target.len() / self.within.len().max(1);
        for (&within, target) in self.within.iter().zip(target.chunks_exact_mut(across.max(1))) {
            let index = unit * self.inner + within as usize;
            if self.axis == 0 {
                pick(&row[self.start + index * width..self.start + (index + 1) * width], self.kept.as_deref(), target);
            } else {
                let rows = row[self.start..self.start + self.rows * width].chunks_exact(width);
                for (t, row) in target.chunks_exact_mut(self.rest).zip(rows) {
                    t.copy_from_slice(&row[index * self.rest..(index + 1) * self.rest]);
                }
            }
        }
    }
}
