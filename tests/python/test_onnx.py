"""ONNX models with weights that Weft wrote into them run in ONNX Runtime, in the application's own graph.

    cargo build --release -p weft-cli -p weft-zoo -p weft --bin weft --example onnx --example forward
    WEFT_DATA=FOLDER python -m unittest discover -v tests/python

With the program itself (target/release/weft, or its path in WEFT) whole zoos are exported as well; the example `forward` runs them in Weft.

Needs goldens/onnx/requirements.txt, the examples (or their paths in WEFT_ONNX and WEFT_FORWARD) and `openwakeword` in the folder that
WEFT_DATA names.
"""

import itertools
import json
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
FORWARD = pathlib.Path(os.environ.get("WEFT_FORWARD", ROOT / "target/release/examples/forward"))
NETWORKS = pathlib.Path(os.environ.get("WEFT_DATA", ROOT / "data")) / "openwakeword"
# One network of each of the five dialects.
DIALECTS = ["dk/hey_leo/hey_leo", "en/hey_skelly/Hey_Skelly", "en/alfred/alfred", "en/glados/glados", "zh/xiao_ai"]


def weft(*arguments):
    subprocess.run([str(PROGRAM), *map(str, arguments)], check=True)


def program(*arguments):
    subprocess.run([str(WEFT), *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def listed(zoo):
    """What the catalogue knows of a zoo's networks, by the digests of their weights."""
    answer = subprocess.run([str(WEFT), "zoo", "ls", str(zoo), "--format", "json", "--quiet"], check=True, capture_output=True)
    return {row["digest"]: row for row in json.loads(answer.stdout)}


def run(model, inputs):
    """The application's call: one example at a time, a score each."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
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


@unittest.skipUnless(onnx, "onnx and onnxruntime are not installed")
@unittest.skipUnless(WEFT.is_file(), f"{WEFT} is not built")
@unittest.skipUnless(NETWORKS.is_dir(), "WEFT_DATA has no folder openwakeword")
class WholeZoos(unittest.TestCase):
    """What a user does: all models into a zoo, changed there, and out into the models again."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        with safe_open(ROOT / "goldens/onnx/openwakeword.safetensors", framework="numpy") as goldens:
            self.inputs = np.ascontiguousarray(goldens.get_tensor("inputs")[::4], np.float32)
        labels = ["--label", "phrase=file-stem", "--label", "language=folder:2"]
        # Two of the models are no wake words, so the import ends with status 1.
        arguments = [str(WEFT), "zoo", "import", str(NETWORKS), "-o", str(self.zoo), *labels, "--quiet"]
        done = subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1)
        self.raw = listed(self.zoo)
        self.assertEqual(len(self.raw), 121)
        sources = {row["source"] for row in self.raw.values()}
        self.assertTrue(all(f"{name}.onnx" in sources for name in DIALECTS), "a dialect is missing")

    @property
    def zoo(self):
        return self.folder / "zoo"

    def exported(self, zoo, *more):
        """The models of a zoo's networks, by their digests."""
        out = self.folder / f"out-{zoo.name}-{zoo.parent.name}"
        program("zoo", "export", zoo, "-o", out, "--as", "onnx", *more)
        return {digest: next(out.glob(f"{digest[:12]}*.onnx")) for digest in listed(zoo)}

    def test_unchanged_networks_are_the_same_models(self):
        for digest, model in self.exported(self.zoo, "--originals", NETWORKS).items():
            original = NETWORKS / self.raw[digest]["source"]
            self.assertEqual(original.read_bytes(), model.read_bytes())
            np.testing.assert_array_equal(run(original, self.inputs), run(model, self.inputs))

    def test_canonical_forms_do_what_the_originals_do(self):
        for align in ("mean", "consistent", "anchor"):
            canonical = self.folder / f"canonical-{align}"
            program("zoo", "canonicalize", self.zoo, "-o", canonical, "--align", align)
            rows = listed(canonical)
            self.assertEqual(len(rows), 121)
            self.assertLess(max(row["max-deviation"] for row in rows.values()), 1e-4)
            models = self.exported(canonical, "--originals", NETWORKS, "--ancestors", self.zoo)
            for digest, row in rows.items():
                original = NETWORKS / self.raw[row["parents"][0]]["source"]
                self.assertNotEqual(original.read_bytes(), models[digest].read_bytes())
                expected, got = run(original, self.inputs), run(models[digest], self.inputs)
                with self.subTest(original.name, align=align):
                    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * expected.max())

    @unittest.skipUnless(FORWARD.is_file(), f"{FORWARD} is not built")
    def test_changed_networks_do_what_they_do_in_weft(self):
        weights, changed = self.folder / "weights", self.folder / "changed"
        program("zoo", "export", self.zoo, "-o", weights)
        changed.mkdir()
        files = sorted(weights.glob("*.safetensors"))
        digest = {row["source"]: digest for digest, row in self.raw.items()}
        of_dialects = [next(weights.glob(f"{digest[f'{name}.onnx'][:12]}*.safetensors")) for name in DIALECTS]
        random = np.random.default_rng(3)
        # Each dialect's network in the mean with another, and with noise on it; both go into the model of the first parent.
        for parent, other in zip(of_dialects, itertools.islice(files, 5)):
            a, b = load_file(parent), load_file(other)
            mean = {name: (a[name] + b[name]) / 2 for name in a}
            noisy = {name: a[name] + (0.05 * a[name].std() * random.standard_normal(a[name].shape)).astype(np.float32) for name in a}
            with safe_open(parent, framework="numpy") as file:
                metadata = {"parents": file.metadata()["digest"], "licence": file.metadata()["licence"]}
            for kind, tensors in (("mean", mean), ("noisy", noisy)):
                save_file(tensors, changed / f"{kind}-{parent.name}", {**metadata, "run": f"{kind} {parent.name}"})
        zoo = self.folder / "changed-zoo"
        program("zoo", "import", changed, "-o", zoo, "--architecture", ROOT / "architectures/openwakeword.toml")
        models = self.exported(zoo, "--originals", NETWORKS, "--ancestors", self.zoo)
        self.assertEqual(len(models), 10)
        save_file({"inputs": self.inputs}, self.folder / "inputs.safetensors")
        subprocess.run([FORWARD, zoo, self.folder / "inputs.safetensors", self.folder / "outputs.safetensors"], check=True)
        logits = load_file(self.folder / "outputs.safetensors")
        rows = listed(zoo)
        for digest, model in models.items():
            expected = 1 / (1 + np.exp(-logits[digest][:, 0].astype(np.float64)))
            got = run(model, self.inputs)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
            original = run(NETWORKS / self.raw[rows[digest]["parents"][0]]["source"], self.inputs)
            self.assertGreater(np.abs(got - original).max(), 1e-4)


if __name__ == "__main__":
    unittest.main()
