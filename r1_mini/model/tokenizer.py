"""The tokenizer of models trained from random weights: one token per printable ASCII character, one per tag."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer whose decoding gives back every encoded text of `CHARACTERS` exactly; others are `UNKNOWN`."""
    vocabulary = {token: index for index, token in enumerate((PAD, EOS, UNKNOWN, *WORDS, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words = "|".join(word.replace("\n", r"\n") for word in WORDS)
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
