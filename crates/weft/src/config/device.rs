//! The devices that networks and generators are trained on.

use serde::{Deserialize, Serialize};
use weft_net::DeviceName;

/// `auto`, `cpu`, `cuda:N` or several GPUs as `cuda:0,cuda:1`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceConfig(pub DeviceName);

impl std::fmt::Display for DeviceConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for DeviceConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for DeviceConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceConfig> for String {
    fn from(device: DeviceConfig) -> Self {
        device.to_string()
    }
}
