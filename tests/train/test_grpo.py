"""Our trainer against TRL's own loss, and by hand."""

import contextlib
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1_mini.config.trl_fields import CHOICES
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.prompts import encode
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.rewards import as_trl_reward
from r1_mini.rollout.params import Completion, SamplingParams
from r1_mini.rollout.tuning import TUNED
from r1_mini.train.advantages import group_advantages
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.stage import arguments

STOCK_SCORING = GRPOTrainer._get_per_token_logps_and_entropies
QUESTIONS = ("1+2", "12-4")


def rows_of(questions, copies):
    """Rows of a data set for the trainer."""
    prompts = [f"User: {question}\nAssistant:" for question in questions]
    return [{"prompt": prompt, "problem": index} for index, prompt in enumerate(prompts) for _ in range(copies)]


@pytest.fixture(scope="module")
def trainer_of(tmp_path_factory):
    """Trainers by their settings, each made once."""
    made = {}

    def get(**fields):
        key = tuple(sorted(fields.items()))
        if key not in made:
            made[key] = make_trainer(tmp_path_factory.mktemp("trainer"), **fields)
        return made[key]

    return get


def make_trainer(tmp_path, reward="accuracy", baseline="group", questions=QUESTIONS, **fields):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=None, seed=0)
    if fields.get("beta"):  # TRL loads the reference model from where the policy came from
        save_checkpoint(model, tokenizer, tmp_path / "start")
        model, tokenizer = load_checkpoint(tmp_path / "start")
    settings = {"max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12}
    settings |= fields
    problems = [families.solve(question) for question in questions]
    trainer = Trainer(
        problems=problems,
        sampling=SamplingParams(settings["num_generations"], settings["max_completion_length"]),
        baseline=baseline,
        model=model,
        args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, settings, tmp_path, 0)),
        train_dataset=Dataset.from_list(rows_of(questions, 1)),
        processing_class=tokenizer,
        reward_funcs=[as_trl_reward(reward)],
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@pytest.fixture(params=[False, True])
def shared(request, monkeypatch):
    """Whether rows share their prompts, as they do where it pays."""
    overhead = -1 if request.param else 1_000
    monkeypatch.setitem(TUNED, "cpu", replace(TUNED["cpu"], overhead=overhead, part=2 * 8))  # two rows in a part
    return request.param


def batch(advantages):
    """Rows of 3 prompt and 5 completion places with lengths 5, 2, 3, 4; the first prompt is one token shorter, the
    others are alike."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 2, 3, 4])
    prompt_mask = torch.ones(4, 3, dtype=torch.long)
    prompt_mask[0, 0] = 0
    prompt_ids = torch.randint(3, 20, (4, 3), generator=generator)
    prompt_ids[1:] = prompt_ids[1]
    mask = (torch.arange(5)[None] < lengths[:, None]).long()
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(3, 20, (4, 5), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": mask.sum(),
    }


def gradients(model):
    """The gradients of all weights, which are then forgotten."""
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def gradients_of_both(trainer, monkeypatch, inputs):
    """The loss and its gradient, by stock TRL and by ours."""
    with monkeypatch.context() as stock:
        stock.setattr(Trainer, "_get_per_token_logps_and_entropies", STOCK_SCORING)
        expected = GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs))
        (3 * expected).backward()
    theirs = gradients(trainer.model)
    trainer._metrics["train"].clear()
    loss = trainer._compute_loss(trainer.model, dict(inputs))
    before = trainer.model.lm_head.weight.grad
    (3 * loss).backward()
    ours = gradients(trainer.model)
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    return loss, expected, before


@pytest.mark.parametrize("loss_type", CHOICES["loss_type"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("advantages", [[0.5, 0.0, -0.25, 0.0], [1.0, -1.0, 0.5, -0.5]])
@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.usefixtures("shared")
def test_gradients_equal_those_of_stock_trl(trainer_of, monkeypatch, loss_type, level, beta, advantages, off_policy):
    trainer = trainer_of(loss_type=loss_type, importance_sampling_level=level, beta=beta)
    inputs, generator = batch(advantages), torch.Generator().manual_seed(1)
    if off_policy:  # ratios away from 1, so that clipping acts
        inputs["old_per_token_logps"] = -3.43 + 0.2 * torch.randn(4, 5, generator=generator)
    if beta:
        inputs["ref_per_token_logps"] = -3.43 + 0.2 * torch.randn(4, 5, generator=generator)
    gradients_of_both(trainer, monkeypatch, inputs)


@pytest.mark.parametrize("loss_type", CHOICES["loss_type"])
@pytest.mark.parametrize("advantages", [[0.5, 0.0, -0.25, 0.0], [1.0, -1.0, 0.5, -0.5], [1.0, 0.0, 0.0, 0.0]])
@pytest.mark.usefixtures("shared")
def test_gradients_of_fresh_samples_equal_those_of_stock_trl(trainer_of, monkeypatch, loss_type, advantages):
    trainer, inputs = trainer_of(loss_type=loss_type), batch(advantages)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    with torch.no_grad():
        inputs["sampling_per_token_logps"] = STOCK_SCORING(trainer, trainer.model, ids, mask, 5)[0]
    loss, expected, before = gradients_of_both(trainer, monkeypatch, inputs)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert before is None  # nothing is computed before the backward pass
    assert trainer._metrics["train"]["logp_gap_max"] == [pytest.approx(0, abs=1e-5)]


@contextlib.contextmanager
def shapes_read(trainer):
    """The shapes of what the trainer's model reads."""
    shapes = []
    hook = trainer.model.model.embed_tokens.register_forward_pre_hook(lambda _, read: shapes.append(read[0].shape))
    yield shapes
    hook.remove()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, MuonAdamW])
def test_for_a_batch_without_any_signal_nothing_is_computed_and_no_weight_moves(tmp_path, masked, optimizer):
    """All advantages are zero, or all completions are truncated and masked."""
    trainer = make_trainer(tmp_path, mask_truncated_completions=masked)
    steps = optimizer(trainer.model if optimizer is MuonAdamW else trainer.model.parameters(), lr=0.1, weight_decay=0.1)
    trainer._compute_loss(trainer.model, batch([0.5, -0.5, 0.25, -0.25])).backward()
    steps.step()  # from here on there is a momentum
    steps.zero_grad()
    inputs, before = batch([0.5, -0.5, 0.0, 0.0] if masked else [0.0] * 4), trainer.model.state_dict()
    before = {name: weights.clone() for name, weights in before.items()}
    if masked:
        inputs["completion_mask"] = torch.zeros_like(inputs["completion_mask"])
        inputs["sampling_per_token_logps"] = torch.zeros(4, 5)
    with shapes_read(trainer) as shapes:
        trainer._compute_loss(trainer.model, inputs).backward()
    steps.step()
    assert not shapes
    assert all(torch.equal(weights, before[name]) for name, weights in trainer.model.state_dict().items())


@pytest.mark.parametrize(("beta", "rows"), [(0.0, 2), (0.04, 4)])
def test_rows_without_advantage_are_not_scored_unless_they_have_a_kl_term(trainer_of, beta, rows):
    """Rows 1 and 3 of four count: prompts of 3 tokens, completions of 2 and 4."""
    trainer, inputs = trainer_of(beta=beta), batch([0.0, 0.5, 0.0, -0.5])
    with shapes_read(trainer) as shapes:
        trainer._compute_loss(trainer.model, {**inputs, "ref_per_token_logps": torch.zeros(4, 5)})
    assert shapes == [(rows, 7)]


REWARDS = [1.1, 0.1, 0.1, 0.0, 0.3, 0.3, 0.3, 0.3]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("baseline", ["group", "batch"])
def test_the_trainer_uses_our_advantages_and_those_of_groups_equal_stock_trls(tmp_path, monkeypatch, scale, baseline):
    trainer = make_trainer(tmp_path, baseline=baseline, scale_rewards=scale)
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda *_: torch.tensor(REWARDS)[:, None])
    ours = trainer._generate_and_score_completions(rows_of(QUESTIONS, 4))["advantages"]
    expected = group_advantages(torch.tensor(REWARDS).view(2, 4), scale, baseline)
    assert ours.tolist() == expected.flatten().tolist()
    if baseline == "group":
        theirs = GRPOTrainer._generate_and_score_completions(trainer, rows_of(QUESTIONS, 4))["advantages"]
        assert torch.allclose(ours[:4], theirs[:4], rtol=1e-5)
        assert theirs[4:].abs().max() < 1e-3  # rounding, divided by 1e-4
        assert ours[4:].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("fields", "own_sampler"),
    [
        ({}, True),
        ({"num_iterations": 2, "max_steps": 4}, True),  # rollouts are used again
        ({"beta": 0.04}, True),  # the reference model is scored
        ({"top_k": 3}, False),  # our sampler cannot sample so: TRL generates
    ],
    ids=str,
)
def test_a_training_goes_through_and_sampler_and_trainer_agree_on_log_probabilities(tmp_path, fields, own_sampler):
    trainer, gaps = make_trainer(tmp_path, reward="length", **fields), []
    trainer.log = lambda logs, start_time=None: gaps.extend(trainer._metrics["train"]["logp_gap_max"])
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    assert (trainer.rollout_func is not None) == own_sampler == bool(gaps)
    assert max(gaps, default=0) < 1e-4


def test_rollouts_of_one_optimizer_step_that_ask_the_same_question_get_different_completions(tmp_path):
    fields = {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "per_device_train_batch_size": 4}
    trainer, rollouts = make_trainer(tmp_path, questions=["1+2"] * 4, max_steps=1, **fields), []
    sampler = trainer.rollout_func
    trainer.rollout_func = lambda *given: rollouts.append(sampler(*given)) or rollouts[-1]
    trainer.train()
    texts = [tuple(ids) for each in rollouts for ids in each["completion_ids"]]
    assert len(rollouts) == 2
    assert len(set(texts)) == len(texts) == 8


@pytest.mark.parametrize(
    ("most", "asked", "accuracy", "redrawn"),
    [(0, ["1+2", "12-4"], 0.75, None), (1, ["3+4", "12-4"], 0.25, 0.5), (9, ["5+6", "12-4"], 0.375, 1.0)],
)
def test_groups_that_are_all_right_or_all_wrong_are_drawn_again(tmp_path, monkeypatch, most, asked, accuracy, redrawn):
    right = {"1+2": 4, "12-4": 2, "3+4": 0, "5+6": 1}  # of four completions; 3+4 and 5+6 are what is drawn next
    trainer = make_trainer(tmp_path)
    tokenizer, seeds = trainer.processing_class, []

    def answered(model, prompt_ids, params, **rest):
        seeds.append(params.seed)
        groups = []
        for ids in prompt_ids:
            problem = families.solve(next(each for each in right if f"User: {each}\n" in tokenizer.decode(ids)))
            texts = [
                f"<think></think><answer>{problem.answer if n < right[problem.question] else 99}</answer>"
                for n in range(4)
            ]
            tokens = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
            groups.append([Completion(each, [-1.0] * len(each), "stop") for each in tokens])
        return groups

    monkeypatch.setattr("r1_mini.train.grpo.rollout", answered)
    others = [families.solve(question) for question in ("123+456", "3+4", "5+6")]  # the first prompt is too long
    longest = max(len(ids) for ids in encode(tokenizer, [row["prompt"] for row in rows_of(QUESTIONS, 1)]))
    trainer.redraws = most, lambda seed: iter(others), longest
    batch = trainer._generate_and_score_completions(rows_of(QUESTIONS, 4))
    assert [each.question for each in trainer.asked] == asked
    assert trainer._metrics["train"]["accuracy"] == [accuracy]
    assert trainer._metrics["train"].get("redrawn") == (redrawn and [redrawn])
    assert len(set(seeds)) == len(seeds) == 1 + min(most, 2)
    by_hand = [(n < right[question]) - right[question] / 4 for question in asked for n in range(4)]
    assert batch["advantages"].tolist() == pytest.approx(by_hand)
    prompts = [
        tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    ]
    assert all(
        question in prompt for question, prompt in zip([each for each in asked for _ in range(4)], prompts, strict=True)
    )


def test_drawing_groups_again_is_refused_where_our_sampler_does_not_sample():
    for fields, refused in (({}, False), ({"top_k": 5}, True), ({"use_vllm": True}, True)):
        with pytest.raises(ValueError, match="has no effect") if refused else contextlib.nullcontext():
            GrpoStage(kind="grpo", dynamic_sampling=1, trainer={"max_steps": 1, **fields})
