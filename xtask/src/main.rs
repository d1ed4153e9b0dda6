//! Chores of the workspace: `cargo run -p xtask -- readme weft-quickstart` brings the README's picture and figures up to
//! date with the output of a quickstart; `cargo run -p xtask -- results PAGE REPORT…` writes the tables of
//! `docs/results/PAGE.md` from the `report.json` of runs of one run file under different seeds.
//!
//! The house style is enforced by `tests/tidy.rs`.

mod adapters;
mod figures;
mod picture;
mod results;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["readme", output] => readme(Path::new(output)),
        ["results", page, ref reports @ ..] if !reports.is_empty() => results(page, reports),
        _ => Err("usage: cargo run -p xtask -- readme OUTPUT-OF-A-QUICKSTART | results PAGE REPORT...".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // With stderr gone there is no one left to tell.
            let _ = writeln!(std::io::stderr(), "error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Cuts the picture out of the report page, and writes the report's figures between their marks in the README.
fn readme(output: &Path) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies in the workspace")?;
    let page = read(&output.join("report.html"))?;
    let svg = picture::of_report(&page).ok_or("the report has no scatter plot")?;
    let table = figures::of_report(&read(&output.join("report.json"))?)?;
    let readme = figures::between_marks(&read(&root.join("README.md"))?, &table).ok_or("the README has no marks for figures")?;
    write(&root.join("docs/images/quickstart.svg"), &svg)?;
    write(&root.join("README.md"), &readme)
}

/// Writes the tables between the marks of a results page.
fn results(page: &str, reports: &[&str]) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies in the workspace")?;
    let path = root.join("docs/results").join(format!("{page}.md"));
    let reports = reports.iter().map(|report| read(Path::new(report))).collect::<Result<Vec<_>, _>>()?;
    let filled = figures::between_marks(&read(&path)?, &results::tables(&reports)?).ok_or("the page has no marks for figures")?;
    write(&path, &filled)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("cannot write `{}`: {e}", path.display()))
}
