"""What every experiment is given: the networks that are compared, problems that none of them has seen, and the one way
in which a text is continued and read.

An experiment is a module with `measure(case) -> Iterator[row]` and `table(rows) -> dict`: rows are saved, and every
number of the table can be computed from them again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.analysis.stats import FEW
from eval.inspect.residual import batches
from r1_mini.completion import TAGS, Finish, Graded, grade
from r1_mini.judges.answers import last_number
from r1_mini.model.prompts import encode, prompt_for, prompts_for, stop_tokens
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import ROWS, SamplingParams

Row = Mapping[str, Any]
BEFORE, AFTER = "before", "after"
FREE, DIRECT, WORKED = "free", "direct", "worked"
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
    rows: int = ROWS
    """Most completions in progress at once."""
    _prompts: dict[Problem, list[int]] = field(default_factory=dict)

    @cached_property
    def stops(self) -> list[int]:
        return stop_tokens(self.model.generation_config, self.tokenizer)

    def ids(self, text: str) -> list[int]:
        """Token ids of a part of a completion."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    @cached_property
    def opening(self) -> str:
        """The mark with which the template's prompts end, white space after it included; empty if they do not."""
        text = self.asked
        prompt = text.rstrip().removesuffix(self.marks.begin)
        return text[len(prompt) :] if text.rstrip().endswith(self.marks.begin) else ""

    @property
    def asked(self) -> str:
        """A prompt."""
        return prompt_for(self.tokenizer, "1+1")

    @property
    def begin(self) -> str:
        """How a chain begins."""
        return self.opening or self.marks.begin

    def prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        """Token ids of the prompt of each problem, without the `opening`."""
        if new := [each for each in dict.fromkeys(problems) if each not in self._prompts]:
            texts = [text.removesuffix(self.opening) for text in prompts_for(self.tokenizer, new)]
            self._prompts.update(zip(new, encode(self.tokenizer, texts), strict=True))
        return [self._prompts[each] for each in problems]

    def answer(self, problems: Sequence[Problem], voice: str, most: int, **options: Any) -> list[list[Written]]:
        """Completions as `write` has them, in a voice: FREE, or forced to DIRECT or WORKED."""
        begun = {FREE: self.opening, DIRECT: self.begin + self.marks.end, WORKED: self.begin}[voice]
        banned = self.marks.end if voice == WORKED else ""
        return self.write(problems, [begun] * len(problems), most, banned=banned, **options)

    def encoded(self, problems: Sequence[Problem], given: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt and of the part of a completion that is given."""
        return [prompt + self.ids(text) for prompt, text in zip(self.prompts(problems), given, strict=True)]

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
        asked = [tuple(row) for row in self.encoded(problems, given)]
        distinct = list(dict.fromkeys(asked)) if temperature == 0 else asked
        params = SamplingParams(n, most, temperature, seed=seed, rows=self.rows)
        ban = self.ids(banned)[:1] if banned else ()
        groups = rollout(self.model, distinct, params, stop=self.stops, banned_first=ban)
        found = dict(zip(distinct, groups, strict=True)) if temperature == 0 else {}
        each = [found[key] for key in asked] if found else groups

        def read(problem: Problem, text: str, tokens: list[int], finish: Finish) -> Written:
            ours = [token for token in tokens if token not in self.stops]  # a foreign mark may be a special token
            text += self.tokenizer.decode(ours, skip_special_tokens=self.marks.ours)
            return Written(text, tuple(tokens), self.marks.graded(problem, text, finish))

        return [
            [read(problem, text, done.tokens, done.finish) for done in group]
            for problem, text, group in zip(problems, given, each, strict=True)
        ]

    @torch.no_grad()
    def reasons(self, problems: Sequence[Problem]) -> list[float]:
        """The chance of each problem that the chain is not empty once it is begun, exact."""
        end, found = self.ids(self.marks.end)[0], [0.0] * len(problems)
        for places, ids_BS in batches(self.encoded(problems, [self.begin] * len(problems)), self.model):
            logits_BV = self.model(input_ids=ids_BS, use_cache=False, logits_to_keep=1).logits[:, -1]
            for place, chance in zip(places, logits_BV.cpu().double().softmax(dim=1)[:, end].tolist(), strict=True):
                found[place] = round(1 - chance, 6)
        return found


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

    def language(self, network: Network) -> str:
        """The language of most steps in a few chains that a network writes."""
        groups = network.answer(self.some(FEW), WORKED, self.max_tokens)
        spoken = [each for (done,) in groups for each in done.graded.languages]
        return "words" if spoken.count("words") > spoken.count("signs") else "signs"

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
