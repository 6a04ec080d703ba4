"""Log-probabilities of completions under another model than the one that sampled them."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from r1_mini.rollout.engine import Completion

TOKENS = 16_384
"""Most tokens in one forward pass."""
LOGITS = 2**26
"""Most logits in memory at once, where one sequence has not more."""
Text = tuple[tuple[int, ...], int]
"""Tokens of a prompt and its completion, and the length of the prompt."""


def log_likelihoods(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Completion]]
) -> list[list[float]]:
    """log p(completion | prompt) in nats at temperature 1 of each completion of each prompt, its stop token included.

    Each distinct sequence is read once, in batches of similar length.
    """
    written = [
        [((*prompt, *each.tokens), len(prompt)) for each in group]
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    distinct = sorted({pair for group in written for pair in group}, key=lambda pair: len(pair[0]))
    known: dict[Text, float] = {}
    with torch.no_grad():
        for batch in _batches(distinct, model.get_input_embeddings().num_embeddings):
            width = len(batch[-1][0])
            ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence, _ in batch])
            lengths = torch.tensor([len(sequence) for sequence, _ in batch])
            ids, lengths = ids.to(model.device), lengths.to(model.device)
            mask = torch.arange(width, device=ids.device) < lengths[:, None]
            logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1].float()
            logps = logits.log_softmax(dim=-1).gather(-1, ids[:, 1:, None])[..., 0].double().cpu()
            for row, (sequence, begin) in enumerate(batch):
                known[sequence, begin] = float(logps[row, begin - 1 : len(sequence) - 1].sum())
    return [[known[pair] for pair in group] for group in written]


def _batches(sequences: Sequence[Text], vocabulary: int) -> Iterator[Sequence[Text]]:
    """Runs of sequences of rising length that fit into one forward pass."""
    start = 0
    for end in range(1, len(sequences) + 1):
        more = end - start + 1
        width = len(sequences[min(end, len(sequences) - 1)][0])
        if end == len(sequences) or more * width > min(TOKENS, max(1, LOGITS // vocabulary)):
            yield sequences[start:end]
            start = end
