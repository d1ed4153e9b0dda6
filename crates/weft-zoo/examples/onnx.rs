//! Takes the weights out of an ONNX model, and puts weights back into one.
//!
//! ```sh
//! cargo run -p weft-zoo --example onnx -- read MODEL.onnx WEIGHTS.safetensors
//! cargo run -p weft-zoo --example onnx -- write MODEL.onnx WEIGHTS.safetensors TARGET.onnx
//! ```

use std::path::Path;
use std::process::ExitCode;
use weft_zoo::onnx::{export_onnx, read_onnx};
use weft_zoo::{Metadata, Result, read_checkpoint, write_checkpoint};

fn read(model: &Path, weights: &Path) -> Result<()> {
    let network = read_onnx(model)?;
    let metadata = Metadata::from([("architecture".to_owned(), network.architecture.name().to_owned())]);
    write_checkpoint(weights, &network.architecture, &network.weights(), &metadata)
}

fn write(model: &Path, weights: &Path, target: &Path) -> Result<()> {
    let architecture = read_onnx(model)?.architecture;
    export_onnx(model, &architecture, &read_checkpoint(weights, &architecture)?, target)
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", model, weights] => read(Path::new(model), Path::new(weights)),
        ["write", model, weights, target] => write(Path::new(model), Path::new(weights), Path::new(target)),
        _ => {
            eprintln!("usage: onnx read MODEL.onnx WEIGHTS.safetensors | onnx write MODEL.onnx WEIGHTS.safetensors TARGET.onnx");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
