"""Adapters that Weft wrote run in engines, on a CPU: llama.cpp and vLLM compute what Weft and PEFT compute.

    pip install -r tests/python/requirements-engines.txt
    cargo build --release -p weft-cli
    python -m unittest discover -v tests/python -p test_engines.py

The program is target/release/weft, or its path in WEFT. Bases have random weights; nothing is downloaded. With stories260K and the languages of the
Universal Declaration in the folder that WEFT_DATA names, adapters of the real base are trained, generated and served as well. vLLM runs as a server of
this machine, by this Python or by the one that WEFT_VLLM names; how to install it says docs/guides/adapters.md.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from test_adapters import DATA, STORIES, adapters_of_stories, weft

try:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, Gemma2Config, GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
except ImportError:
    torch = None
try:
    import gguf
    from llama_cpp import Llama
except ImportError:
    gguf = None

NEEDS = "needs tests/python/requirements-engines.txt"
HAS_STORIES = STORIES.exists() and (DATA / "udhr2.zip").exists()
# Differences of logits and of logarithms of probabilities, in single precision with sums in another order.
CLOSE = 1e-4
LARGEST = {}


def close(what, found, expected, tolerance=CLOSE):
    """Compares, and keeps the largest difference to be told at the end."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    LARGEST[what] = max(LARGEST.get(what, 0), (found - expected).abs().max().item())


def tearDownModule():
    for what, difference in sorted(LARGEST.items()):
        print(f"largest difference, {what}: {difference:.1e}")


def weft_logits(base, adapter, tokens, *more):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        more = ["--adapter", adapter, *more] if adapter else []
        weft("logits", base, *more, "--tokens", ",".join(map(str, tokens)), "-o", out)
        return load_file(out)["logits"]


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)[None]).logits[0]


def load(base, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    return PeftModel.from_pretrained(model, adapter) if adapter else model


def as_llama_cpp(model):
    """The same model with Gemma's GELU in half precision: llama.cpp looks it up in a table of such values."""

    class Table(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()

    if model.config.model_type.startswith("gemma"):
        for module in list(model.modules()):
            if hasattr(module, "act_fn"):
                module.act_fn = Table()
    return model


def random_adapter(base, out, seed=1, **settings):
    """A folder that PEFT wrote, with random factors."""
    torch.manual_seed(seed)
    model = get_peft_model(load(base), LoraConfig(**settings))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name or "lora_embedding" in name:
                value.normal_(std=0.2)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(out)
    return out


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


@unittest.skipIf(torch is None or gguf is None, NEEDS)
class LlamaCpp(Folder):
    """Logits of llama.cpp, of bases that are written here as its converter writes them, with adapters that Weft wrote."""

    TOKENS = [1, 5, 30, 0, 17, 4, 88, 41, 7, 7, 63, 20, 11, 90, 2, 3]

    def write_base(self, model, architecture):
        """A base in single precision; rows of Llama's queries and keys as `LlamaModel.permute` has them, Gemma's norms with their 1."""
        config, out = model.config, self.folder / "base.gguf"
        out.unlink(missing_ok=True)
        name = gguf.MODEL_ARCH_NAMES[architecture]
        writer = gguf.GGUFWriter(out, name)
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(head)
        writer.add_vocab_size(config.vocab_size)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_tokenizer_model("none")
        if name == "gemma2":
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
            writer.add_sliding_window(config.sliding_window)
        names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
        for key, value in model.state_dict().items():
            if key == "lm_head.weight" and config.tie_word_embeddings:
                continue
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(key.split(".")[-2])
            if heads and name == "llama":
                value = value.reshape(heads, 2, value.shape[0] // heads // 2, -1).transpose(1, 2).reshape(value.shape)
            if name.startswith("gemma") and key.endswith("norm.weight"):
                value = value + 1
            writer.add_tensor(names.get_name(key, try_suffixes=(".weight", ".bias")), value.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return out

    def run_engine(self, base, adapter, tokens):
        """One thread, keys and values in single precision."""
        adapter = str(adapter) if adapter else None
        model = Llama(str(base), lora_path=adapter, n_ctx=256, n_threads=1, n_threads_batch=1, logits_all=True, type_k=0, type_v=0, verbose=False)
        model.eval(tokens)
        found = torch.tensor(model.scores[: len(tokens)].copy())
        model.close()
        return found

    def convert(self, adapter, base, *more):
        out = self.folder / f"{pathlib.Path(adapter).name}.gguf"
        weft("convert", adapter, "-o", out, "--profile", "gguf", "--base", base, *more)
        return out

    def test_types_of_bases_with_random_adapters(self):
        sizes = dict(vocab_size=96, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        sizes |= dict(head_dim=16, max_position_embeddings=256, initializer_range=0.2, pad_token_id=0)
        windows = dict(query_pre_attn_scalar=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"])
        kinds = {
            "llama": (LlamaConfig, gguf.MODEL_ARCH.LLAMA, False, {}),
            "tied": (LlamaConfig, gguf.MODEL_ARCH.LLAMA, True, {}),
            "mistral": (MistralConfig, gguf.MODEL_ARCH.LLAMA, False, {}),
            "qwen2": (Qwen2Config, gguf.MODEL_ARCH.QWEN2, False, {}),
            "qwen3": (Qwen3Config, gguf.MODEL_ARCH.QWEN3, False, {}),
            "gemma": (GemmaConfig, gguf.MODEL_ARCH.GEMMA, True, {}),
            "gemma2": (Gemma2Config, gguf.MODEL_ARCH.GEMMA2, True, windows),
        }
        forms = {
            "every map": dict(r=3, lora_alpha=5, target_modules="all-linear"),
            "patterns": dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj"], rank_pattern={"k_proj": 6}, alpha_pattern={"down_proj": 3}),
            "stabilized": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["k_proj", "v_proj"]),
            "embedding": dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "o_proj"]),
            "head": dict(r=2, lora_alpha=8, target_modules=["lm_head"]),
        }
        for kind, (settings, architecture, tied, more) in kinds.items():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(settings(**sizes, **more, tie_word_embeddings=tied), attn_implementation="eager")
            with torch.no_grad():
                for name, value in model.named_parameters():
                    if "norm" in name or name.endswith("bias"):
                        value.add_(torch.randn_like(value) * 0.2)
            base = self.folder / kind
            model.save_pretrained(base)
            file = self.write_base(model, architecture)
            # Where a value lies between two of half precision, the table may give the other one.
            tolerance = 5e-3 if kind.startswith("gemma") else CLOSE
            what = f"llama.cpp, random {kind}"
            bare = logits(as_llama_cpp(model), self.TOKENS)
            close(what, self.run_engine(file, None, self.TOKENS), bare, tolerance)
            for form, choice in forms.items():
                with self.subTest(kind, form=form):
                    adapter = random_adapter(base, self.folder / f"{kind}-{form}", **choice)
                    if tied and form in ["embedding", "head"]:
                        # An update of such an embedding ends the whole program: GGML_ASSERT(ggml_can_mul_mat(a, b)).
                        out = self.folder / "refused.gguf"
                        refused = weft("convert", adapter, "-o", out, "--profile", "gguf", "--base", base, check=False)
                        self.assertEqual((refused.returncode, out.exists()), (1, False))
                        self.assertIn("output layer" if form == "embedding" else "lm_head", refused.stderr)
                        continue
                    expected = logits(as_llama_cpp(load(base, adapter)), self.TOKENS)
                    self.assertGreater((expected - bare).abs().max(), 0.5)
                    close(what, self.run_engine(file, self.convert(adapter, base), self.TOKENS), expected, tolerance)

    @unittest.skipUnless(HAS_STORIES, "needs stories260K and the languages in WEFT_DATA")
    def test_stories_with_adapters_that_were_trained_and_generated(self):
        base = self.folder / "stories260k"
        weft("base", STORIES, "-o", base, "--licence", "MIT")
        file = self.write_base(load(base), gguf.MODEL_ARCH.LLAMA)
        tokens = [1, 403, 407, 261, 378, 432, 410, 286, 351, 440, 300]
        bare = weft_logits(base, None, tokens)
        close("llama.cpp, stories260K", self.run_engine(file, None, tokens), bare)
        adapters = adapters_of_stories(self.folder)
        other = self.folder / "other"
        weft("convert", adapters[0], "-o", other, "--base", base, "--base-name", "stories260k")
        for adapter in [*adapters, other, random_adapter(base, self.folder / "wide", r=24, lora_alpha=7, target_modules="all-linear")]:
            with self.subTest(adapter.name):
                expected = weft_logits(base, adapter, tokens, "--base-name", "stories260k")
                self.assertGreater((expected - bare).abs().max(), 1e-2)
                found = self.run_engine(file, self.convert(adapter, base, "--base-name", "stories260k"), tokens)
                close("llama.cpp, stories260K", found, expected)


VLLM = os.environ.get("WEFT_VLLM", sys.executable)


def has_vllm():
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return torch is not None and subprocess.run([VLLM, "-c", look], capture_output=True).returncode == 0


class Server:
    """vLLM's server of a base, on a free port of this machine. Adapters below `resolved` are loaded when a request names them."""

    def __init__(self, model, folder):
        self.resolved = folder / "resolved"
        self.resolved.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_PLUGINS": "lora_filesystem_resolver", "VLLM_LORA_RESOLVER_CACHE_DIR": str(self.resolved),
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
        }
        arguments = ["--model", str(model), "--served-model-name", "base", "--dtype", "float32", "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "4"]
        arguments += ["--enable-lora", "--max-lora-rank", "16", "--max-loras", "2", "--host", "127.0.0.1", "--port", str(port)]
        self.log = folder / "vllm.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [VLLM, "-m", "vllm.entrypoints.openai.api_server", *arguments], env=os.environ | settings, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/health", timeout=5).close()
                return
            except OSError:
                time.sleep(1)
            if self.process.poll() is not None:
                break
        self.stop()
        raise AssertionError("vLLM does not start:\n" + self.log.read_text()[-4000:])

    def stop(self):
        for sign in [signal.SIGTERM, signal.SIGKILL]:
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(60)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def models(self):
        with urllib.request.urlopen(self.url + "/v1/models", timeout=60) as reply:
            return [model["id"] for model in json.load(reply)["data"]]

    def unload(self, name):
        return self.post("/v1/unload_lora_adapter", {"lora_name": name})[0]

    def complete(self, model, tokens, number=6):
        """The likeliest tokens after `tokens`, and the logarithms of their probabilities."""
        body = dict(model=model, prompt=tokens, max_tokens=number, temperature=0, logprobs=0, return_tokens_as_token_ids=True, ignore_eos=True)
        status, text = self.post("/v1/completions", body)
        if status != 200:
            raise AssertionError(text)
        said = json.loads(text)["choices"][0]["logprobs"]
        return [int(token.removeprefix("token_id:")) for token in said["tokens"]], torch.tensor(said["token_logprobs"])


class Served(unittest.TestCase):
    """Comparisons with a server."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.base = cls.make_base()
        cls.server = Server(cls.base, cls.folder)
        cls.addClassCleanup(cls.server.stop)

    def deploy(self, adapter, *more, check=True):
        return weft("deploy", adapter, "--to", f"vllm={self.server.url}", *more, check=check)

    def same(self, name, tokens, logits_of):
        """The server's greedy completion is that of the logits, with the same probabilities."""
        chosen, said = self.server.complete(name, tokens)
        expected = torch.log_softmax(logits_of(tokens + chosen), -1)[len(tokens) - 1 : -1]
        self.assertEqual(chosen, expected.argmax(-1).tolist())
        close(f"vLLM, {self.base.name}", said, expected[range(len(chosen)), chosen])
        return said


@unittest.skipUnless(has_vllm(), "needs vLLM (docs/guides/adapters.md), and tests/python/requirements-engines.txt")
class Vllm(Served):
    """A random Llama with heads of 64 features: vLLM's attention on a CPU takes no smaller ones than 32."""

    # Longer than a block of what vLLM keeps of prompts.
    TOKENS = [1] + [(5 * i * i + 3 * i) % 250 + 3 for i in range(200)]

    @classmethod
    def make_base(cls):
        torch.manual_seed(0)
        sizes = dict(vocab_size=260, hidden_size=128, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=64)
        config = LlamaConfig(**sizes, max_position_embeddings=512, initializer_range=0.2, tie_word_embeddings=False)
        base = cls.folder / "random"
        AutoModelForCausalLM.from_config(config).save_pretrained(base)
        # A token for each byte.
        words = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        tokenizer.save(str(base / "tokenizer.json"))
        return base

    def adapter(self, name, **settings):
        return random_adapter(self.base, self.folder / name, **settings)

    def as_peft(self, name, adapter):
        return self.same(name, self.TOKENS, lambda tokens: logits(load(self.base, adapter), tokens))

    def test_what_is_deployed_computes_what_peft_computes(self):
        bare = self.as_peft("base", None)
        adapters = {
            "plain": self.adapter("plain", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]),
            "every-map": self.adapter("every-map", r=5, lora_alpha=3, target_modules="all-linear"),
            "patterns": self.adapter(
                "patterns", r=4, lora_alpha=16, target_modules="all-linear", rank_pattern={"k_proj": 6}, alpha_pattern={"layers.1.self_attn.o_proj": 3}
            ),
            "stabilized": self.adapter("stabilized", r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "up_proj"]),
            "tables": self.adapter("tables", r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head"]),
        }
        for name, profile in [("patterns", "portable"), ("patterns", "peft"), ("stabilized", "portable")]:
            out = self.folder / f"{name}-{profile}"
            weft("convert", adapters[name], "-o", out, "--profile", profile, "--base", self.base)
            adapters[out.name] = out
        for name, adapter in adapters.items():
            with self.subTest(name):
                said = self.deploy(adapter, "--ask", "Once upon a time").stdout
                self.assertIn(f"is served as `{name}`", said)
                self.assertIn("asked `Once upon a time`, it goes on with", said)
                self.assertIn(name, self.server.models())
                self.assertGreater((self.as_peft(name, adapter) - bare).abs().max(), 0.1)
                self.assertEqual(self.server.unload(name), 200)
                self.assertNotIn(name, self.server.models())
        self.as_peft("base", None)

    def test_another_adapter_of_the_same_folder_takes_its_place(self):
        """With other weights under the same name and in the same folder, nothing goes on from what the old ones computed of a prompt."""
        adapter = self.adapter("again", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
        self.deploy(adapter)
        before = self.as_peft("again", adapter)
        self.assertIn("`--replace` takes its place", self.deploy(adapter, check=False).stderr)
        tensors = load_file(adapter / "adapter_model.safetensors")
        save_file({key: -value if "lora_B" in key else value for key, value in tensors.items()}, adapter / "adapter_model.safetensors", {"format": "pt"})
        self.assertIn("an adapter of this name was unloaded before", self.deploy(adapter, "--replace").stdout)
        self.assertGreater((self.as_peft("again", adapter) - before).abs().max(), 0.1)

    def test_what_is_refused_is_not_there(self):
        wide = self.adapter("wide", r=32, target_modules=["q_proj"])
        refused = self.deploy(wide, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("LoRA rank 32 is greater than max_lora_rank 16", refused.stderr)
        self.assertIn("left behind: nothing", refused.stderr)
        self.assertNotIn("wide", self.server.models())
        found = weft("lint", wide, "--for", "vllm", check=False)
        self.assertEqual(found.returncode, 1)
        self.assertIn("rank 32 is above `--max-lora-rank` 16", found.stdout)

    def test_what_lint_calls_refused_is_refused(self):
        forms = {
            "dora": dict(use_dora=True, target_modules=["q_proj"]),
            "whole-tensors": dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
            "lora-bias": dict(target_modules=["q_proj"], lora_bias=True),
        }
        for rule, settings in forms.items():
            with self.subTest(rule):
                adapter = self.adapter(rule, r=4, **settings)
                found = json.loads(weft("lint", adapter, "--for", "vllm", "--format", "json", check=False).stdout)
                self.assertIn((rule, "refused"), [(finding["rule"], finding["severity"]) for finding in found["findings"]])
                self.assertIn("vLLM would not load all of it", self.deploy(adapter, check=False).stderr)
                status, said = self.server.post("/v1/load_lora_adapter", {"lora_name": rule, "lora_path": str(adapter)})
                self.assertGreaterEqual(status, 400, said)
                self.assertNotIn(rule, self.server.models())

    def test_an_adapter_that_does_not_answer_is_unloaded(self):
        adapter = self.adapter("silent", r=4, target_modules=["q_proj"])
        refused = self.deploy(adapter, "--ask", "too long " * 200, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("it does not answer a prompt: status 400", refused.stderr)
        self.assertIn("left behind: nothing: `POST /v1/unload_lora_adapter` undid it", refused.stderr)
        self.assertNotIn("silent", self.server.models())

    def test_the_resolver_loads_what_lies_in_its_folder(self):
        adapter = self.adapter("found", r=4, target_modules=["k_proj", "o_proj"])
        said = weft("deploy", adapter, "--to", self.server.resolved).stdout
        self.assertIn("vLLM loads it when a request names `found`", said)
        self.assertNotIn("found", self.server.models())
        self.as_peft("found", adapter)
        self.assertIn("found", self.server.models())


@unittest.skipUnless(has_vllm() and HAS_STORIES, "needs vLLM (docs/guides/adapters.md), and stories260K and the languages in WEFT_DATA")
class VllmStories(Served):
    """stories260K with adapters that were trained and generated; its heads of 8 features are made 32 by zeros, for vLLM's attention on a CPU.

    Pair `j` of a head, the features `j` and `j + 4`, turns as pair `4 j` of 32 features does, `4 j` and `4 j + 16`; queries are doubled for the root of
    four times the size. So the function stays, which the comparison with Weft's logits of the base as it is shows.
    """

    PLACES = [0, 4, 8, 12, 16, 20, 24, 28]

    @classmethod
    def widened(cls, value, axis):
        """Heads of 8 features along an axis become heads of 32."""
        value = value.transpose(0, axis)
        wide = torch.zeros(value.shape[0] // 8, 32, *value.shape[1:])
        wide[:, cls.PLACES] = value.reshape(-1, 8, *value.shape[1:])
        return wide.flatten(0, 1).transpose(0, axis).contiguous()

    @classmethod
    def widen(cls, file, out):
        """The maps of attention of a base, or their factors in an adapter."""
        tensors = load_file(file)
        for name, value in tensors.items():
            module = next((part for part in name.split(".") if part in ["q_proj", "k_proj", "v_proj", "o_proj"]), None)
            if module and module != "o_proj" and "lora_A" not in name:
                tensors[name] = cls.widened(value, 0) * (2 if module == "q_proj" else 1)
            if module == "o_proj" and "lora_B" not in name:
                tensors[name] = cls.widened(value, 1)
        save_file(tensors, out, {"format": "pt"})

    @classmethod
    def make_base(cls):
        cls.plain, base = cls.folder / "plain", cls.folder / "stories260k"
        weft("base", STORIES, "-o", cls.plain, "--vocabulary", STORIES.with_name("tok512.bin"), "--licence", "MIT")
        shutil.copytree(cls.plain, base)
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"head_dim": 32}))
        cls.widen(cls.plain / "model.safetensors", base / "model.safetensors")
        return base

    def test_adapters_that_were_trained_and_generated(self):
        tokens = [1, 403, 407, 261, 378, 432, 410, 286, 351, 440, 300]
        bare = self.same("base", tokens, lambda tokens: weft_logits(self.plain, None, tokens))
        for adapter in adapters_of_stories(self.folder):
            with self.subTest(adapter.name):
                wide = self.folder / f"wide-{adapter.name}"
                shutil.copytree(adapter, wide)
                self.widen(adapter / "adapter_model.safetensors", wide / "adapter_model.safetensors")
                self.assertIn("it goes on with", self.deploy(wide, "--ask", "Once upon a time").stdout)
                said = self.same(wide.name, tokens, lambda tokens: weft_logits(self.plain, adapter, tokens, "--base-name", "stories260k"))
                self.assertGreater((said - bare).abs().max(), 1e-2)


if __name__ == "__main__":
    unittest.main()
