"""How every model is prompted: by the chat template of its tokenizer.

Our own tokenizer has a template too (`User: 12+7`, a line break, `Assistant:`). A base model without a template, or one
that is to be prompted as DeepSeek-R1-Zero was, is given R1-Zero's.

Not here: how an answer is written and read (`completion.py`), and which tokens there are (`tokenizer.py`).
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date
from functools import partial
from typing import Annotated, Literal

from jinja2 import Environment, TemplateError, meta
from pydantic import Field, TypeAdapter, ValidationError
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.config.yaml_file import parse
from r1_mini.errors import UserError, nearest, shown
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.problem import Problem

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

R1_SYSTEM = (
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant "
    "first thinks about the reasoning process in the mind and then provides the User with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>."
)
"""R1-Zero's instruction (2501.12948, table 1), the system prompt of a chat model."""

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
    """The variables that a chat template reads, besides those that are always given."""
    jinja = Environment(extensions=["jinja2.ext.loopcontrols"])  # without transformers' tag for an answer's tokens
    tree = jinja.parse(re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template))
    return meta.find_undeclared_variables(tree) - {"messages", "add_generation_prompt"}


def prompt_for(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The prompt of a question, with R1's instruction as its system message. UserError if the template fails."""
    apply = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    try:
        try:
            return str(apply([{"role": "system", "content": R1_SYSTEM}, {"role": "user", "content": question}]))
        except TemplateError:  # a template without a system role
            return str(apply([{"role": "user", "content": f"{R1_SYSTEM}\n\n{question}"}]))
    except Exception as error:  # a template is a program of the model's maker
        what = f"the chat template fails ({str(error)[:150] or type(error).__name__})"
        raise UserError(what, where=tokenizer.name_or_path, fix="correct it, or use the prompt style base") from error


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


def prompts_for(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[str]:
    """The prompt of each problem. UserError if the tokenizer cannot write one, see `require_known`."""
    require_known(tokenizer, problems)
    return [prompt_for(tokenizer, problem.question) for problem in problems]


def require_known(tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem]) -> None:
    """UserError if a question or an answer has a character that the tokenizer lacks: the model would not see it."""
    unknown, family = tokenizer.unk_token_id, ""
    missing: set[str] = set()

    def lacks(text: str) -> bool:
        if any("\ud800" <= character <= "\udfff" for character in text):  # lone surrogates: not text, in any tokenizer
            return True
        return unknown is not None and unknown in tokenizer(text, add_special_tokens=False)["input_ids"]

    for problem in problems:
        if lacks(text := problem.question + problem.answer):
            missing |= set(filter(lacks, text)) or {text}
            family = family or problem.family
    if missing:
        fix = "leave such rows out, or start from another `model`"
        if not tokenizer.name_or_path:  # it is of no folder: a base stage made it
            more = missing | (tokenizer.get_vocab().keys() - make_tokenizer().get_vocab().keys())
            fix = f"set base.model.characters={json.dumps(''.join(sorted(more)), ensure_ascii=False)}"
        what = f"{family} has {min(missing)!r}, which the model's tokenizer cannot write"
        raise UserError(what, where="problems", fix=fix)


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt. The template has written all special tokens already."""
    ids: list[list[int]] = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    return ids


def stop_tokens(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a completion: the tokenizer's EOS and those of the generation settings (the end of a chat turn)."""
    configured = generation.eos_token_id if generation is not None else None
    more = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (tokenizer.eos_token_id, *more) if token is not None})


def require_context(config: PretrainedConfig, prompts: Iterable[Sequence[int]], max_tokens: int, where: str) -> None:
    """UserError if the longest prompt and `max_tokens` more do not fit into the model's context length."""
    context = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if context and longest + max_tokens > context:
        what = f"a prompt of {longest} tokens and {max_tokens} more take {longest + max_tokens}"
        fix = "leave such questions out, or take another model"
        if longest < context:
            fix = f"{context - longest} would fit"
        raise UserError(f"{what}, the context length of the model is {context}", where=where, fix=fix)
