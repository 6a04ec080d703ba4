"""Which keys of a search space matter for a good score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from eval.sweep.spec import Range, as_choice

FEWEST = 8
"""Trials without which nothing is said."""
_BEST = 0.25
"""Share of the trials that count as good."""


def importances(
    space: Mapping[str, Range], trials: Sequence[tuple[Mapping[str, Any], float]], maximize: bool
) -> dict[str, float]:
    """Share of each key in what tells the best quarter of the trials from the rest, largest first; they sum to 1.

    PED-ANOVA (2304.10255), which takes keys that only some settings have. `trials`: values of the recipe's keys, score.
    Empty where there are not two keys, not `FEWEST` trials, or no difference between them.
    """
    if len(space) < 2 or len(trials) < FEWEST or len({score for _, score in trials}) < 2:
        return {}
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for changes, score in trials:
        params = {key: as_choice(value) for key, value in changes.items()}
        distributions = {key: space[key].distribution() for key in params}
        study.add_trial(create_trial(params=params, distributions=distributions, value=score))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
