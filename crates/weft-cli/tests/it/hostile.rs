//! What the program says to wrong run files, wrong conditions, wrong data and wrong checkpoints: whole texts.

use crate::{SMALL, outcome, text};
use std::path::{Path, PathBuf};

/// Writes the quickstart's run file with one line changed.
fn run_file(folder: &Path, from: &str, to: &str) -> PathBuf {
    assert!(weft::config::QUICKSTART.contains(from), "the quickstart has no `{from}`");
    let path = folder.join("run.toml");
    std::fs::write(&path, weft::config::QUICKSTART.replacen(from, to, 1)).expect("the folder can be written");
    path
}

fn refusal(arguments: &[&str]) -> String {
    let (code, out, err) = outcome(arguments);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    err
}

#[test]
fn a_misspelt_key_has_a_line_a_column_and_a_neighbor() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = run_file(dir.path(), "seed = 0", "sede = 0");
    let line = 1 + weft::config::QUICKSTART.lines().position(|line| line == "seed = 0").expect("the line");
    let expected = format!(
        "error: {}:{line}:1: unknown key `sede`\nhint: did you mean `seed`? keys here: `name`, `seed`, `output`, `device`, `memory`\n",
        file.display()
    );
    assert_eq!(refusal(&["run", text(&file)]), expected);
    let file = run_file(dir.path(), "[data.digits]", "[data.digit]");
    let err = refusal(&["run", text(&file)]);
    assert!(err.contains("unknown key `digit`\nhint: did you mean `digits`? keys here: `digits`, `idx`, `npz`\n"), "{err}");
    let file = run_file(dir.path(), "seed = 0", "seed = -1");
    assert!(refusal(&["run", text(&file)]).contains(&format!(":{line}:8: ")));
}

#[test]
fn an_unknown_condition_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let file = run_file(dir.path(), "weft-quickstart", text(&output));
    let samples = dir.path().join("samples");
    let err = refusal(&["sample", text(&file), "-o", text(&samples), "--condition", "acuracy=0.9"]);
    assert_eq!(err, "error: unknown condition field `acuracy`; known fields: `validation-accuracy`, `step`\n");
    let twice = ["--condition", "step=1", "--condition", "step=2"];
    let err = refusal(&[&["sample", text(&file), "-o", text(&samples)], &twice[..]].concat());
    assert_eq!(err, "error: the condition names `step` twice\n");
    let err = refusal(&["sample", text(&file), "-o", text(&samples), "--count", "0"]);
    assert_eq!(err, "error: the number of samples must be between 1 and 1000000, got 0\n");
    assert!(!output.exists() && !samples.exists());
}

#[test]
fn missing_data_say_what_was_looked_for_and_how_to_get_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let idx = format!("[data.idx]\npath = \"{}\"\nname = \"mnist\"", text(&dir.path().join("nowhere")));
    let file = run_file(dir.path(), "[data.digits]", &idx);
    let err = refusal(&["run", text(&file), "--device", "cpu"]);
    for part in ["error: data set `mnist`: looked for ", "train-images-idx3-ubyte", "nowhere`, which is not there; "] {
        assert!(err.contains(part), "`{part}` is missing from {err}");
    }
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_without_its_feature_is_refused() {
    assert_eq!(
        refusal(&["quickstart", "--device", "cuda:0"]),
        "error: device `cuda:0`: this build has no CUDA; build with `--features cuda`, or use `cpu`\n"
    );
}

/// Trains a tiny zoo and exports its final networks as files.
fn exported(folder: &Path) -> Vec<PathBuf> {
    let run = folder.join("run");
    let file = run_file(folder, "weft-quickstart", text(&run));
    let mut arguments = vec!["zoo", "train", text(&file), "-q"];
    for set in SMALL {
        arguments.extend(["--set", set]);
    }
    assert_eq!(outcome(&arguments).0, Some(0));
    let files = folder.join("files");
    let (code, out, _) = outcome(&["zoo", "export", text(&run.join("zoo")), "-o", text(&files), "--final"]);
    assert_eq!((code, out), (Some(0), format!("32 networks in {}\n", files.display())));
    std::fs::remove_file(files.join("README.md")).expect("an export says what it holds");
    let mut paths: Vec<_> = std::fs::read_dir(files).expect("files").map(|file| file.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("an exported file");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("the file can be written");
}

/// Replaces the last of equally long words in a header.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    let at = bytes.windows(from.len()).rposition(|window| window == from.as_bytes()).expect("the word");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn bad_checkpoints_are_refused_by_name_and_the_rest_make_a_zoo_for_the_quickstart() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let files = exported(dir.path());
    change(&files[0], |bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    change(&files[1], |bytes| replace(bytes, "\"layers.1.bias\"", "\"layers.1.bais\""));
    change(&files[2], |bytes| replace(bytes, "[10,6]", "[6,10]"));
    change(&files[3], |bytes| bytes.truncate(bytes.len() / 2));
    let zoo = dir.path().join("own");
    let (code, out, _) = outcome(&["zoo", "import", text(&dir.path().join("files")), "-o", text(&zoo)]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines[0]), (Some(1), format!("28 networks into {}", zoo.display()).as_str()));
    let nan = format!("quarantined: {}: tensor `layers.1.bias`: value ", files[0].display());
    assert!(lines[1].starts_with(&nan) && lines[1].ends_with(" is not finite"), "{}", lines[1]);
    let expected = ["`layers.1.bias`: missing", "shape [6, 10], expected [10, 6]", "its header speaks of"];
    for ((file, expected), line) in files[1..].iter().zip(expected).zip(&lines[2..]) {
        assert!(line.starts_with(&format!("refused: `{}`", file.display())) && line.contains(expected), "{line}");
    }
    assert_eq!(lines.len(), 5, "{out}");

    // More components are asked for than so few networks have: the rank is a limit.
    let output = dir.path().join("quickstart");
    let mut arguments = vec!["quickstart", "--zoo", text(&zoo), "--output", text(&output), "--set", "codec.pca.rank.fixed=16"];
    for set in SMALL.iter().filter(|set| !set.starts_with("architecture")) {
        arguments.extend(["--set", set]);
    }
    arguments.extend(["--set", "codec.pca.rank.fixed=256", "--format", "json"]);
    let (code, out, err) = outcome(&arguments);
    assert_eq!(code, Some(0), "{err}");
    let value: serde_json::Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    assert_eq!(value["stages"].as_array().map(Vec::len), Some(7));
    assert!(output.join("networks/00004.safetensors").exists());
}
