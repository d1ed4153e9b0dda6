//! Files of every format that want to do harm, or that a disk has damaged: each is refused with its own error, and
//! nothing of it is believed.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod make;
mod others;
mod pytorch;
mod safetensors;
mod zip;

use weft_zoo::{Error, open_sources};

#[test]
fn files_of_no_known_format() {
    let text = |name: &str, bytes: &[u8]| match make::open(name, bytes) {
        Err(error @ Error::UnknownFormat { .. }) => error.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    for known in ["safetensors", "PyTorch", "npz", "PEFT", "llama2.c", "hexells", "index.json"] {
        assert!(text("notes.txt", b"hello").contains(known), "{known}");
    }
    for name in ["empty", "net.onnx", "a.json"] {
        text(name, b"");
    }
    assert!(text("a.json", br#"{"a": 1}"#).contains("weight_map"));
    assert!(text("a.json", br#"{"a": "#).contains("no valid JSON"));
    assert!(text("a.zip", &make::zip(&[make::Entry::stored("a.txt", b"hello")])).contains("without `data.pkl`"));
    assert!(text("tokens.bin", b"\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").contains("llama2.c"));
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert!(text("a.json", deep.as_bytes()).contains("JSON"));
}

#[test]
fn folders_and_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let error = open_sources(dir.path()).unwrap_err();
    assert!(error.to_string().contains("the folder has none of `adapter_config.json`"), "{error}");
    assert!(matches!(open_sources(&dir.path().join("absent")), Err(Error::Io { .. })));
    #[cfg(unix)]
    assert!(matches!(open_sources(std::path::Path::new("/dev/null")), Err(Error::Io { .. })));
}
