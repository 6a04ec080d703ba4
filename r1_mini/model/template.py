"""How a model that is not ours is asked: by its own chat template, or by the one that R1-Zero gave to base models."""

from __future__ import annotations

from functools import partial
from typing import Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from r1_mini.completion import R1_SYSTEM
from r1_mini.errors import UserError

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
    backend = getattr(
        tokenizer, "backend_tokenizer", None
    )  # asked for one token: a whole vocabulary takes long to list
    return backend is not None and backend.token_to_id("\nAssistant:") is not None


def give_template(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, where: str) -> None:
    """Make it ask in this style, here and wherever it is saved. Ours keeps its own short prompt.

    UserError if `chat` is asked of a tokenizer without a template, or of one whose template leaves out that it is the
    model's turn.
    """
    if is_ours(tokenizer):
        return
    if style == "chat" and not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template", where=where, fix="ask with the prompt base")
    if style != "base" and tokenizer.chat_template and (lack := _lacks(tokenizer)):
        raise UserError(
            f"the chat template {lack}", where=where, fix="correct chat_template, or ask with the prompt base"
        )
    if style == "base" or not tokenizer.chat_template:
        begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + BASE_TEMPLATE


def _lacks(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What a prompt by the template lacks: the question, or all that tells the model that it is its turn; else None."""
    asked = [{"role": "user", "content": "1+1"}]
    render = partial(tokenizer.apply_chat_template, tokenize=False)
    prompt = str(render(asked, add_generation_prompt=True))
    if "1+1" not in prompt:
        return "leaves out what is asked, if that is text alone"
    if prompt != render(asked, add_generation_prompt=False):
        return None
    try:
        before, answer, _ = str(render([*asked, {"role": "assistant", "content": "#2#"}])).partition("#2#")
    except TemplateError:  # it has no assistant's turn to compare with
        return None
    if not answer or not before.startswith(prompt) or not before.removeprefix(prompt).strip():
        return None
    return "has no generation prompt: the model is not told that it is its turn"
