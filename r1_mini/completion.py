"""The format of an answer, and the one place where a completion is judged.

A completion is hostile text: reading one never raises, takes linear time, and gives a small record. What a prompt looks
like is in `model/prompts.py`, which answers are equal in `judges/`, which steps are right in `problems/steps.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from typing import Literal

from r1_mini.judges.answers import LONGEST_ANSWER, amount, last_number
from r1_mini.judges.judges import judge_of
from r1_mini.problems.languages import Language, language_of
from r1_mini.problems.problem import Problem
from r1_mini.problems.steps import CheckedStep, chain_is_right, check_chain

Finish = Literal["stop", "length"]
"""Why a completion ended: with a stop token, or truncated at the longest length."""
Voice = Literal["direct", "worked", "checked", "none"]
"""Style of an answer: no steps, steps, steps of which one is taken back, or not in the format."""
Chain = Literal["right", "wrong", "none", "unchecked"]
"""What is known of the steps; `none`: there are none, `unchecked`: no exact checker reads them."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_TAG = re.compile("|".join(TAGS))

FORCED: dict[str | None, tuple[tuple[str, ...], tuple[str, ...]]] = {
    None: ((), ()),
    "worked": (TAGS[:1], TAGS[1:2]),
    "direct": (TAGS[:2], ()),
}
"""To force a voice: the tags that begin the completion, and those that may not come next."""


def begun(prompt: str) -> str:
    """The part of the format that the prompt contains already: nothing, or `<think>`, with which some templates end."""
    return TAGS[0] if prompt.rstrip().endswith(TAGS[0]) else ""


def write(lines: Sequence[str], answer: str) -> str:
    """The completion with these steps and this answer; without steps it is in the direct voice."""
    return "<think>" + "\n".join(lines) + f"</think><answer>{answer}</answer>"


@dataclass(frozen=True)
class Graded:
    """A completion of a problem, read. It is judged when that is first asked for.

    A section that is missing, repeated or out of order is None.
    """

    problem: Problem
    thinking: str | None
    answer: str | None
    finish: Finish
    well_formed: bool  # <think>…</think><answer>…</answer>, each tag once, nothing else around, and finished
    text: str = field(default="", compare=False, repr=False)

    @property
    def voice(self) -> Voice:
        """`direct` thinks nothing, `worked` writes steps, `checked` takes one back (`wait`), `none` is malformed."""
        if not self.well_formed or self.thinking is None:
            return "none"
        if not self.thinking.strip():
            return "direct"
        return "checked" if any(line.strip() == "wait" for line in self.thinking.split("\n")) else "worked"

    @cached_property
    def correct(self) -> bool:
        """Whether the completion is finished and its answer is right, by the judge of the problem."""
        if self.answer is None or self.finish != "stop":
            return False
        return judge_of(self.problem.judge)(self.answer, self.problem.answer)

    @cached_property
    def lenient(self) -> bool:
        """Whether it is right but for its form: a finished completion whose last number is the right answer.

        The last number of the answer, or of the whole text if no tags hold an answer. Of problems whose answers are no
        numbers, what is correct. Nothing is rewarded for it.
        """
        if self.correct or self.finish != "stop" or self.problem.judge not in ("number", "amount"):
            return self.correct
        said = _TAG.sub(" ", self.text) if self.answer is None else self.answer
        number = last_number(said[-LONGEST_ANSWER:])
        return number is not None and amount(number) == amount(self.problem.answer)

    @cached_property
    def steps(self) -> tuple[CheckedStep, ...] | None:
        """Each step judged; None if there is none, or if no exact checker reads the steps of the problem."""
        if self.thinking is None or not self.thinking.strip() or self.problem.formula is None:
            return None
        return tuple(check_chain(self.problem.formula, self.thinking))

    @property
    def chain(self) -> Chain:
        """Whether the steps lead from the problem to its answer. Without a closed `<think>…</think>` there are none."""
        if self.thinking is None or not self.thinking.strip():
            return "none"
        if self.steps is None:
            return "unchecked"
        return "right" if chain_is_right(self.steps) else "wrong"

    @property
    def languages(self) -> list[Language]:
        """The language of each step that has one; none where no exact checker reads the steps of the problem."""
        lines = (self.thinking or "").split("\n") if self.problem.formula else []
        return [language for line in lines if (language := language_of(line))]

    @property
    def language(self) -> Language | None:
        """The language of the chain, `mixed` if it has steps in both; None if no step has one."""
        found = set(self.languages)
        return found.pop() if len(found) == 1 else "mixed" if found else None

    @property
    def first_wrong(self) -> int | None:
        """Number of the first wrong step, counted from 1; None if no judged step is wrong."""
        steps = enumerate(self.steps or (), start=1)
        return next((number for number, step in steps if step.verdict == "wrong"), None)


@lru_cache(maxsize=4096)  # completions of one prompt are often alike, and every reward and metric asks
def grade(problem: Problem, text: str, finish: Finish, prompt: str = "") -> Graded:
    """Read a completion of a problem, of any length and content; its prompt may have begun it."""
    text = begun(prompt) + text
    tags = list(islice(_TAG.finditer(text), len(TAGS) + 1))  # one more than allowed is enough to see
    order = tuple(tag.group() for tag in tags)
    thinking = answer = None
    if order in (TAGS, TAGS[:3], TAGS[:2]):
        thinking = text[tags[0].end() : tags[1].start()]
    if order in (TAGS, TAGS[2:]):
        answer = text[tags[-2].end() : tags[-1].start()]
    well_formed = False
    if order == TAGS and finish == "stop":
        outside = text[: tags[0].start()] + text[tags[1].end() : tags[2].start()] + text[tags[3].end() :]
        well_formed = not outside.strip()
    return Graded(problem, thinking, answer, finish, well_formed, text)
