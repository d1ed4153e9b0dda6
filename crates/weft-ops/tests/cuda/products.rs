//! Products of the host's matrices, beside plain ones in `f64`. A deviation is relative to the greatest value.

use super::{device, say};
use weft_core::Seed;
use weft_core::products::{Normalized, Products, View};
use weft_ops::backend::HostProducts;
use weft_testkit::PlainProducts;

/// What sums of some ten thousand terms in `f32` deviate by at most, and in `f64` where they are rounded once.
const SINGLE: f64 = 3e-6;
const ROUNDED: f64 = 2e-7;
/// What sums in `f64` deviate by at most.
const DOUBLE: f64 = 1e-13;

fn deviation(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let greatest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let apart = |(a, b): (&f64, &f64)| if a.is_finite() { (a - b).abs() } else { f64::INFINITY };
    got.iter().zip(expected).map(apart).fold(0.0, f64::max) / greatest
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn products() -> Option<HostProducts> {
    let Some(device) = device() else {
        say("skipped: products of the host's matrices: no GPU");
        return None;
    };
    // Beside one core, so that all of them go to the GPU whatever the host has.
    Some(HostProducts::beside(device, 1).unwrap())
}

/// Rows with means far from 0 and scales of their own, as weights have them.
struct Rows([Vec<f32>; 3]);

impl Rows {
    fn new(n: usize, d: usize) -> Self {
        let mean: Vec<f32> = Seed::new(1).normals(d).into_iter().map(|x| 3.0 * x).collect();
        let scale: Vec<f32> = Seed::new(2).normals(d).into_iter().map(|x| 0.1 + x.abs()).collect();
        let noise = Seed::new(3).normals(n * d).into_iter().enumerate();
        Self([noise.map(|(i, x)| mean[i % d] + scale[i % d] * x).collect(), mean, scale])
    }

    fn normalized(&self) -> Normalized<'_> {
        let [values, mean, scale] = &self.0;
        Normalized::new(values, mean, scale)
    }
}

#[test]
fn products_of_views() {
    let Some(gpu) = products() else { return };
    let [m, k, n] = [390, 2_700, 270];
    let (a, b) = (Seed::new(4).normals(3_000 * 400), Seed::new(5).normals(3_000 * 400));
    // Dense, with gaps between rows, and transposed.
    let left = [View::new(&a, m, k), View::strided(&a, m, k, 3_000), View::strided(&a, k, m, 400).t()];
    let right = [View::new(&b, k, n), View::strided(&b, k, n, 400), View::strided(&b, n, k, 3_000).t(), View::new(&b, n, k).t()];
    for (i, a) in left.into_iter().enumerate() {
        for (j, b) in right.into_iter().enumerate() {
            for add in [false, true] {
                let mut got = Seed::new(6).normals(m * n);
                let mut expected = got.clone();
                assert!(gpu.multiply(&mut got, a, b, add), "{:?}", gpu.failure());
                assert!(PlainProducts::default().multiply(&mut expected, a, b, add));
                let apart = deviation(&wide(&got), &wide(&expected));
                assert!(apart < SINGLE, "{i} · {j}, add {add}: {apart:e}");
            }
        }
    }
}

#[test]
fn projections_of_centered_rows() {
    let Some(gpu) = products() else { return };
    let ([n, d, l], plain) = ([300, 6_000, 200], PlainProducts::default());
    let rows = Rows::new(n, d);
    let b = Seed::new(7).normals(d * l);
    for (transposed, b) in [
        (false, View::new(&b, d, l)),
        (false, View::new(&b, l, d).t()),
        (true, View::new(&b, n, l)),
        (true, View::strided(&b, n, l, 2 * l)),
    ] {
        let mut got = vec![f32::NAN; if transposed { d } else { n } * l];
        let mut expected = vec![0.0; got.len()];
        assert!(gpu.project(&mut got, rows.normalized(), transposed, b), "{:?}", gpu.failure());
        assert!(plain.project(&mut expected, rows.normalized(), transposed, b));
        let apart = deviation(&wide(&got), &wide(&expected));
        assert!(apart < SINGLE, "transposed {transposed}: {apart:e}");
    }
}

#[test]
fn gram_matrices_and_combinations_in_double_precision() {
    let Some(gpu) = products() else { return };
    let ([n, d, k], plain) = ([300, 5_000, 200], PlainProducts::default());
    let rows = Rows::new(n, d);
    let mut got: Vec<f64> = Seed::new(8).normals(n * n).into_iter().map(f64::from).collect();
    let mut expected = got.clone();
    for _ in 0..2 {
        assert!(gpu.add_gram(&mut got, rows.normalized()), "{:?}", gpu.failure());
        assert!(plain.add_gram(&mut expected, rows.normalized()));
    }
    let apart = deviation(&got, &expected);
    assert!(apart < DOUBLE, "Gram matrix: {apart:e}");
    let u: Vec<f64> = Seed::new(9).normals(k * n).into_iter().map(f64::from).collect();
    let (mut got, mut expected) = (vec![f32::NAN; k * d], vec![0.0; k * d]);
    assert!(gpu.combine(&mut got, &u, rows.normalized()), "{:?}", gpu.failure());
    assert!(plain.combine(&mut expected, &u, rows.normalized()));
    let apart = deviation(&wide(&got), &wide(&expected));
    assert!(apart < ROUNDED, "combinations: {apart:e}");
}

#[test]
fn blocks_of_columns_add_up() {
    let Some(gpu) = products() else { return };
    // More values than one block has: 2^27 of them are 131,072 columns of 1,024 rows.
    let ([n, l], [n_short, d]) = ([1_024, 160], [1_024, 131_072 + 1_000]);
    let rows = Rows::new(n, d);
    let b = Seed::new(10).normals(d * l);
    let mut whole = vec![0.0; n * l];
    assert!(gpu.project(&mut whole, rows.normalized(), false, View::new(&b, d, l)), "{:?}", gpu.failure());
    // The first row beside a plain product in f64.
    let [values, mean, scale] = &rows.0;
    let mut expected = vec![0.0_f64; l];
    for (j, b) in b.chunks_exact(l).enumerate() {
        let x = (f64::from(values[j]) - f64::from(mean[j])) / f64::from(scale[j]);
        expected.iter_mut().zip(b).for_each(|(sum, &b)| *sum += x * f64::from(b));
    }
    assert!(deviation(&wide(&whole[..l]), &expected) < 2e-5);
    let mut sum = vec![0.0; n * n];
    assert!(gpu.add_gram(&mut sum, rows.normalized()), "{:?}", gpu.failure());
    let squared: f64 = (0..d).map(|j| ((f64::from(values[j]) - f64::from(mean[j])) / f64::from(scale[j])).powi(2)).sum();
    assert!((sum[0] - squared).abs() < 1e-10 * squared, "{} beside {squared}", sum[0]);
    let u: Vec<f64> = (0..70 * n_short).map(|i| if i % n_short == i / n_short { 1.0 } else { 0.0 }).collect();
    let mut chosen = vec![f32::NAN; 70 * d];
    assert!(gpu.combine(&mut chosen, &u, rows.normalized()), "{:?}", gpu.failure());
    let expected: Vec<f64> = (0..d).map(|j| (f64::from(values[69 * d + j]) - f64::from(mean[j])) / f64::from(scale[j])).collect();
    assert!(deviation(&wide(&chosen[69 * d..]), &expected) < ROUNDED);
}
