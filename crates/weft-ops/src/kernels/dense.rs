//! Dense products of the sizes that small networks have, and larger ones through the `gemm` crate.

use super::{load, store};
use pulp::{Arch, Simd, WithSimd};

/// A dense operand: `value(r, c) = data[r·row_stride + c·column_stride]`.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

/// Outputs up to this width are computed by the kernel here; wider ones by the `gemm` crate, which packs panels.
const MAX_SMALL_WIDTH: usize = 96;

/// Rows and columns of a block of [`transpose`], so that both sides of it stay in the cache.
const TILE: usize = 16;

/// Adds `a·b` to `c`, or `aᵀ·b` if `a_transposed`.
///
/// # Shapes
/// `a` `[m, k]` (or `[k, m]` if transposed), `b` `[k, n]`, `c` `[m, n]`; `dims` is `[m, n, k]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn matmul([m, n, k]: [usize; 3], a: &[f32], a_transposed: bool, b: &[f32], c: &mut [f32]) {
    assert_eq!(a.len(), m * k, "a is not [m, k]");
    assert_eq!(b.len(), k * n, "b is not [k, n]");
    assert_eq!(c.len(), m * n, "c is not [m, n]");
    let (row_stride, column_stride) = if a_transposed { (1, m) } else { (k, 1) };
    if n <= MAX_SMALL_WIDTH {
        Arch::new().dispatch(Small { a: View { data: a, row_stride, column_stride }, b, c, n, k });
        return;
    }
    // SAFETY: the assertions above bound every access: (m-1)·rs + (k-1)·cs < m·k for both layouts of `a`, `b` is
    // row-major [k, n], and `c` is row-major [m, n] and exclusively borrowed.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.as_ptr(),
            column_stride as isize,
            row_stride as isize,
            b.as_ptr(),
            1,
            n as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Writes the transpose of `[rows, columns]` into `out`.
///
/// # Panics
/// If the lengths do not fit.
pub fn transpose([rows, columns]: [usize; 2], a: &[f32], out: &mut [f32]) {
    assert_eq!(a.len(), rows * columns, "a is not [rows, columns]");
    assert_eq!(out.len(), a.len(), "out has another length");
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            for r in r0..rows.min(r0 + TILE) {
                for c in c0..columns.min(c0 + TILE) {
                    out[c * rows + r] = a[r * columns + c];
                }
            }
        }
    }
}

/// Fills each row of `y` with `bias`.
///
/// # Shapes
/// `bias` `[o]`, `y` `[b, o]`.
pub fn add_bias(bias: Option<&[f32]>, y: &mut [f32]) {
    match bias {
        None => y.fill(0.0),
        Some(bias) => y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias)),
    }
}

struct Small<'a> {
    a: View<'a>,
    b: &'a [f32],
    c: &'a mut [f32],
    n: usize,
    k: usize,
}

impl WithSimd for Small<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let m = self.c.len() / self.n;
        let mut row = 0;
        while row < m {
            let rows = (m - row).min(6);
            let mut at = 0;
            while at < self.n {
                let wide = self.n - at >= 2 * lanes;
                let end = if wide { at + 2 * lanes } else { self.n.min(at + lanes) };
                let columns = at..end;
                match (rows, wide) {
                    (6, true) => tile_wide::<S, 6>(simd, &self.a, self.b, self.c, [row, self.n, self.k], columns),
                    (6, false) => tile::<S, 6>(simd, &self.a, self.b, self.c, [row, self.n, self.k], columns),
                    (_, true) => {
                        for r in row..row + rows {
                            tile_wide::<S, 1>(simd, &self.a, self.b, self.c, [r, self.n, self.k], columns.clone());
                        }
                    }
                    (_, false) => {
                        for r in row..row + rows {
                            tile::<S, 1>(simd, &self.a, self.b, self.c, [r, self.n, self.k], columns.clone());
                        }
                    }
                }
                at = end;
            }
            row += rows;
        }
    }
}

/// `R` rows of `c` by up to one vector of columns.
#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    a: &View<'_>,
    b: &[f32],
    c: &mut [f32],
    [row, n, k]: [usize; 3],
    columns: std::ops::Range<usize>,
) {
    let mut sums = [simd.splat_f32s(0.0); R];
    for p in 0..k {
        let b = load(simd, &b[p * n..][columns.clone()]);
        for (r, sum) in sums.iter_mut().enumerate() {
            let value = a.data[(row + r) * a.row_stride + p * a.column_stride];
            *sum = simd.mul_add_f32s(simd.splat_f32s(value), b, *sum);
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        let out = &mut c[(row + r) * n..][columns.clone()];
        let total = simd.add_f32s(load(simd, out), sum);
        store(simd, out, total);
    }
}

/// `R` rows of `c` by two vectors of columns.
#[inline(always)]
fn tile_wide<S: Simd, const R: usize>(
    simd: S,
    a: &View<'_>,
    b: &[f32],
    c: &mut [f32],
    [row, n, k]: [usize; 3],
    columns: std::ops::Range<usize>,
) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); 2]; R];
    for p in 0..k {
        let b = &b[p * n..][columns.clone()];
        let (b0, b1) = (load(simd, &b[..lanes]), load(simd, &b[lanes..]));
        for (r, sum) in sums.iter_mut().enumerate() {
            let value = simd.splat_f32s(a.data[(row + r) * a.row_stride + p * a.column_stride]);
            sum[0] = simd.mul_add_f32s(value, b0, sum[0]);
            sum[1] = simd.mul_add_f32s(value, b1, sum[1]);
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        let out = &mut c[(row + r) * n..][columns.clone()];
        let (low, high) = out.split_at_mut(lanes);
        for (half, part) in [low, high].into_iter().zip(sum) {
            let total = simd.add_f32s(load(simd, half), part);
            store(simd, half, total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_core::Seed;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_reference(m in 1usize..20, n in 1usize..130, k in 1usize..30, transposed: bool, seed in 0u64..1000) {
            let seed = Seed::new(seed);
            let (a, b) = (seed.fork("a").normals(m * k), seed.fork("b").normals(k * n));
            let mut c = seed.fork("c").normals(m * n);
            let before = c.clone();
            matmul([m, n, k], &a, transposed, &b, &mut c);
            for r in 0..m {
                for q in 0..n {
                    let at = |p| if transposed { a[p * m + r] } else { a[r * k + p] };
                    let sum: f64 = (0..k).map(|p| f64::from(at(p)) * f64::from(b[p * n + q])).sum();
                    prop_assert!((f64::from(c[r * n + q]) - f64::from(before[r * n + q]) - sum).abs() < 1e-4);
                }
            }
        }

        #[test]
        fn transposing_twice_is_the_identity(rows in 1usize..40, columns in 1usize..40) {
            let a = Seed::new(1).normals(rows * columns);
            let (mut t, mut back) = (vec![0.0; a.len()], vec![0.0; a.len()]);
            transpose([rows, columns], &a, &mut t);
            transpose([columns, rows], &t, &mut back);
            prop_assert_eq!(&a, &back);
            let column: Vec<f32> = a.iter().step_by(columns).copied().collect();
            prop_assert_eq!(&t[..rows], &column[..]);
        }
    }

    #[test]
    fn bias_fills_rows() {
        let mut y = vec![9.0; 4];
        add_bias(Some(&[1.0, 2.0]), &mut y);
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
        add_bias(None, &mut y);
        assert_eq!(y, [0.0; 4]);
    }
}
