//! What every fuzz target does with its bytes, and what the test that replays the corpora does with each file.
//!
//! The bytes become a file of the name that the format bears, in a folder with the other files that it needs; the file
//! is opened, and every tensor of it is read; safetensors and PEFT's settings are read as adapters as well. Those of an ONNX model are read as they are, as a graph with its weights.
//! Any outcome is right but a panic, a crash, or memory without bound.

use std::path::{Path, PathBuf};

/// The targets, and the name of the file that each one's bytes become.
pub const TARGETS: [(&str, &str); 8] = [
    ("safetensors", "model.safetensors"),
    ("index", "model.safetensors.index.json"),
    ("pytorch", "model.pt"),
    ("npz", "model.npz"),
    ("peft", "adapter_config.json"),
    ("llama2c", "model.bin"),
    ("hexells", "models.json"),
    ("onnx", "model.onnx"),
];

/// Tensors beyond so many values are left unread: reading them is bounded by the file, but slow.
const MAX_VALUES: usize = 1 << 20;

/// Runs one input of a target in a folder that is there; it is made ready at the first input.
///
/// # Panics
/// If there is no such target, or the folder cannot be written to.
pub fn run(target: &str, folder: &Path, bytes: &[u8]) {
    let (_, name) = TARGETS.iter().find(|(known, _)| *known == target).expect("a known target");
    prepare(target, folder);
    if target == "onnx" {
        // Its reader takes bytes, so the file is spared.
        let _ = weft_zoo::onnx::read_onnx_bytes(bytes);
        return;
    }
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a folder that can be written to");
    let path = if target == "peft" { folder } else { path.as_path() };
    exercise(path);
    if target == "peft" || target == "safetensors" {
        exercise_adapter(path);
    }
}

/// A folder of this process alone.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weft-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// Writes the files that an index or an adapter's settings speak of.
fn prepare(target: &str, folder: &Path) {
    let write = |name: &str, tensors: &[(&str, &[usize])]| {
        let path = folder.join(name);
        if !path.exists() {
            let values = [0.5; 32];
            let tensors: Vec<_> = tensors
                .iter()
                .map(|(name, shape)| ((*name).to_owned(), shape.to_vec(), &values[..shape.iter().product()]))
                .collect();
            weft_zoo::write_tensors(&path, &tensors, &weft_zoo::Metadata::new()).expect("a folder that can be written to");
        }
    };
    match target {
        "index" => {
            write("a.safetensors", &[("a", &[2, 3]), ("b", &[3])]);
            write("b.safetensors", &[("c", &[2])]);
        }
        "peft" => {
            let q = "base_model.model.blocks.0.q.lora_";
            let [a, b] = ["A", "B"].map(|part| format!("{q}{part}.weight"));
            write("adapter_model.safetensors", &[(&a, &[4, 3]), (&b, &[5, 4])]);
        }
        _ => {}
    }
}

/// As an adapter, by PEFT's, diffusers' or kohya's names.
fn exercise_adapter(path: &Path) {
    use weft_zoo::adapter::{AdapterWeights, LintOptions, Runtime, lint};
    let Ok(file) = AdapterWeights::read(path, None) else { return };
    let _ = lint(&file, &Runtime::ALL, &LintOptions::default());
    let _ = (file.weights.clone().portable(), file.weights.to_lora());
}

fn exercise(path: &Path) {
    let Ok(sources) = weft_zoo::open_sources(path) else { return };
    for source in &sources {
        for (name, tensor) in source.tensors() {
            if tensor.num_values() <= MAX_VALUES {
                // An error is as good as values: it was one and no panic.
                let _ = (source.read(name), source.read_raw(name));
            }
        }
        let _ = (source.adapter(), source.metadata(), source.files(), source.stripped());
    }
}
