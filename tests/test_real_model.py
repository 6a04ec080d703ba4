"""SmolLM2-135M-Instruct through sampler, SFT, GRPO, exam, inspect, doctor and harness: what random models cannot show."""

import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from eval.exam.suite import load_suite
from eval.export.lm_eval import export
from eval.inspect import tries
from r1_mini import cli
from r1_mini.model.checkpoint import adapter, load_checkpoint
from r1_mini.model.prompts import encode, prompt_for, stop_tokens
from r1_mini.problems import families
from r1_mini.rewards import as_trl_reward
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.generate import generate
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.files import read_jsonl
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.stage import arguments
from tests.real_model import real_model

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[1] / "recipes" / "laptop" / "smollm2.yaml"
QUESTIONS = ("1+2", "What is 12+7-3?", "Tom had 12 apples. He gave 7 of them away and bought 3. How many has he now?")


@pytest.fixture(scope="module")
def folder():
    return real_model()


@pytest.fixture(scope="module")
def loaded(folder):
    """The model in fp32 and its tokenizer, asked without a system message."""
    return load_checkpoint(folder, prompt={"system": None})


@pytest.fixture(scope="module")
def prompts(loaded):
    return encode(loaded[1], [prompt_for(loaded[1], question) for question in QUESTIONS])


def log_probabilities(model, prompt, completion):
    """Those of a completion's tokens, by the plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(completion)), completion]


def test_without_a_system_message_the_prompt_is_the_turn_alone(loaded, prompts):
    model, tokenizer = loaded
    assert tokenizer.decode(prompts[1]) == "<|im_start|>user\nWhat is 12+7-3?<|im_end|>\n<|im_start|>assistant\n"
    assert stop_tokens(model.generation_config, tokenizer) == tokenizer.convert_tokens_to_ids(["<|im_end|>"])


def test_greedy_tokens_are_those_of_generate_and_log_probabilities_those_of_the_forward_pass(loaded, prompts):
    model, tokenizer = loaded
    stop = stop_tokens(model.generation_config, tokenizer)
    assert len({*map(len, prompts)}) == 3  # so that rows are padded
    greedy = rollout(model, prompts, SamplingParams(1, 8, temperature=0.0), stop=stop)
    for prompt, (ours,) in zip(prompts, greedy, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert ours.tokens == theirs[0, len(prompt) :].tolist()
    sampled = rollout(model, prompts, SamplingParams(2, 6), stop=stop)
    for prompt, group in zip(prompts, sampled, strict=True):
        for each in group:
            expected = log_probabilities(model, prompt, each.tokens)
            torch.testing.assert_close(torch.tensor(each.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("peft", [None, {"r": 4, "target_modules": ["q_proj", "v_proj"]}], ids=["whole", "lora"])
def test_a_grpo_step_has_the_gradients_of_stock_trl(folder, loaded, prompts, tmp_path, monkeypatch, peft):
    tokenizer, problems = loaded[1], [families.solve(question) for question in ("1+2", "12+7-3")]
    model = load_checkpoint(folder, prompt={"system": None})[0] if peft else loaded[0]
    fields = {"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6, "max_steps": 1}
    rows = [{"prompt": prompt_for(tokenizer, each.question), "problem": n} for n, each in enumerate(problems)]
    trainer = Trainer(
        problems=problems,
        sampling=SamplingParams(2, 6),
        model=model,
        args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, fields, tmp_path, 0)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        reward_funcs=[as_trl_reward("accuracy")],
        peft_config=adapter(peft),
    )
    trainer.current_gradient_accumulation_steps = 1
    if peft:  # a LoRA begins with B = 0, where A has no gradient
        torch.manual_seed(0)
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
    inputs = trainer._generate_and_score_completions([row for row in rows for _ in range(2)])
    inputs["advantages"] = torch.tensor([0.5, -0.5, 1.0, -1.0])  # as it is, nothing it says is right
    found = []
    for ours in (False, True):
        with monkeypatch.context() as patch:
            if not ours:
                stock = GRPOTrainer._get_per_token_logps_and_entropies
                patch.setattr(Trainer, "_get_per_token_logps_and_entropies", stock)
            kind = Trainer if ours else GRPOTrainer
            loss = kind._compute_loss(trainer, trainer.model, dict(inputs))
            loss.backward()
        trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        found.append((loss.item(), [weight.grad for weight in trained]))
        trainer.model.zero_grad()
    (expected, theirs), (loss, ours) = found
    assert loss == pytest.approx(expected, abs=1e-6)
    norm = math.sqrt(sum(grad.square().sum() for grad in theirs))
    apart = math.sqrt(sum((a - b).square().sum() for a, b in zip(ours, theirs, strict=True)))
    assert norm > 0 and apart < 1e-5 * norm


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The recipe for laptops, as small as can be, by the real command."""
    out = tmp_path_factory.mktemp("real") / "run"
    small = [
        "sft.trainer.max_steps=2",
        "sft.trainer.per_device_train_batch_size=2",
        "sft.trainer.warmup_steps=0",
        "sft.trainer.lr_scheduler_type=constant",
    ]
    small += ["grpo.trainer.max_steps=1", "grpo.trainer.per_device_train_batch_size=4"]
    small += ["grpo.trainer.num_generations=2", "grpo.trainer.max_completion_length=8"]
    small += [f"{stage}.trainer.model_init_kwargs={{dtype: bfloat16}}" for stage in ("sft", "grpo")]
    small += ["evaluate.limit=2", "evaluate.samples=1", "evaluate.max_tokens=3"]
    small += ["evaluate.columns=[model, sft, grpo]"]
    assert cli.main(["run", str(RECIPE), f"model={folder}", *small, "--out", str(out)]) == 0
    return out


def test_the_recipe_for_laptops_trains_and_examines_every_stage(run):
    losses = [row["loss"] for row in read_jsonl(run / "01-sft" / "metrics.jsonl")]
    assert losses[1] < losses[0] - 0.1
    (step,) = read_jsonl(run / "02-grpo" / "metrics.jsonl")
    assert step["zero_variance"] == 1 and step["grad_norm"] == 0
    assert "logp_gap_mean" not in step  # nothing earned, so nothing was computed
    assert (run / "report.html").is_file()
    for column in ("00-model", "01-sft", "02-grpo"):
        rows = read_jsonl(run / "eval" / "own" / column / "samples.jsonl")
        assert len(rows) == 2 and all(row["prompt"].count("<|im_start|>") == 2 for row in rows)


def test_the_doctor_says_that_nothing_earns_and_the_inspection_counts_tries(run, capsys, monkeypatch):
    assert cli.main(["doctor", str(run)]) == 1  # two steps of SFT teach no format
    assert "02-grpo: nothing earns" in capsys.readouterr().out
    monkeypatch.setattr(tries, "SAMPLES", 2)
    asked = ["inspect", str(run / "01-sft"), str(run / "02-grpo"), "--only", "tries", "limit=2", "max_tokens=3"]
    assert cli.main([*asked, "--quick", "--out", str(run.parent / "inspect")]) == 0


def test_the_harness_gets_the_same_prompts_and_answers(loaded, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = loaded
    (tmp_path / "few.yaml").write_text(
        "samples: 1\nmax_tokens: 6\nproblems: [{family: sum, terms: 2, digits: 1, wording: sentence, number: 2}]\n"
        "min_depth: 1\n"
    )
    suite, problems = load_suite(str(tmp_path / "few.yaml"))
    (task,) = export(suite, problems, tokenizer, tmp_path / "tasks")
    done = lm_eval.simple_evaluate(
        HFLM(model, tokenizer=tokenizer, batch_size=2),
        tasks=[task],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    theirs = {row["doc"]["prompt"]: row["resps"][0][0] for row in done["samples"][task]}
    params = SamplingParams(1, suite.max_tokens, temperature=0.0)
    samples = generate(model, tokenizer, [each.problem for each in problems], params)
    assert theirs == {sample.prompt: sample.text for (sample,) in samples}
