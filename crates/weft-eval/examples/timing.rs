//! Temporary timing.
use std::sync::Arc;
use std::time::Instant;
use weft_core::*;
use weft_eval::*;
fn main() {
    let read = |f: &str, skip: usize| std::fs::read(format!("/tmp/E-{f}")).unwrap()[skip..].to_vec();
    let (runs, held, n): (usize, usize, usize) = (arg(1), arg(2), arg(3));
    let widths: Vec<usize> = std::env::args().nth(4).unwrap().split('-').map(|x| x.parse().unwrap()).collect();
    let mut x = read("train-images-idx3", 16); x.extend(read("t10k-images-idx3", 16));
    let mut y: Vec<u32> = read("train-labels-idx1", 8).into_iter().map(u32::from).collect(); y.extend(read("t10k-labels-idx1", 8).into_iter().map(u32::from));
    let dataset = Dataset::new("mnist", Inputs::Bytes { data: x, scale: 1.0 / 255.0 }, y, 10, [55_000, 5_000]).unwrap();
    let arch = Arc::new(Architecture::mlp("m", &widths, Activation::Relu).unwrap());
    let recipe = Recipe { optimizer: Optimizer::SGD, learning_rate: 0.1, schedule: Schedule::Constant, weight_decay: 0.0, batch_size: 64, duration: Duration::Steps(1500), snapshot_steps: Recipe::log_spaced(15, 1500, 11) };
    let cache = format!("/tmp/E-zoo-{runs}-{held}-{}", widths.len());
    let d = arch.num_parameters();
    let all: Vec<f32> = match std::fs::read(&cache) {
        Ok(bytes) => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        Err(_) => {
            let t = Instant::now();
            let seeds: Vec<Seed> = (0..(runs + held) as u64).map(|i| Seed::new(1).index(i)).collect();
            let r = weft_net::train(&arch, &dataset, &recipe, &seeds, &weft_net::Device::cpu(), &Monitor::silent()).unwrap();
            let all: Vec<f32> = r.iter().flat_map(|r| r.snapshots.iter().flat_map(|s| s.row.clone())).collect();
            std::fs::write(&cache, all.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
            println!("trained in {:?}", t.elapsed());
            all
        }
    };
    let snaps = all.len() / d / (runs + held);
    let train = Population::new(arch.clone(), all[..runs * snaps * d].to_vec()).unwrap();
    let rest = Population::new(arch.clone(), all[runs * snaps * d..].to_vec()).unwrap();
    drop(all);
    let held_out = rest.select(&(0..held).map(|i| i * snaps + snaps - 1).collect::<Vec<_>>());
    let is_final: Vec<bool> = (0..train.len()).map(|i| i % snaps == snaps - 1).collect();
    let run: Vec<u32> = (0..train.len()).map(|i| (i / snaps) as u32).collect();
    let t0 = Instant::now();
    let sink = move |e: Event| { if let Event::Progress { done } = e { println!("   {done} at {:.2?}", t0.elapsed()); } };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let monitor = Monitor::new(&sink, &stop);
    let t = Instant::now();
    let context = Context::new(ContextInput { train: &train, train_is_final: &is_final, train_run: &run, held_out: &held_out, dataset: &dataset }, &Options { fixed_bars: vec![0.85], ..Options::default() }, &monitor).unwrap();
    println!("context in {:?}\n{:#?}", t.elapsed(), context.units());
    // Samples: aligned-free interpolation and noise copies of finals.
    let finals = train.select(&(0..runs).map(|i| i * snaps + snaps - 1).collect::<Vec<_>>());
    let picks = Seed::new(8).indices(2 * n, runs);
    let mut mix = Vec::new();
    for p in picks.chunks(2) { mix.extend(finals.row(p[0] as usize).iter().zip(finals.row(p[1] as usize)).map(|(a, b)| 0.7 * a + 0.3 * b)); }
    let noise = Seed::new(9).normals(n * d);
    let noisy: Vec<f32> = picks[..n].iter().enumerate().flat_map(|(i, &p)| finals.row(p as usize).iter().zip(&noise[i * d..(i + 1) * d]).map(|(w, z)| w + 0.03 * z).collect::<Vec<_>>()).collect();
    let mut rows = vec![];
    for (name, kind, set) in [("mix", RowKind::Baseline, Population::new(arch.clone(), mix).unwrap()), ("noise", RowKind::Generator, Population::new(arch.clone(), noisy).unwrap()), ("null", RowKind::NullCopy, context.null_copies(n, Seed::new(3)).unwrap())] {
        let t = Instant::now();
        let row = context.row(RowInput { name, kind, sets: &[set], costs: Costs::default() }, &monitor).unwrap();
        println!("row {name} in {:?}", t.elapsed());
        rows.push(row);
    }
    let e = context.evaluate(rows);
    for r in &e.rows {
        println!("{:14} acc {:.4} std {:.4} d {:.3} {:?} f {:.3} w {:.3} fellow {:.3} pair {:.3} pf {:.3} dis {:.3} iou {:.3} vote {:.4} npd {:?}", r.name, r.accuracy.mean, r.accuracy_std, r.distance.mean, r.distance_quartiles, r.functional.mean, r.distance_weighted.mean, r.fellow_distance.mean, r.pairwise.mean, r.pairwise_functional.mean, r.disagreement.mean, r.max_iou.mean, r.vote_gain.mean, r.curves[0].npd.iter().map(|e| (e.mean * 1000.0).round() / 1000.0).collect::<Vec<_>>());
        println!("      quartile np {:?} snapshot np {:?}", r.curves[1].np.iter().map(|e| (e.mean * 1000.0).round() / 1000.0).collect::<Vec<_>>(), r.snapshot_curves[1].np.iter().map(|e| (e.mean * 1000.0).round() / 1000.0).collect::<Vec<_>>());
    }
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
}
fn arg(i: usize) -> usize { std::env::args().nth(i).unwrap().parse().unwrap() }
