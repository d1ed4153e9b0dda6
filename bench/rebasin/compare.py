"""Weight matching of two ResNet-18: Weft beside the package `rebasin`, on the same pair of networks.

    cargo build --release -p weft-canon --example matching
    python bench/rebasin/compare.py --matching target/release/examples/matching

Both networks are torchvision's `resnet18` with its own initial weights, from two seeds. The programs run in turn; what each says
that its work took is compared, reading of files and imports aside: for `rebasin` the constructor (it traces the network) and
`rebasin()`, for Weft the matching of the raw weights (`--raw`: permutations alone, the same problem) and, in another run,
everything (continuous symmetries fixed in both networks first). The distance is that of all weights and running statistics.
"""

import argparse
import copy
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from rebasin import PermutationCoordinateDescent
from safetensors.torch import save_file
from torchvision.models import resnet18

FIGURES = re.compile(r": ([\d.]+) s = ([\d.]+) s fixing \+ ([\d.]+) s matching; distance ([\d.]+) → ([\d.]+)")


def weights(model):
    return {name: t for name, t in model.state_dict().items() if t.dtype == torch.float32}


def distance(a, b):
    a, b = weights(a), weights(b)
    return sum((a[name].double() - b[name].double()).square().sum() for name in a).sqrt().item()


def run_rebasin(a, b, image):
    b = copy.deepcopy(b)
    before = distance(a, b)
    since = time.perf_counter()
    PermutationCoordinateDescent(a, b, image).rebasin()
    return time.perf_counter() - since, before, distance(a, b)


def run_weft(program, files, options, threads):
    command = [program, "resnet-18", *options, "--pair", *files]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found = FIGURES.search(printed)
    if found is None:
        raise SystemExit(f"the program printed no figures: {printed}")
    secs, _, _, before, after = map(float, found.groups())
    return secs, before, after


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matching", required=True, help="the built example `matching`")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(resnet18(weights=None).eval())
    a, b = models
    image = torch.randn(1, 3, 224, 224)
    secs = {"rebasin": [], "weft, raw weights": [], "weft, symmetries fixed": []}
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("a.safetensors", "b.safetensors")]
        for model, file in zip(models, files):
            save_file({name: t.contiguous() for name, t in weights(model).items()}, file)
        for _ in range(options.runs):
            found = {
                "rebasin": run_rebasin(a, b, image),
                "weft, raw weights": run_weft(options.matching, files, ["--raw"], options.threads),
                "weft, symmetries fixed": run_weft(options.matching, files, [], options.threads),
            }
            for name, (took, before, after) in found.items():
                secs[name].append(took)
                print(f"{name}: {took:.2f} s, distance {before:.3f} → {after:.3f}", flush=True)
    median = {name: statistics.median(values) for name, values in secs.items()}
    for name, took in median.items():
        print(f"median {name}: {took:.2f} s, {median['rebasin'] / took:.1f}× as fast as rebasin")


if __name__ == "__main__":
    main()
