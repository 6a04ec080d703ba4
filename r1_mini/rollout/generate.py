"""Questions in, texts out: the prompt that a tokenizer calls for, a forced voice, and the sampler in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from jinja2 import TemplateError
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from r1_mini.completion import FORCED, R1_SYSTEM, Finish, begun, prompt
from r1_mini.errors import UserError
from r1_mini.model.template import is_ours
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import ROWS, Decoding, rollout
from r1_mini.rollout.likelihood import log_likelihoods


@dataclass(frozen=True, slots=True)
class Drawing:
    """How completions are drawn."""

    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    voice: str | None = None
    """A key of `transcript.FORCED`."""
    rows: int = ROWS
    """Most completions in work at once."""


@dataclass(frozen=True, slots=True)
class Text:
    """One completion as text."""

    text: str
    n_tokens: int
    finish: Finish
    logp: float
    """Log-probability, nats, of all its tokens but a forced prefix, at the temperature they were drawn at."""
    logp_reference: float | None
    """The same by the reference model; None where there is none."""


def prompt_for(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The prompt of a question: our own tokenizer's short one, or by the template, with R1's instruction."""
    if is_ours(tokenizer):
        return prompt(question)
    apply = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    try:
        return str(apply([{"role": "system", "content": R1_SYSTEM}, {"role": "user", "content": question}]))
    except TemplateError:  # a template without a system role
        return str(apply([{"role": "user", "content": f"{R1_SYSTEM}\n\n{question}"}]))


def prompts_of(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[str]:
    """The prompt of each problem; UserError also if `require_known` finds one that cannot be written."""
    require_known(tokenizer, problems)
    return [prompt_for(tokenizer, problem.question) for problem in problems]


def require_known(tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem]) -> None:
    """Raise UserError if a question or an answer has a character that our tokenizer cannot write."""
    if not is_ours(tokenizer):
        return
    known = tokenizer.get_vocab()
    for problem in problems:
        for character in problem.question + problem.answer:
            if character not in known:
                what = f"{problem.family} has {character!r}, which the model's tokenizer cannot write"
                fix = "leave such rows out, or start from another `model`"
                raise UserError(what, where="problems", fix=fix)


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    drawing: Drawing,
    progress: Callable[[int], None] | None = None,
    first_sample: int = 0,
    reference: PreTrainedModel | None = None,
) -> list[list[Text]]:
    """`drawing.samples` completions of each prompt, numbered from `first_sample`; the same whatever else is asked.

    A `reference` model with the same tokenizer tells how likely it finds them, where they are drawn from the policy as
    it is: at temperature 1, without top-p and a forced voice.

    Where the prompt itself ends with `<think>`, as templates of some reasoning models do, the text begins with it.
    """
    given = encoded(tokenizer, prompts)
    forced, forbidden = FORCED[drawing.voice]
    opened = begun(prompts[0]) if prompts else ""  # all are of one template
    prefix, banned = (
        tuple(tokenizer("".join(tags), add_special_tokens=False)["input_ids"])
        for tags in (forced[1:] if opened else forced, forbidden)
    )
    require_room(model.config, given, len(prefix) + drawing.max_tokens, "max_tokens")
    groups = rollout(
        model,
        given,
        drawing.samples,
        Decoding(drawing.max_tokens, drawing.temperature, drawing.top_p, prefix, banned[:1]),
        seed=drawing.seed,
        stop=stop_tokens(model, tokenizer),
        rows=drawing.rows,
        progress=progress,
        first_sample=first_sample,
    )
    as_it_is = drawing.temperature == 1 and drawing.top_p == 1 and drawing.voice is None
    theirs: Sequence[Sequence[float | None]] = [[None] * drawing.samples] * len(groups)
    if reference is not None and as_it_is:
        theirs = log_likelihoods(reference, given, groups)
    return [
        [
            Text(
                opened + tokenizer.decode(c.tokens, skip_special_tokens=True),
                len(c.tokens),
                c.finish,
                math.fsum(c.logprobs),
                other,
            )
            for c, other in zip(group, others, strict=True)
        ]
        for group, others in zip(groups, theirs, strict=True)
    ]


def require_room(config: PretrainedConfig, prompts: Iterable[Sequence[int]], max_tokens: int, where: str) -> None:
    """UserError if a prompt and so many tokens more are longer than what the model reads."""
    room = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if room and longest + max_tokens > room:
        what = f"a prompt of {longest} tokens and {max_tokens} more take {longest + max_tokens}"
        fix = f"allow at most {room - longest}" if longest < room else "leave such questions out, or take another model"
        raise UserError(f"{what}, the model has room for {room}", where=where, fix=fix)


def encoded(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts: of what the template writes, no more."""
    ids: list[list[int]] = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    return ids


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What ends a completion of the model."""
    return ending_tokens(model.generation_config, tokenizer)


def ending_tokens(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What ends a completion: the tokenizer's EOS and those of the model's generation settings (a chat turn's end)."""
    configured = generation.eos_token_id if generation is not None else None
    more = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (tokenizer.eos_token_id, *more) if token is not None})
