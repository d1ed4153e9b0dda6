//! What adapters of sequence models are trained with: low-rank updates, rotary positions, padding and weights of rows.

use super::{check, dot, draws};
use weft_core::RopePairs;
use weft_ops::backend::{Attention, Backend, Batch, Cpu, Linear, LowRank, Tokens, rotary_turns};

#[test]
fn frozen_maps_have_the_gradient_of_their_input() {
    let cpu = Cpu::<f64>::new();
    let map = Linear { weight: 1, bias: Some(21), inputs: 5, outputs: 4, input_major: false };
    let batch = Batch { networks: 2, rows: 3, stride: 25, shared: false };
    let (theta, x, w) = (draws(1, 50), draws(2, 30), draws(3, 24));
    let dx = cpu.linear_input_backward(&map, batch, &theta, &w).unwrap();
    check("frozen map", &x, &dx, |x| dot(&cpu.linear(&map, batch, x, &theta).unwrap(), &w));
}

#[test]
fn low_rank_updates() {
    let cpu = Cpu::<f64>::new();
    let update = LowRank { a: 1, b: 12, inputs: 5, outputs: 4, rank: 2, scale: 0.7, columns: 9, first: 3 };
    for networks in [1, 3] {
        let batch = Batch { networks, rows: 6, stride: 22, shared: false };
        let (theta, x, w) = (draws(1, networks * 22), draws(2, networks * 30), draws(3, networks * 54));
        let start = draws(4, w.len());
        let pass = |x: &[f64], theta: &[f64]| {
            let mut y = cpu.from_slice(&start);
            let low = cpu.low_rank(&update, batch, x, theta, &mut y).unwrap();
            (y, low)
        };
        let f = |x: &[f64], theta: &[f64]| dot(&pass(x, theta).0, &w);
        // By the definition, of one entry: the last column that is updated, in the last row of the last network.
        let (y, low) = pass(&x, &theta);
        let (theta_n, x_r) = (&theta[(networks - 1) * 22..], &x[x.len() - 5..]);
        let low_r = [0, 1].map(|k| dot(&theta_n[1 + 5 * k..][..5], x_r));
        let expected = start[start.len() - 3] + 0.7 * dot(&theta_n[12 + 6..][..2], &low_r);
        assert!((y[y.len() - 3] - expected).abs() < 1e-12, "{} and {expected}", y[y.len() - 3]);
        assert!(
            y.chunks_exact(9).zip(start.chunks_exact(9)).all(|(y, s)| y[..3] == s[..3] && y[7..] == s[7..]),
            "other columns stay"
        );
        let mut dx = cpu.zeros(x.len()).unwrap();
        let mut d_theta = cpu.zeros(theta.len()).unwrap();
        cpu.low_rank_backward(&update, batch, (&x, &low), &theta, (&w, Some(&mut dx)), &mut d_theta).unwrap();
        check("low-rank x", &x, &dx, |x| f(x, &theta));
        check("low-rank factors", &theta, &d_theta, |theta| f(&x, theta));
        // Both are added to, and x's may be left out.
        let before = d_theta.to_vec();
        cpu.low_rank_backward(&update, batch, (&x, &low), &theta, (&w, None), &mut d_theta).unwrap();
        assert!(before.iter().zip(d_theta.iter()).all(|(a, b)| (2.0 * a - b).abs() < 1e-12));
    }
}

#[test]
fn rotary_positions() {
    let cpu = Cpu::<f64>::new();
    let a = Attention { sequences: 2, tokens: 3, heads: 2, kv_heads: 1, head_dim: 4, causal: true };
    let turns: Vec<f64> = rotary_turns(100.0, 5, 4).into_iter().map(f64::from).collect();
    let (packed, w) = (draws(1, 6 * a.packed()), draws(2, 6 * a.packed()));
    for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
        let rotate = |packed: &[f64], back: bool| {
            let mut y = cpu.from_slice(packed);
            cpu.rotate((&a, pairs), &mut y, &turns, back).unwrap();
            y
        };
        let y = rotate(&packed, false);
        // By the definition: the second pair of the key at position 2 of the second sequence, and its value, which stays.
        let (at, key) = (5 * a.packed(), 2 * a.head_dim);
        let (i, j) = if pairs == RopePairs::Interleaved { (2, 3) } else { (1, 3) };
        let (sin, cos) = (2.0 * 100.0_f64.powf(-0.5)).sin_cos();
        let (u, v) = (packed[at + key + i], packed[at + key + j]);
        assert!((y[at + key + i] - (u * cos - v * sin)).abs() < 1e-6 && (y[at + key + j] - (u * sin + v * cos)).abs() < 1e-6);
        assert_eq!(y[at + 12..], packed[at + 12..], "values are not turned");
        check("rotation", &packed, &rotate(&w, true), |packed| dot(&rotate(packed, false), &w));
    }
}

/// A padded sequence is the shorter one, forwards and backwards; padding as keys gets no gradient.
#[test]
fn attention_does_not_see_padding() {
    let cpu = Cpu::<f64>::new();
    for (tokens, lengths, causal) in [(7, [4, 7], false), (200, [130, 1], false), (9, [5, 9], true)] {
        let a = Attention { sequences: 2, tokens, heads: 2, kv_heads: 1, head_dim: 3, causal };
        let packed = draws(1, 2 * tokens * a.packed());
        let mut w = draws(2, 2 * tokens * a.width());
        for (sequence, &length) in lengths.iter().enumerate() {
            w[(sequence * tokens + length as usize) * a.width()..(sequence + 1) * tokens * a.width()].fill(0.0);
        }
        let (y, log_sums) = cpu.attention(&a, &packed, Some(&lengths)).unwrap();
        for (sequence, &length) in lengths.iter().enumerate() {
            let length = length as usize;
            let alone = Attention { sequences: 1, tokens: length, ..a };
            let of_sequence = &packed[sequence * tokens * a.packed()..][..length * a.packed()];
            let (expected, _) = cpu.attention(&alone, of_sequence, None).unwrap();
            let got = &y[sequence * tokens * a.width()..][..length * a.width()];
            assert!(got.iter().zip(expected.iter()).all(|(a, b)| (a - b).abs() < 1e-12), "{tokens} tokens, {length} seen");
        }
        let d = cpu.attention_backward(&a, (&packed, Some(&lengths)), (&y, &log_sums), &w).unwrap();
        check("padded attention", &packed, &d, |packed| dot(&cpu.attention(&a, packed, Some(&lengths)).unwrap().0, &w));
    }
}

#[test]
fn means_of_the_tokens_that_there_are() {
    let cpu = Cpu::<f64>::new();
    let (sizes, lengths) = (Tokens { sequences: 3, tokens: 4, width: 2 }, [4, 1, 3]);
    let (x, w) = (draws(1, 24), draws(2, 6));
    let y = cpu.mean_tokens(sizes, &x, &lengths).unwrap();
    assert!((y[5] - (x[17] + x[19] + x[21]) / 3.0).abs() < 1e-12 && (y[2] - x[8]).abs() < 1e-12);
    let dx = cpu.mean_tokens_backward(sizes, &w, &lengths).unwrap();
    check("mean of tokens", &x, &dx, |x| dot(&cpu.mean_tokens(sizes, x, &lengths).unwrap(), &w));
    assert!(dx[10..16].iter().all(|d| d.abs() < 1e-300), "nothing goes to padding");
}

#[test]
fn weighted_cross_entropy() {
    let cpu = Cpu::<f64>::new();
    let (networks, rows, classes) = (2, 3, 4);
    let labels = [0, 3, 1, 2, 2, 0];
    let weights = cpu.upload_wide(&[0.5, 0.0, 0.25, 1.0, 0.125, 0.0]).unwrap();
    let (z, w) = (draws(1, 24), draws(2, networks));
    let losses = |z: &[f64]| cpu.cross_entropy([networks, classes], z, &labels, Some(&weights)).unwrap();
    let (loss, d) = losses(&z);
    let row = |r: usize| z[4 * r..][..4].iter().map(|z| z.exp()).sum::<f64>().ln() - z[4 * r + labels[r] as usize];
    assert!((loss[0] - (0.5 * row(0) + 0.25 * row(2))).abs() < 1e-12);
    let weighted: Vec<f64> = d.iter().enumerate().map(|(i, d)| d * w[i / (rows * classes)]).collect();
    check("weighted cross-entropy", &z, &weighted, |z| dot(&losses(z).0, &w));
}
