"""A model card from a run's own numbers, and the run's last checkpoint on the Hub with it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.analysis.columns import RL, is_run
from eval.report import words
from r1_mini.config.yaml_file import dump, read_mapping
from r1_mini.errors import UserError


def card(run: Path) -> str:
    """The card of a run's last checkpoint, Markdown with the Hub's front matter; UserError if the run has no exam."""
    if not is_run(run):
        raise UserError("no run folder", where=str(run), fix="give the folder that r1-mini run has written")
    try:
        summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError("no summary.json", where=str(run), fix="run the recipe to its end") from None
    recipe, manifest = read_mapping(run / "recipe.yaml"), json.loads((run / "manifest.json").read_text("utf-8"))
    stages = [stage["kind"] for stage in recipe["stages"]]
    score = summary["scores"][RL if RL in summary["scores"] else next(iter(summary["scores"]))]
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["r1-mini", "trl", *dict.fromkeys(stages)],
        **({"base_model": recipe["model"]} if recipe.get("model") else {}),
        "model-index": [_index(summary, score)],
    }
    said = [f"* {sentence}" for sentence in words.sentences(summary)]
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in (summary["seconds"] or {}).items())
    lines = [
        f"---\n{dump(front)}---",
        f"# {summary['title']}",
        f"Trained with r1_mini: {', then '.join(stages)}. Seed {summary['seed']}; {seconds}, on "
        f"{manifest['machine']['cpu']}.",
        f"## Exam\n\n{summary['suite']}: {words.exam(summary)}.\n\n{_table(summary)}",
        "\n".join(said),
        f"## Recipe\n\n```yaml\n{(run / 'recipe.yaml').read_text(encoding='utf-8')}```",
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items() if version)
        + ".",
    ]
    return "\n\n".join(lines) + "\n"


def push(run: Path, repo: str, private: bool, console: Console) -> None:
    """The run's last checkpoint and its card into a model repository of the Hub, which is made if need be.

    UserError if there is no network, no token, or no right to write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    text = card(run)
    checkpoint = sorted(path.parent for path in run.glob("[0-9][0-9]-*/stage.json"))[-1]
    api = HfApi()
    try:
        with tempfile.TemporaryDirectory() as folder:
            readme = Path(folder) / "README.md"
            readme.write_text(text, encoding="utf-8")
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=checkpoint, ignore_patterns=["stage.json"])
            api.upload_file(repo_id=repo, path_or_fileobj=readme, path_in_repo="README.md")
    except (OSError, HTTPError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        fix = "check the name and the network, and log in with `hf auth login` or HF_TOKEN"
        raise UserError(f"not pushed ({reason})", where=repo, fix=fix) from None
    console.print(f"{checkpoint} and its card are in {repo}")


def _table(summary: Mapping[str, Any]) -> str:
    """The exam's table as Markdown; its first cell says the unit."""
    rows = [["percent [95% interval]", *summary["names"].values()]]
    rows += [[label, *cells] for section in words.table(summary) for label, cells in section]
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _index(summary: Mapping[str, Any], score: Mapping[str, Any]) -> dict[str, Any]:
    """The headline in the Hub's form of results."""
    metrics = [{"type": "pass@1", "value": round(100 * score["pass_at_1"], 1)}]
    dataset = {"type": "r1-mini", "name": f"{summary['suite']} ({summary['split']})"}
    task = {"type": "text-generation"}
    return {"name": summary["title"], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
