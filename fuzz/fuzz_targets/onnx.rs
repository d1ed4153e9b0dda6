//! Fuzzes the reader of ONNX models.
#![no_main]

use std::sync::LazyLock;

static FOLDER: LazyLock<std::path::PathBuf> = LazyLock::new(weft_fuzz::folder);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::run("onnx", &FOLDER, bytes));
