"""Makes openwakeword.safetensors: what ONNX Runtime computes with 122 wake-word networks, before their sigmoid.

    python goldens/onnx/make.py FOLDER

FOLDER holds the networks (*/**/*.onnx) and the two backbones melspectrogram.onnx and embedding_model.onnx. Needs the packages of
requirements.txt and the program espeak-ng, which says the phrases. The same versions give the same bytes.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from blake3 import blake3
from safetensors.numpy import save
from scipy.io import wavfile
from scipy.signal import resample_poly

RATE = 16_000
# Features are means over 76 frames of 10 ms, a new one every 8 frames; a network sees 16 of them.
FRAMES, STEP, FEATURES = 76, 8, 16
PHRASES = [
    "hey jarvis", "ok computer", "hey marvin", "alfred", "hello there", "hey santa", "terminator", "skynet",
    "what time is it", "hey friday", "darth vader", "ok nabu", "winston", "scarlett", "hey luna", "glados",
]
VOICES = ["en-us", "en-gb+f3"]
RANDOM = 32


def speech(phrase, voice):
    """Two and a half seconds that end a fifth of a second after a spoken phrase, in units of 16-bit samples."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", file.name, phrase], check=True)
        rate, samples = wavfile.read(file.name)
    samples = resample_poly(samples.astype(np.float64), RATE, rate)
    samples = samples[: np.flatnonzero(np.abs(samples) > 30)[-1] + 1]
    room = int(2.5 * RATE)
    return np.concatenate([np.zeros(room), samples, np.zeros(RATE // 5)])[-room:].astype(np.float32)


def features(audio, melspectrogram, embedding):
    """openWakeWord's own preprocessing: log-mel frames, scaled, then an embedding of each window."""
    (mel,) = melspectrogram.run(None, {melspectrogram.get_inputs()[0].name: audio[None]})
    mel = mel.squeeze() / 10 + 2
    starts = range(0, len(mel) - FRAMES + 1, STEP)
    windows = np.stack([mel[start : start + FRAMES] for start in starts])[..., None].astype(np.float32)
    (embedded,) = embedding.run(None, {embedding.get_inputs()[0].name: windows})
    return embedded.reshape(len(windows), -1)[-FEATURES:]


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def logits(path, inputs):
    """The values that the last sigmoid reads, an input at a time: the networks are made for one."""
    model = onnx.load(path)
    (last,) = [node for node in model.graph.node if model.graph.output[0].name in node.output]
    assert last.op_type == "Sigmoid", path
    model.graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, [1, 1]))
    run = session(model.SerializeToString())
    name = run.get_inputs()[0].name
    return [run.run([last.input[0]], {name: x[None]})[0].item() for x in inputs]


def main(folder):
    melspectrogram, embedding = (session(str(folder / f"{name}.onnx")) for name in ("melspectrogram", "embedding_model"))
    spoken = [features(speech(phrase, voice), melspectrogram, embedding) for voice in VOICES for phrase in PHRASES]
    spoken = np.stack(spoken).astype(np.float16)
    scale = spoken.astype(np.float32).std()
    random = (np.random.default_rng(0).standard_normal((RANDOM, *spoken.shape[1:])) * scale).astype(np.float16)
    inputs = np.concatenate([spoken, random])
    paths = sorted(folder.glob("*/**/*.onnx"))
    rows = np.array([logits(path, inputs.astype(np.float32)) for path in paths], dtype=np.float32)
    networks = "\n".join(blake3(path.read_bytes()).hexdigest()[:16] for path in paths)
    metadata = {"networks": networks, "spoken": str(len(spoken)), "onnxruntime": onnxruntime.__version__}
    target = pathlib.Path(__file__).with_name("openwakeword.safetensors")
    target.write_bytes(save({"inputs": inputs, "logits": rows}, metadata))
    print(f"{target.name}: {rows.shape} logits in [{rows.min():.2f}, {rows.max():.2f}], features of std {scale:.2f}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
