from rich.console import Console

from eval.inspect.control import control
from r1_mini.pipeline.recipe import load
from r1_mini.pipeline.store import Store, read_note

RECIPE = """
name: three
problems: [{family: sum, terms: [2, 4], digits: 1}]
stages:
  - {kind: base, trainer: {max_steps: 3, per_device_train_batch_size: 8}}
  - {kind: grpo, trainer: {max_steps: 2, per_device_train_batch_size: 16, num_generations: 4}}
  - {kind: grpo, name: more, trainer: {max_steps: 3, per_device_train_batch_size: 16, num_generations: 4}}
"""


def trained(recipe, before, smoke, tmp_path):
    folder = tmp_path / "more-text"
    return folder, control(recipe, before, "more", smoke[0] / "01-base", folder, Store(tmp_path), Console(quiet=True))


def test_the_control_has_as_many_steps_as_all_stages_from_before_to_after(smoke, recipe_file, tmp_path):
    recipe = load(recipe_file(RECIPE))
    folder, found = trained(recipe, "01-base", smoke, tmp_path)
    assert found == folder and (folder / "model.safetensors").exists()
    fields = read_note(folder)["identity"]["settings"]["trainer"]
    assert fields["max_steps"] == 5 and fields["per_device_train_batch_size"] == 8


def test_a_network_that_nothing_of_ours_has_taught_has_no_control(smoke, recipe_file, tmp_path):
    recipe = load(
        recipe_file(
            RECIPE.replace(
                "{kind: base, trainer: {max_steps: 3, per_device_train_batch_size: 8}}",
                "{kind: sft, problems: [{jsonl: x.jsonl, solution: s}]}",
            ).replace("stages:", f"model: {smoke[0] / '01-base'}\nstages:")
        )
    )
    folder, found = trained(recipe, "01-sft", smoke, tmp_path)
    assert found is None and not folder.exists()
