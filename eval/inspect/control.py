"""The control of a run: the network before training, trained on with other text of the kind that made it, for as many
optimizer steps. What it changes, any training on would change."""

from pathlib import Path

from rich.console import Console

from r1_mini.data.source import FamilySource
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.store import Store, checkpoint_hash
from r1_mini.system.logs import quiet
from r1_mini.train.sft import SftStage, SolutionStage
from r1_mini.train.stage import Job


def control(
    recipe: Recipe, before: str, after: str, start: Path, folder: Path, store: Store, console: Console
) -> Path | None:
    """The folder of the control for what was trained from the stage `before` to `after`, trained if it is not there.

    It has the voices, problems and batches of the last stage up to `before` that learned from worked solutions, and the
    default learning rate of `sft`; None if there is no such stage, or if its problems are not ours.
    """
    way = [recipe.nodes[name] for name in recipe.way_to(before) if name in recipe.nodes]
    taught = next((stage for stage in reversed(way) if isinstance(stage, SolutionStage)), None)
    if taught is None or not all(isinstance(each, FamilySource) for each in recipe.problems_of(taught)):
        return None
    trained = [recipe.nodes[name].work() for name in recipe.way_to(after) if name not in recipe.way_to(before)]
    problems, seed = recipe.problems_of(taught), recipe.seed_of(taught)
    batch = taught.fields["per_device_train_batch_size"]
    settings = taught.model_dump(include={"voices", "languages", "wording"})
    trainer = {"max_steps": sum(work.steps * work.rounds for work in trained), "per_device_train_batch_size": batch}
    stage = SftStage.model_validate({"kind": "sft", **settings, "trainer": trainer})
    identity = {
        "control": stage.VERSION,
        "settings": stage.model_dump(mode="json", exclude_defaults=True),
        "problems": [each.model_dump(mode="json") for each in problems],
        "prompt": recipe.prompt,
        "seed": seed,
        "from": checkpoint_hash(start),
    }
    with store.open(identity, folder, console) as node:
        if not node.finished:
            job = Job("control", stage, start, problems, recipe.prompt, seed, node.scratch, node.work, console)
            with quiet(node.scratch / "log.txt"):
                stage.train(job)
    return folder
