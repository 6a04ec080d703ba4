"""The tokenizer of our own models, and their random weights."""

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import keep_tags, make_tokenizer


def test_every_digit_and_tag_is_one_token():
    tokens = make_tokenizer().tokenize("User: 12+7\nAssistant:<think>12+7=19\nwait</think><answer>19</answer>")
    chain = ["<think>", *"12+7=19\n", "wait", "</think>"]
    assert tokens == ["User: ", *"12+7", "\nAssistant:", *chain, "<answer>", *"19", "</answer>"]


def test_the_vocabulary_is_fixed_and_all_else_is_unknown():
    words = ["<pad>", "<eos>", "<unk>", "<think>", "</think>", "<answer>", "</answer>"]
    tokens = [*words, "User: ", "\nAssistant:", "wait", "\n", *map(chr, range(32, 127))]
    assert make_tokenizer().get_vocab() == {token: i for i, token in enumerate(tokens)}
    assert len(tokens) == 106
    assert make_tokenizer()("é")["input_ids"] == [tokens.index("<unk>")]


def test_decoding_gives_back_the_text():
    tokenizer = make_tokenizer()
    for text in (
        *("User: (3-1)*4/2\nAssistant:", "<think></think><answer>-7/2</answer>", "1 2\n\n3", "waiwait"),
        *("User: Tom waited, she ate 3?\nAssistant:<think>wait</think>", "User:Assistant: <b>"),
    ):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_tokenizer_that_loses_a_tag_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("</answer>", "")
    with pytest.raises(ValueError, match="its tokenizer cannot write </answer>"):
        keep_tags(tokenizer)


def test_the_chat_template_writes_the_prompt_of_the_corpus(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    apply = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "12+7"}]
    assert apply(turns, tokenize=False, add_generation_prompt=True) == "User: 12+7\nAssistant:"
    answered = [*turns, {"role": "assistant", "content": "<think></think><answer>19</answer>"}]
    whole = "User: 12+7\nAssistant:<think></think><answer>19</answer><eos>"
    assert apply(answered, tokenize=False) == whole


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    shape = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": None}
    a, b, c = (make_model(make_tokenizer(), **shape, seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert (a == b).all() and not (a == c).all()
