"""Expert iteration: what is kept, and rounds that go on where they were cut off."""

from pathlib import Path

import pytest
from rich.console import Console

from r1_mini.completion import Graded, grade
from r1_mini.data.source import FamilySource
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.rollout.generate import Sample
from r1_mini.system.files import read_jsonl, sha256
from r1_mini.train import rejection
from r1_mini.train.callbacks import Reporter
from r1_mini.train.rejection import RejectionStage
from r1_mini.train.stage import Job

SPECS = (FamilySource(family="sum", terms=(2, 3), digits=1, largest=9),)
TOKENIZER = make_tokenizer()


def encoded(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def samples_of(*texts, question="1+1+1"):
    """Completions after the prompt `7+8`, each token as likely as exp(-0.5)."""
    group = []
    for text, finish in texts:
        tokens = [*encoded(text), TOKENIZER.eos_token_id]
        graded = grade(families.solve(question), text, finish)
        group.append(Sample("7+8", text, tokens, finish, -0.5 * len(tokens), None, graded))
    return group


RIGHT = ("<think>1+1=2\n2+1=3</think><answer>3</answer>", "stop")
DIRECT, WRONG = (("<think></think><answer>3</answer>", "stop"), ("<think></think><answer>4</answer>", "stop"))
CUT = ("<think></think><answer>3</answer>", "length")


def test_right_completions_are_kept_as_often_as_drawn_or_once_and_learned_without_the_prompt():
    groups = [samples_of(RIGHT, RIGHT, WRONG, DIRECT, CUT), samples_of(RIGHT, question="2+1")]
    kept, metrics = rejection.kept_and_measured(groups, TOKENIZER, distinct=False)
    tokens = [*encoded(RIGHT[0]), TOKENIZER.eos_token_id]
    assert len(kept) == metrics["kept"] == 4
    assert kept[0] == kept[1] == {"input_ids": [*encoded("7+8"), *tokens], "labels": [-100] * 3 + tokens}
    found = [metrics[name] for name in ("accuracy", "entropy", "voice_worked")]
    assert found == pytest.approx([4 / 6, 0.5, 3 / 6])
    once, _ = rejection.kept_and_measured(groups, TOKENIZER, distinct=True)
    assert len(once) == 3  # of each problem


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "start"
    shape = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}
    save_checkpoint(make_model(TOKENIZER, **shape, seed=0), TOKENIZER, folder)
    return folder


@pytest.fixture
def all_right(monkeypatch):
    """Every completion counts as right: random weights never are."""
    monkeypatch.setattr(Graded, "correct", True)


def train(start, folder, **changes):
    trainer = {"per_device_train_batch_size": 4, "save_steps": 1, "learning_rate": 1e-2}
    settings = {"rounds": 3, "prompts": 5, "samples": 2, "max_tokens": 8, "trainer": trainer} | changes
    stage, work, out = RejectionStage(kind="rejection", **settings), folder / "work", folder / "out"
    for path in (work, out):
        path.mkdir(parents=True, exist_ok=True)
    stage.train(Job("rejection", stage, start, SPECS, "auto", 0, work, out, Console(quiet=True)))
    return sha256(out / "model.safetensors"), read_jsonl(out / "metrics.jsonl")


def test_rounds_follow_each_other_and_a_cut_one_goes_on_to_the_same_bits(start, tmp_path, monkeypatch, all_right):
    weights, rows = train(start, tmp_path / "whole")
    assert [row["step"] for row in rows] == list(range(1, 10))  # 10 completions in batches of 4, 3 rounds
    assert [row["round"] for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [row["step"] for row in rows if "kept" in row] == [1, 4, 7]
    assert weights != sha256(start / "model.safetensors")

    saved, real = [], rejection.save

    def cut(trainer, folder):
        saved.append(folder)
        if len(saved) == 2:
            raise KeyboardInterrupt
        real(trainer, folder)

    monkeypatch.setattr(rejection, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        train(start, tmp_path / "cut")
    again, rows_again = train(start, tmp_path / "cut")
    assert again == weights
    for row in (*rows, *rows_again):
        del row["seconds"]
    assert rows == rows_again
    assert [path.parent.name for path in saved] == ["round-000", "round-001", "round-001", "round-002"]


def test_an_older_checkpoint_is_removed_only_when_the_newer_one_is_whole(start, tmp_path, monkeypatch, all_right):
    """A kill between the two leaves a checkpoint to resume from."""
    seen, real = [], Reporter.on_save

    def on_save(self, args, state, control, **more):
        seen.append(sorted(path.name for path in Path(args.output_dir).glob("checkpoint-*")))
        real(self, args, state, control, **more)
        assert (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "files.json").exists()

    monkeypatch.setattr(Reporter, "on_save", on_save)
    train(start, tmp_path, rounds=1)  # three steps, save_total_limit 1
    assert seen == [["checkpoint-1"], ["checkpoint-1", "checkpoint-2"], ["checkpoint-2", "checkpoint-3"]]
    assert [path.name for path in (tmp_path / "work" / "round-000").glob("checkpoint-*")] == ["checkpoint-3"]


def test_a_round_without_a_right_completion_says_so(start, tmp_path):
    with pytest.raises(UserError, match=r"none of 10 completions is right in round 1; train the base longer"):
        train(start, tmp_path)
