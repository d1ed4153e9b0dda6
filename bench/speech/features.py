"""Synthesized speech as openWakeWord's features: what heads of wake words are measured on.

    python features.py MODELS PHRASES.tsv OUT.safetensors

MODELS holds melspectrogram.onnx and embedding_model.onnx; a line of PHRASES.tsv is a language and a phrase with a tab between
them. espeak-ng says each phrase in VARIANTS voices at SPEEDS words a minute. A clip of three seconds ends 0.4 seconds after the
phrase and has faint white noise. The first model makes 32 mel bands of a 16 kHz clip, a frame every 10 ms, the second 96 features
of each 76 frames, every 8.

OUT has `features` [clips, frames, 96] and, of each clip, the numbers of its `phrase` and `voice`; its metadata name the phrases and
voices, in the order of these numbers, with a line feed between two.
"""

import pathlib
import subprocess
import sys

import numpy as np
import onnxruntime
from safetensors.numpy import save_file

VARIANTS = ["m1", "m3", "f1", "f2"]
SPEEDS = [140, 175]
RATE = 16_000
SAMPLES = 3 * RATE
TAIL = RATE * 2 // 5  # samples after the phrase
NOISE = 8.0  # largest value of the noise, of 32,768
SILENCE = 64.0  # samples below this are silence
WINDOW, HOP, BANDS = 76, 8, 32  # mel frames of an embedding, frames between two, bands
LOBES = 16  # zeros of the resampling kernel on each side


def voice(language: str, number: int) -> str:
    """espeak-ng's name of a voice: for English, two accents in turn."""
    base = {"en": ["en-us", "en-gb"][number % 2], "dk": "da", "zh": "cmn-latn-pinyin"}.get(language, language)
    return f"{base}+{VARIANTS[number]}"


def say(name: str, speed: int, text: str) -> tuple[int, np.ndarray]:
    """What espeak-ng says, with its rate. On a pipe its header cannot say how long the sound is: it goes to the end."""
    command = ["espeak-ng", "-v", name, "-s", str(speed), "--stdout", "--", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    if wav[:4] != b"RIFF" or wav[36:40] != b"data" or (wav[22], wav[34]) != (1, 16):
        raise ValueError("espeak-ng gives no plain mono WAV of 16 bits")
    even = wav[44 : len(wav) - len(wav) % 2]
    return int.from_bytes(wav[24:28], "little"), np.frombuffer(even, "<i2").astype(np.float64)


def resample(samples: np.ndarray, ratio: float) -> np.ndarray:
    """By a Hann-windowed sinc that passes what the new rate can hold; `ratio` is the old rate over the new one."""
    reach = int(np.ceil(LOBES * ratio))
    padded = np.pad(samples, reach + 1)
    centers = np.arange(int(len(samples) / ratio)) * ratio
    first = np.floor(centers).astype(int)
    taps = np.arange(-reach, reach + 2)
    x = (first[:, None] + taps - centers[:, None]) / ratio
    kernel = np.sinc(x) * np.where(np.abs(x) < LOBES, 0.5 + 0.5 * np.cos(np.pi * x / LOBES), 0.0) / ratio
    return (padded[first[:, None] + taps + reach + 1] * kernel).sum(1)


def clip(name: str, speed: int, text: str, seed: int) -> np.ndarray:
    """A clip in the range of 16-bit samples."""
    rate, said = say(name, speed, text)
    said = resample(said, rate / RATE)
    loud = np.flatnonzero(np.abs(said) > SILENCE)
    room = SAMPLES - TAIL
    if len(loud) == 0 or loud[-1] + 1 - loud[0] > room:
        raise ValueError(f"`{text}` is silent, or longer than a clip")
    said = said[loud[0] : loud[-1] + 1]
    out = np.random.default_rng(seed).uniform(-NOISE, NOISE, SAMPLES)
    out[room - len(said) : room] += said
    return np.clip(np.round(out), -32_768, 32_767).astype(np.float32)


def main() -> None:
    models, phrases, out = map(pathlib.Path, sys.argv[1:])
    options = onnxruntime.SessionOptions()
    mel, embedding = (
        onnxruntime.InferenceSession(models / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        for name in ("melspectrogram", "embedding_model")
    )
    phrases = [line.split("\t") for line in phrases.read_text().splitlines()]
    features, of_phrase, of_voice = [], [], []
    for number, (language, text) in enumerate(phrases):
        for v in range(len(VARIANTS)):
            for s, speed in enumerate(SPEEDS):
                sound = clip(voice(language, v), speed, text, len(features))
                bands = mel.run(None, {"input": sound[None]})[0].reshape(-1, BANDS) / 10 + 2
                starts = range(0, len(bands) - WINDOW + 1, HOP)
                windows = np.stack([bands[at : at + WINDOW] for at in starts])[..., None]
                features.append(embedding.run(None, {"input_1": windows})[0].reshape(len(windows), -1))
                of_phrase.append(number)
                of_voice.append(v * len(SPEEDS) + s)
    names = [f"{variant} at {speed}" for variant in VARIANTS for speed in SPEEDS]
    tensors = {
        "features": np.stack(features).astype(np.float32),
        "phrase": np.array(of_phrase, np.float32),
        "voice": np.array(of_voice, np.float32),
    }
    save_file(tensors, out, {"phrases": "\n".join(text for _, text in phrases), "voices": "\n".join(names)})
    print(f"{len(features)} clips of {features[0].shape[0]} frames into {out}")


if __name__ == "__main__":
    main()
