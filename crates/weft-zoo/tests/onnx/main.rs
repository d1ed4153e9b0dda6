//! ONNX models: dialects that become one architecture, files that want to do harm, weights written back, real networks.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod dialects;
mod export;
mod hostile;
mod model;
mod norms;
mod real;
