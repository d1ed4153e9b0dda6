"""Writes the first inputs of every fuzz target, from `goldens/formats/` and by the standard library alone.

    python fuzz/seeds.py

They are committed under `fuzz/corpus/`; what fuzzing finds is added there by hand.
"""

import base64
import json
import pathlib
import shutil
import struct
import zlib

HERE = pathlib.Path(__file__).parent
GOLDENS = HERE.parent / "goldens" / "formats"


def seed(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def copy(target, *names):
    for name in names:
        seed(target, name.replace("/", "-"), (GOLDENS / name).read_bytes())


def safetensors():
    copy("safetensors", "quantized.safetensors", "peft-lora/adapter_model.safetensors")
    header = json.dumps({"module.a": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]}}).encode()
    seed("safetensors", "scalar", struct.pack("<Q", len(header)) + header + bytes(8))


def index():
    good = {"metadata": {}, "weight_map": {"a": "a.safetensors", "b": "a.safetensors", "c": "b.safetensors"}}
    seed("index", "good", json.dumps(good).encode())
    seed("index", "outside", json.dumps({"weight_map": {"a": "../a.safetensors"}}).encode())


def llama2c():
    for name, header in [("shared", (4, 6, 2, 2, 1, 8, 3)), ("unshared", (4, 6, 1, 2, 2, -8, 3))]:
        dim, hidden, layers, heads, kv_heads, vocab, seq = header
        kv = dim // heads * kv_heads
        layer = 2 * dim + 2 * dim * dim + 2 * kv * dim + 3 * hidden * dim
        values = abs(vocab) * dim * (2 if vocab < 0 else 1) + layers * layer + dim + seq * (dim // heads)
        seed("llama2c", name, struct.pack("<7i", *header) + bytes(4 * values))


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(bytes([0]) + bytes(range(4 * width)) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/PNG;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def hexells():
    def layer(shape, layout):
        data = png(layout[0] * shape[1] // 4, layout[1] * shape[0])
        return {"scale": 2.0, "data": data, "shape": shape, "quant_scale_zero": [2.0, 0.0], "layout": layout}

    layers = [layer([3, 8], [2, 1]), layer([9, 4], [1, 2])]
    seed("hexells", "two-layers", json.dumps({"model_names": ["x", "y"], "layers": layers}).encode())


def zip_of(*entries):
    """An archive by hand: the order and the bytes shall not depend on Python's version."""
    data, directory = b"", b""
    for name, content in entries:
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, zlib.crc32(content), len(content), len(content), len(name), 0)
        directory += b"PK\x01\x02\x14\x00" + fields + bytes(10) + struct.pack("<I", len(data)) + name
        data += b"PK\x03\x04" + fields + name + content
    end = struct.pack("<HHII", len(entries), len(entries), len(directory), len(data))
    return data + directory + b"PK\x05\x06" + bytes(4) + end + bytes(2)


def pytorch():
    copy("pytorch", "state.pt", "legacy.pth", "protocol4.bin", "training.ckpt")
    seed("pytorch", "calls", zip_of((b"net/data.pkl", b"cos\nsystem\n(X\x02\x00\x00\x00idtR.")))
    seed("pytorch", "pickle", b"\x80\x02}(X\x01\x00\x00\x00aK\x01u.")


if __name__ == "__main__":
    shutil.rmtree(HERE / "corpus", ignore_errors=True)
    safetensors()
    index()
    pytorch()
    copy("npz", "plain.npz", "compressed.npz")
    copy("peft", *(f"{folder}/adapter_config.json" for folder in ("peft-lora", "peft-rslora", "peft-dora")))
    fits = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "rank_pattern": {r"blocks\.\d+\.q|o": 4}, "use_rslora": True}
    seed("peft", "fits", json.dumps(fits).encode())
    llama2c()
    hexells()
