"""Writes small files by the formats' own tools, and the values that those tools read back from them.

Run by hand, with torch 2.11.0, safetensors 0.8.0, numpy 2.4.6 and peft 0.21.2 installed:

    python goldens/formats/make.py

The files are committed; `crates/weft-zoo/tests/goldens.rs` compares what Weft reads with `expected.json`.
"""

import collections
import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
EXPECTED = {}


def expect(path, tensors):
    EXPECTED[path] = {
        name: {"shape": list(t.shape), "values": t.detach().double().flatten().tolist()} for name, t in tensors.items()
    }


def state():
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return collections.OrderedDict(
        [
            ("layers.0.weight", torch.randn(3, 4)),
            ("layers.0.bias", torch.randn(3, dtype=torch.float64)),
            ("layers.1.weight", torch.randn(2, 3).half()),
            ("layers.1.bias", torch.randn(2).bfloat16()),
            ("transposed", base.t()),
            ("view", base[1:3, 2:5]),
            ("num_batches_tracked", torch.tensor(7)),
            ("mask", torch.tensor([True, False, True])),
        ]
    )


def pytorch():
    tensors = state()
    torch.save(tensors, HERE / "state.pt")
    expect("state.pt", torch.load(HERE / "state.pt", weights_only=True))
    torch.save(tensors, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    expect("legacy.pth", torch.load(HERE / "legacy.pth", weights_only=True))
    torch.save(tensors, HERE / "protocol4.bin", pickle_protocol=4)
    expect("protocol4.bin", torch.load(HERE / "protocol4.bin", weights_only=False))
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    wrapped = torch.nn.DataParallel(model)
    checkpoint = {
        "epoch": 3,
        "best": 0.5,
        "name": "net",
        "state_dict": wrapped.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(checkpoint, HERE / "training.ckpt")
    loaded = torch.load(HERE / "training.ckpt", weights_only=True)["state_dict"]
    expect("training.ckpt", {name.removeprefix("module."): t for name, t in loaded.items()})


def sharded():
    tensors = {name: t.contiguous().clone() for name, t in state().items()}
    names = sorted(tensors)
    for folder, ending, write in [
        ("sharded-safetensors", "safetensors", save_file),
        ("sharded-pytorch", "bin", torch.save),
    ]:
        (HERE / folder).mkdir(exist_ok=True)
        stem = "model" if ending == "safetensors" else "pytorch_model"
        weight_map = {}
        for i, part in enumerate([names[:4], names[4:]], 1):
            file = f"{stem}-{i:05}-of-00002.{ending}"
            write({name: tensors[name] for name in part}, str(HERE / folder / file))
            weight_map.update({name: file for name in part})
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (HERE / folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=1))
        expect(folder, tensors)


def npz():
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((3, 4)).astype(np.float32),
        "columns": np.asfortranarray(rng.standard_normal((2, 3, 2))),
        "half": rng.standard_normal(5).astype(np.float16),
        "zeros": np.zeros((100, 10), np.float32),
        "steps": np.arange(3),
    }
    for name, save in [("plain.npz", np.savez), ("compressed.npz", np.savez_compressed)]:
        save(HERE / name, **arrays)
        loaded = np.load(HERE / name)
        expect(name, {key: torch.from_numpy(np.ascontiguousarray(loaded[key])) for key in loaded.files})


def quantized():
    torch.manual_seed(1)
    rows, blocks = torch.randn(3, 4), torch.randn(130, 3)
    tensors, values = {}, {}
    for name, dtype in [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)]:
        scale = torch.tensor(0.03)
        tensors[f"{name}.weight"], tensors[f"{name}.weight_scale"] = (rows / scale).to(dtype), scale
        values[f"{name}.weight"] = tensors[f"{name}.weight"].float() * scale
    inverse = torch.tensor([[0.02], [0.05]])
    tensors["block.weight"] = (blocks / inverse.repeat_interleave(128, 0)[:130]).to(torch.float8_e4m3fn)
    tensors["block.weight_scale_inv"] = inverse
    values["block.weight"] = tensors["block.weight"].float() * inverse.repeat_interleave(128, 0)[:130]
    largest = rows.abs().amax(1)
    tensors["int8.weight"], tensors["int8.SCB"] = (rows * 127 / largest[:, None]).round().to(torch.int8), largest
    tensors["int8.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    values["int8.weight"] = tensors["int8.weight"].float() * largest[:, None] / 127
    tensors["rows.weight"], tensors["rows.weight.scale"] = tensors["int8.weight"].clone(), largest[:, None] / 127
    values["rows.weight"] = tensors["rows.weight"].float() * tensors["rows.weight.scale"]
    tensors["plain"], values["plain"] = rows, rows
    save_file(tensors, HERE / "quantized.safetensors")
    assert load_file(HERE / "quantized.safetensors").keys() == tensors.keys()
    expect("quantized.safetensors", values)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = torch.nn.Embedding(5, 4)
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict({"q": torch.nn.Linear(4, 6), "o": torch.nn.Linear(6, 4)}) for _ in range(2)
        )
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4, 2)


def peft():
    from peft import LoraConfig, get_peft_model

    cases = {
        "peft-lora": {"r": 4, "lora_alpha": 8, "target_modules": ["wte", "q", "conv"], "modules_to_save": ["head"]},
        "peft-rslora": {
            "r": 4,
            "lora_alpha": 8,
            "use_rslora": True,
            "target_modules": ["q", "o"],
            "rank_pattern": {"blocks.1.q": 2, "o": 1},
            "alpha_pattern": {r"blocks\.[01]\.q": 3},
        },
        "peft-dora": {"r": 2, "lora_alpha": 2, "use_dora": True, "target_modules": ["q"]},
    }
    for folder, settings in cases.items():
        torch.manual_seed(2)
        model = get_peft_model(Net(), LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter)
        model.save_pretrained(HERE / folder)
        (HERE / folder / "README.md").unlink()
        deltas = {}
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight"):
                module_name = name.removeprefix("base_model.model.")
                deltas[module_name] = module.get_delta_weight("default")
        expect(folder, deltas)


if __name__ == "__main__":
    for old in HERE.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    pytorch()
    sharded()
    npz()
    quantized()
    peft()
    (HERE / "expected.json").write_text(json.dumps(EXPECTED) + "\n")
