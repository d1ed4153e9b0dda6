//! The refiner: it mends proposals, each of its terms does something, and its state survives.

use crate::support::{
    distance, nearest, noisy, norm_set, points, refiner_config, refiner_of_copies, refiner_trainer, train, trained_set, vector,
};
use std::sync::Arc;
use weft_core::{Condition, Part, Population, Seed};
use weft_gen::{Generator, Refined, Refiner, RefinerConfig, Trainer as _, TrainingSet};
use weft_net::Device;

/// Networks of the proposal that no training step has seen.
fn proposals(data: &TrainingSet) -> Population {
    noisy(data, 0.4).sample(64, &Condition::unknown(), Seed::new(77)).expect("trivial generators cannot fail on their own data")
}

fn mean_loss(networks: &Population, part: Part) -> f64 {
    let scores = weft_net::scores(networks, &points(), part, &weft_net::Device::cpu()).expect("the architecture fits the points");
    scores.iter().map(|s| s.loss).sum::<f64>() / scores.len() as f64
}

fn trained(config: RefinerConfig, data: &TrainingSet) -> Refiner {
    let steps = config.steps;
    train(refiner_trainer(config, data), steps).finish().expect("the CPU gives its state")
}

#[test]
fn mends_noisy_proposals_through_either_codec() {
    for pca in [Some(22), None] {
        let data = trained_set(pca);
        let proposals = proposals(&data);
        let refiner = trained(RefinerConfig { steps: 400, ..refiner_config() }, &data);
        let refined = refiner.apply(&proposals, &Condition::unknown(), Seed::new(1)).expect("networks of the architecture");
        for part in [Part::Train, Part::Test] {
            let (before, after) = (mean_loss(&proposals, part), mean_loss(&refined, part));
            assert!(
                after < 0.75 * before,
                "codec {pca:?}, {} part: loss {before} became {after}, training runs have {}",
                part.name(),
                mean_loss(&data.finals, part)
            );
        }
    }
}

#[test]
fn an_untrained_refiner_changes_nothing() {
    let data = trained_set(Some(22));
    let proposals = proposals(&data);
    let refiner = refiner_trainer(refiner_config(), &data).finish().expect("the CPU gives its state");
    assert_eq!(refiner.apply(&proposals, &Condition::unknown(), Seed::new(1)).expect("networks of the architecture"), proposals);
}

#[test]
fn weights_outside_of_the_codec_stay_as_they_were() {
    let data = trained_set(Some(22));
    let proposals = proposals(&data);
    let refined = trained(refiner_config(), &data)
        .apply(&proposals, &Condition::unknown(), Seed::new(1))
        .expect("networks of the architecture");
    let outside = |rows: &[f32]| {
        let codes = data.codec.encode(rows).expect("networks of the architecture");
        let inside = data.codec.decode(&codes).expect("codes of the codec");
        rows.iter().zip(&inside).map(|(w, i)| w - i).collect::<Vec<f32>>()
    };
    assert!(distance(refined.row(0), proposals.row(0)) > 0.01, "the refiner did nothing");
    weft_testkit::assert_close(&outside(refined.data()), &outside(proposals.data()), 1e-4);
}

#[test]
fn running_statistics_stay_as_the_proposal_had_them() {
    let data = norm_set();
    let statistics = data.architecture().statistics();
    let proposals = proposals(&data);
    let refined = trained(refiner_config(), &data).apply(&proposals, &Condition::unknown(), Seed::new(1)).expect("its networks");
    let moved_codes = data.codec.encode(refined.data()).expect("networks of the architecture");
    let decoded = data.codec.decode(&moved_codes).expect("codes of the codec");
    for ((refined, proposal), decoded) in refined.rows().zip(proposals.rows()).zip(decoded.chunks_exact(proposals.dim())) {
        assert!(distance(refined, proposal) > 1e-3, "the refiner did nothing");
        for range in statistics.clone() {
            assert_eq!(refined[range.clone()], proposal[range.clone()]);
            assert_ne!(decoded[range.clone()], data.codec.normalizer().mean()[range], "codes say nothing of statistics");
        }
    }
}

#[test]
fn a_restored_run_is_the_uninterrupted_run() {
    let data = trained_set(Some(22));
    let config = RefinerConfig { hinge: true, shell: 0.5, repulsion: 0.2, own_data: true, ..refiner_config() };
    let whole = train(refiner_trainer(config.clone(), &data), 20);
    let first = train(refiner_trainer(config.clone(), &data), 8);
    assert_eq!(first.step(), 8);
    let mut second = refiner_trainer(config, &data);
    second.restore(&first.save().expect("the CPU gives its state")).expect("a state of this configuration");
    assert_eq!(second.step(), 8);
    let resumed = train(second, 20);
    assert_eq!(resumed.save().unwrap(), whole.save().unwrap());
    assert_eq!(resumed.finish().unwrap().save(), whole.finish().unwrap().save());
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let data = trained_set(Some(22));
    let config = RefinerConfig { hinge: true, shell: 0.5, repulsion: 0.2, own_data: true, ..refiner_config() };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of a few threads");
        pool.install(|| train(refiner_trainer(config.clone(), &data), 4).save().unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_saved_refiner_refines_the_same() {
    let data = trained_set(Some(22));
    for own_data in [false, true] {
        let refiner = trained(RefinerConfig { own_data, ..refiner_config() }, &data);
        let loaded = Refiner::load(&refiner.save(), data.codec.clone(), &Device::cpu()).expect("its own state");
        assert_eq!(loaded.save(), refiner.save());
        let proposals = proposals(&data);
        let refine = |refiner: &Refiner, seed| {
            refiner.apply(&proposals, &Condition::unknown(), Seed::new(seed)).expect("networks of the architecture")
        };
        assert_eq!(refine(&loaded, 3), refine(&refiner, 3));
        assert_ne!(refine(&refiner, 3), refine(&refiner, 4), "the seed draws signs and levels");
        assert!((loaded.flops_per_sample() - refiner.flops_per_sample()).abs() < 0.5);
    }
}

#[test]
fn a_refined_generator_is_a_generator() {
    let data = trained_set(Some(22));
    let refiner = trained(refiner_config(), &data);
    let proposal = Arc::new(noisy(&data, 0.4));
    let refined = Refined::new(proposal.clone(), refiner.clone());
    assert_eq!(refined.name(), "noise-copies-0.4 + refiner");
    let samples = |seed| refined.sample(4, &Condition::unknown(), Seed::new(seed)).expect("the proposal cannot fail");
    assert_eq!(samples(5), samples(5));
    assert_ne!(samples(5), samples(6));
    let cost = proposal.flops_per_sample() + refiner.flops_per_sample();
    assert!((refined.flops_per_sample() - cost).abs() < 0.5);
}

#[test]
fn every_term_changes_what_is_learned() {
    let data = trained_set(Some(22));
    let theta = |config: RefinerConfig| vector(&train(refiner_trainer(config, &data), 5).save().unwrap(), "theta");
    let base = refiner_config();
    let plain = theta(base.clone());
    assert!(plain == theta(base.clone()), "the same settings give another refiner");
    for (term, config) in [
        ("mu", RefinerConfig { mu: 0.5, ..base.clone() }),
        ("hinge", RefinerConfig { hinge: true, ..base.clone() }),
        ("shell", RefinerConfig { shell: 1.0, ..base.clone() }),
        ("repulsion", RefinerConfig { repulsion: 1.0, ..base.clone() }),
        ("own data", RefinerConfig { own_data: true, ..base }),
    ] {
        assert!(theta(config) != plain, "{term} changes nothing");
    }
}

#[test]
fn terms_pull_where_they_should() {
    let data = trained_set(Some(22));
    let proposals = noisy(&data, 0.1).sample(48, &Condition::unknown(), Seed::new(78)).expect("copies of training networks");
    let refine = |config: RefinerConfig| {
        let trainer = refiner_of_copies(RefinerConfig { steps: 200, ..config }, &data, 0.1);
        train(trainer, 200)
            .finish()
            .expect("the CPU gives its state")
            .apply(&proposals, &Condition::unknown(), Seed::new(1))
            .expect("networks of the architecture")
    };
    let base = refiner_config();
    let plain = refine(base.clone());
    let moved = |refined: &Population| {
        refined.rows().zip(proposals.rows()).map(|(a, b)| distance(a, b)).sum::<f64>() / proposals.len() as f64
    };
    let anchored = refine(RefinerConfig { mu: 5.0, ..base.clone() });
    assert!(moved(&anchored) < moved(&plain), "the anchor lets networks move {} for {}", moved(&anchored), moved(&plain));
    let hinged = refine(RefinerConfig { hinge: true, ..base.clone() });
    let losses = [&hinged, &plain].map(|networks| mean_loss(networks, Part::Train));
    assert!(losses[0] > losses[1], "the hinge stops no sample: losses {losses:?}");
    let repelled = refine(RefinerConfig { repulsion: 5.0, ..base });
    let apart = |refined: &Population| refined.rows().map(|row| nearest(row, &data.finals)).sum::<f64>();
    assert!(apart(&repelled) > apart(&plain), "repulsion leaves {} for {}", apart(&repelled), apart(&plain));
}

#[test]
fn training_cost_counts_networks_and_refiner() {
    let data = trained_set(Some(22));
    let cost = |config: RefinerConfig| refiner_trainer(config, &data).flops();
    let base = refiner_config();
    let networks = 6.0 * data.finals.dim() as f64 * (base.batch_examples * base.batch_networks) as f64 * base.steps as f64;
    assert!(cost(base.clone()) > networks);
    let shell = cost(RefinerConfig { shell: 1.0, ..base.clone() }) - cost(base.clone());
    assert!((shell / networks - 1.0).abs() < 1e-9, "the shell runs the networks a second time");
    let doubled = cost(RefinerConfig { steps: 2 * base.steps, ..base.clone() }) / cost(base);
    assert!((doubled - 2.0).abs() < 1e-9, "{doubled}");
}
