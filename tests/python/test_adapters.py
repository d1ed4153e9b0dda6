"""Adapters that Weft wrote load in PEFT and diffusers with no missing and no unexpected key and compute the same; llama.cpp's reader reads them.

Bases of llama2.c that Weft wrote for Transformers compute, with adapters that Weft trained or generated, what Weft computes.

    pip install -r tests/python/requirements-adapters.txt
    cargo build --release -p weft-cli
    python -m unittest discover -v tests/python -p test_adapters.py

The program is target/release/weft, or its path in WEFT. Bases are tiny Llamas with random weights; nothing is downloaded. With stories260K and the
languages of the Universal Declaration in the folder that WEFT_DATA names, adapters of the real base are trained and generated as well; with MiniLM's
folder there, vectors of sentences are compared, and with WEFT_ADAPTER those of an adapter that an intents run wrote.
"""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest
import zipfile

try:
    import gguf
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM
except ImportError:
    torch = None
try:
    import diffusers
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
except ImportError:
    diffusers = None

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
            vocab_size=32, tie_word_embeddings=False, initializer_range=0.2,
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
                if any(part in key for part in ["lora_B", "lora_embedding", "modules_to_save"]):
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
        self.assertGreater((expected - self.logits(self.load_base())).abs().max(), 0.1)

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

    def test_adapters_that_peft_trained_are_imported(self):
        """Three adapters that PEFT trained on sequences of their own: imported together, each computes what it did."""
        expected = {}
        for seed in range(3):
            torch.manual_seed(seed)
            model = get_peft_model(self.load_base(), LoraConfig(r=2 + seed, lora_alpha=8, target_modules=["q_proj", "v_proj"])).train()
            optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.02)
            tokens = torch.randint(0, 32, (4, 12))
            losses = []
            for _ in range(40):
                loss = model(tokens, labels=tokens).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            self.assertLess(losses[-1], losses[0] - 0.1)
            model.peft_config["default"].base_model_name_or_path = str(self.base)
            model.save_pretrained(self.folder / "trained" / f"a{seed}")
            expected[f"a{seed}"] = self.logits(model.eval())
        zoo = self.folder / "zoo"
        view = json.loads(weft("import", self.folder / "trained", "-o", zoo, "--base", self.base, "--format", "json").stdout)
        self.assertEqual((view["adapters"], view["modules"]), (sorted(expected), 4))
        for name, logits in expected.items():
            self.same(zoo / name, logits)
        gram = weft("gram", zoo, "--format", "json").stdout
        self.assertIn("a2", gram)
        self.learnt(zoo, expected)

    def learnt(self, zoo, expected):
        """A generator learnt from imported adapters and a description of each makes adapters that PEFT loads whole."""
        texts = self.folder / "texts.tsv"
        texts.write_text("a0\tcounts upwards\na1\tcounts downwards\na2\trepeats itself\n")
        generator = self.folder / "learnt"
        view = json.loads(weft("learn", zoo, "--descriptions", texts, "-o", generator, "--steps", "50", "--format", "json").stdout)
        self.assertEqual((view["adapters"], view["modules"]), (3, 4))
        self.assertTrue(any("interpolate" in note for note in view["notes"]), view["notes"])
        near = self.folder / "near"
        weft("generate", "--generator", generator, "--prompt", "counts", "--like", "a1", "--strength", "0", "-o", near)
        self.same(near, expected["a1"])
        weft("generate", "--generator", generator, "--prompt", "counts", "--model", "flow", "-n", "2", "-o", self.folder / "two")
        weft("generate", "--generator", generator, "--prompt", "counts upwards and downwards", "-o", self.folder / "one")
        for folder in [self.folder / "one", self.folder / "two/0000", self.folder / "two/0001"]:
            file = self.folder / f"{folder.name}.safetensors"
            tokens = ",".join(str(token) for token in self.tokens[0].tolist())
            weft("logits", self.base, "--adapter", folder, "--tokens", tokens, "-o", file)
            self.same(folder, load_file(file)["logits"][None])

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
        self.assertGreater((self.logits(loaded) - expected).abs().max(), 0.1)
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
            name = names.get_name(key, try_suffixes=(".weight",))
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


DATA = pathlib.Path(os.environ.get("WEFT_DATA", "nowhere"))
STORIES = DATA / "stories260k/stories260K.bin"
# A run that is small in everything: what is checked does not depend on how good its adapters are.
RUN = """
[run]
name = "tiny"
output = "{output}"
device = "cpu"
[base]
weights = "{data}/stories260k/stories260K.bin"
vocabulary = "{data}/stories260k/tok512.bin"
name = "stories260k"
licence = "MIT"
[lora]
modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
rank = 4
alpha = 16
start = "multi-task"
[task.languages]
path = "{languages}"
tokens = 64
held-out-passages = 0.3
held-out-languages = 2
[recipe]
learning-rate = 0.01
batch-size = 2
weight-decay = 0.01
duration.steps = 3
optimizer.adamw = {{}}
schedule.constant = {{}}
[multi-task]
learning-rate = 0.03
batch-size = 4
weight-decay = 0.01
duration.steps = 5
optimizer.adamw = {{}}
schedule.constant = {{}}
[generate]
sample-bytes = 100
draws = 2
sets = 1
components = 4
[generate.hyper]
steps = 20
batch-networks = 2
batch-examples = 1
width = 16
blocks = 1
[generate.flow]
steps = 20
width = 16
blocks = 1
batch-size = 4
sampler-steps = 4
"""


def adapters_of_stories(folder):
    """Adapters of stories260K: a language's and all languages' that were trained, and two that were generated."""
    run, output, languages = folder / "run.toml", folder / "run", folder / "few.zip"
    with zipfile.ZipFile(DATA / "udhr2.zip") as all_of_them, zipfile.ZipFile(languages, "w") as few:
        for name in ["dan", "deu", "eng", "fra", "ita", "nld", "spa", "swe"]:
            few.writestr(f"udhr2/{name}.txt", all_of_them.read(f"udhr2/{name}.txt"))
    run.write_text(RUN.format(output=output, data=DATA.resolve(), languages=languages))
    weft("train", run)
    adapters = [next((output / "adapters").iterdir()), output / "multi-task"]
    for model in ["hyper", "flow"]:
        adapters.append(folder / model)
        weft("generate", "--generator", output / "generator", "--prompt", "Alle Menschen sind frei", "--model", model, "-o", adapters[-1])
    return adapters


@unittest.skipIf(torch is None, "needs tests/python/requirements-adapters.txt")
class Bases(unittest.TestCase):
    """Logits of Weft, which reads llama2.c's binary itself, and of PEFT on what Weft wrote."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def weft_logits(self, base, adapter, tokens, *more):
        out = self.folder / f"logits-{len(list(self.folder.glob('logits-*')))}.safetensors"
        adapter = ["--adapter", adapter] if adapter else []
        weft("logits", base, *adapter, "--tokens", ",".join(map(str, tokens)), "-o", out, *more)
        return load_file(out)["logits"]

    def same(self, binary, base, adapter, tokens, *more):
        """The base of Transformers with the adapter in PEFT, and Weft on the binary and on the folder."""
        model, info = LlamaForCausalLM.from_pretrained(base, output_loading_info=True)
        self.assertEqual({key: list(value) for key, value in info.items() if value}, {})
        if adapter:
            probe = get_peft_model(model, LoraConfig.from_pretrained(adapter), adapter_name="probe")
            result = probe.load_adapter(adapter, "loaded")
            self.assertEqual([key for key in result.missing_keys if ".loaded" in key], [])
            self.assertEqual(list(result.unexpected_keys), [])
            model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), adapter)
        with torch.no_grad():
            theirs = model.eval()(torch.tensor(tokens)[None]).logits[0]
        for own in [binary, base]:
            torch.testing.assert_close(self.weft_logits(own, adapter, tokens, *(more if adapter else [])), theirs, rtol=0, atol=1e-4)
        return theirs

    def binary(self, heads, kv_heads, tied):
        """A binary of llama2.c: a width of 24, two layers, 31 tokens."""
        torch.manual_seed(3)
        d, hidden, layers, vocabulary, length = 24, 20, 2, 31, 16
        kv = d // heads * kv_heads
        shapes = [[vocabulary, d], [layers, d], [layers, d, d], [layers, kv, d], [layers, kv, d], [layers, d, d], [layers, d], [layers, hidden, d]]
        shapes += [[layers, d, hidden], [layers, hidden, d], [d], [length, d // heads // 2], [length, d // heads // 2]]
        shapes += [] if tied else [[vocabulary, d]]
        path = self.folder / "tiny.bin"
        with path.open("wb") as file:
            file.write(struct.pack("7i", d, hidden, layers, heads, kv_heads, vocabulary if tied else -vocabulary, length))
            for shape in shapes:
                values = torch.randn(shape) * 0.2 + (1 if len(shape) < 3 and shape[-1] == d and shape[0] != vocabulary else 0)
                file.write(values.numpy().astype("<f4").tobytes())
        return path

    def test_a_random_base_with_an_adapter_in_either_order(self):
        for heads, kv_heads, tied in [(4, 2, True), (3, 1, False)]:
            with self.subTest(heads=heads):
                binary, base = self.binary(heads, kv_heads, tied), self.folder / f"base-{heads}"
                weft("base", binary, "-o", base, "--licence", "MIT")
                tokens = [1, 5, 30, 0, 17, 4]
                bare = self.same(binary, base, None, tokens)
                torch.manual_seed(1)
                model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(r=3, lora_alpha=5, target_modules="all-linear"))
                for name, value in model.named_parameters():
                    if "lora_B" in name:
                        torch.nn.init.normal_(value, std=0.2)
                model.peft_config["default"].base_model_name_or_path = "tiny"
                own = self.folder / f"peft-{heads}"
                model.save_pretrained(own)
                with torch.no_grad():
                    expected = model.eval()(torch.tensor(tokens)[None]).logits[0]
                self.assertGreater((expected - bare).abs().max(), 0.1)
                # The same adapter with rows of queries and keys as llama2.c has them.
                turned = self.folder / f"turned-{heads}"
                turned.mkdir()
                (turned / "adapter_config.json").write_text((own / "adapter_config.json").read_text())
                tensors = load_file(own / "adapter_model.safetensors")
                for name, value in tensors.items():
                    count = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-3])
                    if count and "lora_B" in name:
                        rows = value.reshape(count, 2, value.shape[0] // count // 2, -1)
                        tensors[name] = rows.transpose(1, 2).reshape(value.shape).contiguous()
                save_file(tensors, turned / "adapter_model.safetensors", {"format": "pt"})
                back = self.folder / f"back-{heads}"
                weft("convert", turned, "-o", back, "--base", base, "--rotary", "interleaved", "--profile", "peft")
                for adapter in [own, back]:
                    torch.testing.assert_close(self.same(binary, base, adapter, tokens, "--base-name", "tiny"), expected, rtol=0, atol=1e-4)

    @unittest.skipUnless(STORIES.exists() and (DATA / "udhr2.zip").exists(), "needs stories260K and the languages in WEFT_DATA")
    def test_stories_with_adapters_that_were_trained_and_generated(self):
        base = self.folder / "stories260k"
        weft("base", STORIES, "-o", base, "--vocabulary", STORIES.with_name("tok512.bin"), "--licence", "MIT")
        text = "Once upon a time, there was a little girl named Lily."
        tokens = AutoTokenizer.from_pretrained(base)(text)["input_ids"]
        prompt = self.folder / "prompt.safetensors"
        said = weft("logits", base, "--prompt", text, "--vocabulary", STORIES.with_name("tok512.bin"), "-o", prompt, "--format", "json").stdout
        self.assertEqual(json.loads(said)["tokens"], tokens)
        bare = self.same(STORIES, base, None, tokens)
        for adapter in adapters_of_stories(self.folder):
            with self.subTest(adapter.name):
                self.assertEqual(json.loads((adapter / "weft.json").read_text())["rotary"], "halves")
                changed = self.same(STORIES, base, adapter, tokens, "--base-name", "stories260k")
                self.assertGreater((changed - bare).abs().max(), 1e-2)


@unittest.skipIf(torch is None, "needs tests/python/requirements-adapters.txt")
class Encoders(unittest.TestCase):
    """A sentence's vector by Weft and by PEFT on a BERT encoder: one of random weights, and MiniLM where a folder of it is in WEFT_DATA."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def same(self, encoder, weights, tokens, adapter=None):
        """An adapter of PEFT's, or a given one: no missing and no unexpected key, and the same vector."""
        if adapter is None:
            torch.manual_seed(1)
            model = get_peft_model(encoder(), LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"]))
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(value, std=0.05)
            model.peft_config["default"].base_model_name_or_path = "encoder"
            adapter = self.folder / "peft"
            model.save_pretrained(adapter)
        written = self.folder / "written"
        weft("convert", adapter, "-o", written)
        probe = get_peft_model(encoder(), LoraConfig.from_pretrained(written), adapter_name="probe")
        result = probe.load_adapter(written, "loaded")
        self.assertEqual([key for key in result.missing_keys if ".loaded" in key], [])
        self.assertEqual(list(result.unexpected_keys), [])
        vectors = []
        for model in [encoder(), PeftModel.from_pretrained(encoder(), written)]:
            with torch.no_grad():
                states = model.eval()(torch.tensor(tokens)[None]).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0))
        self.assertGreater((vectors[0] - vectors[1]).abs().max(), 1e-3)
        name = json.loads((written / "adapter_config.json").read_text())["base_model_name_or_path"]
        for vector, more in zip(vectors, [[], ["--adapter", written, "--base-name", name]]):
            out = self.folder / f"vector-{len(more)}.safetensors"
            weft("logits", weights, "--tokens", ",".join(map(str, tokens)), "-o", out, *more)
            torch.testing.assert_close(load_file(out)["vector"], vector, rtol=0, atol=1e-4)

    def test_a_random_encoder(self):
        torch.manual_seed(0)
        sizes = dict(vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, max_position_embeddings=16)
        model = BertModel(BertConfig(**sizes, initializer_range=0.2), add_pooling_layer=False)
        base = self.folder / "base"
        model.save_pretrained(base)
        self.same(lambda: BertModel.from_pretrained(base, add_pooling_layer=False), base / "model.safetensors", [2, 7, 30, 11, 3])

    @unittest.skipUnless((DATA / "minilm/model.safetensors").is_file(), "needs MiniLM's folder in WEFT_DATA")
    def test_minilm(self):
        folder = DATA / "minilm"

        def encoder():
            # MiniLM-L6's own sizes: not every copy of the folder states them.
            config = BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
            model = BertModel(config, add_pooling_layer=False)
            weights = {name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()}
            missing = model.load_state_dict(weights, strict=False).missing_keys
            self.assertEqual([key for key in missing if "position_ids" not in key and "token_type_ids" not in key], [])
            return model

        tokens = [101, 13184, 2026, 4070, 102]
        self.same(encoder, folder / "model.safetensors", tokens)
        # One that an intents run wrote, if it is named.
        if "WEFT_ADAPTER" in os.environ:
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.same(encoder, folder / "model.safetensors", tokens, pathlib.Path(os.environ["WEFT_ADAPTER"]))


@unittest.skipIf(torch is None or diffusers is None, "needs tests/python/requirements-adapters.txt")
class Pipelines(unittest.TestCase):
    """A denoiser of Stable Diffusion's kind: diffusers loads what Weft wrote, under its own names and under kohya's."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        unet = self.unet()
        targets = ["to_q", "to_out.0", "conv1", "proj_in", "ff.net.0.proj"]
        unet.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=targets, rank_pattern={"to_q": 2}))
        for name, value in unet.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.2)
        settings = {key: value for key, value in unet.peft_config["default"].to_dict().items() if key != "target_modules"}
        diffusers.StableDiffusionPipeline.save_lora_weights(
            self.folder / "in", unet_lora_layers=get_peft_model_state_dict(unet), unet_lora_adapter_metadata={**settings, "target_modules": targets},
        )
        self.expected = self.run_unet(unet)

    def unet(self):
        torch.manual_seed(0)
        return diffusers.UNet2DConditionModel(
            sample_size=8, layers_per_block=1, block_out_channels=(32, 64), norm_num_groups=8, cross_attention_dim=16, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ).eval()

    def run_unet(self, unet):
        torch.manual_seed(2)
        with torch.no_grad():
            return unet(torch.randn(1, 4, 8, 8), 7, torch.randn(1, 5, 16)).sample

    def check(self, file):
        unet = self.unet()
        state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(file))
        before = set(state)
        self.assertTrue(all(key.startswith("unet.") for key in before), before)
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
        # diffusers has older names for kohya's tensors: each of them is one of the loaded adapter's.
        self.assertEqual(len(get_peft_model_state_dict(unet, adapter_name="default_0")), sum(key.endswith(".weight") for key in before))
        torch.testing.assert_close(self.run_unet(unet), self.expected, rtol=1e-4, atol=1e-5)
        self.assertGreater((self.expected - self.run_unet(self.unet())).abs().max(), 1e-2)

    def test_diffusers_loads_its_own_names_and_kohyas(self):
        weft("convert", self.folder / "in", "-o", self.folder / "out", "--profile", "diffusers")
        self.check(self.folder / "out/pytorch_lora_weights.safetensors")
        weft("convert", self.folder / "in", "-o", self.folder / "kohya.safetensors", "--profile", "kohya")
        self.check(self.folder / "kohya.safetensors")
        weft("convert", self.folder / "kohya.safetensors", "-o", self.folder / "back", "--profile", "diffusers")
        self.check(self.folder / "back/pytorch_lora_weights.safetensors")

    def test_a_folder_of_peft_is_the_denoisers(self):
        weft("convert", self.folder / "in", "-o", self.folder / "peft")
        loaded = PeftModel.from_pretrained(self.unet(), self.folder / "peft").eval()
        torch.testing.assert_close(self.run_unet(loaded), self.expected, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    unittest.main()
