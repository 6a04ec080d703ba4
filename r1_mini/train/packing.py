"""Examples of one batch packed into a few rows, so that little is computed for padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

IGNORED = -100


def pack(examples: Sequence[Mapping[str, Sequence[int]]], pad: int) -> dict[str, Tensor]:
    """`input_ids`, `labels` and `position_ids` of a batch, (R, S) each: S is the longest example, R as few as fit.

    An example keeps to itself: positions that begin again at 0 tell transformers where one ends (its masking_utils),
    and the loss, a mean over all labels, is that of the examples in rows of their own. `labels` ignore the first token
    of an example, which nothing predicts.
    """
    longest_first = sorted(examples, key=lambda example: -len(example["input_ids"]))
    width = len(longest_first[0]["input_ids"])
    rows: list[list[Mapping[str, Sequence[int]]]] = []
    room: list[int] = []  # of each row
    for example in longest_first:  # into the first row that it fits
        size = len(example["input_ids"])
        row = next((row for row, free in enumerate(room) if free >= size), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(example)
        room[row] -= size
    ids = torch.full((len(rows), width), pad)
    labels = torch.full_like(ids, IGNORED)
    positions = torch.zeros_like(ids)
    for row, members in enumerate(rows):
        start = 0
        for example in members:
            end = start + len(example["input_ids"])
            ids[row, start:end] = torch.tensor(example["input_ids"])
            labels[row, start + 1 : end] = torch.tensor(example["labels"][1:])
            positions[row, start:end] = torch.arange(end - start)
            start = end
    return {"input_ids": ids, "labels": labels, "position_ids": positions}
