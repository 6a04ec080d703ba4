"""The pictures of an inspection, drawn as those of the report are: one for each experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from eval.inspect.case import AFTER, BEFORE, NOISE, TEXT
from eval.inspect.figures import Figure
from eval.inspect.stimuli import CONTROL, FIRST
from eval.inspect.words import pick
from eval.report.plots import AMBER, BLUE, GRAY, GREEN, Line, dots, lines

Summary = Mapping[str, Any]
COLORS = {BEFORE: GRAY, AFTER: GREEN, TEXT: AMBER, NOISE: BLUE}


def tries(table: Summary) -> Markup:
    """pass@k, counted on sound chains where a checker reads them."""
    counted = "sound" if any(each["counted"] == "sound" for each in table["curves"]) else "right"
    labels = {"free": "asked", "worked": "made to write its steps"}
    series = []
    for each in table["curves"]:
        if each["counted"] == counted:
            curve = pd.DataFrame(each["curve"]).astype({"k": str}).set_index("k")
            style, color = "--" if each["voice"] == "worked" else "-", COLORS[each["network"]]
            label = f"{each['network']}, {labels[each['voice']]}"
            series.append(Line(label, color, curve["estimate"], curve[["low", "high"]], style=style))
    if table["guess"]:
        guess = pd.DataFrame(table["guess"]).astype({"k": str}).set_index("k")["estimate"]
        series.append(Line("right by guessing", BLUE, guess, style=":", marker=""))
    return lines("Solved at all within k tries", "k, tries", series, share=True)


def replaced(table: Summary) -> Markup:
    """What the networks answer when one number of a true chain was replaced."""
    cells = [c for c in table["cells"] if c["chain"] == "true" and c["temperature"] == 0.0]
    rows = [
        (label, {c["network"]: c.get(score) for c in cells if c["change"] == change})
        for label, change, score in (
            ("it follows the replaced number", FIRST, "follows"),
            ("it is the true answer all the same", FIRST, "right"),
            ("nothing replaced: it is right", CONTROL, "right"),
        )
    ]
    return dots("What the answer is, after one number in the chain was replaced", rows, COLORS)


def changes(table: Summary, chain: str) -> Markup:
    """Whether the answer is right after each change of the chain."""
    cells = [c for c in table["cells"] if c["chain"] == chain and c["temperature"] == 0.0]
    names = dict.fromkeys(c["change"] for c in cells)
    rows = [(name, {c["network"]: c["right"] for c in cells if c["change"] == name}) for name in names]
    return dots("Share of right answers after each change of the chain", rows, COLORS)


def staircase(table: Summary) -> Markup:
    """From the network before training to the one after it, by what a setting brings."""

    def right(network: str, voice: str, temperature: float) -> Figure | None:
        return pick(table["forced"], network=network, voice=voice, temperature=temperature).get("right")

    steps = (
        ("before, asked once", BEFORE, "free", 1.0),
        ("before, made to write its steps", BEFORE, "worked", 1.0),
        ("… and taking its likeliest token", BEFORE, "worked", 0.0),
        ("after, taking its likeliest token", AFTER, "worked", 0.0),
        ("after, asked once", AFTER, "free", 1.0),
        ("before, made to answer at once", BEFORE, "direct", 0.0),
        ("after, made to answer at once", AFTER, "direct", 0.0),
    )
    rows = [(label, {network: right(network, voice, heat)}) for label, network, voice, heat in steps]
    return dots("What a setting brings, and what training brought", rows, COLORS)


def alpha(table: Summary) -> Markup:
    """Accuracy along the way from BEFORE to AFTER in the weights; dashed: made to write its steps, greedy."""
    found = [each for each in table["changes"] if each["change"] == "alpha"]
    index = [each["value"] for each in found]
    series = [
        Line(
            label,
            color,
            pd.Series([each[key]["estimate"] for each in found], index),
            _band(found, key, index),
            style=style,
        )
        for label, color, key, style in (
            ("asked once", GREEN, "right", "-"),
            ("made to write its steps, greedy", GRAY, "greedy", "--"),
        )
    ]
    chance = pd.Series([each["reasons"]["estimate"] for each in found], index)
    series.append(Line("chooses to write steps", BLUE, chance, style=":"))
    return lines("Accuracy along the way from before to after", "part of the difference", series, share=True)


def _band(found: Sequence[Mapping[str, Any]], key: str, index: list[float]) -> pd.DataFrame:
    return pd.DataFrame([{end: each[key][end] for end in ("low", "high")} for each in found], index)


def parts(table: Summary) -> Markup:
    """The share of the gain that each part of the difference brings alone, and all but it."""
    rows: dict[str, dict[str, Figure | None]] = {}
    for each in table["changes"]:
        if each["change"] in ("only", "without"):
            rows.setdefault(str(each["value"]), {})[f"{each['change']} this part"] = each["recovered"]
        elif each["change"] == "rank":
            rows.setdefault(f"rank {each['value']} of every matrix", {})["only this part"] = each["recovered"]
        elif each["change"] in ("random", "shuffled"):
            number = f" {each['value'] + 1}" if each["change"] == "random" else ""
            rows.setdefault(f"{each['change']}{number}, same size", {})["control"] = each["recovered"]
        elif each["change"] == TEXT and each["value"] == 1.0:
            rows.setdefault("training on other text", {})["control"] = each["recovered"]
    colors = {"only this part": BLUE, "without this part": GREEN, "control": AMBER}
    return dots("Share of the gain that parts of the difference bring", list(rows.items()), colors, "share of the gain")


def roles(table: Summary) -> Markup:
    """The share of all KL that lies at each kind of place, and the share of the tokens that it is."""
    found = pick(table["networks"], network=AFTER)["roles"]
    every = sum(role["n"] for role in found)
    chosen = sorted(found, key=lambda role: -role["of_kl"]["estimate"])

    def point(value: float) -> Figure:
        return {"estimate": value, "low": value, "high": value}

    rows = [
        (role["role"], {"of what changed (KL)": role["of_kl"], "of the tokens": point(role["n"] / every)})
        for role in chosen
    ]
    colors = {"of what changed (KL)": GREEN, "of the tokens": GRAY}
    return dots("Where in the text the distribution changed", rows, colors, "share")


def mixtures(table: Summary) -> Markup:
    """The share of the gain when the other's distribution is taken at some places, and at as many random ones."""
    rows: dict[str, dict[str, Figure | None]] = {}
    for each in table["mixtures"]:
        if each["exchanged"] != "nothing":
            chosen = each.get("like", each["exchanged"])
            other = AFTER if each["keeps"] == BEFORE else BEFORE
            label = f"{other}'s choice of voice" if chosen == "voice" else f"{other}'s where {chosen}"
            row = rows.setdefault(f"{each['keeps']}, but {label}", {})
            row["random" if "like" in each else each["keeps"]] = each["recovered"]
    return dots("Share of the gain when some tokens are the other's", list(rows.items()), COLORS, "share of the gain")
