//! The house style, as far as a program can see it: file sizes, module docs, who may use whom, and words
//! that must not be committed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file, in lines.
const MAX_LINES: usize = 800;
/// Largest tracked file.
const MAX_BYTES: u64 = 1 << 20;

/// Which of the workspace's crates a crate may use, and whether the machine-learning framework. All may use
/// `weft-testkit` in tests.
const MAY_USE: [(&str, &[&str], bool); 13] = [
    ("weft-core", &[], false),
    ("weft-zoo", &["weft-core"], false),
    ("weft-canon", &["weft-core"], false),
    ("weft-ops", &["weft-core"], true),
    ("weft-net", &["weft-core", "weft-ops"], true),
    ("weft-codec", &["weft-core"], false),
    ("weft-gen", &["weft-core", "weft-codec", "weft-net", "weft-ops"], true),
    ("weft-eval", &["weft-core", "weft-canon", "weft-net"], false),
    ("weft", &["weft-canon", "weft-codec", "weft-core", "weft-eval", "weft-gen", "weft-net", "weft-ops", "weft-zoo"], false),
    ("weft-cli", &["weft"], false),
    ("weft-testkit", &["weft-core"], false),
    ("weft-fuzz", &["weft-zoo"], false),
    ("xtask", &[], false),
];

/// The files that may hold `unsafe` code: memory maps, vector kernels, and calls of the GPU's libraries.
const UNSAFE: [&str; 3] = ["crates/weft-ops/src/backend/cuda/", "crates/weft-ops/src/kernels/", "crates/weft-zoo/src/mapped.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Files that are tracked or would be, relative to the root.
fn files() -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root()).output().expect("git lists the files of a clone");
    assert!(listed.status.success(), "git ls-files failed");
    let mut paths: Vec<_> = String::from_utf8(listed.stdout).expect("file names are UTF-8").lines().map(PathBuf::from).collect();
    paths.retain(|path| root().join(path).is_file());
    assert!(paths.len() > 20, "too few files to be the workspace");
    paths
}

fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| (path.display().to_string(), std::fs::read_to_string(root().join(&path)).expect("sources are text"))).collect()
}

/// Fails with all findings at once.
fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Code without line comments; good enough for the words that are looked for.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Lines whose code holds a word.
fn lines_with<'a>(text: &'a str, words: &'a [String]) -> impl Iterator<Item = usize> + 'a {
    let hits = text.lines().enumerate().filter(move |(_, line)| words.iter().any(|word| code(line).contains(word)));
    hits.map(|(i, _)| i + 1)
}

#[test]
fn files_are_short() {
    let long = |(path, text): &(String, String)| {
        (text.lines().count() > MAX_LINES).then(|| format!("{path}: {} lines", text.lines().count()))
    };
    none(&sources().iter().filter_map(long).collect::<Vec<_>>(), "a file has more than 800 lines");
}

#[test]
fn modules_say_what_they_are_for() {
    let mute = |(path, text): &(String, String)| {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let says = first.strip_prefix("//!").is_some_and(|rest| rest.trim().len() > 12);
        (!says).then(|| path.clone())
    };
    none(&sources().iter().filter_map(mute).collect::<Vec<_>>(), "a module does not begin with `//!` and a sentence");
}

#[test]
fn crates_use_what_they_may() {
    let manifests = files().into_iter().filter(|path| path.ends_with("Cargo.toml") && path.components().count() > 1);
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for path in manifests {
        let manifest: toml::Table =
            std::fs::read_to_string(root().join(&path)).expect("manifests are text").parse().expect("manifests are TOML");
        let name = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
        let Some((_, crates, framework)) = MAY_USE.iter().find(|(crate_name, ..)| *crate_name == name) else {
            findings.push(format!("`{name}` is not in the table of crates"));
            continue;
        };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used = manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            for used in used {
                let ours = used.starts_with("weft");
                let in_tests = section == "dev-dependencies" && used == "weft-testkit";
                let allowed = in_tests || crates.contains(&used.as_str());
                if (ours && !allowed) || (used.starts_with("candle") && !framework) {
                    findings.push(format!("`{name}` uses `{used}`"));
                }
            }
        }
        seen.insert(name);
    }
    findings.extend(MAY_USE.iter().filter(|(name, ..)| !seen.contains(*name)).map(|(name, ..)| format!("`{name}` is missing")));
    none(&findings, "the table of crates in ARCHITECTURE.md is not kept");
}

#[test]
fn nothing_is_left_undone_or_hushed() {
    // Put together here, so that this file does not hold them.
    let joined = |parts: [&str; 2]| parts.concat();
    let words =
        [["#[", "ignore"], ["todo", "!("], ["unimplemented", "!("], ["#[", "allow("], ["#![", "allow("], ["macro", "_rules!"]]
            .map(joined);
    let notes = [["TO", "DO"], ["FIX", "ME"]].map(joined);
    let mut findings = Vec::new();
    for (path, text) in sources() {
        findings.extend(lines_with(&text, &words).map(|line| format!("{path}:{line}")));
        let noted = text.lines().enumerate().filter(|(_, line)| notes.iter().any(|note| line.contains(note)));
        findings.extend(noted.map(|(i, _)| format!("{path}:{}", i + 1)));
    }
    none(&findings, "an ignored test, an unfinished place, a silenced lint or an own macro");
}

#[test]
fn unsafe_code_stays_where_it_is_listed() {
    let words = ["{", "fn", "impl", "extern"].map(|after| ["unsafe ", after].concat());
    let mut findings = Vec::new();
    for (path, text) in sources() {
        if !UNSAFE.iter().any(|listed| path.starts_with(listed)) {
            findings.extend(lines_with(&text, &words).map(|line| format!("{path}:{line}")));
        }
    }
    none(&findings, "unsafe code outside of the listed files");
}

#[test]
fn no_machine_is_named_and_nothing_is_large() {
    let homes = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/fa", "rm/"]].map(|parts| parts.concat());
    let mut findings = Vec::new();
    for path in files() {
        let bytes = std::fs::read(root().join(&path)).expect("listed files can be read");
        if bytes.len() as u64 > MAX_BYTES {
            findings.push(format!("{}: {} bytes", path.display(), bytes.len()));
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for (i, line) in text.lines().enumerate().filter(|_| path.extension().is_none_or(|e| e != "lock")) {
            let absolute = |home: &String| {
                let before = line.find(home.as_str()).map(|at| line[..at].chars().next_back());
                before.is_some_and(|before| {
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '.' && c != '}' && c != '-' && c != '_')
                })
            };
            if homes.iter().any(absolute) {
                findings.push(format!("{}:{}", path.display(), i + 1));
            }
        }
    }
    none(&findings, "a path of one machine, or a large file");
}
