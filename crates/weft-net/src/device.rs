//! Where networks run.

use crate::{Error, Result};
use std::sync::Arc;
use weft_core::products::Place;

/// What a device is called: `auto`, `cpu`, `cuda:N`, or several GPUs as `cuda:0,cuda:1`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceName {
    /// The first GPU if this build and machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPUs of these numbers: one at least, and none twice.
    Cuda(Vec<usize>),
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinals) => write_list(f, ordinals.iter().map(|n| format!("cuda:{n}"))),
        }
    }
}

impl std::str::FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut ordinals = Vec::new();
        for item in text.split(',').map(str::trim) {
            let ordinal = match item {
                "auto" | "cpu" if text.contains(',') => {
                    return Err(format!("`{item}` does not go with other devices; several are GPUs: cuda:0,cuda:1"));
                }
                "auto" => return Ok(Self::Auto),
                "cpu" => return Ok(Self::Cpu),
                "cuda" => Some(0),
                _ => item.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
            };
            match ordinal {
                None => return Err(format!("`{item}` is not a device; known: auto, cpu, cuda:0, cuda:1, …")),
                Some(ordinal) if ordinals.contains(&ordinal) => return Err(format!("`cuda:{ordinal}` is named twice")),
                Some(ordinal) => ordinals.push(ordinal),
            }
        }
        Ok(Self::Cuda(ordinals))
    }
}

/// A processor that can run networks, or several that train them together.
///
/// What runs on one device alone, such as an evaluation, runs on the first.
#[derive(Debug, Clone)]
pub struct Device(Arc<[candle_core::Device]>);

impl Device {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self::cpus(1)
    }

    /// The CPU in place of several devices: what these compute together can be tried without them.
    ///
    /// # Panics
    /// If there are to be none.
    #[must_use]
    pub fn cpus(count: usize) -> Self {
        assert!(count > 0, "no device");
        Self(vec![candle_core::Device::Cpu; count].into())
    }

    /// Opens devices by name; see [`DeviceName`].
    ///
    /// # Errors
    /// An unknown name, named; a GPU in a build without the feature `cuda`; a GPU that the machine does not have.
    pub fn open(name: &str) -> Result<Self> {
        let fail = |device: &str, reason: String| Error::from(weft_ops::Error::Device { device: device.to_owned(), reason });
        match name.parse().map_err(|reason| fail(name, reason))? {
            DeviceName::Auto if candle_core::utils::cuda_is_available() => {
                Ok(candle_core::Device::new_cuda_with_stream(0).map_or_else(|_| Self::cpu(), Self::from))
            }
            DeviceName::Auto | DeviceName::Cpu => Ok(Self::cpu()),
            DeviceName::Cuda(_) if !candle_core::utils::cuda_is_available() => {
                Err(fail(name, "this build has no CUDA; build with `--features cuda`, or use `cpu`".to_owned()))
            }
            DeviceName::Cuda(ordinals) => {
                let open = |ordinal| {
                    candle_core::Device::new_cuda_with_stream(ordinal)
                        .map_err(|e| fail(&format!("cuda:{ordinal}"), format!("the CUDA driver refused: {e}")))
                };
                Ok(Self(ordinals.into_iter().map(open).collect::<Result<_>>()?))
            }
        }
    }

    /// Whether it is the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.candle().is_cpu()
    }

    /// The device as candle knows it; of several, the first.
    #[must_use]
    pub fn candle(&self) -> &candle_core::Device {
        &self.0[0]
    }

    /// All devices as candle knows them: one at least.
    #[must_use]
    pub fn all(&self) -> &[candle_core::Device] {
        &self.0
    }

    /// Where products of matrices in the host's memory are computed: on the first GPU, or on the cores.
    ///
    /// # Errors
    /// If the GPU cannot be prepared.
    pub fn products(&self) -> Result<Place> {
        Ok(weft_ops::backend::products_of(self.candle())?)
    }

    /// Each of the devices on its own.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.0.iter().cloned().map(Self::from)
    }
}

impl From<candle_core::Device> for Device {
    fn from(device: candle_core::Device) -> Self {
        Self([device].into())
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |device: &candle_core::Device| match device.location() {
            candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        };
        write_list(f, self.0.iter().map(name))
    }
}

fn write_list(f: &mut std::fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> std::fmt::Result {
    f.write_str(&items.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_refused_by_item() {
        let check = |text: &str, expected: std::result::Result<DeviceName, &str>| match text.parse::<DeviceName>() {
            Ok(name) => assert_eq!(Ok(&name), expected.as_ref(), "{text}"),
            Err(error) => assert!(expected.is_err_and(|e| error.starts_with(e)), "{text}: {error}"),
        };
        check("auto", Ok(DeviceName::Auto));
        check("cpu", Ok(DeviceName::Cpu));
        check("cuda", Ok(DeviceName::Cuda(vec![0])));
        check("cuda:1", Ok(DeviceName::Cuda(vec![1])));
        check("cuda:1, cuda:0", Ok(DeviceName::Cuda(vec![1, 0])));
        check("cuda:0,cuda:0", Err("`cuda:0` is named twice"));
        check("cuda,cuda:0", Err("`cuda:0` is named twice"));
        check("cuda:0,cpu", Err("`cpu` does not go with other devices"));
        check("auto,cuda:0", Err("`auto` does not go with other devices"));
        check("cuda:0,", Err("`` is not a device"));
        check("cuda:0,gpu", Err("`gpu` is not a device"));
        check("cuda:-1", Err("`cuda:-1` is not a device"));
        check("", Err("`` is not a device"));
        assert_eq!("cuda,cuda:3".parse::<DeviceName>().unwrap().to_string(), "cuda:0,cuda:3");
    }

    #[test]
    fn several_devices_are_named_in_order_and_stand_alone() {
        let two = Device::cpus(2);
        assert_eq!((two.to_string().as_str(), two.all().len()), ("cpu,cpu", 2));
        assert!(two.each().all(|device| device.to_string() == "cpu") && two.each().count() == 2);
        assert_eq!(Device::open("cpu").unwrap().to_string(), "cpu");
        assert!(Device::open("cuda:0,tpu").unwrap_err().to_string().contains("`tpu` is not a device"));
    }
}
