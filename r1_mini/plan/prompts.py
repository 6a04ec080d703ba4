"""The first prompts as the model will see them, and what a tokenizer lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from r1_mini.completion import TAGS
from r1_mini.model.prompts import encode, stop_tokens

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Shown:
    """A text and its tokens."""

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]


def shown_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[Shown]:
    """The first prompts with the tokens that the sampler is given."""
    first = list(prompts[:SHOWN])
    return [shown(tokenizer, ids, text) for text, ids in zip(first, encode(tokenizer, first), strict=True)]


def shown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str | None = None) -> Shown:
    """Tokens and the text of each; a token that is no whole character is written as the vocabulary has it."""
    texts = []
    for token in ids:
        piece = tokenizer.decode([token])
        texts.append(piece if piece and "\N{REPLACEMENT CHARACTER}" not in piece else _raw(tokenizer, token))
    return Shown(tokenizer.decode(ids) if text is None else text, tuple(ids), tuple(texts))


def _raw(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens([token])[0])


def lacks(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> Iterator[tuple[bool, str]]:
    """What usually goes wrong with a tokenizer: (whether it is a warning or only a note, one line)."""
    eos, pad = tokenizer.eos_token, tokenizer.pad_token
    if eos is None:
        yield True, "the tokenizer has no EOS token: only the generation settings can end a completion"
    if pad is None:
        yield True, "the tokenizer has no pad token: TRL pads with EOS; set one if EOS is to be learned"
    elif pad == eos:
        yield True, f"the pad token is the EOS token {eos!r}: a loss that leaves out padding leaves out the end too"
    if tokenizer.chat_template:
        yield from _template_lacks(tokenizer, generation)
    split = [tag for tag in TAGS if len(tokenizer(tag, add_special_tokens=False)["input_ids"]) > 1]
    if split:
        yield False, f"{', '.join(split)}: more than one token each, as usual for a model that was not trained on them"


def _template_lacks(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None
) -> Iterator[tuple[bool, str]]:
    asked = [{"role": "user", "content": "1+1"}]
    answered = [*asked, {"role": "assistant", "content": _ANSWER}]

    def text(turns: list[dict[str, str]], prompt: bool) -> str:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))

    try:
        end = text(answered, False).rpartition(_ANSWER)[2]
    except TemplateError:
        yield True, "the chat template refuses an assistant's turn, so what ends one is unknown"
        return
    stops = stop_tokens(generation, tokenizer)
    ids = tokenizer(end, add_special_tokens=False)["input_ids"]
    if not set(ids) & set(stops):
        names = ", ".join(repr(_raw(tokenizer, token)) for token in stops) or "none"
        what = f"ends a turn with {end!r}" if end.strip() else "writes nothing at the end of a turn"
        yield True, f"the chat template {what}, which has none of the tokens that end a completion ({names})"


_ANSWER = "<answer>2</answer>"
