"""How every model is prompted: by the chat template of its tokenizer.

Our own tokenizer has a template too (`User: 12+7`, a line break, `Assistant:`). A base model without a template, or one
that is to be prompted as DeepSeek-R1-Zero was, is given R1-Zero's.

Not here: how an answer is written and read (`completion.py`), and which tokens there are (`tokenizer.py`).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

from jinja2 import TemplateError
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.errors import UserError
from r1_mini.problems.problem import Problem

PromptStyle = Literal["auto", "chat", "base"]
"""`chat`: the tokenizer's template; `base`: R1-Zero's; `auto`: `chat` where there is a template. Some base models have
one too, Qwen's for example; they should be prompted as `base`."""

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


def give_template(tokenizer: PreTrainedTokenizerBase, style: PromptStyle, where: str) -> None:
    """Give the tokenizer the template of this style, here and wherever it is saved.

    UserError if there is none, or if it leaves out a question that is plain text, as some for images do.
    """
    if style == "base" or (style == "auto" and not tokenizer.chat_template):
        begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + BASE_TEMPLATE
    if not tokenizer.chat_template or "1+1" not in prompt_for(tokenizer, "1+1"):
        what = "the chat template is missing, or leaves the question out"
        raise UserError(what, where=where, fix="correct it, or use the prompt style base")


def prompt_for(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The prompt of a question, with R1's instruction as its system message."""
    apply = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    try:
        return str(apply([{"role": "system", "content": R1_SYSTEM}, {"role": "user", "content": question}]))
    except TemplateError:  # a template without a system role
        return str(apply([{"role": "user", "content": f"{R1_SYSTEM}\n\n{question}"}]))


def prompts_for(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[str]:
    """The prompt of each problem. UserError if the tokenizer cannot write one, see `require_known`."""
    require_known(tokenizer, problems)
    return [prompt_for(tokenizer, problem.question) for problem in problems]


def require_known(tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem]) -> None:
    """UserError if a question or an answer has a character that the tokenizer lacks: the model would not see it."""
    unknown = tokenizer.unk_token_id

    def lacks(text: str) -> bool:
        return unknown is not None and unknown in tokenizer(text, add_special_tokens=False)["input_ids"]

    for problem in problems:
        if lacks(text := problem.question + problem.answer):
            character = next(filter(lacks, text), text)
            what = f"{problem.family} has {character!r}, which the model's tokenizer cannot write"
            raise UserError(what, where="problems", fix="leave such rows out, or start from another `model`")


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
