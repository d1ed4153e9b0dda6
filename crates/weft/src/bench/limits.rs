//! What the machine itself reaches: products, memory, disk.

use super::stages::Bench;
use super::{Figure, secs};
use crate::{Error, Result};
use rayon::prelude::*;
use std::io::{Read as _, Write as _};
use std::time::Instant;
use weft_ops::kernels::{MatrixView, Target, product_f64};

/// Values of the arrays that memory is measured by: far more than any cache holds.
const VALUES: usize = 1 << 26;

/// Rows and columns of the matrices whose products are measured.
const SIZE: usize = 512;

/// The best of three rates of matrix products that all threads reach together.
fn rate_of<T: Copy + Send + Sync>(values: [T; 3], product: fn(&[T], &[T], &mut [T])) -> f64 {
    let repeats = 20u32;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let measure = || {
        let since = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let [a, b, mut c] = values.map(|v| vec![v; SIZE * SIZE]);
                    for _ in 0..repeats {
                        product(std::hint::black_box(&a), std::hint::black_box(&b), &mut c);
                    }
                    std::hint::black_box(c);
                });
            }
        });
        2.0 * (SIZE as f64).powi(3) * f64::from(repeats) * threads as f64 / since.elapsed().as_secs_f64()
    };
    (0..3).map(|_| measure()).fold(0.0, f64::max)
}

/// The best of three rates of products in `f32`.
pub(super) fn best_product_rate() -> f64 {
    rate_of([0.5f32, 0.25, 0.0], |a, b, c| weft_ops::kernels::matmul([SIZE; 3], a, false, b, c))
}

/// The best of three rates of products in `f64`.
pub(super) fn best_double_rate() -> f64 {
    rate_of([0.5f64, 0.25, 0.0], |a, b, c| {
        let [a, b] = [a, b].map(|m| MatrixView::new(m, SIZE, SIZE));
        product_f64(Target::new(c, SIZE), a, b, true);
    })
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
        Figure::new("matrix products, f64", best_double_rate() / 1e9, "GFLOP/s", "the same"),
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
