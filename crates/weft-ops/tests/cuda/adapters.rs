//! What adapters of sequence models are trained with.

use super::{Pair, run};
use weft_core::RopePairs;
use weft_ops::backend::{Attention, Backend, Batch, CudaReal, DeviceView, Linear, LowRank, Tokens, rotary_turns};

fn low_rank_on<T: CudaReal>(pair: &Pair<T>) {
    for (networks, rows, rank) in [(1, 40, 4), (5, 24, 8), (3, 7, 3)] {
        let update = LowRank { a: 16, b: 16 + rank * 24, inputs: 24, outputs: 16, rank, scale: 0.5, columns: 48, first: 16 };
        let stride = 16 + rank * 40;
        let batch = Batch { networks, rows, stride, shared: false };
        let (x, theta) = (pair.values(1, networks * rows * 24), pair.values(2, networks * stride));
        let (start, dy) = (pair.values(3, networks * rows * 48), pair.values(4, networks * rows * 48));
        let name = |what: &str| format!("{what} {networks}×{rows} rank {rank}");
        let mut y = pair.gpu.copy(start.view()).unwrap();
        let low = pair.gpu.low_rank(&update, batch, x.view(), theta.view(), &mut y).unwrap();
        let mut cpu_y = pair.cpu.from_slice(&start.cpu);
        let cpu_low = pair.cpu.low_rank(&update, batch, &x.cpu, &theta.cpu, &mut cpu_y).unwrap();
        pair.compare(&name("low"), &low, &cpu_low);
        pair.compare(&name("updated"), &y, &cpu_y);
        let mut dx = pair.gpu.copy(x.view()).unwrap();
        let mut gradient = pair.gpu.zeros_wide(networks * stride).unwrap();
        let d = (dy.view(), Some(&mut dx));
        pair.gpu.low_rank_backward(&update, batch, (x.view(), DeviceView::from(&low)), theta.view(), d, &mut gradient).unwrap();
        let mut cpu_dx = pair.cpu.from_slice(&x.cpu);
        let mut cpu_gradient = pair.cpu.zeros_wide(networks * stride).unwrap();
        let d = (&dy.cpu[..], Some(&mut cpu_dx));
        pair.cpu.low_rank_backward(&update, batch, (&x.cpu, &cpu_low), &theta.cpu, d, &mut cpu_gradient).unwrap();
        pair.compare(&name("gradient of x"), &dx, &cpu_dx);
        pair.compare(&name("gradient of factors"), &gradient, &cpu_gradient);
    }
    let map = Linear { weight: 8, bias: None, inputs: 24, outputs: 16, input_major: false };
    let (theta, dy) = (pair.values(5, 8 + 24 * 16), pair.values(6, 9 * 16));
    let dx = pair.gpu.linear_input_backward(&map, Batch::one(9), theta.view(), dy.view()).unwrap();
    pair.compare("frozen map", &dx, &pair.cpu.linear_input_backward(&map, Batch::one(9), &theta.cpu, &dy.cpu).unwrap());
}

#[test]
fn low_rank() {
    run("low rank", low_rank_on, low_rank_on);
}

fn tokens_on<T: CudaReal>(pair: &Pair<T>) {
    let (sequences, tokens) = (3, 70);
    let lengths = [70, 1, 33];
    let on_gpu = pair.gpu.upload_indices(&lengths).unwrap();
    for (head_dim, causal) in [(8, true), (16, false), (32, false), (32, true), (64, false), (128, false)] {
        let attention = Attention { sequences, tokens, heads: 4, kv_heads: 2, head_dim, causal };
        let name = |what: &str| format!("{what} {head_dim} {causal}");
        let packed = pair.values(1, sequences * tokens * attention.packed());
        let turns = rotary_turns(100.0, tokens, head_dim);
        let gpu_turns = pair.gpu.upload(&turns).unwrap();
        let cpu_turns: Vec<f64> = pair.gpu.download(DeviceView::from(&gpu_turns)).unwrap().into_iter().map(f64::from).collect();
        for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
            for back in [false, true] {
                let mut turned = pair.gpu.copy(packed.view()).unwrap();
                pair.gpu.rotate((&attention, pairs), &mut turned, DeviceView::from(&gpu_turns), back).unwrap();
                let mut expected = pair.cpu.from_slice(&packed.cpu);
                pair.cpu.rotate((&attention, pairs), &mut expected, &cpu_turns, back).unwrap();
                pair.compare(&name("rotated"), &turned, &expected);
            }
        }
        let seen = Some(DeviceView::from(&on_gpu));
        let (y, log_sums) = pair.gpu.attention(&attention, packed.view(), seen).unwrap();
        let (cpu_y, cpu_log_sums) = pair.cpu.attention(&attention, &packed.cpu, Some(&lengths)).unwrap();
        pair.compare(&name("padded attention"), &y, &cpu_y);
        let dy = pair.values(2, y.len());
        let d = pair.gpu.attention_backward(&attention, (packed.view(), seen), (pair.gpu.view(&y), &log_sums), dy.view()).unwrap();
        let outputs = (&cpu_y[..], &cpu_log_sums);
        let cpu_d = pair.cpu.attention_backward(&attention, (&packed.cpu, Some(&lengths)), outputs, &dy.cpu).unwrap();
        pair.compare(&name("padded backward"), &d, &cpu_d);
    }
    let sizes = Tokens { sequences, tokens, width: 10 };
    let (x, dy) = (pair.values(3, sequences * tokens * 10), pair.values(4, sequences * 10));
    let y = pair.gpu.mean_tokens(sizes, x.view(), DeviceView::from(&on_gpu)).unwrap();
    pair.compare("mean of tokens", &y, &pair.cpu.mean_tokens(sizes, &x.cpu, &lengths).unwrap());
    let dx = pair.gpu.mean_tokens_backward(sizes, dy.view(), DeviceView::from(&on_gpu)).unwrap();
    pair.compare("mean backward", &dx, &pair.cpu.mean_tokens_backward(sizes, &dy.cpu, &lengths).unwrap());
}

#[test]
fn tokens() {
    run("tokens", tokens_on, tokens_on);
}

fn weights_on<T: CudaReal>(pair: &Pair<T>) {
    let (networks, rows, classes) = (3, 20, 64);
    let logits = pair.values(1, networks * rows * classes);
    let labels: Vec<u32> = (0..60).map(|i| i * 7 % 64).collect();
    let weights: Vec<f32> = (0..60).map(|i| if i % 5 == 0 { 0.0 } else { 0.0625 * (i % 4) as f32 }).collect();
    let (on_gpu, gpu_weights) = (pair.gpu.upload_indices(&labels).unwrap(), pair.gpu.upload_wide(&weights).unwrap());
    let sizes = [networks, classes];
    let (loss, gradient) = pair.gpu.cross_entropy(sizes, logits.view(), DeviceView::from(&on_gpu), Some(&gpu_weights)).unwrap();
    let cpu_weights = pair.cpu.upload_wide(&weights).unwrap();
    let (cpu_loss, cpu_gradient) = pair.cpu.cross_entropy(sizes, &logits.cpu, &labels, Some(&cpu_weights)).unwrap();
    pair.compare("weighted loss", &loss, &cpu_loss);
    pair.compare("weighted gradient", &gradient, &cpu_gradient);
}

#[test]
fn weights_of_rows() {
    run("weights of rows", weights_on, weights_on);
}
