"""What a batch of rollouts looks like, apart from its reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from r1_mini.completion import Transcript, Voice


def rollout_metrics(
    transcripts: Sequence[Transcript], right: Sequence[bool], lengths: Sequence[int]
) -> dict[str, float]:
    """Shares and mean lengths (tokens) over B completions; the mean of nothing is NaN."""
    voices = [transcript.voice for transcript in transcripts]
    pairs = list(zip(lengths, right, strict=True))
    return {
        "accuracy": _mean([float(ok) for ok in right]),
        "format": _mean([float(transcript.well_formed) for transcript in transcripts]),
        "length_right": _mean([float(length) for length, ok in pairs if ok]),
        "length_wrong": _mean([float(length) for length, ok in pairs if not ok]),
        **{f"voice_{voice}": voices.count(voice) / len(voices) for voice in get_args(Voice)},
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
