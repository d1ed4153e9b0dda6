//! A phrase as sound: said by espeak-ng, resampled, placed in a clip.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Samples a second that openWakeWord wants.
const RATE: usize = 16_000;
/// Samples of a clip: three seconds.
pub const SAMPLES: usize = 3 * RATE;
/// Samples after the phrase.
const TAIL: usize = RATE * 2 / 5;
/// Largest value of the noise that every clip has, of 32,768.
const NOISE: f32 = 8.0;
/// Zeros of the resampling kernel on each side.
const LOBES: f64 = 16.0;
/// Samples below this are silence, of 32,768.
const SILENCE: f32 = 64.0;

/// A clip, in the range of 16-bit samples.
pub fn clip(voice: &str, speed: u32, text: &str, seed: u64) -> Result<Vec<f32>> {
    let (rate, said) = say(voice, speed, text)?;
    let mut said = resample(&said, rate as f64 / RATE as f64);
    let end = said.iter().rposition(|s| s.abs() > SILENCE).map_or(0, |last| last + 1);
    let start = said.iter().position(|s| s.abs() > SILENCE).unwrap_or(0);
    said = said[start..end.max(start)].to_vec();
    let room = SAMPLES - TAIL;
    ensure!(!said.is_empty(), "espeak-ng says nothing for `{text}`");
    ensure!(said.len() <= room, "`{text}` takes {:.1} s, longer than a clip", said.len() as f64 / RATE as f64);
    let mut noise = Noise(seed);
    let mut out: Vec<f32> = (0..SAMPLES).map(|_| NOISE * noise.next()).collect();
    out[room - said.len()..room].iter_mut().zip(&said).for_each(|(o, s)| *o = (*o + s).clamp(-32_768.0, 32_767.0).round());
    Ok(out)
}

/// What espeak-ng says, with its rate.
fn say(voice: &str, speed: u32, text: &str) -> Result<(usize, Vec<f32>)> {
    let said = Command::new("espeak-ng").args(["-v", voice, "-s", &speed.to_string(), "--stdout", "--", text]).output();
    let said = said.context("running `espeak-ng`: install it (Debian: `apt-get install espeak-ng`)")?;
    ensure!(said.status.success(), "espeak-ng refuses voice `{voice}`: {}", String::from_utf8_lossy(&said.stderr).trim());
    let wav = said.stdout;
    ensure!(wav.len() > 44 && &wav[..4] == b"RIFF" && &wav[36..40] == b"data", "espeak-ng gives no plain WAV");
    let rate = u32::from_le_bytes([wav[24], wav[25], wav[26], wav[27]]) as usize;
    ensure!([wav[22], wav[34]] == [1, 16] && (RATE..=96_000).contains(&rate), "espeak-ng gives no mono sound of 16 bits");
    // On a pipe the header cannot say how long the sound is: it goes to the end.
    let samples = wav[44..].chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]]))).collect();
    Ok((rate, samples))
}

/// Resamples by a Hann-windowed sinc that passes what the new rate can hold; `ratio` is the old rate over the new one.
fn resample(samples: &[f32], ratio: f64) -> Vec<f32> {
    let reach = LOBES * ratio;
    let value = |i: usize| {
        let center = i as f64 * ratio;
        let from = (center - reach).ceil().max(0.0) as usize;
        let until = ((center + reach).floor() as usize + 1).min(samples.len());
        let tap = |j: usize| {
            let x = (j as f64 - center) / ratio;
            let sinc = if x.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
            let window = 0.5 + 0.5 * (std::f64::consts::PI * x / LOBES).cos();
            f64::from(samples[j]) * sinc * window / ratio
        };
        (from..until.max(from)).map(tap).sum::<f64>() as f32
    };
    (0..(samples.len() as f64 / ratio) as usize).map(value).collect()
}

/// Uniform numbers in `[-1, 1)`: SplitMix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_keeps_its_pitch_and_what_is_too_high_goes() {
        let ratio = 22_050.0 / 16_000.0;
        let tone = |hertz: f64, rate: f64, n: usize| -> Vec<f32> {
            (0..n).map(|i| (std::f64::consts::TAU * hertz * i as f64 / rate).sin() as f32).collect()
        };
        let found = resample(&tone(1_000.0, 22_050.0, 4_410), ratio);
        let expected = tone(1_000.0, 16_000.0, found.len());
        let inner = 100..found.len() - 100;
        assert!(found[inner.clone()].iter().zip(&expected[inner.clone()]).all(|(a, b)| (a - b).abs() < 0.02));
        let high = resample(&tone(10_000.0, 22_050.0, 4_410), ratio);
        assert!(high[inner].iter().all(|s| s.abs() < 0.02));
    }
}
