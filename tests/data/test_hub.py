"""Data sets in folders, in memory and streamed, and what is said when one cannot be had. Nothing here needs a network."""

import json
import random
from itertools import islice

import datasets
import pytest
from datasets import Dataset, DatasetDict

from r1_mini.data import hub
from r1_mini.data.hub import StreamedTable
from r1_mini.data.mix import draw, source_of
from r1_mini.errors import UserError
from r1_mini.problems.problem import split_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def rows(first: int, n: int):
    return [{"question": f"What is item {i}?", "answer": str(i)} for i in range(first, first + n)]


@pytest.fixture(params=["files", "parquet", "saved"])
def folder(request, tmp_path):
    """A data set with splits of its own; two of its 30 test questions are also in train."""
    parts = {"train": rows(0, 120), "test": rows(118, 30)}
    if request.param == "saved":
        DatasetDict({name: Dataset.from_list(part) for name, part in parts.items()}).save_to_disk(tmp_path / "set")
    else:
        (tmp_path / "set").mkdir()
        for name, part in parts.items():
            if request.param == "parquet":
                Dataset.from_list(part).to_parquet(tmp_path / "set" / f"{name}.parquet")
            else:
                text = "".join(json.dumps(row) + "\n" for row in part)
                (tmp_path / "set" / f"{name}.jsonl").write_text(text)
    return str(tmp_path / "set")


def test_a_test_split_of_its_own_is_the_test_and_the_rest_teaches_without_what_is_in_both(folder) -> None:
    table = source_of({"dataset": folder})
    assert table.name == "set"
    assert [problem.answer for problem in table.listed("test")] == [str(i) for i in range(118, 148)]
    taught = [*table.listed("train"), *table.listed("dev")]
    assert sorted(int(problem.answer) for problem in taught) == list(range(118))
    assert {split_of(problem.key) for problem in table.listed("dev")} == {"dev"}
    assert {split_of(problem.key) for problem in table.listed("train")} == {"base", "train", "test"}
    note = f"{folder}: 2 training questions are also in its own test split and are left out"
    assert table.notes() == [note]


def test_splits_say_what_teaches_and_what_is_asked(folder) -> None:
    turned = source_of({"dataset": folder, "splits": {"train": "test", "test": "train"}})
    assert len(turned.listed("test")) == 120
    alone = source_of({"dataset": folder, "splits": {"train": None}})
    assert len(alone.listed("test")) == 30
    assert not alone.listed("train")
    hashed = source_of({"dataset": folder, "splits": {"train": "test"}})
    assert sum(len(hashed.listed(split)) for split in ("train", "dev", "test")) == 30
    assert {split_of(problem.key) for problem in hashed.listed("test")} <= {"test"}


def test_a_split_that_is_not_there_is_said(folder) -> None:
    for splits, message in (
        ({"test": "tset"}, f"{folder}: no split is called 'tset'; did you mean 'test'?"),
        ({"train": "validation"}, f"{folder}: no split is called 'validation'; known: test, train"),
    ):
        with pytest.raises(UserError) as error:
            source_of({"dataset": folder, "splits": splits}).content_hash()
        assert str(error.value) == message


def test_a_column_that_is_not_there_is_said_with_split_and_row(folder) -> None:
    with pytest.raises(UserError) as error:
        source_of({"dataset": folder, "answer": "answers"}).content_hash()
    assert str(error.value) == f"{folder}, split test, row 1: no column is called 'answers'; did you mean 'answer'?"


def test_a_streamed_set_has_the_splits_of_the_whole_one(folder) -> None:
    whole, streamed = source_of({"dataset": folder}), source_of({"dataset": folder, "stream": True})
    assert isinstance(streamed, StreamedTable)
    assert source_of(streamed.model_dump(mode="json")) == streamed
    assert streamed.listed("train") is None
    for split in ("dev", "test"):
        keys = {problem.key for problem in whole.listed(split)}
        asked = streamed.exam(split, len(keys), seed=0)
        assert {problem.key for problem in asked} == keys
    taught = {problem.key for problem in islice(draw([streamed], "train", 0), 200)}
    assert taught >= {problem.key for problem in whole.listed("train")}


def test_a_stream_is_seeded_and_shuffled_and_begins_again(folder) -> None:
    streamed = source_of({"dataset": folder, "stream": True})
    first = [problem.key for problem in islice(draw([streamed], "train", 0), 250)]
    assert first == [problem.key for problem in islice(draw([streamed], "train", 0), 250)]
    assert first != [problem.key for problem in islice(draw([streamed], "train", 1), 250)]
    size = len(set(first))
    assert len(set(first[:size])) == size
    assert first[size : 2 * size] != first[:size]
    assert streamed.draw("train", random.Random(0)).key in first


def test_a_stream_with_too_many_answers_that_cannot_be_read_is_refused(folder, monkeypatch) -> None:
    monkeypatch.setattr(hub, "PROBED", 50)
    streamed = source_of({"dataset": folder, "stream": True, "extract": "boxed"})
    with pytest.raises(UserError, match="judge 'number' cannot read 50 of 50 right answers"):
        streamed.content_hash()


def test_a_set_with_one_split_saved_to_disk_is_split_by_the_hash(tmp_path) -> None:
    Dataset.from_list(rows(0, 100)).save_to_disk(tmp_path / "one")
    table = source_of({"dataset": str(tmp_path / "one")})
    assert {split_of(problem.key) for problem in table.listed("test")} == {"test"}
    assert sum(len(table.listed(split)) for split in ("train", "dev", "test")) == 100


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (
            ConnectionError("Couldn't reach 'own/set' on the Hub (LocalEntryNotFoundError)"),
            "own/set: cannot be loaded: Couldn't reach 'own/set' on the Hub (LocalEntryNotFoundError); "
            "check the id and the network, set HF_HOME to a cache that holds it, or give a local folder",
        ),
        (
            datasets.exceptions.DatasetNotFoundError(
                "Dataset 'own/set' is a gated dataset on the Hub.\nVisit the page."
            ),
            "own/set: cannot be loaded: Dataset 'own/set' is a gated dataset on the Hub. Visit the page.; "
            "accept its terms on huggingface.co and set HF_TOKEN, or give a local folder with its files",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['main', 'socratic']"),
            "own/set: cannot be loaded: Config name is missing. Please pick one among: ['main', 'socratic']; set `config`",
        ),
    ],
)
def test_a_set_that_cannot_be_had_is_one_line(monkeypatch, raised: Exception, message: str) -> None:
    def load(*args, **kwargs):
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError) as error:
        source_of({"dataset": "own/set"}).content_hash()
    assert str(error.value) == message


def test_a_folder_that_is_not_there_or_empty_or_a_file_is_said(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "empty").mkdir()
    for place, what in (
        ("./data/none", "no such folder; give a folder, or an id on the Hub"),
        (str(tmp_path / "a.jsonl"), "a file, not a folder; give a folder"),
        (str(tmp_path / "empty"), "cannot be loaded: "),
    ):
        with pytest.raises(UserError) as error:
            source_of({"dataset": place}).content_hash()
        assert str(error.value).startswith(f"{place}: {what}")
        assert "\n" not in str(error.value)
