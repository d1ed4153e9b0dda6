//! Standard errors of figures that are not means.

use crate::figures::Estimate;

/// Groups of networks that are left out in turn.
const GROUPS: usize = 10;

/// The figure of all networks, with the standard error of the delete-a-group jackknife:
/// `SE² = (g − 1)/g · Σ (θ₍ᵢ₎ − θ̄)²` over `g` groups (every `g`-th network forms one).
///
/// # References
/// Efron & Stein 1981; Kott 2001 for groups.
pub(crate) fn jackknife(n: usize, figure: impl Fn(&[usize]) -> f64) -> Estimate {
    let all: Vec<usize> = (0..n).collect();
    let groups = GROUPS.min(n);
    let left_out: Vec<f64> =
        (0..groups).map(|group| figure(&all.iter().copied().filter(|i| i % groups != group).collect::<Vec<_>>())).collect();
    let mean = crate::stats::mean(&left_out);
    let squares: f64 = left_out.iter().map(|v| (v - mean).powi(2)).sum();
    Estimate { mean: figure(&all), se: (squares * (groups as f64 - 1.0) / groups.max(1) as f64).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_mean_it_is_the_textbook_error() {
        let values = [1.0, 4.0, 2.0, 8.0, 5.0];
        let found = jackknife(5, |kept| kept.iter().map(|&i| values[i]).sum::<f64>() / kept.len() as f64);
        assert!((found.mean - 4.0).abs() < 1e-12);
        assert!((found.se - (7.5_f64 / 5.0).sqrt()).abs() < 1e-12, "{found:?}"); // the variance is 30 / 4
    }
}
