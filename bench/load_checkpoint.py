"""Loads an exported network with the PyPI packages `safetensors` and `numpy` alone and reproduces its accuracy.

Exit code 0: the accuracy is the one in the file's metadata (key `test-accuracy`). 1: it is not, or the file is not a
network that can be checked. 2: wrong arguments.

--data is a folder of idx(.gz) files (images are scaled to [0, 1]) or an .npz file with `x_test` and `y_test`, whose inputs are
taken as they are.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
from safetensors import SafetensorError, safe_open

from idx import read_part

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def read_network(path):
    """Reads the layers `(weight [out, in], bias [out])` and the metadata."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise SystemExit(f"error: {path}: {error}") from error
    names = [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(len(tensors) // 2)]
    if not names or set(tensors) != {name for pair in names for name in pair}:
        raise SystemExit(f"error: {path}: not an MLP with `layers.N.weight` and `layers.N.bias`, but {sorted(tensors)}")
    layers = [(tensors[weight], tensors[bias]) for weight, bias in names]
    shapes = [(weight.shape, bias.shape) for weight, bias in layers]
    if any(len(w) != 2 or b != w[:1] for w, b in shapes) or any(a[0][0] != b[0][1] for a, b in zip(shapes, shapes[1:])):
        raise SystemExit(f"error: {path}: the layers do not fit together: {shapes}")
    return layers, metadata


def read_examples(path):
    """Reads the test inputs `[n, in]` and labels `[n]`."""
    if pathlib.Path(path).is_dir():
        return read_part(path, "t10k")
    try:
        with np.load(path) as arrays:
            x, y = arrays["x_test"], arrays["y_test"]
    except (OSError, KeyError, ValueError) as error:
        raise SystemExit(f"error: {path}: {error}") from error
    return x.reshape(len(x), -1).astype(np.float32), y.astype(np.int64)


def logits(layers, x, activation):
    for i, (weight, bias) in enumerate(layers):
        x = (activation(x) if i > 0 else x) @ weight.T + bias
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="FILE.safetensors")
    parser.add_argument("--data", required=True, metavar="FOLDER|FILE.npz")
    parser.add_argument("--activation", choices=sorted(ACTIVATIONS), default="relu")
    args = parser.parse_args()

    layers, metadata = read_network(args.checkpoint)
    x, y = read_examples(args.data)
    if x.shape[1] != layers[0][0].shape[1]:
        raise SystemExit(f"error: the network takes {layers[0][0].shape[1]} inputs, the data have {x.shape[1]}")
    correct = int((logits(layers, x, ACTIVATIONS[args.activation]).argmax(1) == y).sum())
    try:
        stated = float(metadata["test-accuracy"])
    except (KeyError, ValueError):
        raise SystemExit(f"error: {args.checkpoint}: no number `test-accuracy` in its metadata {metadata}") from None
    # Sums taken in another order may tip one example whose two best logits are equal to the last bit.
    agrees = abs(correct - stated * len(y)) <= 1.001
    result = {"checkpoint": args.checkpoint, "examples": len(y), "accuracy": correct / len(y), "stated": stated, "agrees": agrees}
    print(json.dumps(result))
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
