//! `weft zoo …` as a user of many files meets it: whole texts, exit codes and JSON.

use crate::{outcome, text};
use std::path::Path;

const MIT: &str = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software …\n\
                   THE SOFTWARE IS PROVIDED \"AS IS\"";

/// Writes a network 2-2-2 as a safetensors file; `first` is its first weight.
fn network(path: &Path, first: f32, metadata: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    let header = format!(
        "{{\"__metadata__\":{{{metadata}}},\
         \"layers.0.weight\":{{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}},\
         \"layers.0.bias\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}},\
         \"layers.1.weight\":{{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[24,40]}},\
         \"layers.1.bias\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[40,48]}}}}"
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([first].into_iter().chain((1..12).map(|i| i as f32 / 8.0)).flat_map(f32::to_le_bytes));
    std::fs::write(path, bytes).expect("the file can be written");
}

/// Six sound networks of three phrases in two languages, and four files that are not.
fn files(folder: &Path) {
    for (i, name) in ["en/hey_hal_v1", "en/hey_hal_v2", "en/computer", "de/computer", "de/hallo", "de/Hallo (1)"].iter().enumerate()
    {
        let metadata = format!(
            "\"run\":\"run-{i}\",\"metric.validation-accuracy\":\"0.{}\",\"author\":\"author {}\"{}",
            90 + i,
            i % 2,
            if i == 3 { ",\"license\":\"GPL-3.0-only\"" } else { "" }
        );
        network(&folder.join(format!("{name}.safetensors")), 1.0 + i as f32, &metadata);
    }
    std::fs::write(folder.join("LICENSE"), MIT).expect("the folder can be written");
    std::fs::write(folder.join("en/readme.md"), "hello").expect("the folder can be written");
    network(&folder.join("en/zz_copy.safetensors"), 1.0, "\"author\":\"a copyist\"");
    network(&folder.join("en/nan.safetensors"), f32::NAN, "\"run\":\"run-9\"");
    std::fs::write(folder.join("de/torn.safetensors"), "torn").expect("the folder can be written");
}

fn done(arguments: &[&str]) -> String {
    let (code, out, err) = outcome(arguments);
    assert_eq!(code, Some(0), "{arguments:?}\n{out}{err}");
    out
}

fn refused(arguments: &[&str]) -> String {
    let (code, out, err) = outcome(arguments);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}\n{err}");
    err
}

/// Imports the files and asserts the report.
fn imported(dir: &Path) -> String {
    let (folder, zoo) = (dir.join("in"), dir.join("zoo"));
    files(&folder);
    let labels = ["--label", "phrase=file-stem", "--label", "language=folder", "--test-fraction", "0.2"];
    let (code, out, _) =
        outcome(&[&["zoo", "import", text(&folder), "-o", text(&zoo), "--license", "MIT,Apache-2.0"], &labels[..]].concat());
    let name = |file: &str| folder.join(file).display().to_string();
    let expected = format!(
        "5 networks into {}\n\
         skipped: {}: the same network as `{}`\n\
         quarantined: {}: tensor `layers.0.weight`: value 0 is not finite\n\
         refused: {}: its licence `GPL-3.0-only` is not allowed; allowed: MIT, Apache-2.0\n\
         refused: `{}` is not a valid safetensors file: it has 4 bytes, its header speaks of 8\n\
         1 file of other kinds ignored\n",
        zoo.display(),
        name("en/zz_copy.safetensors"),
        name("en/hey_hal_v1.safetensors"),
        name("en/nan.safetensors"),
        name("de/computer.safetensors"),
        name("de/torn.safetensors"),
    );
    assert_eq!((code, out), (Some(1), expected));
    text(&zoo).to_owned()
}

#[test]
fn an_import_reports_and_a_listing_finds() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let zoo = imported(dir.path());
    let ls = |more: &[&str]| done(&[&["zoo", "ls", zoo.as_str()], more].concat());
    let condition = "accuracy >= 0.9 and language in (\"en\", \"de\") and not synthetic and phrase like \"h%\"";
    let columns = ["--columns", "phrase,variant,accuracy,licence,author,final"];
    assert_eq!(
        ls(&[&["--where", condition, "--sort", "phrase,-accuracy"], &columns[..]].concat()),
        "phrase   variant  accuracy  licence  author    final\n\
         hallo          1    0.9500  MIT      author 1  yes\n\
         hallo    –          0.9400  MIT      author 0  yes\n\
         hey hal  v2         0.9100  MIT      author 1  yes\n\
         hey hal  v1         0.9000  MIT      author 0  yes\n"
    );
    assert_eq!(
        ls(&["--where", "quarantined", "--columns", "run,split,source,status,reason"]),
        "run    split  source              status       reason\n\
         run-9  –      en/nan.safetensors  quarantined  tensor `layers.0.weight`: value 0 is not finite\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ls(&["--where", "variant = 'v2'", "--columns", "run,accuracy,final", "--format", "json"]))
            .expect("JSON");
    assert_eq!(json, serde_json::json!([{ "run": "run-1", "accuracy": 0.91, "final": true }]));
    assert_eq!(ls(&[]).lines().count(), 6, "a head and five networks: quarantined ones are left out");

    let digest = ls(&["--where", "quarantined", "--columns", "digest"]).lines().nth(1).expect("a digest").to_owned();
    let shown = done(&["zoo", "show", &zoo, &digest]);
    for (name, value) in [("split", "none"), ("quarantined", "tensor `layers.0"), ("label language", "en"), ("licence", "MIT")] {
        let line = shown.lines().find(|line| line.starts_with(&format!("{name}  "))).expect("a line a field");
        assert!(line[name.len()..].trim_start().starts_with(value), "{shown}");
    }
    let stats = done(&["zoo", "stats", &zoo]);
    assert!(stats.contains("5 checkpoints of 5 runs") && stats.contains("\n1 checkpoint beside them in quarantine\n"), "{stats}");

    // Again: nothing is read twice, and what was refused is told again.
    let folder = dir.path().join("in");
    let (code, out, _) = outcome(&["zoo", "import", text(&folder), "-o", &zoo, "--licences-allowed", "MIT"]);
    assert_eq!(code, Some(1));
    let count = |word: &str| out.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("0 networks into"), count("skipped"), count("quarantined"), count("refused")), (1, 7, 0, 2), "{out}");
    let out_dir = dir.path().join("out");
    let exported = done(&["zoo", "export", &zoo, "-o", text(&out_dir), "--where", "phrase = 'hallo'"]);
    assert_eq!(exported, format!("2 networks in {}\n", out_dir.display()));
}

#[test]
fn conditions_that_mean_nothing_say_where_and_what_there_is() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let zoo = imported(dir.path());
    let hint = "hint: `weft zoo show ZOO DIGEST` shows all fields of a checkpoint\n";
    let err = refused(&["zoo", "ls", &zoo, "--where", "accuracy >= "]);
    assert_eq!(err, format!("error: `accuracy >= `, column 13: expected a value: a \"text\", a number, true or false\n{hint}"));
    let err = refused(&["zoo", "ls", &zoo, "--where", "final and phrse = 'x'"]);
    for part in [
        "error: `final and phrse = 'x'`, column 11: unknown name `phrse`; columns: `digest`",
        "labels: `language`, `phrase`, `variant`",
    ] {
        assert!(err.contains(part), "`{part}` is missing from {err}");
    }
    assert!(refused(&["zoo", "ls", &zoo, "--sort", "-nothing"]).contains("`-nothing`, column 1: unknown name `nothing`"));
    assert!(refused(&["zoo", "ls", &zoo, "--columns", "run,nothing"]).contains("`nothing`, column 1: unknown name"));
    assert!(
        refused(&["zoo", "split", &zoo, "--by", "colour", "-o", "x"])
            .contains("known: `run`, `lineage`, `language`, `phrase`, `variant`")
    );
}

#[test]
fn an_import_that_refuses_everything_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (folder, zoo) = (dir.path().join("in"), dir.path().join("zoo"));
    files(&folder);
    let (code, out, _) = outcome(&["zoo", "import", text(&folder), "-o", text(&zoo), "--license", "ISC"]);
    assert!(code == Some(1) && out.starts_with("0 networks into") && !zoo.exists(), "{out}");
    let torn = folder.join("de/torn.safetensors");
    let (code, out, _) = outcome(&["zoo", "import", text(&torn), "-o", text(&zoo)]);
    assert!(code == Some(1) && out.contains("its header speaks of 8") && !zoo.exists(), "{out}");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("the folder can be made");
    assert!(refused(&["zoo", "import", text(&empty), "-o", text(&zoo)]).starts_with("error: no file of weights in"));
    assert!(!zoo.exists());
}

#[test]
fn zoos_are_divided_merged_and_pruned() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let zoo = imported(dir.path());
    let (split, merged) = (dir.path().join("split"), dir.path().join("merged"));
    let out = done(&["zoo", "split", &zoo, "--by", "phrase", "--test-fraction", "0.4", "--seed", "2", "-o", text(&split)]);
    assert!(out.contains(&format!(" in {}: ", split.display())) && out.ends_with("of 3 groups held out\n"), "{out}");
    let listed = done(&["zoo", "ls", text(&split), "--columns", "phrase,split"]);
    let of = |split: &str| listed.lines().filter(|line| line.ends_with(split)).map(|line| line[..8].to_owned()).collect::<Vec<_>>();
    let (train, test) = (of("train"), of("test"));
    assert!(!train.is_empty() && !test.is_empty() && train.iter().all(|phrase| !test.contains(phrase)), "{listed}");

    let out = done(&["zoo", "merge", &zoo, text(&split), "-o", text(&merged), "--where", "phrase != 'computer'"]);
    let expected =
        format!("4 checkpoints in {}\nfrom {zoo}: 4 checkpoints\nfrom {}: 0 checkpoints\n", merged.display(), split.display());
    assert!(out.starts_with(&expected) && out.contains("in an earlier zoo already: 4 checkpoints\n"), "{out}");
    let err = refused(&["zoo", "merge", &zoo, "-o", text(&merged)]);
    assert!(err.starts_with("error: cannot create a zoo in") && err.contains("there is a zoo already"), "{err}");

    // A catalogue that is older than the shards beside it.
    let shard = std::fs::read_dir(merged.join("shards")).expect("shards").next().expect("a shard").expect("an entry").path();
    let old = merged.join("shards").join(format!("{}.safetensors", "0".repeat(64)));
    std::fs::copy(&shard, &old).expect("the shard can be copied");
    let out = done(&["zoo", "verify", text(&merged)]);
    let unreferenced = format!("unreferenced: {}: no checkpoint names it; --prune removes it\n", old.display());
    assert_eq!(out, format!("{unreferenced}4 checkpoints in 1 shard: clean\n"));
    let out = done(&["zoo", "verify", text(&merged), "--prune"]);
    assert_eq!(out, format!("removed: {}: no checkpoint names it\n4 checkpoints in 1 shard: clean\n", old.display()));
    assert!(shard.exists() && !old.exists());
}

#[test]
fn exports_say_what_they_wrote_and_refuse_what_has_no_meaning() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (zoo, out) = (imported(dir.path()), dir.path().join("out"));
    let start = ["zoo", "export", zoo.as_str(), "-o", text(&out)];
    let hallo = ["--where", "phrase = 'hallo'", "--as", "npz"];
    assert_eq!(done(&[&start[..], &hallo].concat()), format!("2 networks in {}\n", out.display()));
    assert_eq!(done(&[&start[..], &hallo].concat()), format!("2 networks in {}\n2 networks there already\n", out.display()));
    let mut names: Vec<String> = std::fs::read_dir(&out)
        .expect("files")
        .map(|item| item.expect("a file").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    let digests = done(&["zoo", "ls", &zoo, "--where", "phrase = 'hallo'", "--columns", "digest", "--sort", "digest"]);
    let mut expected: Vec<String> = digests.lines().skip(1).map(|digest| format!("{}-hallo.npz", digest.trim())).collect();
    expected.push("README.md".to_owned());
    expected.sort();
    assert_eq!(names, expected);
    let json: serde_json::Value = serde_json::from_str(&done(&[&start[..], &hallo, &["--format", "json"]].concat())).expect("JSON");
    assert_eq!((json["unchanged"].as_u64(), json["notes"].as_array().map(Vec::len)), (Some(2), Some(0)));

    let original = done(&[&start[..], &["--names", "original", "--limit", "1"]].concat());
    assert_eq!(original, format!("1 network in {}\n", out.display()));
    for (more, expected) in [
        (
            &["--as", "onnx"][..],
            "error: `--as onnx` needs the models that take the weights: `--graph FILE` for all, or `--originals DIR`",
        ),
        (&["--graph", "a.onnx"][..], "error: `--graph` and `--originals` need `--as onnx`"),
        (&["--as", "onnx", "--names", "original", "--graph", "a.onnx"][..], "error: `--names` has no meaning with `--as onnx`"),
        (&["--as", "onnx", "--originals", "."][..], "no original ONNX model: it came from a file of format `safetensors`"),
        (&["--as", "onnx", "--graph", "absent.onnx"][..], "absent.onnx"),
    ] {
        let err = refused(&[&start[..], more].concat());
        assert!(err.contains(expected), "`{expected}` is missing from {err}");
    }
    let file = names.iter().find(|name| std::path::Path::new(name).extension().is_some_and(|e| e == "npz")).expect("an archive");
    std::fs::write(out.join(file), "mine").expect("the file can be written");
    let err = refused(&[&start[..], &hallo].concat());
    assert!(err.contains("is there already with other content; move it away, or write to another folder"), "{err}");
}
