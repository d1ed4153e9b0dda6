//! Matching with its products computed elsewhere finds what it finds here.

use std::sync::Arc;
use weft_canon::{AlignBy, Canonicalizer, Group, Matching, match_to};
use weft_core::Seed;
use weft_core::products::Place;
use weft_testkit::{PlainProducts, assert_close, random_row, tiny_families};

#[test]
fn all_families_match_to_the_same_units() {
    for architecture in tiny_families() {
        let [anchor, b] = [1, 2].map(|i| random_row(&architecture, Seed::new(i)));
        let products = Arc::new(PlainProducts::default());
        let here = Group::derive(architecture.clone());
        let there = here.clone().on(&Place::new(products.clone()));
        assert_eq!(here, there, "a place is no part of a group");
        let find = |group: &Group| match_to(group, &b, &anchor, &Matching::default(), Seed::new(3)).unwrap();
        let ((element, squared), (other, distance)) = (find(&here), find(&there));
        assert_eq!(element, other, "{}", architecture.name());
        assert!((squared - distance).abs() <= 1e-6 * squared);
        if here.spaces().is_empty() {
            continue;
        }
        let matched = products.counts()[0];
        assert!(matched > 0, "{} has units, whose products were not asked for", architecture.name());
        let fit = |group: Group| Canonicalizer::fit_mean(group, &[&anchor, &b], 2, AlignBy::Weights, Seed::new(4)).unwrap();
        let ((a, near), (b, far)) = (fit(here), fit(there));
        assert_close(b.anchor(), a.anchor(), 1e-5);
        assert_eq!(near.len(), far.len());
        assert!(products.counts()[0] > matched);
    }
}
