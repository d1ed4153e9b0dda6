//! Clips of speech as features, and what heads make of them.

use crate::{Phrase, Result};
use std::path::Path;
use weft_core::Population;
use weft_net::Device;

/// Frames that a head reads, and features of a frame.
const FRAMES: usize = 16;
const WIDTH: usize = 96;

/// What `bench/speech/features.py` writes.
pub(crate) struct Speech {
    phrases: Vec<Phrase>,
    /// Of each clip, the number of its phrase.
    phrase: Vec<usize>,
    /// Windows of a clip.
    windows: usize,
    /// What heads read, `[clips, windows, 16 · 96]`.
    inputs: Vec<f32>,
}

impl Speech {
    /// Reads clips of exactly these phrases.
    pub(crate) fn read(path: &Path, phrases: &[Phrase]) -> Result<Self> {
        let mut file = weft_zoo::read_tensors(path)?;
        let refuse = |what: &str| format!("`{}` {what}: make it anew with `bench/speech/features.py`", path.display());
        let names: Vec<&str> = file.metadata.get("phrases").map(|names| names.split('\n').collect()).unwrap_or_default();
        if names != phrases.iter().map(Phrase::said).collect::<Vec<_>>() {
            return Err(refuse("holds other phrases than the zoo").into());
        }
        let (shape, features) = file.tensors.remove("features").ok_or_else(|| refuse("has no `features`"))?;
        let (_, numbers) = file.tensors.remove("phrase").ok_or_else(|| refuse("has no `phrase`"))?;
        let phrase: Vec<usize> = numbers.iter().map(|&number| number as usize).collect();
        match shape[..] {
            [clips, frames, WIDTH] if clips == phrase.len() && frames >= FRAMES && phrase.iter().all(|&p| p < phrases.len()) => {
                let windows = frames - FRAMES + 1;
                let mut inputs = Vec::with_capacity(clips * windows * FRAMES * WIDTH);
                for clip in features.chunks_exact(frames * WIDTH) {
                    (0..windows).for_each(|w| inputs.extend_from_slice(&clip[w * WIDTH..][..FRAMES * WIDTH]));
                }
                Ok(Self { phrases: phrases.to_vec(), phrase, windows, inputs })
            }
            _ => Err(refuse("has features of another shape").into()),
        }
    }

    pub(crate) fn num_clips(&self) -> usize {
        self.phrase.len()
    }

    /// Each head's score of each clip, `[head][clip]`: the largest logit of its windows.
    pub(crate) fn scores(&self, heads: &Population) -> Result<Vec<Vec<f32>>> {
        let mut scores = vec![Vec::with_capacity(self.num_clips()); heads.len()];
        for inputs in self.inputs.chunks(64 * self.windows * FRAMES * WIDTH) {
            let logits = weft_net::logits(heads, inputs, &Device::open("cpu")?)?;
            let each = logits.len() / heads.len().max(1);
            for (scores, logits) in scores.iter_mut().zip(logits.chunks_exact(each.max(1))) {
                scores.extend(logits.chunks_exact(self.windows).map(|clip| clip.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
            }
        }
        Ok(scores)
    }

    /// How often a clip of the phrase scores above one of another phrase; ties count half.
    pub(crate) fn auc(&self, scores: &[f32], phrase: usize) -> f64 {
        let is_other: Vec<bool> = self.phrases.iter().map(|other| !other.overlaps(&self.phrases[phrase])).collect();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for (&score, &of) in scores.iter().zip(&self.phrase) {
            if of == phrase {
                own.push(score);
            } else if is_other[of] {
                others.push(score);
            }
        }
        others.sort_by(f32::total_cmp);
        let below = |score: f32| {
            let (less, not_more) = (others.partition_point(|&o| o < score), others.partition_point(|&o| o <= score));
            (less + not_more) as f64 / 2.0
        };
        own.iter().map(|&score| below(score)).sum::<f64>() / (own.len() * others.len()).max(1) as f64
    }
}
