"""The tokenizer of models trained from random weights: one token per digit, operator and letter, one per tag."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from r1_mini.completion import TAGS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
WORDS = (*TAGS, "User: ", "\nAssistant:", "wait")
"""Tokens of more than one character. Not special tokens: decoding keeps them, and the rewards have to see the tags."""
CHARACTERS = tuple("0123456789+-*/()=\n ")


def make_tokenizer(letters: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer whose decoding gives back the encoded text exactly, for every text of `WORDS`, `CHARACTERS` and
    `letters`, which are the last tokens, in their order in Unicode.
    """
    more = sorted(set(letters) - set(CHARACTERS))
    vocabulary = {token: index for index, token in enumerate((PAD, EOS, UNKNOWN, *WORDS, *CHARACTERS, *more))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words = "|".join(word.replace("\n", r"\n") for word in WORDS)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{words}|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
