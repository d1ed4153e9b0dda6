//! Published files, from the folder that `WEFT_DATA` names.

use std::io::Write as _;
use std::path::PathBuf;
use weft_core::families::Family;
use weft_zoo::{Hints, infer, open_sources};

/// A file of the data folder; without it, the test says that it is skipped.
fn data(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("WEFT_DATA").map(|folder| PathBuf::from(folder).join(name)).filter(|path| path.exists());
    if path.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: WEFT_DATA names no folder with `{name}`");
    }
    path
}

#[test]
fn stories260k_is_a_llama() {
    let Some(path) = data("stories260k/stories260K.bin") else { return };
    let source = open_sources(&path).unwrap().remove(0);
    let inferred = infer(&source, &Hints::default()).unwrap();
    let built_in = weft_zoo::find_architecture(std::path::Path::new("stories260k")).unwrap();
    assert!(inferred.architecture.same_graph(&built_in), "{:?}", inferred.family);
    assert!(inferred.notes.is_empty(), "{:?}", inferred.notes);
    let row = inferred.binding.bind(&source, &inferred.architecture).unwrap();
    assert_eq!(row.len(), 260_032);
}

#[test]
fn the_hexells_are_one_architecture() {
    let Some(path) = data("hexells_models.json") else { return };
    let sources = open_sources(&path).unwrap();
    assert_eq!(sources.len(), 173);
    let built_in = weft_zoo::find_architecture(std::path::Path::new("hexells")).unwrap();
    let mut digests = std::collections::BTreeSet::new();
    for source in &sources {
        let inferred = infer(source, &Hints::default()).unwrap();
        assert!(inferred.architecture.same_graph(&built_in));
        digests.insert(weft_core::Digest::of_weights(&built_in, &inferred.binding.bind(source, &built_in).unwrap()));
    }
    assert_eq!(digests.len(), 173);
}

/// Unpacked from a package as `docs/guides/architectures.md` says.
#[test]
fn minilm_is_a_bert() {
    let Some(path) = data("minilm/model.safetensors") else { return };
    let source = open_sources(&path).unwrap().remove(0);
    let inferred = infer(&source, &Hints::default()).unwrap();
    let Some(Family::Bert(bert)) = &inferred.family else { panic!("{:?}", inferred.family) };
    assert_eq!((bert.d_model, bert.depth, bert.num_heads, bert.d_hidden), (384, 6, 12, 1536));
    let row = inferred.binding.bind(&source, &inferred.architecture).unwrap();
    assert_eq!(row.len(), 22_713_216);
}

#[test]
fn a_wake_word_is_the_built_in_architecture() {
    let Some(path) = data("openwakeword/en/Alice/Alice.onnx") else { return };
    let network = weft_zoo::onnx::read_onnx(&path).unwrap();
    let built_in = weft_zoo::find_architecture(std::path::Path::new("openwakeword")).unwrap();
    assert!(network.architecture.same_graph(&built_in), "{:?}", network.architecture);
}
