//! What an adapter is trained and measured on: text whose next token it is to say, or sentences whose class it is to tell.

use super::base::Base;
use crate::{Error, Result};
use std::collections::BTreeMap;
use weft_core::Digest;

/// Text as windows of tokens, each with the tokens that follow.
///
/// Documents stand one behind the other, each after a start token that is read and not predicted. A window's first token has no context.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    tokens: usize,
    ids: Vec<u32>,
    targets: Vec<u32>,
    counted: Vec<bool>,
    num_targets: usize,
}

impl Windows {
    /// Cuts documents into windows of so many tokens; the last is padded.
    ///
    /// # Errors
    /// Documents without a token, or windows of none.
    pub fn new(documents: &[Vec<u32>], start: u32, tokens: usize) -> Result<Self> {
        let refuse = |reason: &str| Error::AdapterTask { reason: reason.to_owned() };
        if tokens == 0 {
            return Err(refuse("windows of text need a token at least"));
        }
        let stream: Vec<(u32, bool)> = documents
            .iter()
            .filter(|document| !document.is_empty())
            .flat_map(|document| std::iter::once((start, false)).chain(document.iter().map(|&id| (id, true))))
            .collect();
        let followed = stream.len().saturating_sub(1);
        if followed == 0 {
            return Err(refuse("its text has no token"));
        }
        let padded = followed.next_multiple_of(tokens);
        let pad = padded - followed;
        let ids = stream[..followed].iter().map(|&(id, _)| id).chain(std::iter::repeat_n(0, pad)).collect();
        let targets = stream[1..].iter().map(|&(id, _)| id).chain(std::iter::repeat_n(0, pad)).collect();
        let counted: Vec<bool> = stream[1..].iter().map(|&(_, is_text)| is_text).chain(std::iter::repeat_n(false, pad)).collect();
        let num_targets = counted.iter().filter(|&&counted| counted).count();
        Ok(Self { tokens, ids, targets, counted, num_targets })
    }

    /// Joins windows of one length, such as those of many tasks.
    ///
    /// # Errors
    /// None, or windows of different lengths.
    pub fn join<'a>(all: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let mut all = all.into_iter();
        let refuse = |reason: &str| Error::AdapterTask { reason: reason.to_owned() };
        let mut joined = all.next().ok_or_else(|| refuse("there is no text to join"))?.clone();
        for windows in all {
            if windows.tokens != joined.tokens {
                return Err(refuse("texts that are joined have windows of one length"));
            }
            joined.ids.extend_from_slice(&windows.ids);
            joined.targets.extend_from_slice(&windows.targets);
            joined.counted.extend_from_slice(&windows.counted);
            joined.num_targets += windows.num_targets;
        }
        Ok(joined)
    }

    /// The number of windows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len() / self.tokens
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Tokens that are predicted, all windows together.
    #[must_use]
    pub fn num_targets(&self) -> usize {
        self.num_targets
    }

    /// Inputs, what follows, and whether that counts.
    fn window(&self, at: usize) -> (&[u32], &[u32], &[bool]) {
        let range = at * self.tokens..(at + 1) * self.tokens;
        (&self.ids[range.clone()], &self.targets[range.clone()], &self.counted[range])
    }
}

/// Sentences with the class of each, and the classes' names; all as tokens.
///
/// A sentence's class is to be told among all of them, or, of tasks that were [joined](Self::join), among those of its own task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentences {
    names: Vec<Vec<u32>>,
    texts: Vec<Vec<u32>>,
    labels: Vec<u32>,
    /// Of joined tasks, the classes of each, and the task of each sentence.
    joined: Option<(Vec<Vec<u32>>, Vec<u32>)>,
}

impl Sentences {
    /// Takes sentences, with the start and end tokens that the encoder wants.
    ///
    /// # Errors
    /// No sentence, fewer than two classes, a sentence or name without a token, not a label a sentence, or one that is no class.
    pub fn new(names: Vec<Vec<u32>>, sentences: Vec<Vec<u32>>, labels: Vec<u32>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::AdapterTask { reason });
        if sentences.is_empty() || sentences.len() != labels.len() {
            return refuse(format!("{} sentences and {} labels", sentences.len(), labels.len()));
        }
        if names.len() < 2 {
            return refuse(format!("two classes or more are to be told apart, got {}", names.len()));
        }
        if let Some(&label) = labels.iter().find(|&&label| label as usize >= names.len()) {
            return refuse(format!("label {label} of {} classes", names.len()));
        }
        if names.iter().chain(&sentences).any(Vec::is_empty) {
            return refuse("a sentence or a class's name has no token".to_owned());
        }
        Ok(Self { names, texts: sentences, labels, joined: None })
    }

    /// Joins tasks to one, such as for an adapter of them all: each sentence's class stays to be told among its own task's. Names of the same
    /// tokens are one.
    ///
    /// # Errors
    /// None, or tasks that were joined before.
    pub fn join<'a>(all: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let refuse = |reason: &str| Error::AdapterTask { reason: reason.to_owned() };
        let mut joined = Self { names: Vec::new(), texts: Vec::new(), labels: Vec::new(), joined: None };
        let (mut known, mut classes, mut of_sentences) = (BTreeMap::new(), Vec::new(), Vec::new());
        for task in all {
            if task.joined.is_some() {
                return Err(refuse("tasks that were joined cannot be joined again"));
            }
            let mut number = |name: &Vec<u32>| {
                *known.entry(name.clone()).or_insert_with(|| {
                    joined.names.push(name.clone());
                    joined.names.len() as u32 - 1
                })
            };
            let own: Vec<u32> = task.names.iter().map(&mut number).collect();
            joined.labels.extend(task.labels.iter().map(|&label| own[label as usize]));
            joined.texts.extend_from_slice(&task.texts);
            of_sentences.resize(joined.texts.len(), classes.len() as u32);
            classes.push(own);
        }
        if classes.is_empty() {
            return Err(refuse("there is no task to join"));
        }
        Ok(Self { joined: Some((classes, of_sentences)), ..joined })
    }

    /// The classes that a sentence's own is told among, if these are not all.
    fn among(&self, sentence: u32) -> Option<&[u32]> {
        self.joined.as_ref().map(|(classes, of_sentences)| classes[of_sentences[sentence as usize] as usize].as_slice())
    }

    /// Names and then sentences, as they are read, and what each sentence's class is told among.
    pub(super) fn all(&self) -> (Vec<Vec<u32>>, Classes) {
        let read = [self.names.as_slice(), self.texts.as_slice()].concat();
        let among = |sentence: usize| self.among(sentence as u32).map(<[u32]>::to_vec);
        let among = (0..self.texts.len()).map(among).collect();
        (read, Classes { names: self.names.len(), labels: self.labels.clone(), among })
    }

    /// The number of sentences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Names, sentences and labels.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&[Vec<u32>], &[Vec<u32>], &[u32]) {
        (&self.names, &self.texts, &self.labels)
    }

    /// The number of classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.names.len()
    }
}

/// What one adapter is for.
#[derive(Debug, Clone, PartialEq)]
pub enum AdapterTask {
    /// To say the next token, for a decoder: the loss is in nats a token.
    Text(Windows),
    /// To tell classes, for an encoder: the logit of a class is the cosine of sentence and name times [`TEMPERATURE`](super::TEMPERATURE); the
    /// loss is in nats a sentence.
    Sentences(Sentences),
}

impl AdapterTask {
    /// The number of examples: windows or sentences.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(windows) => windows.len(),
            Self::Sentences(sentences) => sentences.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the loss is a mean over: tokens that are predicted, or sentences.
    #[must_use]
    pub fn num_targets(&self) -> usize {
        match self {
            Self::Text(windows) => windows.num_targets(),
            Self::Sentences(sentences) => sentences.len(),
        }
    }

    /// What tells this task from others: all of its tokens and labels.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of_bytes(format!("{self:?}").as_bytes())
    }

    /// Rows of tokens that a batch of examples takes at most.
    pub(super) fn rows(&self, examples: usize) -> usize {
        match self {
            Self::Text(windows) => examples * windows.tokens,
            Self::Sentences(s) => {
                let longest = s.names.iter().chain(&s.texts).map(Vec::len).max().unwrap_or(1);
                (examples + s.names.len()) * longest.next_multiple_of(LENGTH_STEP)
            }
        }
    }

    /// Checks that a base can run it.
    pub(super) fn check(&self, base: &Base) -> Result<()> {
        let refuse = |reason: String| Err(Error::AdapterTask { reason });
        let (longest, greatest) = match self {
            Self::Text(windows) => (windows.tokens, windows.ids.iter().chain(&windows.targets).max().copied()),
            Self::Sentences(s) => {
                let all = || s.names.iter().chain(&s.texts);
                (all().map(Vec::len).max().unwrap_or(0), all().flatten().max().copied())
            }
        };
        if matches!(self, Self::Text(_)) != base.is_decoder() {
            return refuse("text is for decoders and sentences are for encoders, and the base is the other".to_owned());
        }
        if longest > base.max_tokens() {
            return refuse(format!("it has {longest} tokens at once, and the base reads {} at most", base.max_tokens()));
        }
        match greatest.filter(|&id| id as usize >= base.vocabulary()) {
            Some(id) => refuse(format!("token {id} of a vocabulary of {}", base.vocabulary())),
            None => Ok(()),
        }
    }
}

/// Sentences are padded to a multiple of so many tokens, so that few shapes occur.
const LENGTH_STEP: usize = 16;

/// Examples of several adapters, in rows of one length.
#[derive(Debug)]
pub(super) struct TaskBatch {
    pub(super) networks: usize,
    /// Sequences of each network.
    pub(super) sequences: usize,
    /// Tokens of each sequence.
    pub(super) tokens: usize,
    /// `[n, sequences, tokens]`.
    pub(super) ids: Vec<u32>,
    pub(super) goal: Goal,
}

/// What is asked of the rows.
#[derive(Debug)]
pub(super) enum Goal {
    /// The token behind each, and how much it counts; each network's weights sum to 1.
    Next { targets: Vec<u32>, weights: Vec<f32> },
    /// The class of sentences. Of each network, sequences are the classes' names, then the sentences, then padding.
    Classes { lengths: Vec<u32>, of_networks: Vec<Classes> },
}

/// How many classes a network tells, and the labels of its sentences.
#[derive(Debug)]
pub(super) struct Classes {
    pub(super) names: usize,
    pub(super) labels: Vec<u32>,
    /// The classes that each sentence's own is told among; none if these are all.
    pub(super) among: Option<Vec<Vec<u32>>>,
}

impl TaskBatch {
    /// Some examples of each network's task; all tasks are of the base's kind and have been checked.
    ///
    /// # Errors
    /// Tasks of two kinds, an example that does not exist, or a network without one.
    pub(super) fn new(base: &Base, drawn: &[(&AdapterTask, &[u32])]) -> Result<Self> {
        let refuse = |reason: String| Err(Error::AdapterTask { reason });
        for (task, examples) in drawn {
            if let Some(&example) = examples.iter().find(|&&example| example as usize >= task.len()) {
                return refuse(format!("example {example} of {}", task.len()));
            }
            if examples.is_empty() {
                return refuse("a batch without an example".to_owned());
            }
        }
        let texts: Vec<_> =
            drawn.iter().filter_map(|(t, e)| if let AdapterTask::Text(t) = t { Some((t, *e)) } else { None }).collect();
        if base.is_decoder() && texts.len() == drawn.len() {
            return Self::of_texts(&texts);
        }
        let classes: Vec<_> =
            drawn.iter().filter_map(|(t, e)| if let AdapterTask::Sentences(s) = t { Some((s, *e)) } else { None }).collect();
        if !base.is_decoder() && classes.len() == drawn.len() {
            return Ok(Self::of_sentences(base, &classes));
        }
        refuse("text is for decoders and sentences are for encoders, and the base is the other".to_owned())
    }

    fn of_texts(drawn: &[(&Windows, &[u32])]) -> Result<Self> {
        let tokens = drawn.iter().map(|(windows, _)| windows.tokens).max().unwrap_or(1);
        let sequences = drawn.iter().map(|(_, examples)| examples.len()).max().unwrap_or(1);
        if drawn.iter().any(|(windows, _)| windows.tokens != tokens) {
            return Err(Error::AdapterTask { reason: "texts that run together have windows of one length".to_owned() });
        }
        let of_network = sequences * tokens;
        let mut ids = vec![0; drawn.len() * of_network];
        let (mut targets, mut weights) = (ids.clone(), vec![0.0; ids.len()]);
        for (n, (windows, examples)) in drawn.iter().enumerate() {
            for (place, &example) in examples.iter().enumerate() {
                let range = n * of_network + place * tokens..n * of_network + (place + 1) * tokens;
                let (from, to, counted) = windows.window(example as usize);
                ids[range.clone()].copy_from_slice(from);
                targets[range.clone()].copy_from_slice(to);
                weights[range].iter_mut().zip(counted).for_each(|(w, &counted)| *w = f32::from(u8::from(counted)));
            }
            let weights = &mut weights[n * of_network..][..of_network];
            let share = 1.0 / weights.iter().sum::<f32>().max(1.0);
            for w in weights {
                *w *= share;
            }
        }
        Ok(Self { networks: drawn.len(), sequences, tokens, ids, goal: Goal::Next { targets, weights } })
    }

    fn of_sentences(base: &Base, drawn: &[(&Sentences, &[u32])]) -> Self {
        let of_network = |(task, examples): &(&Sentences, &[u32])| -> Vec<Vec<u32>> {
            task.names.iter().cloned().chain(examples.iter().map(|&e| task.texts[e as usize].clone())).collect()
        };
        let all: Vec<Vec<Vec<u32>>> = drawn.iter().map(of_network).collect();
        let sequences = all.iter().map(Vec::len).max().unwrap_or(1);
        let longest = all.iter().flatten().map(Vec::len).max().unwrap_or(1);
        let tokens = longest.next_multiple_of(LENGTH_STEP).min(base.max_tokens());
        let mut ids = vec![0; drawn.len() * sequences * tokens];
        let mut lengths = vec![1; drawn.len() * sequences];
        for (n, of_network) in all.iter().enumerate() {
            for (place, sentence) in of_network.iter().enumerate() {
                let at = n * sequences + place;
                ids[at * tokens..][..sentence.len()].copy_from_slice(sentence);
                lengths[at] = sentence.len() as u32;
            }
        }
        let of_networks = drawn
            .iter()
            .map(|(task, examples)| {
                let labels = examples.iter().map(|&e| task.labels[e as usize]).collect();
                let among = examples.iter().map(|&e| task.among(e).map(<[u32]>::to_vec)).collect();
                Classes { names: task.names.len(), labels, among }
            })
            .collect();
        Self { networks: drawn.len(), sequences, tokens, ids, goal: Goal::Classes { lengths, of_networks } }
    }

    /// Sentences of one network without a class, to be encoded.
    pub(super) fn to_encode(base: &Base, sentences: &[&[u32]]) -> Self {
        let longest = sentences.iter().map(|sentence| sentence.len()).max().unwrap_or(1);
        let tokens = longest.next_multiple_of(LENGTH_STEP).min(base.max_tokens());
        let mut ids = vec![0; sentences.len() * tokens];
        for (row, sentence) in ids.chunks_exact_mut(tokens).zip(sentences) {
            row[..sentence.len()].copy_from_slice(sentence);
        }
        let lengths = sentences.iter().map(|sentence| sentence.len() as u32).collect();
        let goal = Goal::Classes { lengths, of_networks: Vec::new() };
        Self { networks: 1, sequences: sentences.len(), tokens, ids, goal }
    }

    /// What the mean losses are over, all networks together: tokens that count, or sentences.
    pub(super) fn num_targets(&self) -> usize {
        match &self.goal {
            Goal::Next { weights, .. } => weights.iter().filter(|&&weight| weight > 0.0).count(),
            Goal::Classes { of_networks, .. } => of_networks.iter().map(|classes| classes.labels.len()).sum(),
        }
    }

    /// Rows of each network.
    pub(super) fn rows(&self) -> usize {
        self.sequences * self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cut_documents_and_count_their_tokens() {
        let windows = Windows::new(&[vec![5, 6, 7], vec![], vec![8, 9]], 1, 2).unwrap();
        // The stream is 1 5 6 7 1 8 9: six tokens are followed by one.
        assert_eq!((windows.len(), windows.num_targets()), (3, 5));
        assert_eq!(windows.window(0), (&[1, 5][..], &[5, 6][..], &[true, true][..]));
        assert_eq!(windows.window(1), (&[6, 7][..], &[7, 1][..], &[true, false][..]));
        assert_eq!(windows.window(2), (&[1, 8][..], &[8, 9][..], &[true, true][..]));
        let padded = Windows::new(&[vec![5, 6, 7]], 1, 2).unwrap();
        assert_eq!(padded.window(1), (&[6, 0][..], &[7, 0][..], &[true, false][..]));
        let joined = Windows::join([&windows, &padded]).unwrap();
        assert_eq!((joined.len(), joined.num_targets()), (5, 8));
        assert!(Windows::join([&windows, &Windows::new(&[vec![5]], 1, 3).unwrap()]).is_err());
        assert!(Windows::new(&[vec![], vec![]], 1, 2).unwrap_err().to_string().contains("no token"));
        assert!(Windows::new(&[vec![3]], 1, 0).is_err());
    }

    #[test]
    fn sentences_are_refused_by_what_is_wrong() {
        let check = |names: usize, sentences: Vec<Vec<u32>>, labels: Vec<u32>, expected: &str| {
            let message = Sentences::new(vec![vec![1]; names], sentences, labels).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(2, vec![], vec![], "0 sentences");
        check(2, vec![vec![1]], vec![0, 1], "2 labels");
        check(1, vec![vec![1]], vec![0], "two classes");
        check(2, vec![vec![1]], vec![2], "label 2");
        check(2, vec![vec![]], vec![1], "no token");
    }
}
