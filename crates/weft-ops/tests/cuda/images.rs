//! Windows, pools and transpositions.

use super::{Pair, Values, run};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use weft_ops::backend::{Backend, CudaReal, ImageSizes};
use weft_ops::kernels::{ConvShape, PoolShape, Pooling};

/// Images, channels, size, kernel, stride, padding.
type Case = (usize, usize, [usize; 2], [usize; 2], [usize; 2], [usize; 2]);

fn windows_on<T: CudaReal>(pair: &Pair<T>) {
    let cases: [Case; 14] = [
        (3, 1, [28, 28], [3, 3], [1, 1], [1, 1]),
        (5, 1, [28, 28], [5, 5], [1, 1], [0, 0]),
        (2, 3, [32, 32], [3, 3], [1, 1], [1, 1]),
        (2, 3, [31, 17], [5, 3], [2, 1], [2, 1]),
        (4, 16, [14, 14], [3, 3], [2, 2], [1, 1]),
        (4, 16, [7, 9], [1, 1], [1, 1], [0, 0]),
        (7, 16, [8, 8], [1, 1], [2, 2], [0, 0]),
        (3, 16, [6, 5], [2, 2], [2, 2], [0, 0]),
        (1, 5, [1, 1], [3, 3], [1, 1], [1, 1]),
        (11, 7, [3, 4], [2, 5], [3, 1], [1, 4]),
        (2, 64, [8, 8], [3, 3], [1, 1], [1, 1]),
        (1, 100, [5, 5], [3, 3], [1, 1], [0, 0]),
        (300, 1, [2, 2], [2, 2], [1, 1], [0, 0]),
        (2, 8, [40, 300], [3, 3], [1, 1], [1, 1]),
    ];
    for (images, channels, size, kernel, stride, padding) in cases {
        let shape = ConvShape { channels: [channels, 4], size, kernel, stride, padding };
        let x = pair.values(1, images * channels * size[0] * size[1]);
        let name = |what: &str| format!("{what} {images}×{channels} {size:?} {kernel:?} {stride:?} {padding:?}");
        let y = pair.gpu.patches(&shape, images, x.view()).unwrap();
        let expected = pair.cpu.patches(&shape, images, &x.cpu).unwrap();
        pair.same(&name("patches"), &y, &expected);
        let dy = pair.values(2, expected.len());
        let dx = pair.gpu.patches_backward(&shape, images, dy.view()).unwrap();
        pair.compare(&name("patches dx"), &dx, &pair.cpu.patches_backward(&shape, images, &dy.cpu).unwrap());
    }
}

#[test]
fn windows() {
    run("windows", windows_on, windows_on);
}

/// The same values, many of them equal to their neighbors'.
fn stepped<T: CudaReal>(pair: &Pair<T>, seed: u64, len: usize) -> Values<T> {
    let values: Vec<T> = pair.values(seed, len).cpu.iter().map(|v| T::from_f32((v * 2.0).round() as f32)).collect();
    let cpu = values.iter().map(|v| f64::from(v.to_f32())).collect();
    Values { gpu: pair.gpu.from_slice(&values).unwrap(), cpu }
}

fn pools_on<T: CudaReal>(pair: &Pair<T>) {
    let cases: [Case; 11] = [
        (2, 16, [11, 13], [2, 3], [5, 4], [1, 2]),
        (3, 5, [10, 9], [3, 2], [4, 3], [0, 1]),
        (3, 1, [28, 28], [2, 2], [2, 2], [0, 0]),
        (2, 3, [31, 17], [3, 3], [2, 2], [1, 1]),
        (4, 16, [14, 14], [3, 2], [1, 2], [1, 0]),
        (4, 16, [15, 15], [5, 5], [3, 3], [2, 2]),
        (5, 16, [7, 7], [7, 7], [7, 7], [0, 0]),
        (700, 24, [4, 4], [4, 4], [4, 4], [0, 0]),
        (6, 7, [5, 6], [1, 1], [1, 1], [0, 0]),
        (3, 40, [9, 9], [2, 3], [3, 4], [1, 2]),
        (2, 1, [1, 9], [1, 3], [1, 1], [0, 1]),
    ];
    for (images, channels, size, kernel, stride, padding) in cases {
        let shape = PoolShape { size, kernel, stride, padding };
        let sizes = ImageSizes { images, channels };
        let x = stepped(pair, 1, images * channels * size[0] * size[1]);
        for pooling in [Pooling::Max, Pooling::Average] {
            let pool = (pooling, &shape);
            let name = |what: &str| format!("{what} {pooling:?} {images}×{channels} {size:?} {kernel:?} {stride:?} {padding:?}");
            let y = pair.gpu.pool(pool, sizes, x.view()).unwrap();
            let expected = pair.cpu.pool(pool, sizes, &x.cpu).unwrap();
            pair.compare(&name("pool"), &y, &expected);
            let dy = pair.values(2, expected.len());
            let dx = pair.gpu.pool_backward(pool, sizes, x.view(), dy.view()).unwrap();
            pair.compare(&name("pool dx"), &dx, &pair.cpu.pool_backward(pool, sizes, &x.cpu, &dy.cpu).unwrap());
        }
    }
}

#[test]
fn pools() {
    run("pools", pools_on, pools_on);
}

fn transposes_on<T: CudaReal>(pair: &Pair<T>) {
    for sizes in [
        [3, 1, 784],
        [5, 784, 3],
        [2, 3, 1024],
        [4, 16, 49],
        [4, 49, 16],
        [2, 33, 65],
        [1, 100, 31],
        [70, 5, 4],
        [1, 1, 1],
        [3, 5000, 16],
        [2, 31, 700],
    ] {
        let x = pair.values(1, sizes.iter().product());
        let y = pair.gpu.transpose(sizes, x.view()).unwrap();
        pair.same(&format!("transpose {sizes:?}"), &y, &pair.cpu.transpose(sizes, &x.cpu).unwrap());
    }
    let zeros: CudaSlice<f32> = pair.gpu.zeros_wide(1000).unwrap();
    assert!(pair.gpu.to_vec(&zeros).unwrap().iter().all(|&v| v.to_bits() == 0));
}

#[test]
fn transposes() {
    run("transposes", transposes_on, transposes_on);
}
