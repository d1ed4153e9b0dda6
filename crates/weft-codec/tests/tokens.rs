//! Tokens of every family: each weight once, round trips, windows, coordinates and moments that carry over to other widths.

use proptest::prelude::*;
use std::sync::Arc;
use weft_codec::{Error, NUM_COORDINATES, TokenLayout, TokenNormalizer, TokenShape};
use weft_core::{Activation, Architecture, Seed};
use weft_testkit::{assert_close, mlp, random_population, random_row, tiny_families};

/// The name of a kind of place, its means and its deviations.
type Entry = (String, Vec<f32>, Vec<f32>);
/// The name of a basis, and its numbers.
type Basis = (String, Vec<f32>);

fn layout(architecture: &Architecture, token_len: usize) -> TokenLayout {
    TokenLayout::new(architecture, token_len).expect("a positive length")
}

proptest! {
    #[test]
    fn every_weight_is_in_one_slot_and_comes_back(
        family in 0..tiny_families().len(), token_len in 1_usize..12, outgoing in 0_usize..12, seed in any::<u64>()
    ) {
        let architecture = &tiny_families()[family];
        let layout = TokenLayout::new(architecture, TokenShape { token_len, outgoing, rank: 0 }).unwrap();
        let row = random_row(architecture, Seed::new(seed));
        let tokens = layout.to_tokens(&row).unwrap();
        let mut expected = row.clone();
        let mut is_statistic = vec![false; row.len()];
        for range in architecture.statistics() {
            expected[range.clone()].fill(0.0);
            is_statistic[range].fill(true);
        }
        prop_assert_eq!(layout.to_row(&tokens).unwrap(), expected);
        let mut count = vec![0; tokens.len()];
        for (place, is_statistic) in layout.slot_of_value().into_iter().zip(is_statistic) {
            prop_assert_eq!(place.is_none(), is_statistic);
            if let Some(slot) = place {
                count[slot] += 1;
            }
        }
        let mask = layout.mask(0..layout.num_tokens());
        prop_assert!(count.iter().zip(&mask).all(|(&count, &mask)| count == usize::from(mask > 0.5)), "a slot has two weights");
        let filled: Vec<usize> = mask.chunks_exact(layout.num_slots()).map(|m| m.iter().filter(|&&v| v > 0.5).count()).collect();
        prop_assert_eq!(filled, layout.filled());
    }

    #[test]
    fn windows_of_any_size_cover_the_sequence_once(family in 0..tiny_families().len(), max in 1_usize..40) {
        let layout = layout(&tiny_families()[family], 3);
        let windows = layout.windows(max);
        prop_assert!(windows.iter().all(|w| w.len() <= max && !w.is_empty()));
        prop_assert_eq!(windows.into_iter().flatten().collect::<Vec<_>>(), (0..layout.num_tokens()).collect::<Vec<_>>());
        let whole = layout.coordinates(0..layout.num_tokens());
        let parts: Vec<f32> = layout.windows(max).into_iter().flat_map(|window| layout.coordinates(window)).collect();
        prop_assert_eq!(whole, parts);
    }
}

#[test]
fn a_token_is_a_unit_with_its_bias() {
    let layout = layout(&mlp(&[3, 2, 1], Activation::Relu), 3);
    // Rows [1, 2, 3] and [4, 5, 6] with biases 7 and 8; then the row [9, 10] with the bias 11.
    let tokens = layout.to_tokens(&[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]).unwrap();
    assert_eq!(tokens, [1., 2., 3., 7., 0., 0., 4., 5., 6., 8., 0., 0., 9., 10., 0., 11., 0., 0.]);
    assert_eq!(layout.filled(), [4, 4, 3]);
}

#[test]
fn a_token_is_a_unit_with_all_that_refers_to_it() {
    let shape = TokenShape { token_len: 3, outgoing: 2, rank: 0 };
    let layout = TokenLayout::new(&mlp(&[3, 2, 2], Activation::Relu), shape).unwrap();
    // Rows [1, 2, 3] and [4, 5, 6] with biases 7 and 8; columns [9, 11] and [10, 12]; the outputs' biases 13 and 14.
    let tokens = layout.to_tokens(&(1..=14).map(|w| w as f32).collect::<Vec<_>>()).unwrap();
    let expected = [[1., 2., 3., 7., 0., 0., 9., 11.], [4., 5., 6., 8., 0., 0., 10., 12.], [13., 14., 0., 0., 0., 0., 0., 0.]];
    assert_eq!(tokens, expected.concat());
    assert_eq!(layout.filled(), [6, 6, 2]);
    // Such units have no number, others have: here the first map's, which the second one's rows number.
    let coordinates = layout.coordinates(0..2);
    assert_eq!(coordinates[..NUM_COORDINATES], coordinates[NUM_COORDINATES..]);
    let deep = TokenLayout::new(&mlp(&[3, 2, 2, 2], Activation::Relu), shape).unwrap();
    let deep: Vec<_> = deep.coordinates(0..4).chunks_exact(NUM_COORDINATES).map(<[f32]>::to_vec).collect();
    assert!(deep[0] != deep[1] && deep[2] == deep[3]);
    // More outputs than slots: their rows are tokens.
    let more = TokenLayout::new(&mlp(&[3, 2, 3], Activation::Relu), shape).unwrap();
    assert_eq!((more.num_tokens(), more.filled()), (5, vec![4, 4, 3, 3, 3]));
}

#[test]
fn rows_that_read_the_data_are_held_in_the_directions_that_they_vary_in() {
    let widths = [5, 20].map(|width| mlp(&[12, width, 2], Activation::Relu));
    let shape = TokenShape { token_len: 3, outgoing: 2, rank: 3 };
    let layouts = widths.each_ref().map(|architecture| TokenLayout::new(architecture, shape).unwrap());
    assert_eq!([layouts[0].dim(), layouts[0].num_values(), layouts[0].num_tokens()], [77, 5 * (3 + 1 + 2) + 2, 6]);
    let directions: Vec<Vec<f32>> = (0..4).map(|i| Seed::new(7).index(i).normals(12)).collect();
    let networks = [0, 1].map(|i| {
        let mut rows = random_population(&widths[i], 60, Seed::new(i as u64)).into_data();
        for (n, row) in rows.chunks_exact_mut(layouts[i].dim()).enumerate() {
            for (unit, row) in row[..widths[i].tensors()[0].num_values()].chunks_exact_mut(12).enumerate() {
                // All rows are a mean and three directions.
                let c = Seed::new(8 + i as u64).index(n as u64).index(unit as u64).normals(3);
                let mix = |at: usize| directions[3][at] + (0..3).map(|j| c[j] * directions[j][at]).sum::<f32>();
                row.iter_mut().enumerate().for_each(|(at, w)| *w = mix(at));
            }
        }
        rows
    });
    let normalizer = TokenNormalizer::fit(&[(&layouts[0], &networks[0]), (&layouts[1], &networks[1])]).unwrap();
    let moments = normalizer.moments(&layouts[1]).unwrap();
    let row = &networks[1][..layouts[1].dim()];
    let normal = moments.normalize(row);
    assert_eq!(normal.len(), layouts[1].num_values());
    assert_close(&moments.restore(&normal), row, 1e-4);
    assert_eq!(layouts[1].to_row(&layouts[1].to_tokens(&normal).unwrap()).unwrap(), normal);
    // The largest coefficient has the deviation 1, the others at most that.
    let mut squares = [0.0_f64; 3];
    let firsts =
        networks[1].chunks_exact(layouts[1].dim()).flat_map(|row| moments.normalize(row)[..60].to_vec()).collect::<Vec<_>>();
    firsts.chunks_exact(3).for_each(|c| squares.iter_mut().zip(c).for_each(|(s, &c)| *s += f64::from(c).powi(2) / 1200.0));
    assert!(squares.iter().all(|&s| s < 1.3) && squares[0] > 0.8, "{squares:?}");
    // Bases are kept by name, and damaged ones refused.
    let entries = || normalizer.entries().map(|(name, means, stds)| (name, means.to_vec(), stds.to_vec())).collect::<Vec<_>>();
    let bases = || normalizer.bases().map(|(name, basis)| (name, basis.to_vec())).collect::<Vec<_>>();
    assert_eq!(bases().iter().map(|(name, basis)| (name.as_str(), basis.len())).collect::<Vec<_>>(), [("linear.12.3", 48)]);
    let whole = TokenNormalizer::from_entries(entries()).unwrap();
    assert!(matches!(whole.moments(&layouts[0]), Err(Error::Foreign { .. })), "it has no basis");
    assert_eq!(whole.clone().with_bases(bases()), Ok(normalizer.clone()));
    let damages: [fn(&mut Basis); 4] =
        [|b| b.0.push('0'), |b| b.0 = "linear.12.12".to_owned(), |b| b.1.truncate(47), |b| b.1[3] = f32::NAN];
    for damage in damages {
        let mut bases = bases();
        damage(&mut bases[0]);
        assert!(matches!(whole.clone().with_bases(bases), Err(Error::Kind { .. })));
    }
    // Rows of another length have no basis; rows too long for one are refused.
    let other = TokenLayout::new(&mlp(&[13, 5, 2], Activation::Relu), shape).unwrap();
    assert!(matches!(normalizer.moments(&other), Err(Error::Foreign { tensor, .. }) if tensor == "layers.0.weight"));
    let long = mlp(&[5000, 1, 2], Activation::Relu);
    let layout = TokenLayout::new(&long, shape).unwrap();
    let found = TokenNormalizer::fit(&[(&layout, &vec![0.0; layout.dim()])]);
    assert!(matches!(found, Err(Error::LongRow { inputs: 5000, .. })), "{found:?}");
}

#[test]
fn norms_go_with_the_units_before_them() {
    let families = tiny_families();
    let named = |part: &str| families.iter().find(|a| a.tensors().iter().any(|t| t.name.contains(part))).expect("a family has it");
    let resnet = named("running_mean");
    let layout = layout(resnet, 100);
    let maps = resnet.nodes().iter().filter(|n| matches!(n.op.name(), "linear" | "conv2d")).count();
    let units: usize = resnet.tensors().iter().filter(|t| t.shape.len() > 1).map(|t| t.shape[0]).sum();
    assert!(maps > 2 && layout.num_tokens() == units, "a norm behind a convolution needs no token of its own");
}

#[test]
fn coordinates_tell_tokens_apart_and_agree_on_what_widths_share() {
    let all = |widths: &[usize]| {
        let layout = layout(&mlp(widths, Activation::Relu), 8);
        let rows = layout.coordinates(0..layout.num_tokens());
        assert_eq!(rows.len(), layout.num_tokens() * NUM_COORDINATES);
        assert!(rows.iter().all(|v| v.is_finite() && v.abs() < 3.0));
        rows.chunks_exact(NUM_COORDINATES).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let (narrow, wide) = (all(&[16, 8, 4]), all(&[16, 12, 4]));
    for (at, a) in wide.iter().enumerate() {
        let least = wide[..at].iter().map(|b| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>()).fold(f32::MAX, f32::min);
        assert!(least > 1e-2, "token {at} has the coordinates of another: {least}");
    }
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
    // The first chunk of the first unit of one network is nearer to that of the other than to the last layer.
    assert!(distance(&narrow[0], &wide[0]) < distance(&narrow[0], &wide[wide.len() - 1]));
}

#[test]
fn moments_are_of_positions_first_and_of_the_fan_in_later() {
    let widths = [[6, 8, 3], [6, 32, 3]].map(|widths| mlp(&widths, Activation::Relu));
    let layouts = widths.each_ref().map(|architecture| layout(architecture, 4));
    let mut rows = [0, 1].map(|i| random_population(&widths[i], 400, Seed::new(i as u64)).into_data());
    for (rows, architecture) in rows.iter_mut().zip(&widths) {
        // The second input's weights are around 5.
        rows.chunks_exact_mut(architecture.num_parameters())
            .for_each(|row| row[..architecture.tensors()[0].num_values()].iter_mut().skip(1).step_by(6).for_each(|w| *w += 5.0));
    }
    let normalizer = TokenNormalizer::fit(&[(&layouts[0], &rows[0]), (&layouts[1], &rows[1])]).unwrap();
    let between = layout(&mlp(&[6, 16, 3], Activation::Relu), 4);
    let moments = normalizer.moments(&between).unwrap();
    assert!((moments.shift[1] - 5.0).abs() < 0.02 && moments.shift[0].abs() < 0.02, "{:?}", &moments.shift[..6]);
    assert!((moments.scale[0] - (1.0_f32 / 6.0).sqrt()).abs() < 0.01);
    let second = 6 * 16 + 16;
    assert!((moments.scale[second] - 0.25).abs() < 0.01, "{}", moments.scale[second]);
    let row = Seed::new(5).normals(between.dim());
    assert_close(&moments.restore(&moments.normalize(&row)), &row, 1e-6);
    let [normal] = [rows[1]
        .chunks_exact(layouts[1].dim())
        .flat_map(|row| normalizer.moments(&layouts[1]).unwrap().normalize(row))
        .collect::<Vec<_>>()];
    let variance = normal.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / normal.len() as f64;
    assert!((variance - 1.0).abs() < 0.02, "{variance}");
}

#[test]
fn what_training_networks_lack_is_refused_by_name() {
    let shallow = mlp(&[6, 8, 3], Activation::Relu);
    let rows = random_population(&shallow, 3, Seed::new(1));
    let normalizer = TokenNormalizer::fit(&[(&layout(&shallow, 4), rows.data())]).unwrap();
    let refused =
        |architecture: &Architecture| normalizer.moments(&layout(architecture, 4)).expect_err("unlike training").to_string();
    let deeper = refused(&mlp(&[6, 8, 8, 3], Activation::Relu));
    assert!(deeper.contains("layers.1.weight") && deeper.contains("linear.hidden.row"), "{deeper}");
    let wider = refused(&mlp(&[7, 8, 3], Activation::Relu));
    assert!(wider.contains("layers.0.weight") && wider.contains("linear.first.row.7"), "{wider}");
    assert!(TokenLayout::new(&shallow, 0).is_err());
    assert!(TokenNormalizer::fit(&[]).is_err());
    let mut spoilt = rows.data().to_vec();
    spoilt[shallow.num_parameters() + 2] = f32::NAN;
    let found = TokenNormalizer::fit(&[(&layout(&shallow, 4), &spoilt)]);
    assert_eq!(found, Err(Error::NonFinite { row: 1, weight: 2 }));
}

#[test]
fn damaged_entries_are_refused_and_whole_ones_are_not() {
    let architectures: Vec<Arc<Architecture>> = tiny_families();
    for architecture in &architectures {
        let rows = random_population(architecture, 3, Seed::new(2));
        let normalizer = TokenNormalizer::fit(&[(&layout(architecture, 5), rows.data())]).unwrap();
        let entries = || normalizer.entries().map(|(name, means, stds)| (name, means.to_vec(), stds.to_vec())).collect::<Vec<_>>();
        assert_eq!(TokenNormalizer::from_entries(entries()), Ok(normalizer.clone()));
        let damages: [fn(&mut Entry); 6] = [
            |entry| entry.0.push('x'),
            |entry| entry.1[0] = f32::NAN,
            |entry| entry.2[0] = 0.0,
            |entry| entry.2[0] = f32::INFINITY,
            |entry| entry.2.push(1.0),
            |entry| entry.1.clear(),
        ];
        for damage in damages {
            let mut entries = entries();
            damage(&mut entries[0]);
            let name = entries[0].0.clone();
            let refused = TokenNormalizer::from_entries(entries);
            assert!(matches!(&refused, Err(Error::Kind { kind, .. }) if *kind == name), "{refused:?}");
        }
        let twice = [entries(), entries()].concat();
        assert!(TokenNormalizer::from_entries(twice).is_err());
    }
}
