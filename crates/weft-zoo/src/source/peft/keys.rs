//! The grammar of names in an adapter.
//!
//! `base_model.model.` MODULE `.` PART, where PART is one of `lora_A.weight`, `lora_B.weight`, `lora_B.bias`,
//! `lora_embedding_A`, `lora_embedding_B`, `lora_magnitude_vector`, each perhaps with the name of the adapter and
//! `.weight` behind it; or the name of a tensor that is saved whole, perhaps behind `modules_to_save` and the
//! adapter's name.

use crate::source::SourceFault;

/// What the library puts before the names of the base model.
const PREFIX: &str = "base_model.model.";

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    A {
        embedding: bool,
    },
    B {
        embedding: bool,
    },
    BBias,
    Magnitude,
    /// One of the base model's own tensors.
    Whole,
}

/// The module (for a whole tensor: its name in the base model) and the part.
pub(super) fn parse(name: &str) -> Result<(String, Part), SourceFault> {
    let refuse = |reason: &str| SourceFault::malformed(format!("the name `{name}`"), reason);
    let inner = name.strip_prefix(PREFIX).ok_or_else(|| refuse("it does not begin with `base_model.model.`"))?;
    let words: Vec<&str> = inner.split('.').collect();
    if words.iter().any(|word| word.is_empty()) {
        return Err(refuse("it has an empty part"));
    }
    if let Some(at) = words.iter().position(|word| word.starts_with("lora_")) {
        if at == 0 {
            return Err(refuse("it names no module"));
        }
        let part = part(words[at], &words[at + 1..]).ok_or_else(|| refuse("it is none of the parts of a low-rank adapter"))?;
        return Ok((words[..at].join("."), part));
    }
    if let Some(at) = words.iter().position(|&word| word == "modules_to_save") {
        // With the adapter's name behind it; the base model's own module stands beside it as `original_module`.
        if at == 0 || words.len() < at + 3 {
            return Err(refuse("it names no tensor behind `modules_to_save`"));
        }
        return Ok(([&words[..at], &words[at + 2..]].concat().join("."), Part::Whole));
    }
    Ok((inner.to_owned(), Part::Whole))
}

/// `rest` is what stands behind the word: the adapter's name, `weight` or `bias`, both, or nothing.
fn part(word: &str, rest: &[&str]) -> Option<Part> {
    let (adapter, leaf) = match rest {
        [.., leaf @ ("weight" | "bias")] => (&rest[..rest.len() - 1], Some(*leaf)),
        _ => (rest, None),
    };
    // An adapter's name has no dot.
    if adapter.len() > 1 {
        return None;
    }
    match (word, leaf) {
        ("lora_A", Some("weight")) => Some(Part::A { embedding: false }),
        ("lora_B", Some("weight")) => Some(Part::B { embedding: false }),
        ("lora_B", Some("bias")) => Some(Part::BBias),
        ("lora_embedding_A", None) => Some(Part::A { embedding: true }),
        ("lora_embedding_B", None) => Some(Part::B { embedding: true }),
        ("lora_magnitude_vector", None | Some("weight")) => Some(Part::Magnitude),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_library() {
        let check = |name: &str, module: &str, part: Part| {
            assert_eq!(parse(&format!("{PREFIX}{name}")), Ok((module.to_owned(), part)), "{name}");
        };
        check("model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.0.self_attn.q_proj", Part::A { embedding: false });
        check("h.0.lora_A.default.weight", "h.0", Part::A { embedding: false });
        check("h.0.lora_B.weight", "h.0", Part::B { embedding: false });
        check("h.0.lora_B.bias", "h.0", Part::BBias);
        check("wte.lora_embedding_A", "wte", Part::A { embedding: true });
        check("wte.lora_embedding_B.default", "wte", Part::B { embedding: true });
        check("h.0.lora_magnitude_vector", "h.0", Part::Magnitude);
        check("h.0.lora_magnitude_vector.default.weight", "h.0", Part::Magnitude);
        check("classifier.weight", "classifier.weight", Part::Whole);
        check("classifier.modules_to_save.default.weight", "classifier.weight", Part::Whole);
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "h.0.lora_A.weight",
            "base_model.model.lora_A.weight",
            "base_model.model.h.lora_A",
            "base_model.model.h.lora_A.bias",
            "base_model.model.h.lora_A.x.y.weight",
            "base_model.model.h.lora_C.weight",
            "base_model.model.h..lora_A.weight",
            "base_model.model.",
            "base_model.model.h.modules_to_save.default",
            "",
        ] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}
