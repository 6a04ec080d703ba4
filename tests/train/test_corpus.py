import json
import random
import re
from collections import Counter
from itertools import islice

import pytest
from rich.console import Console

from r1_mini.completion import grade
from r1_mini.data.mix import source_of
from r1_mini.data.source import FamilySource
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.families import solve
from r1_mini.train import sft
from r1_mini.train.corpus import completion, corpus, tokenized, with_retraction
from r1_mini.train.stage import Job

SUMS = (FamilySource.model_validate({"family": "sum", "terms": [2, 4], "largest": 99}),)
HALVES = {"direct": 0.5, "worked": 0.5}
ASK = "User: {}\nAssistant:".format


def test_each_voice_as_written_by_hand():
    problem = solve("12+7-3")
    rng = random.Random(0)
    assert completion(problem, "direct", "list", rng) == "<think></think><answer>16</answer>"
    assert completion(problem, "worked", "list", rng) == "<think>12+7=19\n19-3=16</think><answer>16</answer>"
    assert completion(problem, "worked", "restate", rng) == "<think>19-3\n16</think><answer>16</answer>"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = ({"question": f"Eva has {n} nuts, buys 2.", "answer": n + 2, "steps": f"{n}+2={n + 2}"} for n in range(60))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return source_of({"jsonl": str(path), "solution": "steps"})


BARE = re.compile(r"<think></think><answer>\d+</answer>")
STEPS = re.compile(r"<think>(\d+)\+2=(\d+)</think><answer>\2</answer>")


def test_in_a_base_stage_a_row_with_its_steps_is_written_in_every_voice(table):
    def texts(**voices):
        return [text for _, text in islice(corpus([table], voices, "list", 0, ASK), 200)]

    assert all(map(BARE.fullmatch, texts(direct=1.0)))
    assert all(map(STEPS.fullmatch, texts(worked=0.5, checked=0.5)))
    mixed = texts(**HALVES)
    assert 70 < sum(map(bool, map(BARE.fullmatch, mixed))) < 130
    assert all(BARE.fullmatch(text) or STEPS.fullmatch(text) for text in mixed)


def test_an_sft_stage_reads_a_row_with_its_steps_as_it_is_in_any_voice(table, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(sft, "load", lambda job: (None, make_tokenizer()))
    monkeypatch.setattr(sft.SftStage, "train_on_texts", lambda stage, texts, *rest: read.extend(islice(texts, 50)))
    stage = sft.SftStage(kind="sft", voices={"direct": 1.0, "worked": 0.0, "checked": 0.0})
    stage.train(Job("sft", stage, None, [table], "auto", 0, tmp_path, tmp_path, Console(quiet=True)))
    assert len(read) == 50 and all(STEPS.fullmatch(text) for _, text in read)


def test_a_retraction_spoils_one_digit_of_a_result_and_redoes_the_step():
    lines = ("12+7=19", "19-3=16")
    for seed in range(50):
        spoiled = with_retraction(lines, random.Random(seed))
        at = spoiled.index("wait")
        bad, good = spoiled[at - 1], spoiled[at + 1]
        assert spoiled[: at - 1] + spoiled[at + 1 :] == lines
        assert sum(a != b for a, b in zip(bad, good, strict=True)) == 1
        assert bad.split("=")[0] == good.split("=")[0]


@pytest.mark.parametrize("wording", ["list", "restate"])
@pytest.mark.parametrize("family", ["sum", "product", "expression"])
def test_every_answer_of_the_corpus_follows_from_its_chain(family, wording):
    specs = (FamilySource.model_validate({"family": family}),)
    seen = Counter()
    for prompt, text in islice(corpus(specs, {"direct": 0.2, "worked": 0.4, "checked": 0.4}, wording, 0, ASK), 400):
        question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
        graded = grade(solve(question), text, "stop")
        assert graded.correct, text
        seen[graded.voice] += 1
        assert graded.chain == ("none" if graded.voice == "direct" else "right"), (question, text)
    assert 40 < seen["direct"] < 120 and seen["checked"] > 100 and seen["none"] == 0


def test_batches_hold_prompts_of_similar_length_in_random_order_with_the_voices_mixed():
    """The prompt is not trained on; all after it is, with the stop token."""
    tokenizer = make_tokenizer()
    rows = tokenized(corpus(SUMS, HALVES, "list", 0, ASK), tokenizer, 2048, 32, seed=0)
    think, end, prompt_end = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "\nAssistant:"])
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        first = ids.index(prompt_end) + 1
        assert labels == [-100] * first + ids[first:] and ids[-1] == tokenizer.eos_token_id
    prompts = [[row.count(-100) for row in rows["labels"][i : i + 32]] for i in range(0, 2048, 32)]
    assert sum(max(batch) - min(batch) for batch in prompts) / len(prompts) < 1
    assert [sum(batch) for batch in prompts] != sorted(sum(batch) for batch in prompts)
    for i in range(0, 2048, 32):
        direct = [row[row.index(think) + 1] == end for row in rows["input_ids"][i : i + 32]]
        assert 4 <= sum(direct) <= 28
