//! Runs every network of a zoo on the same inputs and writes the outputs: what another program's outputs are compared with.
//!
//! ```sh
//! cargo run -p weft --example forward -- ZOO INPUTS.safetensors OUTPUTS.safetensors
//! ```
//!
//! The inputs are the tensor `inputs` of the first file, an example a row; the outputs are a tensor `[b, o]` each, named by
//! the network's digest. They are the architecture's own: logits, where a model has a sigmoid or softmax behind them.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use weft_net::{WeightRow, interpret_f32};
use weft_zoo::{Filter, Metadata, Purpose, Zoo, read_tensors, write_tensors};

fn forward(zoo: &Path, inputs: &Path, outputs: &Path) -> Result<(), Box<dyn Error>> {
    let file = read_tensors(inputs)?;
    let (shape, inputs) = file.tensors.get("inputs").ok_or("the first file has no tensor `inputs`")?;
    let zoo = Zoo::open(zoo)?;
    let mut tensors = Vec::new();
    for entry in zoo.records(&Filter::default())? {
        let network = zoo.load(std::slice::from_ref(&entry), Purpose::Evaluate)?;
        let output = interpret_f32(zoo.architecture(), WeightRow::F32(network.row(0)), inputs)?;
        let examples = shape.first().copied().unwrap_or(1).max(1);
        tensors.push((entry.record().digest.to_string(), vec![examples, output.len() / examples], output));
    }
    let tensors: Vec<_> = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())).collect();
    Ok(write_tensors(outputs, &tensors, &Metadata::new())?)
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [zoo, inputs, outputs] = arguments.as_slice() else {
        eprintln!("usage: forward ZOO INPUTS.safetensors OUTPUTS.safetensors");
        return ExitCode::from(2);
    };
    match forward(Path::new(zoo), Path::new(inputs), Path::new(outputs)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
