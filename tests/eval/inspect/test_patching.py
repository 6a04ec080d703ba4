"""Activation patching on scripted networks, whose use of a line is known, and against the exchange of tokens."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig

from eval.inspect.case import AFTER, BEFORE, Case, Marks, Network
from eval.inspect.patching import OTHER, RANDOM, Pair, guesses, measure, pairs, patches, scores, table, texts_of
from eval.inspect.residual import states
from eval.inspect.stimuli import standing, with_value
from r1_mini.completion import write
from r1_mini.data.mix import draw, source_of
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.problems.arithmetic import parse
from r1_mini.problems.families.base import worked_out
from r1_mini.problems.families.sum import Sum
from r1_mini.problems.languages import WORDS, written

TOKENIZER = make_tokenizer()


class Scripted(nn.Module):
    """A network whose state is the token that it read, and which writes the true chain on from the line it reads.

    A causal one goes on from the result in the line, one that does not look goes on from the question. Between its two
    blocks the causal one moves the result of a line to the line's end, where alone it is read, if it `moves`.
    """

    def __init__(self, causal=True, moves=False):
        super().__init__()
        size = len(TOKENIZER)
        self.config, self.generation_config, self.device = PretrainedConfig(vocab_size=size), None, torch.device("cpu")
        self.embedding = nn.Embedding.from_pretrained(torch.eye(size, 3 * size))
        self.blocks = nn.ModuleList([Move() if moves else nn.Identity(), nn.Identity()])
        self.causal, self.moves = causal, moves

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache=False, logits_to_keep=0):
        state = self.embedding(input_ids)
        for block in self.blocks:
            state = block(state)
        size = len(TOKENIZER)
        logits = torch.zeros(*input_ids.shape, size)
        for row, each in enumerate(state):
            text = TOKENIZER.decode(each[:, :size].argmax(dim=-1)).partition("</answer>")[0]
            head, _, chain = text.partition("<think>")
            problem = solved(head.removeprefix("User: ").removesuffix("\nAssistant:"))
            line = chain.partition("\n")[0]
            result = line.rpartition("=")[2]
            if self.moves:
                end = TOKENIZER(f"{head}<think>{line}\n", add_special_tokens=False, return_tensors="pt")["input_ids"]
                places = each[end.shape[1] - 1].view(3, size)[1:]
                result = TOKENIZER.decode(places.argmax(dim=-1)[places.amax(dim=-1) > 0])
            steps, answer = rest(problem, result) if self.causal else (problem.steps[1:], problem.answer)
            ids = TOKENIZER(head + write((line, *steps), answer), add_special_tokens=False)["input_ids"]
            begin = TOKENIZER(f"{head}<think>{line}\n", add_special_tokens=False)["input_ids"]
            for place in range(len(begin) - 1, min(len(ids), input_ids.shape[1]) - 1):
                logits[row, place, ids[place + 1]] = 1
        return type("Output", (), {"logits": logits})


class Move(nn.Module):
    """Writes the two digits before every line's end into the state at that end."""

    def forward(self, state):
        size = len(TOKENIZER)
        new = state.clone()
        ends = state[:, :, TOKENIZER.convert_tokens_to_ids("\n")] == 1
        for row, place in ends.nonzero().tolist():
            new[row, place, size : 2 * size] = state[row, place - 2, :size]
            new[row, place, 2 * size :] = state[row, place - 1, :size]
        return new


def rest(problem, result):
    """The steps after the first, and the answer, if the first has this result."""
    steps, _, answer = worked_out(standing(problem, with_value(problem.steps, 0, result)[:1]))
    return steps, answer


class Signs(Case):
    """The scripted networks do not write."""

    def language(self, network):
        return "signs"


def solved(question):
    return Sum().problem(parse(question))


def case_of(problems, **scripted):
    networks = {name: Network(Scripted(**scripted), TOKENIZER) for name in (BEFORE, AFTER)}
    return Signs(networks, problems, [], share=0.03)


def estimates(case):
    found = table(list(measure(case)))
    cells = {
        (cell["place"], cell["layer"]): cell
        for cell in found["cells"]
        if (cell["network"], cell["what"]) == (AFTER, OTHER)
    }
    return {
        where: tuple(cell[what] and cell[what]["estimate"] for what in ("implied", "own", "next_implied", "next_own"))
        for where, cell in cells.items()
    }


@pytest.fixture(scope="module")
def problems():
    source = source_of({"family": "sum", "terms": [3, 4], "digits": 2, "largest": 99})
    return list(islice(draw([source], "train", 0), 150))


@pytest.fixture(scope="module")
def network():
    model = make_model(TOKENIZER, hidden_size=32, layers=2, heads=2, intermediate_size=64, seed=0).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
    return Network(model, TOKENIZER)


def test_what_another_result_implies_by_hand():
    assert Pair(solved("45-29+7-3"), solved("35-19+7-3")).false == ("45-29=16",)
    assert Pair(solved("45-29+7-3"), solved("55-29+7-3")).implied == (("26+7=33", "33-3=30"), "30")


def test_pairs_align_and_stay_within_the_values_of_their_family(network):
    one, other, short, single = (solved(each) for each in ("20+30-45", "20-10+80", "2+95-96", "20+30"))
    # 10 in place of 50 would lead to -35, below 0, and 50 in place of 10 to 130, above all
    assert list(pairs([one, other, short, single], network)) == []
    large = replace(solved("50+90+80"), family="product")  # no value of that family is one of sums
    assert list(pairs([one, other, short, large], network)) == []
    near = solved("60-11+30")
    assert list(pairs([one, short, near], network)) == [Pair(one, near), Pair(near, one)]
    assert Pair(one, near).implied == (("49-45=4",), "4")
    assert list(pairs([one, short, replace(near, family="product")], network)) == []


def test_problems_whose_implied_rest_has_fewer_steps_are_no_pair(network):
    one, other = (families.solve(question) for question in ("(5+3)/4*4", "(4+3)/4*4"))  # 7/4 is a number, not a step
    assert (one.steps[1:], other.steps[1:]) == (("8/4=2", "2*4=8"), ("7/4*4=7",))
    assert list(pairs([one, other], network)) == []


def test_every_problem_is_paired_once_with_one_whose_result_differs(problems, network):
    found = list(pairs(problems, network))
    assert len({pair.own.question for pair in found}) == len(found) > 50
    for text, pair in zip(texts_of(network, found, "signs"), found, strict=True):
        assert pair.own.answer != pair.implied[1]
        assert len(text.other) == text.start
        assert text.own[: text.start] == text.implied[: text.start]
        decoded = {place: TOKENIZER.decode([text.own[token] for token in at]) for place, at in text.places.items()}
        operands, result = pair.own.steps[0].split("=")
        assert decoded == {"digits of the value": result, "end of line": "\n", "=": "=", "operands": operands}
        theirs = TOKENIZER.decode([text.other[token] for token in text.places["digits of the value"]])
        assert theirs == pair.other.steps[0].rpartition("=")[2]


def test_a_network_that_goes_on_from_the_digits_follows_them_from_every_layer(problems):
    found = estimates(case_of(problems))
    assert found["nothing", None] == (0, 1, 0, 1)
    for layer in (-1, 0, 1):
        assert found["digits of the value", layer] == (1, 0, 1, 0)
        assert found["end of line", layer] == found["=", layer] == found["operands", layer] == (0, 1, 0, 1)


def test_a_network_that_does_not_look_at_its_line_is_moved_by_nothing(problems):
    assert set(estimates(case_of(problems, causal=False)).values()) == {(0, 1, 0, 1)}


def test_a_value_that_moves_to_the_end_of_its_line_is_found_on_its_digits_before_and_there_after(problems):
    two = [each for each in problems if int(each.steps[0].rpartition("=")[2]) >= 10]
    found = estimates(case_of(two, moves=True))
    follows, stays = (1, 0, 1, 0), (0, 1, 0, 1)
    assert [found["digits of the value", layer] for layer in (-1, 0, 1)] == [follows, stays, stays]
    assert [found["end of line", layer] for layer in (-1, 0, 1)] == [stays, follows, follows]


def test_in_words_the_places_are_the_words(problems, network):
    tokenizer = make_tokenizer(more=WORDS.values())
    spoken = Network(make_model(tokenizer, hidden_size=32, layers=1, heads=2, intermediate_size=64, seed=0), tokenizer)
    (pair,) = islice(pairs(problems, network), 1)
    (text,) = texts_of(spoken, [pair], "words")
    decoded = {place: tokenizer.decode([text.own[token] for token in at]) for place, at in text.places.items()}
    operands, result = written(pair.own.steps, "words")[0].split(" is ")
    assert decoded == {"digits of the value": result, "end of line": "\n", "=": " is ", "operands": operands}
    assert len(text.places["="]) == 1


def test_a_random_step_is_as_long_as_the_one_to_the_other_state(problems, network):
    texts = texts_of(network, list(islice(pairs(problems, network), 20)), "signs")
    found = {(place, what, patch[0]): patch for place, what, patch in patches(network, texts, (-1, 1), seed=0)}
    for layer in (-1, 1):
        (_, at, theirs), (_, same, random) = (found["digits of the value", what, layer] for what in (OTHER, RANDOM))
        mine = states(network.model, [text.own for text in texts], at.tolist(), [layer])[0]
        assert torch.equal(at, same)
        assert torch.allclose((random - mine).norm(dim=-1), (theirs - mine).norm(dim=-1), atol=1e-5)
        moved = (theirs - mine).norm(dim=-1) > 0
        cosine = torch.cosine_similarity(random - mine, theirs - mine, dim=-1)[moved]
        assert moved.any() and abs(float(cosine.mean())) < 0.2
    assert {what for place, what, _ in found if place == "="} == {OTHER}


def test_a_state_put_into_its_own_problem_changes_no_bit(problems, network):
    texts = texts_of(network, list(islice(pairs(problems, network), 20)), "signs")
    rows = [text.own for text in texts]
    before = guesses(network, rows, None)
    at = [text.places["="] + text.places["end of line"] for text in texts]
    for layer, state in zip((-1, 0, 1), states(network.model, rows, at, (-1, 0, 1)), strict=True):
        patch = layer, torch.tensor(at), state
        assert guesses(network, rows, patch) == before
        assert scores(network, texts, patch) == scores(network, texts, None)


def test_patched_embeddings_are_exchanged_tokens(problems, network):
    texts = texts_of(network, list(pairs(problems, network)), "signs")
    texts = [text for text in texts if len(text.places["digits of the value"]) == 2]
    at = [text.places["digits of the value"] for text in texts]
    (state,) = states(network.model, [text.other for text in texts], at, [-1])
    rows = [text.own for text in texts]
    exchanged = [list(row) for row in rows]
    for row, text in zip(exchanged, texts, strict=True):
        for token in text.places["digits of the value"]:
            row[token] = text.other[token]
    patched = guesses(network, rows, (-1, torch.tensor(at), state))
    assert patched == guesses(network, exchanged, None)
    assert patched != guesses(network, rows, None)


def test_first_tokens_are_scored_only_where_they_differ(network):
    same, differs = Pair(solved("20+30-40"), solved("11+40-10")), Pair(solved("20+30-40"), solved("90-10-30"))
    found = scores(network, texts_of(network, [same, differs], "signs"), None)  # 50 and 51, 50 and 80
    assert {score: len(hits) for score, hits in found.items()} == {
        "own": 2, "implied": 2, "next_own": 1, "next_implied": 1,
    }  # fmt: skip


def test_foreign_chains_are_not_patched(problems):
    case = case_of(problems)
    foreign = {name: Network(each.model, TOKENIZER, Marks("<a>", "</a>")) for name, each in case.networks.items()}
    assert list(measure(Case(foreign, problems, []))) == []
    assert list(measure(Case(case.networks, problems[:1], []))) == []
    assert table([]) == {"n": 0, "cells": []}
