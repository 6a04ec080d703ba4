import json
from itertools import combinations

import pytest
from rich.console import Console

from eval.exam.suite import load_suite
from eval.inspect import chains, patching, probes, said, tokens, tries, weights
from eval.inspect.case import AFTER, BEFORE, Case, Network
from eval.inspect.page import publish
from r1_mini.model.architecture import make_model
from tests.eval.inspect.small import TOKENIZER

EXPERIMENTS = {"said": said, "tries": tries, "chains": chains, "weights": weights, "tokens": tokens} | {
    "probes": probes,
    "patching": patching,
}


@pytest.fixture(scope="module")
def summary():
    """Every experiment on two networks of random weights, which have no gain and write no sound chain."""
    networks = {
        name: Network(make_model(TOKENIZER, seed=seed, hidden_size=16, layers=1, heads=2), TOKENIZER)
        for seed, name in enumerate((BEFORE, AFTER))
    }
    problems = [each.problem for each in load_suite("arithmetic", families=["sum"], limit=400)[1]]
    case = Case(networks, problems, problems, max_tokens=8, share=0.02)
    found = {
        name: each.table(json.loads(json.dumps(list(each.measure(case)))))
        for name, each in EXPERIMENTS.items()
        if name != "probes"
    }
    found["probes"] = probes.table(list(probes.measure(Case(networks, problems, problems, max_tokens=8))))
    return {
        "suite": "arithmetic",
        "problems": 400,
        "before": "a",
        "after": "b",
        "share": 1.0,
        "networks": list(networks),
        **found,
    }


def page(summary, names, folder):
    publish(
        {key: value for key, value in summary.items() if key not in EXPERIMENTS or key in names},
        folder,
        Console(quiet=True),
    )
    return (folder / "inspect.html").read_text()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_has_a_page_of_its_own(name, summary, tmp_path):
    others = page(summary, [], tmp_path)
    assert len(page(summary, [name], tmp_path)) > len(others) + 500


def test_a_page_has_what_was_measured_and_no_number_that_is_not_one(summary, tmp_path):
    whole = page(summary, list(EXPERIMENTS), tmp_path)
    for heading in (
        "only said",
        "Is anything new",
        "Is the chain used",
        "in the weights",
        "Which tokens",
        "known where",
        "used where",
    ):
        assert heading in whole
    assert "nan" not in json.dumps(summary).lower().replace("nannies", "")
    assert "None" not in whole and "nan" not in whole


def test_experiments_can_be_left_out_in_any_combination(summary, tmp_path):
    for names in combinations(EXPERIMENTS, 2):
        page(summary, names, tmp_path)
