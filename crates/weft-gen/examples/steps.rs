//! Times training steps and forward passes of a network on a device, and prints one JSON line a request.
//!
//! ```sh
//! cargo run --release -p weft-gen --example steps -- cpu f32 transformer 16x64x256x6
//! cargo run --release -p weft-gen --example steps -- cuda:0 bf16 residual 1024x1024x6x256
//! cargo run --release -p weft-gen --example steps -- cuda:0,cuda:1 bf16 residual 8192x2048x6x256
//! ```
//!
//! Shapes: `transformer BATCHxTOKENSxWIDTHxLAYERS`, `residual BATCHxWIDTHxBLOCKSxLATENT`; see [`weft_gen::workload`].
//! Each line of standard input asks for `train N` or `infer N`; without any, five rounds of ten are printed. Of several devices, a step
//! of all is measured beside one of the first alone, in turns and with the same batch, and their losses are compared.

#![expect(clippy::print_stdout, reason = "an example's answers")]

use std::io::BufRead as _;
use std::time::Instant;
use weft_gen::workload::{Steps, workload};
use weft_net::Device;
use weft_ops::tensor::Precision;

/// Steps whose losses are compared.
const LOSSES: usize = 50;
/// Turns, and the steps of each.
const TURNS: usize = 7;
const STEPS: usize = 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, precision, kind, shape] = args.as_slice() else {
        return Err("usage: steps DEVICE f32|bf16 transformer|residual SHAPE".into());
    };
    let precision = match precision.as_str() {
        "f32" => Precision::Single,
        "bf16" => Precision::Bfloat16,
        other => return Err(format!("`{other}` is neither f32 nor bf16").into()),
    };
    let device = Device::open(device)?;
    match device.each().next() {
        Some(first) if device.all().len() > 1 => {
            compare([workload(kind, shape, &first, precision)?, workload(kind, shape, &device, precision)?])
        }
        _ => serve(&mut *workload(kind, shape, &device, precision)?),
    }
}

/// Trains on one device and on all: first step by step, then in turns against the clock.
fn compare(mut pair: [Box<dyn Steps>; 2]) -> Outcome<()> {
    let mut losses = Vec::new();
    for _ in 0..LOSSES {
        let [one, all] = &mut pair;
        losses.push([one.train(1)?, all.train(1)?]);
    }
    let apart =
        losses.iter().map(|[one, all]| (one - all).abs()).fold(0.0f64, |most, apart| if apart <= most { most } else { apart });
    let [first, last] = [losses[0], losses[LOSSES - 1]].map(|[one, all]| format!("[{one:.8}, {all:.8}]"));
    println!("{{\"steps\": {LOSSES}, \"first_losses\": {first}, \"last_losses\": {last}, \"most_apart\": {apart:.3e}}}");
    println!("{{\"devices_agree\": {}}}", pair[1].agree()?);
    let mut millis = [Vec::new(), Vec::new()];
    for turn in 0..=TURNS {
        for (steps, millis) in pair.iter_mut().zip(&mut millis) {
            let since = Instant::now();
            steps.train(STEPS)?;
            // The first turn only warms up.
            if turn > 0 {
                millis.push(since.elapsed().as_secs_f64() * 1e3 / STEPS as f64);
            }
        }
    }
    let [one, all] = millis.map(|mut millis| {
        millis.sort_by(f64::total_cmp);
        millis[TURNS / 2]
    });
    println!("{{\"one_ms\": {one:.4}, \"all_ms\": {all:.4}, \"speed_up\": {:.3}}}", one / all);
    Ok(())
}

fn serve(workload: &mut dyn Steps) -> Outcome<()> {
    let since = Instant::now();
    workload.train(1)?;
    println!("{{\"ready\": true, \"first_step_ms\": {:.1}}}", since.elapsed().as_secs_f64() * 1e3);
    let mut asked = false;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let (verb, count) = (words.next().unwrap_or_default(), words.next().map_or(Ok(10), str::parse)?);
        if verb == "quit" {
            return Ok(());
        }
        asked = true;
        answer(workload, verb, count)?;
    }
    if !asked {
        for verb in ["train", "infer"] {
            answer(workload, verb, 3)?;
            for _ in 0..5 {
                answer(workload, verb, 10)?;
            }
        }
    }
    Ok(())
}

fn answer(workload: &mut dyn Steps, verb: &str, count: usize) -> Outcome<()> {
    let since = Instant::now();
    let value = match verb {
        "train" => workload.train(count)?,
        "infer" => workload.infer(count)?,
        other => return Err(format!("`{other}` is neither train nor infer").into()),
    };
    println!("{{\"{verb}\": {:.4}, \"value\": {value:.6}}}", since.elapsed().as_secs_f64() * 1e3 / count as f64);
    Ok(())
}
