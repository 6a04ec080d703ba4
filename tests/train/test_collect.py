"""What a collect stage keeps, and that a stage learns from it."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from r1_mini.data.collected import Collected
from r1_mini.data.mix import draw
from r1_mini.errors import UserError
from r1_mini.problems import families
from r1_mini.problems.arithmetic import canonical_key, parse
from r1_mini.problems.problem import is_held_out
from r1_mini.train import collect
from r1_mini.train.collect import CollectStage, Keep, kept, states_held_out
from r1_mini.train.corpus import completion
from r1_mini.train.stage import Job
from tests.train.test_rejection import CUT, DIRECT, RIGHT, SPECS, WRONG, samples_of

SLIP = ("<think>1+1=3\n3+1=3</think><answer>3</answer>", "stop")
WORDS = ("<think>1 plus 1 is 2\n2 plus 1 is 3</think><answer>3</answer>", "stop")
MIXED = ("<think>1+1=2\n2 plus 1 is 3</think><answer>3</answer>", "stop")
ALL = samples_of(RIGHT, RIGHT, WRONG, DIRECT, CUT, SLIP, WORDS, MIXED)


@pytest.mark.parametrize(
    ("keep", "number", "taken"),
    [
        ({"distinct": False}, 6, {"wrong": 2}),
        ({}, 5, {"wrong": 2, "distinct": 1}),
        ({"sound": True}, 4, {"wrong": 2, "distinct": 1, "sound": 1}),
        ({"language": "signs"}, 3, {"wrong": 2, "distinct": 1, "language": 2}),
        ({"language": "words", "sound": True}, 2, {"wrong": 2, "sound": 1, "language": 3}),
        ({"longest": len(ALL[3].tokens)}, 1, {"wrong": 2, "longest": 5}),
        ({"most": 2}, 2, {"wrong": 2, "distinct": 1, "most": 3}),
    ],
)
def test_each_filter_takes_what_it_is_for_and_is_counted(keep, number, taken) -> None:
    passed, counts = kept([ALL], Keep(**keep))
    assert (len(passed), dict(counts)) == (number, taken)


def test_the_most_are_of_each_problem() -> None:
    passed, _ = kept([samples_of(RIGHT, DIRECT), samples_of(RIGHT, DIRECT, question="2+1")], Keep(most=1))
    assert [sample.graded.problem.question for sample in passed] == ["1+1+1", "2+1"]


def test_a_chain_that_states_a_held_out_problem_is_not_kept() -> None:
    held = next(text for n in range(99) if is_held_out(canonical_key(parse(text := f"{n}+1-2"))))
    free = next(text for n in range(99) if not is_held_out(canonical_key(parse(text := f"{n}+1-2"))))
    assert states_held_out(f"9+9=18\n{held}")
    assert states_held_out(held.replace("+", " plus "))
    assert states_held_out(f"<think>{held}=7</think><answer>7</answer>")
    assert states_held_out(f"It is\n{held}\n<answer>7</answer>")
    assert not states_held_out(f"{free}\n9+9=18\nwait")


def collected(tmp_path, monkeypatch, texts, times=1, **keep):
    """The folder that a collect stage fills when its problem is drawn so often, each time with these completions."""
    monkeypatch.setattr(collect, "load", lambda job: (None, None))
    monkeypatch.setattr(collect, "draw", lambda *given: iter([families.solve("1+1+1")] * times))
    monkeypatch.setattr(collect, "sampled", lambda *given: [samples_of(*texts)] * times)
    stage, out = CollectStage(kind="collect", problems=SPECS, prompts=times, keep=Keep(**keep)), tmp_path / "data"
    stage.train(Job("data", stage, None, SPECS, "auto", 0, tmp_path, out, Console(quiet=True)))
    return out


def test_what_is_collected_is_written_and_read_as_solutions(tmp_path: Path, monkeypatch) -> None:
    out = collected(tmp_path, monkeypatch, [RIGHT, RIGHT, WRONG])
    assert json.loads((out / "counts.json").read_text())["taken"] == {"wrong": 1, "distinct": 1}
    source = Collected(collected="data").read(out)
    (problem,) = source.listed("base")
    assert problem == replace(families.solve("1+1+1"), solution=RIGHT[0], steps=(), restated=(), inside=frozenset())
    drawn = draw([source], "base", 0)
    assert next(drawn) == next(drawn) == problem  # again and again
    assert completion(problem, "worked", "list", random.Random(0)) == RIGHT[0]
    assert source.content_hash() != Collected(collected="data").content_hash()


def test_a_problem_that_is_drawn_twice_is_one_problem(tmp_path: Path, monkeypatch) -> None:
    out = collected(tmp_path, monkeypatch, [RIGHT, DIRECT], times=2, most=2)
    counts = {"sampled": 2, "kept": 2, "taken": {"distinct": 2}}
    assert json.loads((out / "counts.json").read_text()) == counts


def test_if_nothing_is_kept_the_line_says_what_took_it(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"nothing is kept: wrong took 2, sound took 1; loosen `keep`"):
        collected(tmp_path, monkeypatch, [WRONG, CUT, SLIP], sound=True)
