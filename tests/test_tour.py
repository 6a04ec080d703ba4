"""docs/tour.ipynb is a program: it runs, and what its text says is so."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from safetensors.torch import load_file

from r1_mini import Run, load_recipe
from r1_mini.system.files import read_jsonl

FILE = Path(__file__).parent.parent / "docs" / "tour.ipynb"
TOUR = nbformat.read(FILE, as_version=4)
CODE = [cell for cell in TOUR.cells if cell.cell_type == "code"]
TEXT = "\n".join(cell.source for cell in TOUR.cells if cell.cell_type == "markdown")


def printed(cells):
    """All text of the cells' outputs, without that of HTML and images."""
    outputs = [output for cell in cells for output in cell.outputs]
    return "\n".join(each.get("text") or each.data["text/plain"] for each in outputs)


def test_it_has_at_most_twelve_cells_of_code_each_with_its_output_and_nothing_of_a_machine():
    nbformat.validate(TOUR)
    assert len(CODE) <= 12 and all(cell.outputs for cell in CODE)
    assert {output.get("name", "stdout") for cell in CODE for output in cell.outputs} == {"stdout"}
    assert not re.search(r"""(^|[\s"'(=])(/|~|[A-Z]:\\)\w|warning|\bfile://""", printed(CODE), re.I | re.M)
    assert set(TOUR.metadata) == {"kernelspec", "language_info"} and not any(cell.metadata for cell in TOUR.cells)
    assert FILE.stat().st_size < 100_000


def test_the_pages_it_links_to_and_the_recipe_it_names_are_there():
    pages = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(pages) >= 5 and all((FILE.parent / page).is_file() for page in pages)
    assert load_recipe("r1_zero").name == "tiny-r1-zero"


@pytest.mark.slow
def test_every_cell_runs_and_what_the_text_says_holds(tmp_path):
    fresh = nbformat.read(FILE, as_version=4)
    NotebookClient(fresh, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell for cell in fresh.cells if cell.cell_type == "code"]
    assert {output.get("name", "stdout") for cell in cells for output in cell.outputs} == {"stdout"}
    said = printed(cells)
    assert len(re.findall(r" train   steps: \S", said)) == 4
    assert "The answer comes from the chain" in said and "Asked once, the base gets" in said
    assert "pages: runs/tour/report.html runs/tour-dev/report.html" in said
    tour = Run(tmp_path / "runs" / "tour")
    assert all((tour.path / name).is_file() for name in ("log.txt", "report.html"))
    weights = load_file(tour.stages["01-base"] / "model.safetensors").values()
    assert f"{sum(each.numel() for each in weights) / 1e6:.2f} million weights and 16 problems a step" in TEXT
    settings = load_recipe(str(tour.path / "recipe.yaml")).stages[1].trainer
    assert settings["per_device_train_batch_size"] / settings["num_generations"] == 16
    curve = tour.metrics("grpo")
    assert curve["accuracy"].iloc[-1] > curve["accuracy"].iloc[0] + 0.2
    assert curve["voice_worked"].iloc[-1] > curve["voice_worked"].iloc[0] + 0.4
    base, forced, cooled, rl = (tour.summary.scores[key].pass_at_1 for key in tour.summary.names)
    assert rl > base + 0.3 and forced - base > (rl - base) / 2 and cooled > rl - 0.02
    assert {row["split"] for row in read_jsonl(next((tmp_path / "runs" / "tour-dev").glob("*/samples.jsonl")))} == {
        "dev"
    }
