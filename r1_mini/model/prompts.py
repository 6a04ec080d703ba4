"""How every model is prompted: by the chat template of its tokenizer.

Our own tokenizer has a template too (`User: 12+7`, a line break, `Assistant:`).

Not here: which template a model is given (`templates.py`), how an answer is written and read (`completion.py`), and
which tokens there are (`tokenizer.py`).
"""

import json
from collections.abc import Iterable, Sequence

from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.errors import UserError, explained
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.problem import Problem


def prompt_for(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The prompt of a question, with the system message of its template's first lines. UserError if it fails."""
    turns = [{"role": "user", "content": question}]
    with explained("the chat template fails", tokenizer.name_or_path, "correct it, or use the prompt style base"):
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def prompts_for(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[str]:
    """The prompt of each problem. UserError if the tokenizer cannot write one, see `require_known`."""
    require_known(tokenizer, problems)
    return [prompt_for(tokenizer, problem.question) for problem in problems]


def require_known(tokenizer: PreTrainedTokenizerBase, problems: Iterable[Problem]) -> None:
    """UserError if a question or an answer has a character that the tokenizer lacks: the model would not see it."""
    unknown, family = tokenizer.unk_token_id, ""
    missing: set[str] = set()

    def lacking(texts: list[str]) -> list[str]:
        lone = [any("\ud800" <= character <= "\udfff" for character in text) for text in texts]  # in no tokenizer
        ids = encode(tokenizer, ["" if each else text for text, each in zip(texts, lone, strict=True)])
        return [text for text, each, row in zip(texts, lone, ids, strict=True) if each or unknown in row]

    families = {problem.question + problem.answer: problem.family for problem in problems}
    for text in lacking([*families]) if families else ():
        missing |= set(lacking([*text])) or {text}
        family = family or families[text]
    if missing:
        fix = "leave such questions out, or start from another `model`"
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
    if context is not None and longest + max_tokens > context:
        what = f"a prompt of {longest} tokens and {max_tokens} more take {longest + max_tokens}"
        fix = "leave such questions out, or take another model"
        if longest < context:
            fix = f"{context - longest} would fit"
        raise UserError(f"{what}, the context length of the model is {context}", where=where, fix=fix)
