"""The DeepSeek-R1 recipe in miniature: base model, GRPO on rule rewards, and the exam beside it.

`from r1_mini import load_recipe, run` is the Python API, `api.py`.
"""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1_mini.api import (
        Exam,
        Finding,
        Inspection,
        Run,
        UserError,
        compare,
        diagnose,
        evaluate,
        inspect,
        load_recipe,
        run,
        sample,
    )

__all__ = [
    "Exam",
    "Finding",
    "Inspection",
    "Run",
    "UserError",
    "compare",
    "diagnose",
    "evaluate",
    "inspect",
    "load_recipe",
    "run",
    "sample",
]


def __getattr__(name: str) -> Any:
    """Import the API when a name of it is first asked for: with torch it takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'r1_mini' has no attribute '{name}'")
    with warnings.catch_warnings(action="ignore"):  # tqdm's, in a notebook without widgets
        from r1_mini import api

    return getattr(api, name)
