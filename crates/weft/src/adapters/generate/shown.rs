//! Samples of text that show a language to a generator.

use weft_core::{Condition, FieldSpec, FieldType, Seed, Value, embed_bytes};
use weft_gen::ExampleEncoder;

/// The field that holds a sample's vector.
pub(super) const FIELD: &str = ExampleEncoder::FIELD;

/// The field as a generator is told of it.
pub(super) fn field() -> FieldSpec {
    FieldSpec::new(FIELD, FieldType::Vector)
}

/// The condition that shows a sample.
pub(super) fn shown(sample: &[u8]) -> Condition {
    Condition::unknown().with(FIELD, Value::Vector(embed_bytes(sample)))
}

/// A run of so many bytes of a text, or a little less so that it is of whole characters; of a shorter text, all.
pub(super) fn draw(text: &str, bytes: usize, seed: Seed) -> &str {
    &text[place(text, bytes, seed)]
}

/// Where [`draw`] draws.
pub(super) fn place(text: &str, bytes: usize, seed: Seed) -> std::ops::Range<usize> {
    let Some(last) = text.len().checked_sub(bytes).filter(|&last| last > 0) else { return 0..text.len() };
    let [at] = seed.indices(1, last + 1)[..] else { return 0..text.len() };
    let start = (0..=at as usize).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let end = (start..=start + bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(start);
    start..end
}

/// As many random bytes: a sample of no language.
pub(super) fn noise(bytes: usize, seed: Seed) -> Vec<u8> {
    seed.indices(bytes, 256).into_iter().map(|byte| byte as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_of_whole_characters_and_differ() {
        let text = "Все люди рождаются свободными и равными в своём достоинстве и правах.";
        let drawn: Vec<_> = (0..50).map(|i| draw(text, 21, Seed::new(i))).collect();
        assert!(drawn.iter().all(|s| (18..=21).contains(&s.len()) && text.contains(s)));
        assert!(drawn.iter().any(|s| text.ends_with(s)) && drawn.iter().any(|s| **s != *drawn[0]));
        assert_eq!(draw("short", 21, Seed::new(0)), "short");
        assert_eq!((noise(9, Seed::new(1)).len(), noise(9, Seed::new(1)) == noise(9, Seed::new(2))), (9, false));
    }
}
