"""What the experiments show, in at most five sentences: each has its number and interval, and says no more."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eval.inspect import chains
from eval.inspect.case import AFTER, BEFORE, TEXT
from eval.inspect.figures import Figure
from eval.report.words import in_hundred, signed

Summary = Mapping[str, Any]
"""What inspect.json holds: a table for each experiment."""
EQUAL = 0.03
"""A difference whose interval lies within 3 points of zero is none."""


def ends(figure: Figure) -> str:
    """`41.3% [39.0, 43.6]`."""
    low, high = (in_hundred(figure[end]) for end in ("low", "high"))
    return f"{in_hundred(figure['estimate'])}% [{low}, {high}]"


def points(figure: Figure) -> str:
    """`+5.3 points [+3.8, +6.9]`."""
    low, high = (signed(figure[end]) for end in ("low", "high"))
    return f"{signed(figure['estimate'])} points [{low}, {high}]"


def compared(figure: Figure) -> str:
    """What a difference shows: a gain, a loss, that there is none, or nothing."""
    if figure["low"] > 0:
        return "shown"
    if figure["high"] < 0:
        return "a loss"
    return "no difference" if max(-figure["low"], figure["high"]) <= EQUAL else "not told apart"


def sentences(summary: Summary) -> list[str]:
    """The most important first."""
    written = {"said": _said, "chains": _chains, "weights": _weights, "tokens": _tokens, "probes": _probes}
    return [write(summary[name]) for name, write in written.items() if name in summary]


def pick(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> Mapping[str, Any]:
    """The first row with these values; empty if there is none."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), {})


def _said(table: Summary) -> str:
    gain, parts = table["gain"], table["parts"]
    equal = pick(table["equal"], voice="worked", temperature=0.0)["difference"]
    verdict = {"shown": "fewer slips", "a loss": "more slips"}.get(compared(equal), compared(equal))
    last = f"At the same greedy decoding training brought {points(equal)}: {verdict}."
    if not parts["voice"]:
        return f"There is no gain to take apart: training brought {points(gain)}. {last}"
    return (
        f"Of the gain of {points(gain)}, {ends(parts['voice'])} comes back when the network before training is made to "
        f"write its steps, and {ends(parts['temperature'])} more when it takes its likeliest token; "
        f"{ends(parts['rest'])} is left. {last}"
    )


def chain_verdict(table: Summary, network: str) -> Literal["causal", "decorative", "neither"]:
    """Whether answers come from the chain: after one result is replaced most are the one that follows, or the true one.

    Of chains that no checker reads: after another problem's chain most answers are that chain's, or stay.
    """
    cells = [cell for cell in table["cells"] if cell["network"] == network and cell["chain"] in ("true", "own")]
    cell = pick(cells, change=chains.FIRST, temperature=0.0) or pick(cells, change=chains.LAST)
    cell = cell or pick(cells, change=chains.SWAP)
    if cell and cell["follows"]["low"] > 0.5:
        return "causal"
    return "decorative" if cell and cell["right"]["low"] > 0.5 else "neither"


def _chains(table: Summary) -> str:
    reading = {
        "causal": "The answer comes from the chain",
        "decorative": "The chain is decoration",
        "neither": "Whether the answer comes from the chain is open",
    }[chain_verdict(table, AFTER)]
    where = "true" if pick(table["cells"], chain="true") else "own"
    first = {
        name: pick(table["cells"], network=name, chain=where, change=chains.FIRST, temperature=0.0)
        for name in (BEFORE, AFTER)
    }
    none = pick(table["differences"], chain=where, change=chains.NONE)["right"]
    without = f"without a chain training brought {points(none)}: {compared(none)}"
    if not first[AFTER]:
        swap = pick(table["cells"], network=AFTER, chain=where, change=chains.SWAP)
        return f"{reading}: with another problem's chain {ends(swap['follows'])} give its answer; {without}."
    return (
        f"{reading}: with one number in it replaced, {ends(first[AFTER]['follows'])} give the answer that follows from "
        f"the wrong number ({ends(first[BEFORE]['follows'])} before training), {ends(first[AFTER]['right'])} the true "
        f"one; {without}."
    )


def _weights(table: Summary) -> str:
    changes = table["changes"]
    size = pick(table["sizes"], network=AFTER, kind="all")["size"]
    half, low_rank = pick(changes, change="alpha", value=0.5), pick(changes, change="rank", value=8)
    if not half["recovered"]:
        return f"Training moved the weights by {in_hundred(size)}% of their size."
    without = min(
        (each for each in changes if each["change"] == "without"), key=lambda each: each["recovered"]["estimate"]
    )
    random, text = pick(changes, change="random"), pick(changes, change=TEXT, value=1.0)
    other = f", as much training on other text {ends(text['recovered'])}" if text else ""
    return (
        f"Training moved the weights by {in_hundred(size)}% of their size: half of that step brings "
        f"{ends(half['recovered'])} of the gain, rank 8 of every matrix {ends(low_rank['recovered'])}, all but "
        f"the most needed part ({without['value']}) {ends(without['recovered'])}; a random step of that size brings "
        f"{ends(random['recovered'])}{other}."
    )


def _tokens(table: Summary) -> str:
    found = pick(table["networks"], network=AFTER)
    roles = sorted(found["roles"], key=lambda role: -role["of_kl"])
    voice = pick(table["mixtures"], keeps=BEFORE, exchanged="voice")
    text = (
        f"Of all that changed in what it writes (KL), {in_hundred(roles[0]['of_kl'])}% lies at one kind of place: "
        f"{roles[0]['role']} ({roles[0]['n']} of {sum(role['n'] for role in roles)} tokens)"
    )
    if voice and voice["recovered"]:
        text += f"; exchanging the one token that decides the voice brings {ends(voice['recovered'])} of the gain"
    return f"{text}."


def _probes(table: Summary) -> str:
    cells = [cell for cell in table["cells"] if cell["network"] == AFTER and not cell["trivial"]]
    last = max((cell["layer"] for cell in cells), default=0)
    answer = pick(cells, layer=last, place="prompt end", what="answer ones")
    result = pick(cells, layer=last, place="=", what="tens")
    moved = sum(each["verdict"] != "not shown" for each in table["differences"])
    return (
        f"Before a chain is written a probe reads the last digit of the answer off the network at "
        f"{ends(answer['accuracy'])} (guessing {in_hundred(answer['majority'])}%), at the = of a step the tens of its "
        f"result at {ends(result['accuracy'])} (guessing {in_hundred(result['majority'])}%); training changed "
        f"{moved} of {len(table['differences'])} such readings."
    )
