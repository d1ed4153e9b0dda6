//! Training steps and forward passes of generators' networks, alone and beside PyTorch's.

use super::limits::best_product_rate;
use super::peer::{self, Peer};
use super::stages::Bench;
use super::{Figure, secs};
use crate::Result;
use weft_gen::workload::{Steps, workload};
use weft_ops::tensor::Precision;

/// What is measured on a CPU, in `f32`.
const ON_CPU: [(&str, &str); 4] = [
    ("transformer", "16x64x256x6"),
    ("transformer", "8x128x384x4"),
    ("transformer", "64x32x128x8"),
    ("residual", "1024x1024x6x256"),
];

/// What is measured on a GPU.
const ON_GPU: [(&str, &str, Precision); 6] = [
    ("transformer", "64x128x512x8", Precision::Bfloat16),
    ("transformer", "16x256x1024x12", Precision::Bfloat16),
    ("transformer", "32x64x768x6", Precision::Bfloat16),
    ("transformer", "8x512x512x4", Precision::Bfloat16),
    ("residual", "1024x1024x6x256", Precision::Single),
    ("residual", "1024x1024x6x256", Precision::Bfloat16),
];

fn cases(bench: &Bench) -> Vec<(&'static str, &'static str, Precision)> {
    let cases = if bench.device.is_cpu() { ON_CPU.map(|(k, s)| (k, s, Precision::Single)).to_vec() } else { ON_GPU.to_vec() };
    let count = if bench.options.quick { 1 } else { cases.len() };
    cases[..count].to_vec()
}

fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::Single => "f32",
        Precision::Double => "f64",
        Precision::Bfloat16 => "bf16",
    }
}

/// Milliseconds of a training step, or of a forward pass.
fn millis(steps: &mut dyn Steps, train: bool, count: usize) -> Result<f64> {
    let (time, _) = secs(|| Ok(if train { steps.train(count)? } else { steps.infer(count)? }))?;
    Ok(time * 1e3 / count as f64)
}

fn count(bench: &Bench) -> usize {
    match (bench.device.is_cpu(), bench.options.quick) {
        (true, true) => 1,
        (true, false) => 5,
        (false, _) => 20,
    }
}

/// Our own steps, and what share of the machine's rate of products they reach.
pub(super) fn steps(bench: &Bench) -> Result<Vec<Figure>> {
    let rate = if bench.device.is_cpu() { Some(best_product_rate()) } else { None };
    let mut figures = Vec::new();
    for (kind, shape, precision) in cases(bench) {
        let mut steps = workload(kind, shape, &bench.device, precision)?;
        let (first, _) = secs(|| Ok(steps.train(1)?))?;
        let what = format!("{kind} {shape}, {}", name(precision));
        for (verb, train, passes) in [("training step", true, 3.0), ("forward pass", false, 1.0)] {
            millis(&mut *steps, train, count(bench))?;
            let mut times = (0..3).map(|_| millis(&mut *steps, train, count(bench))).collect::<Result<Vec<_>>>()?;
            let time = peer::median(&mut times);
            let flops = passes * steps.flops() / (time * 1e-3);
            let share = rate.map_or(String::new(), |rate| format!(", {:.2} of the rate of products", flops / rate));
            let note = format!("{:.0} GFLOP/s{share}; the first step took {:.0} ms", flops / 1e9, first * 1e3);
            figures.push(Figure::new(&format!("{what}: {verb}"), time, "ms", note));
        }
    }
    Ok(figures)
}

/// The same beside PyTorch, in turns.
pub(super) fn beside_pytorch(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let peers: &[(&str, &[&str])] = if bench.device.is_cpu() {
        &[("PyTorch", &[])]
    } else {
        &[("PyTorch", &[]), ("compiled PyTorch", &["--compile", "--fused"])]
    };
    for (kind, shape, precision) in cases(bench) {
        for (named, options) in peers {
            let device = bench.device.to_string();
            let arguments = [device.as_str(), name(precision), kind, shape].into_iter().chain(options.iter().copied());
            let mut theirs = Peer::steps(arguments)?;
            let mut ours = workload(kind, shape, &bench.device, precision)?;
            for (verb, train) in [("train", true), ("infer", false)] {
                theirs.ask(&format!("{verb} {}", count(bench)))?;
                millis(&mut *ours, train, count(bench))?;
                let (mut weft, mut torch) = (Vec::new(), Vec::new());
                for _ in 0..peer::TURNS {
                    torch.push(theirs.ask(&format!("{verb} {}", count(bench)))?.millis(verb)?);
                    weft.push(millis(&mut *ours, train, count(bench))?);
                }
                let (weft, torch) = (peer::median(&mut weft), peer::median(&mut torch));
                let what = if train { "training step" } else { "forward pass" };
                let figure = format!("{kind} {shape}, {}: {what} against {named}", name(precision));
                figures.push(Figure::new(&figure, weft / torch, "×", format!("{weft:.2} ms against {torch:.2} ms")));
            }
        }
    }
    Ok(figures)
}
