//! Buffers that are kept for the next pass, which asks for the same lengths again: fresh memory costs a page fault every 4 KiB.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Spare buffers by length.
#[derive(Debug)]
pub(super) struct Pool<T>(Arc<Mutex<HashMap<usize, Vec<Vec<T>>>>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer with whatever values it had.
    pub(super) fn take(&self, len: usize) -> Pooled<T> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&len).and_then(Vec::pop);
        Pooled { values: spare.unwrap_or_else(|| vec![T::default(); len]), pool: self.clone() }
    }
}

/// A buffer that goes back to its pool; the pool goes with the last of its backend and buffers.
#[derive(Debug)]
pub struct Pooled<T> {
    values: Vec<T>,
    pool: Pool<T>,
}

impl<T> Pooled<T> {
    /// Takes the values out of the pool for good.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<T> {
        std::mem::take(&mut self.values)
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if !values.is_empty() {
            self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).entry(values.len()).or_default().push(values);
        }
    }
}

impl<T> Deref for Pooled<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let pool = Pool::<f32>::default();
        let mut first = pool.take(10);
        first[3] = 5.0;
        let address = first.as_ptr();
        drop(first);
        let again = pool.take(10);
        assert_eq!((again.as_ptr(), again[3]), (address, 5.0));
        assert_ne!(pool.take(10).as_ptr(), address);
        assert_eq!(again.into_vec().len(), 10);
        assert_eq!(pool.0.lock().unwrap()[&10].len(), 1);
    }
}
