//! Properties of groups, canonical forms, matching and quotient distances, on random tiny networks.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::sync::Arc;
use weft_canon::distance::{Quotient, QuotientOptions};
use weft_canon::{AlignBy, Canonicalizer, Element, Group, Matching, assign, balance, match_to};
use weft_core::{Activation, Architecture, Seed};
use weft_testkit::{assert_close, assert_close_f64, branches, forward, mlp, random_population, random_row, residual};

/// Every graph that the tests know: chains, a residual block, branches with a direct path.
fn graph(kind: usize, activation: Activation) -> Arc<Architecture> {
    match kind {
        0 => mlp(&[5, 4, 3], activation),
        1 => mlp(&[4, 5, 3, 2], activation),
        2 => mlp(&[3, 4, 4, 4, 2], activation),
        3 => residual(3, 4, 2, activation),
        _ => branches(4, 3, 2, activation),
    }
}

fn graphs() -> impl Strategy<Value = Arc<Architecture>> {
    let activations = vec![Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::Silu, Activation::Sigmoid];
    (0..5_usize, prop::sample::select(activations)).prop_map(|(kind, activation)| graph(kind, activation))
}

fn seeds() -> impl Strategy<Value = Seed> {
    any::<u64>().prop_map(Seed::new)
}

fn apply(group: &Group, element: &Element, row: &[f32]) -> Vec<f32> {
    let mut image = row.to_vec();
    group.apply(element, &mut image).expect("the element fits");
    image
}

fn assert_same_element(a: &Element, b: &Element) {
    for (a, b) in a.spaces.iter().zip(&b.spaces) {
        assert_eq!(a.permutation, b.permutation);
        assert_close_f64(&a.scale, &b.scale, 1e-12);
    }
}

/// All permutations of `0..n`.
fn permutations(n: usize) -> Vec<Vec<u32>> {
    if n == 0 {
        return vec![vec![]];
    }
    let insert = |p: Vec<u32>| {
        (0..=p.len()).map(move |at| {
            let mut p = p.clone();
            p.insert(at, n as u32 - 1);
            p
        })
    };
    permutations(n - 1).into_iter().flat_map(insert).collect()
}

/// Squared distance of two rows over all elements of `GroupElement = permutation (× sign)` of one hidden space.
fn brute_force(group: &Group, a: &[f32], b: &[f32]) -> f64 {
    let size = group.spaces()[0].size;
    let signs = if group.spaces()[0].sign() { 1 << size } else { 1 };
    let mut best = f64::INFINITY;
    for permutation in permutations(size) {
        for mask in 0..signs {
            let mut element = group.identity();
            element.spaces[0].permutation.clone_from(&permutation);
            for (i, scale) in element.spaces[0].scale.iter_mut().enumerate() {
                *scale = if mask >> i & 1 == 1 { -1.0 } else { 1.0 };
            }
            let image = apply(group, &element, b);
            best = best.min(a.iter().zip(&image).map(|(x, y)| f64::from(x - y).powi(2)).sum());
        }
    }
    best
}

fn plain() -> QuotientOptions {
    QuotientOptions { center_outputs: false, ..QuotientOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn group_laws(architecture in graphs(), seed in seeds()) {
        let group = Group::derive(architecture.clone());
        let [a, b, c] = ["a", "b", "c"].map(|name| group.random(seed.fork(name)));
        let compose = |x: &Element, y: &Element| group.compose(x, y);
        assert_same_element(&compose(&compose(&a, &b), &c), &compose(&a, &compose(&b, &c)));
        assert_same_element(&compose(&a, &group.identity()), &a);
        assert_same_element(&compose(&group.inverse(&a), &a), &group.identity());
        assert_same_element(&compose(&a, &group.inverse(&a)), &group.identity());
        let row = random_row(&architecture, seed);
        assert_close(&apply(&group, &compose(&a, &b), &row), &apply(&group, &a, &apply(&group, &b, &row)), 1e-5);
        prop_assert!(group.check(&compose(&a, &b)).is_ok() && group.check(&group.inverse(&a)).is_ok());
    }

    #[test]
    fn elements_keep_the_function(architecture in graphs(), seed in seeds()) {
        let group = Group::derive(architecture.clone());
        let row = random_row(&architecture, seed);
        let image = apply(&group, &group.random(seed.fork("g")), &row);
        let inputs: Vec<f64> = seed.fork("x").normals(4 * architecture.num_inputs()).into_iter().map(f64::from).collect();
        assert_close_f64(&forward(&architecture, &image, &inputs), &forward(&architecture, &row, &inputs), 1e-4);
    }

    #[test]
    fn balancing_reaches_the_smallest_norm_and_stays(kind in 0..5_usize, seed in seeds()) {
        let group = Group::derive(graph(kind, Activation::Relu));
        let row = random_row(group.architecture(), seed);
        let balanced = apply(&group, &balance(&group, &row).unwrap().element, &row);
        prop_assert!(balance(&group, &balanced).unwrap().element.is_identity());
        let norm = |row: &[f32]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
        let other = apply(&group, &group.random(seed.fork("g")), &row);
        prop_assert!(norm(&balanced) <= norm(&row) * (1.0 + 1e-6) && norm(&balanced) <= norm(&other) * (1.0 + 1e-6));
        let element = group.random(seed.fork("g"));
        let again = apply(&group, &balance(&group, &other).unwrap().element, &other);
        let mut permuted = group.identity();
        permuted.spaces.iter_mut().zip(&element.spaces).for_each(|(p, e)| p.permutation.clone_from(&e.permutation));
        assert_close(&again, &apply(&group, &permuted, &balanced), 1e-4);
    }

    #[test]
    fn canonical_form_is_one_per_orbit_and_idempotent(architecture in graphs(), seed in seeds()) {
        let group = Group::derive(architecture.clone());
        let population = random_population(&architecture, 4, seed.fork("anchor"));
        let rows: Vec<&[f32]> = population.rows().collect();
        let (canonicalizer, history) = Canonicalizer::fit_mean(group.clone(), &rows, 3, AlignBy::Weights, seed).unwrap();
        prop_assert!(!history.is_empty() && history.iter().all(|d| d.is_finite()));
        let mut read = |i: usize| Ok::<_, weft_canon::Error>(rows[i].to_vec());
        let (streamed, same) = Canonicalizer::fit_mean_of(group.clone(), (rows.len(), &mut read), 3, seed).unwrap();
        prop_assert_eq!((streamed.anchor(), same), (canonicalizer.anchor(), history));
        let row = random_row(&architecture, seed);
        let canonical = canonicalizer.canonicalize(&row).unwrap();
        let mut image = row.clone();
        group.transform_f32(&canonical.canonical_from_raw, &mut image).unwrap();
        assert_close(&image, &canonical.row, 1e-6);
        prop_assume!(canonical.ill_conditioned == 0);
        let twice = canonicalizer.canonicalize(&canonical.row).unwrap();
        prop_assert_eq!(&twice.row, &canonical.row);
        let moved = apply(&group, &group.random(seed.fork("g")), &row);
        assert_close(&canonicalizer.canonicalize(&moved).unwrap().row, &canonical.row, 1e-4);
        let inputs: Vec<f64> = seed.fork("x").normals(4 * architecture.num_inputs()).into_iter().map(f64::from).collect();
        assert_close_f64(&forward(&architecture, &canonical.row, &inputs), &forward(&architecture, &row, &inputs), 1e-4);
    }

    #[test]
    fn assignment_is_minimal(n in 1..7_usize, seed in seeds(), coarse in any::<bool>()) {
        // Coarse costs have many ties.
        let draw = |x: f32| if coarse { f64::from((x * 4.0).floor()) } else { f64::from(x) };
        let cost: Vec<f64> = seed.uniforms(n * n).into_iter().map(draw).collect();
        let value = |p: &[u32]| p.iter().enumerate().map(|(i, &j)| cost[i * n + j as usize]).sum::<f64>();
        let found = assign(&cost, n);
        let best = permutations(n).iter().map(|p| value(p)).fold(f64::INFINITY, f64::min);
        prop_assert!((value(&found) - best).abs() < 1e-9);
    }

    #[test]
    fn assignment_agrees_with_another_solver(n in 1..48_usize, seed in seeds()) {
        let cost: Vec<f64> = seed.normals(n * n).into_iter().map(f64::from).collect();
        let value = |p: &[u32]| p.iter().enumerate().map(|(i, &j)| cost[i * n + j as usize]).sum::<f64>();
        let found = assign(&cost, n);
        let mut sorted = found.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..n as u32).collect::<Vec<_>>());
        let expected = lsap::get_assigned_cost(n, n, &cost, false).unwrap();
        prop_assert!((value(&found) - expected).abs() < 1e-9 * n as f64);
    }

    #[test]
    fn distance_is_the_minimum_over_all_elements(seed in seeds(), tanh in any::<bool>()) {
        let activation = if tanh { Activation::Tanh } else { Activation::Gelu };
        let group = Group::derive(mlp(&[3, 4, 2], activation));
        let population = random_population(group.architecture(), 3, seed);
        let quotient = Quotient::new(&group, plain()).unwrap();
        prop_assert!(quotient.is_exact());
        let prepared = quotient.prepare(population.data(), None).unwrap();
        let pairs = [(0, 1), (1, 2), (2, 0), (1, 1)];
        let expected = pairs.map(|(i, j)| brute_force(&group, population.row(i), population.row(j)).sqrt());
        assert_close_f64(&quotient.pairwise(&prepared, &pairs), &expected, 1e-5);
        let (_, squared) = match_to(&group, population.row(0), population.row(1), &Matching::default(), seed).unwrap();
        assert_close_f64(&[squared.sqrt()], &expected[..1], 1e-5);
    }

    #[test]
    fn search_finds_the_brute_force_minimum(seed in seeds(), grouped in any::<bool>()) {
        let group = Group::derive(mlp(&[3, 4, 2], Activation::Sigmoid));
        let references = random_population(group.architecture(), 12, seed);
        let queries = random_population(group.architecture(), 3, seed.fork("q"));
        let quotient = Quotient::new(&group, plain()).unwrap();
        let mut prepared = quotient.prepare(references.data(), None).unwrap();
        if grouped {
            prepared = prepared.with_groups(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]).unwrap();
        }
        let found = quotient.nearest(&quotient.prepare(queries.data(), None).unwrap(), &prepared, Some(&|q, j| q == 0 && j % 2 == 0));
        for (q, &(index, distance)) in found.iter().enumerate() {
            let allowed = (0..12).filter(|j| q != 0 || j % 2 == 1);
            let all: Vec<(usize, f64)> = allowed.map(|j| (j, brute_force(&group, queries.row(q), references.row(j)).sqrt())).collect();
            let best = all.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            prop_assert!((distance - best.1).abs() < 1e-5, "{} {:?}", distance, best);
            prop_assert_eq!(index, best.0);
        }
    }

    #[test]
    fn orbit_copies_and_null_directions_measure_zero(kind in 0..5_usize, seed in seeds(), tanh in any::<bool>()) {
        let group = Group::derive(graph(kind, if tanh { Activation::Tanh } else { Activation::Relu }));
        let architecture = group.architecture().clone();
        let population = random_population(&architecture, 5, seed);
        let quotient = Quotient::new(&group, QuotientOptions { dead_inputs: vec![1], ..QuotientOptions::default() }).unwrap();
        let mut copy = apply(&group, &group.random(seed.fork("g")), population.row(2));
        for (tensor, spec) in architecture.tensors().iter().enumerate() {
            let reads_inputs = spec.shape.get(1) == Some(&architecture.num_inputs()) && (tensor == 0 || kind == 4);
            for row in copy[spec.range()].chunks_exact_mut(architecture.num_inputs()).filter(|_| reads_inputs) {
                row[1] += 3.0;
            }
        }
        let bias = architecture.tensors().iter().rev().find(|t| t.shape == [architecture.num_outputs()]).unwrap();
        copy[bias.range()].iter_mut().for_each(|b| *b += 5.0);
        let references = quotient.prepare(population.data(), None).unwrap();
        let found = quotient.nearest(&quotient.prepare(&copy, None).unwrap(), &references, None);
        prop_assert_eq!(found[0].0, 2);
        prop_assert!(found[0].1 < 1e-4 * references.norm(2), "{}", found[0].1);
    }
}

#[test]
fn groups_of_the_known_graphs() {
    let names = |g: &Group| g.spaces().iter().map(|s| (s.name.clone(), s.size)).collect::<Vec<_>>();
    let chain = Group::derive(graph(1, Activation::Relu));
    assert_eq!(names(&chain), [("layers.0".to_owned(), 5), ("layers.1".to_owned(), 3)]);
    let joined = Group::derive(residual(3, 4, 2, Activation::Relu));
    assert_eq!(names(&joined), [("stem".to_owned(), 4)]);
    assert_eq!(joined.spaces()[0].axes.iter().filter(|a| a.factors[0].inverse).count(), 2);
    assert_eq!(joined.spaces()[0].axes.len(), 6);
    let branches = Group::derive(branches(4, 3, 2, Activation::Tanh));
    assert_eq!(names(&branches), [("left".to_owned(), 3)]);
    assert!(branches.spaces()[0].sign() && !branches.spaces()[0].positive_scale());
    assert!(!Group::derive(graph(0, Activation::Gelu)).spaces()[0].positive_scale());
    assert!(chain.to_string().contains("space `layers.1`, 3 units: permutation, positive scale"), "{chain}");
}
