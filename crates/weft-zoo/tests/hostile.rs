//! Files that want to do harm, or that a disk or a killed process has damaged: each is refused with its own error.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use flate2::Compression;
use flate2::write::GzEncoder;
use std::error::Error as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use support::{architecture, runs};
use weft_core::Monitor;
use weft_zoo::{Error, Filter, HeaderFault, Metadata, Purpose, TensorFault, Unreferenced, Zoo};

/// A safetensors file of a header and so many bytes of data.
fn safetensors(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn fault_of(bytes: &[u8]) -> HeaderFault {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let from_header = weft_zoo::read_metadata(&path).unwrap_err();
    match (weft_zoo::read_tensors(&path).unwrap_err(), from_header) {
        (Error::Header { path: named, fault }, Error::Header { fault: other, .. }) => {
            assert_eq!((named, &fault), (path, &other), "both readers give the same reason");
            fault
        }
        (error, _) => panic!("{error}"),
    }
}

fn tensor(name: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

#[test]
fn headers_that_lie_about_places() {
    let check = |tensors: &[String], data, expected: HeaderFault| {
        assert_eq!(fault_of(&safetensors(&format!("{{{}}}", tensors.join(",")), data)), expected);
    };
    let (a, b) = (tensor("a", "[2]", 0, 8), "b".to_owned());
    check(&[a.clone(), tensor("b", "[2]", 4, 12)], 12, HeaderFault::Overlap { tensor: b.clone() });
    check(&[a.clone(), tensor("b", "[2]", 0, 8)], 8, HeaderFault::Overlap { tensor: b.clone() });
    check(&[a.clone(), tensor("b", "[1]", 12, 8)], 12, HeaderFault::Overlap { tensor: b.clone() });
    check(&[a.clone(), tensor("b", "[1]", 12, 16)], 16, HeaderFault::Hole { tensor: b.clone(), bytes: 4 });
    check(&[tensor("b", "[1]", 4, 8)], 8, HeaderFault::Hole { tensor: b, bytes: 4 });
    check(std::slice::from_ref(&a), 11, HeaderFault::Trailing { bytes: 3 });
    let json_len = a.len() as u64 + 2;
    check(std::slice::from_ref(&a), 7, HeaderFault::Truncated { expected: 8 + json_len + 8, got: 8 + json_len + 7 });
    check(&[], 5, HeaderFault::Trailing { bytes: 5 });
}

#[test]
fn absurd_shapes() {
    let check = |shape: &str, start: u64, end: u64| {
        let fault = fault_of(&safetensors(&format!("{{{}}}", tensor("a", shape, start, end)), 8));
        assert!(matches!(fault, HeaderFault::Size { .. }), "{shape}: {fault}");
    };
    check("[3]", 0, 8);
    check("[18446744073709551615]", 0, 8);
    check("[4294967296,4294967296]", 0, 8);
    check("[4294967296,4294967296,0]", 0, 8);
    check("[2]", 0, u64::MAX);
    check("[0]", 0, 8);
    let far = safetensors(&format!("{{{}}}", tensor("a", "[4611686018427387903]", 0, 18_446_744_073_709_551_612)), 8);
    assert!(matches!(fault_of(&far), HeaderFault::Truncated { .. }));
}

#[test]
fn headers_that_are_too_long_or_too_short() {
    assert!(matches!(fault_of(b""), HeaderFault::Truncated { expected: 8, got: 0 }));
    assert!(matches!(fault_of(&[0; 7]), HeaderFault::Truncated { expected: 8, got: 7 }));
    assert!(matches!(fault_of(&[255; 64]), HeaderFault::TooLong { got: u64::MAX, .. }));
    let mut long = (25u64 << 20).to_le_bytes().to_vec();
    long.extend(b"{}");
    assert!(matches!(fault_of(&long), HeaderFault::Truncated { .. }));
    long[..8].copy_from_slice(&((25u64 << 20) + 1).to_le_bytes());
    assert!(matches!(fault_of(&long), HeaderFault::TooLong { .. }));
}

#[test]
fn headers_that_are_not_what_they_should_be() {
    let twice = format!("{{{},{}}}", tensor("a", "[1]", 0, 4), tensor("a", "[1]", 4, 8));
    assert_eq!(fault_of(&safetensors(&twice, 8)), HeaderFault::DuplicateKey { key: "a".to_owned() });
    let metadata = r#"{"__metadata__":{"run":"1","run":"2"}}"#;
    assert_eq!(fault_of(&safetensors(metadata, 0)), HeaderFault::DuplicateKey { key: "run".to_owned() });
    let metadata = r#"{"__metadata__":{},"__metadata__":{}}"#;
    assert_eq!(fault_of(&safetensors(metadata, 0)), HeaderFault::DuplicateKey { key: "__metadata__".to_owned() });
    let complex = tensor("a", "[1]", 0, 8).replace("F32", "C64");
    let expected = HeaderFault::Dtype { tensor: "a".to_owned(), dtype: "C64".to_owned() };
    assert_eq!(fault_of(&safetensors(&format!("{{{complex}}}"), 8)), expected);
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let bad = [
        "",
        " {}",
        "[]",
        "{",
        "{}}",
        "\u{feff}{}",
        r#"{"a":1}"#,
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"a":{"dtype":"F32","shape":[1]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"code":"import os"}}"#,
        r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        &deep,
    ];
    for json in bad {
        let fault = fault_of(&safetensors(json, 4));
        assert!(matches!(fault, HeaderFault::Json { .. }), "{}: {fault}", &json[..json.len().min(80)]);
    }
    let mut invalid = safetensors("{\"a\":0}", 0);
    invalid[10] = 0xff;
    assert!(matches!(fault_of(&invalid), HeaderFault::Json { .. }));
}

/// Cutting a sound file anywhere gives an error, never a panic and never a network.
#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let (population, _) = runs(0, 1, 1);
    weft_zoo::write_checkpoint(&path, &architecture(), population.row(0), &Metadata::new()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(matches!(weft_zoo::read_checkpoint(&path, &architecture()), Err(Error::Header { .. })), "{len} bytes");
    }
}

/// A tensor with its name and shape.
type Named = (String, Vec<usize>, Vec<f32>);

#[test]
fn checkpoints_of_something_else_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let values = [0.5f32; 12];
    let full =
        [("layers.0.weight", vec![3, 4]), ("layers.0.bias", vec![3]), ("layers.1.weight", vec![2, 3]), ("layers.1.bias", vec![2])];
    let check = |change: &dyn Fn(&mut Vec<Named>), name: &str, expected: Option<TensorFault>| {
        let mut tensors: Vec<_> =
            full.iter().map(|(n, s)| ((*n).to_owned(), s.clone(), values[..s.iter().product()].to_vec())).collect();
        change(&mut tensors);
        let views: Vec<_> = tensors.iter().map(|(n, s, v)| (n.clone(), s.clone(), v.as_slice())).collect();
        weft_zoo::write_tensors(&path, &views, &Metadata::new()).unwrap();
        match (weft_zoo::read_checkpoint(&path, &architecture()), expected) {
            (Ok(row), None) => assert_eq!(row, [0.5; 23]),
            (Err(Error::Tensor { tensor, fault, .. }), Some(expected)) => assert_eq!((tensor.as_str(), fault), (name, expected)),
            (result, expected) => panic!("{result:?}, expected {expected:?}"),
        }
    };
    check(&|_| {}, "", None);
    check(&|t| t.reverse(), "", None);
    check(&|t| _ = t.remove(1), "layers.0.bias", Some(TensorFault::Missing));
    let extra = TensorFault::Extra { architecture: "tiny".to_owned() };
    check(&|t| t.push(("layers.2.bias".to_owned(), vec![1], vec![0.0])), "layers.2.bias", Some(extra));
    let shape = TensorFault::Shape { expected: vec![3, 4], got: vec![4, 3] };
    check(&|t| t[0].1 = vec![4, 3], "layers.0.weight", Some(shape));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        check(&|t| t[2].2[5] = bad, "layers.1.weight", Some(TensorFault::NonFinite { index: 5 }));
    }
    std::fs::write(&path, safetensors(&format!("{{{}}}", tensor("layers.0.weight", "[0,9223372036854775808]", 0, 0)), 0)).unwrap();
    let sources = weft_zoo::open_sources(&path).unwrap();
    let refused = weft_zoo::infer(&sources[0], &weft_zoo::Hints::default()).unwrap_err();
    assert!(matches!(refused, Error::Domain { .. }), "{refused:?}");
    let folder = weft_zoo::read_checkpoint(dir.path(), &architecture()).unwrap_err();
    assert!(matches!(folder, Error::Io { .. }), "a folder is not a file: {folder}");
}

/// A zoo of three appends, and the paths of its shards in the order of their names.
fn zoo(path: &Path) -> (Zoo, Vec<PathBuf>) {
    let mut zoo = Zoo::create(path, "test", architecture(), None).unwrap();
    for i in 0..3 {
        let (population, records) = runs(4 * i, 4, 2);
        assert_eq!(zoo.append(&population, &records).unwrap().added, 8);
    }
    let mut shards: Vec<PathBuf> = std::fs::read_dir(path.join("shards")).unwrap().map(|f| f.unwrap().path()).collect();
    shards.sort();
    (zoo, shards)
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (zoo, shards) = zoo(dir.path());
    let entries = zoo.records(&Filter::default()).unwrap();
    let mut bytes = std::fs::read(&shards[1]).unwrap();
    let last = bytes.len() - 1;
    // The lowest bit of the exponent of the last bias of the shard's last network.
    bytes[last] ^= 1;
    std::fs::write(&shards[1], bytes).unwrap();
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(!report.is_clean() && report.faults.iter().all(|fault| fault.path == shards[1]), "{report:?}");
    let name = shards[1].file_stem().unwrap().to_string_lossy().into_owned();
    let victim = entries.iter().find(|e| e.shard().unwrap().to_string() == name && e.row() == Some(7)).unwrap();
    let named = format!("checkpoint {} of run `{}`", victim.record().digest.short(), victim.record().run);
    assert!(report.faults[0].reason.starts_with("its digest is"), "{report:?}");
    assert!(report.faults.len() == 2 && report.faults[1].reason.contains(&named), "{report:?}");
    match zoo.load(&entries, Purpose::Evaluate) {
        Err(Error::Corrupt { shard, row: 7, expected, .. }) => {
            assert_eq!((shard, expected), (shards[1].clone(), victim.record().digest));
        }
        other => panic!("{other:?}"),
    }
    let others: Vec<_> = entries.into_iter().filter(|e| e.shard().unwrap().to_string() != name).collect();
    assert_eq!(zoo.load(&others, Purpose::Evaluate).unwrap().len(), 16, "the rest can still be used");
}

#[test]
fn all_damage_is_listed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (zoo, shards) = zoo(dir.path());
    let entries = zoo.records(&Filter::default()).unwrap();
    let bytes = std::fs::read(&shards[0]).unwrap();
    std::fs::write(&shards[0], &bytes[..bytes.len() - 1]).unwrap();
    std::fs::copy(&shards[2], &shards[1]).unwrap();
    std::fs::remove_file(&shards[2]).unwrap();
    std::fs::write(dir.path().join("shards/notes.txt"), "mine").unwrap();
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    let of = |path: &Path| report.faults.iter().filter(|f| f.path == path).map(|f| f.reason.as_str()).collect::<Vec<_>>();
    assert!(of(&shards[0])[0].contains("its header speaks of"), "{report:?}");
    assert_eq!(of(&shards[1]).len(), 9, "the shard and each of its eight networks: {report:?}");
    assert!(of(&shards[2])[0].contains("cannot open"), "{report:?}");
    assert_eq!(of(&dir.path().join("shards/notes.txt")), ["not a file of a zoo"]);
    assert!(dir.path().join("shards/notes.txt").exists(), "what is not ours is not removed");
    assert!(report.removed.is_empty());
    assert!(zoo.load(&entries, Purpose::Evaluate).is_err());
}

/// The state that a process leaves when it is killed after the rename of its shard and before its commit.
#[test]
fn a_killed_append_leaves_a_valid_zoo_that_verify_can_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (mut zoo, shards) = zoo(dir.path());
    let (before, catalogue) = (zoo.digest().unwrap(), dir.path().join("catalogue.sqlite"));
    let committed = std::fs::read(&catalogue).unwrap();
    let (population, records) = runs(40, 2, 2);
    let _ = zoo.append(&population, &records).unwrap();
    let after = zoo.digest().unwrap();
    drop(zoo);
    std::fs::write(&catalogue, committed).unwrap();
    std::fs::write(dir.path().join("shards/.99-0.weft-tmp"), b"half a shard").unwrap();

    let mut zoo = Zoo::open(dir.path()).unwrap();
    assert_eq!(zoo.digest().unwrap(), before, "what was not acknowledged is not there");
    let entries = zoo.records(&Filter::default()).unwrap();
    assert_eq!(zoo.load(&entries, Purpose::Evaluate).unwrap().len(), 24, "what was acknowledged is");
    // The half-written file goes; the whole shard might be all that is left of what a newer catalogue knew.
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.removed.len(), report.unreferenced.len()), (1, 1));
    let whole = report.unreferenced[0].clone();
    assert!(whole.exists() && !shards.contains(&whole) && !report.removed[0].exists());
    let pruned = zoo.verify(Unreferenced::Prune, &Monitor::silent()).unwrap();
    assert!(pruned.is_clean() && pruned.removed == [whole.clone()] && !whole.exists(), "{pruned:?}");
    let again = zoo.verify(Unreferenced::Prune, &Monitor::silent()).unwrap();
    assert!(again.removed.is_empty() && again.unreferenced.is_empty(), "once is enough");
    assert_eq!(zoo.append(&population, &records).unwrap().added, 4);
    assert_eq!(zoo.digest().unwrap(), after, "the same append ends as if nothing had happened");
}

/// An old copy of the catalogue is put back: verification must not destroy what only the newer one knew.
#[test]
fn an_older_catalogue_costs_no_shard() {
    let dir = tempfile::tempdir().unwrap();
    let (mut zoo, _) = zoo(dir.path());
    let catalogue = dir.path().join("catalogue.sqlite");
    let old = std::fs::read(&catalogue).unwrap();
    let (population, records) = runs(40, 2, 2);
    let _ = zoo.append(&population, &records).unwrap();
    drop(zoo);
    let new = std::fs::read(&catalogue).unwrap();
    std::fs::write(&catalogue, old).unwrap();
    let report = Zoo::open(dir.path()).unwrap().verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(report.is_clean() && report.unreferenced.len() == 1 && report.removed.is_empty(), "{report:?}");
    std::fs::write(&catalogue, new).unwrap();
    let zoo = Zoo::open(dir.path()).unwrap();
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(report.is_clean() && report.unreferenced.is_empty() && report.checkpoints == 28, "{report:?}");
}

#[test]
fn a_write_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut zoo, _) = zoo(dir.path());
    let before = zoo.digest().unwrap();
    let (shards, aside) = (dir.path().join("shards"), dir.path().join("aside"));
    std::fs::rename(&shards, &aside).unwrap();
    let (population, records) = runs(40, 2, 2);
    assert!(matches!(zoo.append(&population, &records), Err(Error::Io { .. })));
    std::fs::rename(&aside, &shards).unwrap();
    assert_eq!(zoo.digest().unwrap(), before);
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(report.is_clean() && report.removed.is_empty(), "{report:?}");
    assert_eq!(zoo.append(&population, &records).unwrap().added, 4, "and can be tried again");
}

#[test]
fn a_damaged_catalogue_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(zoo(dir.path()));
    let catalogue = dir.path().join("catalogue.sqlite");
    let bytes = std::fs::read(&catalogue).unwrap();
    std::fs::write(&catalogue, b"not a database, and long enough to be looked at as one".repeat(100)).unwrap();
    assert!(matches!(Zoo::open(dir.path()), Err(Error::Catalogue { .. })));
    std::fs::write(&catalogue, b"").unwrap();
    assert!(matches!(Zoo::open(dir.path()), Err(Error::Version { got: 0, .. })));
    std::fs::write(&catalogue, &bytes[..bytes.len() / 2]).unwrap();
    let found = Zoo::open(dir.path()).and_then(|zoo| zoo.verify(Unreferenced::Keep, &Monitor::silent()));
    assert!(found.map_or(true, |report| !report.is_clean()), "half a catalogue is never clean");
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An idx file of two training images of 2 × 2, with another beginning, or with other data.
fn idx(numbers: &[u32], data: &[u8]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).chain(data.iter().copied()).collect()
}

#[test]
fn idx_files_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("train-labels-idx1-ubyte", &idx(&[0x801, 2], &[0, 1]));
    write("t10k-images-idx3-ubyte", &idx(&[0x803, 1, 2, 2], &[9; 4]));
    write("t10k-labels-idx1-ubyte", &idx(&[0x801, 1], &[1]));
    let check = |images: &[u8], expected: &str| {
        write("train-images-idx3-ubyte.gz", &gz(images));
        match weft_zoo::data::idx_folder(dir.path(), "mnist", 1) {
            Ok(data) => assert_eq!((expected, data.num_features(), data.num_classes()), ("", 4, 2)),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
        }
    };
    check(&idx(&[0x803, 2, 2, 2], &[7; 8]), "");
    check(&idx(&[0x801, 8], &[7; 8]), "magic number is 0x00000801");
    check(&idx(&[0x803, 2, 2, 2], &[7; 7]), "ends after 7 of 8 bytes");
    check(&idx(&[0x803, 2, 2, 2], &[7; 9]), "more than the 8 bytes");
    check(&idx(&[0x803, 2], &[]), "header cannot be read");
    check(&idx(&[0x803, 0, 2, 2], &[]), "its axes are");
    check(&idx(&[0x803, 3, 2, 2], &[7; 12]), "2 labels for 3 training images");
    check(&idx(&[0x803, 2, 4, 1], &[7; 8]), "");
    check(&idx(&[0x803, 2, 5, 1], &[7; 10]), "images have 4 values, the training images 5");
    check(&idx(&[0x803, u32::MAX, u32::MAX, u32::MAX], &[]), "its axes are");
    check(&idx(&[0x803, 60_000, 65_535, 2], &[]), "at most");
    // A small file that unpacks to much: no more than the header promises is ever unpacked.
    check(&idx(&[0x803, 2, 2, 2], &vec![0; 32 << 20]), "more than the 8 bytes");
    // A header that promises much: no more is allocated than comes.
    check(&idx(&[0x803, 2, 32_768, 32_767], &[7; 8]), "ends after 8 of");
    write("train-images-idx3-ubyte.gz", b"not gzip");
    assert!(matches!(weft_zoo::data::idx_folder(dir.path(), "mnist", 1), Err(Error::Data { .. })));
    std::fs::remove_file(dir.path().join("train-images-idx3-ubyte.gz")).unwrap();
    let missing = weft_zoo::data::idx_folder(dir.path(), "fashion-mnist", 1).unwrap_err().to_string();
    for part in ["`train-images-idx3-ubyte`", "dataset-fashion-mnist", dir.path().to_str().unwrap()] {
        assert!(missing.contains(part), "{missing}");
    }
}

/// An array of an npz file, as `NumPy` writes it, whatever the data.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), data].concat()
}

#[test]
fn npz_files_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.npz");
    let check = |name: &str, array: Vec<u8>, expected: &str| {
        let arrays = [
            ("x_train", npy("|u1", "(20, 2)", &[3; 40])),
            ("y_train", npy("<i4", "(20,)", &[0; 80])),
            ("x_test", npy("|u1", "(2, 2)", &[5; 4])),
            ("y_test", npy("|u1", "(2,)", &[1; 2])),
        ];
        let mut writer = npyz::npz::NpzWriter::create(&path).unwrap();
        for (key, sound) in &arrays {
            writer.zip_writer().start_file(format!("{key}.npy"), <_>::default()).unwrap();
            writer.zip_writer().write_all(if *key == name { &array } else { sound }).unwrap();
        }
        drop(writer);
        match weft_zoo::data::npz(&path, "test") {
            Ok(data) => assert_eq!((expected, data.num_classes(), data.range(weft_core::Part::Validation)), ("", 2, 18..20)),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
        }
    };
    check("", vec![], "");
    check("x_train", npy("<f4", "(20, 2)", &[0; 160]), "differ from training examples");
    check("x_train", npy("|O", "(20, 2)", &[0; 160]), "`|O`");
    check("x_train", npy("|u1", "(20, 2)", &[0; 39]), "ends after 39 of 40 bytes");
    check("x_train", npy("|u1", "(20, 2)", &vec![0; 32 << 20]), "more than the 40 bytes");
    check("x_train", npy("|u1", "(4294967296, 4294967296, 2)", &[]), "has shape");
    check("x_train", npy("|u1", "(20, 4294967296)", &[]), "at most");
    check("x_train", npy("|u1", "(19, 2)", &[0; 38]), "`x_train` has shape [19, 2], `y_train` [20]");
    check("y_test", npy("|i1", "(2,)", &[255, 0]), "which is not a class");
    check("y_test", npy("<f4", "(2,)", &[0, 0, 0xc0, 0x7f, 0, 0, 0, 0]), "which is not a class");
    check("y_test", npy("<u4", "(2,)", &[0, 0, 2, 0, 0, 0, 0, 0]), "label 131072 is not a class");
    check("y_test", b"\x93NUMPX".repeat(4), "magic");
    check("y_test", [b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes()].concat(), "header would be");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(weft_zoo::data::npz(&path, "test"), Err(Error::Data { .. })));
    assert!(matches!(weft_zoo::data::npz(&dir.path().join("absent.npz"), "test"), Err(Error::DataMissing { .. })));
}

#[test]
fn handfuls_of_examples_are_whole_finite_and_labelled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("few.npz");
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let check = |x: Vec<u8>, y: Vec<u8>, expected: &str| {
        let mut writer = npyz::npz::NpzWriter::create(&path).unwrap();
        for (key, array) in [("x", x), ("y", y)] {
            writer.zip_writer().start_file(format!("{key}.npy"), <_>::default()).unwrap();
            writer.zip_writer().write_all(&array).unwrap();
        }
        drop(writer);
        let error = weft_zoo::data::examples(&path).unwrap_err();
        let all = format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
        assert!(all.contains(expected), "{all}");
    };
    let (x, y) = (|| npy("<f4", "(2, 1, 3)", &floats(&[0.5; 6])), || npy("|u1", "(2,)", &[0, 1]));
    check(x(), npy("|u1", "(3,)", &[0, 1, 1]), "`x` has shape [2, 1, 3], `y` [3]");
    check(x(), npy("<f4", "(2,)", &floats(&[0.5, 1.0])), "`y` has the value 0.5, which is not a class");
    check(
        npy("<f4", "(2, 3)", &floats(&[0.5, 1.0, 2.0, 3.0, f32::INFINITY, 0.0])),
        y(),
        "example 1 has a value that is not finite",
    );
    check(npy("<f4", "(0, 3)", &[]), npy("|u1", "(0,)", &[]), "has shape");
    check(npy("<f4", "(2, 3)", &[0; 23]), y(), "ends after 23 of 24 bytes");
    check(npy("|O", "(2, 3)", &[0; 24]), y(), "`|O`");
    let mut writer = npyz::npz::NpzWriter::create(&path).unwrap();
    for (key, array) in [("x", npy("|u1", "(2, 3)", &[0, 51, 255, 0, 0, 255])), ("y", y())] {
        writer.zip_writer().start_file(format!("{key}.npy"), <_>::default()).unwrap();
        writer.zip_writer().write_all(&array).unwrap();
    }
    drop(writer);
    let examples = weft_zoo::data::examples(&path).unwrap();
    let refusal = weft_zoo::data::examples(&dir.path().join("absent.npz")).unwrap_err().to_string();
    assert!(refusal.contains("looked for an npz archive of `x`, examples, and `y`, a label for each in"), "{refusal}");
    assert_eq!((examples.num_features(), examples.labels()), (3, &[0, 1][..]));
    assert!(examples.inputs().iter().zip([0.0, 0.2, 1.0, 0.0, 0.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6), "bytes are scaled");
    assert!(matches!(weft_zoo::data::examples(&dir.path().join("absent.npz")), Err(Error::DataMissing { .. })));
}

#[test]
fn handfuls_of_inputs_are_whole_and_finite_and_their_labels_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inputs.npz");
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let write = |arrays: &[(&str, Vec<u8>)]| {
        let mut writer = npyz::npz::NpzWriter::create(&path).unwrap();
        for (key, array) in arrays {
            writer.zip_writer().start_file(format!("{key}.npy"), <_>::default()).unwrap();
            writer.zip_writer().write_all(array).unwrap();
        }
    };
    let check = |arrays: &[(&str, Vec<u8>)], expected: &str| {
        write(arrays);
        let error = weft_zoo::data::inputs(&path).unwrap_err();
        let all = format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
        assert!(all.contains(expected), "{all}");
    };
    let x = || npy("<f4", "(2, 1, 3)", &floats(&[0.5, 1.0, 2.0, 3.0, 4.0, 5.0]));
    check(&[("y", npy("|u1", "(2,)", &[0, 1]))], "is not an npz archive of `x` (or `inputs`), one or more inputs: `x`: ");
    check(&[("x", npy("<f4", "(0, 3)", &[]))], "`x` has shape [0, 3]");
    check(&[("x", npy("<f4", "(3, 0)", &[]))], "`x` has shape [3, 0]");
    check(&[("x", npy("<f4", "(3,)", &floats(&[0.0; 3])))], "`x` has shape [3], expected a row for each input");
    check(&[("x", npy("<f4", "()", &floats(&[0.0])))], "expected a row for each input");
    check(&[("x", npy("<f4", "(2, 3)", &[0; 23]))], "ends after 23 of 24 bytes");
    check(&[("x", npy("|O", "(2, 3)", &[0; 24]))], "`|O`");
    check(
        &[("x", npy("<f4", "(2, 2)", &floats(&[0.5, 1.0, f32::NAN, 0.0])))],
        "example inputs: input 1 has a value that is not finite",
    );
    check(&[("x", npy("<f8", "(1, 1)", &1e300f64.to_le_bytes()))], "input 0 has a value that is not finite");
    check(&[("x", npy("|u1", "(1024, 1048576)", &[]))], "it would hold 1073741824 bytes, at most 134217728 are read");

    // Whatever the labels are, even none that could be: the inputs are the same.
    write(&[("x", x())]);
    let (unlabelled, has_labels) = weft_zoo::data::inputs(&path).unwrap();
    assert_eq!((unlabelled.count(), unlabelled.inputs(), has_labels), (2, &[0.5, 1.0, 2.0, 3.0, 4.0, 5.0][..], false));
    for labels in [npy("|u1", "(2,)", &[0, 1]), npy("<f4", "(3,)", &floats(&[f32::NAN; 3])), b"nothing".to_vec()] {
        write(&[("y", labels), ("x", x())]);
        assert_eq!(weft_zoo::data::inputs(&path).unwrap(), (unlabelled.clone(), true));
    }
    write(&[("inputs", npy("|u1", "(1, 2)", &[0, 255]))]);
    let (named, _) = weft_zoo::data::inputs(&path).unwrap();
    assert_eq!(named.inputs(), [0.0, 1.0], "bytes are scaled");
    let absent = weft_zoo::data::inputs(&dir.path().join("absent.npz")).unwrap_err();
    assert!(absent.to_string().contains("looked for an npz archive of `x` (or `inputs`), one or more inputs in"), "{absent}");
}
