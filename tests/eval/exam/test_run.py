"""Samples written as they come: whole, the same every time, continued where they were cut off."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from eval.analysis import metrics
from eval.exam import run as harness
from eval.exam.run import Candidate, examine, is_finished
from eval.exam.samples import load_samples
from eval.exam.suite import load_suite
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    save_checkpoint(
        make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=0), tokenizer, folder
    )
    return folder


def suite(**changes):
    """12 rows are three problems a chunk: 7 chunks."""
    return load_suite("smoke", **{"limit": 20, "max_tokens": 12, "samples": 4, "rows": 12, **changes})


def sit(checkpoint, folder, voice=None, **changes):
    return examine(Candidate("model", checkpoint, voice), *suite(**changes), folder, QUIET)


def test_an_exam_leaves_one_row_per_completion_and_one_greedy_row_per_problem(checkpoint, tmp_path):
    sit(checkpoint, tmp_path)
    samples, greedy = (load_samples(tmp_path / f"{part}.jsonl") for part in ("samples", "greedy"))
    assert samples.correct_PN.shape == (20, 4) and greedy.correct_PN.shape == (20, 1)
    assert greedy.settings["temperature"] == 0 and is_finished(tmp_path)
    assert not list(tmp_path.glob(".chunk-*"))


def test_samples_tell_how_likely_the_checkpoint_and_the_one_it_started_from_find_them(checkpoint, tmp_path):
    other = tmp_path / "other"
    tokenizer = make_tokenizer()
    shape = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}
    surer = make_model(tokenizer, **shape, seed=1)
    surer.lm_head.weight.data *= 20
    save_checkpoint(surer, tokenizer, other)
    measured = {}
    for name, reference in (("itself", checkpoint), ("other", other)):
        examine(Candidate(name, checkpoint, reference=reference), *suite(), tmp_path / name, QUIET)
        measured[name] = load_samples(tmp_path / name / "samples.jsonl")
    assert metrics.kl(measured["itself"]) == pytest.approx(0, abs=1e-3)
    assert metrics.kl(measured["other"]) > 0.01
    assert metrics.entropy(measured["itself"]) == pytest.approx(math.log(len(tokenizer)), rel=0.01)  # near to uniform
    greedy = load_samples(tmp_path / "other" / "greedy.jsonl")
    assert metrics.kl(greedy) is None  # not of the policy as it is


def test_two_exams_with_the_same_seed_are_the_same_bytes_and_another_seed_is_not(checkpoint, tmp_path):
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sit(checkpoint, tmp_path / name, seed=seed)
        files.append((tmp_path / name / "samples.jsonl").read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("cut", ["a line", "a chunk", "between", "chunk waiting"])
def test_an_exam_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(checkpoint, tmp_path, cut):
    sit(checkpoint, tmp_path / "whole")
    expected = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    lines = expected.splitlines(keepends=True)
    kept = {"a line": [*lines[:14], lines[14][:50]], "a chunk": lines[:24], "between": lines[:14]}.get(cut, lines[:12])
    (tmp_path / "cut" / "samples.jsonl").write_bytes(b"".join(kept))
    (tmp_path / "cut" / "greedy.jsonl").unlink()
    if cut == "chunk waiting":  # drawn by another process before the cut
        (tmp_path / "cut" / ".chunk-samples-000002").write_bytes(b"".join(lines[24:36]))
    note = json.loads((tmp_path / "cut" / "exam.json").read_text())
    (tmp_path / "cut" / "exam.json").write_text(json.dumps({k: v for k, v in note.items() if k != "sha256"}))
    sit(checkpoint, tmp_path / "cut")
    for part in ("samples.jsonl", "greedy.jsonl"):
        assert (tmp_path / "cut" / part).read_bytes() == (tmp_path / "whole" / part).read_bytes()


def test_a_finished_exam_is_not_drawn_again(checkpoint, tmp_path, monkeypatch):
    seconds = sit(checkpoint, tmp_path)
    monkeypatch.setattr(harness, "load_checkpoint", None)
    assert sit(checkpoint, tmp_path) == seconds


def test_a_whole_exam_of_the_same_checkpoint_beside_is_copied_and_no_other(checkpoint, tmp_path, monkeypatch):
    sit(checkpoint, tmp_path / "other", seed=1)
    sit(checkpoint, tmp_path / "same")
    (tmp_path / "damaged").mkdir()
    shutil.copytree(tmp_path / "same", tmp_path / "damaged", dirs_exist_ok=True)
    (tmp_path / "damaged" / "samples.jsonl").write_text("", encoding="utf-8")
    beside = [tmp_path / name for name in ("missing", "damaged", "other", "same")]
    monkeypatch.setattr(harness, "load_checkpoint", lambda *_: pytest.fail("drawn again"))
    examine(Candidate("model", checkpoint), *suite(), tmp_path / "new", QUIET, beside=beside)
    for name in ("samples.jsonl", "greedy.jsonl", "exam.json"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


@pytest.mark.parametrize(
    "changes,key", [({"seed": 5}, "suite.seed"), ({"limit": 10}, "number"), ({"voice": "worked"}, "voice")]
)
def test_samples_of_another_exam_are_not_overwritten(checkpoint, tmp_path, changes, key):
    sit(checkpoint, tmp_path)
    before = (tmp_path / "samples.jsonl").read_bytes()
    with pytest.raises(UserError, match=f"holds the samples of another exam: {key} is"):
        sit(checkpoint, tmp_path, **changes)
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_a_folder_in_use_by_another_process_is_refused(checkpoint, tmp_path):
    with harness.locked(tmp_path), pytest.raises(UserError, match="is running in this folder"):
        sit(checkpoint, tmp_path)


def test_a_forced_voice_begins_every_completion_and_does_not_end_at_once(checkpoint, tmp_path):
    sit(checkpoint, tmp_path, voice="worked")
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert all(row["completion"].startswith("<think>") for row in rows)
    assert not any(row["completion"].startswith("<think></think>") for row in rows)


def test_more_samples_than_fit_a_chunk_are_the_same_samples(checkpoint, tmp_path):
    sit(checkpoint, tmp_path / "small", samples=30)
    sit(checkpoint, tmp_path / "large", samples=30, rows=1024)
    small, large = (load_samples(tmp_path / name / "samples.jsonl") for name in ("small", "large"))
    assert [q.key for q in small.questions] == [q.key for q in large.questions]
    assert (small.answer_PN == large.answer_PN).all() and (small.tokens_PN == large.tokens_PN).all()


def test_a_model_with_a_foreign_tokenizer_is_examined_too(tmp_path):
    tokenizer = _letters()
    torch.manual_seed(0)
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=0)
    save_checkpoint(model, tokenizer, tmp_path / "model")
    sit(tmp_path / "model", tmp_path / "exam", voice="worked", limit=4)
    row = json.loads((tmp_path / "exam" / "samples.jsonl").read_text().splitlines()[0])
    assert row["prompt"].startswith("A conversation between") and row["completion"].startswith("<think>")


def test_thinking_that_the_prompt_begins_is_part_of_the_text(checkpoint):
    from r1_mini.model.checkpoint import load_checkpoint
    from r1_mini.problems import families
    from r1_mini.rollout.engine import SamplingParams
    from r1_mini.rollout.generate import generate

    model, tokenizer = load_checkpoint(checkpoint)
    params, problems = SamplingParams(1, 5, temperature=0.0), [families.solve("1+1")]
    ((plain,),) = generate(model, tokenizer, problems, params)
    tokenizer.chat_template = tokenizer.chat_template.replace("%}Assistant:{% endif", "%}Assistant:<think>{% endif")
    ((begun,),) = generate(model, tokenizer, problems, params)
    assert begun.text.startswith("<think>") and not plain.text.startswith("<think><think>")
    ((worked,),) = generate(model, tokenizer, problems, replace(params, voice="worked"))
    assert worked.text.count("<think>") == begun.text.count("<think>")


def test_more_tokens_than_the_model_has_room_for_are_refused_with_the_number_that_fits(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"the context length of the model is 1024; allow at most 10\d\d"):
        sit(checkpoint, tmp_path, max_tokens=1020)


def test_a_problem_that_the_tokenizer_of_a_checkpoint_cannot_write_is_refused_with_the_fix(checkpoint, tmp_path):
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "Où est {n}?", "answer": "1"}}\n' for n in range(60)))
    suite = tmp_path / "own.yaml"
    suite.write_text(f"samples: 1\nmax_tokens: 9\nproblems: [{{jsonl: {tmp_path / 'q.jsonl'}, number: 2}}]\n")
    loaded = load_suite(str(suite))
    with pytest.raises(UserError, match=r"^problems: q has 'ù', which the model's tokenizer cannot write; leave such"):
        examine(Candidate("model", checkpoint), *loaded, tmp_path / "exam", QUIET)
    assert not (tmp_path / "exam" / "samples.jsonl").exists()


def test_files_that_are_not_of_an_exam_stay(checkpoint, tmp_path):
    (tmp_path / "train.jsonl").write_text("precious")
    sit(checkpoint, tmp_path)
    assert (tmp_path / "train.jsonl").read_text() == "precious"
    (tmp_path / "exam.json").unlink()
    with pytest.raises(UserError, match=r"samples, but no exam\.json"):
        sit(checkpoint, tmp_path)
    assert (tmp_path / "samples.jsonl").exists()
    (tmp_path / "exam.json").write_text("{")
    with pytest.raises(UserError, match=r"exam.json: damaged"):
        sit(checkpoint, tmp_path)


def _letters():
    """A tokenizer of single characters without our words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<eos>", "<unk>", *map(chr, range(32, 127)), "\n"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
