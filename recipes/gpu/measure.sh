#!/usr/bin/env bash
# What a card has to tell, in phases of less than nine minutes each, about half an hour in all:
#   bash recipes/gpu/measure.sh [PHASE...]      check tests demo bits rollout step bench scratch; all of them by default
# From the root of the repository, in the environment in which r1-mini is installed. Each phase writes its logs into
# runs/gpu-figures (OUT=...) and goes on after a failure; the same phase again goes on with runs that a limit ended.
# TINY=1 makes everything small, to try the script on a CPU: what needs CUDA says so.
set -uo pipefail
out=${OUT:-runs/gpu-figures}; mkdir -p "$out"; out=$(cd "$out" && pwd)
export TINY=${TINY:-0} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
summary=()
tiny() { [ "$TINY" = 1 ]; }
timed() {  # timed NAME SECONDS COMMAND...: keep its output in NAME.txt, show the end of it
  local name=$1 limit=$2 begun=$SECONDS; shift 2
  mkdir -p "$(dirname "$out/$name")"
  timeout --signal=INT --kill-after=20 "$limit" "$@" > "$out/$name.txt" 2>&1
  summary+=("$name: exit code $?, $((SECONDS - begun)) s")
  echo "== ${summary[-1]}"; tail -n 12 "$out/$name.txt"
}
run() {  # run NAME SECONDS RECIPE [key=value...]: a run, and what it says of its steps
  local name=$1; timed "$name" "$2" python -m r1_mini run "${@:3}" --out "$out/$name"
  python -m recipes.gpu.probe steps "$out/$name" | tee "$out/$name-steps.txt"
}
demo=recipes/tiny/r1_zero.yaml scratch=recipes/gpu/scratch_100m.yaml sizes=(--size 0.3M --size 30M) small=()
if tiny; then
  demo=recipes/tiny/smoke.yaml scratch=recipes/tiny/smoke.yaml sizes=(--size 0.3M)
  small=(grpo.trainer.max_completion_length=16 grpo.trainer.gradient_accumulation_steps=1 grpo.trainer.bf16=false
    grpo.trainer.tf32=null grpo.trainer.max_steps=2)
fi

phase_check() {
  timed card 30 nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
  timed versions 60 python -m pip list
  run smoke 150 recipes/tiny/smoke.yaml
}
phase_tests() { timed tests 400 python -m pytest -q -m gpu -p no:cacheprovider tests/test_gpu.py; }
phase_demo() {
  run demo 200 "$demo"
  ACCELERATE_USE_CPU=true run demo-cpu/run 240 "$demo"
}
phase_bits() {  # the same run twice: are the weights the same bits? As it is, and deterministic; nothing is taken over
  for each in false true; do
    for place in first second; do run "bits/$each-$place/run" 120 "$demo" deterministic=$each; done
  done
  sha256sum "$out"/bits/*/run/0*/model.safetensors | tee "$out/bits.txt"
}
phase_rollout() { timed rollout 400 python -m recipes.gpu.probe rollout "$out"; }
phase_step() {  # a GRPO step of 256 completions of up to 1,000 tokens, by each sampler
  timed model 60 python -m recipes.gpu.probe model "$out"
  run step-ours 240 "$out/qwen05.yaml" "${small[@]}"
  run step-generate 300 "$out/qwen05.yaml" "${small[@]}" 'grpo.trainer.generation_kwargs={do_sample: true}'
  run step-vllm 300 "$out/qwen05.yaml" "${small[@]}" grpo.trainer.use_vllm=true grpo.trainer.vllm_mode=colocate \
    grpo.trainer.vllm_gpu_memory_utilization=0.3 grpo.trainer.vllm_max_model_length=2048
}
phase_bench() {  # against stock TRL, its continuous batching and vLLM
  timed bench 500 python -m r1_mini bench "${sizes[@]}" --profile short --profile long --pairs 2 --out "$out/bench.json"
}
phase_scratch() {  # our own base at 100 M parameters; the plan's memory stands beside the measured one
  timed plan 120 python -m r1_mini plan "$scratch" --json "$out/plan.json"
  run scratch 520 "$scratch"
}
[ $# = 0 ] && set -- check tests demo bits rollout step bench scratch
for phase in "$@"; do echo "#### $phase"; "phase_$phase"; done
printf '%s\n' "${summary[@]}" | tee -a "$out/summary.txt"
