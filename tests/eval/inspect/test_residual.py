"""Reading and changing the residual stream, against transformers' own hidden states."""

import pytest
import torch

from eval.inspect.residual import added, batches, blocks, layers_of, padded, replaced, states, token_of
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer

LAYERS = (-1, 0, 1, 2)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer, hidden_size=32, layers=3, heads=2, intermediate_size=64, seed=0).eval()


@pytest.fixture(scope="module")
def ids_BS(model, tokenizer):
    texts = "<think>12+7=19\n19-3=16</think>", "<think>1+2=3</think>"
    return padded([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts], model)


@torch.no_grad()
def logits(model, ids_BS):
    return model(input_ids=ids_BS, use_cache=False).logits


def test_states_are_transformers_hidden_states_and_the_last_ones_come_before_the_final_norm(model, ids_BS):
    with torch.no_grad():
        theirs = model(input_ids=ids_BS, use_cache=False, output_hidden_states=True).hidden_states
    ours = states(model, ids_BS, LAYERS)
    for mine, its in zip(ours[:-1], theirs, strict=False):
        assert torch.equal(mine, its)
    assert torch.equal(model.model.norm(ours[-1]), theirs[-1])
    assert not torch.allclose(ours[-1], theirs[-1])


def test_states_come_in_the_order_of_the_layers_asked_for(model, ids_BS):
    second, embedding = states(model, ids_BS, [1, -1])
    assert torch.equal(embedding, model.get_input_embeddings()(ids_BS))
    assert torch.equal(second, states(model, ids_BS, LAYERS)[2])


def test_adding_nothing_changes_no_bit_and_adding_something_acts_from_its_token_on(model, ids_BS, tokenizer):
    equals = tokenizer.convert_tokens_to_ids("=")
    before = logits(model, ids_BS)
    for layer in LAYERS:
        with added(model, layer, equals, torch.zeros(32)):
            assert torch.equal(logits(model, ids_BS), before)
        with added(model, layer, equals, torch.ones(32)):
            after = logits(model, ids_BS)
        first = int((ids_BS[0] == equals).nonzero()[0])
        assert torch.equal(after[0, :first], before[0, :first])
        assert not torch.allclose(after[0, first], before[0, first])
    assert torch.equal(logits(model, ids_BS), before)


def test_a_replaced_state_stands_at_its_places_alone(model, ids_BS):
    places_BK = torch.tensor([[3, 5], [2, 2]])
    new_BKD = torch.arange(128.0).reshape(2, 2, 32)
    new_BKD[1, 1] = new_BKD[1, 0]
    for index, layer in enumerate(LAYERS):
        before = states(model, ids_BS, LAYERS)
        with replaced(model, layer, places_BK, new_BKD):
            after = states(model, ids_BS, LAYERS)
        changed = (after[index] != before[index]).any(dim=-1)
        assert {tuple(place) for place in changed.nonzero().tolist()} == {(0, 3), (0, 5), (1, 2)}
        assert torch.equal(after[index][0, [3, 5]], new_BKD[0]) and torch.equal(after[index][1, 2], new_BKD[1, 0])
        for earlier in range(index):
            assert torch.equal(after[earlier], before[earlier])


def test_replacing_a_state_by_itself_changes_no_bit(model, ids_BS):
    places_BK = torch.tensor([[3, 5], [2, 7]])
    for layer, state in zip(LAYERS, states(model, ids_BS, LAYERS), strict=True):
        with replaced(model, layer, places_BK, state[torch.arange(2)[:, None], places_BK]):
            patched = logits(model, ids_BS)
        assert torch.equal(patched, logits(model, ids_BS))


def test_every_character_knows_its_token(tokenizer):
    text = "<think>1+2=3\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert token_of(tokenizer, text) == [0] * 7 + [1, 2, 3, 4, 5, 6]
    assert [tokenizer.decode([ids[token]]) for token in token_of(tokenizer, text)[6:]] == ["<think>", *"1+2=3\n"]


def test_layers_are_the_embedding_and_all_blocks_or_those_asked_for(model):
    assert len(blocks(model)) == 3
    assert layers_of(model, None) == (-1, 0, 1, 2)
    assert layers_of(model, (1,)) == (-1, 1)


def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed():
    assert list(batches([5, 2, 2, 9], most=6)) == [[1, 2], [0], [3]]
    assert list(batches([])) == []
