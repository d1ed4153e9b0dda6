//! Times the operations of a population of `ResNet-18`s in training, at the shapes of its four stages, on a device.
//!
//! ```sh
//! cargo run --release -p weft-ops --example images -- cpu f32 2x4
//! cargo run --release -p weft-ops --example images -- cuda:0 bf16 12x128
//! ```
//!
//! The last argument is `NETWORKSxIMAGES`. For each operation: milliseconds (the median of five), and what its inputs and outputs amount to
//! in GB/s and its products in TFLOP/s.

#![expect(clippy::print_stdout, reason = "an example's answers")]

use std::time::Instant;
use weft_core::Activation;
use weft_ops::backend::{Backend, Batch, BatchNorm, Job, Linear, on_device_in};
use weft_ops::kernels::ConvShape;
use weft_ops::tensor::Precision;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, precision, size] = args.as_slice() else {
        return Err("usage: images DEVICE f32|bf16 NETWORKSxIMAGES".into());
    };
    let (precision, bytes) = if precision == "bf16" { (Precision::Bfloat16, 2) } else { (Precision::Single, 4) };
    let (networks, images) = size.split_once('x').ok_or("the size is NETWORKSxIMAGES")?;
    let timing = Timing { networks: networks.parse()?, images: images.parse()?, bytes };
    let device = match device.strip_prefix("cuda:") {
        Some(index) => candle_core::Device::new_cuda_with_stream(index.parse()?)?,
        None => candle_core::Device::Cpu,
    };
    on_device_in(precision, &device, timing)??;
    Ok(())
}

struct Timing {
    networks: usize,
    images: usize,
    bytes: usize,
}

impl Job for Timing {
    type Output = weft_ops::Result<()>;

    fn run<B: Backend + 'static>(self, backend: &B) -> Self::Output {
        for (width, side) in [(64, 28), (128, 14), (256, 7), (512, 4)] {
            self.stage(backend, width, side)?;
        }
        Ok(())
    }
}

impl Timing {
    fn stage<B: Backend + 'static>(&self, backend: &B, width: usize, side: usize) -> weft_ops::Result<()> {
        let shape = ConvShape { channels: [width; 2], size: [side; 2], kernel: [3; 2], stride: [1; 2], padding: [1; 2] };
        let (pixels, copies) = (side * side, self.networks * self.images);
        let (taps, values) = (shape.taps(), copies * pixels * width);
        let stride = width * taps + 4 * width;
        let norm = width * taps;
        let norm =
            BatchNorm { width, epsilon: 1e-5, gain: norm, bias: norm + width, mean: norm + 2 * width, variance: norm + 3 * width };
        let map = Linear { weight: 0, bias: None, inputs: taps, outputs: width, input_major: false };
        let batch = Batch { networks: self.networks, rows: self.images * pixels, stride, shared: false };
        let theta: Vec<f32> = (0..self.networks * stride).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        let theta = backend.upload(&theta)?;
        let theta = backend.view(&theta);
        let x: Vec<f32> = (0..values).map(|i| ((i * 6007) % 2003) as f32 / 2003.0 - 0.5).collect();
        let x = backend.upload(&x)?;
        let x = backend.view(&x);
        let mut gradient = backend.zeros_wide(self.networks * stride)?;
        let patches = backend.patches(&shape, copies, x)?;
        let patches = backend.view(&patches);
        let (_, statistics, _) = backend.batch_norm(&norm, batch, x, theta, true)?;
        let mut y = backend.copy(x)?;
        println!("{width} channels, {side}×{side}:");
        let flops = 2 * values * taps;
        let report = |name: &str, moved: usize, flops: usize, work: &mut dyn FnMut() -> weft_ops::Result<()>| {
            Self::report(backend, name, moved * self.bytes, flops, work)
        };
        report("windows", values + copies * pixels * taps, 0, &mut || backend.patches(&shape, copies, x).map(drop))?;
        report("product", values + copies * pixels * taps, flops, &mut || backend.linear(&map, batch, patches, theta).map(drop))?;
        report("product, gradients", values * 2 + 3 * copies * pixels * taps, 2 * flops, &mut || {
            backend.linear_backward((&map, true), batch, patches, theta, x, &mut gradient).map(drop)
        })?;
        report("windows, gradient", values + copies * pixels * taps, 0, &mut || {
            backend.patches_backward(&shape, copies, patches).map(drop)
        })?;
        report("batch norm", 3 * values, 0, &mut || backend.batch_norm(&norm, batch, x, theta, true).map(drop))?;
        report("batch norm, gradients", 5 * values, 0, &mut || {
            backend.batch_norm_backward(&norm, batch, x, &statistics, theta, true, x, &mut gradient).map(drop)
        })?;
        report("activation", 2 * values, 0, &mut || backend.activate(Activation::Relu, x).map(drop))?;
        report("activation, gradient", 3 * values, 0, &mut || backend.activate_backward(Activation::Relu, x, &mut y))?;
        report("sum", 3 * values, 0, &mut || backend.add(&mut y, x))?;
        report("copy", 2 * values, 0, &mut || backend.copy(x).map(drop))
    }

    fn report<B: Backend + 'static>(
        backend: &B,
        name: &str,
        bytes: usize,
        flops: usize,
        work: &mut dyn FnMut() -> weft_ops::Result<()>,
    ) -> weft_ops::Result<()> {
        const CALLS: u32 = 5;
        let flag = backend.zeros(1)?;
        let mut times = Vec::new();
        for turn in 0..6 {
            let since = Instant::now();
            for _ in 0..CALLS {
                work()?;
            }
            backend.download(backend.view(&flag))?;
            if turn > 0 {
                times.push(since.elapsed().as_secs_f64() / f64::from(CALLS));
            }
        }
        times.sort_by(f64::total_cmp);
        let seconds = times[times.len() / 2];
        let (rate, products) = (bytes as f64 / seconds / 1e9, flops as f64 / seconds / 1e12);
        println!("  {name:<22} {:>9.3} ms  {rate:>7.0} GB/s  {products:>6.1} TFLOP/s", seconds * 1e3);
        Ok(())
    }
}
