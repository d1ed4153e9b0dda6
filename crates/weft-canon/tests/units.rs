//! Single cases: linear chains, dead units, runs, refusals, the data-weighted distance.

use std::sync::Arc;
use weft_canon::distance::{Quotient, QuotientOptions};
use weft_canon::{AlignBy, Canonicalizer, Element, Error, Group, Matching, SpaceElement, balance};
use weft_core::families::{Family, Vit};
use weft_core::{Activation, Architecture, Node, Op, Population, Seed};
use weft_testkit::{assert_close, assert_close_f64, forward, mlp, random_population, random_row};

fn linear_chain() -> Group {
    let tensors = vec![("a".to_owned(), vec![3, 2]), ("b".to_owned(), vec![2, 3])];
    let linear = |weight, input| Node { op: Op::Linear { weight, bias: None }, inputs: vec![input] };
    let nodes = vec![Node { op: Op::Input { shape: vec![2] }, inputs: vec![] }, linear(0, 0), linear(1, 1)];
    Group::derive(Architecture::new("chain", tensors, nodes).expect("a valid graph").into())
}

#[test]
fn a_space_without_activation_is_mixed_as_a_whole() {
    let group = linear_chain();
    let space = &group.spaces()[0];
    assert!(space.size == 1 && !space.positive_scale() && space.sign());
    assert_eq!((group.gauges().len(), group.dimension()), (1, 9));
    assert!(group.to_string().contains("GL(3)"), "{group}");
    let none = Group::derive(mlp(&[3, 2], Activation::Relu));
    assert!(none.spaces().is_empty() && none.to_string().contains("trivial"));
}

#[test]
fn foreign_elements_are_refused() {
    let group = Group::derive(mlp(&[3, 2, 2], Activation::Relu));
    let check = |permutation: Vec<u32>, scale: Vec<f64>, expected: &str| {
        let element = Element { spaces: vec![SpaceElement { permutation, scale }] };
        let message = group.apply(&element, &mut [0.0; 14]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(vec![0, 0], vec![1.0, 1.0], "not a permutation");
    check(vec![0, 2], vec![1.0, 1.0], "not a permutation");
    check(vec![0], vec![1.0], "size differs");
    check(vec![1, 0], vec![1.0, -1.0], "not allowed");
    check(vec![1, 0], vec![1.0, f64::NAN], "not allowed");
    assert!(matches!(group.apply(&group.identity(), &mut [0.0; 3]), Err(Error::Length { got: 3, expected: 14, .. })));
    assert!(matches!(group.apply(&Element { spaces: vec![] }, &mut [0.0; 14]), Err(Error::Element { .. })));
}

#[test]
fn dead_units_keep_their_scale_and_are_counted() {
    let group = Group::derive(mlp(&[2, 3, 2], Activation::Relu));
    let mut row = random_row(group.architecture(), Seed::new(1));
    let w1 = group.architecture().tensors()[2].range();
    row[w1.start + 1] = 0.0; // both outgoing weights of unit 1
    row[w1.start + 4] = 0.0;
    let balanced = balance(&group, &row).unwrap();
    assert_eq!(balanced.ill_conditioned, 1);
    assert_eq!(balanced.element.spaces[0].scale[1].to_bits(), 1.0_f64.to_bits());
}

#[test]
fn balanced_units_have_equal_norms_on_both_sides() {
    let group = Group::derive(mlp(&[4, 3, 3, 2], Activation::Relu));
    let mut row = random_row(group.architecture(), Seed::new(2));
    group.apply(&balance(&group, &row).unwrap().element, &mut row).unwrap();
    let norms = |axes: &[weft_canon::SpaceAxis], inverse: bool, unit: usize| -> f64 {
        let mut sum = 0.0;
        for axis in axes.iter().filter(|a| a.factors[0].inverse == inverse) {
            let spec = &group.architecture().tensors()[axis.tensor];
            let cols = spec.shape.get(1).copied().unwrap_or(1);
            let values = row[spec.range()].iter().enumerate();
            sum += values.filter(|(i, _)| [i / cols, i % cols][axis.axis] == unit).map(|(_, &w)| f64::from(w).powi(2)).sum::<f64>();
        }
        sum
    };
    for space in group.spaces() {
        for unit in 0..space.size {
            assert_close_f64(&[norms(&space.axes, false, unit)], &[norms(&space.axes, true, unit)], 1e-5);
        }
    }
}

/// The last step: what matching chose.
fn last_units(transform: &weft_canon::Transform) -> Element {
    match transform.steps.last() {
        Some(weft_canon::Step::Units(element)) => element.clone(),
        other => panic!("the last step matches units, not {other:?}"),
    }
}

#[test]
fn snapshots_of_a_run_share_the_last_ones_permutation() {
    let group = Group::derive(mlp(&[4, 5, 2], Activation::Relu));
    let population = random_population(group.architecture(), 6, Seed::new(3));
    let canonicalizer = Canonicalizer::fit_anchor(group.clone(), population.row(5), Matching::default(), Seed::new(0)).unwrap();
    let found = canonicalizer.canonicalize_population(&population, &[7, 2, 7, 2, 7, 9]).unwrap();
    let (canonical, elements) = (found.networks, found.transforms.iter().map(last_units).collect::<Vec<_>>());
    assert_eq!(elements[0].spaces[0].permutation, elements[4].spaces[0].permutation);
    assert_eq!(elements[2].spaces[0].permutation, elements[4].spaces[0].permutation);
    assert_eq!(elements[1].spaces[0].permutation, elements[3].spaces[0].permutation);
    assert_eq!(canonical.row(3), canonicalizer.canonicalize(population.row(3)).unwrap().row);
    assert_close(canonical.row(5), canonicalizer.anchor(), 1e-6);
    let inputs = [0.3, -1.0, 2.0, 0.5];
    for i in 0..6 {
        let expected = forward(group.architecture(), population.row(i), &inputs);
        assert_close_f64(&forward(group.architecture(), canonical.row(i), &inputs), &expected, 1e-5);
    }
}

#[test]
fn fitting_a_mean_shortens_distances() {
    let group = Group::derive(mlp(&[6, 5, 4, 2], Activation::Relu));
    let base = random_row(group.architecture(), Seed::new(4));
    let mut rows = Vec::new();
    for i in 0..12_u64 {
        let noise = Seed::new(5).index(i).normals(base.len());
        let mut row: Vec<f32> = base.iter().zip(&noise).map(|(w, z)| w + 0.05 * z).collect();
        group.apply(&group.random(Seed::new(6).index(i)), &mut row).unwrap();
        rows.push(row);
    }
    let views: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let (_, history) = Canonicalizer::fit_mean(group, &views, 6, AlignBy::Weights, Seed::new(0)).unwrap();
    assert!(history.last().unwrap() < &(0.85 * history[0]), "{history:?}");
    let empty = Canonicalizer::fit_mean(linear_chain(), &[], 6, AlignBy::Weights, Seed::new(0));
    assert!(matches!(empty, Err(Error::Empty { .. })));
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let group = Group::derive(mlp(&[2, 2, 2], Activation::Relu));
    let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &[0.5; 12], Matching::default(), Seed::new(0)).unwrap();
    let mut row = [1.0; 12];
    row[7] = f32::NAN;
    assert!(matches!(canonicalizer.canonicalize(&row), Err(Error::NotFinite { index: 7 })));
    let quotient = Quotient::new(&group, QuotientOptions::default()).unwrap();
    assert!(matches!(quotient.prepare(&row, None), Err(Error::NotFinite { index: 7 })));
    assert!(matches!(quotient.prepare(&row[..5], None), Err(Error::Length { .. })));
    assert!(matches!(quotient.prepare(&[0.0; 12], Some(&[true])), Err(Error::Length { .. })));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let group = Group::derive(mlp(&[2, 2, 2], Activation::Relu));
    let refuse = |options: QuotientOptions| Quotient::new(&group, options).unwrap_err();
    assert!(matches!(
        refuse(QuotientOptions { dead_inputs: vec![2], ..Default::default() }),
        Error::Index { index: 2, limit: 2, .. }
    ));
    assert!(matches!(refuse(QuotientOptions { input_root: Some(vec![1.0; 3]), ..Default::default() }), Error::Length { .. }));
    assert!(matches!(refuse(QuotientOptions { starts: 0, ..Default::default() }), Error::Empty { .. }));
    let tensors = vec![("w".to_owned(), vec![2, 2])];
    let nodes = vec![
        Node { op: Op::Input { shape: vec![2] }, inputs: vec![] },
        Node { op: Op::Linear { weight: 0, bias: None }, inputs: vec![0] },
        Node { op: Op::Activation(Activation::Sigmoid), inputs: vec![1] },
    ];
    let squashed = Group::derive(Architecture::new("squashed", tensors, nodes).unwrap().into());
    let error = Quotient::new(&squashed, QuotientOptions::default()).unwrap_err();
    assert!(error.to_string().contains("activation acts on them"), "{error}");
}

#[test]
fn dead_units_do_not_count() {
    let group = Group::derive(mlp(&[3, 4, 2], Activation::Relu));
    let row = random_row(group.architecture(), Seed::new(8));
    let mut changed = row.clone();
    let [w0, b0, w1] = [0, 1, 2].map(|t: usize| group.architecture().tensors()[t].range());
    changed[w0.start + 2 * 3] += 4.0; // unit 2: an incoming weight, the bias, an outgoing weight
    changed[b0.start + 2] -= 9.0;
    changed[w1.start + 4 + 2] += 1.0;
    let quotient = Quotient::new(&group, QuotientOptions::default()).unwrap();
    let rows = [row, changed].concat();
    let mask = [false, false, true, false].repeat(2);
    let seen = quotient.pairwise(&quotient.prepare(&rows, None).unwrap(), &[(0, 1)]);
    let masked = quotient.pairwise(&quotient.prepare(&rows, Some(&mask)).unwrap(), &[(0, 1)]);
    assert!(seen[0] > 1.0 && masked[0] < 1e-6, "{seen:?} {masked:?}");
}

#[test]
fn data_weighting_multiplies_first_layer_rows_and_tensors() {
    let group = Group::derive(mlp(&[2, 1, 1], Activation::Gelu));
    let options = QuotientOptions {
        center_outputs: false,
        input_root: Some(vec![2.0, 0.5, 0.5, 1.0]),
        tensor_factors: vec![1.0, 3.0, 1.0, 0.0],
        ..Default::default()
    };
    let quotient = Quotient::new(&group, options).unwrap();
    let rows = [1.0, 1.0, 0.5, 2.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    // (1, 1)·Σ^½ = (2.5, 1.5); bias 0.5·3; outgoing weight 2; output bias ·0
    let expected = (2.5_f64.powi(2) + 1.5_f64.powi(2) + 1.5_f64.powi(2) + 4.0).sqrt();
    assert_close_f64(&quotient.pairwise(&quotient.prepare(&rows, None).unwrap(), &[(0, 1)]), &[expected], 1e-6);
}

#[test]
fn searches_without_candidates_say_so() {
    let group = Group::derive(mlp(&[2, 2, 2], Activation::Relu));
    let quotient = Quotient::new(&group, QuotientOptions::default()).unwrap();
    let rows = random_population(group.architecture(), 2, Seed::new(1));
    let prepared = quotient.prepare(rows.data(), None).unwrap();
    let none = quotient.prepare(&[], None).unwrap();
    assert!(none.is_empty() && quotient.nearest(&none, &prepared, None).is_empty());
    for found in [quotient.nearest(&prepared, &none, None), quotient.nearest(&prepared, &prepared, Some(&|_, _| true))] {
        assert_eq!(found, vec![(usize::MAX, f64::INFINITY); 2]);
    }
    let others = quotient.nearest(&prepared, &prepared, Some(&|q, j| q == j));
    assert_eq!((others[0].0, others[1].0), (1, 0));
    assert_close_f64(&[others[0].1], &[others[1].1], 1e-6);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let group = Group::derive(mlp(&[6, 5, 4, 3], Activation::Relu));
    let rows = random_population(group.architecture(), 40, Seed::new(11));
    let work = || {
        let views: Vec<&[f32]> = rows.rows().take(20).collect();
        let (canonicalizer, history) = Canonicalizer::fit_mean(group.clone(), &views, 3, AlignBy::Weights, Seed::new(0)).unwrap();
        let runs: Vec<u32> = (0..40).map(|i| i / 4).collect();
        let canonical = canonicalizer.canonicalize_population(&rows, &runs).unwrap().networks;
        let quotient = Quotient::new(&group, QuotientOptions::default()).unwrap();
        let prepared = quotient.prepare(canonical.data(), None).unwrap();
        let found = quotient.nearest(&prepared, &prepared, Some(&|q, j| q == j));
        (canonical, history, found)
    };
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let (one, three): ((Population, _, _), _) = (pool(1).install(work), pool(3).install(work));
    assert_eq!(one, three);
}

/// Wide enough for scales, inner products and spaces to be shared between threads.
#[test]
fn wide_networks_do_not_depend_on_the_number_of_threads() {
    let vit = Vit { image: [1, 4, 4], patch: 2, d_model: 8, depth: 2, num_heads: 2, d_hidden: 300, num_classes: 2 };
    for architecture in [mlp(&[4, 300, 300, 2], Activation::Relu), Arc::new(Family::Vit(vit).build("vit").unwrap())] {
        let group = Group::derive(architecture);
        let [anchor, row] = [1, 2].map(|i| random_row(group.architecture(), Seed::new(i)));
        let work = || {
            let matching = Matching { starts: 1, ..Matching::default() };
            let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &anchor, matching, Seed::new(0)).unwrap();
            canonicalizer.canonicalize(&row).unwrap()
        };
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        assert_eq!(pool(1).install(work), pool(3).install(work));
    }
}

#[test]
fn alignment_without_an_anchor_joins_copies_and_beats_one_anchor() {
    let group = Group::derive(mlp(&[6, 7, 5, 2], Activation::Relu));
    let base = random_row(group.architecture(), Seed::new(4));
    let copies: Vec<Vec<f32>> = (0..8_u64)
        .map(|i| {
            let noise = Seed::new(5).index(i).normals(base.len());
            let mut row: Vec<f32> = base.iter().zip(&noise).map(|(w, z)| w + 0.02 * z).collect();
            group.apply(&group.random(Seed::new(6).index(i)), &mut row).unwrap();
            row
        })
        .collect();
    let views: Vec<&[f32]> = copies.iter().map(Vec::as_slice).collect();
    let (consistent, history) = Canonicalizer::fit_consistent(group.clone(), &views, 3, Seed::new(1)).unwrap();
    assert_eq!(history.len(), 3);
    let spread = |canonicalizer: &Canonicalizer| -> f64 {
        let rows: Vec<Vec<f32>> = views.iter().map(|row| canonicalizer.canonicalize(row).unwrap().row).collect();
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        rows.iter().flat_map(|a| rows.iter().map(move |b| apart(a, b))).sum()
    };
    let anchored = Canonicalizer::fit_anchor(group.clone(), &base, Matching::default(), Seed::new(0)).unwrap();
    assert!(spread(&consistent) <= spread(&anchored) * 1.01, "{} {}", spread(&consistent), spread(&anchored));
    let size: f64 = base.iter().map(|w| f64::from(w * w)).sum();
    assert!(spread(&consistent) / 56.0 < 0.1 * size, "copies of one network end close to each other");
    assert!(Canonicalizer::fit_consistent(group, &[], 3, Seed::new(1)).is_err());
}
