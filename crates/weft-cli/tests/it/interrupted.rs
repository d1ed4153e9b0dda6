//! A run that is killed, stopped with Ctrl-C, or cut off by a write that fails, in any stage, goes on to the same bytes.
#![cfg(unix)]

use crate::{outcome, quickstart, read, text};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What must be the same: every file of weights, and every digest and figure of the two zoos, timings aside.
fn result_of(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let folders = ["canonical", "codec", "generator", "samples", "networks"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(run.join(folder)).expect("a stage's folder"));
    let weights =
        files.map(|file| file.expect("an entry").path()).filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let mut result: BTreeMap<_, _> = weights
        .map(|path| (text(path.strip_prefix(run).expect("below")).to_owned(), std::fs::read(&path).expect("a file")))
        .collect();
    for zoo in ["zoo", "canonical/zoo"] {
        let (code, listed, _) = outcome(&["zoo", "ls", text(&run.join(zoo)), "--format", "json"]);
        assert_eq!(code, Some(0));
        let timeless = listed.lines().filter(|line| !line.contains("train-secs")).collect::<Vec<_>>().join("\n");
        result.insert(zoo.to_owned(), timeless.into_bytes());
    }
    result
}

/// The result of a run that nothing disturbed.
fn undisturbed() -> &'static BTreeMap<String, Vec<u8>> {
    static RESULT: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    RESULT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (code, _, err) = read(&quickstart(dir.path()).output().expect("the program runs"));
        assert_eq!(code, Some(0), "{err}");
        result_of(dir.path())
    })
}

fn assert_zoos_are_sound(run: &Path) {
    for zoo in ["zoo", "canonical/zoo"].map(|zoo| run.join(zoo)).iter().filter(|zoo| zoo.join("zoo.toml").exists()) {
        let (code, out, err) = outcome(&["zoo", "verify", text(zoo)]);
        assert!(code == Some(0) && out.ends_with("clean\n"), "{out}{err}");
    }
}

/// Starts the quickstart, waits for a file, sends a signal, and returns how the program ended and what it said.
fn signal_at(run: &Path, awaited: &Path, signal: &str) -> (ExitStatus, String) {
    let mut child = quickstart(run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let since = Instant::now();
    while !awaited.exists() && child.try_wait().expect("a child").is_none() {
        assert!(since.elapsed() < Duration::from_mins(2), "`{}` never came", awaited.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    // It fails if the program has ended meanwhile, which the status tells.
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
    let output = child.wait_with_output().expect("a child");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Disturbs each stage in turn, then lets the run end and compares.
fn disturb_every_stage(signal: &str, check: impl Fn(&ExitStatus, &str)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path();
    let mark = |stage: &str| run.join(format!("stages/{stage}.in-progress.toml"));
    let awaited: Vec<PathBuf> = ["zoo", "canonicalize", "encode", "train", "sample", "evaluate", "export"].map(mark).into();
    let mut hits = 0;
    for awaited in awaited.iter().chain([&run.join("generator/flow.state.safetensors")]) {
        let (status, err) = signal_at(run, awaited, signal);
        if !status.success() {
            hits += 1;
            check(&status, &err);
        }
        assert_zoos_are_sound(run);
    }
    assert!(hits >= 3, "only {hits} signals came before the end of their run");
    let (code, _, err) = read(&quickstart(run).output().expect("the program runs"));
    assert_eq!(code, Some(0), "{err}");
    assert!(result_of(run) == *undisturbed(), "the result is another one");
}

#[test]
fn a_killed_process_loses_nothing() {
    disturb_every_stage("-KILL", |status, _| assert_eq!(status.signal(), Some(9)));
}

#[test]
fn ctrl_c_stops_where_it_can_go_on() {
    disturb_every_stage("-INT", |status, err| {
        // Before the handler is there, the signal ends the program as it ends any other.
        assert!(status.code() == Some(1) || status.signal() == Some(2), "{status:?} {err}");
        if status.code() == Some(1) {
            assert!(err.contains("error: interrupted during `"), "{err}");
            assert!(err.ends_with("hint: the same command goes on where it stopped\n"), "{err}");
        }
    });
}

#[test]
fn a_write_that_fails_in_any_stage_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path();
    let mut failures = 0;
    // A limit on the size of a file stands in for a full disk; in blocks of half a KiB, or of one in some shells.
    for blocks in [8, 32, 64, 96, 128, 192, 256, 384, 512] {
        let small = quickstart(run);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]).arg(small.get_program());
        shell.args(small.get_args()).env("NO_COLOR", "1");
        let (code, _, err) = read(&shell.output().expect("a shell"));
        if code != Some(0) {
            failures += 1;
            assert!(code == Some(1) && err.contains("error: "), "{code:?} {err}");
        }
        assert_zoos_are_sound(run);
    }
    assert!(failures >= 2, "only {failures} writes failed");
    let (code, _, err) = read(&quickstart(run).output().expect("the program runs"));
    assert_eq!(code, Some(0), "{err}");
    assert!(result_of(run) == *undisturbed(), "the result is another one");
}
