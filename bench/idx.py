"""Reads MNIST-like data: the four idx(.gz) files of a folder."""

import gzip
import pathlib
import struct

import numpy as np


def read_idx(folder, name):
    """Reads one idx file of unsigned bytes, compressed or not, as an array."""
    plain = pathlib.Path(folder) / name
    packed = plain.with_name(name + ".gz")
    if packed.exists():
        data = gzip.decompress(packed.read_bytes())
    elif plain.exists():
        data = plain.read_bytes()
    else:
        raise SystemExit(f"error: neither {plain} nor {packed} exists")
    zeros, kind, num_axes = struct.unpack_from(">HBB", data)
    if zeros != 0 or kind != 8:
        raise SystemExit(f"error: {plain} is not an idx file of unsigned bytes")
    shape = struct.unpack_from(f">{num_axes}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * num_axes).reshape(shape)


def read_part(folder, part):
    """Reads the images of `train` or `t10k` as f32 rows in [0, 1], and their labels."""
    images = read_idx(folder, f"{part}-images-idx3-ubyte")
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte")
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)
