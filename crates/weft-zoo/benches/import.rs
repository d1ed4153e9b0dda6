//! How fast files are read and hashed from the page cache: `cargo bench -p weft-zoo`.
//!
//! One network of 64 Mi weights in a safetensors file of 256 MiB, and the same in half precision. What is timed is what
//! an import does: check the header, read each tensor, hash its values with BLAKE3; and the checksum of the whole file.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use weft_core::Seed;
use weft_zoo::{Metadata, open_sources, sha256_of_file, write_tensors};

/// Tensors, and values of each.
const TENSORS: usize = 16;
const VALUES: usize = 4 << 20;

fn write(path: &Path) {
    let values = Seed::new(1).normals(VALUES);
    let tensors: Vec<_> = (0..TENSORS).map(|i| (format!("layers.{i}.weight"), vec![VALUES], values.as_slice())).collect();
    write_tensors(path, &tensors, &Metadata::new()).expect("a temporary folder can be written to");
}

/// The same file with every tensor's type changed to one of half the size.
fn halve(path: &Path, half: &Path) {
    let bytes = std::fs::read(path).expect("the file was just written");
    let data = &bytes[bytes.len() - 4 * TENSORS * VALUES..];
    let entry = |i: usize| {
        let (start, end) = (2 * i * VALUES, 2 * (i + 1) * VALUES);
        format!("\"layers.{i}.weight\":{{\"dtype\":\"BF16\",\"shape\":[{VALUES}],\"data_offsets\":[{start},{end}]}}")
    };
    let json = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
    let out = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &data[..data.len() / 2]].concat();
    std::fs::write(half, out).expect("a temporary folder can be written to");
}

/// Reads every tensor and hashes its values.
fn import(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for source in open_sources(path).expect("a sound file") {
        for name in source.tensors().keys() {
            source.read_into(name, &mut values).expect("a sound file");
            for chunk in values.chunks(1 << 16) {
                bytes.clear();
                bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                hasher.update(&bytes);
            }
        }
    }
    hasher.finalize()
}

fn throughput(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, half) = (dir.path().join("f32.safetensors"), dir.path().join("bf16.safetensors"));
    write(&whole);
    halve(&whole, &half);
    let mut group = criterion.benchmark_group("64 Mi weights");
    group.sample_size(10);
    for (name, path) in [("F32", &whole), ("BF16", &half)] {
        group.throughput(Throughput::Bytes(std::fs::metadata(path).expect("the file is there").len()));
        group.bench_function(format!("{name}: read and hash (BLAKE3)"), |b| b.iter(|| import(black_box(path))));
    }
    group.throughput(Throughput::Bytes(std::fs::metadata(&whole).expect("the file is there").len()));
    group.bench_function("F32: SHA-256 of the file", |b| b.iter(|| sha256_of_file(black_box(&whole)).expect("a sound file")));
    group.bench_function("F32: check the header alone", |b| b.iter(|| open_sources(black_box(&whole)).expect("a sound file")));
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
