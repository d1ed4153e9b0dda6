//! How fast files are read, hashed and imported from the page cache, and in how much memory: `cargo bench -p weft-zoo`.
//!
//! 64 Mi weights in safetensors files, once as one network of 256 MiB and once as 64 of 4 MiB, and one in half precision. *Examined*
//! is what an import does before it writes: headers, SHA-256 of the file, BLAKE3 of the weights. *Imported* is all of it, until the
//! zoo is durable on the disk that `TMPDIR` names. At last all the memory that the process has while it imports a file of 100 MB and one
//! of 1 GB, but for the pages of mapped files, which the system takes back when it wants.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use weft_core::{Activation, Architecture, Monitor, Seed};
use weft_zoo::{ImportOptions, Metadata, Zoo, examine, import, open_sources, sha256_of_file, write_tensors};

/// Linear maps without a bias, as a file has them: no more tensors than matter, each of 4 Mi weights.
const WIDTH: usize = 2048;

fn network(layers: usize, width: usize) -> Architecture {
    Architecture::mlp("bench", &vec![width; layers + 1], Activation::Relu).expect("a sound network")
}

/// Writes a network that differs from those of other seeds in its first weight.
fn write(path: &Path, architecture: &Architecture, seed: u64) {
    let largest = architecture.tensors().iter().map(weft_core::TensorSpec::num_values).max().unwrap_or(0);
    let mut values = Seed::new(1).normals(largest);
    values[0] = seed as f32;
    let tensors: Vec<_> =
        architecture.tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), &values[..t.num_values()])).collect();
    write_tensors(path, &tensors, &Metadata::new()).expect("a temporary folder can be written to");
}

/// The same file in bfloat16: the upper half of every value.
fn halve(path: &Path, half: &Path) {
    let text = std::fs::read(path).expect("the file was just written");
    let len = u64::from_le_bytes(text[..8].try_into().expect("8 bytes")) as usize;
    let header = String::from_utf8_lossy(&text[8..8 + len]).replace("\"F32\"", "\"BF16\"");
    let halved = header.split("\"data_offsets\":[").enumerate().map(|(i, part)| {
        let Some((numbers, rest)) = part.split_once(']').filter(|_| i > 0) else { return part.to_owned() };
        let numbers: Vec<String> = numbers.split(',').map(|n| (n.parse::<usize>().expect("a number") / 2).to_string()).collect();
        format!("{}]{rest}", numbers.join(","))
    });
    let json = halved.collect::<Vec<_>>().join("\"data_offsets\":[");
    let data: Vec<u8> = text[8 + len..].as_chunks::<4>().0.iter().flat_map(|value| [value[2], value[3]]).collect();
    let out = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &data].concat();
    std::fs::write(half, out).expect("a temporary folder can be written to");
}

/// Files of one architecture in a folder of their own.
struct Files {
    name: &'static str,
    architecture: Architecture,
    folder: PathBuf,
    bytes: u64,
}

fn files(dir: &Path, name: &'static str, architecture: Architecture, count: u64) -> Files {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).expect("a temporary folder can be written to");
    (0..count).for_each(|i| write(&folder.join(format!("{i}.safetensors")), &architecture, i));
    let bytes = count * 4 * architecture.num_parameters() as u64;
    Files { name, architecture, folder, bytes }
}

/// Imports a folder into a new zoo, which lives as long as the answer.
fn imported(files: &Files) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut zoo =
        Zoo::create(&dir.path().join("zoo"), "bench", Arc::new(files.architecture.clone()), None).expect("an empty folder");
    let report = import(&mut zoo, std::slice::from_ref(&files.folder), &ImportOptions::default(), &Monitor::silent());
    assert!(report.is_ok_and(|report| report.read > 0 && report.refused.is_empty()), "sound files");
    dir
}

fn throughput(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let one = files(dir.path(), "one file of 256 MiB", network(16, WIDTH), 1);
    let many = files(dir.path(), "64 files of 4 MiB", network(16, WIDTH / 8), 64);
    let half =
        Files { name: "one file of 128 MiB, BF16", folder: dir.path().join("half"), bytes: one.bytes / 2, ..files_like(&one) };
    std::fs::create_dir(&half.folder).expect("a temporary folder can be written to");
    halve(&one.folder.join("0.safetensors"), &half.folder.join("0.safetensors"));
    let mut group = criterion.benchmark_group("import");
    group.sample_size(10);
    for files in [&one, &many, &half] {
        group.throughput(Throughput::Bytes(files.bytes));
        let paths = std::slice::from_ref(&files.folder);
        let look = || examine(None, &files.architecture, black_box(paths), &ImportOptions::default(), &Monitor::silent());
        group.bench_function(format!("{}: examined", files.name), |b| b.iter(|| look().expect("sound files")));
        // Removing the zoo that was made is not timed.
        group.bench_function(format!("{}: imported", files.name), |b| {
            b.iter_batched(|| (), |()| imported(files), BatchSize::PerIteration);
        });
    }
    let whole = one.folder.join("0.safetensors");
    group.throughput(Throughput::Bytes(one.bytes));
    group.bench_function("SHA-256 of one file", |b| b.iter(|| sha256_of_file(black_box(&whole)).expect("a sound file")));
    group.bench_function("header of one file", |b| b.iter(|| open_sources(black_box(&whole)).expect("a sound file")));
    group.finish();
}

fn files_like(files: &Files) -> Files {
    Files { name: files.name, architecture: files.architecture.clone(), folder: files.folder.clone(), bytes: files.bytes }
}

/// The process's own memory in bytes, mapped files aside, where the system tells it.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]
fn memory(_: &mut Criterion) {
    for (name, layers) in [("a file of 100 MB", 6), ("a file of 1 GB", 60)] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let files = files(dir.path(), name, network(layers, WIDTH), 1);
        let done = AtomicBool::new(false);
        if anonymous_bytes().is_none() {
            return;
        }
        let most = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    most = anonymous_bytes().unwrap_or(0).max(most);
                    std::thread::sleep(Duration::from_millis(2));
                }
                most
            });
            drop(imported(&files));
            done.store(true, Ordering::Relaxed);
            watch.join().expect("the watch does not fail")
        });
        println!("importing {name}: at most {:.1} MB in the whole process", most as f64 / 1e6);
    }
}

criterion_group!(benches, throughput, memory);
criterion_main!(benches);
