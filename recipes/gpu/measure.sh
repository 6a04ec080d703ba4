#!/usr/bin/env bash
# What a GPU has to show, in one go: the tests, the speed, and our own base at 100 M parameters from nothing to report.
# From the root of the repository, on a machine with one card of 80 GB:  bash recipes/gpu/measure.sh
set -euo pipefail
out=runs/gpu-figures
failed=0
mkdir -p "$out"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$out/card.txt"
python -m pytest -q -m gpu | tee "$out/tests.txt" || failed=1  # the figures all the same
r1-mini bench --size 30M --out "$out/bench.json" | tee "$out/bench.txt"
r1-mini plan recipes/gpu/scratch_100m.yaml --json "$out/plan.json" | head -n 1
time r1-mini run recipes/gpu/scratch_100m.yaml --out "$out/scratch-100m" | tee "$out/scratch_100m.txt"
python - "$out" <<'PYTHON'
import json, sys
from pathlib import Path

out = Path(sys.argv[1])
plan, run = (json.loads((out / name).read_text()) for name in ("plan.json", "scratch-100m/manifest.json"))
print("planned MiB", round(plan["needed"] / 2**20), "measured MiB", run["peak_gpu_memory_mib"], "seconds", run["seconds"])
PYTHON
exit "$failed"
