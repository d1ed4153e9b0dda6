//! Text as a vector, by hashing alone: no vocabulary, no file, nothing that is trained.
//!
//! The text is lower-cased. Its features are the runs of 1 to 4 words (a word is a longest run of letters and digits) and
//! the runs of 2 to 4 characters of the text with its white space made single blanks and one blank at either end. Each feature
//! adds ±1 to one of [`TEXT_LEN`] entries; the sum is scaled to length 1. Entry and sign come from the 64-bit FNV-1a hash
//! of a byte `w` or `c` and the feature's UTF-8, mixed by the finalizer of `MurmurHash3`: the low bits are the entry, the top bit is the sign.
//! Features that share an entry cancel on average, so products of the sums, before they are scaled, are unbiased (Weinberger et al. 2009,
//! equation 3).

/// Length of a text's vector.
pub const TEXT_LEN: usize = 256;

/// The longest run of words or characters.
const LONGEST: usize = 4;

/// The vector of a text, `[TEXT_LEN]`, of length 1; zeros if it has no character but white space.
///
/// # Examples
/// ```
/// use weft_core::embed_text;
/// let product = |a: &str, b: &str| embed_text(a).iter().zip(embed_text(b)).map(|(a, b)| a * b).sum::<f32>();
/// assert!(product("turn on the light", "Turn on the lights") > product("turn on the light", "book a table"));
/// ```
///
/// # References
/// Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".
#[must_use]
pub fn embed_text(text: &str) -> Vec<f32> {
    let text = text.to_lowercase();
    // Counts are whole, so the sum does not depend on an order.
    let mut counts = vec![0i64; TEXT_LEN];
    let mut add = |kind: u8, feature: &str| {
        let hash = hash(kind, feature.as_bytes());
        counts[hash as usize % TEXT_LEN] += if hash >> 63 == 0 { 1 } else { -1 };
    };
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    for n in 1..=LONGEST {
        words.windows(n).for_each(|run| add(b'w', &run.join(" ")));
    }
    let spaced = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !spaced.is_empty() {
        let spaced = format!(" {spaced} ");
        let starts: Vec<usize> = spaced.char_indices().map(|(at, _)| at).chain([spaced.len()]).collect();
        for n in 2..=LONGEST {
            starts.windows(n + 1).for_each(|ends| add(b'c', &spaced[ends[0]..ends[n]]));
        }
    }
    let length = counts.iter().map(|&c| (c * c) as f64).sum::<f64>().sqrt().max(1.0);
    counts.into_iter().map(|c| (c as f64 / length) as f32).collect()
}

/// FNV-1a over the kind and the feature, then the finalizer `fmix64` of `MurmurHash3`.
pub(super) fn hash(kind: u8, feature: &[u8]) -> u64 {
    let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = [kind].iter().chain(feature).fold(0xcbf2_9ce4_8422_2325, fnv);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(a: &str, b: &str) -> f32 {
        embed_text(a).iter().zip(embed_text(b)).map(|(a, b)| a * b).sum()
    }

    /// Computed by another program. The vectors are part of the contract: a stored generator reads texts as it did in training.
    #[test]
    fn golden() {
        assert_eq!(hash(b'w', b"hey"), GOLDEN_HASH);
        let v = embed_text("Hey, Jarvis!");
        let filled: Vec<(usize, f32)> = v.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(i, x)| (i, *x)).collect();
        assert_eq!(filled.len(), GOLDEN_ENTRIES.len());
        for ((i, x), (at, count)) in filled.iter().zip(GOLDEN_ENTRIES) {
            assert!(*i == at && (x - count / GOLDEN_SQUARES.sqrt()).abs() < 1e-6, "{i}: {x}, expected {count} at {at}");
        }
    }
    const GOLDEN_HASH: u64 = 0x66cf_7bfe_0bcf_e84f;
    const GOLDEN_SQUARES: f32 = 41.0;
    const GOLDEN_ENTRIES: [(usize, f32); 35] = [
        (3, 1.0),
        (5, -1.0),
        (6, -1.0),
        (11, 1.0),
        (16, -1.0),
        (29, 1.0),
        (40, 1.0),
        (54, -1.0),
        (57, -1.0),
        (69, -1.0),
        (72, 1.0),
        (79, 1.0),
        (84, 1.0),
        (95, 1.0),
        (101, -1.0),
        (129, -1.0),
        (131, 1.0),
        (133, -2.0),
        (137, 1.0),
        (142, -1.0),
        (148, -1.0),
        (149, 1.0),
        (157, 1.0),
        (167, -1.0),
        (173, 1.0),
        (191, 1.0),
        (199, -1.0),
        (206, -1.0),
        (214, 1.0),
        (217, 1.0),
        (220, 1.0),
        (236, -1.0),
        (242, -1.0),
        (244, 2.0),
        (248, -1.0),
    ];

    #[test]
    fn near_texts_are_nearer_than_far_ones() {
        let near = [("hey jarvis", "hey jarvis!"), ("turn on the lights", "turn the lights on"), ("ok computer", "okay computer")];
        for (i, (a, b)) in near.iter().enumerate() {
            for (j, (_, other)) in near.iter().enumerate().filter(|(j, _)| *j != i) {
                assert!(product(a, b) > product(a, other) + 0.2, "{i} {j}: {} and {}", product(a, b), product(a, other));
            }
        }
        assert!((product("Ärger", "ärger") - 1.0).abs() < 1e-6 && product("one two", "two one") < 0.9);
    }

    #[test]
    fn every_script_has_vectors_of_length_one() {
        for text in ["a", "日本語のテキスト", "привет мир", "🙂", "e\u{301}te\u{301}", "İstanbul", "  spaced \n out\t", "\u{0}"]
        {
            assert!((product(text, text) - 1.0).abs() < 1e-5, "{text}: {}", product(text, text));
        }
        assert!(product("привет мир", "привет, мир") > 0.5 && product("привет мир", "日本語") < 0.3);
        assert_eq!(embed_text(" \n\t"), vec![0.0; TEXT_LEN]);
    }
}
