"""Adapters that Weft wrote load in PEFT with no missing and no unexpected key and compute the same, and llama.cpp's reader reads them.

    pip install -r tests/python/requirements-adapters.txt
    cargo build --release -p weft-cli
    python -m unittest discover -v tests/python -p test_adapters.py

The program is target/release/weft, or its path in WEFT. The base is a tiny Llama with random weights; nothing is downloaded.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

try:
    import gguf
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError:
    torch = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEFT = pathlib.Path(os.environ.get("WEFT", ROOT / "target/release/weft"))
HEADS, KV_HEADS = 4, 2


def weft(*arguments, check=True):
    done = subprocess.run([str(WEFT), "adapter", *map(str, arguments)], capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(done.stderr)
    return done


@unittest.skipIf(torch is None, "needs tests/python/requirements-adapters.txt")
class Adapters(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.base = self.folder / "base"
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
            vocab_size=32, tie_word_embeddings=False,
        )
        LlamaForCausalLM(config).save_pretrained(self.base)
        self.tokens = torch.arange(12)[None]

    def load_base(self):
        return LlamaForCausalLM.from_pretrained(self.base).eval()

    def adapter(self, name, **settings):
        """A folder that PEFT wrote, with random factors, and what the base computes with it."""
        torch.manual_seed(1)
        model = get_peft_model(self.load_base(), LoraConfig(**settings))
        with torch.no_grad():
            for key, value in model.named_parameters():
                if "lora_B" in key or "lora_embedding" in key:
                    value.normal_(std=0.3)
                if "magnitude" in key:
                    value.mul_(torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape))
        model.peft_config["default"].base_model_name_or_path = str(self.base)
        model.save_pretrained(self.folder / name)
        return self.folder / name, self.logits(model.eval())

    def logits(self, model):
        with torch.no_grad():
            return model(self.tokens).logits

    def same(self, folder, expected):
        """Loads a folder and looks at every key: PEFT itself leaves out what does not fit."""
        model = get_peft_model(self.load_base(), LoraConfig.from_pretrained(folder), adapter_name="probe")
        result = model.load_adapter(folder, "loaded")
        self.assertEqual([key for key in result.missing_keys if ".loaded" in key], [])
        self.assertEqual(list(result.unexpected_keys), [])
        loaded = PeftModel.from_pretrained(self.load_base(), folder).eval()
        torch.testing.assert_close(self.logits(loaded), expected, rtol=1e-4, atol=1e-5)
        self.assertGreater((expected - self.logits(self.load_base())).abs().max(), 1e-2)

    def test_portable_folders_load_whole_and_compute_the_same(self):
        forms = {
            "plain": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]},
            "patterns": {
                "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "up_proj"], "rank_pattern": {"k_proj": 9},
                "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
            },
            "stabilized": {"r": 6, "lora_alpha": 5, "use_rslora": True, "target_modules": "all-linear"},
            "some-layers": {"r": 2, "target_modules": ["q_proj"], "layers_to_transform": [1]},
            "embedding": {"r": 2, "lora_alpha": 3, "target_modules": ["embed_tokens", "v_proj"]},
            "head": {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        }
        for name, settings in forms.items():
            with self.subTest(name):
                folder, expected = self.adapter(name, **settings)
                for profile in ["portable", "peft"]:
                    out = self.folder / f"{name}-{profile}"
                    weft("convert", folder, "-o", out, "--profile", profile, "--base", self.base)
                    self.same(out, expected)
                config = json.loads((self.folder / f"{name}-portable" / "adapter_config.json").read_text())
                self.assertIn(config["r"], [1, 8, 16, 32, 64, 128, 256])
                self.assertEqual(config["lora_alpha"], config["r"])
                self.assertEqual(config["target_modules"], sorted(config["target_modules"]))

    def test_without_a_base_the_modules_are_named_in_full(self):
        folder, expected = self.adapter("some", r=2, target_modules=["q_proj"], layers_to_transform=[0])
        weft("convert", folder, "-o", self.folder / "out")
        config = json.loads((self.folder / "out/adapter_config.json").read_text())
        self.assertEqual(config["target_modules"], ["model.layers.0.self_attn.q_proj"])
        self.same(self.folder / "out", expected)

    def test_magnitudes_become_plain_updates_with_the_base(self):
        folder, expected = self.adapter("dora", r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "down_proj"])
        refused = weft("convert", folder, "-o", self.folder / "out", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("has magnitudes (DoRA)", refused.stderr)
        weft("convert", folder, "-o", self.folder / "out", "--base", self.base)
        config = json.loads((self.folder / "out/adapter_config.json").read_text())
        self.assertNotIn("use_dora", config)
        self.same(self.folder / "out", expected)
        weft("convert", folder, "-o", self.folder / "kept", "--base", self.base, "--profile", "peft")
        self.same(self.folder / "kept", expected)

    def test_peft_leaves_out_what_lint_says(self):
        folder, expected = self.adapter("plain", r=4, target_modules=["q_proj", "v_proj"])
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text())
        config["target_modules"] = ["q_proj", "k_proj"]
        file.write_text(json.dumps(config))
        found = weft("lint", folder, "--for", "peft", "--base", self.base, check=False)
        self.assertEqual(found.returncode, 1)
        self.assertIn("does not choose modules that the file has", found.stdout)
        self.assertIn("chooses modules that the file has no factors for", found.stdout)
        loaded = PeftModel.from_pretrained(self.load_base(), folder).eval()
        self.assertGreater((self.logits(loaded) - expected).abs().max(), 1e-2)
        fixed = weft("lint", folder, "--for", "peft", "--base", self.base, "--fix", "-o", self.folder / "fixed")
        self.assertIn("fixed: ", fixed.stdout)
        self.same(self.folder / "fixed", expected)

    def test_the_reader_of_llama_cpp_reads_the_file(self):
        folder, _ = self.adapter(
            "g", r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj", "embed_tokens"], alpha_pattern={"k_proj": 3}, rank_pattern={"down_proj": 2},
        )
        out = self.folder / "out.gguf"
        weft("convert", folder, "-o", out, "--profile", "gguf", "--base", self.base)
        reader = gguf.GGUFReader(out)
        fields = {key: reader.fields[key].contents() for key in ["general.type", "general.architecture", "adapter.type"]}
        self.assertEqual(fields, {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"})
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        tensors = {tensor.name: torch.tensor(tensor.data.copy()) for tensor in reader.tensors}
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        merged, plain = PeftModel.from_pretrained(self.load_base(), folder).merge_and_unload().state_dict(), self.load_base().state_dict()
        seen = set()
        for key in plain:
            delta = merged[key] - plain[key]
            name = names.get_name(key, try_suffixes=(".weight",)) + ".weight"
            if delta.abs().max() == 0:
                self.assertNotIn(name + ".lora_a", tensors)
                continue
            a, b = tensors[name + ".lora_a"], tensors[name + ".lora_b"]
            seen |= {name + ".lora_a", name + ".lora_b"}
            if name == "token_embd.weight":
                # llama.cpp takes rows of A by token: out = B · A[token].
                got = a @ b.T * (alpha / b.shape[1])
            else:
                got = b @ a * (alpha / b.shape[1])
            heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(key.split(".")[-2])
            if heads:
                # `LlamaModel.permute` of llama.cpp's converter.
                delta = delta.reshape(heads, 2, delta.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(delta.shape)
            torch.testing.assert_close(got, delta, rtol=1e-4, atol=1e-5)
        self.assertEqual(seen, set(tensors))
        self.assertEqual(len(seen), 14)


if __name__ == "__main__":
    unittest.main()
