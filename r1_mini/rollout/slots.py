"""The sampler's batch on a GPU: every completion keeps a row of its own, and the host seldom waits for the device.

There a step takes about as long with few rows as with many, and launching its kernels and waiting for what they found
takes longest. So nothing is decided by the host for `STEPS` steps: tokens are sampled inside the step, and a row whose
completion has ended goes on silently until the next look. A step is captured as a CUDA graph for each number of rows
and each width that occur; on a device without graphs, and for a model that cannot be captured, it runs as it is.

Prompts, random numbers and results are those of `batch.Batch`, which the CPU has.
"""

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from r1_mini.rollout.batch import Batch
from r1_mini.rollout.cache import visible
from r1_mini.rollout.choose import choose, uniform
from r1_mini.rollout.params import Sampled

log = logging.getLogger(__name__)

STEPS = 16
"""Steps between two waits: at most so many, less one, are wasted on a completion."""
WIDTH = 256
"""The width of a step is a multiple of it, so that few graphs are needed."""


class Slots(Batch):
    """R rows with a completion in progress, an ended one, or none, and M completions in all.

    `busy` is what the host knows of rows: those in progress at the last look, and the tokens that each has read.

    | tensor | holds of each row |
    |---|---|
    | `token_R`, `length_R` | the token it reads next, and the number of tokens it has read |
    | `stream_R`, `at_R` | the name of its random numbers, and the number of its next token |
    | `place_R` | its place among the results |
    | `live_R` | whether its completion is in progress |
    """

    LOOKS = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        rows, device = len(self.token_R), self.token_R.device
        self.busy: dict[int, int] = {}
        self.at_R, self.stream_R, self.place_R = (torch.zeros_like(self.token_R) for _ in range(3))
        self.live_R = torch.zeros(rows, dtype=torch.bool, device=device)
        self.room: int = self.cache.layers[0].room
        self.stride = min(STEPS, self.params.max_tokens)
        # One more column, into which rows write that are not live.
        self.tokens_MT, self.logprobs_MT = (
            nn.functional.pad(each, (0, 1)) for each in (self.tokens_MT, self.logprobs_MT)
        )
        self.steps: dict[tuple[int, int], Callable[[], object]] = {}
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None  # None: nothing is captured

    @property
    def running(self) -> int:
        return len(self.busy)

    def admit(self, prompts: list[list[int]], streams: list[list[int]], places: list[int]) -> None:
        """Begin a group of completions for each prompt, which is read once and copied to the rows of its group."""
        group, device = len(streams[0]), self.token_R.device
        free = list(islice((row for row in range(len(self.token_R)) if row not in self.busy), group * len(prompts)))
        self.busy |= {row: len(prompts[index // group]) - 1 for index, row in enumerate(free)}
        slots_PG = torch.tensor(free, device=device).view(-1, group)
        self._begin(slots_PG[:, 0].contiguous(), prompts)
        self._copy(slots_PG[:, :1].expand(-1, group - 1).flatten(), slots_PG[:, 1:].flatten(), max(map(len, prompts)))
        self.stream_R[slots_PG] = torch.tensor(streams, device=device)
        self.place_R[slots_PG] = torch.tensor(places, device=device)[:, None] + torch.arange(group, device=device)
        self.at_R[slots_PG] = 0
        self.live_R[slots_PG] = True

    def step(self) -> int:
        """Sample up to `STEPS` tokens for every completion in progress; return how many ended."""
        rows = self._gather_rows()
        width = -(-(max(self.busy.values()) + self.stride) // WIDTH) * WIDTH
        shape = rows, min(width, self.room)
        for _ in range(self.stride):
            if step := self.steps.get(shape):
                step()
            else:
                self._decode(*shape)  # the first time it is not captured: libraries make ready
                self.steps[shape] = self._captured(partial(self._decode, *shape))
        before, live = len(self.busy), self.live_R.tolist()  # the wait
        self.busy = {row: length + self.stride for row, length in self.busy.items() if live[row]}
        return before - len(self.busy)

    def _gather_rows(self) -> int:
        """Move rows in progress to the front, if half of the rows or fewer then suffice; the rows to compute."""
        rows = len(self.token_R)
        while rows > 2 and -(-rows // 2) >= len(self.busy):  # of a single row CUDA adds in no fixed order
            rows = -(-rows // 2)
        if behind := [row for row in self.busy if row >= rows]:
            front = list(islice((row for row in range(rows) if row not in self.busy), len(behind)))
            source, target = (torch.tensor(each, device=self.token_R.device) for each in (behind, front))
            self._copy(source, target, max(self.busy.values()))
            for each in (self.at_R, self.stream_R, self.place_R, self.live_R):
                each[target] = each[source]
            self.live_R[source] = False
            self.busy |= {new: self.busy.pop(old) for old, new in zip(behind, front, strict=True)}
        return rows

    def _copy(self, source: Tensor, target: Tensor, width: int) -> None:
        """Rows `target` have read, and read next, what rows `source` do: `width` tokens at most."""
        self.cache.copy(source, target, width)
        self.token_R[target], self.length_R[target] = self.token_R[source], self.length_R[source]

    def _decode(self, rows: int, width: int) -> None:
        """Sample a token for each of the first `rows` rows, whatever their state; nothing here waits for the device."""
        token_R, length_R, stream_R, at_R, place_R, live_R = (
            each[:rows] for each in (self.token_R, self.length_R, self.stream_R, self.at_R, self.place_R, self.live_R)
        )
        self.cache.add(length_R, width)
        logits_RV = self._forward(token_R[:, None], length_R[:, None], visible(self.config, length_R, width))
        for token in self.banned_first:
            logits_RV[:, token].masked_fill_(at_R == 0, -torch.inf)
        params, numbers_R = self.params, uniform(stream_R, at_R)
        chosen_R, logprob_R = choose(logits_RV, None, numbers_R, params.temperature, params.top_p)
        column_R = at_R.where(live_R, params.max_tokens)
        self.tokens_MT[place_R, column_R] = chosen_R
        self.logprobs_MT[place_R, column_R] = logprob_R
        token_R.copy_(chosen_R)
        length_R += live_R
        at_R += live_R
        live_R &= ~torch.isin(chosen_R, self.stops) & (at_R < params.max_tokens)

    def _captured(self, step: Callable[[], None]) -> Callable[[], object]:
        """The step as a CUDA graph; the step itself where there are none."""
        if self.pool is None:
            return step
        try:
            with torch.cuda.stream(torch.cuda.current_stream()):  # which a failed capture would leave another
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self.pool):
                    step()
            return graph.replay
        except RuntimeError as error:
            self.pool = None
            log.warning("no CUDA graphs, so sampling is slower: %s", str(error).partition("\n")[0])
            return step

    def sampled(self) -> list[Sampled]:
        ended_MT = torch.isin(self.tokens_MT[:, :-1], self.stops)
        self.stopped_M = ended_MT.any(dim=1)
        first_M = ended_MT.int().argmax(dim=1)
        self.lengths_M = (first_M + 1).where(self.stopped_M, self.params.max_tokens)
        return super().sampled()
