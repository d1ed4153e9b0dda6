//! Softmax cross-entropy.

/// Replaces logits by the gradient of the mean cross-entropy and returns that mean, in nats.
///
/// `∂L/∂z = (softmax(z) − onehot(y)) / b`
///
/// # Shapes
/// `logits` `[b, c]`, `labels` `[b]`.
///
/// # Panics
/// If the lengths do not fit or a label is not below `c`.
pub fn cross_entropy_gradient(logits: &mut [f32], labels: &[u32]) -> f64 {
    let classes = logits.len() / labels.len();
    let scale = 1.0 / labels.len() as f32;
    let mut total = 0.0f64;
    for (row, &label) in logits.chunks_exact_mut(classes).zip(labels) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = row[label as usize] - max;
        let mut sum = 0.0;
        for value in row.iter_mut() {
            *value = (*value - max).exp();
            sum += *value;
        }
        total += f64::from(sum.ln()) - f64::from(shifted);
        let factor = scale / sum;
        for value in row.iter_mut() {
            *value *= factor;
        }
        row[label as usize] -= scale;
    }
    total / labels.len() as f64
}

/// The mean cross-entropy of logits, in nats.
///
/// # Shapes
/// `logits` `[b, c]`, `labels` `[b]`.
#[must_use]
pub fn cross_entropy(logits: &[f32], labels: &[u32]) -> f64 {
    let classes = logits.len() / labels.len();
    let total: f64 = logits
        .chunks_exact(classes)
        .zip(labels)
        .map(|(row, &label)| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
            f64::from(sum.ln()) + f64::from(max) - f64::from(row[label as usize])
        })
        .sum();
    total / labels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits() {
        let mut z = vec![3.0; 8];
        let loss = cross_entropy_gradient(&mut z, &[0, 3]);
        assert!((loss - 4f64.ln()).abs() < 1e-6);
        assert_eq!(z, [-0.375, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, -0.375]);
    }

    #[test]
    fn gradient_matches_differences_and_survives_large_logits() {
        let z = vec![0.3f32, -1.2, 0.8, 90.0, -40.0, 88.0];
        let mut g = z.clone();
        let loss = cross_entropy_gradient(&mut g, &[2, 0]);
        assert!((loss - cross_entropy(&z, &[2, 0])).abs() < 1e-6);
        for i in 0..z.len() {
            let mut shifted = [z.clone(), z.clone()];
            shifted[0][i] += 1e-2;
            shifted[1][i] -= 1e-2;
            let numeric = (cross_entropy(&shifted[0], &[2, 0]) - cross_entropy(&shifted[1], &[2, 0])) / 2e-2;
            assert!((f64::from(g[i]) - numeric).abs() < 1e-3, "{i}: {} and {numeric}", g[i]);
        }
    }
}
