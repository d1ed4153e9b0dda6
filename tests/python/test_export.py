"""Exported networks, read with the PyPI packages `safetensors` and `numpy` alone, reach the accuracy that their files state.

    WEFT_DATA=FOLDER python -m unittest discover -v tests/python

Needs bench/requirements.txt (without torch), the program (`cargo build --release -p weft-cli`, or the path in WEFT) and
`mnist1d.npz` in the folder that WEFT_DATA names; with the four MNIST files in its folder `mnist`, those networks too.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
from safetensors import safe_open

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEFT = pathlib.Path(os.environ.get("WEFT", ROOT / "target/release/weft"))
DATA = pathlib.Path(os.environ.get("WEFT_DATA", ROOT / "data"))

SMALL = """
run.device=cpu zoo.train.runs=12 zoo.train.held-out-runs=4 zoo.train.recipe.duration.steps=200 generator.flow.steps=50
generator.flow.width=32 refiner.steps=20 refiner.width=32 refiner.batch-networks=8 refiner.batch-examples=32
baselines.refined=[] evaluate.ablation=false sample.count=8 sample.seeds=1 export.count=3
""".split()


def run(command, more, output):
    """Runs `weft COMMAND` on small settings and returns the exported files."""
    sets = [*SMALL, *more, f"run.output='{output}'"]
    arguments = [str(WEFT), *command, "--quiet", *(word for key in sets for word in ("--set", key))]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "WEFT_DATA": str(DATA)})
    return sorted((pathlib.Path(output) / "networks").glob("*.safetensors"))


def check(file, data):
    """What bench/load_checkpoint.py says of one file."""
    command = [sys.executable, str(ROOT / "bench/load_checkpoint.py"), "--checkpoint", str(file), "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@unittest.skipUnless(WEFT.is_file(), f"{WEFT} is not built")
class ExportedNetworks(unittest.TestCase):
    def reaches_what_it_states(self, files, data):
        self.assertEqual(len(files), 3)
        for file in files:
            result = check(file, data)
            self.assertTrue(result["agrees"], result)
            print(f"{file.name}: {result['accuracy']:.4f} on {result['examples']} examples, stated {result['stated']:.4f}")

    @unittest.skipUnless((DATA / "mnist1d.npz").is_file(), "WEFT_DATA has no mnist1d.npz")
    def test_mnist_1d(self):
        with tempfile.TemporaryDirectory() as output:
            files = run(["quickstart"], ["data.npz.path=mnist1d.npz"], output)
            self.reaches_what_it_states(files, DATA / "mnist1d.npz")
            with safe_open(files[0], framework="numpy") as file:
                shapes = {name: file.get_tensor(name).shape for name in file.keys()}
                dtypes = {file.get_tensor(name).dtype for name in file.keys()}
                metadata = file.metadata()
        # Names and layout as in PyTorch: [out, in].
        expected = {"layers.0.weight": (16, 40), "layers.0.bias": (16,), "layers.1.weight": (10, 16), "layers.1.bias": (10,)}
        self.assertEqual((shapes, dtypes), (expected, {np.dtype("float32")}))
        self.assertEqual(metadata["synthetic"], "true")
        self.assertLessEqual({"seed", "generator-digest", "parents", "licence", "architecture"}, set(metadata))

    @unittest.skipUnless((DATA / "mnist").is_dir(), "WEFT_DATA has no folder mnist")
    def test_mnist(self):
        with tempfile.TemporaryDirectory() as output:
            files = run(["run", str(ROOT / "configs/h1-mnist-mlp.toml")], [], output)
            self.reaches_what_it_states(files, DATA / "mnist")


if __name__ == "__main__":
    unittest.main()
