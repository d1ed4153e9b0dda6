//! The linear assignment problem, solved by shortest augmenting paths.
//!
//! Alignment solves tens of millions of small problems, so the workspace is kept between calls.

const NONE: u32 = u32::MAX;

/// A solver of square assignment problems with a reusable workspace.
///
/// # References
/// Jonker & Volgenant 1987; the form of the augmentation is that of Crouse 2016, Section III.
#[derive(Debug, Clone, Default)]
pub struct Assigner {
    row_dual: Vec<f64>,
    column_dual: Vec<f64>,
    column_of_row: Vec<u32>,
    row_of_column: Vec<u32>,
    shortest: Vec<f64>,
    predecessor: Vec<u32>,
    remaining: Vec<u32>,
    scanned: Vec<u32>,
}

impl Assigner {
    /// An empty workspace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds for each row the column of a minimal-cost perfect matching.
    ///
    /// Costs must be finite; the result for others is some permutation.
    ///
    /// # Shapes
    /// `cost` is `[n, n]`, row-major.
    ///
    /// # Panics
    /// If `cost` has not `n²` values.
    pub fn solve(&mut self, cost: &[f64], n: usize) -> &[u32] {
        assert_eq!(cost.len(), n * n, "the cost matrix is square");
        self.reduce(cost, n);
        for row in 0..n {
            if self.column_of_row[row] == NONE {
                self.augment(cost, n, row);
            }
        }
        &self.column_of_row
    }

    /// The result of the last call of [`Assigner::solve`].
    #[must_use]
    pub fn assignment(&self) -> &[u32] {
        &self.column_of_row
    }

    /// Feasible duals (column minima, then row minima of what is left) and a greedy matching of tight entries.
    fn reduce(&mut self, cost: &[f64], n: usize) {
        for list in [&mut self.column_of_row, &mut self.row_of_column, &mut self.predecessor] {
            list.clear();
            list.resize(n, NONE);
        }
        self.column_dual.clear();
        self.column_dual.resize(n, f64::INFINITY);
        for row in cost.chunks_exact(n.max(1)) {
            for (dual, &c) in self.column_dual.iter_mut().zip(row) {
                *dual = if c < *dual { c } else { *dual };
            }
        }
        self.row_dual.clear();
        for (i, row) in cost.chunks_exact(n.max(1)).enumerate() {
            let (mut lowest, mut best) = (f64::INFINITY, 0);
            for (j, (&c, &dual)) in row.iter().zip(&self.column_dual).enumerate() {
                if c - dual < lowest {
                    (lowest, best) = (c - dual, j);
                }
            }
            self.row_dual.push(lowest);
            if self.row_of_column[best] == NONE {
                self.row_of_column[best] = i as u32;
                self.column_of_row[i] = best as u32;
            }
        }
        self.shortest.resize(n, 0.0);
    }

    /// Dijkstra's search in reduced costs from a free row to the nearest free column, then the exchange along the path.
    fn augment(&mut self, cost: &[f64], n: usize, start: usize) {
        self.remaining.clear();
        self.remaining.extend(0..n as u32);
        self.scanned.clear();
        self.shortest.fill(f64::INFINITY);
        let (mut row, mut path) = (start, 0.0);
        let sink = loop {
            let base = path - self.row_dual[row];
            let costs = &cost[row * n..(row + 1) * n];
            let (mut lowest, mut at) = (f64::INFINITY, 0);
            for (place, &j) in self.remaining.iter().enumerate() {
                let j = j as usize;
                let reduced = base + costs[j] - self.column_dual[j];
                if reduced < self.shortest[j] {
                    self.shortest[j] = reduced;
                    self.predecessor[j] = row as u32;
                }
                let free = self.shortest[j] == lowest && self.row_of_column[j] == NONE;
                if self.shortest[j] < lowest || free {
                    (lowest, at) = (self.shortest[j], place);
                }
            }
            path = lowest;
            let column = self.remaining.swap_remove(at) as usize;
            if self.predecessor[column] == NONE {
                self.predecessor[column] = row as u32; // only with costs that are not finite
            }
            match self.row_of_column[column] {
                NONE => break column,
                next => {
                    self.scanned.push(column as u32);
                    row = next as usize;
                }
            }
        };
        self.row_dual[start] += path;
        for &column in &self.scanned {
            let slack = path - self.shortest[column as usize];
            self.row_dual[self.row_of_column[column as usize] as usize] += slack;
            self.column_dual[column as usize] -= slack;
        }
        let mut column = sink;
        loop {
            let row = self.predecessor[column] as usize;
            self.row_of_column[column] = row as u32;
            let next = std::mem::replace(&mut self.column_of_row[row], column as u32);
            if row == start {
                break;
            }
            column = next as usize;
        }
    }
}

/// Finds for each row the column of a minimal-cost perfect matching.
///
/// # Panics
/// If `cost` has not `n²` values.
///
/// # Examples
/// ```
/// assert_eq!(weft_canon::assign(&[1.0, 0.0, 5.0, 1.0], 2), [0, 1]);
/// assert_eq!(weft_canon::assign(&[1.0, 0.0, 0.5, 1.0], 2), [1, 0]);
/// ```
#[must_use]
pub fn assign(cost: &[f64], n: usize) -> Vec<u32> {
    Assigner::new().solve(cost, n).to_vec()
}
