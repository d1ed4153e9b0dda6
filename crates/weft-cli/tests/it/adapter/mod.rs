//! `weft adapter …`.

mod deploy;

use crate::{outcome, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A folder that PEFT wrote.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/formats").join(name)
}

/// A safetensors file of numbers that count.
fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        for i in 0..shape.iter().product::<usize>() {
            data.extend((i as f32 + 1.0).to_le_bytes());
        }
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(path, bytes).expect("the folder can be written");
}

/// An adapter of two modules of one layer; `more` are settings beside rank 2 and alpha 4.
fn adapter(folder: &Path, more: &Value) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let mut config = json!({
        "peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"],
    });
    let fields = config.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("the folder can be written");
    let [q, v] = ["q_proj", "v_proj"].map(|leaf| format!("base_model.model.model.layers.0.self_attn.{leaf}.lora_"));
    let names = [format!("{q}A.weight"), format!("{q}B.weight"), format!("{v}A.weight"), format!("{v}B.weight")];
    let shapes: [&[usize]; 4] = [&[2, 3], &[4, 2], &[2, 3], &[4, 2]];
    let tensors: Vec<_> = names.iter().map(String::as_str).zip(shapes).collect();
    write(&folder.join("adapter_model.safetensors"), &tensors);
}

/// A base with one layer.
fn base(folder: &Path, name: &str) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let [q, k, v] = ["q", "k", "v"].map(|leaf| format!("model.layers.0.self_attn.{leaf}_proj.weight"));
    let shape: &[usize] = &[4, 3];
    write(&folder.join("model.safetensors"), &[(&q, shape), (&k, shape), (&v, shape)]);
    let config = json!({ "_name_or_path": name, "model_type": "llama", "num_attention_heads": 2 });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("the folder can be written");
}

/// Adapters of one base and of the same modules become folders of PEFT beside each other; copies are left out, what does not fit is refused
/// with both named, and then nothing is written.
#[test]
fn adapters_are_imported_together_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    for (name, alpha) in [("one", 4), ("two", 8), ("three", 4)] {
        adapter(&path("mine").join(name), &json!({ "lora_alpha": alpha }));
    }
    std::fs::write(path("mine/notes.txt"), "mine").expect("the folder can be written");
    let (mine, zoo) = (path("mine"), path("zoo"));
    let (code, out, error) = outcome(&["adapter", "import", text(&mine), "-o", text(&zoo)]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("2 adapters of `org/base`, 2 modules each"), "{out}");
    assert!(out.contains("`three` has the file of `one`") || out.contains("`two` has the file of"), "{out}");
    assert!(out.contains("1 of 4 entries"), "{out}");
    let (code, out, _) = outcome(&["adapter", "gram", text(&zoo)]);
    assert_eq!(code, Some(0), "{out}");
    let weft: Value = serde_json::from_slice(&std::fs::read(path("zoo/two/weft.json")).expect("provenance")).expect("JSON");
    assert!(weft.to_string().contains("two"), "{weft}");
    let refused = |more: &Value, expected: &[&str]| {
        let (other, output) = (path("other"), path("refused"));
        let _ = std::fs::remove_dir_all(&other);
        adapter(&other, more);
        let (code, _, error) = outcome(&["adapter", "import", text(&mine), text(&other), "-o", text(&output)]);
        assert!(code != Some(0) && expected.iter().all(|part| error.contains(part)) && !output.exists(), "{error}");
    };
    refused(&json!({ "base_model_name_or_path": "org/another" }), &["org/another", "org/base", "other"]);
    let (code, _, error) = outcome(&["adapter", "import", text(&mine), "-o", text(&zoo)]);
    assert!(code != Some(0) && error.contains("zoo"), "{error}");
    let output = path("refused");
    let (_, _, error) = outcome(&["adapter", "import", text(&mine), text(&path("mine/one")), "-o", text(&output)]);
    assert!(error.contains("`one` for"), "{error}");
    std::fs::create_dir_all(path("empty")).expect("the folder can be made");
    let (_, _, error) = outcome(&["adapter", "import", text(&path("empty")), "-o", text(&output)]);
    assert!(error.contains("none"), "{error}");
}

/// Trainers call each task's adapters alike; the folders above tell them apart.
#[test]
fn adapters_that_are_called_alike_are_named_by_the_folders_above() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    for (at, alpha) in ["law/checkpoint-5", "law/checkpoint-9", "poems/checkpoint-5", "old/poems/checkpoint-5"].iter().zip(1..) {
        adapter(&path(at), &json!({ "lora_alpha": alpha }));
    }
    let zoo = path("zoo");
    let folders = ["law", "poems", "old/poems"].map(path);
    let [law, poems, old] = folders.each_ref().map(|folder| text(folder));
    let (code, _, error) = outcome(&["adapter", "import", law, poems, old, "-o", text(&zoo)]);
    assert_eq!(code, Some(0), "{error}");
    let top = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
    let mut expected = vec!["checkpoint-9".to_owned(), "law-checkpoint-5".to_owned()];
    expected.extend([format!("{top}-poems-checkpoint-5"), "old-poems-checkpoint-5".to_owned()]);
    let mut names: Vec<String> = std::fs::read_dir(&zoo)
        .expect("the zoo")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(names.iter().all(|name| zoo.join(name).join("adapter_config.json").is_file()), "{names:?}");
}

/// One bad adapter of many ends an import, or is left out and told if that is asked for; of bad ones alone there is nothing to write.
#[test]
fn bad_adapters_are_left_out_if_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    adapter(&path("mine/b"), &json!({}));
    adapter(&path("mine/c"), &json!({ "base_model_name_or_path": "org/another" }));
    adapter(&path("mine/d"), &json!({ "lora_alpha": 8 }));
    for torn in ["mine/a", "torn/x"] {
        adapter(&path(torn), &json!({}));
        std::fs::write(path(torn).join("adapter_model.safetensors"), b"torn").expect("the folder can be written");
    }
    let (mine, torn, zoo) = (path("mine"), path("torn"), path("zoo"));
    let (code, _, error) = outcome(&["adapter", "import", text(&mine), "-o", text(&zoo)]);
    assert!(code != Some(0) && error.contains("mine/a") && !zoo.exists(), "{error}");
    let (code, out, error) = outcome(&["adapter", "import", text(&mine), "-o", text(&zoo), "--skip-bad"]);
    assert_eq!(code, Some(0), "{error}");
    let left_out: Vec<&str> = out.lines().filter(|line| line.starts_with("left out")).collect();
    assert!(out.contains("2 adapters of `org/base`") && left_out.len() == 2, "{out}");
    assert!(left_out[0].contains("mine/a") && left_out[1].contains("mine/c") && left_out[1].contains("org/another"), "{out}");
    let mut there: Vec<_> = std::fs::read_dir(&zoo).expect("the zoo").map(|entry| entry.expect("an entry").file_name()).collect();
    there.sort();
    assert_eq!(there, ["b", "d"]);
    let output = path("nothing");
    let (code, _, error) = outcome(&["adapter", "import", text(&torn), "-o", text(&output), "--skip-bad"]);
    assert!(code != Some(0) && error.contains("torn/x") && !output.exists(), "{error}");
}

#[test]
fn an_adapter_is_shown() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("tone");
    adapter(&folder, &json!({}));
    std::fs::write(folder.join("README.md"), "---\nlicense: apache-2.0\n---\n").expect("the folder can be written");
    let (code, out, err) = outcome(&["adapter", "show", text(&folder)]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    insta::assert_snapshot!(out.replace(text(dir.path()), "DIR"), @r"
    DIR/tone: 2 updates of `org/base`, names of peft
    28 values, ranks: 2 (2 modules); licence: apache-2.0

    module                           kind    shape  rank  scaling  norm
    model.layers.0.self_attn.q_proj  linear  4 × 3     2        2  259.3530
    model.layers.0.self_attn.v_proj  linear  4 × 3     2        2  259.3530
    ");
    let (_, out, _) = outcome(&["adapter", "show", text(&folder), "--format", "json"]);
    let value: Value = serde_json::from_str(&out).expect("stdout holds one JSON value");
    assert_eq!(
        (&value["ranks"], &value["modules"][0]["scaling"], &value["num-values"]),
        (&json!({ "2": 2 }), &json!(2.0), &json!(28))
    );
}

#[test]
fn adapters_are_converted_and_belong_to_their_base() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, own, other, out, gguf] = ["tone", "own", "other", "out", "tone.gguf"].map(|name| dir.path().join(name));
    adapter(&folder, &json!({}));
    base(&own, "elsewhere/base");
    base(&other, "org/other-base");
    let convert = |base: &Path, output: &Path, more: &[&str]| {
        let arguments = ["adapter", "convert", text(&folder), "-o", text(output), "--base", text(base)];
        outcome(&[&arguments[..], more].concat())
    };
    let (code, _, err) = convert(&other, &out, &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("it is an adapter of `org/base`, not of `org/other-base`"), "{err}");
    assert!(err.contains("hint: if it is the same model under another name, say so: `--base-name org/base`"), "{err}");
    assert!(!out.exists());
    let (code, human, err) = convert(&other, &out, &["--base-name", "org/base"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{human}");
    let config: Value = serde_json::from_slice(&std::fs::read(out.join("adapter_config.json")).expect("settings")).expect("JSON");
    assert_eq!(
        (&config["r"], &config["lora_alpha"], &config["target_modules"]),
        (&json!(8), &json!(8), &json!(["q_proj", "v_proj"]))
    );
    let card = std::fs::read_to_string(out.join("README.md")).expect("a card");
    assert!(card.contains("license: \"unknown\"") && card.contains("weft adapter convert"), "{card}");
    let (code, _, err) = convert(&own, &out, &[]);
    assert!(code == Some(1) && err.contains("is there already with other content"), "{err}");
    let (code, _, err) = convert(&own, &gguf, &["--profile", "gguf"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(std::fs::read(&gguf).expect("a file").starts_with(b"GGUF"));
    let (code, _, err) = convert(&own, &dir.path().join("k"), &["--profile", "kohya"]);
    assert!(code == Some(1) && err.contains("belongs to no part of a pipeline"), "{err}");
    // As a text encoder's, and back with the same base, which is that part alone.
    let [there, back] = ["there", "back"].map(|name| dir.path().join(name));
    let (code, _, err) = convert(&own, &there, &["--profile", "kohya", "--component", "text_encoder"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let arguments = ["adapter", "convert", text(&there), "-o", text(&back), "--base", text(&own)];
    let (code, _, err) = outcome(&arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let modules = |folder: &Path| {
        let (_, shown, _) = outcome(&["adapter", "show", text(folder), "--format", "json"]);
        serde_json::from_str::<Value>(&shown).expect("JSON")["modules"].clone()
    };
    assert!(modules(&back).as_array().is_some_and(|all| all.len() == 2), "{}", modules(&back));
    assert_eq!(modules(&out), modules(&back));
}

#[test]
fn faults_are_named_and_mended() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, out] = ["tone", "out"].map(|name| dir.path().join(name));
    adapter(&folder, &json!({ "use_rslora": true, "alpha_pattern": { "v_proj": 1 } }));
    let (code, human, err) = outcome(&["adapter", "lint", text(&folder)]);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    insta::assert_snapshot!(human, @r"
    peft: depends: settings that PEFT 0.3 did not know, which older versions refuse: `alpha_pattern`, `use_rslora` (settings) [fix: portable]
    vllm: depends: `lora_alpha` and `r` alone are read before vLLM 0.32: 1 of 2 modules get another scaling, such as `model.layers.0.self_attn.v_proj` gets 2.8284 for 0.7071 (scaling) [fix: portable]
    llama.cpp: silent: `lora_alpha` alone is read, and divided by each rank: 2 of 2 modules get another scaling, such as `model.layers.0.self_attn.q_proj` gets 2.0000 for 2.8284 (scaling) [fix: portable]

    `--fix -o DIR` writes an adapter without what can be mended
    ");
    let (code, human, err) = outcome(&["adapter", "lint", text(&folder), "--fix", "-o", text(&out)]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{human}");
    assert!(human.contains("fixed: ") && human.contains("portable, 2 modules"), "{human}");
    let (code, human, _) = outcome(&["adapter", "lint", text(&out)]);
    assert!(code == Some(0) && human.contains("nothing is refused and nothing is left out"), "{human}");
    // The same update, with other factors.
    let norms = |folder: &Path| {
        let (_, json, _) = outcome(&["adapter", "show", text(folder), "--format", "json"]);
        let value: Value = serde_json::from_str(&json).expect("stdout holds one JSON value");
        [0, 1].map(|i| value["modules"][i]["norm"].as_f64().expect("a number"))
    };
    for (was, is) in norms(&folder).into_iter().zip(norms(&out)) {
        assert!((was - is).abs() < 1e-5 * was, "{was} {is}");
    }
}

/// Rules by runtime for folders that PEFT wrote, with convolutions, embeddings, whole tensors and magnitudes.
#[test]
fn runtimes_differ() {
    let rules = |name: &str, runtime: &str| {
        let (_, json, err) = outcome(&["adapter", "lint", text(&golden(name)), "--for", runtime, "--format", "json"]);
        let value: Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{err}"));
        let findings = value["findings"].as_array().expect("a list").clone();
        findings
            .into_iter()
            .map(|f| format!("{} {}", f["severity"].as_str().unwrap_or(""), f["rule"].as_str().unwrap_or("")))
            .collect::<Vec<_>>()
    };
    assert_eq!(rules("peft-lora", "vllm"), ["refused whole-tensors", "refused convolution", "depends embedding"]);
    assert_eq!(rules("peft-lora", "llama.cpp"), ["refused whole-tensors", "refused convolution"]);
    assert_eq!(rules("peft-lora", "peft"), ["depends settings"]);
    assert_eq!(rules("peft-lora", "kohya"), ["silent naming", "silent modules", "silent whole-tensors"]);
    assert_eq!(rules("peft-rslora", "llama.cpp"), ["silent scaling"]);
    assert_eq!(rules("peft-rslora", "vllm"), ["depends rank-pattern", "depends scaling"]);
    assert_eq!(rules("peft-dora", "vllm"), ["refused dora"]);
    let (code, _, err) = outcome(&["adapter", "lint", text(&golden("peft-dora")), "--fix", "-o", "x"]);
    assert!(code == Some(1) && err.contains("can be mended exactly") && err.contains("hint: with `--base DIR`"), "{err}");
    let (code, _, err) = outcome(&["adapter", "lint", text(&golden("peft-lora")), "--for", "onnx"]);
    assert!(code == Some(2) && err.contains("possible values: peft, vllm, llama.cpp, kohya"), "{err}");
}

/// Keys of a run of adapters are replaced and checked before anything is read, as those of other runs are.
#[test]
fn keys_of_a_run_of_adapters_are_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/languages.toml");
    let output = format!("run.output={}", folder.path().join("out").display());
    let refused = |more: &[&str], expected: &str| {
        let arguments = [&["adapter", "train", run, "--set", output.as_str()], more].concat();
        let (code, out, err) = outcome(&arguments);
        assert!(code == Some(1) && out.is_empty() && err.contains(expected), "{code:?} {err}");
    };
    refused(&["--set", "lora.rank=0"], "`--set lora.rank=0`: `lora.rank` must be between 1 and 1024, got 0");
    refused(&["--set", "lora.rnk=2"], "unknown key `rnk`");
    refused(&["--device", "abacus"], "`--set run.device=\"abacus\"`");
    refused(&["--set", "base.weights=/nowhere/at-all.bin"], "at-all.bin");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left of what was refused");
}
