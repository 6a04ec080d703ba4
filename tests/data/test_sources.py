"""Streams and exams: deterministic, balanced over depth, and disjoint between splits."""

import hashlib
from collections import Counter
from itertools import islice

import pytest
from pydantic import TypeAdapter

from r1_mini.completion import grade
from r1_mini.data.mix import AnySource, draw, source_of
from r1_mini.data.source import Source
from r1_mini.errors import UserError
from r1_mini.problems.arithmetic import canonical_key, evaluate, numbers, operations, parse, passed_through
from r1_mini.problems.problem import Problem, may_teach, split_of
from r1_mini.train.corpus import corpus

SUM = {"family": "sum", "terms": [2, 6], "largest": 99}
PRODUCT = {"family": "product", "digits": 2}
EXPRESSION = {"family": "expression", "depth": [1, 4]}
WORD = {"family": "word", "distractors": [0, 2]}
COUNTDOWN = {"family": "countdown"}
EVERY = (SUM, PRODUCT, EXPRESSION, WORD, COUNTDOWN)


def specs(*entries: dict) -> list[Source]:
    return [source_of(entry) for entry in entries]


def first(n: int, split, seed: int | str = 0, entries=EVERY) -> list[Problem]:
    return list(islice(draw(specs(*entries), split, seed), n))


DIGESTS = {"sum": "6e53734d38f06aec", "product": "32282e41859cbad6", "expression": "d5aa7fca70069eb6"}
DIGESTS |= {"countdown": "70b999aee488d5d4", "word": "08778ca6e3ea758c"}


@pytest.mark.parametrize("family", DIGESTS)
def test_the_same_seed_gives_the_same_problems_in_every_version(family: str) -> None:
    """Runs resume and figures are repeated by it."""
    asked = first(2000 if family == "word" else 300, "base", 7, [{"family": family}])
    problems = "".join(f"{p.question} {p.answer} {p.key} {p.steps}" for p in asked)
    assert hashlib.sha256(problems.encode()).hexdigest().startswith(DIGESTS[family])
    assert asked[:200] != first(200, "base", 8, [{"family": family}])


def test_no_text_that_teaches_is_or_solves_a_held_out_problem_of_any_family() -> None:
    tested = {problem.key for spec in specs(*EVERY) for problem in spec.exam("test", 150, seed=0, min_depth=2)}
    seen: set[str] = set()
    for split in ("base", "train", "dev"):
        for problem in first(3000, split):
            assert split_of(problem.key) == split and may_teach(problem, split)
            seen |= {problem.key, *problem.inside}
    assert len(seen) > 6_000
    assert not {key for key in seen if split_of(key) == "test"}
    assert not tested & seen


@pytest.mark.parametrize("wording", ["list", "restate"])
@pytest.mark.parametrize("entry", [WORD, COUNTDOWN], ids=["word", "countdown"])
def test_the_corpus_is_right_in_every_voice_and_solves_nothing_held_out(entry: dict, wording: str) -> None:
    problems = {problem.question: problem for problem in first(500, "base", 0, [entry])}
    taught: set[str] = set()
    voices = {"direct": 0.2, "worked": 0.4, "checked": 0.4}
    for text, completion in islice(corpus(specs(entry), voices, wording, 0, "User: {}\nAssistant:".format), 500):
        problem = problems[text.removeprefix("User: ").removesuffix("\nAssistant:")]
        graded = grade(problem, completion, "stop")
        assert graded.correct and graded.chain in ("none" if graded.voice == "direct" else "right", "unchecked")
        tree, story = parse(problem.formula or graded.answer), problem.key.split(" ")[0]
        for solved in [tree, *passed_through(tree)]:
            if problem.family == "word":
                taught.add(f"{story} {canonical_key(solved)}")
            else:
                taught.add(f"{' '.join(map(str, sorted(numbers(solved))))}={evaluate(solved)}")
            taught |= {canonical_key(solved)} if operations(solved) >= 2 else set()
    assert len(taught) > 500
    assert not {split_of(key) for key in taught} & {"dev", "test"}


def test_every_depth_is_equally_frequent_although_deep_problems_are_rejected_more_often() -> None:
    for split in ("base", "test"):
        counts = Counter(problem.difficulty["depth"] for problem in first(5000, split, entries=(SUM,)))
        assert counts.keys() == {1, 2, 3, 4, 5}
        assert all(abs(count / 5000 - 0.2) < 0.02 for count in counts.values())  # 3.5 standard errors


def test_weights_are_the_shares_of_the_entries() -> None:
    entries = ({**SUM, "weight": 3.0}, {**PRODUCT, "weight": 1.0})
    counts = Counter(problem.family for problem in first(4000, "base", entries=entries))
    assert abs(counts["sum"] / 4000 - 0.75) < 0.025


def test_an_exam_has_distinct_problems_of_its_split_that_are_not_used_evenly_over_the_depths() -> None:
    (source,) = specs(SUM)
    problems = source.exam("test", 400, seed=0, min_depth=2)
    keys = {problem.key for problem in problems}
    assert (len(keys), {split_of(key) for key in keys}) == (400, {"test"})
    assert Counter(problem.difficulty["depth"] for problem in problems) == {2: 100, 3: 100, 4: 100, 5: 100}
    assert problems == source.exam("test", 400, seed=0, min_depth=2)
    assert problems[:100] == source.exam("test", 100, seed=0, min_depth=2)
    others = {problem.key for problem in source.exam("dev", 100, seed=0)}
    assert {split_of(key) for key in others} == {"dev"}
    assert not keys & {problem.key for problem in source.exam("test", 100, seed=0, min_depth=2, used=keys)}


def test_an_exam_that_its_problems_cannot_fill_names_the_depth() -> None:
    line = r"^product: no further test problem of depth 1 in 20,000 .*\(1, 1\).*widen digits"
    with pytest.raises(UserError, match=line):
        specs({"family": "product", "digits": 1})[0].exam("test", 100, seed=0)
    with pytest.raises(UserError, match="no problem of depth 9 or more"):
        specs(SUM)[0].exam("test", 10, seed=0, min_depth=9)


ENTRIES = [
    {"family": "sum", "terms": [3, 3], "weight": 2.0},
    {"jsonl": "data/quiz.jsonl", "name": "quiz of mine", "extract": "gsm8k", "judge": "amount", "limit": 5},
    {"dataset": "own/set", "name": "set of mine", "splits": {"train": None}, "stream": True},
    {"reasoning_gym": "chain_sum", "name": "sums of mine", "config": {"max_terms": 4}, "weight": 2.0},
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: next(iter(entry)))
def test_an_entry_is_written_as_it_is_read(entry: dict) -> None:
    kind = TypeAdapter(AnySource)
    source = kind.validate_python(entry)
    assert source.name == entry.get("name", "sum")
    assert kind.dump_python(source, mode="json", exclude_defaults=True) == entry
    assert source_of(source.model_dump(mode="json")) == source
