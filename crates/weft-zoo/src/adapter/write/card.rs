//! What a written adapter says of itself: metadata, `weft.json` and a model card.

use super::super::AdapterWeights;
use super::{AdapterExport, AdapterProfile};
use crate::tensors::Metadata;
use crate::{Result, rotary_name, write_atomic};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// No more of a parent's model card is read.
const MAX_CARD_BYTES: u64 = 256 << 10;

/// Where an adapter comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdapterProvenance {
    /// What it was made of.
    pub parents: Vec<AdapterParent>,
    /// The command, or the configuration as text, that makes it again.
    pub configuration: String,
    /// Whether a generator made it, rather than training.
    pub synthetic: bool,
    /// Tags beside `lora` and `weft`.
    pub tags: Vec<String>,
}

/// One of the files that an adapter was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterParent {
    /// Its name: the last part of its path.
    pub name: String,
    /// The SHA-256 of its weights' file, in hexadecimal.
    pub sha256: String,
    /// Its licence as an SPDX expression, or `unknown`.
    pub licence: String,
}

/// The licence of an adapter's folder: what its model card says, else what its licence file is, else `unknown`.
#[must_use]
pub fn licence_beside(folder: &Path) -> String {
    let mut text = String::new();
    let read = |text: &mut String| -> std::io::Result<usize> {
        let card = folder.join("README.md");
        // Opening a pipe would wait for one that writes.
        if !card.metadata()?.is_file() {
            return Ok(0);
        }
        let file = std::fs::File::open(card)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_CARD_BYTES), text)
    };
    // A card that is not there or no text says nothing.
    let said = read(&mut text).ok().and_then(|_| of_card(&text));
    said.or_else(|| crate::import::licence::in_folder(folder)).unwrap_or_else(|| "unknown".to_owned())
}

/// The `license` of a card's front matter.
fn of_card(card: &str) -> Option<String> {
    let front = card.strip_prefix("---\n")?.split("\n---").next()?;
    let licence = front.lines().find_map(|line| line.strip_prefix("license:"))?.trim().trim_matches(['"', '\'']);
    let plain =
        !licence.is_empty() && licence.len() < 100 && licence.chars().all(|c| c.is_ascii_alphanumeric() || "-.+ ()".contains(c));
    plain.then(|| licence.to_owned())
}

/// The licences of all parents, each once.
fn licences(provenance: &AdapterProvenance) -> BTreeSet<&str> {
    provenance.parents.iter().map(|parent| parent.licence.as_str()).collect()
}

/// The text entries of the file of weights.
pub(super) fn metadata(adapter: &AdapterWeights, export: &AdapterExport<'_>) -> Metadata {
    let provenance = export.provenance;
    let mut metadata = Metadata::from([
        // transformers refuses files that do not say it.
        ("format".to_owned(), "pt".to_owned()),
        ("weft.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("weft.profile".to_owned(), export.profile.name().to_owned()),
        ("weft.configuration".to_owned(), provenance.configuration.clone()),
        ("weft.synthetic".to_owned(), provenance.synthetic.to_string()),
        ("weft.licence".to_owned(), licences(provenance).into_iter().collect::<Vec<_>>().join(" AND ")),
    ]);
    if let Some(base) = &adapter.base {
        metadata.insert("weft.base".to_owned(), base.clone());
    }
    if let Some(rotary) = adapter.rotary {
        metadata.insert(super::super::turned::KEY.to_owned(), rotary_name(rotary).to_owned());
    }
    let parents: Vec<String> = provenance.parents.iter().map(|parent| format!("{} {}", parent.sha256, parent.name)).collect();
    if !parents.is_empty() {
        metadata.insert("weft.parents".to_owned(), parents.join("\n"));
    }
    metadata
}

/// Writes `weft.json` and `README.md` into a folder.
pub(super) fn write(adapter: &AdapterWeights, export: &AdapterExport<'_>, folder: &Path) -> Result<()> {
    write_atomic(&folder.join("weft.json"), json(adapter, export).as_bytes())?;
    write_atomic(&folder.join("README.md"), card(adapter, export).as_bytes())
}

fn json(adapter: &AdapterWeights, export: &AdapterExport<'_>) -> String {
    let provenance = export.provenance;
    let parent = |p: &AdapterParent| serde_json::json!({ "name": p.name, "sha256": p.sha256, "licence": p.licence });
    let ranks: BTreeSet<usize> = adapter.updates.iter().map(|update| update.rank).collect();
    let mut value = serde_json::json!({
        "weft": env!("CARGO_PKG_VERSION"),
        "kind": "adapter",
        "profile": export.profile.name(),
        "base": adapter.base,
        "modules": adapter.updates.len(),
        "ranks": ranks,
        "zero-modules": adapter.zero_modules().collect::<Vec<_>>(),
        "synthetic": provenance.synthetic,
        "configuration": provenance.configuration,
        "parents": provenance.parents.iter().map(parent).collect::<Vec<_>>(),
    });
    if let Some(rotary) = adapter.rotary {
        value["rotary"] = rotary_name(rotary).into();
    }
    format!("{value:#}\n")
}

/// The model card: front matter as YAML, in which texts of others are JSON strings, and what to do with it.
fn card(adapter: &AdapterWeights, export: &AdapterExport<'_>) -> String {
    let provenance = export.provenance;
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = "---\n".to_owned();
    if let Some(base) = &adapter.base {
        let _ = writeln!(text, "base_model: {}", quote(base));
    }
    let library = if export.profile == AdapterProfile::Diffusers { "diffusers" } else { "peft" };
    let _ = writeln!(text, "library_name: {library}");
    let licences = licences(provenance);
    let all: Vec<&str> = licences.iter().copied().collect();
    match all.as_slice() {
        [] => {}
        [one] => drop(writeln!(text, "license: {}", quote(&one.to_lowercase()))),
        several => drop(writeln!(text, "license: other\nlicense_name: {}", quote(&several.join(" AND ")))),
    }
    text.push_str("tags:\n- lora\n- weft\n");
    for tag in &provenance.tags {
        let _ = writeln!(text, "- {}", quote(tag));
    }
    let _ = writeln!(text, "weft:\n  version: {}", quote(env!("CARGO_PKG_VERSION")));
    let _ = writeln!(text, "  profile: {}\n  synthetic: {}", export.profile.name(), provenance.synthetic);
    let _ = writeln!(text, "  configuration: {}", quote(&provenance.configuration));
    if !provenance.parents.is_empty() {
        text.push_str("  parents:\n");
    }
    for AdapterParent { name, sha256, licence } in &provenance.parents {
        let _ = writeln!(text, "  - name: {}\n    sha256: {}\n    licence: {}", quote(name), quote(sha256), quote(licence));
    }
    text.push_str("---\n\n# Low-rank adapter\n\n");
    let _ = writeln!(
        text,
        "{} modules, written by weft {}{}. `weft adapter show` lists them, `weft adapter lint` says what a runtime makes of them.\n",
        adapter.updates.len(),
        env!("CARGO_PKG_VERSION"),
        if provenance.synthetic { "; a generator made it" } else { "" }
    );
    if let Some(first) = &provenance.parents.first() {
        let more = provenance.parents.len() - 1;
        let others = if more == 0 { String::new() } else { format!(" and {more} others") };
        let _ = writeln!(text, "Made of {}{others}; the front matter has digests and licences.\n", quote(&first.name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_of_cards() {
        let check = |card: &str, expected: Option<&str>| assert_eq!(of_card(card).as_deref(), expected, "{card}");
        check("---\nbase_model: x\nlicense: mit\n---\n# x", Some("mit"));
        check("---\nlicense: \"Apache-2.0\"\n---\n", Some("Apache-2.0"));
        check("# x\nlicense: mit", None);
        check("---\nlicense: [a, b]\n---", None);
        check("---\nlicense:\n---", None);
    }
}
