from pathlib import Path

import pytest

from tests.eval.analysis.coverage import BEYOND, SETTINGS, label, simulate

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


def test_documented_coverage_is_that_of_these_settings():
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    lines = [line.removeprefix("| ") for line in lines if line.startswith(("| score", "| diff"))]
    rows = {line.rsplit(" | ", 4)[0]: line.split(" | ") for line in lines}
    assert list(rows) == [label(setting) for setting in SETTINGS + BEYOND]
    for setting in TESTED:
        assert float(rows[label(setting)][7]) == pytest.approx(100 * simulate(setting).coverage, abs=0.3)
