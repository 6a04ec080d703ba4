"""Which chat template a model is prompted with, with the date and the user's variables fixed in it.

A base model without a template, or one that is to be prompted as DeepSeek-R1-Zero was, is given R1-Zero's.
"""

import re
from datetime import date
from typing import Annotated, Literal

from jinja2 import Environment, meta
from pydantic import Field, TypeAdapter, ValidationError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from r1_mini.config.yaml_file import parse
from r1_mini.errors import UserError, nearest, shown
from r1_mini.model.prompts import R1_SYSTEM, prompt_for, stop_tokens

Variables = dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], bool | int | float | str | None]
PromptStyle = Literal["auto", "chat", "base"] | Annotated[Variables, Field(min_length=1)]
"""`chat`: the tokenizer's template; `base`: R1-Zero's; `auto`: `chat` where there is a template. Some base models have
one too, Qwen's for example; they should be prompted as `base`. A mapping is `chat` with these variables of the template
set, such as `{enable_thinking: false}`."""

DAY = date(2024, 7, 26)
"""The date in the prompts of a template that writes today's, so that no prompt depends on the day. The templates of
Llama 3 write it where there is no clock."""
_DATES = "".join(f" | replace('%{code}', '{DAY:%{code}}')" for code in "aAbBdHIjmMpSyY")
_CLOCK = f"{{% macro strftime_now(format) %}}{{{{ format | replace('%-', '%'){_DATES} }}}}{{% endmacro %}}"
_FIXED = "{# fixed #}"
"""How the line begins that `give_template` puts before a template."""

BASE_TEMPLATE = (
    R1_SYSTEM
    + "{% for message in messages %}{% if message.role == 'user' %} User: {{ message.content }}"
    + "{% if message.content[-1:] not in '.?!' %}.{% endif %}"
    + "{% elif message.role == 'assistant' %} Assistant:{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %} Assistant:{% endif %}"
)
"""`<instruction> User: <question>. Assistant:` (2501.12948, table 1). It replaces a system message."""


def prompt_style(text: str, where: str) -> PromptStyle:
    """The style that a YAML text names; UserError if it names none."""
    try:
        return TypeAdapter[PromptStyle](PromptStyle).validate_python(parse(text, where))
    except ValidationError:
        fix = "write auto, chat, base, or a mapping such as {enable_thinking: false}"
        raise UserError(f"{shown(text)} is no style of prompts", where=where, fix=fix) from None


def give_template(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, where: str) -> None:
    """Give the tokenizer the template of this style, here and wherever it is saved.

    The date and the variables of the style are fixed in the template's first line. UserError if there is no template,
    if it does not use a variable, or if it leaves out a question that is plain text, as some for images do.
    """
    if style == "base" or (style == "auto" and not tokenizer.chat_template):
        begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + BASE_TEMPLATE
    elif tokenizer.chat_template:
        _fix(tokenizer, style if isinstance(style, dict) else {}, where)
    if not tokenizer.chat_template or "1+1" not in prompt_for(tokenizer, "1+1"):
        what = "the chat template is missing, or leaves the question out"
        raise UserError(what, where=where, fix="correct it, or use the prompt style base")


def _fix(tokenizer: PreTrainedTokenizerBase, variables: Variables, where: str) -> None:
    """Fix the date and the variables in a line before the template, instead of the line of an earlier style."""
    template = tokenizer.get_chat_template()
    whole = re.sub(rf"\A{re.escape(_FIXED)}.*\n", "", template) if variables else template
    for name in variables:
        if name not in (known := _variables(whole)):
            raise UserError(f"the chat template has no variable '{name}'", where=where, fix=nearest(name, known))
    line = _CLOCK if "strftime_now" in whole else ""
    line += "".join(f"{{% set {name} = {value!r} %}}" for name, value in variables.items())
    if line and not whole.startswith(_FIXED):
        tokenizer.chat_template = f"{_FIXED}{line}\n{whole}"  # a line break after a block is not printed


def _variables(template: str) -> set[str]:
    """The variables that a chat template reads, besides those that are always given, and the special tokens."""
    jinja = Environment(extensions=["jinja2.ext.loopcontrols"])  # without transformers' tag for an answer's tokens
    tree = jinja.parse(re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template))
    names = meta.find_undeclared_variables(tree) - {"messages", "add_generation_prompt"}
    return {name for name in names if not name.endswith("_token")}


def template_fault(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> str:
    """A sentence if the chat template ends a turn with none of the tokens that end a completion; else empty."""
    if not tokenizer.chat_template:
        return ""
    turns = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "two"}]
    try:
        end = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition("two")[2]
    except Exception as error:  # a template is a program of the model's maker
        return f"tokenizer: the chat template fails on a question with its answer ({str(error)[:150]})"
    stops = stop_tokens(generation, tokenizer)
    if set(tokenizer(end, add_special_tokens=False)["input_ids"]) & set(stops):
        return ""
    names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(stops))) or "none"
    what = f"ends a turn with {end!r}" if end.strip() else "writes nothing at the end of a turn"
    return f"tokenizer: the chat template {what}, which has none of the tokens that end a completion ({names})"
