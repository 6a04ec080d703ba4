import json

import numpy as np
import pytest

from eval.inspect import said, weights
from eval.inspect.case import AFTER, BEFORE, NOISE
from eval.inspect.run import with_noise
from eval.inspect.words import compared, pick, sentences
from tests.eval.inspect.small import case, in_voices, problems, trained

KNOWN = problems(terms=3)
ASKED = KNOWN[:150]


@pytest.fixture(scope="module")
def only_voice():
    """A network that mostly answers at once, and the same after reading its own chains: its skill is the same."""
    before = trained(in_voices(KNOWN, direct=0.7), steps=350)
    own = before.write(KNOWN, ["<think>"] * len(KNOWN), 40, temperature=1.0, banned="</think>")
    read = [(problem, sample.text) for problem, (sample,) in zip(KNOWN, own, strict=True) if sample.graded.well_formed]
    after = trained(lambda rng: rng.choice(read), steps=60, start=before, rate=3e-4)
    return case(
        before,
        after,
        ASKED,
        others={k: v for k, v in with_noise({BEFORE: before, AFTER: after}, 0).items() if k == NOISE},
    )


@pytest.fixture(scope="module")
def table(only_voice):
    return said.table(json.loads(json.dumps(list(said.measure(only_voice)))))


def test_a_gain_that_is_the_choice_of_voice_alone_is_attributed_to_it(table):
    assert table["gain"]["low"] > 0.3
    assert table["parts"]["voice"]["low"] > 0.85
    equal = pick(table["equal"], voice="worked", temperature=0.0)["difference"]
    assert compared(equal) != "shown"
    assert table["parts"]["rest"]["low"] < 0.1


def test_a_random_difference_of_the_same_size_recovers_nothing(table, only_voice):
    free = pick(table["forced"], network=NOISE, voice="free", temperature=1.0)
    assert abs(free["recovered"]["estimate"]) < 0.12
    assert abs(table["reasons"][NOISE]["estimate"] - table["reasons"][BEFORE]["estimate"]) < 0.1


def test_a_bias_on_the_deciding_token_goes_from_free_to_forced(table):
    free, forced = (
        pick(table["forced"], network=BEFORE, voice=voice, temperature=1.0)["right"] for voice in ("free", "worked")
    )
    first, *_, last = table["biased"]
    assert first["right"]["estimate"] == pytest.approx(free["estimate"], abs=0.06)  # exact, beside a sample
    assert last["right"]["estimate"] == pytest.approx(forced["estimate"], abs=0.01)
    chances = [each["reasons"]["estimate"] for each in table["biased"]]
    assert chances == sorted(chances) and chances[-1] > 0.99


def test_the_bias_is_the_mixture_of_two_voices_by_hand():
    def right(voice, network, hits, temperature=1.0):
        row = {"what": "right", "network": network, "voice": voice, "temperature": temperature, "n": 1}
        return {**row, "right": hits, "voices": {}}

    ones, zeros = [1] * 40, [0] * 40
    rows = [{"what": "reasons", "network": name, "reasons": [0.5] * 40} for name in (BEFORE, AFTER)]
    rows += [right("free", name, hits) for name, hits in ((BEFORE, zeros), (AFTER, ones))]
    for name in (BEFORE, AFTER):
        for temperature in said.TEMPERATURES:
            rows += [right("worked", name, ones, temperature), right("direct", name, zeros, temperature)]
    biased = said.table(rows)["biased"]
    assert biased[0]["right"]["estimate"] == pytest.approx(0.5)
    assert biased[1]["right"]["estimate"] == pytest.approx(np.e / (1 + np.e), abs=1e-6)


def test_a_steering_vector_moves_the_choice_and_a_random_one_does_not(table):
    chances = {(each["vector"], each["layer"], each["scale"]): each["reasons"]["estimate"] for each in table["steered"]}
    vector, layer, scale = max((key for key in chances if key[0] != "random"), key=chances.__getitem__)
    assert chances[vector, layer, scale] > 0.8
    assert abs(chances["random", layer, 1.0] - table["reasons"][BEFORE]["estimate"]) < 0.25


def test_other_random_numbers_alone_recover_nothing(table):
    again = pick(table["forced"], network=said.AGAIN)
    assert abs(again["recovered"]["estimate"]) < 0.25
    assert again["right"] != pick(table["forced"], network=BEFORE, voice="free")["right"]


def test_half_of_the_way_in_the_weights_and_a_random_step_are_told_apart(only_voice):
    changes = weights.table(list(weights.measure(only_voice)))["changes"]
    assert pick(changes, change="alpha", value=1.0)["recovered"]["estimate"] == 1.0
    assert abs(pick(changes, change="random")["recovered"]["estimate"]) < 0.15


def test_a_network_against_itself_has_no_gain_to_take_apart(only_voice):
    alone = case(only_voice.before, only_voice.before, ASKED[:40])
    table = said.table(list(said.measure(alone)))
    assert table["parts"] == {"voice": None, "temperature": None, "rest": None}
    assert sentences({"said": table})[0].startswith("What training brought, +0.0 points")
