"""How a model that is not ours is asked: by its own chat template, or by the one that R1-Zero gave to base models."""

from __future__ import annotations

from typing import Literal

from transformers import PreTrainedTokenizerBase

from r1_mini.errors import UserError
from r1_mini.transcript import R1_SYSTEM

PromptStyle = Literal["auto", "chat", "base"]
"""`chat`: by the tokenizer's template; `base`: by R1-Zero's; `auto`: chat where there is a template. Some base models
have one too, Qwen's for example: they are to be asked as `base`."""

BASE_TEMPLATE = (
    R1_SYSTEM
    + "{% for message in messages %}{% if message.role == 'user' %} User: {{ message.content }}"
    + "{% if message.content[-1:] not in '.?!' %}.{% endif %}"
    + "{% elif message.role == 'assistant' %} Assistant:{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %} Assistant:{% endif %}"
)
"""`<instruction> User: <question>. Assistant:` (2501.12948, table 1). It takes the place of a system message."""


def is_ours(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it is one of `make_tokenizer`, whose prompt is a token."""
    return "\nAssistant:" in tokenizer.get_vocab()


def give_template(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, where: str) -> None:
    """Make it ask in this style, here and wherever it is saved. Ours keeps its own short prompt.

    UserError if `chat` is asked of a tokenizer without a template.
    """
    if is_ours(tokenizer):
        return
    if style == "chat" and not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template", where=where, fix="ask with the prompt base")
    if style == "base" or not tokenizer.chat_template:
        begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + BASE_TEMPLATE
