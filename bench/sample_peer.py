"""Sampling of networks in PyTorch: the peer of Weft's flow, on the same sizes.

NETWORK  WIDTHxBLOCKSxLATENTxWEIGHTS: a residual velocity network of that width on codes of LATENT values, and a decode matrix
         [LATENT, WEIGHTS] of principal components. All values are random; the work is the same.
STEPS    steps of Heun's rule, two evaluations each

A sample is noise, brought to a code by the sampler, restored by its mean and spread, decoded, and given Gaussian noise of the variance
that the codec drops; samples end in the host's memory, where networks are used. Time and frequencies are the same for all samples, so
that their embedding is one row, which broadcasts.

Each line of standard input asks for `sample N`; one JSON line answers with its milliseconds. Without input, the median of five
rounds of 1,000 is printed.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from steps_peer import Residual

FREQUENCIES = 32


class Flow:
    def __init__(self, args):
        self.device = torch.device(args.device)
        width, blocks, latent, weights = (int(size) for size in args.network.split("x"))
        torch.manual_seed(1)
        self.steps, self.latent = args.steps, latent
        self.network = Residual(width, blocks, latent, 2 * FREQUENCIES + 1).to(self.device)
        self.frequencies = 1000.0 ** torch.linspace(0, 1, FREQUENCIES, device=self.device)
        self.mean, self.residual = torch.randn(2, weights, device=self.device)
        self.matrix = torch.randn(latent, weights, device=self.device)
        self.code_mean, self.code_std = torch.randn(latent, device=self.device), torch.rand(latent, device=self.device)

    def velocity(self, x, t):
        angles = t * self.frequencies
        embedding = torch.cat([x.new_full((1,), t), angles.sin(), angles.cos()])[None]
        variance = t * t + (1 - t) * (1 - t)
        return (2 * t - 1) / variance * x + variance**-0.5 * self.network(x, embedding)

    @torch.no_grad()
    def sample(self, count):
        x, h = torch.randn(count, self.latent, device=self.device), 1 / self.steps
        for step in range(self.steps):
            first = self.velocity(x, step * h)
            second = self.velocity(x + h * first, (step + 1) * h)
            x = x + h / 2 * (first + second)
        weights = torch.addmm(self.mean, x * self.code_std + self.code_mean, self.matrix)
        weights.addcmul_(self.residual, torch.randn_like(weights))
        return weights.cpu()


def answer(flow, words):
    if len(words) != 2 or words[0] != "sample" or not words[1].isdecimal():
        return {"error": f"expected `sample N`, got `{' '.join(words)}`"}
    start = time.perf_counter()
    weights = flow.sample(int(words[1]))
    return {"sample": (time.perf_counter() - start) * 1e3, "value": weights[0, 0].item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("network", help="WIDTHxBLOCKSxLATENTxWEIGHTS")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    flow = Flow(args)
    flow.sample(16)
    print(json.dumps({"ready": True, "torch": torch.__version__}), flush=True)
    asked = False
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            return
        asked = True
        print(json.dumps(answer(flow, words)), flush=True)
    if not asked:
        times = [answer(flow, ["sample", "1000"])["sample"] for _ in range(6)][1:]
        print(json.dumps({"sample": statistics.median(times)}), flush=True)


if __name__ == "__main__":
    main()
