//! Times training steps and forward passes of a network on a device, and prints one JSON line a request.
//!
//! ```sh
//! cargo run --release -p weft-gen --example steps -- cpu f32 transformer 16x64x256x6
//! cargo run --release -p weft-gen --example steps -- cuda:0 bf16 residual 1024x1024x6x256
//! ```
//!
//! Shapes: `transformer BATCHxTOKENSxWIDTHxLAYERS`, `residual BATCHxWIDTHxBLOCKSxLATENT`; see [`weft_gen::workload`].
//! Each line of standard input asks for `train N` or `infer N`; without any, the median of five rounds of ten is printed.

#![expect(clippy::print_stdout, reason = "an example's answers")]

use std::io::BufRead as _;
use std::time::Instant;
use weft_gen::workload::{Steps, workload};
use weft_net::Device;
use weft_ops::tensor::Precision;

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
    serve(&mut *workload(kind, shape, &Device::open(device)?, precision)?)
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
