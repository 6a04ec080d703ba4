"""The key that decides is named, whatever the others do."""

import random

import pytest

from eval.sweep.importance import FEWEST, importances
from eval.sweep.spec import Range

SPACE = {
    "grpo.trainer.learning_rate": Range(low=1e-4, high=1e-2, log=True),
    "grpo.trainer.loss_type": Range(choices=["dapo", "grpo"]),
    "grpo.trainer.beta": Range(low=0.0, high=0.2, when={"grpo.trainer.loss_type": ["grpo"]}),
}


def trials(score, count=60):
    rng = random.Random(0)
    for _ in range(count):
        changes = {
            "grpo.trainer.learning_rate": 10 ** rng.uniform(-4, -2),
            "grpo.trainer.loss_type": rng.choice(["dapo", "grpo"]),
        }
        if changes["grpo.trainer.loss_type"] == "grpo":
            changes["grpo.trainer.beta"] = rng.uniform(0, 0.2)
        yield changes, score(changes) + rng.gauss(0, 0.01)


def by_rate(changes):
    return changes["grpo.trainer.learning_rate"] * 100


def by_loss(changes):
    return float(changes["grpo.trainer.loss_type"] == "dapo")


@pytest.mark.parametrize("score,key", [(by_rate, "learning_rate"), (by_loss, "loss_type")])
@pytest.mark.parametrize("maximize", [True, False])
def test_what_the_score_depends_on_comes_first(score, key, maximize):
    found = importances(SPACE, list(trials(score)), maximize)
    assert next(iter(found)) == f"grpo.trainer.{key}"
    assert found[f"grpo.trainer.{key}"] > 0.6  # beta goes with loss_type
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == set(SPACE)


def test_nothing_is_said_of_few_trials_one_key_or_equal_scores():
    some = list(trials(by_rate))
    assert importances(SPACE, some[: FEWEST - 1], True) == {}
    assert importances({"grpo.trainer.learning_rate": SPACE["grpo.trainer.learning_rate"]}, some, True) == {}
    assert importances(SPACE, [(changes, 0.5) for changes, _ in some], True) == {}
