//! What the machine itself reaches: products, memory, disk.

use super::stages::Bench;
use super::{Figure, secs};
use crate::{Error, Result};
use rayon::prelude::*;
use std::io::{Read as _, Write as _};
use std::time::Instant;

/// Values of the arrays that memory is measured by: far more than any cache holds.
const VALUES: usize = 1 << 26;

/// The rate of single-precision matrix products that all threads reach together.
fn product_rate() -> f64 {
    let (size, repeats) = (512usize, 20u32);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let since = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (a, b, mut c) = (vec![0.5f32; size * size], vec![0.25f32; size * size], vec![0.0f32; size * size]);
                for _ in 0..repeats {
                    weft_ops::kernels::matmul([size; 3], std::hint::black_box(&a), false, std::hint::black_box(&b), &mut c);
                }
                std::hint::black_box(c);
            });
        }
    });
    2.0 * (size as f64).powi(3) * f64::from(repeats) * threads as f64 / since.elapsed().as_secs_f64()
}

/// The best of three product rates.
pub(super) fn best_product_rate() -> f64 {
    (0..3).map(|_| product_rate()).fold(0.0, f64::max)
}

/// The machine's limits.
pub(super) fn machine(bench: &Bench) -> Result<Vec<Figure>> {
    let values = bench.options.size(VALUES);
    let (from, mut to) = (vec![1.0f32; values], vec![0.0f32; values]);
    let copy = |to: &mut [f32]| {
        let since = Instant::now();
        to.par_chunks_mut(1 << 16).zip(from.par_chunks(1 << 16)).for_each(|(to, from)| to.copy_from_slice(from));
        2.0 * (values * size_of::<f32>()) as f64 / since.elapsed().as_secs_f64()
    };
    copy(&mut to);
    let bandwidth = (0..3).map(|_| copy(&mut to)).fold(0.0, f64::max);
    let folder = std::env::temp_dir();
    let path = folder.join(format!("weft-bench-{}.bin", std::process::id()));
    let measured = disk(&path, bench.options.size(256 << 20));
    let removed = std::fs::remove_file(&path).map_err(Error::io("remove", &path));
    let [write, read] = measured?;
    removed?;
    Ok(vec![
        Figure::new("matrix products, f32", best_product_rate() / 1e9, "GFLOP/s", "all threads, 512 × 512 × 512, best of 3"),
        Figure::new("memory, copy", bandwidth / 1e9, "GB/s", "bytes read and written, all threads, best of 3"),
        Figure::new("disk, write and sync", write / 1e9, "GB/s", "one file in the folder of temporary files"),
        Figure::new("file, read again", read / 1e9, "GB/s", "the same file, which the system still holds in memory"),
    ])
}

/// Bytes a second written and read back.
fn disk(path: &std::path::Path, bytes: usize) -> Result<[f64; 2]> {
    let block = vec![7u8; 1 << 20];
    let (write, file) = secs(|| {
        let mut file = std::fs::File::create(path).map_err(Error::io("create", path))?;
        for _ in 0..bytes / block.len() {
            file.write_all(&block).map_err(Error::io("write", path))?;
        }
        file.sync_all().map_err(Error::io("sync", path))?;
        Ok(file)
    })?;
    drop(file);
    let (read, ()) = secs(|| {
        let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        let mut block = vec![0u8; 1 << 20];
        while file.read(&mut block).map_err(Error::io("read", path))? > 0 {}
        Ok(())
    })?;
    let bytes = (bytes / block.len() * block.len()) as f64;
    Ok([bytes / write, bytes / read])
}
