"""The first prompts as the model will read them, and what is missing in a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from r1_mini.model.prompts import stop_tokens

_ANSWER = "<answer>2</answer>"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and its tokens."""

    text: str
    ids: Sequence[int]
    tokens: Sequence[str]


def first_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> list[Prompt]:
    """The first three, with tokens as the vocabulary writes them."""
    return [Prompt(str(tokenizer.decode(ids)), ids, tokenizer.convert_ids_to_tokens(ids)) for ids in prompts[:3]]


def tokenizer_faults(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> Iterator[str]:
    """What usually goes wrong in training with a tokenizer, a sentence each."""
    eos, pad = tokenizer.eos_token, tokenizer.pad_token
    if eos is None:
        yield "the tokenizer has no EOS token: only the generation settings can end a completion"
    if pad is None:
        yield "the tokenizer has no pad token: TRL pads with EOS; set one if the model must learn EOS"
    elif pad == eos:
        yield f"the pad token is the EOS token {eos!r}: a loss that leaves out padding leaves out the end too"
    if not tokenizer.chat_template:
        return
    turns = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": _ANSWER}]
    try:
        end = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(_ANSWER)[2]
    except TemplateError:
        yield "the chat template refuses an assistant's turn, so what ends one is unknown"
        return
    stops = stop_tokens(generation, tokenizer)
    if not set(tokenizer(end, add_special_tokens=False)["input_ids"]) & set(stops):
        names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(stops))) or "none"
        what = f"ends a turn with {end!r}" if end.strip() else "writes nothing at the end of a turn"
        yield f"the chat template {what}, which has none of the tokens that end a completion ({names})"
