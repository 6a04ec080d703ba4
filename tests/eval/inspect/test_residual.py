"""Reading and changing the residual stream, against transformers' own hidden states."""

import pytest
import torch

from eval.inspect import residual
from eval.inspect.residual import added, batches, blocks, layers_of, replaced, states, token_of
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
    texts = "<think>12+7=19\n19-3=16</think>", "<think>1+2=3</think><answer>34</answer>5+6=="
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:16] for text in texts])


def everywhere(model, ids_BS, layers=LAYERS):
    """The states at every place, (L, B, S, D)."""
    return states(model, ids_BS.tolist(), [list(range(ids_BS.shape[1]))] * len(ids_BS), layers)


@torch.no_grad()
def logits(model, ids_BS):
    return model(input_ids=ids_BS, use_cache=False).logits


def test_states_are_transformers_hidden_states_and_the_last_ones_come_before_the_final_norm(model, ids_BS):
    with torch.no_grad():
        theirs = model(input_ids=ids_BS, use_cache=False, output_hidden_states=True).hidden_states
    ours = everywhere(model, ids_BS)
    for mine, its in zip(ours[:-1], theirs, strict=False):
        assert torch.equal(mine, its)
    assert torch.equal(model.model.norm(ours[-1]), theirs[-1])
    assert not torch.allclose(ours[-1], theirs[-1])


def test_states_come_in_the_order_of_the_layers_asked_for(model, ids_BS):
    second, embedding = everywhere(model, ids_BS, [1, -1])
    assert torch.equal(embedding, model.get_input_embeddings()(ids_BS))
    assert torch.equal(second, everywhere(model, ids_BS)[2])


def test_states_are_those_at_the_places_asked_for_in_rows_of_any_length(model, ids_BS):
    whole = everywhere(model, ids_BS)
    rows = [ids_BS[0].tolist(), ids_BS[1, :9].tolist(), ids_BS[1].tolist()]
    found = states(model, rows, [[3, -1], [8, 0], [5, 5]], LAYERS)
    assert found.shape == (4, 3, 2, 32)
    expected = [whole[:, 0, [3, -1]], whole[:, 1, [8, 0]], whole[:, 1, [5, 5]]]
    assert torch.allclose(found, torch.stack(expected, dim=1), atol=1e-6)


def test_a_vector_is_added_where_a_pass_ends_with_the_token_and_nowhere_else(model, ids_BS, tokenizer):
    equals = tokenizer.convert_tokens_to_ids("=")
    assert (ids_BS == equals).sum(dim=1).tolist() == [2, 3]
    for layer in LAYERS:
        for ends in (ids_BS, ids_BS[:, :-1], ids_BS[:, :5]):  # at the ends of rows: 6 and =, 1 and =, 7 and =
            before = logits(model, ends)
            with added(model, layer, equals, torch.zeros(32)):
                assert torch.equal(logits(model, ends), before)
            with added(model, layer, equals, torch.ones(32)):
                after = logits(model, ends)
            changed = (after != before).any(dim=-1)
            assert {tuple(at) for at in changed.nonzero().tolist()} == {
                (row, ends.shape[1] - 1) for row in (0, 1) if ends[row, -1] == equals
            }


def test_a_replaced_state_stands_at_its_places_alone(model, ids_BS):
    places_BK = torch.tensor([[3, 5], [2, 2]])
    new_BKD = torch.arange(128.0).reshape(2, 2, 32)
    new_BKD[1, 1] = new_BKD[1, 0]
    for index, layer in enumerate(LAYERS):
        before = everywhere(model, ids_BS)
        with replaced(model, layer, places_BK, new_BKD):
            after = everywhere(model, ids_BS)
        changed = (after[index] != before[index]).any(dim=-1)
        assert {tuple(place) for place in changed.nonzero().tolist()} == {(0, 3), (0, 5), (1, 2)}
        assert torch.equal(after[index][0, [3, 5]], new_BKD[0]) and torch.equal(after[index][1, 2], new_BKD[1, 0])
        for earlier in range(index):
            assert torch.equal(after[earlier], before[earlier])


def test_replacing_a_state_by_itself_changes_no_bit(model, ids_BS):
    places_BK = torch.tensor([[3, 5], [2, 7]])
    for layer, state in zip(LAYERS, everywhere(model, ids_BS), strict=True):
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


def test_batches_hold_every_row_once_with_others_of_its_length(model):
    rows = [[1, 2, 3], [4, 5], [6, 7], [8, 9, 1]]
    found = list(batches(rows, model))
    assert [(places, ids.tolist()) for places, ids in found] == [
        ([0, 3], [[1, 2, 3], [8, 9, 1]]), ([1, 2], [[4, 5], [6, 7]]),
    ]  # fmt: skip
    assert list(batches([], model)) == []


def test_a_batch_has_no_more_tokens_and_no_more_logits_than_allowed(model, monkeypatch):
    rows = [[1, 2, 3]] * 5
    monkeypatch.setattr(residual, "BATCH_TOKENS", 6)
    assert [places for places, _ in batches(rows, model)] == [[0, 1], [2, 3], [4]]
    monkeypatch.setattr(residual, "LOGITS", 5 * model.config.vocab_size)
    assert [places for places, _ in batches(rows, model)] == [[0], [1], [2], [3], [4]]
