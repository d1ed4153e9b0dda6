//! A sample of text as a vector, by its bytes alone: whatever the language and the script, and with nothing that is trained.
//!
//! The first [`SINGLE`] numbers are how often each byte occurs, the others how often the runs of two and of three bytes do that have one of so
//! many hashes. Frequencies enter as their square roots, so that a product of two vectors compares distributions (the Bhattacharyya
//! coefficient), and each of the three groups has length 1.

use super::text::hash;

/// Length of a sample's vector.
pub const BYTES_LEN: usize = SINGLE + 2 * HASHED;

/// Values of a byte.
const SINGLE: usize = 256;
/// Entries that the runs of one length share.
const HASHED: usize = 256;

/// The vector of a sample, `[BYTES_LEN]`; zeros for an empty one.
///
/// # Examples
/// ```
/// use weft_core::embed_bytes;
/// let product = |a: &str, b: &str| {
///     embed_bytes(a.as_bytes()).iter().zip(embed_bytes(b.as_bytes())).map(|(a, b)| a * b).sum::<f32>()
/// };
/// assert!(product("alle Menschen sind frei", "alle sind gleich") > product("alle Menschen sind frei", "todos son libres"));
/// ```
///
/// # References
/// Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"; Bhattacharyya 1943.
#[must_use]
pub fn embed_bytes(sample: &[u8]) -> Vec<f32> {
    // Counts are whole, so the sum does not depend on an order.
    let mut counts = vec![0_u64; BYTES_LEN];
    for &byte in sample {
        counts[usize::from(byte)] += 1;
    }
    for (n, first) in [(2, SINGLE), (3, SINGLE + HASHED)] {
        for run in sample.windows(n) {
            counts[first + hash(b'b', run) as usize % HASHED] += 1;
        }
    }
    let groups = [0..SINGLE, SINGLE..SINGLE + HASHED, SINGLE + HASHED..BYTES_LEN];
    let of_group = |group: std::ops::Range<usize>| {
        let total = counts[group.clone()].iter().sum::<u64>().max(1) as f64;
        counts[group].iter().map(move |&count| (count as f64 / total).sqrt() as f32).collect::<Vec<_>>()
    };
    groups.into_iter().flat_map(of_group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_is_a_distribution() {
        let vector = embed_bytes("Все люди рождаются свободными".as_bytes());
        for group in [&vector[..SINGLE], &vector[SINGLE..SINGLE + HASHED], &vector[SINGLE + HASHED..]] {
            assert!((group.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert!(vector[usize::from(b'z')] == 0.0 && vector[0xd0] > 0.5);
        assert_eq!(embed_bytes(b""), vec![0.0; BYTES_LEN]);
        let one = embed_bytes(b"a");
        assert!((one[usize::from(b'a')] - 1.0).abs() < 1e-6 && one[SINGLE..].iter().all(|&v| v == 0.0));
    }
}
