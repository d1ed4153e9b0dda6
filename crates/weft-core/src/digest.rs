//! Content addresses.

use crate::{Architecture, Error, TensorSpec};

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
        let mut hasher = WeightsHasher::new();
        for i in WeightsHasher::order(architecture) {
            let tensor = &architecture.tensors()[i];
            hasher.tensor(tensor);
            hasher.values(&weights[tensor.range()]);
        }
        hasher.finish()
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

/// [`Digest::of_weights`] of a network that comes piece by piece: tensor by tensor in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct WeightsHasher {
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
}

impl WeightsHasher {
    /// Values that are brought to bytes at a time: they stay in the cache, and there are enough of them for all lanes.
    const PIECE: usize = 1 << 14;

    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The indexes of an architecture's tensors in the order in which they are digested.
    #[must_use]
    pub fn order(architecture: &Architecture) -> Vec<usize> {
        let mut order: Vec<usize> = (0..architecture.tensors().len()).collect();
        order.sort_by(|&a, &b| architecture.tensors()[a].name.cmp(&architecture.tensors()[b].name));
        order
    }

    /// Begins a tensor, whose values follow.
    pub fn tensor(&mut self, tensor: &TensorSpec) {
        self.hasher.update(&(tensor.name.len() as u64).to_le_bytes()).update(tensor.name.as_bytes());
        self.hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
        for &size in &tensor.shape {
            self.hasher.update(&(size as u64).to_le_bytes());
        }
    }

    /// Takes the next values of the tensor that was begun last.
    pub fn values(&mut self, values: &[f32]) {
        for piece in values.chunks(Self::PIECE) {
            self.bytes.resize(4 * piece.len(), 0);
            for (bytes, value) in self.bytes.as_chunks_mut::<4>().0.iter_mut().zip(piece) {
                *bytes = value.to_le_bytes();
            }
            self.hasher.update(&self.bytes);
        }
    }

    /// The digest of all that came.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
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
