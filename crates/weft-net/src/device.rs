//! Where networks run.

use crate::{Error, Result};

/// A processor that can run networks.
#[derive(Debug, Clone)]
pub struct Device(candle_core::Device);

impl Device {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self(candle_core::Device::Cpu)
    }

    /// Opens a device by name: `cpu`, `cuda:N`, or `auto` for the first GPU where there is one, else the CPU.
    ///
    /// # Errors
    /// An unknown name; a GPU in a build without the feature `cuda`; a GPU that the machine does not have.
    pub fn open(name: &str) -> Result<Self> {
        let fail = |reason: String| Error::from(weft_ops::Error::Device { device: name.to_owned(), reason });
        match name {
            "auto" if candle_core::utils::cuda_is_available() => {
                Ok(candle_core::Device::new_cuda_with_stream(0).map_or_else(|_| Self::cpu(), Self))
            }
            "cpu" | "auto" => Ok(Self::cpu()),
            _ => {
                let index = name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
                let index = index.ok_or_else(|| fail("known devices are `auto`, `cpu` and `cuda:N`".to_owned()))?;
                if !candle_core::utils::cuda_is_available() {
                    return Err(fail("this build has no CUDA; build with `--features cuda`, or use `cpu`".to_owned()));
                }
                candle_core::Device::new_cuda_with_stream(index)
                    .map(Self)
                    .map_err(|e| fail(format!("the CUDA driver refused: {e}")))
            }
        }
    }

    /// Whether it is the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.0.is_cpu()
    }

    /// The device as candle knows it.
    #[must_use]
    pub fn candle(&self) -> &candle_core::Device {
        &self.0
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.location() {
            candle_core::DeviceLocation::Cpu => write!(f, "cpu"),
            candle_core::DeviceLocation::Cuda { gpu_id } => write!(f, "cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => write!(f, "metal:{gpu_id}"),
        }
    }
}
