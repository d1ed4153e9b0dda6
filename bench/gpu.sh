#!/usr/bin/env bash
# Tests Weft on a GPU and prints tables. Run in the repository's root, on a machine with a GPU, a driver and NVRTC.
#
# What it runs is built here if there is a cargo, else taken from these variables:
#   WEFT        the program, built with `--features cuda`
#   STEPS       the example `steps` of weft-gen, likewise
#   CUDA_TESTS  the test `cuda` of weft-ops, likewise (`cargo test … --no-run` says where it lies)
#   DEVICES_TESTS  its test `devices`, likewise; needed where there are two GPUs, with NCCL in LD_LIBRARY_PATH
# With a PyTorch in `python3`, the same steps are measured beside it; with `mnist` in WEFT_DATA, the zoo of H1 too.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! nvidia-smi -L; then
  echo "no GPU here: nothing is tested" >&2
  exit 1
fi
if [ -z "${WEFT:-}" ]; then
  cargo build --release --locked --features cuda -p weft-cli
  cargo build --release --locked --features cuda -p weft-gen --example steps
  test_program() {
    cargo test --release --locked --features cuda -p weft-ops --test "$1" --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p'
  }
  CUDA_TESTS="$(test_program cuda)" DEVICES_TESTS="$(test_program devices)"
  WEFT=target/release/weft STEPS=target/release/examples/steps
fi

printf '\n== kernels against the CPU, greatest deviations of each operation\n'
"$CUDA_TESTS" --nocapture

printf '\n== the same zoo on both: accuracies differ by rounding alone\n'
output="$(mktemp -d)"
trap 'rm -rf "$output"' EXIT
for device in cpu cuda:0; do
  "$WEFT" run configs/quickstart.toml --device "$device" --until zoo --set "run.output=$output/$device" 2>&1 | tail -n 2
  "$WEFT" zoo stats "$output/$device/zoo" | sed -n 3,6p
done

printf '\n== throughput\n'
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then peer="--peer pytorch"; else peer=""; fi
# shellcheck disable=SC2086
"$WEFT" bench --device cuda:0 $peer

if [ -n "${WEFT_DATA:-}" ]; then
  printf '\n== 1,000 networks of H1, and one of PyTorch after the other: five passes are 4,295 steps\n'
  "$WEFT" run configs/h1-mnist-mlp.toml --device cuda:0 --until zoo --set zoo.train.runs=950 --set zoo.train.runs-at-once=1000 \
    --set "run.output=$output/h1" 2>&1 | tail -n 3
  if python3 -c 'import torch' 2>/dev/null; then
    python3 bench/h1_peer.py --data "$WEFT_DATA/mnist" --loop sequential --networks 2 --steps 859 --device cuda
  fi
fi

if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
  printf '\n== two GPUs: sums, losses beside those of one, and a training step\n'
  "$DEVICES_TESTS" --nocapture
  "$STEPS" cuda:0,cuda:1 bf16 transformer 64x256x1024x12
  "$STEPS" cuda:0,cuda:1 f32 residual 8192x2048x6x256
fi
