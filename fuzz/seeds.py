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
    kohya, at = {}, 0
    for name, shape in [("alpha", []), ("lora_down.weight", [1, 2]), ("lora_up.weight", [2, 1])]:
        end = at + 4 * (2 if shape else 1)
        kohya[f"lora_unet_proj_in.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    header_of_kohya = json.dumps(kohya).encode()
    seed("safetensors", "kohya", struct.pack("<Q", len(header_of_kohya)) + header_of_kohya + struct.pack("<5f", 1, 2, 3, 4, 5))
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


def varint(number):
    number &= (1 << 64) - 1
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + varint(number >> 7) if number > 0x7F else low


def message(*fields):
    """A protobuf message of (number, value): integers as varints, floats as 32 bits, texts and messages with their length."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def tensor(name, dims, values, kind=1):
    """Values 32 bits wide in a field of their own if they are floats (`kind` 1), raw if they are f64 (11) or i64 (7)."""
    data = {
        1: lambda: (4, struct.pack(f"<{len(values)}f", *values)),
        7: lambda: (9, struct.pack(f"<{len(values)}q", *values)),
        11: lambda: (9, struct.pack(f"<{len(values)}d", *values)),
    }[kind]()
    return message(*((1, axis) for axis in dims), (2, kind), (8, name), data)


def attribute(name, value):
    if isinstance(value, bytes):
        return message((1, name), (5, value), (20, 4))
    if isinstance(value, list):
        return message((1, name), *((8, item) for item in value), (20, 7))
    return message((1, name), (2, value), (20, 1)) if isinstance(value, float) else message((1, name), (3, value), (20, 2))


def node(kind, inputs, output, **attributes):
    given = ((5, attribute(name, value)) for name, value in attributes.items())
    return message(*((1, name) for name in inputs.split()), (2, output), (3, f"node_{output}"), (4, kind), *given)


def model(nodes, tensors, dims):
    """A model from `x`, a batch of examples of `dims`, to `y`."""

    def value(name, dims):
        shape = message((1, message((2, "batch"))), *((1, message((1, axis))) for axis in dims))
        return message((1, name), (2, message((1, message((1, 1), (2, shape))))))

    graph = message(
        *((1, each) for each in nodes), (2, "g"), *((5, each) for each in tensors), (11, value("x", dims)), (12, value("y", []))
    )
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 17))))


def onnx():
    ramp = [0.25 * i - 1.0 for i in range(24)]
    affine = [tensor("w0", [3, 4], ramp[:12]), tensor("b0", [3], ramp[:3]), tensor("w1", [3, 2], ramp[:6], 11)]
    last = [node("MatMul", "h w1", "m"), node("Sigmoid", "m", "y")]
    gemm = [node("Gemm", "x w0 b0", "a", transB=1, alpha=2.0), node("Relu", "a", "h")]
    seed("onnx", "gemm", model(gemm + last, affine, [4]))
    # A layer norm spelled out, behind a transposed weight and a computed shape.
    norm = [
        node("Constant", "", "to", value=tensor("", [2], [0, -1], 7)),
        node("Reshape", "x to", "f"),
        node("Transpose", "w0", "wt", perm=[1, 0]),
        node("MatMul", "f wt", "p"),
        node("Add", "p b0", "a"),
        node("ReduceMean", "a", "mean", axes=[-1]),
        node("Sub", "a mean", "d"),
        node("Pow", "d two", "sq"),
        node("ReduceMean", "sq", "var", axes=[-1]),
        node("Add", "var eps", "ve"),
        node("Sqrt", "ve", "sd"),
        node("Div", "d sd", "n"),
        node("Mul", "n g0", "s"),
        node("Add", "s b0n", "h"),
    ]
    numbers = [("two", [], [2.0]), ("eps", [], [1e-5]), ("g0", [3], ramp[:3]), ("b0n", [3], ramp[3:6])]
    seed("onnx", "norm", model(norm + last, affine + [tensor(*number) for number in numbers], [2, 2]))
    image = [
        node("Conv", "x k", "c", kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[1, 1]),
        node("BatchNormalization", "c s b m v", "n", epsilon=1e-5),
        node("Tanh", "n", "t"),
        node("GlobalAveragePool", "t", "p"),
        node("Flatten", "p", "f", axis=1),
        node("Gemm", "f w", "y"),
    ]
    stats = [tensor(name, [2], values) for name, values in zip("sbmv", ([1.0, 0.5], [0.0, 0.1], [0.2, 0.3], [1.0, 2.0]))]
    seed("onnx", "image", model(image, [tensor("k", [2, 1, 2, 2], ramp[:8]), *stats, tensor("w", [2, 3], ramp[:6])], [1, 3, 3]))
    # Data in a file beside the model, of which bytes alone know nothing.
    outside = message((1, 3), (2, 1), (8, "b0"), (13, message((1, "location"), (2, "b0.bin"))), (14, 1))
    seed("onnx", "external", model(gemm + last, [affine[0], outside, affine[2]], [4]))


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
    onnx()
