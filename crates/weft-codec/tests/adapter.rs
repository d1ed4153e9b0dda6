//! Adapters in the space of their updates, against updates that are formed.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use proptest::prelude::*;
use weft_codec::adapter::canonical::{canonical, from_tokens, tokens};
use weft_codec::adapter::merge::{MergeConfig, Method, merge};
use weft_codec::adapter::{AdapterPca, AdapterSet, Adapters, CrossGrams, Factors, Grams, Module, Per, combine};
use weft_codec::{Error, Rank};
use weft_core::Seed;
use weft_core::products::Here;

const METHODS: [Method; 9] = [
    Method::Mean,
    Method::Linear,
    Method::TaskArithmetic { scale: 0.7 },
    Method::Ties { density: 0.3, scale: 1.0 },
    Method::DareLinear { density: 0.5, scale: 1.0 },
    Method::DareTies { density: 0.5, scale: 1.0 },
    Method::Slerp { t: 0.3 },
    Method::Knots { density: None, scale: 1.0 },
    Method::Knots { density: Some(0.4), scale: 1.0 },
];

fn modules() -> Vec<Module> {
    [("q", 9, 12), ("v", 14, 7)].map(|(name, fan_out, fan_in)| Module { name: name.to_owned(), fan_out, fan_in }).to_vec()
}

fn random(seed: Seed, module: &Module, rank: usize) -> Factors {
    let (b, a) = (seed.fork("b").normals(module.fan_out * rank), seed.fork("a").normals(rank * module.fan_in));
    Factors { rank, scaling: 0.5 + rank as f64, b, a }
}

/// Adapters of the given ranks.
fn set(seed: u64, ranks: &[usize]) -> AdapterSet {
    let seed = Seed::new(seed);
    let own = |(i, &rank): (usize, &usize)| {
        modules().iter().enumerate().map(|(at, m)| random(seed.index(i as u64).index(at as u64), m, rank)).collect()
    };
    AdapterSet::new(modules(), ranks.iter().enumerate().map(own).collect()).unwrap()
}

/// `ΔW` of one module, formed.
fn formed(factors: &Factors, module: &Module) -> Vec<f64> {
    let (r, i) = (factors.rank, module.fan_in);
    let at = |row: usize, column: usize| -> f64 {
        (0..r).map(|p| f64::from(factors.b[row * r + p]) * f64::from(factors.a[p * i + column])).sum::<f64>() * factors.scaling
    };
    (0..module.fan_out * i).map(|x| at(x / i, x % i)).collect()
}

/// All of an adapter's updates in one row.
fn row(set: &AdapterSet, adapter: usize) -> Vec<f64> {
    set.adapter(adapter).iter().zip(set.modules()).flat_map(|(f, m)| formed(f, m)).collect()
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn gap(a: &[f64], b: &[f64]) -> f64 {
    let squared: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (squared / inner(b, b).max(1e-30)).sqrt()
}

/// The same updates by other factors: `B·G⁻¹` and `G·A` with `G = L·U` of unit triangles and a diagonal, and another scaling.
fn gauged(set: &AdapterSet, seed: u64) -> AdapterSet {
    let own = |i: usize| {
        let factors = set.adapter(i).iter().zip(set.modules()).enumerate();
        factors.map(|(at, (f, m))| gauge(f, m, Seed::new(seed).index(i as u64).index(at as u64))).collect()
    };
    AdapterSet::new(set.modules().to_vec(), (0..set.num_adapters()).map(own).collect()).unwrap()
}

fn gauge(factors: &Factors, module: &Module, seed: Seed) -> Factors {
    let (r, i, o) = (factors.rank, module.fan_in, module.fan_out);
    let mut a: Vec<f64> = factors.a.iter().map(|&x| f64::from(x)).collect();
    let mut b: Vec<f64> = factors.b.iter().map(|&x| f64::from(x)).collect();
    let draws = seed.normals(r * r + 2 * r);
    // Shears `row p += t·row q` of A with `column q −= t·column p` of B, then scales.
    for (at, (p, q)) in (0..r).flat_map(|p| (0..r).map(move |q| (p, q))).enumerate().filter(|(_, (p, q))| p != q) {
        let t = 0.5 * f64::from(draws[at]);
        (0..i).for_each(|x| a[p * i + x] += t * a[q * i + x]);
        (0..o).for_each(|x| b[x * r + q] -= t * b[x * r + p]);
    }
    for p in 0..r {
        let scale = (0.7 * f64::from(draws[r * r + p])).exp() * if draws[r * r + r + p] < 0.0 { -1.0 } else { 1.0 };
        (0..i).for_each(|x| a[p * i + x] *= scale);
        (0..o).for_each(|x| b[x * r + p] *= factors.scaling / scale);
    }
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
    Factors { rank: r, scaling: 1.0, b: narrow(b), a: narrow(a) }
}

fn merged(set: &AdapterSet, method: Method, rank: usize) -> AdapterSet {
    merge(set, &MergeConfig { method, weights: None, rank, scaling: 0.5, seed: Seed::new(3) }).unwrap().adapters
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products_are_those_of_formed_updates(seed in 0_u64..1000, ranks in prop::collection::vec(0_usize..5, 1..6)) {
        let set = set(seed, &ranks);
        let (grams, n) = (Grams::of(&set, &Here).unwrap(), ranks.len());
        let rows: Vec<_> = (0..n).map(|i| row(&set, i)).collect();
        let (total, cross) = (grams.total(), CrossGrams::of(&set, &set).unwrap().total());
        for (at, found) in total.iter().enumerate() {
            let expected = inner(&rows[at / n], &rows[at % n]);
            let size = 1e-12 * (1.0 + inner(&rows[at / n], &rows[at / n]) + inner(&rows[at % n], &rows[at % n]));
            prop_assert!((found - expected).abs() < size && (cross[at] - expected).abs() < size, "{at}: {found} {expected}");
        }
    }

    #[test]
    fn no_gauge_of_the_inputs_shows(seed in 0_u64..1000, ranks in prop::collection::vec(1_usize..5, 3..6)) {
        let one = set(seed, &ranks);
        let two = gauged(&one, seed + 1);
        let [a, b] = [&one, &two].map(|set| Grams::of(set, &Here).unwrap());
        prop_assert!(gap(&b.total(), &a.total()) < 1e-5);
        for (factors, other) in one.adapter(0).iter().zip(two.adapter(0)).zip(modules()).map(|((f, g), m)| {
            (canonical(f, &m, ranks[0]).unwrap().0, canonical(g, &m, ranks[0]).unwrap().0)
        }) {
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            // Close singular values turn with rounding; the update itself never does.
            prop_assert!(gap(&wide(&other.a), &wide(&factors.a)) < 5e-2 && gap(&wide(&other.b), &wide(&factors.b)) < 5e-2);
        }
        for per in [Per::Adapter, Per::Module] {
            let [a, b] = [&a, &b].map(|grams| AdapterPca::fit(grams, per, Rank::Fixed(2)).unwrap());
            let weights = |pca: &AdapterPca| pca.weights(&pca.codes()[..pca.code_len()], 1);
            prop_assert!(gap(&weights(&b), &weights(&a)) < 1e-3);
        }
    }

    #[test]
    fn a_full_code_is_the_adapter(seed in 0_u64..1000, ranks in prop::collection::vec(0_usize..5, 3..7), module in any::<bool>()) {
        let set = set(seed, &ranks);
        let grams = Grams::of(&set, &Here).unwrap();
        let per = if module { Per::Module } else { Per::Adapter };
        let Ok(pca) = AdapterPca::fit(&grams, per, Rank::KeptVariance(1.0)) else {
            prop_assert!(ranks.iter().filter(|&&r| r > 0).count() < 1);
            return Ok(());
        };
        for known in [None, Some(&grams)] {
            let decoded = pca.decode(pca.codes(), (&set, known), (4, 2.0)).unwrap();
            for (i, &rank) in ranks.iter().enumerate() {
                let expected = row(&set, i);
                if rank > 0 {
                    prop_assert!(gap(&row(&decoded.adapters, i), &expected) < 1e-4, "{i}: {}", gap(&row(&decoded.adapters, i), &expected));
                    prop_assert!(decoded.lost[i].fraction() < 1e-8);
                }
                prop_assert_eq!(decoded.adapters.adapter(i)[0].rank, 4);
            }
        }
        let again = pca.encode(&CrossGrams::of(&set, &set).unwrap(), &grams).unwrap();
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        prop_assert!(gap(&wide(&again), &wide(pca.codes())) < 1e-3);
        let tensors = pca.to_tensors().into_iter().map(|(name, shape, values)| (name, (shape, values.to_vec()))).collect();
        prop_assert_eq!(AdapterPca::from_tensors((per, modules(), ranks.len()), tensors).unwrap(), pca);
    }

    #[test]
    fn canonical_factors_keep_the_update(seed in 0_u64..1000, rank in 1_usize..7) {
        for module in modules() {
            let factors = random(Seed::new(seed), &module, rank);
            let (made, lost) = canonical(&factors, &module, rank).unwrap();
            prop_assert!(gap(&formed(&made, &module), &formed(&factors, &module)) < 1e-6 && lost.fraction() < 1e-12);
            // Balanced, in order, and with signs.
            let norms = |p: usize| {
                let a: f32 = made.a[p * module.fan_in..(p + 1) * module.fan_in].iter().map(|x| x * x).sum();
                let b: f32 = made.b.iter().skip(p).step_by(rank).map(|x| x * x).sum();
                (a, b)
            };
            for p in 0..rank {
                let (a, b) = norms(p);
                prop_assert!((a - b).abs() < 1e-4 * a && (p == 0 || a <= norms(p - 1).0 * 1.0001));
                let row = &made.a[p * module.fan_in..(p + 1) * module.fan_in];
                let peak = row.iter().fold(0.0_f32, |most, &x| if x.abs() > most.abs() { x } else { most });
                prop_assert!(peak > 0.0);
            }
            prop_assert_eq!(&from_tokens(&tokens(&made), &module).unwrap(), &made);
            // One rank less loses the last singular value's energy.
            if rank > 1 {
                let (less, lost) = canonical(&factors, &module, rank - 1).unwrap();
                let distance = gap(&formed(&less, &module), &formed(&factors, &module)).powi(2);
                prop_assert!((distance - lost.fraction()).abs() < 1e-6, "{distance} {}", lost.fraction());
            }
        }
    }

    #[test]
    fn mergers_know_no_gauge_but_linear(seed in 0_u64..1000, rank in 1_usize..4) {
        let one = set(seed, &[rank, rank]);
        let two = gauged(&one, seed + 1);
        for method in METHODS {
            // A trimmed entry beside the threshold may fall to either side: all are kept here.
            let method = match method {
                Method::Ties { scale, .. } => Method::Ties { density: 1.0, scale },
                Method::Knots { density: Some(_), scale } => Method::Knots { density: None, scale },
                other => other,
            };
            let [a, b] = [&one, &two].map(|set| row(&merged(set, method, 7), 0));
            if method.is_gauge_free() {
                prop_assert!(gap(&b, &a) < 1e-2, "{method:?}: {}", gap(&b, &a));
            } else {
                prop_assert!(gap(&b, &a) > 1e-3, "{method:?}: {}", gap(&b, &a));
            }
        }
    }
}

#[test]
fn a_great_stack_is_truncated_as_well_as_by_all_its_singular_values() {
    // 300 ranks are more than are taken exactly; the last singular values are close to each other.
    let module = Module { name: "o".to_owned(), fan_out: 320, fan_in: 330 };
    let own = |i: u64| vec![random(Seed::new(i), &module, 10)];
    let set = AdapterSet::new(vec![module.clone()], (0..30).map(own).collect()).unwrap();
    let grams = Grams::of(&set, &Here).unwrap();
    let weights = |_: usize, _: usize| (0..30).map(|i| 1.0 / (1.0 + f64::from(i))).collect::<Vec<_>>();
    let rank = 8;
    let [fast, plain] = [Some(&grams), None].map(|grams| combine(&set, grams, (1, &weights), (rank, 1.0)).unwrap());
    let mut whole = vec![0.0; 320 * 330];
    for (i, weight) in weights(0, 0).into_iter().enumerate() {
        whole.iter_mut().zip(row(&set, i)).for_each(|(sum, x)| *sum += weight * x);
    }
    let matrix = faer::MatRef::from_row_major_slice(&whole, 320, 330);
    let values = matrix.singular_values().unwrap();
    let best: f64 = values[rank..].iter().map(|s| s * s).sum::<f64>() / inner(&whole, &whole);
    for made in [fast, plain] {
        let distance = gap(&row(&made.adapters, 0), &whole).powi(2);
        assert!((made.lost[0].energy / inner(&whole, &whole) - 1.0).abs() < 1e-9);
        assert!((distance - made.lost[0].fraction()).abs() < 1e-6, "{distance} {:?}", made.lost[0]);
        assert!(distance < best * 1.001 && distance > best * 0.999, "{distance} {best}");
    }
}

#[test]
fn the_same_bits_at_any_number_of_threads() {
    let module = Module { name: "o".to_owned(), fan_out: 700, fan_in: 600 };
    let own = |i: u64| vec![random(Seed::new(i), &module, 9 + (i % 3) as usize)];
    let set = AdapterSet::new(vec![module.clone()], (0..40).map(own).collect()).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let grams = Grams::of(&set, &Here).unwrap();
            let pca = AdapterPca::fit(&grams, Per::Adapter, Rank::Fixed(3)).unwrap();
            let decoded = pca.decode(&pca.codes()[..6], (&set, Some(&grams)), (4, 1.0)).unwrap();
            let few = AdapterSet::new(vec![module.clone()], (0..3).map(|i| set.adapter(i).to_vec()).collect()).unwrap();
            let merge = |method| merged(&few, method, 4);
            let made = METHODS.into_iter().filter(|m| !matches!(m, Method::Slerp { .. } | Method::Linear)).map(merge);
            (grams, decoded, made.collect::<Vec<_>>())
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

#[test]
fn more_ranks_than_a_tile_holds_change_nothing() {
    let module = Module { name: "o".to_owned(), fan_out: 20, fan_in: 30 };
    let own = |i: u64| vec![random(Seed::new(i), &module, 500 + i as usize)];
    let set = AdapterSet::new(vec![module.clone()], (0..9).map(own).collect()).unwrap();
    let (grams, cross) = (Grams::of(&set, &Here).unwrap(), CrossGrams::of(&set, &set).unwrap());
    let rows: Vec<_> = (0..9).map(|i| row(&set, i)).collect();
    for (at, found) in grams.total().iter().enumerate() {
        let expected = inner(&rows[at / 9], &rows[at % 9]);
        assert!((found - expected).abs() < 1e-10 * inner(&rows[8], &rows[8]), "{at}: {found} {expected}");
        assert!((cross.total()[at] - expected).abs() < 1e-10 * inner(&rows[8], &rows[8]));
    }
}

#[test]
fn mergers_do_what_they_say() {
    let module = vec![Module { name: "q".to_owned(), fan_out: 1, fan_in: 4 }];
    let update = |values: [f32; 4]| vec![Factors { rank: 1, scaling: 2.0, b: vec![0.5], a: values.to_vec() }];
    let three = [[4.0, 1.0, -1.0, 0.1], [2.0, -3.0, -2.0, 0.2], [-1.0, -1.0, 5.0, 0.3]];
    let check = |inputs: &[[f32; 4]], method: Method, weights: Option<Vec<f64>>, expected: [f64; 4]| {
        let set = AdapterSet::new(module.clone(), inputs.iter().map(|v| update(*v)).collect()).unwrap();
        let config = MergeConfig { method, weights, rank: 2, scaling: 0.25, seed: Seed::new(0) };
        let found = row(&merge(&set, &config).unwrap().adapters, 0);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{method:?}: {found:?} {expected:?}");
    };
    check(&three, Method::Mean, None, [5.0 / 3.0, -1.0, 2.0 / 3.0, 0.2]);
    check(&three, Method::Mean, Some(vec![1.0, 1.0, 0.0]), [3.0, -1.0, -1.5, 0.15]);
    check(&three, Method::TaskArithmetic { scale: 0.5 }, None, [2.5, -1.5, 1.0, 0.3]);
    check(&three, Method::Ties { density: 1.0, scale: 1.0 }, None, [3.0, -2.0, 5.0, 0.2]);
    // The two largest entries of each: (4, 1 = -1), (-3, 2 = -2), (5, -1 = -1); ties stay.
    check(&three, Method::Ties { density: 0.5, scale: 2.0 }, None, [6.0, -4.0, 10.0, 0.0]);
    check(&three, Method::DareLinear { density: 1.0, scale: 1.0 }, None, [5.0 / 3.0, -1.0, 2.0 / 3.0, 0.2]);
    check(&three, Method::DareTies { density: 1.0, scale: 1.0 }, None, [3.0, -2.0, 5.0, 0.2]);
    check(&three, Method::Knots { density: None, scale: 1.0 }, None, [5.0 / 3.0, -1.0, 2.0 / 3.0, 0.2]);
    // A row has one left direction: elected right factors are elected entries.
    check(&three, Method::Knots { density: Some(1.0), scale: 1.0 }, None, [3.0, -2.0, 5.0, 0.2]);
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let two = [[1.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]];
    check(&two, Method::Slerp { t: 0.5 }, None, [2.0 * half, 2.0 * half, 0.0, 0.0]);
    check(&two, Method::Slerp { t: 0.0 }, None, [1.0, 0.0, 0.0, 0.0]);
    check(&[[1.0, 2.0, 0.0, 0.0]; 2], Method::Slerp { t: 0.4 }, None, [1.0, 2.0, 0.0, 0.0]);
    check(&two, Method::Linear, None, [0.5, 1.5, 0.0, 0.0]); // one B for both, so half of each here
}

#[test]
fn random_dropping_keeps_the_mean() {
    let module = vec![Module { name: "q".to_owned(), fan_out: 60, fan_in: 500 }];
    let flat = Factors { rank: 1, scaling: 1.0, b: vec![1.0; 60], a: vec![1.0; 500] };
    let set = AdapterSet::new(module, vec![vec![flat]]).unwrap();
    let row = row(&merged(&set, Method::DareLinear { density: 0.25, scale: 1.0 }, 60), 0);
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    assert!((mean - 1.0).abs() < 0.05, "{mean}");
    // 4 where it is kept, else 0.
    assert!(row.iter().all(|x| x.abs() < 1e-3 || (x - 4.0).abs() < 1e-3));
}

#[test]
fn what_cannot_be_is_refused() {
    let set = set(1, &[2, 2, 2]);
    let run = |method: Method, weights: Option<Vec<f64>>, rank: usize, scaling: f64| {
        merge(&set, &MergeConfig { method, weights, rank, scaling, seed: Seed::new(0) }).unwrap_err().to_string()
    };
    let check = |found: String, expected: &str| assert!(found.contains(expected), "{found}");
    check(run(Method::Mean, None, 0, 1.0), "`rank`");
    check(run(Method::Mean, None, 1, 0.0), "`scaling`");
    check(run(Method::Mean, Some(vec![1.0]), 1, 1.0), "got 3");
    check(run(Method::Mean, Some(vec![1.0, -1.0, 0.0]), 1, 1.0), "`weights`");
    check(run(Method::Mean, Some(vec![f64::NAN; 3]), 1, 1.0), "`weights`");
    check(run(Method::Slerp { t: 0.5 }, None, 1, 1.0), "exactly 2");
    check(run(Method::Ties { density: 0.0, scale: 1.0 }, None, 1, 1.0), "`density`");
    check(run(Method::DareTies { density: 1.5, scale: 1.0 }, None, 1, 1.0), "`density`");
    check(run(Method::TaskArithmetic { scale: f64::INFINITY }, None, 1, 1.0), "`scale`");
    let mut broken = random(Seed::new(1), &modules()[0], 2);
    broken.a[3] = f32::NAN;
    let other = random(Seed::new(1), &modules()[1], 2);
    let found = AdapterSet::new(modules(), vec![vec![broken.clone(), other.clone()]]).unwrap_err();
    check(found.to_string(), "adapter 0, module `q`: a factor holds a value that is not finite");
    broken.a.pop();
    check(AdapterSet::new(modules(), vec![vec![broken, other.clone()]]).unwrap_err().to_string(), "rank × inputs");
    check(AdapterSet::new(modules(), vec![vec![other]]).unwrap_err().to_string(), "2 modules");
    let thin = vec![Module { name: "x".to_owned(), fan_out: 1, fan_in: 1 }];
    let wide = Factors { rank: 5000, scaling: 1.0, b: vec![0.0; 5000], a: vec![0.0; 5000] };
    check(AdapterSet::new(thin.clone(), vec![vec![wide]]).unwrap_err().to_string(), "rank is above 4096");
    let many = AdapterSet::new(thin, vec![vec![Factors { rank: 0, scaling: 1.0, b: vec![], a: vec![] }]; 25_000]).unwrap();
    check(Grams::of(&many, &Here).unwrap_err().to_string(), "needs fewer adapters, got 25000");
    let empty = AdapterSet::new(modules(), Vec::new()).unwrap();
    let grams = Grams::of(&empty, &Here).unwrap();
    assert!(grams.total().is_empty());
    assert!(matches!(AdapterPca::fit(&grams, Per::Adapter, Rank::Fixed(1)), Err(Error::NumAdapters { got: 0, .. })));
    let config = MergeConfig { method: Method::Mean, weights: None, rank: 1, scaling: 1.0, seed: Seed::new(0) };
    check(merge(&empty, &config).unwrap_err().to_string(), "1 or more");
    let same = AdapterSet::new(modules(), vec![set.adapter(0).to_vec(); 3]).unwrap();
    let fit = |set: &AdapterSet, rank| AdapterPca::fit(&Grams::of(set, &Here).unwrap(), Per::Adapter, rank);
    assert_eq!(fit(&same, Rank::Fixed(1)), Err(Error::NoVariance));
    assert!(matches!(fit(&set, Rank::Fixed(3)), Err(Error::Rank { asked: 3, available: 2 })));
}

/// Adapters that are so many that their products would fill the memory: none of them is read.
struct Many(usize, Vec<Module>);

impl Adapters for Many {
    type Error = Error;

    fn num_adapters(&self) -> usize {
        self.0
    }

    fn modules(&self) -> &[Module] {
        &self.1
    }

    fn read(&self, _: usize, _: usize) -> Result<Factors, Error> {
        panic!("nothing is read of what is refused")
    }
}

/// Products of some adapters with others are bounded and checked like those of adapters with themselves.
#[test]
fn products_that_cannot_be_are_refused_on_both_sides() {
    let (many, few) = (Many(1 << 20, modules()), Many(1 << 10, modules()));
    for (left, right) in [(&many, &few), (&few, &many)] {
        assert!(matches!(CrossGrams::of(left, right), Err(Error::NumAdapters { got: 1_048_576, .. })));
    }
    assert!(matches!(Grams::of(&many, &Here), Err(Error::NumAdapters { .. })));
    let huge = |value: f32| {
        let factors = |m: &Module| Factors { rank: 1, scaling: 1e200, b: vec![value; m.fan_out], a: vec![value; m.fan_in] };
        AdapterSet::new(modules(), vec![modules().iter().map(factors).collect()]).unwrap()
    };
    let (one, other) = (huge(1.0), huge(2.0));
    for error in [CrossGrams::of(&one, &other).map(|_| ()), Grams::of(&one, &Here).map(|_| ())] {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Factors { adapter: 0, module, .. } if module == "q"), "{error}");
    }
}
