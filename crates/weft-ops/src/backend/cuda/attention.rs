//! Attention: blocks of rows of one head, which meet the other side tile by tile.
//!
//! # References
//! Dao et al., "`FlashAttention`: Fast and Memory-Efficient Exact Attention with IO-Awareness" (2022), algorithms 1 and 4; Dao,
//! "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning" (2023), section 3.

use super::super::Attention;
use super::Cuda;
use super::device::{Grid, HEAD_DIMS};
use super::view::{Arg, CudaReal, View};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Rows of a block; of a tile in a backward pass.
struct Tiles {
    block: usize,
    tile: usize,
}

/// The constants of `attention_bf16.cu` and `attention_f32.cu`.
fn tiles<T: CudaReal>(head_dim: usize) -> Tiles {
    if T::BF16 { Tiles { block: 64, tile: if head_dim == 128 { 32 } else { 64 } } } else { Tiles { block: 32, tile: 16 } }
}

/// A grid of blocks of `heads`; in bf16, with room for `rows` rows in shared memory.
fn grid<T: CudaReal>(attention: &Attention, heads: usize, rows: usize) -> Grid {
    let blocks = attention.tokens.div_ceil(tiles::<T>(attention.head_dim).block) * attention.sequences;
    let shared_bytes = if T::BF16 { rows * (attention.head_dim + 8) * size_of::<T>() } else { 0 };
    Grid { blocks: [blocks, heads], threads: [128, 1], shared_bytes }
}

/// Attention as the kernels compute it: heads of as many features as one is compiled for, and the scale of scores.
#[derive(Clone, Copy)]
struct Computed {
    attention: Attention,
    scale: f32,
}

impl Computed {
    /// Further features of a head are zeros, which change no score and no sum.
    fn of(attention: &Attention) -> Self {
        let head_dim = HEAD_DIMS.into_iter().find(|&dim| dim >= attention.head_dim).unwrap_or(attention.head_dim);
        Self { attention: Attention { head_dim, ..*attention }, scale: attention.scale() as f32 }
    }
}

fn shape(Computed { attention, scale }: Computed, lengths: Option<View<'_, u32>>) -> [Arg; 7] {
    let Attention { sequences, tokens, heads, kv_heads, causal, .. } = attention;
    [sequences.into(), tokens.into(), heads.into(), kv_heads.into(), causal.into(), scale.into(), lengths.into()]
}

/// A kernel's pointers, then the shape.
fn arguments<const N: usize, const M: usize>(
    (computed, lengths): (Computed, Option<View<'_, u32>>),
    pointers: [Arg; N],
) -> [Arg; M] {
    let shape = shape(computed, lengths);
    std::array::from_fn(|i| if i < N { pointers[i] } else { shape[i - N] })
}

fn check<T>(attention: &Attention, packed: View<'_, T>, lengths: Option<View<'_, u32>>) {
    assert!(lengths.is_none_or(|lengths| lengths.len() == attention.sequences), "a length of each sequence");
    let rows = attention.sequences * attention.tokens;
    assert!(attention.kv_heads > 0 && attention.heads.is_multiple_of(attention.kv_heads), "key heads divide query heads");
    assert_eq!(packed.len(), rows * attention.packed(), "packed rows");
}

/// Rows are read 16 bytes at a time.
fn aligned<T>(view: View<'_, T>) -> crate::Result<()> {
    if view.address().is_multiple_of(16) {
        return Ok(());
    }
    Err(candle_core::Error::Msg("attention's rows start at no multiple of 16 bytes".into()).into())
}

impl<T: CudaReal> Cuda<T> {
    pub(super) fn attend(
        &self,
        attention: &Attention,
        (packed, lengths): (View<'_, T>, Option<View<'_, u32>>),
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<f32>)> {
        check(attention, packed, lengths);
        let computed = Computed::of(attention);
        let (own, dim) = (attention.head_dim, computed.attention.head_dim);
        if own == dim {
            return self.attend_computed(computed, (packed, lengths));
        }
        let packed = self.resized(packed, own, dim)?;
        let (y, log_sums) = self.attend_computed(computed, (View::from(&packed), lengths))?;
        Ok((self.resized(View::from(&y), dim, own)?, log_sums))
    }

    fn attend_computed(
        &self,
        computed: Computed,
        (packed, lengths): (View<'_, T>, Option<View<'_, u32>>),
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<f32>)> {
        aligned(packed)?;
        let attention = &computed.attention;
        let kernels = self.kernels.attention::<T>(&self.device, attention.head_dim)?;
        let rows = attention.sequences * attention.tokens;
        let y = self.buffer(rows * attention.width())?;
        let log_sums = self.device.uninit::<f32>(rows * attention.heads)?;
        let grid = grid::<T>(attention, attention.heads, 5 * tiles::<T>(attention.head_dim).block);
        let arguments = arguments::<3, 10>((computed, lengths), [packed.into(), (&y).into(), (&log_sums).into()]);
        self.device.launch(&kernels.forward, grid, arguments)?;
        Ok((y, log_sums))
    }

    pub(super) fn backward_attention(
        &self,
        attention: &Attention,
        (packed, lengths): (View<'_, T>, Option<View<'_, u32>>),
        (y, log_sums): (View<'_, T>, &CudaSlice<f32>),
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        check(attention, packed, lengths);
        let rows = attention.sequences * attention.tokens;
        assert!(y.len() == rows * attention.width() && dy.len() == y.len(), "outputs of attention");
        assert_eq!(log_sums.len(), rows * attention.heads, "sums of exponentials");
        let computed = Computed::of(attention);
        let (own, dim) = (attention.head_dim, computed.attention.head_dim);
        if own == dim {
            return self.backward_computed(computed, (packed, lengths), (y, log_sums), dy);
        }
        let [packed, y, dy] = [self.resized(packed, own, dim)?, self.resized(y, own, dim)?, self.resized(dy, own, dim)?];
        let [packed, y, dy] = [&packed, &y, &dy].map(View::from);
        let d_packed = self.backward_computed(computed, (packed, lengths), (y, log_sums), dy)?;
        self.resized(View::from(&d_packed), dim, own)
    }

    fn backward_computed(
        &self,
        computed: Computed,
        (packed, lengths): (View<'_, T>, Option<View<'_, u32>>),
        (y, log_sums): (View<'_, T>, &CudaSlice<f32>),
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        aligned(packed)?;
        aligned(y)?;
        aligned(dy)?;
        let attention = &computed.attention;
        let kernels = self.kernels.attention::<T>(&self.device, attention.head_dim)?;
        let delta = self.device.uninit::<f32>(log_sums.len())?;
        let each = Grid::each(y.len() / T::WIDE);
        let shape = (computed, lengths);
        self.device.launch(&kernels.delta, each, arguments::<3, 10>(shape, [y.into(), dy.into(), (&delta).into()]))?;
        let d_packed = self.buffer(packed.len())?;
        let pointers = [packed.into(), dy.into(), log_sums.into(), (&delta).into(), (&d_packed).into()];
        let Tiles { block, tile } = tiles::<T>(attention.head_dim);
        let rows = 2 * block + 4 * tile;
        let keys = grid::<T>(attention, attention.kv_heads, rows);
        self.device.launch(&kernels.backward_keys, keys, arguments::<5, 12>(shape, pointers))?;
        let queries = grid::<T>(attention, attention.heads, rows);
        self.device.launch(&kernels.backward_queries, queries, arguments::<5, 12>(shape, pointers))?;
        Ok(d_packed)
    }
}
