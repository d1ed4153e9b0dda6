//! Synthesized speech as openWakeWord's features.
//!
//! ```sh
//! cargo run --release --manifest-path bench/speech/Cargo.toml -- MODELS PHRASES.tsv OUT.safetensors
//! ```
//!
//! `MODELS` holds `melspectrogram.onnx` and `embedding_model.onnx`; a line of `PHRASES.tsv` is a language and a phrase with a tab between them.
//! `espeak-ng` says each phrase in [`VARIANTS`] voices at [`SPEEDS`]. A clip of three seconds ends 0.4 seconds after the phrase and has faint
//! white noise. The first model makes 32 mel bands of a 16 kHz clip, a frame every 10 ms, the second 96 features of each 76 frames, every 8.
//!
//! `OUT.safetensors` has `features` `[clips, frames, 96]` and, of each clip, the numbers of its `phrase` and `voice`; its metadata name the phrases
//! and voices, in the order of these numbers, with a line feed between two.

mod sound;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tract_onnx::prelude::*;

/// Voices of espeak-ng, as variants of a language's own.
const VARIANTS: [&str; 6] = ["m1", "m3", "m7", "f1", "f2", "f4"];
/// Words a minute.
const SPEEDS: [u32; 3] = [130, 160, 190];
/// Mel frames of an embedding, frames between two, and bands.
const WINDOW: usize = 76;
const HOP: usize = 8;
const BANDS: usize = 32;
/// Features of an embedding.
const WIDTH: usize = 96;

/// A phrase to say.
struct Phrase {
    language: String,
    text: String,
}

/// A clip to make: a phrase, the voice's number, and what espeak-ng is told.
struct Clip<'a> {
    phrase: usize,
    voice: usize,
    name: String,
    speed: u32,
    text: &'a str,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [models, phrases, out] = &arguments[..] else { bail!("usage: weft-speech MODELS PHRASES.tsv OUT.safetensors") };
    let phrases = read_phrases(Path::new(phrases))?;
    let voices: Vec<String> = VARIANTS.iter().flat_map(|v| SPEEDS.map(|speed| format!("{v} at {speed}"))).collect();
    let clips: Vec<Clip> = phrases.iter().enumerate().flat_map(|(p, phrase)| clips_of(p, phrase)).collect();
    let features = Features::open(Path::new(models))?;
    let frames = features.frames();
    let rows: Vec<Mutex<Vec<f32>>> = clips.iter().map(|_| Mutex::default()).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(clip) = clips.get(at) else { return };
                    match features.of(clip, at) {
                        Ok(row) => *rows[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = row,
                        Err(error) => {
                            next.store(clips.len(), Ordering::Relaxed);
                            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                            return;
                        }
                    }
                    if at.is_multiple_of(100) {
                        eprintln!("{at} of {} clips", clips.len());
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let mut values = Vec::with_capacity(clips.len() * frames * WIDTH);
    rows.into_iter().for_each(|row| values.extend(row.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)));
    write(Path::new(out), &clips, &values, (frames, &phrases, &voices))
}

fn read_phrases(path: &Path) -> Result<Vec<Phrase>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))?;
    let line = |line: &str| {
        let (language, text) = line.split_once('\t').with_context(|| format!("`{line}` is not LANGUAGE, a tab and PHRASE"))?;
        ensure!(!text.is_empty() && !text.starts_with('-'), "`{text}` cannot be said");
        Ok(Phrase { language: language.to_owned(), text: text.to_owned() })
    };
    text.lines().map(line).collect()
}

/// A phrase in all voices: its language's, for English two accents in turn.
fn clips_of(number: usize, phrase: &Phrase) -> Vec<Clip<'_>> {
    let clip = |(voice, (v, variant)): (usize, (usize, &str)), speed: u32| {
        let base = match phrase.language.as_str() {
            "en" if v % 2 == 0 => "en-us",
            "en" => "en-gb",
            "dk" => "da",
            "zh" => "cmn-latn-pinyin",
            other => other,
        };
        Clip { phrase: number, voice, name: format!("{base}+{variant}"), speed, text: &phrase.text }
    };
    let each = VARIANTS.iter().enumerate().flat_map(|(v, variant)| SPEEDS.map(|speed| ((v, *variant), speed)));
    each.enumerate().map(|(voice, (variant, speed))| clip((voice, variant), speed)).collect()
}

type Model = Arc<TypedRunnableModel>;

/// The two models, for clips of one length.
struct Features {
    mel: Model,
    embedding: Model,
}

impl Features {
    fn open(folder: &Path) -> Result<Self> {
        let open = |name: &str, shape: &[usize]| -> Result<Model> {
            let path = folder.join(name);
            let model = tract_onnx::onnx().model_for_path(&path).with_context(|| format!("reading `{}`", path.display()))?;
            let model = model.with_input_fact(0, f32::fact(shape).into())?.into_optimized()?;
            model.into_runnable()
        };
        let frames = frames_of(sound::SAMPLES);
        Ok(Self { mel: open("melspectrogram.onnx", &[1, sound::SAMPLES])?, embedding: open("embedding_model.onnx", &[frames, WINDOW, BANDS, 1])? })
    }

    fn frames(&self) -> usize {
        frames_of(sound::SAMPLES)
    }

    /// `[frames, 96]` of a clip.
    fn of(&self, clip: &Clip<'_>, seed: usize) -> Result<Vec<f32>> {
        let samples = sound::clip(&clip.name, clip.speed, clip.text, seed as u64)?;
        let input = Tensor::from_shape(&[1, samples.len()], &samples)?;
        let mel = self.mel.run(tvec!(input.into()))?;
        let mel: Vec<f32> = mel[0].to_plain_array_view::<f32>()?.iter().map(|x| x / 10.0 + 2.0).collect();
        let frames = self.frames();
        ensure!(mel.len() >= ((frames - 1) * HOP + WINDOW) * BANDS, "the first model gives {} values, too few", mel.len());
        let windows: Vec<f32> = (0..frames).flat_map(|f| &mel[f * HOP * BANDS..][..WINDOW * BANDS]).copied().collect();
        let input = Tensor::from_shape(&[frames, WINDOW, BANDS, 1], &windows)?;
        let out = self.embedding.run(tvec!(input.into()))?;
        let out: Vec<f32> = out[0].to_plain_array_view::<f32>()?.iter().copied().collect();
        ensure!(out.len() == frames * WIDTH, "the second model gives {} values, not {}", out.len(), frames * WIDTH);
        Ok(out)
    }
}

/// Embeddings of a clip: the first model loses three frames of 160 samples.
fn frames_of(samples: usize) -> usize {
    (samples / 160 - 3 - WINDOW) / HOP + 1
}

fn write(path: &Path, clips: &[Clip<'_>], features: &[f32], (frames, phrases, voices): (usize, &[Phrase], &[String])) -> Result<()> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let numbers = |of: fn(&Clip<'_>) -> usize| bytes(&clips.iter().map(|clip| of(clip) as f32).collect::<Vec<_>>());
    let (phrase, voice, features) = (numbers(|clip| clip.phrase), numbers(|clip| clip.voice), bytes(features));
    let tensors = [
        ("features", TensorView::new(Dtype::F32, vec![clips.len(), frames, WIDTH], &features)?),
        ("phrase", TensorView::new(Dtype::F32, vec![clips.len()], &phrase)?),
        ("voice", TensorView::new(Dtype::F32, vec![clips.len()], &voice)?),
    ];
    let names: Vec<&str> = phrases.iter().map(|phrase| phrase.text.as_str()).collect();
    let metadata = HashMap::from([("phrases".to_owned(), names.join("\n")), ("voices".to_owned(), voices.join("\n"))]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).with_context(|| format!("writing `{}`", path.display()))
}
