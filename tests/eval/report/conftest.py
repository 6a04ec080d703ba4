"""A synthetic exam for the page: samples with every kind of chain, and a summary with every field filled."""

import pytest
from pydantic import TypeAdapter

from eval.analysis.compare import Comparison
from eval.exam.samples import tabled
from eval.report import page
from r1_mini.completion import grade
from r1_mini.problems import families
from tests.eval import conftest as exams

NAMES = {"base": "base", "forced_worked": "base, forced", "rl": "after RL"}
GAIN = {"stops in time": 0.02, "gives a number": 0.0, "chooses to reason": 0.22, "reasons without a slip": 0.28}
GAIN |= {"guesses better": -0.01}
MANIFEST = {"command": "r1-mini run r1_zero", "machine": {"cpu": "two cores", "memory": "8 GB"}, "commit": "0123abc"}
MANIFEST |= {"versions": {"python": "3.11.9", "torch": "2.13.0"}}


def make_row(number, index, completion, **changes):
    """Problem `number` asks `number+1+1`, the problems in turn of depths 2 to 5; its answer is number + 2."""
    question = f"{number}+1+1"
    graded = grade(families.solve(question), completion, "stop")
    about = {"family": "sum" if number % 3 else "expression", "question": question, "answer": str(number + 2)}
    about |= {"formula": question, "completion": completion, "n_tokens": 20, "parsed": graded.answer}
    for name in ("correct", "lenient", "well_formed", "voice", "chain", "first_wrong"):
        about[name] = getattr(graded, name)
    return exams.make_row(f"p{number:04}", "1", index, 2 + number % 4, **about) | changes


def direct(number):
    """At once: right for every fourth problem."""
    return f"<think></think><answer>{number + (2 if number % 4 == 0 else 5)}</answer>"


def slipping(number):
    """Worked: a wrong last step in every second problem, and one taken back in every third."""
    first = f"{number}+1={number + 9}\nwait\n" if number % 3 == 0 else ""
    total = number + (2 if number % 2 == 0 else 3)
    return f"<think>{first}{number}+1={number + 1}\n{number + 1}+1={total}</think><answer>{total}</answer>"


def sound(number):
    """Worked and right, but for every twentieth problem."""
    total = number + (2 if number % 20 else 7)
    return f"<think>{number}+1={number + 1}\n{number + 1}+1={total}</think><answer>{total}</answer>"


WRITERS = {"base": direct, "forced_worked": slipping, "rl": sound}


def make_samples(n_problems=40, completion=None, n_inside=10_000, **changes):
    """All three columns, two samples per problem; `completion` takes the place of what RL writes.

    Problems from number `n_inside` on lie outside of training.
    """
    found = {}
    for column, write in WRITERS.items():
        rows = []
        for number in range(n_problems):
            text = completion if completion is not None and column == "rl" else write(number)
            about = {"axis": None if number < n_inside else "more operands", **changes}
            rows += [make_row(number, index, text, **about) for index in range(2)]
        found[column] = tabled(rows)
    return found


def about(estimate, **more):
    return {"estimate": estimate, "low": max(0.0, estimate - 0.02), "high": min(1.0, estimate + 0.02), **more}


def make_score(accuracy, tokens):
    wrong, ks = 1 - accuracy, (1, 2, 4, 8, 16)
    kinds = [(family, depth) for family in ("sum", "expression") for depth in (2, 3, 4, 5)]
    return {
        "seeds": [{"seed": 0, "pass_at_1": accuracy}],
        **{"pass_at_1": accuracy, "pass_at_1_interval": about(accuracy), "lenient": accuracy},
        "pass_at_k": [about(1 - wrong**k, k=k) for k in ks],
        "maj_at_k": [about(accuracy + 0.01 * k * wrong, k=k) for k in ks],
        "greedy": about(accuracy, n_problems=1200),
        **{"mean_tokens": tokens, "tokens_right": tokens - 1, "tokens_wrong": tokens + 1},
        **{"entropy": 0.05, "kl": None, "well_formed": 1.0, "truncated": 0.0},
        "voices": {"direct": 0.25, "worked": 0.5, "checked": 0.25, "none": 0.0},
        "chains": {
            **{"right_by_right": accuracy - 0.1, "right_by_wrong": 0.06, "right_without": 0.04},
            **{"wrong_by_right": 0.0, "wrong_by_wrong": 0.7 * wrong, "wrong_without": 0.3 * wrong},
        },
        "cells": [about(accuracy, family=family, axis=None, depth=depth, n_problems=300) for family, depth in kinds],
        "axes": {"more operands": about(accuracy / 2, n_problems=200)},
    }


def difference(before, after, estimate):
    ends = {"estimate": estimate, "low": estimate - 0.02, "high": estimate + 0.02}
    tested = {"p_value": 2e-16, "p_adjusted": 4e-16, "detectable": 0.012, "verdict": "shown"}
    return {"before": before, "after": after, **ends, **tested}


def compared(summary):
    """The comparison of a summary that a test has changed."""
    return TypeAdapter(Comparison).validate_python(summary)


def make_summary():
    """base 0.40, forced 0.62, after RL 0.91; as summary.json has it."""
    pair = {"before": "base", "after": "rl"}
    parts = [{"name": name, "estimate": part, "low": part - 0.01, "high": part + 0.01} for name, part in GAIN.items()]
    return {
        **{"title": "tiny-r1-zero", "recipe": "tiny-r1-zero", "suite": "arithmetic", "split": "test", "seed": 0},
        **{"families": ["sum", "expression"], "n_problems": 1200, "n_samples": 16},
        "decoding": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 160, "seed": 1},
        "names": dict(NAMES),
        "forced": {"forced_worked": "base"},
        "scores": {name: make_score(*of) for name, of in zip(NAMES, ((0.4, 12), (0.62, 33), (0.91, 36)), strict=True)},
        "comparisons": [
            difference("base", "rl", 0.51),
            difference("forced_worked", "rl", 0.29),
            difference("base", "forced_worked", 0.22),
        ],
        "gain": {**pair, "parts": parts, "form": 0.0},
        "sharpened": {
            **{**pair, "n": 16, "leads": True, "crossing": None, "bound": 0.171},
            **{"n_problems": 1200, "n_solved_anew": 12, "n_lost": 3},
        },
        "seconds": {"base": 250.0, "grpo": 104.0, "exam": 12.0, "total": 366.0},
        "checkpoints": {"01-base": {"model.safetensors": "ab" * 32}, "02-grpo": {"model.safetensors": "cd" * 32}},
    }


def make_curves(steps=40):
    """Metrics of two stages; the second logs nothing at step 2, and its score on dev at every tenth."""
    fields = ("reward", "accuracy", "length", "length_wrong", "voice_worked")
    rows = [{"step": n} | dict.fromkeys(fields, None if n == 2 else 0.5 + 0.01 * n) for n in range(1, steps + 1)]
    for row in rows[::10]:
        row["dev_pass_at_1"] = 0.7
    return {"base": [{"step": step, "loss": 1 / step} for step in range(1, steps + 1)], "grpo": rows}


def kept_row(step, problem, sample, text, finish="stop", **changes):
    """A line of rollouts.jsonl; problem 0 asks 45-29+10, problem 1 45-29+11."""
    question = f"45-29+{10 + problem}"
    graded = grade(families.solve(question), text, finish)
    rewards = {"accuracy": float(graded.correct), "format": float(graded.well_formed)}
    return {
        **{"step": step, "problem": problem, "sample": sample, "family": "sum", "depth": 2, "question": question},
        **{"right": str(26 + problem), "prompt": f"User: {question}", "text": text, "finish": finish, "tokens": 31},
        **{"correct": graded.correct, "well_formed": graded.well_formed, "voice": graded.voice, "chain": graded.chain},
        "steps": graded.steps and [[step.text, step.verdict] for step in graded.steps],
        **{"reward": rewards["accuracy"] + 0.1 * rewards["format"], "rewards": rewards},
        **changes,
    }


def make_kept(text=None):
    """Two problems, four completions each: at step 0 all are direct and wrong, at 20 two slip, at 40 all are right.

    `text` takes the place of all completions of problem 0.
    """
    rows = []
    for step, n_right in ((0, 0), (20, 2), (40, 4)):
        for problem in range(2):
            for sample in range(4):
                total = 26 + problem + (10 if sample >= n_right else 0)
                slip = "45-29=26\nwait\n" if sample == 1 else ""
                thinking = f"{slip}45-29=16\n16+{10 + problem}={total}" if step else ""
                own = f"<think>{thinking}</think><answer>{total}</answer>"
                rows.append(kept_row(step, problem, sample, own if problem or text is None else text))
    return rows


@pytest.fixture
def summary():
    return make_summary()


@pytest.fixture
def render(summary):
    """The page of samples, with changes to the summary; without curves it takes half the time."""

    def rendered(samples, curves=None, kept=None, **changes):
        training = page.Training(curves or {}, kept=kept or {})
        return page.render_exam(compared(summary | changes), samples, training, MANIFEST)

    return rendered
