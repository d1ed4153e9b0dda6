//! What shows a task to a generator: a run of bytes of a language's text, or sentences of a task's, read by the base.
//!
//! Sentences are a set: their vector is the mean and the standard deviation, number by number, of the vectors that the base makes of each
//! (the invariant form of Deep Sets, Zaheer et al. 2017, theorem 2, with the two first moments).

use super::super::sentences::SentenceReader;
use crate::Result;
use crate::config::ShownConfig;
use std::sync::Arc;
use weft_core::{Condition, FieldSpec, FieldType, Seed, Value, embed_bytes};
use weft_gen::ExampleEncoder;
use weft_net::adapters::AdapterTask;

/// The field that holds a sample's vector.
pub(super) const FIELD: &str = ExampleEncoder::FIELD;

/// The field as a generator is told of it.
pub(in super::super) fn field() -> FieldSpec {
    FieldSpec::new(FIELD, FieldType::Vector)
}

/// The condition that shows a sample, by its vector.
pub(in super::super) fn shown(mut vector: Vec<f32>) -> Condition {
    // There may be very many.
    vector.shrink_to_fit();
    Condition::unknown().with(FIELD, Value::Vector(vector))
}

/// The vector that such a condition shows; nothing of another.
pub(super) fn vector_of(condition: &Condition) -> &[f32] {
    if let Some(Value::Vector(vector)) = condition.get(FIELD) { vector } else { &[] }
}

/// What shows the tasks of a run.
pub(in super::super) enum Shown {
    /// Runs of bytes of a text.
    Text(Texts),
    /// Sentences.
    Sentences(SentenceSets),
}

/// Reads some text as what an adapter is trained on.
pub(in super::super) type ReadText = Box<dyn Fn(&str) -> Result<AdapterTask>>;

/// Texts that samples of so many bytes are drawn from.
pub(in super::super) struct Texts {
    /// The text of each task.
    pub(in super::super) of_tasks: Vec<String>,
    /// Bytes of a sample.
    pub(in super::super) bytes: usize,
    /// Some text as a task.
    pub(in super::super) read: ReadText,
}

impl Texts {
    /// A sample of a task's text.
    pub(super) fn draw(&self, task: usize, seed: Seed) -> &str {
        draw(&self.of_tasks[task], self.bytes, seed)
    }
}

/// Sentences that show tasks, each with its vector.
pub(in super::super) struct SentenceSets {
    /// What they are.
    pub(in super::super) kind: ShownConfig,
    /// What reads them.
    pub(in super::super) reader: Arc<SentenceReader>,
    /// All sentences as tokens, and their vectors.
    pub(in super::super) tokens: Vec<Vec<u32>>,
    pub(in super::super) vectors: Vec<Vec<f32>>,
    /// The numbers of each task's sentences.
    pub(in super::super) of_tasks: Vec<Vec<usize>>,
    /// The numbers of those that show no task.
    pub(in super::super) noise: Vec<usize>,
    /// How many of a task's are drawn, if not all are shown.
    pub(in super::super) drawn: Option<usize>,
}

impl SentenceSets {
    fn of_task(&self, task: usize, seed: Seed) -> Vec<usize> {
        let all = &self.of_tasks[task];
        self.drawn.map_or_else(|| all.clone(), |count| chosen(all, count, seed))
    }

    fn moments_of(&self, chosen: &[usize]) -> Vec<f32> {
        moments(chosen.iter().map(|&i| self.vectors[i].as_slice()))
    }
}

impl Shown {
    /// What it is called where there are several.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Sentences(sets) => sets.kind.name(),
        }
    }

    /// The number of different samples of a task, if so many are asked for.
    pub(super) fn draws(&self, asked: usize) -> usize {
        match self {
            Self::Sentences(SentenceSets { drawn: None, .. }) => 1,
            _ => asked,
        }
    }

    /// The vector of a sample that shows a task.
    pub(super) fn vector(&self, task: usize, seed: Seed) -> Vec<f32> {
        match self {
            Self::Text(texts) => embed_bytes(texts.draw(task, seed).as_bytes()),
            Self::Sentences(sets) => sets.moments_of(&sets.of_task(task, seed)),
        }
    }

    /// The same, read anew: for what it takes.
    pub(super) fn read_anew(&self, task: usize, seed: Seed) -> Result<Vec<f32>> {
        let Self::Sentences(sets) = self else { return Ok(self.vector(task, seed)) };
        let tokens: Vec<Vec<u32>> = sets.of_task(task, seed).into_iter().map(|i| sets.tokens[i].clone()).collect();
        let vectors = sets.reader.vectors(&tokens)?;
        Ok(moments(vectors.iter().map(Vec::as_slice)))
    }

    /// The vector of a sample that shows no task, as large as those of a task.
    pub(super) fn noise(&self, task: usize, seed: Seed) -> Vec<f32> {
        match self {
            Self::Text(texts) => embed_bytes(&noise(texts.bytes, seed)),
            Self::Sentences(sets) => {
                let count = sets.drawn.unwrap_or(sets.of_tasks[task].len());
                sets.moments_of(&chosen(&sets.noise, count, seed))
            }
        }
    }
}

/// So many numbers of some, or all of fewer.
fn chosen(of: &[usize], count: usize, seed: Seed) -> Vec<usize> {
    seed.subset(count.min(of.len()), of.len()).into_iter().map(|i| of[i as usize]).collect()
}

/// Mean and standard deviation of vectors, number by number: `[n, d]` → `[2 d]`.
pub(super) fn moments<'a>(vectors: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let (mut sums, mut squares, mut n) = (Vec::new(), Vec::new(), 0.0_f64);
    for vector in vectors {
        sums.resize(vector.len(), 0.0_f64);
        squares.resize(vector.len(), 0.0_f64);
        for ((sum, square), &v) in sums.iter_mut().zip(&mut squares).zip(vector) {
            *sum += f64::from(v);
            *square += f64::from(v).powi(2);
        }
        n += 1.0;
    }
    let mean = sums.iter().map(|sum| (sum / n) as f32);
    let deviation = sums.iter().zip(&squares).map(|(sum, square)| (square / n - (sum / n).powi(2)).max(0.0).sqrt() as f32);
    mean.chain(deviation).collect()
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
fn noise(bytes: usize, seed: Seed) -> Vec<u8> {
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

    #[test]
    fn sets_of_vectors_become_moments_whatever_their_order() {
        let [a, b] = [[1.0, 2.0], [3.0, 2.0]];
        assert_eq!(moments([&a[..], &b[..]].into_iter()), [2.0, 2.0, 1.0, 0.0]);
        assert_eq!(moments([&b[..], &a[..]].into_iter()), [2.0, 2.0, 1.0, 0.0]);
        assert_eq!(moments([&a[..]].into_iter()), [1.0, 2.0, 0.0, 0.0]);
    }
}
