"""What a recipe would do, said before anything runs: memory, tokens, disk, prompts, and what usually goes wrong."""

from dataclasses import dataclass

from r1_mini.rollout.engine import SamplingParams


@dataclass(frozen=True, slots=True)
class Exam:
    """What a plan needs to know of an exam; the command line hands it over, since r1_mini does not import eval."""

    suite: str
    split: str
    questions: tuple[str, ...]
    sampling: SamplingParams
    greedy: bool
    """Whether each question is also answered once at temperature 0."""
    dtype: str
    line: int
    """Bytes of a typical line of samples.jsonl."""
