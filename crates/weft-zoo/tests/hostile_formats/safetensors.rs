//! safetensors files, whole and in shards.

use crate::make::{open, open_in, safetensors, truncations};
use weft_zoo::{Error, HeaderFault, Source, SourceDtype, SourceFault, TensorFault, open_sources};

fn header(name: &str, bytes: &[u8]) -> HeaderFault {
    match open(name, bytes) {
        Err(Error::Header { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

fn entry(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn file(entries: &[String], data: &[u8]) -> Vec<u8> {
    safetensors(&format!("{{{}}}", entries.join(",")), data)
}

#[test]
fn headers() {
    let a = entry("a", "F32", "[2]", 0, 8);
    truncations("a.safetensors", &file(&[a.clone(), entry("b", "F32", "[64]", 8, 264)], &[0; 264]));
    let mut long = vec![0, 0, 0, 0, 0, 0, 0, 0x80];
    long.extend(b"{}");
    assert_eq!(header("a.safetensors", &long), HeaderFault::TooLong { got: 1 << 63, limit: 25 << 20 });
    let overlapping = file(&[a.clone(), entry("b", "F32", "[2]", 4, 12)], &[0; 12]);
    // Its content tells the format, whatever its name.
    assert_eq!(header("a.dat", &overlapping), HeaderFault::Overlap { tensor: "b".to_owned() });
    let twice = file(&[a.clone(), a], &[0; 8]);
    assert_eq!(header("a.safetensors", &twice), HeaderFault::DuplicateKey { key: "a".to_owned() });
    let absurd = file(&[entry("a", "I8", "[4294967296,4294967296]", 0, 0)], &[]);
    assert!(matches!(header("a.safetensors", &absurd), HeaderFault::Size { .. }));
    assert!(matches!(header("a.safetensors", &file(&[entry("a", "F4", "[2]", 0, 1)], &[0])), HeaderFault::Dtype { .. }));
}

fn only(bytes: &[u8]) -> Result<Source, Error> {
    // The map stays whole when the file's name goes.
    Ok(open("a.safetensors", bytes)?.remove(0))
}

#[test]
fn integers_do_not_spoil_a_file() {
    let entries = [
        entry("bias", "F32", "[1]", 0, 4),
        entry("ids", "I64", "[1]", 4, 12),
        entry("mask", "BOOL", "[2]", 12, 14),
        entry("raw", "U8", "[2]", 14, 16),
    ];
    let source = only(&file(&entries, &[0, 0, 0x80, 0x3f, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9, 255])).unwrap();
    assert_eq!(source.read("bias").unwrap(), [1.0]);
    assert_eq!(source.read_raw("ids").unwrap(), [7.0]);
    assert_eq!(source.read_raw("mask").unwrap(), [1.0, 0.0]);
    for (name, dtype) in [("ids", SourceDtype::I64), ("mask", SourceDtype::Bool), ("raw", SourceDtype::U8)] {
        match source.read(name) {
            Err(Error::Tensor { tensor, fault, .. }) => assert_eq!((&*tensor, fault), (name, TensorFault::Dtype { dtype })),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(source.read("none"), Err(Error::Tensor { fault: TensorFault::Missing, .. })));
}

#[test]
fn values_that_are_not_finite_can_be_reported() {
    for (i, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
        let mut values = [1.0f32; 3];
        values[i] = bad;
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let source = only(&file(&[entry("w", "F32", "[3]", 0, 12)], &data)).unwrap();
        assert_eq!(source.first_non_finite().unwrap(), Some(("w".to_owned(), i)));
        assert_eq!(source.read("w").unwrap()[i].to_bits(), bad.to_bits());
    }
}

#[test]
fn scales_that_do_not_fit() {
    let check = |weight: (&str, &str, u64), scale: (&str, &str, &str, u64), expected: &str| {
        let end = weight.2 + scale.3;
        let entries = [entry("w.weight", weight.0, weight.1, 0, weight.2), entry(scale.0, scale.1, scale.2, weight.2, end)];
        let error = only(&file(&entries, &vec![0; end as usize])).unwrap_err();
        assert!(matches!(error, Error::Tensor { fault: TensorFault::Scale { .. }, .. }), "{error}");
        assert!(error.to_string().contains("`w.weight`") && error.to_string().contains(expected), "{error}");
    };
    check(("I8", "[2,3]", 6), ("w.weight_scale", "F32", "[3]", 12), "[3] does not fit [2, 3]");
    check(("I8", "[2,3]", 6), ("w.weight_scale", "I32", "[2]", 8), "dtype I32");
    check(("I8", "[2,3]", 6), ("w.SCB", "F32", "[3]", 12), "does not fit");
    check(("F8_E4M3", "[2,3]", 6), ("w.weight_scale_inv", "F32", "[2]", 8), "does not fit");
    check(("F8_E4M3", "[200,3]", 600), ("w.weight_scale_inv", "F32", "[1,2]", 8), "does not fit");
    let three = |second: &str| {
        let scale = entry("w.weight_scale", "F32", "[]", 2, 6);
        only(&file(&[entry("w.weight", "I8", "[2]", 0, 2), scale, entry(second, "F32", "[]", 6, 10)], &[0; 10]))
    };
    assert!(three("w.weight_zero_point").unwrap_err().to_string().contains("zero point"));
    assert!(three("w.weight.scale").unwrap_err().to_string().contains("`w.weight.scale` is there as well"));
    let layout =
        [entry("w.weight", "I8", "[2,1]", 0, 2), entry("w.SCB", "F32", "[2]", 2, 10), entry("w.weight_format", "U8", "[]", 10, 11)];
    assert!(only(&file(&layout, &[1; 11])).unwrap_err().to_string().contains("row by row"));
}

/// An index and the files beside it.
fn shards(index: &str, files: &[(&str, Vec<u8>)]) -> Result<Vec<Source>, Error> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    open_in(dir.path(), "model.safetensors.index.json", index.as_bytes())
}

fn shard_fault(index: &str, files: &[(&str, Vec<u8>)]) -> SourceFault {
    match shards(index, files) {
        Err(Error::Source { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn indices() {
    let a = || vec![("a.safetensors", file(&[entry("a", "F32", "[1]", 0, 4)], &[0; 4]))];
    let sound = r#"{"metadata": {"total_size": 4}, "weight_map": {"a": "a.safetensors"}}"#;
    assert_eq!(shards(sound, &a()).unwrap()[0].read("a").unwrap(), [0.0]);
    for len in 0..sound.len() {
        assert!(matches!(shard_fault(&sound[..len], &a()), SourceFault::Malformed { .. }), "{len}");
    }
    let tensor = || "a".to_owned();
    let missing = SourceFault::MissingFile { name: "b.safetensors".to_owned() };
    assert_eq!(shard_fault(r#"{"weight_map": {"a": "b.safetensors"}}"#, &a()), missing);
    let elsewhere = SourceFault::MissingTensor { tensor: "b".to_owned(), file: "a.safetensors".to_owned() };
    assert_eq!(shard_fault(r#"{"weight_map": {"a": "a.safetensors", "b": "a.safetensors"}}"#, &a()), elsewhere);
    let twice = r#"{"weight_map": {"a": "a.safetensors", "a": "a.safetensors"}}"#;
    assert_eq!(shard_fault(twice, &a()), SourceFault::Duplicate { name: tensor() });
    let mut two = a();
    two.push(("b.safetensors", file(&[entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 4, 8)], &[0; 8])));
    let unlisted = SourceFault::UnlistedTensor { tensor: tensor(), file: "b.safetensors".to_owned() };
    assert_eq!(shard_fault(r#"{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}"#, &two), unlisted);
    assert_eq!(shard_fault(r#"{"weight_map": {}}"#, &a()), SourceFault::Empty);
    for text in [r#"{"weight_map": {"a": 1}}"#, r#"{"weight_map": []}"#, r#"{"metadata": {}}"#, "[]", "{}"] {
        assert!(matches!(shard_fault(text, &[]), SourceFault::Malformed { .. }), "{text}");
    }
    let broken = shards(sound, &[("a.safetensors", vec![0; 7])]);
    assert!(matches!(broken, Err(Error::Header { fault: HeaderFault::Truncated { .. }, .. })));
}

#[test]
fn indices_do_not_lead_out_of_their_folder() {
    let names = [
        "../a.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        "sub/a.safetensors",
        "a\\\\b",
        "./a.safetensors",
        "c:a",
        "a.safetensors/",
    ];
    for name in names {
        let index = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        let expected = SourceFault::Outside { name: name.replace("\\\\", "\\") };
        assert_eq!(shard_fault(&index, &[]), expected, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_the_folder_either() {
    let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = file(&[entry("a", "F32", "[1]", 0, 4)], &[0; 4]);
    std::fs::write(outside.path().join("a.safetensors"), &bytes).unwrap();
    std::os::unix::fs::symlink(outside.path().join("a.safetensors"), inside.path().join("a.safetensors")).unwrap();
    let index = inside.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"a": "a.safetensors"}}"#).unwrap();
    match open_sources(&index) {
        Err(Error::Source { fault, .. }) => assert_eq!(fault, SourceFault::Outside { name: "a.safetensors".to_owned() }),
        other => panic!("{other:?}"),
    }
    // A link to a file of the same folder is no way out.
    std::fs::remove_file(inside.path().join("a.safetensors")).unwrap();
    std::fs::write(inside.path().join("b.safetensors"), &bytes).unwrap();
    std::os::unix::fs::symlink("b.safetensors", inside.path().join("a.safetensors")).unwrap();
    assert_eq!(open_sources(&index).unwrap()[0].files().len(), 2);
}
