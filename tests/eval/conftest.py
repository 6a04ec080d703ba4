"""A whole run folder made of hand-written samples: base, base forced to work, and RL on the same problems."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]
MANIFEST = {
    "seed": 3,
    "commit": "0123abc",
    "machine": {"cpu": "two cores", "memory": "8 GB"},
    "versions": {"python": "3.11.9", "torch": "2.13.0"},
    "stages": {
        "01-base": {"sha256": {"config.json": "aa", "model.safetensors": "bb"}},
        "02-grpo": {"sha256": {"config.json": "aa", "model.safetensors": "cc"}},
    },
}
SECONDS = {"base": 250.0, "grpo": 104.0, "exam": 12.0, "total": 366.0}


def make_sample(key: str, correct: bool, index: int = 0, depth: int = 2, **changes: Any) -> dict[str, Any]:
    answer = "3" if correct else "4"
    row = {
        "key": key,
        "family": "sum",
        "difficulty": {"depth": depth, "digits": 1},
        "split": "test",
        "question": "1+1+1",
        "answer": "3",
        "prompt": "User: 1+1+1\nAssistant:",
        "completion": f"<think>1+1=2\n2+1={answer}</think><answer>{answer}</answer>",
        "n_tokens": 20,
        "finish": "stop",
        "parsed": answer,
        "correct": correct,
        "well_formed": True,
        "voice": "worked",
        "rewards": {"accuracy": float(correct)},
        "sample_index": index,
        "model": "model",
        "seed": 7,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 64,
    }
    return row | changes


def make_exam(correct: dict[str, str], depths: dict[str, int], **changes: Any) -> Rows:
    """Rows from marks: {"a": "10"} is problem a with its first sample right and its second wrong."""
    return [
        make_sample(key, mark == "1", index, depths[key], **changes)
        for key, marks in correct.items()
        for index, mark in enumerate(marks)
    ]


def write_run(run: Path, exams: dict[str, Rows]) -> Path:
    (run / "recipe.yaml").write_text("name: tiny\nseed: 3\n")
    (run / "manifest.json").write_text(json.dumps(MANIFEST))
    for name, rows in exams.items():
        folder = run / "eval" / "arithmetic" / name
        folder.mkdir(parents=True)
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.fixture
def sample() -> Callable[..., dict[str, Any]]:
    return make_sample


@pytest.fixture
def exam() -> Callable[..., Rows]:
    return make_exam


@pytest.fixture
def write() -> Callable[[Path, dict[str, Rows]], Path]:
    return write_run


@pytest.fixture
def seconds() -> dict[str, float]:
    return dict(SECONDS)


@pytest.fixture
def exams() -> dict[str, Rows]:
    """Four problems, two samples each; d has one operation. Depth >= 2: base 1/6, forced 3/6, RL 5/6."""
    depths = {"a": 2, "b": 2, "c": 3, "d": 1}
    base = make_exam({"a": "10", "b": "00", "c": "00", "d": "11"}, depths, n_tokens=10, voice="direct")
    forced = make_exam({"a": "11", "b": "10", "c": "00", "d": "11"}, depths)
    rl = make_exam({"a": "11", "b": "11", "c": "10", "d": "10"}, depths, n_tokens=30)
    return {"base": base, "base-forced": forced, "rl": rl}


@pytest.fixture
def large_exams() -> dict[str, Rows]:
    """Forty problems of depths 2 to 5 in turn, two samples each: base 0.25, forced 0.5, RL 1."""
    depths = {f"p{number:02}": 2 + number % 4 for number in range(40)}
    base = make_exam({key: "10" if depth < 4 else "00" for key, depth in depths.items()}, depths, n_tokens=10)
    forced = make_exam(dict.fromkeys(depths, "01"), depths)
    rl = make_exam(dict.fromkeys(depths, "11"), depths, n_tokens=30)
    return {"base": base, "base-forced": forced, "rl": rl}
