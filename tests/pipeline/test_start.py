"""What keeps a recipe from running to its end is found by `plan` and `run` alike, before anything is trained."""

import json

import pytest
import torch

from r1_mini import cli
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.recipe import load
from tests.conftest import SMOKE, TINY

WITHOUT_A_GPU = (
    ("grpo.trainer.tf32=true", "stages.1.trainer.tf32", "needs a GPU of NVIDIA's Ampere generation"),
    ("grpo.trainer.fp16=true", "stages.1.trainer.fp16", "has no effect without a GPU; set bf16"),
    ("grpo.trainer.use_vllm=true", "stages.1.trainer.use_vllm", "needs the package vllm; pip install 'r1-mini[vllm]'"),
)
ADAPTER = "grpo.peft={r: 4, target_modules: %s}"


def table(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    plain = [{"question": f"What is {a} and {b} more?", "answer": str(a + b)} for a in range(2, 12) for b in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*plain, *rows]), encoding="utf-8")
    return f"grpo.problems=[{{jsonl: {path}, extract: as_is}}]"


def refused(capsys, command, tmp_path, *overrides):
    """The line in which a command refuses the smoke recipe with these overrides; nothing is written."""
    out = tmp_path / "run"
    code = cli.main([command, str(SMOKE), *overrides, *(["--out", str(out)] if command == "run" else [])])
    line = capsys.readouterr().err
    assert (code, line.count("\n"), out.exists()) == (2, 1, False), line
    return line


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("override", "where", "what"),
    [
        (ADAPTER % "[q_proj, lm_head]", "stages.1.trainer", "Applying a PEFT adapter to `lm_head` is not supported"),
        (ADAPTER % "[nothing]", "peft", "name modules of the model"),
        ("grpo.trainer.sync_ref_model=true", "stages.1.trainer", "`beta=0.0`"),
        ("grpo.trainer.lr_scheduler_type=reduce_lr_on_plateau", "stages.1.trainer", "requires an eval strategy"),
        ("grpo.trainer.lr_scheduler_kwargs={power: 2}", "stages.1.trainer", "'power'"),
        ("grpo.trainer.optim=adamw_8bit", "stages.1.trainer", "bitsandbytes"),
        ("grpo.trainer.optim=galore_adamw", "stages.1.trainer", "galore_torch"),
        ("grpo.trainer.use_liger_kernel=true", "stages.1.trainer.use_liger_kernel", "needs the package liger_kernel"),
        *(() if torch.cuda.is_available() else WITHOUT_A_GPU),
        ("grpo.trainer.report_to=mlflow", "stages.1.trainer.report_to", "needs the package mlflow"),
        ("grpo.trainer.model_init_kwargs={foo: 1}", "stages.1.trainer", "unexpected keyword argument 'foo'"),
        ("grpo.trainer.model_init_kwargs={attn_implementation: flash_attention_2}", "stages.1.trainer", "FlashAttention2"),
        ("base.trainer.accelerator_config={split_batches: 3, foo: 1}", "stages.0.trainer", "'foo'"),
        ("grpo.trainer.max_completion_length=2000", "stages.1.trainer.max_completion_length", "1015 would fit"),
        ("prompt={enable_thinking: false}", "prompt", "the chat template has no variable 'enable_thinking'"),
        ("base.trainer.per_device_train_batch_size=10000000", "stages.0.trainer.max_steps", "at most 10, got 500"),
        ("grpo.trainer.steps_per_generation=10000000", "stages.1", "lower its steps or its batch"),
        ("problems=[{family: sum, terms: [2, 2], digits: 1, largest: 1}]", "stages.1.problems", "no further train problem"),
        ("grpo.problems=[{family: sum, terms: 2, digits: 1, largest: 1}]", "stages.1.problems", "widen terms"),
    ],
)  # fmt: skip
def test_plan_and_run_refuse_alike_before_the_base_is_trained(capsys, tmp_path, command, override, where, what):
    line = refused(capsys, command, tmp_path, override)
    assert f"{where}: " in line and what in line


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_question_beyond_the_window_is_found_in_every_row(capsys, tmp_path, command):
    long = table(tmp_path, *({"question": "What is " + "1 and " * 300 + f"{n}?", "answer": "1"} for n in range(9)))
    line = refused(capsys, command, tmp_path, long)
    assert "the context length of the model is 1024; leave such questions out" in line


@pytest.mark.parametrize(("given", "named"), [("", "éü日"), ("ßé", "ßéü日")])
def test_letters_of_a_table_are_tokens_of_the_base_and_those_of_another_exam_are_named(capsys, tmp_path, given, named):
    asked = (f"Is {letter}, not {n}, {n + 5}?" for letter in "éü日" for n in range(9))
    rows = table(tmp_path, *({"question": question, "answer": "5"} for question in asked))
    assert cli.main(["plan", str(SMOKE), rows, f"base.model.characters={given!r}"]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    suite = tmp_path / "other.yaml"
    suite.write_text(f"samples: 1\nmax_tokens: 9\nproblems: [{{jsonl: {path}, test: {path}, number: 87}}]\n")
    other = [f"evaluate.suite={suite}", "evaluate.families=null", "evaluate.limit=null"]
    line = refused(capsys, "run", tmp_path, *other, f"base.model.characters={given!r}")
    fix = line.rpartition("; set ")[2].strip()
    assert fix == f'base.model.characters="{named}"'
    assert cli.main(["plan", str(SMOKE), *other, fix]) == 0


def test_several_gpus_for_one_process_and_an_adapter_of_sharded_weights_are_refused(capsys, tmp_path, monkeypatch):
    with monkeypatch.context() as gpus:
        gpus.setattr(torch.cuda, "device_count", lambda: 2)
        gpus.delenv("WORLD_SIZE", raising=False)
        line = refused(capsys, "run", tmp_path)
    assert "stages.0.trainer: 2 GPUs are visible, and one process works with one; put CUDA_VISIBLE_DEVICES=0" in line
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    line = refused(capsys, "run", tmp_path, "grpo.peft={r: 2}")
    assert "stages.1.peft: an adapter of weights that are sharded over processes" in line


@pytest.mark.parametrize("override", [ADAPTER % "all-linear", "grpo.trainer.beta=0.04", "base.optimizer=adamw",
    "grpo.trainer.bf16=true", "grpo.trainer.max_completion_length=1015"])  # fmt: skip
def test_what_trl_builds_is_planned(override):
    assert cli.main(["plan", str(SMOKE), override]) == 0


def test_what_another_machine_has_is_not_missed_in_a_plan_for_it(capsys):
    for override in ("optim=adamw_8bit", "fp16=true", "tf32=true", "use_vllm=true", "use_liger_kernel=true"):
        assert cli.main(["plan", str(SMOKE), "--gpu", "8", f"grpo.trainer.{override}"]) == 0, capsys.readouterr().err
    assert cli.main(["plan", str(SMOKE), "--gpu", "8", ADAPTER % "[lm_head]"]) == 2


def test_an_exam_with_too_few_problems_names_the_limit_that_fits(capsys, tmp_path):
    own = ("problems=[{family: sum, terms: [3, 4], digits: 1, largest: 20}]", "evaluate={suite: own}")
    line = refused(capsys, "plan", tmp_path, *own)
    fix = line.rpartition("; ")[2].removesuffix(" would fit\n")
    assert fix.startswith("evaluate.limit=")
    assert cli.main(["plan", str(SMOKE), *own, fix]) == 0


FOREIGN = """
name: foreign
model: somewhere
problems: [{family: sum}]
stages: [{kind: sft}, {kind: grpo}, {kind: rejection}]
"""


@pytest.mark.parametrize(
    ("text", "peft", "rates"),
    [(TINY, False, [1e-3, 1e-3]), (FOREIGN, False, [2e-5, 1e-6, 2e-5]), (FOREIGN, True, [1e-3, 2e-5, 1e-3])],
    ids=["a base of ours", "a whole model", "an adapter"],
)
def test_the_default_learning_rate_is_that_of_what_is_trained(recipe_file, tmp_path, text, peft, rates):
    adapters = [f"stages.{place}.peft={{r: 4}}" for place in range(len(rates) * peft)]
    recipe = load(recipe_file(text), adapters)
    assert [stage.fields["learning_rate"] for stage in recipe.stages] == rates
    if not peft:
        make_tokenizer("é").save_pretrained(tmp_path / "ours")
        of_ours = load(recipe_file(FOREIGN), [f"model={tmp_path / 'ours'}"])
        assert [stage.trainer["learning_rate"] for stage in of_ours.stages] == [1e-3, 1e-3, 1e-3]  # in recipe.yaml
    given = load(recipe_file(text), [*adapters, "grpo.trainer.learning_rate=0.5"])
    assert given.nodes["02-grpo"].fields["learning_rate"] == 0.5


PUPIL = """
name: pupil
problems: [{family: sum, terms: [2, 3], digits: 1, largest: 9}]
stages:
  big: {kind: base, trainer: {max_steps: 1}, languages: {signs: 0.5, words: 0.5, mixed: 0}}
  data: {kind: collect, from: big}
  small: {kind: base, model: {hidden_size: 16, layers: 1, heads: 2}, trainer: {max_steps: 1}}
  pupil: {kind: %s}
evaluate: {columns: [small, big]}
"""
BAD = '{"question": "1+2", "completion": "<think>1+2=3</think><answer>3</answer>"}\n'


@pytest.mark.parametrize(
    ("stage", "where", "what"),
    [
        ("distill, from: small, teacher: big", "pupil.teacher", "has another vocabulary"),
        ("distill, from: data, teacher: big", "stages.pupil.from", "'data' makes a data set"),
        (
            "collect, from: big, problems: [{jsonl: cold_start.jsonl, solution: completion}], keep: {sound: true}",
            "keep.sound",
            "reads the steps",
        ),
        ("sft, from: nobody", "stages.pupil.from", "no stage is called 'nobody'"),
        ("sft, from: small, problems: [{jsonl: bad.jsonl, solution: completion}]", "bad.jsonl:2", "cannot be read"),
        (
            "sft, from: small, problems: [{jsonl: worse.jsonl, solution: completion}]",
            "worse",
            "row 2: the solution is empty",
        ),
        ("sft, from: small, problems: [{jsonl: no.jsonl, solution: completion}]", "no.jsonl", "No such file"),
        ("grpo, from: small, problems: [{jsonl: cold_start.jsonl}]", "cold_start", "no column is called 'answer'"),
    ],
)
def test_a_stage_that_reads_others_is_refused_before_any_is_trained(capsys, tmp_path, monkeypatch, stage, where, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text(BAD + '{"question": "2+2", "comp\n')
    (tmp_path / "worse.jsonl").write_text(BAD + '{"question": "2+2", "completion": ""}\n')
    (tmp_path / "pupil.yaml").write_text(PUPIL % stage)
    assert cli.main(["run", "pupil.yaml"]) == 2
    line = capsys.readouterr().err
    assert where in line and what in line and line.count("\n") == 1, line
    assert not (tmp_path / "runs").exists()
