"""The PyTorch loops that head-to-head H1 is measured against.

Both train N independent MLPs 784-32-32-10 (ReLU) on MNIST with Adam 1e-3 and batches of 64; each network has its own
initialization and its own data order. With --device cuda all of it lies on a GPU.

sequential  one network after the other: torch.nn modules, torch.optim.Adam as it comes, the data in memory
batched     all networks at once: torch.baddbmm over a leading axis of networks, Adam with foreach=True

One JSON line is printed for the measured part. `secs_per_step` is the time in which *all* networks advance by one step,
in both loops, so that times a number of steps it is the time of a zoo.

With --serve the process stays: it prints one JSON line when it is ready, and then for each line `run STEPS` on standard
input one JSON line with that run's measurement, until `quit` or the end of the input. So a caller can alternate runs of
several programs without paying for imports and warm-up each time.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F

from idx import read_part

WIDTHS = (784, 32, 32, 10)
BATCH = 64
RATE = 1e-3


class Sequential:
    """Trains one network after the other."""

    def __init__(self, images, labels, networks, seed):
        self.images, self.labels, self.networks = images, labels, networks
        self.next_seed = seed
        self.models = []

    def run(self, steps):
        """Trains as many fresh networks as asked for, `steps` steps each."""
        self.models = [self.train_one(steps) for _ in range(self.networks)]

    def train_one(self, steps):
        torch.manual_seed(self.next_seed)
        self.next_seed += 1
        layers = []
        for fan_in, fan_out in zip(WIDTHS, WIDTHS[1:]):
            layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1]).to(self.images.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        batches_per_epoch = len(self.images) // BATCH
        for step in range(steps):
            at = step % batches_per_epoch
            if at == 0:
                order = torch.randperm(len(self.images)).to(self.images.device)
            index = order[at * BATCH : (at + 1) * BATCH]
            optimizer.zero_grad()
            F.cross_entropy(model(self.images[index]), self.labels[index]).backward()
            optimizer.step()
        return model

    @torch.no_grad()
    def accuracies(self, images, labels):
        return [(model(images).argmax(1) == labels).float().mean().item() for model in self.models]


class Batched:
    """Trains all networks at once; a run goes on where the last one stopped."""

    def __init__(self, images, labels, networks, seed):
        self.images, self.labels, self.networks = images, labels, networks
        self.generators = [torch.Generator().manual_seed(seed + i) for i in range(networks)]
        self.parameters = []
        for fan_in, fan_out in zip(WIDTHS, WIDTHS[1:]):
            bound = fan_in**-0.5
            for shape in ((fan_in, fan_out), (1, fan_out)):
                draws = [torch.rand(shape, generator=g) * 2 * bound - bound for g in self.generators]
                self.parameters.append(torch.stack(draws).to(images.device).requires_grad_())
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE, foreach=True)
        self.step = 0
        self.orders = None

    def logits(self, x):
        for layer in range(0, len(self.parameters), 2):
            if layer > 0:
                x = F.relu(x)
            weight, bias = self.parameters[layer : layer + 2]
            x = torch.baddbmm(bias, x, weight)
        return x

    def run(self, steps):
        batches_per_epoch = len(self.images) // BATCH
        for _ in range(steps):
            at = self.step % batches_per_epoch
            if at == 0:
                orders = torch.stack([torch.randperm(len(self.images), generator=g) for g in self.generators])
                self.orders = orders.to(self.images.device)
            self.step += 1
            index = self.orders[:, at * BATCH : (at + 1) * BATCH]
            logits = self.logits(self.images[index])
            loss = F.cross_entropy(logits.flatten(0, 1), self.labels[index].flatten(), reduction="sum") / BATCH
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def accuracies(self, images, labels):
        predictions = self.logits(images.expand(self.networks, *images.shape)).argmax(2)
        return (predictions == labels).float().mean(1).tolist()


def measure(loop, name, steps):
    start = time.perf_counter()
    loop.run(steps)
    if loop.images.is_cuda:
        torch.cuda.synchronize()
    secs = time.perf_counter() - start
    return {
        "loop": name,
        "networks": loop.networks,
        "steps": steps,
        "secs": secs,
        "secs_per_step": secs / steps,
        "secs_per_network_step": secs / steps / loop.networks,
        "batch": BATCH,
        "device": str(loop.images.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def answer(line, loop, name):
    match line.split():
        case ["run", steps] if steps.isdecimal() and int(steps) > 0:
            return measure(loop, name, int(steps))
        case _:
            return {"error": f"expected `run STEPS` or `quit`, got `{line.strip()}`"}


def count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="folder of MNIST's idx(.gz) files")
    parser.add_argument("--loop", required=True, choices=["sequential", "batched"])
    parser.add_argument("--networks", type=count, default=100)
    parser.add_argument("--steps", type=count, default=100, help="measured steps a network")
    parser.add_argument("--warmup", type=int, default=20, help="steps before the measurement (sequential: of one network)")
    parser.add_argument("--validation", type=int, default=5000, help="training images left out, from the end")
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda: where data, networks and optimizer lie")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="measure on request instead; see above")
    return parser.parse_args()


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    images, labels = (torch.from_numpy(a) for a in read_part(args.data, "train"))
    kept = len(images) - args.validation
    images, labels = images[:kept].contiguous().to(args.device), labels[:kept].contiguous().to(args.device)
    loop = {"sequential": Sequential, "batched": Batched}[args.loop](images, labels, args.networks, args.seed)
    if args.warmup > 0:
        if args.loop == "sequential":
            loop.train_one(args.warmup)
        else:
            loop.run(args.warmup)
    if args.serve:
        print(json.dumps({"ready": True, "loop": args.loop, "networks": args.networks, "warmup_steps": args.warmup}), flush=True)
        for line in sys.stdin:
            if line.strip() == "quit":
                break
            print(json.dumps(answer(line, loop, args.loop)), flush=True)
        return
    result = measure(loop, args.loop, args.steps) | {"warmup_steps": args.warmup, "seed": args.seed}
    accuracies = torch.tensor(loop.accuracies(*(torch.from_numpy(a).to(args.device) for a in read_part(args.data, "t10k"))))
    print(json.dumps(result | {"test_accuracy": accuracies.mean().item()}))


if __name__ == "__main__":
    main()
