//! `weft adapter gram|encode|decode|merge`: folders of adapters in the space of their updates.

use crate::{outcome, text};
use serde_json::{Value, json};
use std::path::Path;

/// What an adapter of the tests is.
struct Made<'a> {
    base: &'a str,
    /// Module and `[out, in]`.
    modules: &'a [(&'a str, [usize; 2])],
    rank: usize,
    seed: usize,
}

const MODULES: [(&str, [usize; 2]); 2] = [("h.0.q", [5, 4]), ("h.0.v", [3, 4])];

impl Made<'_> {
    fn new(seed: usize) -> Self {
        Self { base: "org/base", modules: &MODULES, rank: 2, seed }
    }

    /// Writes a folder of PEFT; values follow from the seed.
    fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let config = json!({ "peft_type": "LORA", "base_model_name_or_path": self.base, "r": self.rank, "lora_alpha": 4 });
        std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("the folder can be written");
        let (mut header, mut data, mut at) = (serde_json::Map::new(), Vec::new(), self.seed);
        for (module, [out, input]) in self.modules {
            for (part, shape) in [("A", [self.rank, *input]), ("B", [*out, self.rank])] {
                let start = data.len();
                for _ in 0..shape[0] * shape[1] {
                    // A multiplicative congruence: any values that differ will do.
                    at = (at * 16_807 + 1) % 2_147_483_647;
                    data.extend((at as f32 / 2_147_483_647.0 - 0.5).to_le_bytes());
                }
                let name = format!("base_model.model.{module}.lora_{part}.weight");
                header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
            }
        }
        if self.seed == NAN {
            data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        let header = Value::Object(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(folder.join("adapter_model.safetensors"), bytes).expect("the folder can be written");
    }
}

/// The seed of an adapter with a value that is none.
const NAN: usize = 99;

/// A folder of so many adapters, and a file that is none.
fn zoo(folder: &Path, count: usize) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    std::fs::write(folder.join("README.md"), "adapters").expect("the folder can be written");
    (0..count).for_each(|i| Made::new(i + 1).write(&folder.join(format!("a{i}"))));
}

fn json_of(arguments: &[&str]) -> Value {
    let (code, out, err) = outcome(&[arguments, &["--format", "json", "--quiet"]].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&out).expect("stdout holds one JSON value")
}

fn refused(arguments: &[&str], parts: &[&str]) {
    let (code, _, err) = outcome(arguments);
    assert_eq!(code, Some(1), "{arguments:?}");
    for part in parts {
        assert!(err.contains(part), "`{part}` is not in {err}");
    }
}

#[test]
fn adapters_are_compared() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("zoo");
    zoo(&folder, 3);
    Made::new(1).write(&folder.join("copy"));
    let view = json_of(&["adapter", "gram", text(&folder)]);
    assert_eq!(view["adapters"], json!(["a0", "a1", "a2"]));
    assert_eq!((view["modules"].as_u64(), view["base"].as_str()), (Some(2), Some("org/base")));
    for i in 0..3 {
        assert!((view["cosines"][i][i].as_f64().expect("a number") - 1.0).abs() < 1e-9);
    }
    let (_, out, _) = outcome(&["adapter", "gram", text(&folder)]);
    for part in ["`copy` has the file of `a0` and is left out", "1 of 5 entries", "of 3 adapters a codec can only interpolate"] {
        assert!(out.contains(part), "`{part}` is not in\n{out}");
    }
}

#[test]
fn no_adapter_is_a_zoo_too() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (code, out, _) = outcome(&["adapter", "gram", text(dir.path())]);
    assert!(code == Some(0) && out.contains("has no adapter"), "{out}");
    refused(&["adapter", "encode", text(dir.path()), "-o", text(&dir.path().join("codec"))], &["2 or more adapters, got 0"]);
    assert!(!dir.path().join("codec").exists());
}

#[test]
fn an_adapter_comes_back_from_its_code() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, codec, made, far] = ["zoo", "codec", "made", "far"].map(|name| dir.path().join(name));
    zoo(&folder, 4);
    for per in ["adapter", "module"] {
        let arguments = ["adapter", "encode", text(&folder), "--keep", "1", "--per", per, "-o", text(&codec)];
        let view = json_of(&arguments);
        assert_eq!((view["code-len"].as_u64(), view["per"].as_str()), (Some(if per == "adapter" { 3 } else { 6 }), Some(per)));
        refused(&arguments, &["codec"]);
        let arguments = ["adapter", "decode", text(&codec), "--adapter", "a2", "-o", text(&made)];
        let view = json_of(&arguments);
        assert!(view["lost"][0].as_f64().expect("a number") < 1e-8, "{view}");
        refused(&arguments, &["made"]);
        // Beside the adapter itself, the decoded one is the same update.
        std::fs::rename(&made, folder.join("made")).expect("the folder can be moved");
        let view = json_of(&["adapter", "gram", text(&folder)]);
        assert_eq!(view["same"], json!([["a2", "made"]]));
        std::fs::remove_dir_all(folder.join("made")).expect("the folder can be removed");
        refused(&["adapter", "decode", text(&codec), "--adapter", "b", "-o", text(&made)], &["`b`"]);
        // Where the adapters have gone they are found, unless they have changed.
        std::fs::rename(&folder, &far).expect("the folder can be moved");
        json_of(&["adapter", "decode", text(&codec), "--mean", "--adapters", text(&far), "-o", text(&made)]);
        std::fs::remove_dir_all(&made).expect("the folder can be removed");
        Made::new(50).write(&far.join("a1"));
        let moved = ["adapter", "decode", text(&codec), "--mean", "--adapters", text(&far), "-o", text(&made)];
        refused(&moved, &["a1", "not those that the codec was fitted on"]);
        assert!(!made.exists());
        std::fs::rename(&far, &folder).expect("the folder can be moved");
        zoo(&folder, 4);
        std::fs::remove_dir_all(&codec).expect("the folder can be removed");
    }
}

/// The settings of an adapter, with something replaced.
fn resettle(folder: &Path, from: &str, to: &str) {
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("settings");
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).expect("settings");
}

#[test]
fn as_many_components_are_kept_as_there_are_and_codes_are_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, codec, made] = ["zoo", "codec", "made"].map(|name| dir.path().join(name));
    zoo(&folder, 4);
    // Another adapter with the update of `a0`, twice as large, by the same factors.
    Made::new(1).write(&folder.join("b"));
    resettle(&folder.join("b"), "\"lora_alpha\":4", "\"lora_alpha\":8");
    let view = json_of(&["adapter", "encode", text(&folder), "-o", text(&codec)]);
    assert_eq!((view["code-len"].as_u64(), view["adapters"].as_array().map(Vec::len)), (Some(4), Some(5)));
    refused(&["adapter", "encode", text(&folder), "--rank", "9", "-o", text(&made)], &["9"]);
    for (codes, told) in [(&["--mean"][..], "--mean"), (&["--adapter", "a1"], "--adapter a1")] {
        json_of(&[&["adapter", "decode", text(&codec), "-o", text(&made)], codes].concat());
        let written = std::fs::read_to_string(made.join("weft.json")).expect("what was done is written");
        assert!(written.contains(told), "{told} is not in {written}");
        std::fs::remove_dir_all(&made).expect("the folder can be removed");
    }
    resettle(&folder.join("a1"), "\"lora_alpha\":4", "\"lora_alpha\":40");
    refused(&["adapter", "decode", text(&codec), "--mean", "-o", text(&made)], &["a1", "lora_alpha"]);
}

#[test]
fn a_generator_is_learnt_from_adapters_and_descriptions() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, texts, generator, made] = ["zoo", "texts.tsv", "generator", "made"].map(|name| dir.path().join(name));
    zoo(&folder, 6);
    Made::new(2).write(&folder.join("b"));
    resettle(&folder.join("b"), "\"lora_alpha\":4", "\"lora_alpha\":8,\"task_type\":\"CAUSAL_LM\"");
    let lines: Vec<String> = (0..6).map(|i| format!("a{i}\tword {i}{i}\n")).collect();
    std::fs::write(&texts, format!("{}b\tanother word\n", lines.concat())).expect("descriptions");
    let learn = ["adapter", "learn", text(&folder), "--descriptions", text(&texts), "--steps", "20", "--width", "16"];
    let arguments = [&learn[..], &["-o", text(&generator)]].concat();
    let (code, out, _) = outcome(&arguments);
    for part in [
        "7 adapters of `org/base`",
        "foretold, %",
        "ridge on updates",
        "no combination of the others",
        "6 of them independent",
        "`a1` and `b` have the same update",
    ] {
        assert!(code == Some(0) && out.contains(part), "`{part}` is not in\n{out}");
    }
    refused(&arguments, &["generator"]);
    let own = ["adapter", "generate", "--generator", text(&generator), "-o", text(&made)];
    let generate = |more: &[&'static str]| [&own[..], more].concat();
    let view = json_of(&generate(&["--prompt", "word 33"]));
    assert_eq!((view["nearest"][0].as_str(), view["cosines"].as_array().map(Vec::len)), (Some("a3"), Some(3)));
    let settings = std::fs::read_to_string(made.join("adapter_config.json")).expect("settings");
    assert!(settings.contains("\"task_type\": \"CAUSAL_LM\""), "{settings}");
    std::fs::remove_dir_all(&made).expect("the folder can be removed");
    // Near an adapter without a text, it is that adapter at 0.
    json_of(&generate(&["--like", "a2", "--strength", "0"]));
    std::fs::rename(&made, folder.join("near")).expect("the folder can be moved");
    let pairs = json_of(&["adapter", "gram", text(&folder)])["same"].clone();
    assert!(pairs.as_array().is_some_and(|pairs| pairs.contains(&json!(["a2", "near"]))), "{pairs}");
    refused(&generate(&["--like", "a9"]), &["`a9`", "a0"]);
    assert_eq!(outcome(&generate(&[])).0, Some(2), "neither a text nor a name");
    refused(&["adapter", "generate", "--generator", text(&folder), "--prompt", "a", "-o", text(&made)], &["it is no generator"]);
    std::fs::write(&texts, "a0 word\n").expect("descriptions");
    let (_, _, err) = outcome(&[&learn[..], &["-o", text(&made)]].concat());
    assert!(err.contains("line 1 has no tab") && !err.contains("hint: remove"), "{err}");
    assert!(!made.exists());
}

#[test]
fn adapters_are_merged_by_every_method() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [folder, one, two] = ["zoo", "zoo/a0", "zoo/a1"].map(|name| dir.path().join(name));
    zoo(&folder, 2);
    let methods = ["mean", "linear", "task-arithmetic", "ties", "dare-linear", "dare-ties", "slerp", "knots"];
    for method in methods {
        let made = dir.path().join("merged").join(method);
        let view = json_of(&["adapter", "merge", text(&one), text(&two), "--method", method, "--rank", "4", "-o", text(&made)]);
        assert_eq!((view["rank"].as_u64(), view["written"][0].as_str()), (Some(4), made.to_str()));
    }
    let view = json_of(&["adapter", "gram", text(&dir.path().join("merged"))]);
    let at = |name: &str| view["adapters"].as_array().and_then(|all| all.iter().position(|a| a == name)).expect("it is there");
    let cosine = |a: &str, b: &str| view["cosines"][at(a)][at(b)].as_f64().expect("a number");
    // Without trimming three are one up to their size; a mean of factors is something else.
    assert!(cosine("mean", "task-arithmetic") > 1.0 - 1e-9 && cosine("mean", "knots") > 1.0 - 1e-6);
    assert!(cosine("mean", "linear") < 0.999, "{}", cosine("mean", "linear"));
    let written = std::fs::read_to_string(dir.path().join("merged/ties/weft.json")).expect("what was done is written");
    assert!(written.contains("--method ties --rank 4 --density 0.2 --scale 1"), "{written}");
    let (_, out, _) = outcome(&["adapter", "merge", text(&folder), "--method", "linear", "-o", text(&dir.path().join("x"))]);
    assert!(out.contains("`linear` adds factors"), "{out}");
}

#[test]
fn adapters_that_do_not_belong_together_are_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let check = |made: Made<'_>, parts: &[&str]| {
        let folder = dir.path().join("zoo");
        zoo(&folder, 2);
        made.write(&folder.join("b"));
        refused(&["adapter", "gram", text(&folder)], parts);
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    };
    check(Made { base: "org/other", ..Made::new(7) }, &["zoo/b", "zoo/a0", "`org/other`", "`org/base`"]);
    check(Made { modules: &MODULES[..1], ..Made::new(7) }, &["zoo/b", "zoo/a0", "does not update `h.0.v`"]);
    let more = [MODULES[0], MODULES[1], ("h.1.q", [5, 4])];
    check(Made { modules: &more, ..Made::new(7) }, &["it updates `h.1.q`"]);
    check(Made { modules: &[("h.0.q", [6, 4]), MODULES[1]], ..Made::new(7) }, &["`h.0.q` is 6 × 4 in it and 5 × 4 in the other"]);
    check(Made::new(NAN), &["zoo/b", "not finite"]);
}

#[test]
fn ranks_may_differ() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (folder, made) = (dir.path().join("zoo"), dir.path().join("mean"));
    zoo(&folder, 2);
    Made { rank: 3, ..Made::new(9) }.write(&folder.join("b"));
    let view = json_of(&["adapter", "merge", text(&folder), "--method", "mean", "-o", text(&made)]);
    assert_eq!(view["rank"].as_u64(), Some(3));
    refused(&["adapter", "merge", text(&folder), "--method", "linear", "-o", text(&dir.path().join("x"))], &["rank"]);
    refused(
        &["adapter", "merge", text(&folder), "--method", "slerp", "-o", text(&dir.path().join("x"))],
        &["exactly 2 adapters, got 3"],
    );
}

#[test]
fn options_that_a_method_does_not_read_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("zoo");
    zoo(&folder, 2);
    let out = dir.path().join("x");
    let merge = |method: &str, more: &[&str]| {
        outcome(&[&["adapter", "merge", text(&folder), "--method", method, "-o", text(&out)], more].concat())
    };
    for (method, option, value) in [
        ("mean", "--density", "0.5"),
        ("slerp", "--density", "0.5"),
        ("linear", "--scale", "2"),
        ("slerp", "--scale", "2"),
        ("ties", "--t", "0.5"),
        ("slerp", "--weights", "1,2"),
        ("knots", "--seed", "1"),
        ("task-arithmetic", "--seed", "0"),
    ] {
        let (code, _, err) = merge(method, &[option, value]);
        let expected = format!("`{option}` is not read by the method `{method}`");
        assert!(code == Some(1) && err.contains(&expected) && !out.exists(), "{err}");
    }
    let (code, _, err) = merge("dare-ties", &["--density", "0.9", "--scale", "2", "--seed", "1", "--weights", "1,2"]);
    assert!(code == Some(0), "{err}");
}
