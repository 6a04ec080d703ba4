from eval.inspect.stimuli import FIRST, LAST, NONE
from eval.inspect.words import chain_verdict, compared, sentences


def share(estimate, low, high):
    return {"estimate": estimate, "low": low, "high": high}


ALL, NO, HALF = share(0.98, 0.95, 1.0), share(0.01, 0.0, 0.03), share(0.5, 0.46, 0.54)


def chains(follows, right, last=(ALL, NO), waits=NO):
    """The table of a network after whose first result was replaced so many answers follow or are right."""
    cells = [
        {
            "network": name,
            "chain": "true",
            "temperature": 0.0,
            "change": change,
            "follows": one,
            "right": other,
            "waits": waits,
        }
        for name in ("before", "after")
        for change, (one, other) in ((FIRST, (follows, right)), (LAST, last))
    ]
    none = {"chain": "true", "temperature": 0.0, "change": NONE, "right": share(0.0, -0.01, 0.01)}
    return {"cells": cells, "differences": [none]}


def test_the_verdict_on_chains_says_no_more_than_the_answers():
    assert chain_verdict(chains(ALL, NO), "after") == "causal"
    assert chain_verdict(chains(NO, ALL, last=(NO, ALL)), "after") == "decorative"
    assert chain_verdict(chains(NO, ALL), "after") == "open"  # right in the end, and yet it copies the last result
    assert chain_verdict(chains(NO, ALL, waits=ALL), "after") == "corrected"
    assert chain_verdict(chains(share(0.56, 0.52, 0.6), share(0.44, 0.4, 0.48)), "after") == "partly causal"
    assert chain_verdict(chains(NO, NO), "after") == "open"
    assert chain_verdict({"cells": [], "differences": []}, "after") == "open"


def test_a_difference_is_none_only_if_its_interval_is_narrow():
    assert compared(share(0.05, 0.01, 0.09)) == "shown"
    assert compared(share(-0.05, -0.09, -0.01)) == "a loss"
    assert compared(share(0.0, -0.02, 0.02)) == "no difference"
    assert compared(share(0.0, -0.04, 0.04)) == "not told apart"


def said(gain, parts):
    equal = [{"voice": "worked", "temperature": 0.0, "difference": share(0.05, 0.02, 0.08)}]
    return {"said": {"gain": gain, "parts": parts, "equal": equal}}


def test_what_comes_back_without_training_is_what_is_not_left():
    parts = {"voice": share(0.58, 0.55, 0.61), "temperature": share(0.37, 0.3, 0.4), "rest": share(0.05, 0.02, 0.08)}
    text, left = sentences(said(share(0.7, 0.6, 0.8), parts))
    assert text.startswith("95.0% of the gain of +70.0 points [+60.0, +80.0] comes back without training")
    assert "58.0% [55.0, 61.0]" in text and "+5.0 points [+2.0, +8.0]: better" in left


def test_a_loss_and_a_small_gain_are_not_called_none():
    nothing = dict.fromkeys(("voice", "temperature", "rest"))
    for gain, words in (
        (share(-0.05, -0.08, -0.02), "is a loss"),
        (share(0.02, 0.01, 0.05), "is too small to be taken apart"),
        (share(0.0, -0.1, 0.1), "cannot be told from none"),
        (share(0.0, -0.02, 0.02), "is no gain"),
    ):
        assert words in sentences(said(gain, nothing))[0]


def test_nothing_is_new_only_if_every_problem_was_solved_before():
    for never, words in (
        (0, "solved all 100 problems within 256 tries by a sound chain: none is new."),
        (3, "97 of 100 problems"),
    ):
        curves = [{"network": "before", "voice": "worked", "counted": "sound", "never": never}]
        (text,) = sentences({"tries": {"n": 100, "samples": 256, "curves": curves}})
        assert words in text and ("new" in text) == (not never)


def test_an_answer_that_may_be_luck_is_not_called_known_before():
    curves = [{"network": "before", "voice": "worked", "counted": "right", "never": 0}]
    assert "new" not in sentences({"tries": {"n": 4, "samples": 256, "curves": curves}})[0]


def test_what_has_no_sentence_points_to_the_numbers():
    assert sentences({"patching": {}}) == ["The numbers are below."]
