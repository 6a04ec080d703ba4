"""Exams: whole, the same every time, also after an interruption, and never sampled twice."""

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from eval.analysis import metrics
from eval.exam import run
from eval.exam.run import examine
from eval.exam.samples import load_samples
from eval.exam.suite import load_suite
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.store import Store
from r1_mini.problems import families
from r1_mini.rollout.generate import generate
from r1_mini.rollout.params import SamplingParams
from r1_mini.rollout.tuning import TUNED
from r1_mini.system.files import read_jsonl
from tests.chat import chat_tokenizer

QUIET = Console(quiet=True)
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    save_checkpoint(make_model(tokenizer, **SHAPE, seed=0), tokenizer, folder)
    return folder


def suite(**changes):
    """12 rows are three problems a chunk: 7 chunks."""
    return load_suite("smoke", **{"limit": 20, "max_tokens": 12, "samples": 4, "rows": 12, **changes})


def sit(checkpoint, folder, voice=None, console=QUIET, reference=None, **changes):
    return examine(checkpoint, *suite(**changes), folder, Store(folder.parent), console, voice, reference)


def completions(folder):
    return [(folder / name).read_bytes() for name in ("samples.jsonl", "greedy.jsonl")]


def stop_after(monkeypatch, chunks):
    """Interrupt the exam in the middle of its chunk number `chunks`; returns the list of what is sampled."""
    whole, sampled = run.generate, []

    def generate(*arguments, **more):
        if len(sampled) == chunks:
            raise KeyboardInterrupt
        sampled.append(arguments[2])
        return whole(*arguments, **more)

    monkeypatch.setattr(run, "generate", generate)
    return sampled


def test_an_exam_leaves_one_row_per_completion_and_one_greedy_row_per_problem(whole):
    samples, greedy = (load_samples(whole / f"{part}.jsonl") for part in ("samples", "greedy"))
    assert samples.correct_PN.shape == (20, 4) and greedy.correct_PN.shape == (20, 1)
    assert greedy.settings["temperature"] == 0
    assert {path.name for path in whole.iterdir()} == {"samples.jsonl", "greedy.jsonl", "node.json"}


def test_samples_tell_how_likely_the_checkpoint_and_the_one_it_started_from_find_them(checkpoint, tmp_path):
    other, tokenizer = tmp_path / "model", make_tokenizer()
    surer = make_model(tokenizer, **SHAPE, seed=1)
    surer.lm_head.weight.data *= 20
    save_checkpoint(surer, tokenizer, other)
    measured = {}
    for name, reference in (("itself", checkpoint), ("other", other)):
        sit(checkpoint, tmp_path / name, reference=reference)
        measured[name] = load_samples(tmp_path / name / "samples.jsonl")
    assert metrics.kl(measured["itself"]) == pytest.approx(0, abs=1e-3)
    assert metrics.kl(measured["other"]) > 0.01
    assert metrics.entropy(measured["itself"]) == pytest.approx(math.log(len(tokenizer)), rel=0.01)  # near to uniform
    assert metrics.kl(load_samples(tmp_path / "other" / "greedy.jsonl")) is None  # not of the policy as it is


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """An exam in a store of its own."""
    folder = tmp_path_factory.mktemp("one") / "whole"
    sit(checkpoint, folder)
    return folder


@pytest.mark.parametrize("chunks,rows", [(0, 12), (3, 12), (8, 12), (3, 20), (3, 4), (3, 3)])
def test_an_interrupted_exam_samples_the_missing_chunks_and_ends_in_the_same_bytes(
    checkpoint, whole, tmp_path, monkeypatch, chunks, rows
):
    """7 chunks of samples and 2 of greedy answers; with 3 rows, of samples of one problem."""
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_after(patched, chunks)
        sit(checkpoint, tmp_path / "two" / "cut")
    sampled = stop_after(monkeypatch, 99)
    sit(checkpoint, tmp_path / "two" / "cut", rows=rows)
    again = {12: 9 - chunks, 20: 3 + 1, 4: 11 + 5, 3: 11 * 2 + 7}  # of 3 chunks, 3 problems each are not sampled again
    assert len(sampled) == again[rows]
    assert completions(tmp_path / "two" / "cut") == completions(whole)


@pytest.mark.parametrize(("rows", "chunks"), [(12, 4 + 1), (3, 20 * 2 + 4), (60, 1 + 1)])
def test_rows_are_filled_again_within_a_chunk_unless_a_group_is_larger(
    checkpoint, whole, tmp_path, monkeypatch, rows, chunks
):
    """80 samples in chunks of 24 and 20 greedy answers; with 3 rows, two chunks of each problem and 6 greedy answers."""
    monkeypatch.setitem(TUNED, "cpu", replace(TUNED["cpu"], refills=2))
    sampled = stop_after(monkeypatch, 99)
    sit(checkpoint, tmp_path / "exam", rows=rows)
    assert len(sampled) == chunks
    assert completions(tmp_path / "exam") == completions(whole)


def test_a_finished_exam_is_not_sampled_again_whatever_its_rows_and_its_folder(checkpoint, tmp_path, monkeypatch):
    note = sit(checkpoint, tmp_path / "exam")
    monkeypatch.setattr(run, "load_checkpoint", None)
    assert sit(checkpoint, tmp_path / "exam", rows=7) == note
    assert sit(checkpoint, tmp_path / "other", rows=1024) == note
    assert completions(tmp_path / "other") == completions(tmp_path / "exam")


@pytest.mark.parametrize(
    "changes,key", [({"seed": 5}, "suite.seed"), ({"limit": 10}, "number"), ({"voice": "worked"}, "voice")]
)
def test_samples_of_another_exam_are_moved_aside_and_not_lost(checkpoint, tmp_path, changes, key):
    sit(checkpoint, tmp_path / "exam")
    before, out = completions(tmp_path / "exam"), io.StringIO()
    sit(checkpoint, tmp_path / "exam", console=Console(file=out), **changes)
    (aside,) = tmp_path.glob("exam.*")
    assert completions(aside) == before != completions(tmp_path / "exam")
    assert f"exam: moved to {aside.name}, because {key} is" in out.getvalue()


@pytest.mark.parametrize("foreign", [False, True])
def test_a_forced_voice_begins_every_completion_and_does_not_end_at_once(checkpoint, tmp_path, foreign):
    if foreign:
        tokenizer, checkpoint = chat_tokenizer([], 300, template=None), tmp_path / "model"
        save_checkpoint(make_model(tokenizer, **SHAPE, seed=0), tokenizer, checkpoint)
    sit(checkpoint, tmp_path / "exam", voice="worked", limit=10)
    rows = read_jsonl(tmp_path / "exam" / "samples.jsonl")
    assert all(re.match("<think>(?!</think>)", row["completion"]) for row in rows)
    assert rows[0]["prompt"].startswith("A conversation between" if foreign else "User: ")


def test_thinking_that_the_prompt_begins_is_part_of_the_text(checkpoint):
    model, tokenizer = load_checkpoint(checkpoint)
    params, problems = SamplingParams(1, 5, temperature=0.0), [families.solve("1+1")]
    ((plain,),) = generate(model, tokenizer, problems, params)
    tokenizer.chat_template = tokenizer.chat_template.replace("%}Assistant:{% endif", "%}Assistant:<think>{% endif")
    ((begun,),) = generate(model, tokenizer, problems, params)
    assert begun.text.startswith("<think>") and not plain.text.startswith("<think><think>")
    ((worked,),) = generate(model, tokenizer, problems, replace(params, voice="worked"))
    assert worked.text.count("<think>") == begun.text.count("<think>")


def test_more_tokens_than_the_model_has_room_for_are_refused_with_the_number_that_fits(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"the context length of the model is 1024; 10\d\d would fit"):
        sit(checkpoint, tmp_path / "exam", max_tokens=1020)
