"""The control of a run that begins with random weights: its base, trained on with other text of the same kind, for as
many optimizer steps as RL took. What it changes, any training on would change."""

from pathlib import Path

from rich.console import Console

from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.store import Store, checkpoint_hash
from r1_mini.system.logs import quiet
from r1_mini.train.sft import BaseStage, SftStage
from r1_mini.train.stage import Job


def control(recipe: Recipe, after: str, start: Path, folder: Path, store: Store, console: Console) -> Path | None:
    """The folder of the control for the stage `after`, trained if it is not there; None without a base stage.

    It has the base's last mixture of voices, its problems and its batches, and the default learning rate of `sft`.
    """
    base = recipe.nodes.get(recipe.root_of(after))
    if not isinstance(base, BaseStage):
        return None
    work = recipe.nodes[after].work()
    steps, batch = work.steps * work.rounds, base.fields["per_device_train_batch_size"]
    stage = SftStage.model_validate(
        {
            "kind": "sft",
            "voices": base.voices.model_dump(),
            "languages": base.languages.model_dump(),
            "wording": base.wording,
            "trainer": {"max_steps": steps, "per_device_train_batch_size": batch},
        }
    )
    problems, seed = recipe.problems_of(base), recipe.seed_of(base)
    identity = {
        "control": stage.VERSION,
        "settings": stage.model_dump(mode="json", exclude_defaults=True),
        "problems": [each.model_dump(mode="json") for each in problems],
        "seed": seed,
        "from": checkpoint_hash(start),
    }
    with store.open(identity, folder, console) as node:
        if not node.finished:
            job = Job("control", stage, start, problems, recipe.prompt, seed, node.scratch, node.work, console)
            with quiet(node.scratch / "log.txt"):
                stage.train(job)
    return folder
