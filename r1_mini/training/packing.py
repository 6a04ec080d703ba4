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
    rows: list[list[int]] = []
    for index in sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"])):  # first fit, longest first
        size = len(examples[index]["input_ids"])
        for row in rows:
            if row[0] >= size:
                break
        else:
            width = len(examples[rows[0][1]]["input_ids"]) if rows else size
            rows.append(row := [width])
        row[0] -= size
        row.append(index)
    width = len(examples[rows[0][1]]["input_ids"])
    shape = len(rows), width
    columns = {name: torch.full(shape, fill) for name, fill in (("input_ids", pad), ("labels", IGNORED))}
    columns["position_ids"] = torch.zeros(shape, dtype=torch.long)
    for number, (_, *members) in enumerate(rows):
        at = 0
        for index in members:
            ids, labels = examples[index]["input_ids"], examples[index]["labels"]
            here = (number, slice(at, at + len(ids)))
            columns["input_ids"][here] = torch.tensor(ids)
            columns["labels"][here] = torch.tensor([IGNORED, *labels[1:]])
            columns["position_ids"][here] = torch.arange(len(ids))
            at += len(ids)
    return columns
