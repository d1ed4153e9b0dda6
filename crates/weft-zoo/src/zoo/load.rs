//! Reading weights back out of shards.

use super::Zoo;
use super::catalogue::{Entry, Place};
use super::shard::Shard;
use crate::{Error, Result, TensorFault};
use std::collections::BTreeMap;
use weft_core::{Digest, Population, Split};

/// What weights are loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Something is fitted on them: a mean, a codec, a generator, an anchor. The test split is refused.
    Fit,
    /// Each is turned into another form on its own, by something that was fitted elsewhere.
    Transform,
    /// They are measured.
    Evaluate,
}

/// Loads below this number of values are not worth a second thread.
const VALUES_A_THREAD: usize = 1 << 20;

impl Zoo {
    /// Loads the weights of entries, row `i` from `entries[i]`, and checks each network against its digest.
    ///
    /// Memory is taken for the rows alone, so a large zoo can be streamed as chunks of entries.
    ///
    /// # Errors
    /// [`Error::Quarantined`] for a quarantined checkpoint, whatever the purpose; [`Error::TestSplit`] for
    /// [`Purpose::Fit`] on a test checkpoint; [`Error::Corrupt`], [`Error::Header`],
    /// [`Error::Tensor`] or [`Error::ShardRow`] for a damaged shard; [`Error::Io`].
    pub fn load(&self, entries: &[Entry], purpose: Purpose) -> Result<Population> {
        let places = usable_places(entries, purpose)?;
        let mut shards: BTreeMap<Digest, Shard<'_>> = BTreeMap::new();
        for Place { shard, .. } in &places {
            if let std::collections::btree_map::Entry::Vacant(vacant) = shards.entry(*shard) {
                vacant.insert(Shard::open(&self.shard_path(shard), &self.architecture)?);
            }
        }
        let values = entries.len().saturating_mul(self.architecture.num_parameters());
        let mut data: Vec<f32> = Vec::new();
        if data.try_reserve_exact(values).is_err() {
            let tensor = "all of them".to_owned();
            return Err(Error::Tensor { path: self.path.clone(), tensor, fault: TensorFault::Memory { values } });
        }
        data.resize(values, 0.0);
        self.gather(entries, (&places, &shards), &mut data)?;
        let fail = |source| Error::Domain { origin: format!("`{}`", self.path.display()), source };
        Population::new(self.architecture.clone(), data).map_err(fail)
    }

    /// Fills `data`, `[entries, D]`; rows are independent, so the number of threads changes nothing but the time.
    fn gather(
        &self,
        entries: &[Entry],
        (places, shards): (&[Place], &BTreeMap<Digest, Shard<'_>>),
        data: &mut [f32],
    ) -> Result<()> {
        let dim = self.architecture.num_parameters();
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (data.len() / VALUES_A_THREAD).clamp(1, available);
        let rows_a_thread = entries.len().div_ceil(threads).max(1);
        let fill = |(entries, places): (&[Entry], &[Place]), out: &mut [f32]| -> Result<()> {
            for ((entry, place), row) in entries.iter().zip(places).zip(out.chunks_exact_mut(dim)) {
                shards[&place.shard].read(place.row, &entry.record().digest, row)?;
            }
            Ok(())
        };
        let chunks = entries.chunks(rows_a_thread).zip(places.chunks(rows_a_thread)).zip(data.chunks_mut(rows_a_thread * dim));
        std::thread::scope(|scope| {
            let workers: Vec<_> = chunks.map(|(entries, out)| scope.spawn(move || fill(entries, out))).collect();
            let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // The first error in the order of the rows, whichever thread met its own first.
            results.collect()
        })
    }
}

/// Where the weights lie of checkpoints that may be used for this.
pub(super) fn usable_places(entries: &[Entry], purpose: Purpose) -> Result<Vec<Place>> {
    let places = entries.iter().map(usable_place).collect::<Result<Vec<_>>>()?;
    let test = entries.iter().map(Entry::record).find(|record| record.split == Some(Split::Test));
    match test {
        Some(record) if purpose == Purpose::Fit => Err(Error::TestSplit { digest: record.digest, run: record.run.clone() }),
        _ => Ok(places),
    }
}

/// Where the weights lie of a checkpoint that may be used.
fn usable_place(entry: &Entry) -> Result<Place> {
    let record = entry.record();
    match (&record.quarantine, entry.place()) {
        (None, Some(place)) => Ok(place),
        (reason, _) => {
            let reason = reason.clone().unwrap_or_else(|| "it has no weights".to_owned());
            Err(Error::Quarantined { digest: record.digest, run: record.run.clone(), reason })
        }
    }
}
