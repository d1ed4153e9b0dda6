//! Real data from the folder that the environment variable `WEFT_DATA` names; without it these tests say that
//! they were skipped, and pass.

mod adapters;
mod data;
mod devices;
mod run;
mod text;

/// Trainings on two devices, as those of small networks are compared.
#[path = "../../../weft-net/tests/shared/devices.rs"]
mod on_devices;

use std::path::PathBuf;

/// A file or folder of the data folder, or `None` with a word about it.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("WEFT_DATA").filter(|folder| !folder.is_empty()).map(|folder| PathBuf::from(folder).join(name));
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        // Straight to stderr: the test harness shows it even of tests that pass.
        let note = format!("skipped: WEFT_DATA names no folder with `{name}`\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes());
    }
    found
}
