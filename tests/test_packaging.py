"""What a wheel holds, and the private names of libraries that it needs."""

import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from r1_mini import cli
from r1_mini.config import packaged
from r1_mini.errors import UserError

REPOSITORY = Path(__file__).parents[1]


def install(source, folder):
    """Unpack the wheel into a folder, without anything else of this repository; built in `source`."""
    for name in ("r1_mini", "eval", "recipes"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:
        wheel.extractall(folder)


def call(installed, cwd, *arguments):
    """Standard output of `r1-mini` from the wheel, in a process that sees nothing else of ours."""
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import r1_mini, eval;"
        f"assert all(each.__file__.startswith({str(installed)!r}) for each in (r1_mini, eval));"
        "from r1_mini.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-I", "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_has_its_recipes_suites_and_pages_and_runs_without_the_repository(tmp_path):
    installed, here = tmp_path / "installed", tmp_path / "here"
    here.mkdir()
    install(tmp_path / "source", installed)
    data = (".yaml", ".css", ".jinja", ".js")
    tracked = subprocess.run(["git", "ls-files", "r1_mini", "eval"], cwd=REPOSITORY, capture_output=True, text=True)
    for name in (line for line in tracked.stdout.splitlines() if line.endswith(data)):
        assert (installed / name).is_file() or not (REPOSITORY / name).exists(), name
    assert [line.split()[0] for line in call(installed, here, "recipes").splitlines()] == list(packaged.recipes())
    assert call(installed, here, "recipes", "smoke") == (REPOSITORY / "recipes/tiny/smoke.yaml").read_text()
    short = ("base.trainer.max_steps=1", "grpo.trainer.max_steps=1")
    few = ("evaluate.limit=2", "evaluate.samples=1", "evaluate.columns=[base,grpo]")
    call(installed, here, "run", "smoke", *short, *few)
    assert [path.name for path in here.iterdir()] == ["runs"]
    assert [path.name for path in installed.rglob("cold_start.jsonl")] == ["cold_start.jsonl"]  # which r1 reads
    assert (here / "runs" / "tiny-smoke" / "report.html").stat().st_size > 0


def test_a_packaged_recipe_is_found_by_name_and_a_file_of_that_path_comes_first(tmp_path):
    assert packaged.find("r1_zero") == packaged.find("tiny/r1_zero") == REPOSITORY / "recipes/tiny/r1_zero.yaml"
    assert packaged.find("curriculum", "sweeps").parent.name == "sweeps"
    assert packaged.find("curriculum").parent.name == "tiny"
    (tmp_path / "smoke").touch()
    assert packaged.find("smoke", folder=tmp_path) == tmp_path / "smoke"
    with pytest.raises(UserError, match=r"^r1zero: no such file, and no packaged recipe .* did you mean 'r1_zero'"):
        packaged.find("r1zero")


def test_recipes_lists_each_with_what_it_is_about(capsys):
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list((REPOSITORY / "recipes").glob("*/*.yaml")))
    assert all(len(line.split(maxsplit=1)[1]) > 10 for line in lines)


@pytest.mark.slow
def test_extras_that_no_test_installs_admit_the_versions_that_are_pinned(tmp_path):
    """By pip's dry run, of a pip that reads the metadata of a wheel alone: vLLM's wheel has 315 MB."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras, pip = project["optional-dependencies"], [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    newer = subprocess.run([*pip, "--retries=0", "--timeout=10", "--target", tmp_path, "pip>=25"], capture_output=True)
    if newer.returncode:
        pytest.skip("no package index is reached")
    tested = {"dev", *Requirement(extras["dev"][0]).extras}
    asked = [each for name, packages in extras.items() if name not in tested for each in packages]
    options = ("--dry-run", "--ignore-installed", "--use-feature=fast-deps", "--report", tmp_path / "report.json")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([*pip, *options, *asked], env=environment, check=True, capture_output=True)
    made = [each["metadata"] for each in json.loads((tmp_path / "report.json").read_text())["install"]]
    assert {each["name"].replace("_", "-") for each in made} == {"reasoning-gym", "trackio", "vllm", "wandb"}
    pins = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines())
    ours = {Requirement(each).name for each in project["dependencies"]}
    needs = [(each["name"], Requirement(line)) for each in made for line in each["requires_dist"]]
    needs = [(who, need) for who, need in needs if need.name in ours]
    assert "transformers" in {need.name for _, need in needs}
    for who, need in needs:
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            assert need.specifier.contains(pins[need.name]), f"{who} wants {need}"


PRIVATE = {
    "trl.trainer.grpo_trainer": (
        "def _tokenize_prompts(", "def _calculate_rewards(", "def _generate_and_score_completions(",
        "def _compute_loss(", "def _get_per_token_logps_and_entropies(", "self._metrics =", "self._step = 0",
    ),
    "trl.trainer.utils": ("_CHUNKED_LOGPROB_CHUNK_SIZE =",),
    "transformers.configuration_utils": ("def _attn_implementation(",),
    "transformers.training_args": ("def world_size(", "def device(", "def n_gpu("),
}  # fmt: skip


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PRIVATE.items() for name in names])
def test_a_name_of_a_library_that_we_override_or_use_without_a_promise_is_still_there(module, name):
    """pyproject.toml holds TRL to the minor version that has them."""
    assert name in inspect.getsource(importlib.import_module(module))
