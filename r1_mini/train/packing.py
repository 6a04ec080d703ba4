"""Texts of one batch packed into few rows, so that little is computed for padding; no gradient changes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Example = Mapping[str, Sequence[int]]
"""`input_ids` and `labels` of a text."""
IGNORED = -100


def pack(examples: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """`input_ids`, `labels` and `position_ids` of a batch, (R, S) each: S is the longest text, R as few as fit.

    Texts do not see each other: positions that begin again at 0 tell transformers where one ends (its masking_utils).
    The loss, a mean over all labels, is that of texts in rows of their own. `labels` ignore the first token of a text,
    which nothing predicts.
    """
    longest_first = sorted(examples, key=lambda example: -len(example["input_ids"]))
    width = len(longest_first[0]["input_ids"])
    rows: list[list[Example]] = []
    free: list[int] = []  # places of each row
    for example in longest_first:  # into the first row that has room for it
        size = len(example["input_ids"])
        row = next((row for row, places in enumerate(free) if places >= size), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(width)
        rows[row].append(example)
        free[row] -= size

    def column(values: Callable[[Example], Sequence[int]], fill: int) -> Tensor:
        lines = [[value for example in row for value in values(example)] for row in rows]
        return torch.tensor([line + [fill] * (width - len(line)) for line in lines])

    return {
        "input_ids": column(lambda example: example["input_ids"], pad),
        "labels": column(lambda example: [IGNORED, *example["labels"][1:]], IGNORED),
        "position_ids": column(lambda example: range(len(example["input_ids"])), 0),
    }
