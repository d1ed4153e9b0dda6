"""ONNX models with weights that Weft wrote into them run in ONNX Runtime, in the application's own graph.

    cargo build --release -p weft-zoo --example onnx
    WEFT_DATA=FOLDER python -m unittest discover -v tests/python

With the program itself (target/release/weft, or its path in WEFT) whole zoos are exported as well.

Needs goldens/onnx/requirements.txt, the example (or its path in WEFT_ONNX) and `openwakeword` in the folder that WEFT_DATA names.
"""

import os
import pathlib
import subprocess
import tempfile
import unittest

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

try:
    import onnx
    import onnxruntime
except ImportError:
    onnx = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEFT = pathlib.Path(os.environ.get("WEFT", ROOT / "target/release/weft"))
PROGRAM = pathlib.Path(os.environ.get("WEFT_ONNX", ROOT / "target/release/examples/onnx"))
NETWORKS = pathlib.Path(os.environ.get("WEFT_DATA", ROOT / "data")) / "openwakeword"
# One network of each of the five dialects.
DIALECTS = ["dk/hey_leo/hey_leo", "en/hey_skelly/Hey_Skelly", "en/alfred/alfred", "en/glados/glados", "zh/xiao_ai"]


def weft(*arguments):
    subprocess.run([str(PROGRAM), *map(str, arguments)], check=True)


def program(*arguments):
    subprocess.run([str(WEFT), *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def run(model, inputs):
    """The application's call: one example at a time, a score each."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: x[None]})[0].item() for x in inputs])


def scores(weights, inputs):
    """The same by hand, from the names and layout that Weft gives the tensors."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    x = inputs.reshape(len(inputs), -1).astype(np.float64)
    for layer in range(3):
        x = x @ w[f"layers.{layer}.weight"].T + w[f"layers.{layer}.bias"]
        if layer < 2:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            x = np.maximum(x * w[f"norms.{layer}.weight"] + w[f"norms.{layer}.bias"], 0)
    return 1 / (1 + np.exp(-x[:, 0]))


def without_weights(model):
    """A model whose tensors of more than two values are emptied: what export must leave alone."""
    model = onnx.load(model)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) > 2 or list(tensor.dims) == [1]:
            tensor.raw_data = b""
    return model


@unittest.skipUnless(onnx, "onnx and onnxruntime are not installed")
@unittest.skipUnless(PROGRAM.is_file(), f"{PROGRAM} is not built")
@unittest.skipUnless(NETWORKS.is_dir(), "WEFT_DATA has no folder openwakeword")
class ExportedModels(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        with safe_open(ROOT / "goldens/onnx/openwakeword.safetensors", framework="numpy") as goldens:
            self.inputs = goldens.get_tensor("inputs").astype(np.float32)

    def exported(self, name, change):
        """The original, and the model with changed weights, and those weights."""
        original = NETWORKS / f"{name}.onnx"
        weights, target = (pathlib.Path(self.folder.name) / file for file in ("weights.safetensors", "changed.onnx"))
        weft("read", original, weights)
        changed = {name: np.ascontiguousarray(tensor) for name, tensor in change(load_file(weights)).items()}
        save_file(changed, weights)
        weft("write", original, weights, target)
        onnx.checker.check_model(onnx.load(target))
        self.assertEqual(without_weights(target), without_weights(original))
        return original, target, changed

    def test_another_network_in_the_same_model(self):
        def noisy(weights):
            random = np.random.default_rng(1)
            spread = {name: 0.3 * tensor.std() + 0.01 for name, tensor in weights.items()}
            return {
                name: (tensor + random.normal(0, spread[name], tensor.shape)).astype(np.float32) for name, tensor in weights.items()
            }

        for name in DIALECTS:
            with self.subTest(name):
                original, target, weights = self.exported(name, noisy)
                got = run(target, self.inputs)
                np.testing.assert_allclose(got, scores(weights, self.inputs), rtol=1e-4, atol=1e-6)
                self.assertGreater(np.abs(got - run(original, self.inputs)).max(), 1e-3)

    def test_hidden_units_in_another_order(self):
        def permuted(weights):
            order = np.random.default_rng(2).permutation(32)
            for name in ("layers.0.weight", "layers.0.bias", "norms.0.weight", "norms.0.bias"):
                weights[name] = weights[name][order]
            weights["layers.1.weight"] = weights["layers.1.weight"][:, order]
            return weights

        for name in DIALECTS:
            with self.subTest(name):
                original, target, _ = self.exported(name, permuted)
                self.assertNotEqual(original.read_bytes(), target.read_bytes())
                np.testing.assert_allclose(run(target, self.inputs), run(original, self.inputs), rtol=1e-4, atol=1e-6)

    def test_own_weights_are_the_same_file(self):
        for name in DIALECTS:
            with self.subTest(name):
                original, target, _ = self.exported(name, lambda weights: weights)
                self.assertEqual(original.read_bytes(), target.read_bytes())

    @unittest.skipUnless(WEFT.is_file(), f"{WEFT} is not built")
    def test_a_zoo_of_changed_networks_in_one_model(self):
        original = NETWORKS / f"{DIALECTS[0]}.onnx"
        folder = pathlib.Path(self.folder.name)
        (folder / "in").mkdir()
        weights = folder / "in/own.safetensors"
        weft("read", original, weights)
        own = load_file(weights)
        changed = {name: np.ascontiguousarray(0.9 * tensor) for name, tensor in own.items()}
        save_file(changed, folder / "in/changed.safetensors")
        architecture = ROOT / "architectures/openwakeword.toml"
        zoo, out = folder / "zoo", folder / "out"
        program("zoo", "import", folder / "in", "-o", zoo, "--architecture", architecture, "--licence", "Apache-2.0")
        program("zoo", "export", zoo, "-o", out, "--as", "onnx", "--graph", original)
        got = sorted(run(file, self.inputs).tolist() for file in out.glob("*.onnx"))
        expected = sorted(scores(w, self.inputs).tolist() for w in (own, changed))
        self.assertEqual(len(got), 2)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    unittest.main()
