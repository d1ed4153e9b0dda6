//! The `README.md` of an export: what is in the folder, whose it is, and how to load it.

use super::{ExportForm, Planned};
use crate::zoo::Zoo;
use crate::{Error, Result, write_atomic};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use weft_core::Record;

const FILE_NAME: &str = "README.md";

/// Begins every such file, so that a user's own is never replaced.
const MARK: &str = "<!-- Written by `weft zoo export`, anew at each export into this folder. -->\n";

/// The most tensors that are listed.
const MAX_TENSORS: usize = 100;

/// The longest text that is shown of what a catalogue says, in characters.
const MAX_TEXT: usize = 200;

/// What an export wrote.
pub(super) struct Contents<'a> {
    pub(super) zoo: &'a Zoo,
    pub(super) form: &'a ExportForm,
    pub(super) planned: &'a [Planned<'a>],
}

/// Refuses a folder with a `README.md` that no export wrote.
pub(super) fn check_replaceable(folder: &Path) -> Result<()> {
    let path = folder.join(FILE_NAME);
    let mut start = Vec::new();
    match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("open", &path)(error)),
        Ok(file) => {
            let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, MARK.len() as u64), &mut start);
            read.map_err(Error::io("read", &path))?;
        }
    }
    if start == MARK.as_bytes() { Ok(()) } else { Err(Error::Exists { path }) }
}

pub(super) fn write(contents: &Contents<'_>, folder: &Path) -> Result<()> {
    let Contents { zoo, form, planned } = contents;
    let architecture = zoo.architecture();
    let mut text = format!("{MARK}\n# {} of {}\n\n", count(planned.len(), "network"), plain(zoo.name()));
    let _ = writeln!(
        text,
        "Architecture {}, {} weights each, exported by weft {} as {}.\n",
        plain(architecture.name()),
        architecture.num_parameters(),
        env!("CARGO_PKG_VERSION"),
        match form {
            ExportForm::Safetensors(_) => "safetensors",
            ExportForm::Npz(_) => "npz archives",
            ExportForm::Onnx(_) => "ONNX models",
        }
    );
    text.push_str("## Loading\n\n");
    text.push_str(&loading(contents)?);
    text.push_str(&licences(planned));
    text.push_str("## Networks\n\n| file | run | licence | origin | parents |\n|---|---|---|---|---|\n");
    for plan in *planned {
        let record = plan.entry.record();
        let parents: Vec<String> = record.provenance.parents.iter().take(10).map(weft_core::Digest::short).collect();
        let (run, licence) = (plain(&record.run), plain(&record.provenance.licence));
        let _ = writeln!(text, "| {} | {run} | {licence} | {} | {} |", plan.file_name, origin(record), parents.join(" "));
    }
    text.push_str(
        "\nA file's name begins with the digest of its network's weights, which no format changes; parents are digests too.\n",
    );
    write_atomic(&folder.join(FILE_NAME), text.as_bytes())
}

/// How the first file is loaded.
fn loading(contents: &Contents<'_>) -> Result<String> {
    let Some(first) = contents.planned.first() else { return Ok(String::new()) };
    let file = &first.file_name;
    let mut text = match contents.form {
        ExportForm::Safetensors(_) => format!(
            "PyTorch; nothing is unpickled:\n\n```python\nfrom safetensors.torch import load_file\n\n\
             state_dict = load_file(\"{file}\")\nmodel.load_state_dict(state_dict)  # names and shapes as below\n```\n"
        ),
        ExportForm::Npz(_) => format!(
            "NumPy; nothing is unpickled:\n\n```python\nimport numpy\n\n\
             with numpy.load(\"{file}\", allow_pickle=False) as arrays:\n    \
             weights = {{name: arrays[name] for name in arrays.files}}  # names and shapes as below\n```\n"
        ),
        ExportForm::Onnx(_) => {
            let model = match &first.layout {
                super::layout::Layout::Model(original) => crate::onnx::read_onnx(original)?,
                _ => return Ok(String::new()),
            };
            let axes: Vec<String> = std::iter::once(1).chain(model.input_shape).map(|axis| axis.to_string()).collect();
            format!(
                "Each is the model that its network came from, with other weights in it: it takes that model's place in an\n\
                 application. By hand, with ONNX Runtime:\n\n```python\nimport numpy, onnxruntime\n\n\
                 session = onnxruntime.InferenceSession(\"{file}\", providers=[\"CPUExecutionProvider\"])\n\
                 example = numpy.zeros(({},), numpy.float32)\n\
                 (output,) = session.run(None, {{session.get_inputs()[0].name: example}})\n```\n\n",
                axes.join(", ")
            )
        }
    };
    if !matches!(contents.form, ExportForm::Onnx(_)) {
        let shapes = first.layout.shapes(contents.zoo.architecture());
        let _ = writeln!(text, "\n| tensor of {file} | shape |\n|---|---|");
        for (name, shape) in shapes.iter().take(MAX_TENSORS) {
            let _ = writeln!(text, "| {} | {shape:?} |", plain(name));
        }
        if shapes.len() > MAX_TENSORS {
            let _ = writeln!(text, "\nand {} more.", shapes.len() - MAX_TENSORS);
        }
        text.push('\n');
    }
    Ok(text)
}

fn licences(planned: &[Planned<'_>]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for plan in planned {
        *counts.entry(&plan.entry.record().provenance.licence).or_default() += 1;
    }
    let mut text = "## Licences\n\n".to_owned();
    for (licence, number) in counts {
        let _ = writeln!(text, "- {}: {}", plain(licence), count(number, "network"));
    }
    text.push_str("\nThese are what the networks' files or their authors stated, as the catalogue has it.\n\n");
    text
}

/// Where a network came from.
fn origin(record: &Record) -> String {
    let provenance = &record.provenance;
    let mut text = plain(&provenance.source);
    if provenance.synthetic {
        text.push_str(", made by a generator");
    }
    if let Some(sha256) = &provenance.file_sha256 {
        let _ = write!(text, ", SHA-256 {sha256}");
    }
    text
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Text of others as text of Markdown: on one line, of some length, and without a meaning.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars().take(MAX_TEXT) {
        match c {
            c if c.is_control() => plain.push(' '),
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '#' | '|' | '!' | '~' | '>' => plain.extend(['\\', c]),
            c => plain.push(c),
        }
    }
    if text.chars().nth(MAX_TEXT).is_some() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_means_nothing() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected);
        check("a|b\n# c", "a\\|b \\# c");
        check("<script>", "&lt;script\\>");
        check("[x](y)", "\\[x\\]\\(y\\)");
        check(&"x".repeat(201), &("x".repeat(200) + "…"));
    }
}
