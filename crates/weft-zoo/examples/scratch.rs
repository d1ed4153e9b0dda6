//! scratch
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use weft_core::*;
use weft_zoo::*;
fn main() {
    if let Some(dir) = std::env::args().nth(1) {
        let path = Path::new(&dir);
        let a = Arc::new(Architecture::mlp("m", &[784, 16, 10], Activation::Relu).unwrap());
        let mut zoo = if Zoo::exists(path) { Zoo::open(path).unwrap() } else { Zoo::create(path, "k", a.clone(), None).unwrap() };
        let rep = zoo.verify(&Monitor::silent()).unwrap();
        println!("clean {} checkpoints {} removed {}", rep.is_clean(), rep.checkpoints, rep.removed.len());
        let done = zoo.runs().unwrap();
        println!("acknowledged {} digest {}", done.len(), zoo.digest().unwrap().short());
        for block in 0u64..25 {
            if done.contains(&format!("run-{block}-0")) {
                continue;
            }
            let p = Population::new(a.clone(), Seed::new(block).normals(a.num_parameters() * 40)).unwrap();
            let recs: Vec<Record> = (0..40)
                .map(|i| Record {
                    digest: p.digest(i),
                    run: format!("run-{block}-{i}"),
                    step: None,
                    is_final: true,
                    split: Split::Train,
                    recipe: None,
                    metrics: Default::default(),
                    provenance: Provenance::default(),
                })
                .collect();
            match zoo.append(&p, &recs) {
                Ok(r) => println!("ack {block} {}", r.added),
                Err(e) => {
                    println!("{e}: {:?}", std::error::Error::source(&e));
                    break;
                }
            }
        }
        println!("final digest {} {}", zoo.digest().unwrap().short(), zoo.count(&Filter::default()).unwrap());
        return;
    }
    let t = Instant::now();
    for (p, n) in [("/work/shared/data/mnist", "mnist"), ("/usr/share/datasets/fashion-mnist", "fashion-mnist")] {
        let d = data::idx_folder(Path::new(p), n, 5000).unwrap();
        println!(
            "{n} {:?} {:?} {:?} {} {} {}",
            d.range(Part::Train),
            d.range(Part::Validation),
            d.range(Part::Test),
            d.num_features(),
            d.num_classes(),
            d.digest().short()
        );
        let mean: f64 = d.gather(0..1000).iter().map(|v| *v as f64).sum::<f64>() / 784000.0;
        println!("mean {mean} labels {:?}", &d.labels(Part::Train)[..10]);
    }
    let d = data::npz(Path::new("/work/shared/data/mnist1d.npz"), "mnist1d").unwrap();
    println!(
        "{:?} {:?} {} {:?} {:?}",
        d.range(Part::Train),
        d.range(Part::Test),
        d.num_features(),
        &d.gather(0..1)[..5],
        &d.labels(Part::Train)[..10]
    );
    println!("{:?}", data::idx_folder(Path::new("/tmp"), "mnist", 5000).unwrap_err().to_string());
    println!("data {:?}", t.elapsed());
    let dir = tempfile::tempdir().unwrap();
    let a = Arc::new(Architecture::mlp("mlp-784-16-10", &[784, 16, 10], Activation::Relu).unwrap());
    let mut zoo = Zoo::create(dir.path(), "big", a.clone(), None).unwrap();
    let base = Seed::new(1).normals(a.num_parameters() + 11264);
    let mut rows = Vec::new();
    for i in 0..11264 {
        rows.extend_from_slice(&base[i..i + a.num_parameters()]);
    }
    let p = Population::new(a.clone(), rows).unwrap();
    let t = Instant::now();
    let recs: Vec<Record> = (0..11264)
        .map(|i| Record {
            digest: p.digest(i),
            run: format!("run-{}", i / 11),
            step: Some(i as u64 % 11),
            is_final: i % 11 == 10,
            split: Split::Train,
            recipe: None,
            metrics: [("validation-accuracy".to_string(), 0.9)].into(),
            provenance: Provenance::default(),
        })
        .collect();
    println!("digests {:?}", t.elapsed());
    let t = Instant::now();
    println!("{:?}", zoo.append(&p, &recs).unwrap().added);
    println!("append {:?}", t.elapsed());
    let t = Instant::now();
    let e = zoo.records(&Filter::default()).unwrap();
    println!("records {:?}", t.elapsed());
    let t = Instant::now();
    let q = zoo.load(&e, Purpose::Evaluate).unwrap();
    println!("load {:?}", t.elapsed());
    assert!(q == p);
    let t = Instant::now();
    println!("{:?} {:?}", zoo.verify(&Monitor::silent()).unwrap(), t.elapsed());
    drop((zoo, p, q));
    // 100,000
    let dir = tempfile::tempdir().unwrap();
    let a = Arc::new(Architecture::mlp("m", &[2, 2], Activation::Relu).unwrap());
    let p = Population::new(a.clone(), Seed::new(2).normals(600_000)).unwrap();
    let mut zoo = Zoo::create(dir.path(), "many", a.clone(), None).unwrap();
    let recipe = Recipe {
        optimizer: Optimizer::ADAM,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        batch_size: 64,
        duration: Duration::Steps(1500),
        snapshot_steps: vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    };
    let recs: Vec<Record> = (0..100_000)
        .map(|i| Record {
            digest: p.digest(i),
            run: format!("run-{}", i / 10),
            step: Some(i as u64 % 10),
            is_final: i % 10 == 9,
            split: Split::Train,
            recipe: Some(recipe.clone()),
            metrics: [
                ("validation-accuracy".to_string(), 0.9 + i as f64 * 1e-7),
                ("validation-loss".to_string(), 0.31),
                ("train-loss".to_string(), 0.12),
            ]
            .into(),
            provenance: Provenance { source: "weft zoo train".into(), licence: "MIT".into(), parents: vec![], synthetic: false },
        })
        .collect();
    let t = Instant::now();
    let _ = zoo.append(&p, &recs).unwrap();
    println!("append 100k {:?}", t.elapsed());
    drop(zoo);
    let t = Instant::now();
    let zoo = Zoo::open(dir.path()).unwrap();
    println!("open {:?}", t.elapsed());
    let t = Instant::now();
    println!("records {} {:?}", zoo.records(&Filter::default()).unwrap().len(), t.elapsed());
    let t = Instant::now();
    println!(
        "finals {} {:?}",
        zoo.records(&Filter { final_only: true, min_accuracy: Some(0.905), ..Filter::default() }).unwrap().len(),
        t.elapsed()
    );
    let t = Instant::now();
    println!("count {} {:?}", zoo.count(&Filter { split: Some(Split::Train), ..Filter::default() }).unwrap(), t.elapsed());
    let t = Instant::now();
    println!("stats {:?} {:?}", zoo.stats().unwrap().finals, t.elapsed());
    let t = Instant::now();
    println!("digest {:?} {:?}", zoo.digest().unwrap(), t.elapsed());
    let t = Instant::now();
    println!("runs {:?} {:?}", zoo.runs().unwrap().len(), t.elapsed());
    let t = Instant::now();
    println!("limit {:?} {:?}", zoo.records(&Filter { limit: Some(20), ..Filter::default() }).unwrap().len(), t.elapsed());
}
