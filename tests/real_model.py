"""SmolLM2-135M-Instruct for the tests, made once from a package of PyPI and kept from run to run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from recipes.laptop import smollm2


def real_model() -> Path:
    """The folder of the model, below $XDG_CACHE_HOME or ~/.cache; skips the tests where it cannot be had."""
    pytest.importorskip("gguf")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1_mini-tests"
    folder = cache / smollm2.PACKAGE.replace("==", "-")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        if not folder.is_dir():
            new = cache / "new"
            shutil.rmtree(new, ignore_errors=True)
            try:
                smollm2.make(new)
            except subprocess.CalledProcessError:
                pytest.skip(f"pip cannot download {smollm2.PACKAGE}")
            new.rename(folder)
    return folder
