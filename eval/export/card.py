"""A model card from a run's own numbers, and the run's last checkpoint on the Hub with it."""

from pathlib import Path

from rich.console import Console

from eval.analysis.compare import Comparison
from eval.exam.lineup import Lineup
from eval.report import story, words
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError, explained
from r1_mini.pipeline.store import NOTE, read_manifest
from r1_mini.system.files import example
from r1_mini.text import visible


def card(run: Path) -> tuple[str, Path]:
    """The card of a run's last checkpoint, Markdown with the Hub's front matter, and that checkpoint.

    UserError if the run has no exam.
    """
    if not (run / "summary.json").is_file() or not (run / "recipe.yaml").is_file():
        near = example(run, "summary.json", "recipe.yaml", otherwise="runs/tiny-r1-zero")
        raise UserError("no finished run", where=str(run), fix=f"give one, such as {near}")
    summary, recipe = Comparison.read(run / "summary.json"), read_mapping(run / "recipe.yaml")
    stages = [stage["kind"] for stage in recipe["stages"]]
    lineup = Lineup.read(run / "eval" / summary.suite)
    text = words.render(
        "export/card.md.jinja",
        summary=summary,
        final=lineup.final,
        model=recipe.get("model"),
        words=words,
        story=story,
        stages=stages,
        recipe=(run / "recipe.yaml").read_text("utf-8"),
        manifest=read_manifest(run),
    )
    return visible(text), run / lineup.columns[lineup.final].stage


def push(run: Path, repo: str, private: bool, dry_run: bool, console: Console) -> None:
    """Put the run's last checkpoint and its card into a model repository of the Hub; it is created if need be.

    A dry run prints what would be there, and needs no network. UserError if there is no network, no token, or no right
    to write there.
    """
    text, checkpoint = card(run)
    if dry_run:
        console.print(text, soft_wrap=True)
        console.print(f"{repo}/README.md: the card above", soft_wrap=True)
        for path in sorted(checkpoint.rglob("*")):
            if path.is_file() and path.name != NOTE:
                name, size = path.relative_to(checkpoint), path.stat().st_size
                console.print(f"{repo}/{name}: {size:,} bytes", soft_wrap=True)
        return
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    api = HfApi()
    fix = "check the name and the network, and log in with `hf auth login` or HF_TOKEN"
    with explained("not pushed", repo, fix, (OSError, HTTPError, HFValidationError)):
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=checkpoint, ignore_patterns=[NOTE])
        api.upload_file(repo_id=repo, path_or_fileobj=text.encode(), path_in_repo="README.md")
    console.print(f"{checkpoint} and its card are in {repo}")
