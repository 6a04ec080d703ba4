"""The tokenizer of models trained from random weights: one token per printable ASCII character, one per tag."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from r1_mini.completion import TAGS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
WORDS = (*TAGS, "User: ", "\nAssistant:", "wait")
"""Tokens of more than one character. Not special tokens: decoding keeps them, and the rewards have to see the tags."""
CHARACTERS = ("\n", *map(chr, range(ord(" "), ord("~") + 1)))
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}User: {{ message.content }}{{ '\\n' }}"
    "{% elif message.role == 'assistant' %}Assistant:{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""`User: 12+7`, a line break, `Assistant:`; a system message is ignored. Jinja drops a line break that follows a block,
hence the expression."""


def make_tokenizer(more: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose decoding gives back every encoded text of `CHARACTERS` and `more`, which are characters or
    words, exactly; other characters are `UNKNOWN`."""
    more = tuple(more)
    tokens = dict.fromkeys((PAD, EOS, UNKNOWN, *WORDS, *CHARACTERS, *more))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words = "|".join(word.replace("\n", r"\n") for word in (*WORDS, *(each for each in more if len(each) > 1)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{words}|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def is_ours(folder: Path) -> bool:
    """Whether a checkpoint was trained from random weights here: it has the tokens of `make_tokenizer`."""
    try:
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        return bool(make_tokenizer().get_vocab().items() <= vocabulary.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def keep_tags(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the tags ordinary tokens where they are special ones, which decoding drops; every id stays as it is.

    ValueError if a text still loses its tags when it is encoded and decoded: the rewards would not see them.
    """
    if set(TAGS) & set(tokenizer.all_special_tokens) and hasattr(tokenizer, "_tokenizer"):
        core = json.loads(tokenizer._tokenizer.to_str())
        for token in core["added_tokens"]:
            token["special"] &= token["content"] not in TAGS
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(core))
        tokenizer.extra_special_tokens = [each for each in tokenizer.extra_special_tokens if each not in TAGS]
    text = "{}1{}{}2{}".format(*TAGS)
    kept = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    for tag in TAGS:
        if tag not in kept:
            raise ValueError(f"its tokenizer cannot write {tag}")
