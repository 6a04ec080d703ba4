"""Shared by all tests: a recipe to start from, a finished smoke run, and GPU tests skipped where there is no GPU."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tests.commands import Started, r1_mini

gc.disable()  # until all is imported, as in the command

TINY = """
name: tiny
problems:
  - {family: sum, terms: [2, 4], digits: 1}
stages:
  - kind: base
    trainer: {max_steps: 3, per_device_train_batch_size: 8, learning_rate: 1e-3}
  - kind: grpo
    trainer: {max_steps: 2, per_device_train_batch_size: 16, num_generations: 4}
"""

SMOKE = Path(__file__).parents[1] / "recipes" / "tiny" / "smoke.yaml"
SAVES = ("base.trainer.save_steps=40", "grpo.trainer.save_steps=4")


def arguments(out, *overrides):
    """Those of the command that runs the smoke recipe into `out`."""
    return ["run", str(SMOKE), *SAVES, *overrides, "--out", str(out)]


def run(out, *overrides):
    return r1_mini(*arguments(out, *overrides))


def run_until(there, out, *overrides):
    """Run the smoke recipe until a file or folder of the run is there, and kill it; EXAMINED: without the page."""
    return Started(*arguments(out, *overrides)).when((out / there).exists).signal(signal.SIGKILL).done()


EXAMINED = "eval/smoke/columns.json"
"""The last file of a run's exam; after it comes the page, which takes as long as a short training."""


SECRET = "hunter2hunter2"
KEEPS_SECRETS = {
    "": (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "WANDB_API_KEY",
        "OPENAI_API_KEY",
        "PGPASSWORD",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "postgresql://me:{}@host/db": ("DATABASE_URL",),
    "http://me:{}@127.0.0.1:1": ("HTTPS_PROXY", "HTTP_PROXY"),
}


@contextmanager
def secrets_around(home: Path) -> Iterator[None]:
    """A command's surroundings with a secret wherever one may be: variables, and files of a new HOME."""
    import matplotlib

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # listing the fonts again would take seconds
        patch.setenv("HOME", str(home))
        for form, names in KEEPS_SECRETS.items():
            for name in names:
                patch.setenv(name, form.format(SECRET))
        for name in (".netrc", ".pgpass", ".cache/huggingface/token", ".config/wandb/settings"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(f"machine huggingface.co login me password {SECRET}")
        yield


def leaks(folder: Path) -> list[Path]:
    """The files below a folder that hold the secret."""
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished run of the smoke recipe, and what it printed; all workers have it, and nobody may change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    out, printed = folder / "smoke" / "run", folder / "smoke.txt"
    with FileLock(folder / "smoke.lock"):
        if not printed.exists():
            with secrets_around(folder / "home"):
                done = run(out)
            assert done.stderr == ""
            printed.write_text(done.stdout)
    return out, printed.read_text()


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe's text to a file; with no text, a small one that is right."""

    def write(text: str = TINY) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # so that no worker is left alone at the end
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    from r1_mini.system.environment import kind

    if kind() != "cuda":
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
