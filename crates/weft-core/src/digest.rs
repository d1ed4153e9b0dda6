//! Content addresses.

use crate::{Architecture, Error};

/// A BLAKE3 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digests a sequence of parts, each with its length, so that no two sequences collide by concatenation.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Digests one network: its tensors in the order of their names, each as name, shape and little-endian `f32`.
    ///
    /// It depends on the network alone, not on a file or its format, so that the same network read from two
    /// formats is one checkpoint.
    ///
    /// # Panics
    /// If `weights` has not [`Architecture::num_parameters`] values.
    #[must_use]
    pub fn of_weights(architecture: &Architecture, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), architecture.num_parameters(), "weights of another architecture");
        let mut tensors: Vec<_> = architecture.tensors().iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::new();
        for tensor in tensors {
            hasher.update(&(tensor.name.len() as u64).to_le_bytes()).update(tensor.name.as_bytes());
            hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
            for &size in &tensor.shape {
                hasher.update(&(size as u64).to_le_bytes());
            }
            bytes.clear();
            bytes.extend(weights[tensor.range()].iter().flat_map(|v| v.to_le_bytes()));
            hasher.update(&bytes);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    /// A digest that was computed elsewhere, from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl std::str::FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| Error::Digest(text.to_owned()))?;
        Ok(Self(*hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    #[test]
    fn text_round_trip() {
        let digest = Digest::of_bytes(b"weft");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!("xyz".parse::<Digest>().is_err());
    }

    #[test]
    fn digest_sees_every_weight_and_not_the_name_of_the_architecture() {
        let a = Architecture::mlp("a", &[2, 3, 2], Activation::Relu).unwrap();
        let b = Architecture::mlp("b", &[2, 3, 2], Activation::Relu).unwrap();
        let mut w: Vec<f32> = (0..a.num_parameters()).map(|i| i as f32).collect();
        let before = Digest::of_weights(&a, &w);
        assert_eq!(before, Digest::of_weights(&b, &w));
        for i in 0..w.len() {
            let old = w[i];
            w[i] += 0.5;
            assert_ne!(before, Digest::of_weights(&a, &w));
            w[i] = old;
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Digest::of_parts([b"ab".as_slice(), b"c"]), Digest::of_parts([b"a".as_slice(), b"bc"]));
    }
}
