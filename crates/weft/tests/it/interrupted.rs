//! Runs that are stopped and go on.

use crate::tiny;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use weft::{Error, Event, Kind, Monitor, Stage};

/// Runs until a task has progressed so far, then asks for a stop.
fn stop_in(task: &str, after: u64, config: &weft::config::RunConfig) -> Error {
    let (stop, inside, seen) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let sink = |event: Event| match event {
        Event::Started { task: started, .. } => inside.store(started == task, Ordering::Relaxed),
        Event::Progress { done } if inside.load(Ordering::Relaxed) && done >= after => {
            seen.fetch_add(1, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
        }
        _ => {}
    };
    let error = weft::run(config, Stage::Sample, &Monitor::new(&sink, &stop)).expect_err("the run was to stop");
    assert!(seen.load(Ordering::Relaxed) > 0, "`{task}` never came to {after}");
    error
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    weft::run(&tiny(whole.path(), &[]), Stage::Sample, &Monitor::silent()).unwrap();
    let config = tiny(parts.path(), &[]);
    for (task, after, stage) in [("train zoo", 4, "zoo"), ("train flow", 17, "train"), ("train refiner", 2, "train")] {
        let error = stop_in(task, after, &config);
        assert_eq!(error.kind(), Kind::Interrupted);
        assert_eq!(error.to_string(), format!("interrupted during `{stage}`"));
        assert!(weft::zoos::verify(&parts.path().join("zoo"), &Monitor::silent()).unwrap().faults.is_empty());
    }
    weft::run(&config, Stage::Sample, &Monitor::silent()).unwrap();
    for file in ["generator/flow.safetensors", "generator/refiner.safetensors", "samples/refined.safetensors"] {
        let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(file)).unwrap();
        assert!(read(&whole) == read(&parts), "{file}");
    }
    let digest = |dir: &tempfile::TempDir| weft::zoos::stats(&dir.path().join("zoo")).unwrap().digest;
    assert_eq!(digest(&whole), digest(&parts));
}
