//! Means, medians and their standard errors.
//!
//! An [`Estimate`] over several generator seeds carries the larger of two standard errors: that between seeds
//! and that within seeds (for fractions, binomial). With one seed only the second exists.

use crate::figures::Estimate;

/// The mean; 0 of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 0.0; // an empty sum is −0
    }
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation with `n − 1` in the denominator; 0 of fewer than two values.
pub(crate) fn std(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let m = mean(values);
    (values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// The `p`-quantile by linear interpolation between order statistics (Hyndman & Fan 1996, definition 7); 0 of nothing.
pub(crate) fn quantile(values: &[f64], p: f64) -> f64 {
    quantile_of_sorted(&sorted(values), p)
}

/// The median; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The standard error of the median: half the distance of the order statistics at `n/2 ± √n/2`, which cover the
/// true median with the probability of one standard error whatever the distribution.
fn median_se(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let (sorted, half) = (sorted(values), 0.5 / n.sqrt());
    (quantile_of_sorted(&sorted, (0.5 + half).min(1.0)) - quantile_of_sorted(&sorted, (0.5 - half).max(0.0))) / 2.0
}

/// The mean of all values, one list a seed.
pub(crate) fn mean_estimate(seeds: &[&[f64]]) -> Estimate {
    combine(seeds, mean, |v| std(v) / (v.len().max(1) as f64).sqrt())
}

/// The mean over seeds of the median, one list a seed.
pub(crate) fn median_estimate(seeds: &[&[f64]]) -> Estimate {
    combine(seeds, median, median_se)
}

/// A fraction from `hits` among `n` samples in each seed.
///
/// For the binomial error a fraction of 0 or 1 counts as half a sample away from it, so that no finite sample is
/// held to be certain.
pub(crate) fn fraction_estimate(hits: &[usize], n: usize) -> Estimate {
    let (total, seeds) = ((n * hits.len()).max(1) as f64, hits.len());
    let fractions: Vec<f64> = hits.iter().map(|&h| h as f64 / n.max(1) as f64).collect();
    let p = mean(&fractions);
    let clamped = p.clamp((0.5 / total).min(0.5), (1.0 - 0.5 / total).max(0.5));
    let binomial = (clamped * (1.0 - clamped) / total).sqrt();
    let between = std(&fractions) / (seeds.max(1) as f64).sqrt();
    Estimate { mean: p, se: between.max(binomial) }
}

/// The estimate divided by a unit.
pub(crate) fn over(estimate: Estimate, unit: f64) -> Estimate {
    Estimate { mean: estimate.mean / unit, se: estimate.se / unit }
}

/// The standard error of a difference of two independent estimates.
pub(crate) fn difference_se(a: Estimate, b: Estimate) -> f64 {
    a.se.hypot(b.se)
}

fn combine(seeds: &[&[f64]], value: impl Fn(&[f64]) -> f64, se: impl Fn(&[f64]) -> f64) -> Estimate {
    let count = seeds.len().max(1) as f64;
    let values: Vec<f64> = seeds.iter().map(|s| value(s)).collect();
    let within = seeds.iter().map(|s| se(s).powi(2)).sum::<f64>().sqrt() / count;
    let between = std(&values) / count.sqrt();
    Estimate { mean: mean(&values), se: between.max(within) }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn quantile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let position = p * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn quantiles_by_hand() {
        let v = [4.0, 1.0, 3.0, 2.0];
        close(median(&v), 2.5);
        close(quantile(&v, 0.25), 1.75);
        close(quantile(&v, 0.0), 1.0);
        close(quantile(&v, 1.0), 4.0);
        close(median(&[]), 0.0);
        close(std(&[1.0]), 0.0);
        close(std(&v), (5.0f64 / 3.0).sqrt());
    }

    #[test]
    fn fraction_errors_by_hand() {
        // One seed: binomial alone.
        let e = fraction_estimate(&[20], 100);
        close(e.mean, 0.2);
        close(e.se, (0.2f64 * 0.8 / 100.0).sqrt());
        // Three seeds that agree: binomial over all 300.
        let e = fraction_estimate(&[20, 20, 20], 100);
        close(e.se, (0.2f64 * 0.8 / 300.0).sqrt());
        // Three seeds that do not: 0.1, 0.2, 0.6 have mean 0.3 and variance 0.07.
        let e = fraction_estimate(&[10, 20, 60], 100);
        close(e.mean, 0.3);
        close(e.se, (0.07f64 / 3.0).sqrt());
        // None of 100: as if half a sample had passed.
        let e = fraction_estimate(&[0], 100);
        close(e.mean, 0.0);
        close(e.se, (0.005f64 * 0.995 / 100.0).sqrt());
    }

    #[test]
    fn mean_errors_by_hand() {
        // Within: variances 1 and 1 over 3 values each; between: means 2 and 3.
        let e = mean_estimate(&[&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0]]);
        close(e.mean, 2.5);
        close(e.se, 0.5); // between: std 1/√2 over √2 seeds; within: √(2/3)/2 = 0.408
        let e = mean_estimate(&[&[1.0, 2.0, 3.0]]);
        close(e.se, (1.0f64 / 3.0).sqrt());
    }

    #[test]
    fn median_error_is_close_to_normal_theory() {
        let normals: Vec<f64> = weft_core::Seed::new(4).normals(10_000).into_iter().map(f64::from).collect();
        let e = median_estimate(&[&normals]);
        let theory = (std::f64::consts::PI / 2.0).sqrt() / 100.0;
        assert!((e.se / theory - 1.0).abs() < 0.25, "{} against {theory}", e.se);
        close(difference_se(Estimate { mean: 0.0, se: 3.0 }, Estimate { mean: 0.0, se: 4.0 }), 5.0);
    }
}
