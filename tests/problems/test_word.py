"""Word problems: the story means its formula, in correct English, and telling it anew does not make it another one."""

import re
from collections import Counter
from itertools import product

import pytest

from r1_mini.model.tokenizer import CHARACTERS
from r1_mini.problems.arithmetic import evaluate, numbers, operations, parse
from r1_mini.problems.families import FAMILIES
from r1_mini.problems.families.word import WORDINGS, Event, Tale, WordAxes, filled, stories
from tests.problems.sampled import AXES, numbers_in, sampled

FAMILY = FAMILIES["word"]
STORIES, NAMES = stories()


def tale_of(name: str, *parts: tuple[str, str, tuple[int, ...]], seed: int = 0, **axes) -> Tale:
    """A story with these parts: the list that each is of, its shape, its numbers."""
    story = next(story for story in STORIES if story.name == name)
    told, formula = [], ""
    for kind, shape, own in parts:
        formula = filled(shape, formula, own)
        value = int(evaluate(parse(formula)))
        told.append(Event(getattr(story, kind)[shape], own, value))
    return Tale(story, tuple(told), parse(formula), WordAxes(**axes), seed)


@pytest.mark.parametrize("axes", AXES["word"], ids=str)
def test_a_drawn_story_lies_within_its_axes_and_tells_its_formula_whose_value_is_the_answer(axes: dict) -> None:
    settings = FAMILY.axes(**axes)
    problems = sampled("word", axes)
    for problem in problems:
        formula = parse(problem.formula)
        assert problem.judge == "number" and int(problem.answer) == evaluate(formula)
        told, needed = Counter(numbers_in(problem.question)), Counter(numbers(formula))
        assert needed <= told
        assert (told - needed).total() == problem.difficulty["distractors"]
        assert operations(formula) == problem.difficulty["depth"]
        assert all(1 <= int(step.split("=")[1]) <= settings.largest for step in problem.steps)
        assert max(told) < 10**settings.digits and max(needed) <= settings.largest
    low, high = settings.distractors
    assert {problem.difficulty["distractors"] for problem in problems} == set(range(low, high + 1))


def test_every_story_operation_and_name_occurs() -> None:
    problems = sampled("word", {"largest": 999}, 2000)
    assert {problem.key.split(" ")[0] for problem in problems} == {story.name for story in STORIES}
    formulas = "".join(problem.formula for problem in problems)
    assert all(formulas.count(operator) > 100 for operator in "+-*/")
    text = " ".join(problem.question for problem in problems)
    assert all(re.search(rf"\b{name}\b", text) for name in NAMES)


def test_every_part_of_a_story_has_its_wordings_with_its_numbers_and_only_the_last_one_asks() -> None:
    assert len({story.name for story in STORIES}) == len(STORIES)
    for story in STORIES:
        assert all(aside["text"].endswith(".") for aside in story.asides)
        for part, end in ((story.openings, "."), (story.events, "."), (story.closings, "?")):
            for shape, texts in part.items():
                assert len(set(texts)) == WORDINGS
                for text in texts:
                    assert text.endswith(end) and text.count("?") == (end == "?"), text
                    assert {slot for slot in "ab" if f"{{{slot}" in text} == set(shape) & {"a", "b"}, text


def test_a_story_written_by_hand() -> None:
    parts = [("openings", "a", (12,)), ("events", "s+a*b", (3, 4)), ("events", "s-a", (6,)), ("closings", "s", ())]
    problem = FAMILY.problem(tale_of("collection", *parts, wording=1))
    name, thing = problem.question.split(" ")[0], problem.question.split(" ")[3].removesuffix(".")
    he = NAMES[name]["He"]
    assert problem.question == (
        f"{name} had 12 {thing}. {he} bought 3 bags of 4 {thing}. {he} gave away 6 of the {thing}. "
        f"How many {thing} did {name} have in the end?"
    )
    assert (problem.formula, problem.answer) == ("12+3*4-6", "18")
    assert problem.steps == ("3*4=12", "12+12=24", "24-6=18")
    assert problem.restated == ("12+12-6", "24-6", "18")
    assert problem.difficulty == {"depth": 3, "digits": 2, "distractors": 0}
    assert problem.key == "collection 12+3*4-6"
    assert problem.inside == {
        "12+3*4-6",  # the formula itself, as an expression
        *("12+3*4", "collection 12+3*4"),  # the story up to there
        *("12+12-6", "collection 12+12-6"),  # what stands after the first step
    }


def test_a_closing_is_about_all_that_stands() -> None:
    goal = tale_of("savings", ("openings", "a*b", (3, 7)), ("events", "s+a", (2,)), ("closings", "a-s", (30,)))
    share = tale_of("bakery", ("openings", "a", (20,)), ("events", "s-a", (6,)), ("closings", "s/a", (7,)))
    told = [FAMILY.problem(tale) for tale in (goal, share)]
    assert [(each.formula, each.answer) for each in told] == [("30-(3*7+2)", "7"), ("(20-6)/7", "2")]


MISTAKES = [
    *(r"  | [.,?]|\b(\w+) \1\b", r"[.?] [^A-Z0-9]|^[^A-Z0-9]|[{}|]|[^.?]$"),  # spaces, a word twice, sentences
    *(r"\b1 (were|are)\b|\b[Tt]here were 1 |\b1 (of the )?\w+ were\b", r"\b[Tt]here was (?!1 )\d"),
    *(
        r"\b(?!1 )\d+ (of the )?\w+ was\b",
        r"\ba [aeio]\w+|\ban [^aeiouh]",
        r"\bchilds\b|\brosebushs\b|\bboxs\b|\bbenchs\b",
    ),
]


def test_every_sentence_is_without_mistakes_and_its_words_agree_with_name_and_number() -> None:
    ones, many = ("|".join(thing.split("|")[place] for story in STORIES for thing in story.things) for place in (0, 1))
    agreeing = [rf"\b1 (more |new |old )?({many})\b", rf"\b(?!1 )\d+ (more |new |old )?({ones})\b"]
    for problem in sampled("word", {"digits": 1, "largest": 20, "distractors": [0, 2]}, 5000):
        assert set(problem.question) <= set(CHARACTERS)  # those of our tokenizer
        is_she = any(NAMES[name]["He"] == "She" for name in re.findall(r"\w+", problem.question) if name in NAMES)
        pronouns = r"\b([Hh]e|him|his|himself)\b" if is_she else r"\b([Ss]he|her|herself)\b"
        for wrong in (*MISTAKES, *agreeing, pronouns):
            assert not re.search(wrong, problem.question), (problem.question, wrong)


def test_asides_of_what_is_counted_tell_fewer_than_there_are() -> None:
    seen = 0
    for problem in sampled("word", {"distractors": [1, 2], "depth": 1}, 1500):
        aside = r"\b([0-9]+) of the \w+( \w+)? (was|were|had) (asleep|a|in|uphill|taller|from|pictures)\b"
        for match in re.finditer(aside, problem.question):
            before = numbers_in(problem.question[: match.start()])
            if len(before) == 1:  # the opening told one number, and that is what there was
                assert int(match[1]) < before[0]
                seen += 1
    assert seen > 50


def test_names_wording_asides_and_the_order_of_events_do_not_change_the_key_but_story_and_numbers_do() -> None:
    parts = [("openings", "a", (40,)), ("events", "s-a", (13,)), ("events", "s+a*b", (2, 9)), ("closings", "s", ())]
    told = [
        FAMILY.problem(tale_of("train", *parts, seed=seed, wording=wording, distractors=distractors))
        for seed, wording, distractors in product(range(10), (1, 2, 3, [1, 3]), (0, 1, 2))
    ]
    assert len({problem.question for problem in told}) > 60
    assert {(each.key, each.answer, each.formula) for each in told} == {("train 2*9+40-13", "45", "40-13+2*9")}
    opening, less, more, closing = parts
    assert FAMILY.key(tale_of("train", opening, more, less, closing)) == told[0].key
    assert FAMILY.key(tale_of("train", opening, less, ("events", "s+a*b", (2, 8)), closing)) != told[0].key
    keys = [FAMILY.key(tale_of(story, opening, ("events", "s+a", (5,)))) for story in ("train", "library")]
    assert keys[0] != keys[1]


def test_a_fixed_wording_tells_every_sentence_in_one_way() -> None:
    first, tank = (
        [each.question for each in sampled("word", {"wording": way}, 2000) if each.key.startswith("tank")]
        for way in (1, 2)
    )
    assert len(tank) > 50
    assert all(" had a tank with " in text or " let water into an empty tank for " in text for text in tank)
    assert not any(" had a tank with " in text for text in first)
