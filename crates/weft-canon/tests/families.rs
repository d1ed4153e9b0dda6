//! Every family: the group keeps the function, nothing is forgotten, canonical forms are one per orbit and idempotent.

mod shared;

use faer::MatRef;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rayon::prelude::*;
use shared::{deviation, inputs, wide, without_rotations};
use std::sync::Arc;
use weft_canon::{Canonicalizer, Fold, Group, Matching, Transform};
use weft_core::{Activation, Architecture, Node, Op, Seed};
use weft_testkit::{derivative, forward_f64, node_values, random_row, tiny_families};

/// Gives every batch norm the mean and variance of what it reads on some inputs, the first norm first.
fn measure_statistics(architecture: &Architecture, row: &mut [f64], x: &[f64]) {
    for node in architecture.nodes() {
        let Op::BatchNorm { mean, variance, .. } = node.op else { continue };
        let from = node.inputs[0];
        let of_each: Vec<Vec<f64>> =
            x.chunks_exact(architecture.num_inputs()).map(|x| node_values(architecture, row, x).swap_remove(from)).collect();
        let channels = architecture.shapes()[from][0];
        for c in 0..channels {
            let values = || of_each.iter().flat_map(|v| &v[c * v.len() / channels..(c + 1) * v.len() / channels]);
            let n = values().count() as f64;
            let average = values().sum::<f64>() / n;
            row[architecture.tensors()[mean].range()][c] = average;
            row[architecture.tensors()[variance].range()][c] = values().map(|v| (v - average).powi(2)).sum::<f64>() / n;
        }
    }
}

fn families() -> impl Strategy<Value = Arc<Architecture>> {
    prop::sample::select(tiny_families())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elements_keep_the_function_and_have_inverses(architecture in families(), seed in any::<u64>()) {
        let (group, seed) = (Group::derive(architecture.clone()), Seed::new(seed));
        let row = wide(&random_row(&architecture, seed));
        let transform = group.random_transform(seed.fork("g"));
        let mut image = row.clone();
        group.transform(&transform, &mut image).unwrap();
        let x = inputs(&architecture, 3, seed.fork("x"));
        let moved = deviation(&forward_f64(&architecture, &row, &x), &forward_f64(&architecture, &image, &x));
        prop_assert!(moved < 1e-9, "{}: {moved}", architecture.name());
        group.transform(&group.undo(&transform).unwrap(), &mut image).unwrap();
        prop_assert!(deviation(&row, &image) < 1e-9, "{}", architecture.name());
        let code = transform.encode();
        prop_assert_eq!(Transform::decode(&code).unwrap().encode(), code.clone());
        prop_assert!(Transform::decode(&code[..code.len() - 1]).is_err());
    }

    #[test]
    fn canonical_forms_are_one_per_orbit_in_f64(architecture in families(), seed in any::<u64>()) {
        let (group, seed) = (Group::derive(architecture.clone()), Seed::new(seed));
        let row = wide(&random_row(&architecture, seed));
        let anchor = random_row(&architecture, seed.fork("anchor"));
        let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &anchor, Matching::default(), seed).unwrap();
        let (canonical, transform, ill) = canonicalizer.canonicalize_f64(&row).unwrap();
        let x = inputs(&architecture, 3, seed.fork("x"));
        let moved = deviation(&forward_f64(&architecture, &row, &x), &forward_f64(&architecture, &canonical, &x));
        prop_assert!(moved < 1e-9, "{}: function moved by {moved}", architecture.name());
        let mut image = row.clone();
        group.transform(&transform, &mut image).unwrap();
        prop_assert!(deviation(&canonical, &image) < 1e-9, "{}: not what was applied", architecture.name());
        prop_assume!(ill == 0);
        let mut other = row.clone();
        group.transform(&without_rotations(group.random_transform(seed.fork("g"))), &mut other).unwrap();
        let (again, _, _) = canonicalizer.canonicalize_f64(&other).unwrap();
        let apart = deviation(&canonical, &again);
        prop_assert!(apart < 1e-9, "{}: orbit members differ by {apart}", architecture.name());
    }

    #[test]
    fn kept_statistics_are_those_of_what_batch_norms_read(seed in any::<u64>()) {
        let families = tiny_families();
        let with_norms = |a: &&Arc<Architecture>| a.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. }));
        let mut tried = 0;
        for architecture in families.iter().filter(with_norms) {
            let (group, seed) = (Group::derive(architecture.clone()), Seed::new(seed));
            let x = inputs(architecture, 6, seed.fork("x"));
            let mut row = wide(&random_row(architecture, seed));
            measure_statistics(architecture, &mut row, &x);
            let anchor = random_row(architecture, seed.fork("anchor"));
            let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &anchor, Matching::default(), seed).unwrap();
            let keeping = canonicalizer.clone().keeping_statistics();
            let (folded, ..) = canonicalizer.canonicalize_f64(&row).unwrap();
            let (kept, transform, _) = keeping.canonicalize_f64(&row).unwrap();
            let moved = deviation(&forward_f64(architecture, &row, &x), &forward_f64(architecture, &kept, &x));
            prop_assert!(moved < 1e-9, "{}: function moved by {moved}", architecture.name());
            let mut image = row.clone();
            group.transform(&transform, &mut image).unwrap();
            prop_assert!(deviation(&kept, &image) < 1e-9, "{}: not what was applied", architecture.name());
            // Measured anew nothing changes, which the folded form does not withstand.
            for (form, changes) in [(&kept, false), (&folded, true)] {
                let mut measured = form.clone();
                measure_statistics(architecture, &mut measured, &x);
                let change = deviation(form, &measured);
                prop_assert_eq!(change > 1e-6, changes, "{}: {}", architecture.name(), change);
            }
            let (twice, ..) = keeping.canonicalize_f64(&kept).unwrap();
            prop_assert!(deviation(&kept, &twice) < 1e-9, "{}: twice is not once", architecture.name());
            tried += 1;
        }
        prop_assert!(tried > 0);
    }

    #[test]
    fn canonical_forms_are_one_per_orbit_in_f32(architecture in families(), seed in any::<u64>()) {
        let (group, seed) = (Group::derive(architecture.clone()), Seed::new(seed));
        let row = random_row(&architecture, seed);
        let anchor = random_row(&architecture, seed.fork("anchor"));
        let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &anchor, Matching::default(), seed).unwrap();
        let canonical = canonicalizer.canonicalize(&row).unwrap();
        let x = inputs(&architecture, 3, seed.fork("x"));
        let (before, after) = (forward_f64(&architecture, &wide(&row), &x), forward_f64(&architecture, &wide(&canonical.row), &x));
        prop_assert!(deviation(&before, &after) < 1e-4, "{}: function moved", architecture.name());
        prop_assume!(canonical.ill_conditioned == 0);
        let twice = canonicalizer.canonicalize(&canonical.row).unwrap();
        prop_assert_eq!(&twice.row, &canonical.row, "{}: twice is not once", architecture.name());
        let mut other = row.clone();
        group.transform_f32(&without_rotations(group.random_transform(seed.fork("g"))), &mut other).unwrap();
        let again = canonicalizer.canonicalize(&other).unwrap();
        let apart = deviation(&wide(&canonical.row), &wide(&again.row));
        prop_assert!(apart < 1e-4, "{}: orbit members differ by {apart}", architecture.name());
    }
}

/// The number of directions of weight space that change no output: singular values of the Jacobian at random inputs that are 0.
///
/// Returns the largest null and the smallest other value, over the largest of all.
fn nullity(architecture: &Architecture, row: &[f64], seed: Seed) -> (usize, f64, f64) {
    let dim = row.len();
    let x = inputs(architecture, 3 * dim / (2 * architecture.num_outputs()) + 12, seed);
    let columns: Vec<f64> = (0..dim).into_par_iter().flat_map_iter(|i| derivative(architecture, row, &x, i)).collect();
    let jacobian = MatRef::from_row_major_slice(&columns, dim, columns.len() / dim);
    let values = jacobian.singular_values().expect("the Jacobian is finite");
    let zero = 1e-13 * values[0] * dim as f64;
    let null = values.iter().filter(|v| **v < zero).count();
    let largest_null = values.iter().find(|v| **v < zero).copied().unwrap_or(0.0);
    let smallest = values.iter().rev().find(|v| **v >= zero).copied().unwrap_or(0.0);
    (null, largest_null / values[0], smallest / values[0])
}

fn kinks(op: &Op) -> bool {
    matches!(op, Op::Activation(Activation::Relu) | Op::Clip { .. })
}

/// The same graph with another `ε` in layer and RMS norms.
fn with_epsilon(architecture: &Architecture, epsilon: f64) -> Architecture {
    let change = |node: &Node| match node.op {
        Op::LayerNorm { gain, bias, .. } => Node { op: Op::LayerNorm { gain, bias, epsilon }, inputs: node.inputs.clone() },
        Op::RmsNorm { gain, .. } => Node { op: Op::RmsNorm { gain, epsilon }, inputs: node.inputs.clone() },
        _ => node.clone(),
    };
    let tensors = architecture.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    Architecture::new(architecture.name(), tensors, architecture.nodes().iter().map(change).collect()).expect("the graph stays")
}

/// A random network whose units are on for some inputs and off for others: no unit's weights favor one sign, biases are small.
fn lively_row(architecture: &Architecture, seed: Seed) -> Vec<f64> {
    let mut row = wide(&random_row(architecture, seed));
    if architecture.nodes().iter().any(|n| matches!(n.op, Op::Clip { .. })) {
        let scale = 0.5 + f64::from(seed.uniforms(1)[0]) * 1.5; // units that neither saturate nor stay between the bounds
        for w in &mut row {
            *w *= scale;
        }
    } else if architecture.nodes().iter().any(|n| kinks(&n.op)) {
        for spec in architecture.tensors() {
            let fan_in: usize = spec.shape[1..].iter().product();
            let values = &mut row[spec.range()];
            for unit in values.chunks_exact_mut(fan_in) {
                let mean = unit.iter().sum::<f64>() / fan_in as f64;
                let is_bias = fan_in == 1 && spec.shape.len() == 1 && spec.name.ends_with("bias");
                for w in unit.iter_mut() {
                    *w = if is_bias {
                        0.1 * *w
                    } else if fan_in > 1 {
                        *w - 0.95 * mean
                    } else {
                        *w
                    }
                }
            }
        }
    }
    row
}

#[test]
fn the_dimension_of_the_group_is_the_nullity_of_the_jacobian() {
    let mut wrong = Vec::new();
    for architecture in tiny_families() {
        // As ε goes to 0, the scale of a stream that norms alone read becomes a symmetry too: with BERT's 1e-12 it is one in `f64`.
        let architecture = Arc::new(with_epsilon(&architecture, 0.1));
        let group = Group::derive(architecture.clone());
        // Units that no input activates add directions of their own, so the most alive of a few networks counts.
        let at = |i| nullity(&architecture, &lively_row(&architecture, Seed::new(i)), Seed::new(100 + i));
        let draws = if architecture.nodes().iter().any(|n| kinks(&n.op)) { 12 } else { 1 };
        let (null, below, above) = (0..draws).map(at).min_by_key(|found| found.0).unwrap();
        if group.dimension() != null {
            wrong.push(format!(
                "{}: {null} directions change nothing (up to {below:.1e}, then {above:.1e}); {group}",
                architecture.name()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn folds_are_found_where_they_are() {
    let find = |name: &str| Group::derive(tiny_families().into_iter().find(|a| a.name() == name).unwrap());
    let count = |group: &Group, of: fn(&Fold) -> bool| group.folds().iter().filter(|f| of(f)).count();
    let is_center = |f: &Fold| matches!(f, Fold::Center { .. });
    assert_eq!(count(&find("llama-tied"), |_| true), 0);
    assert!(count(&find("vit"), is_center) >= 8);
    assert_eq!(count(&find("resnet"), |f| matches!(f, Fold::Statistics { .. })), 6);
    assert_eq!(find("llama-untied").rotations().len(), 1);
    assert_eq!(find("llama-tied").rotations().len(), 0);
    assert_eq!(find("lora").gauges().iter().map(|g| g.size).collect::<Vec<_>>(), [2, 1]);
}
