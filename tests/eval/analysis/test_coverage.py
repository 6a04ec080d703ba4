from pathlib import Path

import numpy as np
import pytest

from eval.analysis.compare import differences
from tests.eval.analysis.coverage import BEYOND, EVEN, SETTINGS, UNEVEN, label, shifted, simulate

pytestmark = pytest.mark.slow
DOCUMENT = Path(__file__).parents[3] / "docs" / "COVERAGE.md"
TESTED = [
    each for place, each in enumerate(SETTINGS) if each.seeds == 1 or (place % 3 == 0 and each.problems == 100)
]  # seeds take a second each
WITHOUT_GAIN = [setting for setting in TESTED if setting.claim == "difference" and not setting.gain]


@pytest.mark.parametrize("setting", TESTED, ids=label)
def test_95_percent_intervals_hold_the_truth_in_93_to_97_percent_of_exams(setting):
    assert 0.93 <= simulate(setting).coverage <= 0.97


@pytest.mark.parametrize("setting", WITHOUT_GAIN, ids=label)
def test_at_most_5_percent_of_exams_without_a_gain_show_one(setting):
    assert simulate(setting).shown <= 0.05


GRAPH = {  # stage -> what it starts from, and what it adds to the log-odds
    "same": ("base", 0.0),
    "helps": ("base", 0.5),
    "same again": ("helps", 0.0),
    "harms": ("helps", -0.5),
    "repairs": ("harms", 0.5),
}


@pytest.mark.parametrize("spread", [UNEVEN, EVEN], ids=str)
def test_each_edge_of_a_graph_is_given_its_own_verdict_in_exams_of_known_truth(spread):
    """As many problems and samples as r1.yaml's exam has; a stage that changes nothing is told apart in 5 % of exams."""
    exams, rng, wrong = 500, np.random.default_rng(0), 0
    pairs = [(start, stage) for stage, (start, _) in GRAPH.items()]
    truth = ["worse" if gain < 0 else "shown" if gain > 0 else "not shown" for _, gain in GRAPH.values()]
    for _ in range(exams):
        chance_P, shifts = rng.beta(*spread, size=600), {"base": 0.0}
        for stage, (start, gain) in GRAPH.items():
            shifts[stage] = shifts[start] + gain
        scores = {stage: rng.binomial(4, shifted(chance_P, shift))[None] / 4 for stage, shift in shifts.items()}
        verdicts = [each.verdict for each in differences(scores, pairs)]
        assert [verdicts[edge] for edge in (1, 3, 4)] == ["shown", "worse", "shown"]
        wrong += verdicts != truth
    assert wrong / exams <= 0.07  # 0.05, and two standard errors


def test_documented_coverage_is_that_of_these_settings():
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    lines = [line.removeprefix("| ") for line in lines if line.startswith(("| score", "| diff"))]
    rows = {line.rsplit(" | ", 4)[0]: line.split(" | ") for line in lines}
    assert list(rows) == [label(setting) for setting in SETTINGS + BEYOND]
    for setting in TESTED:
        assert float(rows[label(setting)][7]) == pytest.approx(100 * simulate(setting).coverage, abs=0.3)
