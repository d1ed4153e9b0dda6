"""Training steps and forward passes in PyTorch: the peer of Weft's example `steps`, on the same shapes.

transformer  BATCHxTOKENSxWIDTHxLAYERS: pre-norm, GELU, heads of 64 features (8 heads if that gives fewer), tokens of 64 features in
             and out, learned positions, mean squared error, AdamW, gradients clipped to norm 1, a moving average of the parameters
residual     BATCHxWIDTHxBLOCKSxLATENT: the residual MLP of Weft's flow, with the same loss and optimizer

Attention is torch.nn.functional.scaled_dot_product_attention. In bf16, parameters are f32 under autocast, as ours are kept in f32 and
computed with in bf16; --pure-bf16 keeps the parameters in bf16 too. The optimizer is AdamW as it comes, or --fused.

Each line of standard input asks for `train N` or `infer N`; one JSON line answers with milliseconds a step. Without input, the
median of five rounds of ten is printed.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

TOKEN = 64


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, h):
        b, t, d = h.shape
        q, k, v = self.qkv(self.norms[0](h)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        h = h + self.project(mixed)
        return h + self.down(F.gelu(self.up(self.norms[1](h))))


class Transformer(nn.Module):
    def __init__(self, tokens, width, layers):
        super().__init__()
        self.embed = nn.Linear(TOKEN, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList([Block(width, max(width // 64, 8)) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, TOKEN)

    def forward(self, x):
        h = self.embed(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class Residual(nn.Module):
    def __init__(self, width, blocks, latent, conditioning=64):
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(conditioning, width), nn.SiLU(), nn.Linear(width, width))
        self.input = nn.Linear(latent, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(blocks)])
        self.maps = nn.ModuleList([nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)])
        self.output = nn.Linear(width, latent)

    def forward(self, x, c):
        e = self.condition(c)
        h = self.input(x) + e
        for norm, block in zip(self.norms, self.maps):
            h = h + block(norm(h + e))
        return self.output(h)


class Workload:
    def __init__(self, args):
        self.device = torch.device(args.device)
        batch, second, third, fourth = (int(size) for size in args.shape.split("x"))
        torch.manual_seed(1)
        if args.kind == "transformer":
            model, shape = Transformer(second, third, fourth), (batch, second, TOKEN)
            inputs = [torch.randn(shape)]
        else:
            model, shape = Residual(second, third, fourth), (batch, fourth)
            inputs = [torch.randn(shape), torch.randn(batch, 64)]
        dtype = torch.bfloat16 if args.pure_bf16 else torch.float32
        self.model = model.to(self.device, dtype)
        self.inputs = [x.to(self.device, dtype) for x in inputs]
        self.targets = torch.randn(shape).to(self.device, dtype)
        self.parameters = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.01, **({"fused": True} if args.fused else {}))
        self.run = torch.compile(self.model) if args.compile else self.model
        autocast = args.precision == "bf16" and not args.pure_bf16
        self.context = (lambda: torch.autocast(self.device.type, torch.bfloat16)) if autocast else contextlib.nullcontext

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def train(self, steps):
        for _ in range(steps):
            with self.context():
                loss = (self.run(*self.inputs) - self.targets).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 0.001)
        self.wait()
        return loss.item()

    @torch.no_grad()
    def infer(self, passes):
        for _ in range(passes):
            with self.context():
                y = self.run(*self.inputs)
        self.wait()
        return y.float().mean().item()


def answer(workload, verb, count):
    if verb not in ("train", "infer"):
        return {"error": f"`{verb}` is neither train nor infer"}
    start = time.perf_counter()
    value = getattr(workload, verb)(count)
    return {verb: (time.perf_counter() - start) * 1e3 / count, "value": value}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("precision", choices=["f32", "bf16"])
    parser.add_argument("kind", choices=["transformer", "residual"])
    parser.add_argument("shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--fused", action="store_true", help="torch.optim.AdamW(fused=True)")
    parser.add_argument("--pure-bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    workload = Workload(args)
    start = time.perf_counter()
    workload.train(1)
    print(json.dumps({"ready": True, "first_step_ms": (time.perf_counter() - start) * 1e3, "torch": torch.__version__}), flush=True)
    asked = False
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["quit"]:
            return
        asked = True
        print(json.dumps(answer(workload, words[0], int(words[1]) if len(words) > 1 else 10)), flush=True)
    if not asked:
        for verb in ("train", "infer"):
            workload_warm = answer(workload, verb, 3)
            times = [answer(workload, verb, 10)[verb] for _ in range(5)]
            print(json.dumps({verb: statistics.median(times), "value": workload_warm["value"]}), flush=True)


if __name__ == "__main__":
    main()
