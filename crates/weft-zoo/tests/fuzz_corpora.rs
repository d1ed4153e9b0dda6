//! Replays the corpora of the fuzz targets: what once was found, and what fuzzing starts from.

#[expect(unreachable_pub, reason = "a crate of its own where it comes from")]
#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn corpora() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, _) in fuzz::TARGETS {
        let mut inputs: Vec<_> = std::fs::read_dir(corpora.join(target)).unwrap().map(|input| input.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "no input for `{target}`");
        let folder = tempfile::tempdir().unwrap();
        for input in inputs {
            let whole = std::fs::read(&input).unwrap();
            fuzz::run(target, folder.path(), &whole);
            // Every input is the first of many: with each of its bytes changed in turn, and cut there.
            for at in (0..whole.len()).step_by(whole.len().div_ceil(200).max(1)) {
                let mut changed = whole.clone();
                changed[at] ^= 0x55;
                fuzz::run(target, folder.path(), &changed);
                fuzz::run(target, folder.path(), &whole[..at]);
            }
        }
    }
    // The folder that fuzz targets use is not needed here, but it is made as they do.
    let own = fuzz::folder();
    assert!(own.is_dir());
    std::fs::remove_dir(own).unwrap();
}
