//! Adapters whose updates lie in a subspace that is known.

use weft_core::Seed;

/// Adapters `ΔWᵢ = U·diag(w₀ + Σₖ zᵢₖ·wₖ)·Vᵀ` in every module, each behind a random `GL(r)` gauge of its own.
///
/// `U`, `V` and the `w` are a module's, the codes `z` an adapter's: the updates less their mean span `num_directions` dimensions.
#[derive(Debug)]
pub struct PlantedAdapters {
    rank: usize,
    num_directions: usize,
    seed: Seed,
    modules: Vec<PlantedModule>,
    /// `[n, k]`.
    codes: Vec<f32>,
}

#[derive(Debug)]
struct PlantedModule {
    fan_out: usize,
    /// `[r, o]`.
    left: Vec<f32>,
    /// `[r, i]`.
    right: Vec<f32>,
    /// `[1 + k, r]`.
    weights: Vec<f32>,
}

/// Factors of an update: `B` as `[o, r]` and `A` as `[r, i]`.
pub type PlantedFactors = (Vec<f32>, Vec<f32>);

impl PlantedAdapters {
    /// Plants `num_directions` dimensions in modules of outputs × inputs.
    #[must_use]
    pub fn new(modules: &[[usize; 2]], [rank, num_directions, num_adapters]: [usize; 3], seed: Seed) -> Self {
        let module = |(at, &[fan_out, fan_in]): (usize, &[usize; 2])| {
            let seed = seed.fork("module").index(at as u64);
            let scaled = |seed: Seed, len: usize, size: usize| -> Vec<f32> {
                seed.normals(len).into_iter().map(|x| x / (size as f32).sqrt()).collect()
            };
            PlantedModule {
                fan_out,
                left: scaled(seed.fork("left"), rank * fan_out, fan_out),
                right: scaled(seed.fork("right"), rank * fan_in, fan_in),
                weights: seed.fork("weights").normals((1 + num_directions) * rank),
            }
        };
        let codes = seed.fork("codes").normals(num_adapters * num_directions);
        Self { rank, num_directions, seed, modules: modules.iter().enumerate().map(module).collect(), codes }
    }

    /// The codes `z`, `[n, k]`.
    #[must_use]
    pub fn codes(&self) -> &[f32] {
        &self.codes
    }

    /// An adapter's factors of a module, in its gauge.
    #[must_use]
    pub fn factors(&self, adapter: usize, module: usize) -> PlantedFactors {
        let (r, k) = (self.rank, self.num_directions);
        let own = &self.modules[module];
        let code = &self.codes[adapter * k..(adapter + 1) * k];
        let weight = |p: usize| own.weights[p] + (0..k).map(|d| code[d] * own.weights[(1 + d) * r + p]).sum::<f32>();
        let weights: Vec<f32> = (0..r).map(weight).collect();
        let (mut left, mut right) = (scaled_rows(&own.left, own.fan_out, &weights), own.right.clone());
        self.gauge((adapter, module), &mut left, &mut right);
        (transposed(&left, r, own.fan_out), right)
    }

    /// Factors of a planted direction, `U·diag(wₖ)·Vᵀ`.
    #[must_use]
    pub fn direction(&self, direction: usize, module: usize) -> PlantedFactors {
        let own = &self.modules[module];
        let weights = &own.weights[(1 + direction) * self.rank..(2 + direction) * self.rank];
        (transposed(&scaled_rows(&own.left, own.fan_out, weights), self.rank, own.fan_out), own.right.clone())
    }

    /// Multiplies `A` by a matrix from the left and `B` by its inverse from the right: shears of pairs of ranks, then scales.
    fn gauge(&self, (adapter, module): (usize, usize), left: &mut [f32], right: &mut [f32]) {
        let r = self.rank;
        let draws = self.seed.fork("gauge").index(adapter as u64).index(module as u64).normals(r * r + r);
        for (at, (p, q)) in (0..r).flat_map(|p| (0..r).map(move |q| (p, q))).enumerate().filter(|(_, (p, q))| p != q) {
            let shear = 0.15 * draws[at];
            add_row(right, (p, q), r, shear);
            add_row(left, (q, p), r, -shear);
        }
        for (p, draw) in draws[r * r..].iter().enumerate() {
            let scale = (0.5 * draw).exp();
            let (i, o) = (right.len() / r, left.len() / r);
            right[p * i..(p + 1) * i].iter_mut().for_each(|x| *x *= scale);
            left[p * o..(p + 1) * o].iter_mut().for_each(|x| *x /= scale);
        }
    }
}

/// Adds a multiple of row `q` to row `p` of `rows`.
fn add_row(values: &mut [f32], (p, q): (usize, usize), rows: usize, factor: f32) {
    let width = values.len() / rows;
    let (low, high) = (p.min(q), p.max(q));
    let (first, second) = values.split_at_mut(high * width);
    let (low, high) = (&mut first[low * width..(low + 1) * width], &mut second[..width]);
    let (to, from) = if p < q { (low, &*high) } else { (high, &*low) };
    to.iter_mut().zip(from).for_each(|(x, y)| *x += factor * y);
}

fn scaled_rows(rows: &[f32], width: usize, factors: &[f32]) -> Vec<f32> {
    rows.chunks_exact(width).zip(factors).flat_map(|(row, factor)| row.iter().map(move |x| x * factor)).collect()
}

fn transposed(rows: &[f32], num_rows: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len()];
    for (p, row) in rows.chunks_exact(width).enumerate() {
        row.iter().enumerate().for_each(|(o, x)| out[o * num_rows + p] = *x);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_lie_where_they_are_planted() {
        let planted = PlantedAdapters::new(&[[5, 7]], [3, 2, 4], Seed::new(1));
        let formed = |(b, a): PlantedFactors| -> Vec<f32> {
            (0..35).map(|at| (0..3).map(|p| b[at / 7 * 3 + p] * a[p * 7 + at % 7]).sum()).collect()
        };
        let updates: Vec<Vec<f32>> = (0..4).map(|i| formed(planted.factors(i, 0))).collect();
        let directions: Vec<Vec<f32>> = (0..2).map(|k| formed(planted.direction(k, 0))).collect();
        for (i, update) in updates.iter().enumerate() {
            for (at, x) in update.iter().enumerate() {
                let moved = |k: usize| (planted.codes[i * 2 + k] - planted.codes[k]) * directions[k][at];
                let expected = updates[0][at] + moved(0) + moved(1);
                assert!((x - expected).abs() < 1e-4, "adapter {i}, entry {at}: {x}, not {expected}");
            }
        }
    }
}
