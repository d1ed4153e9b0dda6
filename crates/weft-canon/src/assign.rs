//! The linear assignment problem, solved by shortest augmenting paths.
//!
//! Alignment solves tens of millions of small problems, so the workspace is kept between calls.

const NONE: u32 = u32::MAX;
/// Rounds of augmenting row reduction before the searches for shortest paths.
const BIDDING_ROUNDS: usize = 2;

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
    /// Rows as `f64`, so that they are selected beside the distances.
    predecessor: Vec<f64>,
    wall: Vec<f64>,
    free: Vec<u32>,
    waiting: Vec<u32>,
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
        self.column_dual.clear();
        self.column_dual.resize(n, f64::INFINITY);
        for row in cost.chunks_exact(n.max(1)) {
            for (dual, &c) in self.column_dual.iter_mut().zip(row) {
                *dual = if c < *dual { c } else { *dual };
            }
        }
        self.complete(cost, n)
    }

    /// As [`Assigner::solve`], beginning at column prices that a similar problem ended with, and leaving this one's there.
    ///
    /// Any prices give a minimal matching; good ones leave little to do.
    ///
    /// # Panics
    /// If `cost` has not `n²` values or `prices` not `n`.
    pub fn solve_from(&mut self, prices: &mut [f64], cost: &[f64], n: usize) -> &[u32] {
        assert_eq!(prices.len(), n, "one price a column");
        self.column_dual.clear();
        self.column_dual.extend_from_slice(prices);
        self.complete(cost, n);
        prices.copy_from_slice(&self.column_dual);
        &self.column_of_row
    }

    fn complete(&mut self, cost: &[f64], n: usize) -> &[u32] {
        assert_eq!(cost.len(), n * n, "the cost matrix is square");
        for list in [&mut self.column_of_row, &mut self.row_of_column] {
            list.clear();
            list.resize(n, NONE);
        }
        self.free.clear();
        self.free.extend((0..n as u32).rev());
        for _ in 0..BIDDING_ROUNDS {
            self.bid(cost, n);
        }
        self.row_dual.clear();
        for (i, &column) in self.column_of_row.iter().enumerate() {
            let row = &cost[i * n..(i + 1) * n];
            self.row_dual.push(match column {
                NONE => row.iter().zip(&self.column_dual).map(|(c, v)| c - v).fold(f64::INFINITY, f64::min),
                j => row[j as usize] - self.column_dual[j as usize],
            });
        }
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

    /// Augmenting row reduction: each free row takes its cheapest column and lowers that column's price to its second choice.
    ///
    /// A row that loses its column bids again at once if the price fell, else in the next round. Prices stay feasible and assigned
    /// entries tight, so stopping at any point is sound; the number of bids is bounded, since prices may fall in tiny steps.
    fn bid(&mut self, cost: &[f64], n: usize) {
        self.waiting.clear();
        let mut bids = 0;
        while let Some(row) = self.free.pop() {
            bids += 1;
            if bids > n {
                self.waiting.push(row);
                continue;
            }
            let costs = &cost[row as usize * n..(row as usize + 1) * n];
            let (first, second, mut at) = two_least(costs, &self.column_dual);
            let lowered = first < second && second < f64::INFINITY;
            if lowered {
                self.column_dual[at] -= second - first;
            } else if self.row_of_column[at] != NONE {
                let tied = |&(j, (c, price)): &(usize, (&f64, &f64))| j != at && c - price <= first;
                at = costs.iter().zip(&self.column_dual).enumerate().find(tied).map_or(at, |(j, _)| j);
            }
            let loser = std::mem::replace(&mut self.row_of_column[at], row);
            self.column_of_row[row as usize] = at as u32;
            if loser != NONE {
                self.column_of_row[loser as usize] = NONE;
                if lowered { self.free.push(loser) } else { self.waiting.push(loser) }
            }
        }
        std::mem::swap(&mut self.free, &mut self.waiting);
    }

    /// Dijkstra's search in reduced costs from a free row to the nearest free column, then the exchange along the path.
    ///
    /// The loops run over all columns, the scanned ones walled off by infinity, so that they vectorize.
    fn augment(&mut self, cost: &[f64], n: usize, start: usize) {
        self.scanned.clear();
        self.shortest.clear();
        self.shortest.resize(n, f64::INFINITY);
        self.wall.clear();
        self.wall.resize(n, 0.0);
        self.predecessor.clear();
        self.predecessor.resize(n, start as f64);
        let (mut row, mut path) = (start, 0.0);
        let sink = loop {
            let (base, from) = (path - self.row_dual[row], row as f64);
            let columns = cost[row * n..(row + 1) * n].iter().zip(&self.column_dual).zip(&self.wall);
            for (((c, price), wall), (shortest, predecessor)) in columns.zip(self.shortest.iter_mut().zip(&mut self.predecessor)) {
                let reduced = base + c - price + wall;
                let closer = reduced < *shortest;
                *shortest = if closer { reduced } else { *shortest };
                *predecessor = if closer { from } else { *predecessor };
            }
            let column = nearest(&self.shortest, &self.wall);
            path = self.shortest[column];
            self.wall[column] = f64::INFINITY;
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

/// The least and second least reduced cost of a row, and the column of the least.
fn two_least(costs: &[f64], prices: &[f64]) -> (f64, f64, usize) {
    const LANES: usize = 8;
    let (mut first, mut second, mut place) = ([f64::INFINITY; LANES], [f64::INFINITY; LANES], [0.0_f64; LANES]);
    let mut bid = |lane: usize, reduced: f64, chunk: f64| {
        let less = reduced < first[lane];
        let worse = if less { first[lane] } else { reduced };
        second[lane] = if worse < second[lane] { worse } else { second[lane] };
        first[lane] = if less { reduced } else { first[lane] };
        place[lane] = if less { chunk } else { place[lane] };
    };
    let (costs, prices) = (costs.chunks_exact(LANES), prices.chunks_exact(LANES));
    let (last_costs, last_prices, mut chunk) = (costs.remainder(), prices.remainder(), 0.0);
    for (costs, prices) in costs.zip(prices) {
        for lane in 0..LANES {
            bid(lane, costs[lane] - prices[lane], chunk);
        }
        chunk += 1.0;
    }
    for (lane, (c, price)) in last_costs.iter().zip(last_prices).enumerate() {
        bid(lane, c - price, chunk);
    }
    let mut best = 0;
    for lane in 1..LANES {
        best = if first[lane] < first[best] { lane } else { best };
    }
    let others = (0..LANES).map(|lane| if lane == best { second[lane] } else { first[lane] });
    let runner_up = others.fold(f64::INFINITY, |m, x| if x < m { x } else { m });
    (first[best], runner_up, place[best] as usize * LANES + best)
}

/// The first column of least `distance` outside the wall.
fn nearest(distance: &[f64], wall: &[f64]) -> usize {
    const LANES: usize = 8;
    let mut lanes = [f64::INFINITY; LANES];
    for (d, w) in distance.chunks(LANES).zip(wall.chunks(LANES)) {
        for (lane, (d, w)) in lanes.iter_mut().zip(d.iter().zip(w)) {
            *lane = if d + w < *lane { d + w } else { *lane };
        }
    }
    let least = lanes.iter().copied().fold(f64::INFINITY, f64::min);
    let at = distance.iter().zip(wall).position(|(d, w)| d + w <= least);
    // Only with costs that are not finite can all distances be infinite; then any column that is left will do.
    at.filter(|&j| wall[j] == 0.0).or_else(|| wall.iter().position(|&w| w == 0.0)).unwrap_or(0)
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
