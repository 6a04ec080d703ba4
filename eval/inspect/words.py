"""What the experiments show, in at most five sentences: each has its number and interval, and says no more."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.inspect.case import AFTER, BEFORE, TEXT
from eval.inspect.figures import Figure
from eval.inspect.stimuli import FIRST, LAST, NONE, SWAP
from eval.report.words import in_hundred, signed

Summary = Mapping[str, Any]
"""What inspect.json holds: a table for each experiment."""
EQUAL = 0.03
"""A difference whose interval lies within 3 points of zero is none."""
SOME = 0.25
"""Of answers that agree by chance there is one in ten."""


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
    written = {"said": _said, "tries": _left, "chains": _chains, "weights": _weights, "probes": _probes}
    found = [write(summary) for name, write in written.items() if name in summary or name == "tries"]
    if "tokens" in summary and "weights" not in summary:
        found.append(_tokens(summary["tokens"]))
    return list(filter(None, found)) or ["The numbers are below."]


def pick(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> Mapping[str, Any]:
    """The first row with these values; empty if there is none."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), {})


def _said(summary: Summary) -> str:
    gain, parts = summary["said"]["gain"], summary["said"]["parts"]
    if not parts["voice"]:
        what = {
            "shown": "is too small to be taken apart",
            "a loss": "is a loss",
            "no difference": "is no gain",
            "not told apart": "cannot be told from none",
        }[compared(gain)]
        return f"What training brought, {points(gain)}, {what}."
    without = in_hundred(1 - parts["rest"]["estimate"])
    return (
        f"{without}% of the gain of {points(gain)} comes back without training: {ends(parts['voice'])} when the "
        f"network before it is made to write its steps, {ends(parts['temperature'])} more with its likeliest tokens."
    )


def _left(summary: Summary) -> str:
    """What training brought beyond what could be said before, and whether that is new."""
    found = []
    if "said" in summary:
        equal = pick(summary["said"]["equal"], voice="worked", temperature=0.0)["difference"]
        verdict = {"shown": "better", "a loss": "worse"}.get(compared(equal), compared(equal))
        found.append(f"both made to write their likeliest steps, training brought {points(equal)}: {verdict}")
    if "tries" in summary:
        table = summary["tries"]
        counted = "sound" if any(each["counted"] == "sound" for each in table["curves"]) else "right"
        never = pick(table["curves"], network=BEFORE, voice="worked", counted=counted)["never"]
        many = f"all {table['n']}" if not never else f"{table['n'] - never} of {table['n']}"
        tries = f"within {table['samples']} tries"
        text = f"made to write its steps, the network before training solved {many} problems {tries}"
        if counted == "sound":  # an answer alone may be luck
            text += " by a sound chain" + (": none is new" if not never else "")
        found.append(text)
    text = "; ".join(found)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def chain_verdict(table: Summary, network: str) -> str:
    """Whether answers come from the chain, from what most of them are after one result in it was replaced.

    Of chains that no checker reads: after another problem's chain.
    """
    cells = [cell for cell in table["cells"] if cell["network"] == network and cell["chain"] in ("true", "own")]
    last = pick(cells, change=LAST) or pick(cells, change=SWAP)
    first = pick(cells, change=FIRST, temperature=0.0) or last
    if not first:
        return "open"
    if "waits" in first and first["waits"]["low"] > 0.5:
        return "corrected"
    if most(first, "follows", "right"):
        return "causal"
    if most(first, "right", "follows") and most(last, "right", "follows"):
        return "decorative"
    return "partly causal" if first["follows"]["low"] > SOME else "open"


def most(cell: Mapping[str, Any], one: str, other: str) -> bool:
    """Whether more than half of the answers are of one kind, and more than twice as many as of the other."""
    return bool(cell[one]["low"] > max(0.5, 2 * cell[other]["estimate"]))


def _chains(summary: Summary) -> str:
    table = summary["chains"]
    reading = {
        "causal": "The answer comes from the chain",
        "partly causal": "Some answers come from the chain",
        "decorative": "The chain is decoration",
        "corrected": "A wrong step is taken back",
        "open": "Whether the answer comes from the chain is open",
    }[chain_verdict(table, AFTER)]
    where = "true" if pick(table["cells"], chain="true") else "own"

    def first(network: str) -> Mapping[str, Any]:
        cells = [cell for cell in table["cells"] if cell["network"] == network and cell["chain"] == where]
        return pick(cells, change=FIRST, temperature=0.0) or pick(cells, change=LAST) or pick(cells, change=SWAP)

    if not (after := first(AFTER)) or not (before := first(BEFORE)):
        return f"{reading}: too few chains end with an answer."
    what = "another problem's chain" if after["change"] == SWAP else "one number in it replaced"
    text = (
        f"{reading}: with {what}, {ends(after['follows'])} give the answer that follows from it "
        f"({ends(before['follows'])} before training), {ends(after['right'])} the true one"
    )
    if none := pick(table["differences"], chain=where, change=NONE):
        text += f"; greedy and without a chain training brought {points(none['right'])}: {compared(none['right'])}"
    return f"{text}."


def _weights(summary: Summary) -> str:
    table = summary["weights"]
    changes = table["changes"]
    size = pick(table["sizes"], network=AFTER, kind="all")["size"]
    half, low_rank = pick(changes, change="alpha", value=0.5), pick(changes, change="rank", value=8)
    if not half["recovered"]:
        return f"Training moved the weights by {in_hundred(size)}% of their size."
    least = min(each["recovered"]["estimate"] for each in changes if each["change"] == "without")
    random, text = pick(changes, change="random"), pick(changes, change=TEXT, value=1.0)
    other = f", as much training on other text {ends(text['recovered'])}" if text else ""
    return (
        f"Training moved the weights by {in_hundred(size)}% of their size: half of that step brings "
        f"{ends(half['recovered'])} of the gain, rank 8 of every matrix {ends(low_rank['recovered'])}, and without any "
        f"one kind of module or layer at least {in_hundred(least)}% is left; a random step of that size brings "
        f"{ends(random['recovered'])}{other}."
    )


def _tokens(table: Summary) -> str:
    found = pick(table["networks"], network=AFTER)
    roles = sorted(found["roles"], key=lambda role: -role["of_kl"]["estimate"])
    voice = pick(table["mixtures"], keeps=BEFORE, exchanged="voice")
    text = (
        f"Of all that changed in what it writes (KL), {ends(roles[0]['of_kl'])} lies at one kind of place: "
        f"{roles[0]['role']} ({roles[0]['n']} of {sum(role['n'] for role in roles)} tokens)"
    )
    if voice and voice["recovered"]:
        text += f"; exchanging the one token that decides the voice brings {ends(voice['recovered'])} of the gain"
    return f"{text}."


def _probes(summary: Summary) -> str:
    table = summary["probes"]
    cells = [cell for cell in table["cells"] if cell["network"] == AFTER and not cell["trivial"]]
    last = max((cell["layer"] for cell in cells), default=0)
    answer = pick(cells, layer=last, place="prompt end", what="answer ones")
    result = pick(cells, layer=last, place="=", what="tens")
    if not answer or not result:
        return "Too few steps have two-digit results to probe."
    moved = sum(each["verdict"] != "not shown" for each in table["differences"])
    return (
        f"Before a chain is written a probe reads the last digit of the answer with a selectivity of "
        f"{points(answer['selectivity'])} over its control task, at the = of a step the tens of its result with "
        f"{points(result['selectivity'])}; a change by training is shown in {moved} of "
        f"{len(table['differences'])} such readings."
    )
