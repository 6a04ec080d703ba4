"""A model card from a run's own numbers, and the run's last checkpoint on the Hub with it."""

import json
from importlib.resources import files
from pathlib import Path

from jinja2 import StrictUndefined, Template
from rich.console import Console

from eval.analysis.columns import is_run
from eval.analysis.compare import Comparison
from eval.exam.columns import Lineup
from eval.report import words
from r1_mini.config.yaml_file import dump, read_mapping
from r1_mini.errors import UserError


def card(run: Path) -> str:
    """The card of a run's last checkpoint: Markdown with the Hub's front matter. UserError if the run has no exam."""
    if not is_run(run):
        raise UserError("no run folder", where=str(run), fix="give the folder that r1-mini run has written")
    if not (run / "summary.json").is_file():
        raise UserError("no summary.json", where=str(run), fix="run the recipe to its end")
    summary, recipe = Comparison.read(run / "summary.json"), read_mapping(run / "recipe.yaml")
    stages = [stage["kind"] for stage in recipe["stages"]]
    lineup = Lineup.read(run / "eval" / summary.suite)
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"type": "r1-mini", "name": f"{summary.suite} ({summary.split})"},
        "metrics": [{"type": "pass@1", "value": round(100 * summary.scores[lineup.final].pass_at_1, 1)}],
    }
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["r1-mini", "trl", *dict.fromkeys(stages)],
        **({"base_model": recipe["model"]} if recipe.get("model") else {}),
        "model-index": [{"name": summary.title, "results": [result]}],
    }
    text = files("eval.export").joinpath("card.md.jinja").read_text("utf-8")
    template = Template(text, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    written: str = template.render(
        front=dump(front),
        summary=summary,
        words=words,
        stages=stages,
        recipe=(run / "recipe.yaml").read_text("utf-8"),
        manifest=json.loads((run / "manifest.json").read_text("utf-8")),
    )
    return written


def push(run: Path, repo: str, private: bool, console: Console) -> None:
    """Put the run's last checkpoint and its card into a model repository of the Hub; it is created if need be.

    UserError if there is no network, no token, or no right to write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    text = card(run)
    lineup = Lineup.read(run / "eval" / Comparison.read(run / "summary.json").suite)
    checkpoint = run / lineup.columns[lineup.final].stage
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=checkpoint, ignore_patterns=["node.json"])
        api.upload_file(repo_id=repo, path_or_fileobj=text.encode(), path_in_repo="README.md")
    except (OSError, HTTPError, HFValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        fix = "check the name and the network, and log in with `hf auth login` or HF_TOKEN"
        raise UserError(f"not pushed ({reason})", where=repo, fix=fix) from None
    console.print(f"{checkpoint} and its card are in {repo}")
