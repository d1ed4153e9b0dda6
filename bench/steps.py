"""Weft's training steps and forward passes beside PyTorch's, in alternating turns on one machine.

    python bench/steps.py --weft target/release/examples/steps --device cpu --precision f32 \\
        transformer:16x64x256x6 residual:1024x1024x6x256

Each side is a process of its own that stays; a turn asks one side, then the other, for a number of steps, and the medians of all
turns are compared. With --peer NAME the peer is one of: eager (as it comes), fused (AdamW fused=True), pure (parameters in bf16 too),
compiled (torch.compile). One JSON line a shape and peer is printed, then a table.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

PEERS = {"eager": [], "fused": ["--fused"], "pure": ["--pure-bf16"], "compiled": ["--compile", "--fused"]}
HERE = Path(__file__).parent


class Side:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first_step_ms = self.answer()["first_step_ms"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended without an answer")
        return json.loads(line)

    def ask(self, verb, count):
        self.process.stdin.write(f"{verb} {count}\n")
        self.process.stdin.flush()
        return self.answer()[verb]

    def end(self):
        self.process.communicate("quit\n")


def measure(args, kind, shape, peer):
    common = [args.device, args.precision, kind, shape]
    ours = Side([args.weft, *common])
    theirs = Side([sys.executable, str(HERE / "steps_peer.py"), *common, "--threads", str(args.threads), *PEERS[peer]])
    result = {"kind": kind, "shape": shape, "device": args.device, "precision": args.precision, "peer": peer}
    result["first_step_ms"] = [ours.first_step_ms, theirs.first_step_ms]
    for verb in ("train", "infer"):
        for side in (ours, theirs):
            side.ask(verb, args.steps)
        turns = [[side.ask(verb, args.steps) for side in (ours, theirs)] for _ in range(args.turns)]
        weft, torch = (statistics.median(times) for times in zip(*turns))
        result[verb] = {"weft_ms": weft, "torch_ms": torch, "ratio": weft / torch, "ratios": [a / b for a, b in turns]}
    for side in (ours, theirs):
        side.end()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", default="target/release/examples/steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("workload", nargs="+", help="KIND:SHAPE as the example `steps` takes them")
    args = parser.parse_args()
    results = []
    for workload in args.workload:
        kind, shape = workload.split(":")
        for peer in args.peer or ["eager"]:
            results.append(measure(args, kind, shape, peer))
            print(json.dumps(results[-1]), flush=True)
    print(f"\n{'workload':34} {'peer':9} {'step: weft':>10} {'torch':>9} {'ratio':>6} {'forward: weft':>14} {'torch':>9} {'ratio':>6}")
    for r in results:
        train, infer = r["train"], r["infer"]
        name = f"{r['kind']} {r['shape']} {r['precision']}"
        print(
            f"{name:34} {r['peer']:9} {train['weft_ms']:10.2f} {train['torch_ms']:9.2f} {train['ratio']:6.2f}"
            f" {infer['weft_ms']:14.2f} {infer['torch_ms']:9.2f} {infer['ratio']:6.2f}"
        )


if __name__ == "__main__":
    main()
