"""The text around a problem: the prompt, and the reading of a completion.

Completions are hostile: reading one never raises, takes linear time, and returns a small record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

from r1_mini.judges.judges import JUDGES

Finish = Literal["stop", "length"]
Voice = Literal["direct", "worked", "checked", "none"]

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_TAG = re.compile("|".join(TAGS))


FORCED: dict[str | None, tuple[tuple[str, ...], tuple[str, ...]]] = {
    None: ((), ()),
    "worked": (TAGS[:1], TAGS[1:2]),
    "direct": (TAGS[:2], ()),
}
"""To force a voice: the tokens that begin the completion, and those that may not come next."""

R1_SYSTEM = (
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant "
    "first thinks about the reasoning process in the mind and then provides the User with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>."
)
"""R1-Zero's instruction (2501.12948, table 1), the system prompt of a chat model."""


def prompt(question: str) -> str:
    """What the model is given: `User: 12+7-3`, a line break, `Assistant:`."""
    return f"User: {question}\nAssistant:"


def begun(prompt: str) -> str:
    """What of a text its prompt has already: nothing, or `<think>`, with which some templates end."""
    return TAGS[0] if prompt.rstrip().endswith(TAGS[0]) else ""


def write(lines: Sequence[str], answer: str) -> str:
    """The completion of a corpus that thinks these lines and gives this answer; no lines is the direct voice."""
    return "<think>" + "\n".join(lines) + f"</think><answer>{answer}</answer>"


@dataclass(frozen=True, slots=True)
class Transcript:
    """A completion, read. A part that is missing, repeated or out of order is None."""

    thinking: str | None
    answer: str | None
    finish: Finish
    well_formed: bool  # <think>…</think><answer>…</answer>, each tag once, nothing else around, and finished

    @property
    def voice(self) -> Voice:
        """`direct` thinks nothing, `worked` writes steps, `checked` takes one back (`wait`), `none` is malformed."""
        if not self.well_formed or self.thinking is None:
            return "none"
        if not self.thinking.strip():
            return "direct"
        return "checked" if any(line.strip() == "wait" for line in self.thinking.split("\n")) else "worked"


@lru_cache(maxsize=1024)  # every reward and metric reads it; samples of one prompt are often alike
def read(completion: str, finish: Finish, prompt: str = "") -> Transcript:
    """Reads a completion of any length and content; a prompt may have begun it."""
    completion = begun(prompt) + completion
    tags = list(islice(_TAG.finditer(completion), len(TAGS) + 1))  # one more than allowed is enough to see
    order = tuple(tag.group() for tag in tags)
    thinking = answer = None
    if order in (TAGS, TAGS[:3], TAGS[:2]):
        thinking = completion[tags[0].end() : tags[1].start()]
    if order in (TAGS, TAGS[2:]):
        answer = completion[tags[-2].end() : tags[-1].start()]
    well_formed = False
    if order == TAGS and finish == "stop":
        outside = (
            completion[: tags[0].start()],
            completion[tags[1].end() : tags[2].start()],
            completion[tags[3].end() :],
        )
        well_formed = not any(map(str.strip, outside))
    return Transcript(thinking, answer, finish, well_formed)


def is_correct(transcript: Transcript, answer: str, judge: str = "number") -> bool:
    """Whether a finished completion gives the right answer, by a judge of `problems.judging`."""
    return transcript.finish == "stop" and transcript.answer is not None and JUDGES[judge](transcript.answer, answer)
