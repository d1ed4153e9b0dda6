//! How much memory a run without data may take.

use serde::{Deserialize, Serialize};

/// A number of bytes, written with its unit: `4GB`, `512MB`, `1.5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemoryConfig(u64);

/// Units, the longest first where one ends another.
const UNITS: [(&str, f64); 4] = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("GB", 1e9), ("MB", 1e6)];

impl Default for MemoryConfig {
    fn default() -> Self {
        Self(4_000_000_000)
    }
}

impl MemoryConfig {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for MemoryConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_multiple_of(1_000_000_000) {
            write!(f, "{}GB", self.0 / 1_000_000_000)
        } else {
            // Millionths of a megabyte are bytes: nothing is lost.
            write!(f, "{}MB", self.0 as f64 / 1e6)
        }
    }
}

impl std::str::FromStr for MemoryConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |(unit, size): (&str, f64)| Some(text.strip_suffix(unit)?.trim().parse::<f64>().ok()? * size);
        let bytes = UNITS.into_iter().find_map(parse).filter(|bytes| (1e6..1e18).contains(bytes));
        bytes.map(|bytes| Self(bytes.round() as u64)).ok_or_else(|| format!("`{text}` is no amount of memory such as 4GB or 512MB"))
    }
}

impl TryFrom<String> for MemoryConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MemoryConfig> for String {
    fn from(memory: MemoryConfig) -> Self {
        memory.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_a_unit_and_are_written_as_they_are_read() {
        for (text, bytes) in [("4GB", 4_000_000_000), ("1.5GiB", 1_610_612_736), ("512 MB", 512_000_000), ("2.5GB", 2_500_000_000)]
        {
            let memory: MemoryConfig = text.parse().unwrap();
            assert_eq!(memory.bytes(), bytes, "{text}");
            assert_eq!(memory.to_string().parse(), Ok(memory), "{text}");
        }
        for text in ["4", "GB", "-1GB", "nanGB", "infGB", "1e30GB", "0MB", "4TB"] {
            assert!(text.parse::<MemoryConfig>().is_err(), "{text}");
        }
    }
}
