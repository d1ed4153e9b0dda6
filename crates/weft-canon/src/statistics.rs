//! Batch norms that stay as they are trained.
//!
//! The canonical form folds the statistics of a batch norm into its gain and bias: `μ = 0`, `σ² + ε = 1`. The function is kept, but
//! not what a batch norm does while it is trained or recalibrated, which is to measure `μ` and `σ²` anew: the folded bias is
//! right for `μ = 0` alone. Here the two numbers that the fold removed come back, in the units of the canonical weights: `μ` and `σ`
//! are then what data give, and `γ` and `β` what training found.

use crate::Group;
use crate::error::Result;
use crate::group::Fold;
use crate::transform::{Step, Transform};

/// The steps that bring a canonical network to the statistics that its raw row had, `raw` being what `transform` was applied to.
///
/// With `s` the scale of a channel in canonical weights they make `μ' = s·μ`, `σ'² = s²·σ²`, and `γ'`, `β'` what keeps the function.
pub(crate) fn kept(group: &Group, raw: &[f64], transform: &Transform) -> Result<Vec<Step>> {
    let statistics = |(index, fold): (usize, &Fold)| match *fold {
        Fold::Statistics { mean, variance, epsilon, .. } => {
            let range = |t: usize| group.architecture().tensors()[t].range();
            Some((index, range(mean), range(variance), epsilon))
        }
        _ => None,
    };
    let found: Vec<_> = group.folds().iter().enumerate().filter_map(statistics).collect();
    // All but the folds of statistics; a mean that is greater by one arrives greater by its scale.
    let mut row = raw.to_vec();
    let mut raised = raw.to_vec();
    for (_, mean, ..) in &found {
        raised[mean.clone()].iter_mut().for_each(|m| *m += 1.0);
    }
    for step in &transform.steps {
        if matches!(step, Step::Fold(index, _) if found.iter().any(|(of, ..)| of == index)) {
            continue;
        }
        group.take(step, &mut row)?;
        group.take(step, &mut raised)?;
    }
    let step = |(index, mean, variance, epsilon): (usize, std::ops::Range<usize>, std::ops::Range<usize>, f64)| {
        let means = &row[mean.clone()];
        let scales = raised[mean].iter().zip(means).map(|(raised, mean)| raised - mean);
        // A decoded variance may lie a little below 0; the fold took `σ² + ε > 0`.
        let spread = |(scale, variance): (f64, &f64)| match scale * scale * variance.max(0.0) + epsilon {
            total if total > 0.0 => total.sqrt(),
            _ => 1.0,
        };
        let factors = scales.zip(&row[variance]).map(spread);
        Step::Fold(index, factors.chain(means.iter().copied()).collect())
    };
    Ok(found.into_iter().map(step).collect())
}
