//! A row of weights rearranged for matching: one feature vector a hidden unit, the matrices that couple two hidden
//! spaces, and the rest, which no permutation touches.
//!
//! Units of a space are matched by the inner products of their feature vectors; a feature vector holds every weight of
//! the unit whose other end is fixed: its input row, its bias, its output column.

use crate::Group;
use std::ops::Range;

/// Where a stretch of a unit's features comes from.
#[derive(Debug, Clone)]
enum Source {
    /// Row `i` of a matrix, all columns or the kept inputs.
    Row { start: usize, cols: usize, kept: Option<Vec<u32>> },
    /// Column `i` of a matrix.
    Column { start: usize, rows: usize, cols: usize },
    /// Entry `i` of a vector.
    Entry { start: usize },
}

/// The features of one hidden space.
#[derive(Debug, Clone)]
pub(crate) struct SpaceLayout {
    /// The number of units, `h`.
    pub(crate) size: usize,
    /// The number of features a unit, `f`.
    pub(crate) features: usize,
    /// Whether signs are matched too.
    pub(crate) sign: bool,
    sources: Vec<Source>,
}

/// A matrix between two hidden spaces.
#[derive(Debug, Clone)]
pub(crate) struct CouplingLayout {
    /// Its place in the row.
    pub(crate) range: Range<usize>,
    /// The space of its rows.
    pub(crate) out: usize,
    /// The space of its columns.
    pub(crate) into: usize,
}

/// The rearrangement for one group.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// One entry a hidden space.
    pub(crate) spaces: Vec<SpaceLayout>,
    /// The coupling matrices.
    pub(crate) couplings: Vec<CouplingLayout>,
    rest: Vec<Source>,
    /// Stretches of `rest` with their numbers of rows.
    rest_rows: Vec<usize>,
}

impl Layout {
    /// Lays out a group's rows, leaving out the inputs that `dead` marks.
    pub(crate) fn new(group: &Group, dead: &[bool]) -> Self {
        let kept: Option<Vec<u32>> = dead.contains(&true).then(|| (0..dead.len() as u32).filter(|&i| !dead[i as usize]).collect());
        let space = |s: &crate::HiddenSpace| SpaceLayout { size: s.size, features: 0, sign: s.sign, sources: Vec::new() };
        let mut layout = Self {
            spaces: group.spaces().iter().map(space).collect(),
            couplings: Vec::new(),
            rest: Vec::new(),
            rest_rows: Vec::new(),
        };
        for (tensor, spec) in group.architecture().tensors().iter().enumerate() {
            let (range, start) = (spec.range(), spec.range().start);
            let [rows, cols] = [spec.shape[0], spec.shape.get(1).copied().unwrap_or(1)];
            let whole = |kept: &Option<Vec<u32>>| match spec.shape.len() {
                1 => Source::Entry { start },
                _ => Source::Row { start, cols, kept: kept.clone().filter(|_| group.role(tensor, 1).input) },
            };
            match (group.role(tensor, 0).hidden, group.role(tensor, 1).hidden) {
                (Some(out), Some(into)) => layout.couplings.push(CouplingLayout { range, out, into }),
                (Some(k), None) => layout.spaces[k].sources.push(whole(&kept)),
                (None, Some(k)) => layout.spaces[k].sources.push(Source::Column { start, rows, cols }),
                (None, None) => {
                    layout.rest.push(whole(&kept));
                    layout.rest_rows.push(rows);
                }
            }
        }
        for space in &mut layout.spaces {
            space.features = space.sources.iter().map(Source::len).sum();
        }
        layout
    }

    /// The number of values in the part that no permutation touches.
    pub(crate) fn rest_len(&self) -> usize {
        self.rest.iter().zip(&self.rest_rows).map(|(s, rows)| s.len() * rows).sum()
    }

    /// The number of values in the coupling matrices together.
    pub(crate) fn coupling_len(&self) -> usize {
        self.couplings.iter().map(|c| c.range.len()).sum()
    }

    /// Writes the features of space `k`, `[h, f]`.
    pub(crate) fn gather_units(&self, k: usize, row: &[f32], units: &mut [f32]) {
        let space = &self.spaces[k];
        if space.features > 0 {
            for (i, mut unit) in units.chunks_exact_mut(space.features).enumerate() {
                for source in &space.sources {
                    let (head, tail) = unit.split_at_mut(source.len());
                    source.gather(row, i, head);
                    unit = tail;
                }
            }
        }
    }

    /// Writes the coupling matrices one after the other.
    pub(crate) fn gather_couplings(&self, row: &[f32], mut target: &mut [f32]) {
        for coupling in &self.couplings {
            let (head, tail) = target.split_at_mut(coupling.range.len());
            head.copy_from_slice(&row[coupling.range.clone()]);
            target = tail;
        }
    }

    /// Writes the part that no permutation touches.
    pub(crate) fn gather_rest(&self, row: &[f32], mut target: &mut [f32]) {
        for (source, &rows) in self.rest.iter().zip(&self.rest_rows) {
            for i in 0..rows {
                let (head, tail) = target.split_at_mut(source.len());
                source.gather(row, i, head);
                target = tail;
            }
        }
    }
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Self::Row { cols, kept, .. } => kept.as_ref().map_or(*cols, Vec::len),
            Self::Column { rows, .. } => *rows,
            Self::Entry { .. } => 1,
        }
    }

    fn gather(&self, row: &[f32], i: usize, target: &mut [f32]) {
        match self {
            Self::Row { start, cols, kept: None } => target.copy_from_slice(&row[start + i * cols..start + (i + 1) * cols]),
            Self::Row { start, cols, kept: Some(kept) } => {
                let row = &row[start + i * cols..start + (i + 1) * cols];
                target.iter_mut().zip(kept).for_each(|(t, &j)| *t = row[j as usize]);
            }
            Self::Column { start, cols, .. } => {
                let column = row[start + i..].iter().step_by(*cols);
                target.iter_mut().zip(column).for_each(|(t, &x)| *t = x);
            }
            Self::Entry { start } => target[0] = row[start + i],
        }
    }
}
