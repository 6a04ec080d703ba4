"""Which chat template a model is prompted with, with the system message, the date and the user's variables fixed in it.

A base model without a template, or one that is to be prompted as DeepSeek-R1-Zero was, is given R1-Zero's.
"""

import re
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Annotated, Literal

from jinja2 import Environment, TemplateError, meta
from pydantic import Field, TypeAdapter, ValidationError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from r1_mini.config.yaml_file import parse
from r1_mini.errors import UserError, explained, nearest, shown
from r1_mini.model.prompts import prompt_for, stop_tokens

Variables = dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], bool | int | float | str | None]
PromptStyle = Literal["auto", "chat", "base"] | Annotated[Variables, Field(min_length=1)]
"""`chat`: the tokenizer's template; `base`: R1-Zero's; `auto`: `chat` where there is a template. Some base models have
one too, Qwen's for example; they should be prompted as `base`. A mapping is `chat` with these variables of the template
set, such as `{enable_thinking: false}`; its key `system` is the system message, by default the one that the model was
trained on here, else R1's instruction. `{system: null}` sends none, nor the one that a template writes by itself."""

R1_SYSTEM = (
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant "
    "first thinks about the reasoning process in the mind and then provides the User with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>."
)
"""R1-Zero's instruction (2501.12948, table 1), the system message of a chat model."""

DAY = date(2024, 7, 26)
"""The date in the prompts of a template that writes today's, so that no prompt depends on the day. The templates of
Llama 3 write it where there is no clock."""
_DATES = "".join(f" | replace('%{code}', '{DAY:%{code}}')" for code in "aAbBdHIjmMpSyY")
_CLOCK = f"{{% macro strftime_now(format) %}}{{{{ format | replace('%-', '%'){_DATES} }}}}{{% endmacro %}}"
_FIXED, _SYSTEM, _END = "{# fixed #}", "{# system #}", "{% endfilter %}{# system #}"
"""How the lines begin that `give_template` puts before a template: variables and date, system message; and what ends it
where no system message is sent."""
_PARTS = re.compile(rf"({re.escape(_FIXED)}[^\n]*\n)?({re.escape(_SYSTEM)}[^\n]*\n)?(.*?)({re.escape(_END)})?", re.S)

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

    The system message, the date and the variables of the style are fixed in the template's first lines. UserError if
    there is no template, if it does not use a variable or the system message, or if it leaves out a question that is
    plain text, as some for images do.
    """
    if style == "base" or (style == "auto" and not tokenizer.chat_template):
        tokenizer.chat_template = ("{{ bos_token }}" if _begins(tokenizer) else "") + BASE_TEMPLATE
    elif tokenizer.chat_template:
        with explained("the chat template fails", tokenizer.name_or_path, "correct it, or use the prompt style base"):
            _fix(tokenizer, dict(style) if isinstance(style, dict) else {}, where)
    if not tokenizer.chat_template or "1+1" not in prompt_for(tokenizer, "1+1"):
        what = "the chat template is missing, or leaves the question out"
        raise UserError(what, where=where, fix="correct it, or use the prompt style base")


def _fix(tokenizer: PreTrainedTokenizerBase, variables: Variables, where: str) -> None:
    """Fix date, variables and system message in lines before the template, instead of those of an earlier style."""
    parts = _PARTS.fullmatch(tokenizer.get_chat_template())
    assert parts is not None
    fixed, system, body, end = parts.groups("")
    asked, text = "system" in variables, variables.pop("system", R1_SYSTEM)
    for name in variables:
        if name not in (known := _variables(body)):
            raise UserError(f"the chat template has no variable '{name}'", where=where, fix=nearest(name, known))
    if variables or not fixed:
        line = _CLOCK if "strftime_now" in body else ""
        line += "".join(f"{{% set {name} = {value!r} %}}" for name, value in variables.items())
        fixed = f"{_FIXED}{line}\n" if line else ""  # a line break after a block is not printed
    if asked or not system:
        system, end = _sent(tokenizer, str(text), fixed, body), ""
        if text is None:
            default, end = _default(tokenizer, fixed + body), _END
            system = f"{_SYSTEM}{{% filter replace({default!r}, '', 1) %}}\n"
        elif asked and not system:
            fix = "leave out `system`, or use another model"
            raise UserError("the chat template has no place for a system message", where=where, fix=fix)
    tokenizer.chat_template = f"{fixed}{system}{body.removesuffix(chr(10)) if end else body}{end}"


def _sent(tokenizer: PreTrainedTokenizerBase, text: str, fixed: str, body: str) -> str:
    """The line that puts a system message before messages that have none, or into the question where the template has
    no such role; empty if the template writes no system message."""
    write = partial(tokenizer.apply_chat_template, [{"role": "user", "content": "1+1"}], tokenize=False)
    message = f"[{{'role': 'system', 'content': {text!r}}}]"
    line = f"{_SYSTEM}{{% set messages = ([] if messages[0].role == 'system' else {message}) + messages %}}\n"
    try:
        return line if text.strip() in write(chat_template=fixed + line + body) else ""
    except TemplateError:
        message = f"[{{'role': 'user', 'content': {text!r} ~ '\\n\\n' ~ messages[0].content}}]"
        return f"{_SYSTEM}{{% set messages = {message} + messages[1:] %}}\n"


def _default(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The system message, with what is around it, that a template writes where it is given none; mostly empty."""
    write = partial(tokenizer.apply_chat_template, chat_template=template, tokenize=False)
    system, question = {"role": "system", "content": "?"}, {"role": "user", "content": "1+1"}
    with suppress(TemplateError):  # it has no such role, or wants a question
        turn, both, alone = write([system]), write([system, question]), write([question])
        if both.startswith(turn) and alone.endswith(rest := both.removeprefix(turn)):
            return str(alone.removesuffix(rest).removeprefix(tokenizer.bos_token if _begins(tokenizer) else ""))
    return ""


def _begins(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a text begins with the BOS token."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


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
