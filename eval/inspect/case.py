"""What every experiment is given: the networks that are compared, problems that none of them has seen, and the one way
in which a text is continued and read.

An experiment is a module with `measure(case) -> Iterator[row]` and `table(rows) -> dict`: rows are saved, and every
number of the table can be computed from them again.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1_mini.completion import TAGS, Finish, Graded, begun, grade
from r1_mini.judges.answers import last_number
from r1_mini.model.prompts import encode, prompts_for, stop_tokens
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import SamplingParams, rollout

Row = Mapping[str, Any]
BATCH_TOKENS = 8_192
BEFORE, AFTER = "before", "after"
TEXT, NOISE = "more text", "random"
"""The controls: `before` trained on with other text for as many steps, and plus a random difference of that size."""


@dataclass(frozen=True)
class Marks:
    """What a model writes around its chain, and before and after its answer."""

    begin: str = TAGS[0]
    end: str = TAGS[1]
    answer: str = TAGS[2]

    @property
    def ours(self) -> bool:
        return self == Marks()

    def graded(self, problem: Problem, text: str, finish: Finish) -> Graded:
        """The completion, judged. With foreign marks its answer is the last number after the chain."""
        if not self.ours:
            _, _, rest = text.partition(self.begin)
            chain, end, tail = rest.partition(self.end)
            answer = last_number(tail) if end else None
            text = f"{TAGS[0]}{chain}{TAGS[1]}" + ("" if answer is None else f"{TAGS[2]}{answer}{TAGS[3]}")
        return grade(problem, text, finish)


@dataclass(frozen=True)
class Written:
    """A completion: the text from its beginning, the part that was given included, and how it is judged."""

    text: str
    tokens: tuple[int, ...]
    """Those after the part that was given."""
    graded: Graded


@dataclass(frozen=True, eq=False)
class Network:
    """A model with its tokenizer. Continuations of it are functions of the text, the seed and the number alone."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    marks: Marks = Marks()
    _prompts: dict[Problem, list[int]] = field(default_factory=dict)

    @cached_property
    def stops(self) -> list[int]:
        return stop_tokens(self.model.generation_config, self.tokenizer)

    def ids(self, text: str) -> list[int]:
        """Token ids of a part of a completion."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        """Token ids of the prompt of each problem, without what a template writes of the completion."""
        if new := [each for each in dict.fromkeys(problems) if each not in self._prompts]:
            texts = [t.rstrip().removesuffix(TAGS[0]) if begun(t) else t for t in prompts_for(self.tokenizer, new)]
            self._prompts.update(zip(new, encode(self.tokenizer, texts), strict=True))
        return [self._prompts[each] for each in problems]

    def write(
        self,
        problems: Sequence[Problem],
        given: Sequence[str],
        most: int,
        *,
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        banned: str = "",
    ) -> list[list[Written]]:
        """`n` completions of each problem that begin with the text given, `most` tokens longer at most.

        What is asked twice at temperature 0 is computed once. `banned` cannot be the first token.
        """
        asked = [(*p, *self.ids(text)) for p, text in zip(self.prompts(problems), given, strict=True)]
        distinct = list(dict.fromkeys(asked)) if temperature == 0 else asked
        params = SamplingParams(n, most, temperature, seed=seed)
        ban = self.ids(banned)[:1] if banned else ()
        groups = rollout(self.model, distinct, params, stop=self.stops, banned_first=ban)
        found = dict(zip(distinct, groups, strict=True)) if temperature == 0 else {}
        each = [found[key] for key in asked] if found else groups

        def read(problem: Problem, text: str, tokens: list[int], finish: Finish) -> Written:
            text += self.tokenizer.decode(tokens, skip_special_tokens=True)
            return Written(text, tuple(tokens), self.marks.graded(problem, text, finish))

        return [
            [read(problem, text, done.tokens, done.finish) for done in group]
            for problem, text, group in zip(problems, given, each, strict=True)
        ]

    def batches(self, problems: Sequence[Problem], given: Sequence[str]) -> Iterator[tuple[Tensor, list[int]]]:
        """Prompts with the text given, those of one length together, (B, S), and which of the problems they are."""
        by_length: defaultdict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        for place, (prompt, text) in enumerate(zip(self.prompts(problems), given, strict=True)):
            ids = prompt + self.ids(text)
            by_length[len(ids)].append((place, ids))
        for length, entries in by_length.items():
            at_once = max(1, BATCH_TOKENS // length)
            for first in range(0, len(entries), at_once):
                places, rows = zip(*entries[first : first + at_once], strict=True)
                yield torch.tensor(rows, device=self.model.device), list(places)

    @torch.no_grad()
    def next_logits(self, problems: Sequence[Problem], given: Sequence[str]) -> Tensor:
        """The logits of the token after the text given, (P, V) float32."""
        found: list[Tensor] = [torch.empty(0)] * len(problems)
        for ids_BS, places in self.batches(problems, given):
            logits_BV = self.model(input_ids=ids_BS, use_cache=False, logits_to_keep=1).logits[:, -1].float()
            for place, logits_V in zip(places, logits_BV, strict=True):
                found[place] = logits_V
        return torch.stack(found)

    def reasons(self, problems: Sequence[Problem]) -> list[float]:
        """The chance of each problem that the chain is not empty once it is begun, exact."""
        end = self.ids(self.marks.end)[0]
        logits_PV = self.next_logits(problems, [self.marks.begin] * len(problems))
        return [round(1 - p, 6) for p in logits_PV.double().softmax(dim=1)[:, end].tolist()]


@dataclass(frozen=True)
class Case:
    """What is compared, on what, and how much of it."""

    networks: Mapping[str, Network]
    """BEFORE and AFTER, then the controls that there are: TEXT and NOISE."""
    problems: Sequence[Problem]
    """Unseen ones, those of the exam."""
    learned: Sequence[Problem]
    """Of the train split: what a probe or a steering vector is fitted on."""
    max_tokens: int = 160
    """Longest completion."""
    share: float = 1.0
    """Part of the usual number of problems, samples and examples that is used: smaller is quicker, with wider
    intervals."""
    layers: tuple[int, ...] | None = None
    """Blocks that are looked into, counted from 0; None is all."""
    seed: int = 0

    @property
    def before(self) -> Network:
        return self.networks[BEFORE]

    @property
    def after(self) -> Network:
        return self.networks[AFTER]

    @property
    def exact(self) -> bool:
        """Whether chains are in our form and every problem has a formula, so that implied values are known."""
        return self.before.marks.ours and all(each.formula and each.steps for each in self.problems)

    def some(self, most: int) -> list[Problem]:
        """The first `most` problems, fewer if only a share is used."""
        return list(self.problems[: max(2, round(most * self.share))])


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Name -> every trained tensor; a tied one is there once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@contextmanager
def changed(network: Network, weights: Mapping[str, Tensor]) -> Iterator[Network]:
    """The network with these weights in place of its own, which it has back afterwards, bit for bit."""
    own = weights_of(network.model)
    kept = {name: own[name].clone() for name in weights}

    def put(values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                own[name].copy_(value)

    try:
        put(weights)
        yield network
    finally:
        put(kept)


def difference(before: Network, after: Network) -> dict[str, Tensor]:
    """after - before, by the name of each weight."""
    old, new = weights_of(before.model), weights_of(after.model)
    return {name: new[name] - old[name] for name in old}


def noise(delta: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A random difference whose norm is that of `delta`, weight by weight."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, each in delta.items():
        random = torch.randn(each.shape, generator=generator).to(each)
        found[name] = random * (each.norm() / random.norm())
    return found
