//! The token generator: it learns what tokens have in common, for widths that it has not seen, window by window.

use crate::hostile::{check, tensor, text, without};
use crate::support::{distance, heun, points, restored, train, vector};
use std::sync::Arc;
use weft_codec::TokenShape;
use weft_core::families::{Family, ResNet};
use weft_core::{Activation, Architecture, Condition, FieldSpec, Monitor, Part, Population, Seed, Window};
use weft_gen::tokens::RefinerPart;
use weft_gen::{
    Error, Generator as _, TokenConfig, TokenFlow, TokenNetwork, TokenPart, TokenRefiner, TokenRefinerConfig, TokenRefinerTrainer,
    TokenSet, TokenTrainer, Trainer as _,
};
use weft_net::{Device, PopulationLoss};

/// Trained networks of one hidden layer on [`points`]; unit `u` starts near the same weights in every network of every width.
fn trained(width: usize, n: usize) -> Population {
    let architecture = mlp(width);
    let loss = PopulationLoss::new(architecture.clone(), &points(), &Device::cpu()).expect("the architecture fits the points");
    let seed = Seed::new(31);
    let units: Vec<Vec<f32>> = (0..width as u64).map(|u| seed.fork("unit").index(u).normals(8 + 3)).collect();
    let mut row: Vec<f32> = units.iter().flat_map(|unit| unit[..8].iter().map(|w| 0.35 * w)).collect();
    row.resize(row.len() + width, 0.0);
    row.extend((0..3).flat_map(|class| units.iter().map(move |unit| unit[8 + class] / (width as f32).sqrt())));
    row.resize(architecture.num_parameters(), 0.0);
    let mut rows = row.repeat(n);
    let noise = seed.fork("noise").index(width as u64).normals(rows.len());
    rows.iter_mut().zip(noise).for_each(|(w, g)| *w += 0.1 * g);
    for step in 0..100 {
        let chosen = seed.fork("step").index(step).indices(24 * n, loss.num_examples());
        let gradient = loss.gradients(&rows, &chosen).gradient;
        rows.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.2 * g);
    }
    Population::new(architecture, rows).expect("rows of whole networks")
}

fn mlp(width: usize) -> Arc<Architecture> {
    weft_testkit::mlp(&[8, width, 3], Activation::Relu)
}

/// Networks of these widths; the field `half` says which of two halves a network is of, and those of the second have all weights reversed in
/// sign at the output.
fn set(widths: &[usize], n: usize) -> TokenSet {
    let parts = widths.iter().map(|&width| {
        let mut networks = trained(width, n);
        let (dim, last) = (networks.dim(), networks.architecture().tensors()[2].range().start);
        networks.data_mut().chunks_exact_mut(dim).skip(n / 2).for_each(|row| row[last..].iter_mut().for_each(|w| *w = -*w));
        let half = |i: usize| Condition::unknown().with("half", if i < n / 2 { 0.0 } else { 1.0 });
        TokenPart { networks: Arc::new(networks), conditions: (0..n).map(half).collect() }
    });
    TokenSet::new(parts.collect()).expect("a condition for each network")
}

fn config(steps: u64) -> TokenConfig {
    TokenConfig {
        shape: 16.into(),
        window: 256,
        network: TokenNetwork { d_model: 48, num_layers: 2, num_heads: 4, hidden: 96 },
        steps,
        batch_networks: 24,
        learning_rate: 4e-3,
        warmup_steps: 10,
        weight_decay: 0.0,
        clip_norm: 1.0,
        ema_decay: 0.98,
        conditions: vec![FieldSpec::scalar("half")],
        condition_dropout: 0.1,
    }
}

fn trainer(config: TokenConfig, set: TokenSet) -> TokenTrainer {
    TokenTrainer::new(config, set, Seed::new(7), &Device::cpu()).expect("the settings are in range")
}

fn flow(config: TokenConfig, set: TokenSet) -> TokenFlow {
    let steps = config.steps;
    train(trainer(config, set), steps).finish(heun(12, 1.0)).expect("the CPU gives its state")
}

fn half(which: f64) -> Condition {
    Condition::unknown().with("half", which)
}

fn sample(flow: &TokenFlow, width: usize, condition: &Condition, seed: u64) -> Population {
    let generator = flow.generator(mlp(width)).expect("training networks have all kinds of places");
    generator.sample(24, condition, Seed::new(seed)).expect("the condition is known")
}

fn accuracy(networks: &Population) -> f64 {
    let accuracies = weft_net::accuracies(networks, &points(), Part::Test, &Device::cpu()).expect("networks for these points");
    accuracies.iter().sum::<f64>() / accuracies.len() as f64
}

/// The first `width` units of wider networks.
fn sliced(networks: &Population, width: usize) -> Population {
    let wide = networks.architecture().tensors()[0].shape[0];
    let mut rows = Vec::new();
    for row in networks.rows() {
        let (first, rest) = row.split_at(wide * 8);
        let (bias, rest) = rest.split_at(wide);
        let (last, last_bias) = rest.split_at(3 * wide);
        rows.extend_from_slice(&first[..width * 8]);
        rows.extend_from_slice(&bias[..width]);
        last.chunks_exact(wide).for_each(|row| rows.extend_from_slice(&row[..width]));
        rows.extend_from_slice(last_bias);
    }
    Population::new(mlp(width), rows).expect("rows of whole networks")
}

#[test]
fn a_width_that_training_lacks_is_sampled_and_the_condition_followed() {
    let set = set(&[8, 16], 64);
    let mut trainer = trainer(config(500), set.clone());
    let first = trainer.advance(20, &Monitor::silent()).expect("a plain run");
    let untrained = trainer_of_one_step(&set);
    trainer.advance(480, &Monitor::silent()).expect("a plain run");
    let last = trainer.advance(500, &Monitor::silent()).expect("a plain run");
    assert!(last < 0.7 * first, "the loss went from {first} to {last}");
    let flow = trainer.finish(heun(12, 1.0)).expect("the CPU gives its state");
    for width in [8, 16, 12] {
        let [right, wrong] = [0.0, 1.0].map(|which| accuracy(&sample(&flow, width, &half(which), 1)));
        let gaussian = accuracy(&sample(&untrained, width, &half(0.0), 1));
        // Reversed outputs name the class that is least likely.
        assert!(right > gaussian + 0.3 && wrong < 0.2, "width {width}: {right}, reversed {wrong}, Gaussian {gaussian}");
        if width == 12 {
            let slice = accuracy(&sliced(&sample(&flow, 16, &half(0.0), 1), 12));
            assert!(right > slice, "{right} at width 12, {slice} of slices of width 16");
        }
    }
}

/// The same networks with the units of each in an order of its own.
fn shuffled(set: &TokenSet) -> TokenSet {
    let parts = set.parts().iter().map(|part| {
        let networks = &part.networks;
        let width = networks.architecture().tensors()[0].shape[0];
        let rows = networks.rows().enumerate().flat_map(|(i, row)| {
            let order: Vec<usize> = Seed::new(41).index(i as u64).subset(width, width).into_iter().map(|u| u as usize).collect();
            let (first, rest) = row.split_at(width * 8);
            let (bias, rest) = rest.split_at(width);
            let (last, last_bias) = rest.split_at(3 * width);
            let mut out: Vec<f32> = order.iter().flat_map(|&u| &first[u * 8..][..8]).copied().collect();
            out.extend(order.iter().map(|&u| bias[u]));
            last.chunks_exact(width).for_each(|row| out.extend(order.iter().map(|&u| row[u])));
            out.extend_from_slice(last_bias);
            out
        });
        let networks = Population::new(networks.architecture().clone(), rows.collect()).expect("rows of whole networks");
        TokenPart { networks: Arc::new(networks), conditions: part.conditions.clone() }
    });
    TokenSet::new(parts.collect()).expect("a condition for each network")
}

/// Where a unit's token holds all that refers to it, no order of units is needed to learn from, and none but the directions that rows vary in.
#[test]
fn units_in_any_order_are_learned_from_as_a_set() {
    let set = shuffled(&set(&[8, 16], 64));
    let shape = TokenShape { token_len: 6, outgoing: 3, rank: 6 };
    let config = TokenConfig { shape, ..config(500) };
    let untrained = self::flow(TokenConfig { learning_rate: 1e-12, steps: 1, ..config.clone() }, set.clone());
    let flow = self::flow(config, set.clone());
    let loaded = TokenFlow::load(&flow.save(), heun(12, 1.0), &Device::cpu()).expect("what was saved");
    for width in [8, 16, 12] {
        let networks = sample(&flow, width, &half(0.0), 1);
        assert_eq!(networks, sample(&loaded, width, &half(0.0), 1));
        let [right, wrong] = [accuracy(&networks), accuracy(&sample(&flow, width, &half(1.0), 1))];
        let gaussian = accuracy(&sample(&untrained, width, &half(0.0), 1));
        assert!(right > gaussian + 0.3 && wrong < 0.2, "width {width}: {right}, reversed {wrong}, Gaussian {gaussian}");
        assert_eq!(flow.generator(mlp(width)).expect("known places").num_tokens(), width + 1);
    }
    let damages = vec![tensor("basis.linear.8.6", |v| v.truncate(5)), text("rank", "5000")];
    check(&flow.save(), damages, |saved| TokenFlow::load(saved, heun(3, 1.0), &Device::cpu())?.generator(mlp(12)).map(drop));
    // A refiner shifts coefficients: it is trained and made to run through the basis, and mends the Gaussian.
    let trainer = refiner_trainer(refiner_config(), &untrained, &[8, 16]).expect("the settings are in range");
    let refiner = train(trainer, 300).finish().expect("the CPU gives its state");
    let proposal = Arc::new(untrained.generator(mlp(12)).expect("known places"));
    let before = accuracy(&proposal.sample(24, &Condition::unknown(), Seed::new(1)).expect("all is unknown"));
    let behind = refiner.behind(proposal, mlp(12)).expect("it fits the window");
    let after = accuracy(&behind.sample(24, &Condition::unknown(), Seed::new(1)).expect("all is unknown"));
    assert!(after > before + 0.3 && after > 0.75, "accuracy {before} before, {after} after");
}

/// What the generator is before it has learned: the Gaussian of each kind of place.
fn trainer_of_one_step(set: &TokenSet) -> TokenFlow {
    let config = TokenConfig { learning_rate: 1e-12, ..config(1) };
    flow(config, set.clone())
}

#[test]
fn an_untrained_generator_is_the_gaussian_of_its_tokens() {
    let flow = trainer_of_one_step(&set(&[8], 32));
    let layout = weft_codec::TokenLayout::new(&mlp(12), 16).expect("a positive length");
    let moments = flow.normalizer().moments(&layout).expect("the same kinds of places");
    let generator = flow.generator(mlp(12)).expect("the same kinds of places");
    let networks = generator.sample(200, &Condition::unknown(), Seed::new(2)).expect("all is unknown");
    let normal: Vec<f32> = networks.rows().flat_map(|row| moments.normalize(row)).collect();
    let n = normal.len() as f64;
    let mean = normal.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = normal.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
}

#[test]
fn training_resumes_and_a_saved_generator_samples_the_same() {
    let set = set(&[8, 12], 8);
    let whole = train(trainer(config(6), set.clone()), 6);
    let saved = train(trainer(config(6), set.clone()), 3).save().expect("the CPU gives its state");
    let resumed = train(restored(trainer(config(6), set), &saved).expect("the same settings"), 6);
    let [whole, resumed] = [whole, resumed].map(|t| t.finish(heun(3, 2.0)).expect("the CPU gives its state"));
    assert_eq!(vector(&whole.save(), "theta"), vector(&resumed.save(), "theta"));
    let loaded = TokenFlow::load(&whole.save(), heun(3, 2.0), &Device::cpu()).expect("what was saved");
    assert_eq!(sample(&loaded, 9, &half(1.0), 3), sample(&whole, 9, &half(1.0), 3));
    assert_ne!(sample(&whole, 9, &half(1.0), 3), sample(&whole, 9, &half(1.0), 4));
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
    let [one, two] = [1, 2].map(|threads| pool(threads).install(|| sample(&whole, 9, &half(1.0), 3)));
    assert_eq!(one, two, "the number of threads is not to matter");
}

/// A narrow window changes what tokens know of each other, not which of them are made.
#[test]
fn windows_cover_all_weights_in_training_and_sampling() {
    let set = set(&[8, 16], 16);
    let flow = flow(TokenConfig { window: 5, ..config(60) }, set.clone());
    let moments = |flow: &TokenFlow| {
        let networks = sample(flow, 16, &half(0.0), 1);
        let first = &set.parts()[1].networks;
        let layout = weft_codec::TokenLayout::new(first.architecture(), 16).expect("a positive length");
        let moments = flow.normalizer().moments(&layout).expect("the same kinds of places");
        let normal: Vec<f32> = networks.rows().flat_map(|row| moments.normalize(row)).collect();
        let dim = networks.dim();
        (0..dim).map(|w| normal.iter().skip(w).step_by(dim).map(|v| v * v).sum::<f32>() / networks.len() as f32).collect::<Vec<_>>()
    };
    for window in [1, 5, 256] {
        let flow = flow.clone().with_window(window).expect("a positive length");
        let second = moments(&flow);
        let most = second.iter().fold(0.0, |most: f32, &v| most.max(v));
        assert!(second.iter().all(|&v| v > 1e-3) && most < 30.0, "window {window}: a weight is never made, or not bounded");
    }
    // Networks of a whole window and of pieces differ, though the noise is the same.
    let [whole, pieces] = [256, 5].map(|window| {
        let flow = flow.clone().with_window(window).expect("a positive length");
        sample(&flow, 16, &half(0.0), 1)
    });
    assert!(distance(whole.row(0), pieces.row(0)) > 1e-3);
    assert!(flow.with_window(0).is_err());
}

#[test]
fn what_cannot_be_sampled_is_refused_by_name() {
    let flow = trainer_of_one_step(&set(&[8], 8));
    let deeper = flow.generator(weft_testkit::mlp(&[8, 8, 8, 3], Activation::Relu)).expect_err("no hidden map was seen");
    assert!(deeper.to_string().contains("layers.1.weight"), "{deeper}");
    let generator = flow.generator(mlp(8)).expect("a width that was seen");
    assert!(generator.sample(1, &Condition::unknown().with("other", 1.0), Seed::new(1)).is_err());
    assert!(generator.sample_each(&[], Seed::new(1)).is_err());
    let bad = [
        TokenConfig { shape: 0.into(), ..config(1) },
        TokenConfig { window: 0, ..config(1) },
        TokenConfig { batch_networks: 0, ..config(1) },
        TokenConfig { network: TokenNetwork { num_heads: 5, ..config(1).network }, ..config(1) },
        TokenConfig { conditions: vec![FieldSpec::scalar("absent")], ..config(1) },
    ];
    for config in bad {
        let refused = TokenTrainer::new(config.clone(), set(&[8], 4), Seed::new(1), &Device::cpu());
        assert!(matches!(refused, Err(Error::Setting { .. })), "{config:?}");
    }
    assert!(TokenSet::new(Vec::new()).is_err());
    let part = TokenPart { networks: set(&[8], 4).parts()[0].networks.clone(), conditions: Vec::new() };
    assert!(TokenSet::new(vec![part]).is_err());
}

#[test]
fn damaged_generators_are_refused() {
    let saved = trainer_of_one_step(&set(&[8], 8)).save();
    let damages = vec![
        tensor("theta", |v| v.truncate(5)),
        tensor("theta", |v| v[1] = f32::NAN),
        text("d-model", "0"),
        text("d-model", "17000"),
        text("num-heads", "7"),
        text("hidden", "0"),
        text("token-len", "0"),
        text("window", "0"),
        without("num-layers"),
        without("fields"),
        without("std.linear.first.row.8"),
        tensor("std.linear.last.bias", |v| v.push(1.0)),
        tensor("mean.linear.last.row", |v| v[0] = f32::INFINITY),
    ];
    check(&saved, damages, |saved| TokenFlow::load(saved, heun(3, 1.0), &Device::cpu()).map(drop));
    // A deviation of 0 is found with its kind of place.
    let damages = vec![("mean.linear.last.row", tensor("std.linear.last.row", |v| v[0] = 0.0).1)];
    check(&saved, damages, |saved| TokenFlow::load(saved, heun(3, 1.0), &Device::cpu()).map(drop));
}

/// Norms behind convolutions, shortcuts and statistics: what is in no token comes out as 0.
#[test]
fn residual_networks_are_sampled_without_statistics() {
    let data = crate::support::norm_set();
    let part = TokenPart { networks: data.finals.clone(), conditions: vec![Condition::unknown(); data.finals.len()] };
    let config = TokenConfig { conditions: Vec::new(), shape: 7.into(), ..config(5) };
    let flow = flow(config, TokenSet::new(vec![part]).expect("a condition for each network"));
    let stem = Window { size: [1, 3], stride: [1, 1], padding: [0, 1] };
    let wider = ResNet { image: [2, 1, 4], stem, stem_pool: false, widths: vec![5], blocks: 2, num_classes: 3 };
    let wider = Arc::new(Family::ResNet(wider).build("wider").expect("a small residual network"));
    let networks = flow.generator(wider.clone()).and_then(|g| g.sample(2, &Condition::unknown(), Seed::new(1)));
    let networks = networks.expect("the same kinds of places");
    for range in wider.statistics() {
        assert!(networks.rows().all(|row| row[range.clone()].iter().all(|&w| w == 0.0)));
    }
    assert!(networks.data().iter().all(|w| w.is_finite()));
}

fn refiner_config() -> TokenRefinerConfig {
    TokenRefinerConfig {
        mu: 0.1,
        own_data: true,
        steps: 300,
        batch_networks: 8,
        batch_examples: 24,
        learning_rate: 3e-3,
        pool: 64,
        window: 64,
        network: config(1).network,
    }
}

fn refiner_trainer(config: TokenRefinerConfig, flow: &TokenFlow, widths: &[usize]) -> Result<TokenRefinerTrainer, Error> {
    let generators: Vec<_> = widths.iter().map(|&width| flow.generator(mlp(width)).expect("known places")).collect();
    let parts = generators.iter().map(|generator| RefinerPart {
        proposal: generator,
        asked: vec![(Condition::unknown(), None)],
        loss: PopulationLoss::new(generator.architecture().clone(), &points(), &Device::cpu()).expect("networks for these points"),
    });
    TokenRefinerTrainer::new(config, flow, parts.collect(), Seed::new(8), &Device::cpu())
}

#[test]
fn a_refiner_of_two_widths_mends_samples_of_a_third() {
    let flow = trainer_of_one_step(&set(&[8, 16], 16));
    let trainer = refiner_trainer(refiner_config(), &flow, &[8, 16]).expect("the settings are in range");
    let saved = train(trainer, 20).save().expect("the CPU gives its state");
    let trainer = refiner_trainer(refiner_config(), &flow, &[8, 16]).expect("the settings are in range");
    let refiner = train(restored(trainer, &saved).expect("the same settings"), 300).finish().expect("the CPU gives its state");
    let proposal = Arc::new(flow.generator(mlp(12)).expect("known places"));
    let before = accuracy(&proposal.sample(24, &Condition::unknown(), Seed::new(1)).expect("all is unknown"));
    let loaded = TokenRefiner::load(&refiner.save(), &Device::cpu()).expect("what was saved");
    let [refined, again] = [&refiner, &loaded].map(|refiner| {
        let behind = refiner.behind(proposal.clone(), mlp(12)).expect("it fits the window");
        behind.sample(24, &Condition::unknown(), Seed::new(1)).expect("all is unknown")
    });
    assert_eq!(refined, again);
    let after = accuracy(&refined);
    assert!(after > before + 0.3 && after > 0.75, "accuracy {before} before, {after} after");
    // 70 tokens are more than a pass takes.
    let refused = refiner.behind(proposal, mlp(67)).expect_err("longer than the window");
    assert!(matches!(&refused, Error::Setting { setting: "window", got, .. } if got.contains("tiny-mlp")), "{refused}");
}

#[test]
fn a_refiner_resumes_bit_for_bit() {
    let flow = trainer_of_one_step(&set(&[8], 8));
    let config = TokenRefinerConfig { steps: 6, ..refiner_config() };
    let new = || refiner_trainer(config.clone(), &flow, &[8, 10]).expect("the settings are in range");
    let whole = train(new(), 6).save().expect("the CPU gives its state");
    let saved = train(new(), 3).save().expect("the CPU gives its state");
    let resumed = train(restored(new(), &saved).expect("the same settings"), 6).save().expect("the CPU gives its state");
    assert_eq!(vector(&whole, "theta"), vector(&resumed, "theta"));
    let other = TokenRefinerConfig { mu: 0.2, ..config.clone() };
    let other = refiner_trainer(other, &flow, &[8, 10]).expect("the settings are in range");
    assert!(restored(other, &saved).is_err());
    assert!(refiner_trainer(TokenRefinerConfig { pool: 2, ..config }, &flow, &[8]).is_err());
}
