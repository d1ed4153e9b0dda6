//! Samplers against the flow whose solution is known: data `N(m, s²)`, noise `N(0, 1)`.
//!
//! On the straight path `x_t ~ N(t·m, σ_t²)` with `σ_t² = t²s² + (1 − t)²`, so the velocity is
//! `v(x, t) = m + (t·s² − (1 − t))/σ_t² · (x − t·m)` and noise `z` arrives at `m + s·z`.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use weft_gen::{Sampler, SamplerConfig};

/// Where the noise arrives, and how often the velocity was asked for.
fn arrivals(sampler: Sampler, steps: usize, (m, s): (f64, f64), noise: &[f64]) -> (Vec<f64>, usize) {
    let config = SamplerConfig { sampler, steps, guidance_scale: 1.0 };
    let start = Tensor::new(noise, &Device::Cpu).expect("noise is a vector");
    assert_eq!(start.dtype(), DType::F64);
    let mut calls = 0;
    let end = config.integrate(start, |x_t, t| {
        calls += 1;
        assert!((0.0..=1.0 + 1e-12).contains(&t), "time {t}");
        let slope = (t * s * s - (1.0 - t)) / (t * t * s * s + (1.0 - t).powi(2));
        x_t.affine(slope, m - slope * t * m)
    });
    (end.and_then(|x| x.to_vec1()).expect("arithmetic on a vector"), calls)
}

fn worst(got: &[f64], (m, s): (f64, f64), noise: &[f64]) -> f64 {
    got.iter().zip(noise).map(|(x, z)| (x - (m + s * z)).abs()).fold(0.0, f64::max)
}

const NOISE: [f64; 5] = [-2.0, -0.7, 0.1, 1.0, 2.5];
const ORDERS: [(Sampler, f64, usize); 3] = [(Sampler::Euler, 1.0, 1), (Sampler::Heun, 2.0, 2), (Sampler::Rk4, 4.0, 4)];

#[test]
fn orders_of_convergence() {
    for gaussian in [(0.7, 0.4), (-1.0, 2.0), (3.0, 0.8)] {
        for (sampler, order, evaluations) in ORDERS {
            let error = |steps: usize| {
                let (got, calls) = arrivals(sampler, steps, gaussian, &NOISE);
                assert_eq!(calls, evaluations * steps);
                assert_eq!(SamplerConfig { sampler, steps, guidance_scale: 1.0 }.evaluations(), calls);
                worst(&got, gaussian, &NOISE)
            };
            let (coarse, fine) = (error(128), error(256));
            let got = (coarse / fine).log2();
            assert!((got - order).abs() < 0.25, "{sampler:?} on {gaussian:?}: order {got}, errors {coarse} and {fine}");
        }
    }
}

#[test]
fn one_step_from_the_middle_of_the_noise_is_exact() {
    // At t = 0 the velocity is m − z: one Euler step takes all noise to the mean.
    let (got, calls) = arrivals(Sampler::Euler, 1, (0.7, 0.4), &NOISE);
    assert_eq!(calls, 1);
    assert!(got.iter().all(|x| (x - 0.7).abs() < 1e-12), "{got:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn higher_orders_are_nearer(m in -2.0f64..2.0, s in 0.3f64..2.0, z in 0.5f64..3.0) {
        let gaussian = (m, s);
        let errors = ORDERS.map(|(sampler, ..)| worst(&arrivals(sampler, 64, gaussian, &[z]).0, gaussian, &[z]));
        prop_assert!(errors[2] < 1e-4, "{:?}", errors);
        prop_assert!(errors[1] < 0.01, "{:?}", errors);
        prop_assert!(errors[0] < 0.5, "{:?}", errors);
        prop_assert!(errors[2] <= errors[1], "{:?}", errors);
    }

    #[test]
    fn samples_keep_the_order_of_their_noise(m in -2.0f64..2.0, s in 0.3f64..2.0) {
        // The exact flow is monotone, and so are the solvers at this step: no two paths cross.
        for (sampler, ..) in ORDERS {
            let (got, _) = arrivals(sampler, 32, (m, s), &NOISE);
            prop_assert!(got.is_sorted(), "{:?}: {:?}", sampler, got);
        }
    }
}
