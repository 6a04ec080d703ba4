"""Two models that write one text together: at each token one of them is asked, by a rule.

Both read every token, each with half of the layers of the sampler's key-value cache, so the sampler takes a mixture for
a model of twice the layers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from eval.inspect.case import AFTER, BEFORE, FREE, Case, Network, Row, Written
from eval.inspect.figures import bits
from r1_mini.problems.problem import Problem
from r1_mini.rollout.choose import uniform
from r1_mini.rollout.engine import stream

THRESHOLDS = {AFTER: (1.0, 0.1, 0.01), BEFORE: (1.0, 0.1, 0.02)}
"""By the model that is kept: nats above which it gets the other's distribution."""
Rule = Callable[["Places"], Tensor]
"""Where the other model is asked, (R,) bool."""


@dataclass(frozen=True, eq=False)
class Places:
    """What a rule may look at, of the next token of each of R rows."""

    kl_R: Tensor
    """KL(after || before) in nats."""
    random_R: Tensor
    """A number in [0, 1) that the text so far and the seed decide."""
    voice_R: Tensor
    """Whether it is the first token after the mark with which a chain begins."""


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats of two distributions given as logits, over the last dimension."""
    log_p, log_q = p.float().log_softmax(dim=-1), q.float().log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp(min=0)


class Mixture(nn.Module):
    """One of two models, `after` if `keeps_after`, with the distribution of the other one where the rule says so.

    `asked` counts the tokens that were sampled, `exchanged` those of the other one's distribution. Completions that
    share a row count once, so sample one of each prompt. `begin` is the mark with which a chain begins.
    """

    def __init__(
        self,
        before: PreTrainedModel,
        after: PreTrainedModel,
        rule: Rule,
        *,
        keeps_after: bool,
        begin: Sequence[int],
        seed: int,
    ) -> None:
        super().__init__()
        self.before, self.after, self.rule, self.keeps_after = before, after, rule, keeps_after
        self.stream = stream(seed, (), 0)
        self.begin_K = torch.tensor(begin, device=before.device)
        self.device, self.dtype, self.generation_config = before.device, before.dtype, before.generation_config
        self.config = deepcopy(before.config)
        text = self.config.get_text_config(decoder=True)
        self.layers = text.num_hidden_layers
        text.num_hidden_layers = 2 * self.layers + 1  # one more keeps the text
        if getattr(text, "layer_types", None):
            text.layer_types = [*text.layer_types, *text.layer_types, text.layer_types[-1]]
        self.asked = self.exchanged = 0
        self.train(before.training)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, past_key_values: Cache, **options: Any
    ) -> SimpleNamespace:
        """Logits after the last token of each row, (R, 1, V)."""
        layers = past_key_values.layers
        before_R1V, after_R1V = (
            model(input_ids=input_ids, position_ids=position_ids, past_key_values=Cache(layers=half), **options).logits
            for model, half in ((self.before, layers[: self.layers]), (self.after, layers[self.layers : -1]))
        )
        ids = input_ids[:, None, :, None].float()
        text_RT = layers[-1].update(ids, ids)[0][:, 0, :, 0].long()
        if input_ids.shape[1] > 1:  # prompts, after which nothing is sampled yet
            return SimpleNamespace(logits=before_R1V)
        at_R = position_ids[:, 0]
        other_R = self.rule(self._places(text_RT, at_R, divergence(after_R1V[:, 0], before_R1V[:, 0])))
        used_R = at_R > 0  # free rows are at place 0
        self.asked += int(used_R.sum())
        self.exchanged += int((other_R & used_R).sum())
        after_R11 = (other_R ^ self.keeps_after)[:, None, None]
        return SimpleNamespace(logits=torch.where(after_R11, after_R1V, before_R1V))

    def _places(self, text_RT: Tensor, at_R: Tensor, kl_R: Tensor) -> Places:
        """`at_R` is the place of the last token that a row has read."""
        place_T = torch.arange(text_RT.shape[1], device=text_RT.device)
        random_RT = uniform(text_RT + self.stream, place_T) * (place_T <= at_R[:, None])
        back_K = torch.arange(1 - len(self.begin_K), 1, device=at_R.device)
        last_RK = text_RT.gather(1, (at_R[:, None] + back_K).clamp(min=0))
        return Places(kl_R, random_RT.sum(dim=1) % 1, (last_RK == self.begin_K).all(dim=1))


def written(case: Case, network: Network, problems: Sequence[Problem]) -> list[Written]:
    """One free completion of each problem."""
    return [done for (done,) in network.answer(problems, FREE, case.max_tokens, temperature=1.0, seed=case.seed)]


def over(nats: float) -> Rule:
    return lambda places: places.kl_R >= nats


def at_random(share: float) -> Rule:
    return lambda places: places.random_R < share


def at_voice(places: Places) -> Tensor:
    return places.voice_R


def mixtures(case: Case, problems: Sequence[Problem]) -> Iterator[Row]:
    """Both models alone, and each with some of its tokens from the other's distribution."""

    def mixed(keeps: str, exchanged: str, rule: Rule, **like: str) -> dict[str, Any]:
        begin = case.before.ids(case.before.begin)
        mixture: Any = Mixture(
            case.before.model, case.after.model, rule, keeps_after=keeps == AFTER, begin=begin, seed=case.seed
        )
        found = written(case, replace(case.before, model=mixture), problems)
        places = round(mixture.exchanged / max(1, mixture.asked), 5)
        row = {"keeps": keeps, "exchanged": exchanged, **like, "places": places}
        return {**row, "right": bits([done.graded.correct for done in found])}

    for keeps, thresholds in THRESHOLDS.items():
        yield mixed(keeps, "nothing", over(math.inf))
        yield mixed(keeps, "voice", at_voice)
        for nats in thresholds:
            chosen = mixed(keeps, f"KL > {nats:g}", over(nats))
            yield chosen
            yield mixed(keeps, "random", at_random(chosen["places"]), like=chosen["exchanged"])
