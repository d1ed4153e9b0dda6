//! Alignment by activations: one form an orbit, the function kept, and planted permutations found where weights mislead.

mod shared;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use shared::{deviation, inputs, wide, without_rotations};
use std::error::Error;
use std::sync::Arc;
use weft_canon::{AlignBy, Canonicalizer, Group, Matching, Observer, Step};
use weft_core::{Activation, Architecture, Seed};
use weft_testkit::{forward_f64, mlp, node_values, random_row, tiny_families};

/// Runs networks in the reference implementation.
#[derive(Debug)]
struct Reference {
    architecture: Arc<Architecture>,
    inputs: Vec<f64>,
}

impl Reference {
    fn on_random(architecture: &Arc<Architecture>, n: usize, seed: Seed) -> Arc<Self> {
        let inputs = inputs(architecture, n, seed);
        Arc::new(Self { architecture: architecture.clone(), inputs })
    }
}

impl Observer for Reference {
    fn observe(&self, row: &[f32], nodes: &[usize]) -> Result<Vec<Vec<f32>>, Box<dyn Error + Send + Sync>> {
        let values = node_values(&self.architecture, &wide(row), &self.inputs);
        Ok(nodes.iter().map(|&node| values[node].iter().map(|&v| v as f32).collect()).collect())
    }
}

#[test]
fn every_space_shows_what_its_units_do() {
    for architecture in tiny_families() {
        for space in Group::derive(architecture.clone()).spaces() {
            assert!(!space.nodes.is_empty(), "{}: {}", architecture.name(), space.name);
            for &node in &space.nodes {
                let shape = &architecture.shapes()[node];
                let features: usize = if shape.len() == 2 { shape[1] } else { shape.iter().product() };
                assert_eq!(features % space.size, 0, "{}: node {node} of {}", architecture.name(), space.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forms_are_one_per_orbit(architecture in prop::sample::select(tiny_families()), seed in any::<u64>()) {
        let (group, seed) = (Group::derive(architecture.clone()), Seed::new(seed));
        let row = random_row(&architecture, seed);
        let anchor = random_row(&architecture, seed.fork("anchor"));
        let observer = Reference::on_random(&architecture, 24, seed.fork("data"));
        let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &anchor, Matching::default(), seed)
            .and_then(|fitted| fitted.aligned_by(AlignBy::Activations(observer.clone())))
            .unwrap();
        let (canonical, _, ill) = canonicalizer.canonicalize_f64(&wide(&row)).unwrap();
        let x = &observer.inputs[..2 * architecture.num_inputs()];
        let moved = deviation(&forward_f64(&architecture, &wide(&row), x), &forward_f64(&architecture, &canonical, x));
        prop_assert!(moved < 1e-9, "{}: function moved by {moved}", architecture.name());
        prop_assume!(ill == 0);
        let mut other = wide(&row);
        group.transform(&without_rotations(group.random_transform(seed.fork("g"))), &mut other).unwrap();
        let (again, _, _) = canonicalizer.canonicalize_f64(&other).unwrap();
        let apart = deviation(&canonical, &again);
        prop_assert!(apart < 1e-9, "{}: orbit members differ by {apart}", architecture.name());
    }

    #[test]
    fn a_transformed_copy_comes_back_to_its_original(architecture in prop::sample::select(tiny_families()), seed in any::<u64>()) {
        let (group, seed) = (Group::derive(architecture.clone()), Seed::new(seed));
        let anchor = random_row(&architecture, seed);
        let observer = Reference::on_random(&architecture, 24, seed.fork("data"));
        let canonicalizer = Canonicalizer::fit_anchor(group.clone(), &anchor, Matching::default(), seed)
            .and_then(|fitted| fitted.aligned_by(AlignBy::Activations(observer)))
            .unwrap();
        let mut copy = wide(&anchor);
        group.transform(&without_rotations(group.random_transform(seed.fork("g"))), &mut copy).unwrap();
        let (canonical, _, ill) = canonicalizer.canonicalize_f64(&copy).unwrap();
        prop_assume!(ill == 0);
        let apart = deviation(&wide(canonicalizer.anchor()), &canonical);
        prop_assert!(apart < 1e-5, "{}: the copy ends {apart} from its original", architecture.name());
    }
}

/// Two features of the inputs are always equal, so that units may read either: weights differ where activations do not.
#[test]
fn units_that_read_equal_inputs_elsewhere_are_the_same_by_activations_alone() {
    let architecture = mlp(&[4, 3, 2], Activation::Tanh);
    let group = Group::derive(architecture.clone());
    let one = Seed::new(1).normals(64);
    let two = Seed::new(2).normals(64);
    let inputs: Vec<f64> = one.iter().zip(&two).flat_map(|(a, b)| [*a, *a, *b, *b]).map(f64::from).collect();
    let observer = Arc::new(Reference { architecture: architecture.clone(), inputs });
    // What a unit answers is set by the sums of its first two and of its last two weights, which are (1, 0), (0, 1), (.6, −.6) here …
    let anchor = [1., 0., 0., 0., 0., 0., 1., 0., 0.6, 0., -0.6, 0.];
    // … and (0, 1), (.6, −.6), (1, 0) here, where the weights one by one look most like the anchor's in their order.
    let other = [1., -1., 0.2, 0.8, 0., 0.6, 1., -1.6, 0.9, 0.1, -0.9, 0.9];
    let [anchor, other] = [anchor, other].map(|weights| [weights.as_slice(), &[0.0; 11]].concat());
    let by = |by: AlignBy| {
        let canonicalizer = Canonicalizer::new(group.clone(), anchor.clone(), Matching::default(), Seed::new(0)).unwrap();
        let canonical = canonicalizer.aligned_by(by).unwrap().canonicalize(&other).unwrap();
        canonical.canonical_from_raw.steps.into_iter().find_map(|step| match step {
            Step::Units(element) => Some(element.spaces[0].permutation.clone()),
            _ => None,
        })
    };
    assert_eq!(by(AlignBy::Activations(observer)), Some(vec![2, 0, 1]));
    assert_eq!(by(AlignBy::Weights), Some(vec![0, 1, 2]));
}
