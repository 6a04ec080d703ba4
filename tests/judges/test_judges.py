"""The judges: what is right, the nearest cheats that are not, and text of any kind."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.judges.judges import JUDGES, VALUES, same_countdown

OWN = [name for name in JUDGES if name not in ("latex", "reasoning_gym")]
"""Those that run in this process; the others have tests of their own."""

FOUR = "55+36-(7+19)"  # 65 of 7, 19, 36, 55


RIGHT = {
    FOUR: (
        *(FOUR, "36+55-7-19", " ( 55 + 36 ) - 19\t- 7 \n", "((55)+(36))-(7+19)", "055+36-07-19"),
        *("-7+36+55-19", "55-19+36+(-7)"),  # a sign before a number
    ),
    **{"3 3 8 8=24": ("8/(3-8/3)",), "8/(3-8/3)": ("8/(3-8/3)",), "1/2": ("1/2",)},  # a fraction on the way, or asked
    "44 19 35=98": ("44+19+35", "35+(44+19)", "44+19+35 = 98"),
    "44 11=4": ("44/11", "44\u00f711", "44 \u00f7 11 = 4"),
    **{"44 2=88": ("44\u00d72", "+44*2"), "1 5=4": ("5-1", "-1+5", "5\u22121", "+5-1"), "1 5=-4": ("1-5",)},
    **{"1 5=1/5": ("1/5",), "  3   3 = 9 ": ("3*3",), "7=7": ("7",)},
}
WRONG = {
    FOUR: (
        *("55+36-(7-19)", "60+5", "65"),  # 103; of other numbers
        *("55+36-7", "55+36-7-19+0", "55+36-7-19+7-7", "65*7*19*36*55/(7*19*36*55)", "36+36-7"),  # each number once
        *("55+36-(7+19", "55+36-(7+19))", "(55+36)(7-19)", "55+36-(7+19), 55+36-7-19"),
        *("the answer is 55+36-(7+19)", "$55+36-(7+19)$", "__import__('os').system('true')", ""),
        *(FOUR + "=66", FOUR + "=65=65", FOUR + "=", "\uff15\uff15+36-(7+19)"),  # digits of full width
    ),
    "3 3=9": ("3+3+3", "3*3*1", "9", "0-(-3)*3"),
    "44 19 35=98": ("44+19+34", "44+19-35", "44 19 35=98", "44+19+35=97", "98=44+19+35"),  # the goal is no solution
    **{"2 3=8": ("2**3", "2^3"), "2 7=3": ("7//2",), "2 7=1": ("7%2",), "5=120": ("5!",)},
    **{"1 5=15": ("15", "1 5"), "1 5=1.5": ("1.5",), "1 5=100000": ("1e5",)},  # joined digits
    **{"0 1=0": ("1/0",), "0 0=0": ("0/0",), "5 1 1 1 1=5": ("5*(1-1)/(1-1)",), "3 3 8 8=24": ("8/(3-2.66)",)},
    **{goal: ("1+2", goal) for goal in ("", "none", "=0", "1 2=", "1 x=3", "=3", "1 2=3=3", "1 2.5=3")},  # no goals
}


def test_any_expression_of_the_same_numbers_and_the_same_value_is_right_and_everything_else_refused() -> None:
    for verdict, goals in ((True, RIGHT), (False, WRONG)):
        for goal, texts in goals.items():
            assert {said: same_countdown(said, goal) for said in texts} == dict.fromkeys(texts, verdict), goal


HUGE = [
    *("1" * 10**6, "1+" * 10**6, "(" * 10**6, "-" * 10**6, "=" * 10**6, " " * 10**6 + "x"),
    *("9" * 64 + "*" + "9" * 64, "/".join(["9" * 30] * 12), "*".join(["9" * 60] * 6)),
    "(" * 64 + "1" + "+1)" * 64,
]


@pytest.mark.parametrize("said", HUGE, ids=lambda said: repr(said[:3]))
def test_huge_and_deep_text_is_refused_at_once(said: str) -> None:
    start = time.process_time()
    assert not JUDGES["countdown"](said, FOUR)
    assert VALUES["countdown"](said) is None or len(said) <= 400
    assert time.process_time() - start < 0.5


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(OWN)),
    st.text(alphabet="0123456789+-*/() =.\n", max_size=60) | st.text(max_size=400),
    st.sampled_from([FOUR, "44 19 35=98", "16", "7/2"]) | st.text(alphabet="0123456789+-*/() =", max_size=20),
)
def test_judging_any_text_never_raises_and_is_fast(judge: str, said: str, right: str) -> None:
    start = time.process_time()  # not of the clock: the machine may be busy
    verdict = JUDGES[judge](said, right)
    assert time.process_time() - start < 0.2
    assert isinstance(verdict, bool)
    assert not (verdict and VALUES[judge](said) is None)


def test_a_vote_counts_all_solutions_of_a_countdown_as_one_answer_and_nothing_else_with_them() -> None:
    value = VALUES["countdown"]
    assert value(FOUR) == value("36 + 55 - 7 - 19") == ((7, 19, 36, 55), 65)
    assert value("8/(3-8/3)") == ((3, 3, 8, 8), 24)
    assert value("60+5") == ((5, 60), 65)  # the target of wrong numbers
    assert value("55+36-(7-19)") == ((7, 19, 36, 55), 103)
    assert value("1/2") == ((1, 2), Fraction(1, 2))
    assert [value(text) for text in ("", "1/0", "44 19 35=98", "2**3")] == [None] * 4


def test_a_judge_compares_what_is_meant_and_says_what_counts_as_one_answer_in_a_vote() -> None:
    for judge, said, right, verdict in (
        ("number", "3.5", "7/2", True),
        ("number", "$3.5", "7/2", False),
        ("amount", "$1,234.50 in all", "1234.5", True),
        ("amount", "1234", "1,234", True),
        ("amount", "1235", "1234", False),
        ("amount", "unknown", "unknown", False),
        ("choice", "The answer is (B).", "b", True),
        ("choice", "(A) or (B)", "B", False),
        ("choice", "F", "F", False),
        ("text", "New  York!", "new york", True),
        ("text", "York", "new york", False),
        ("text", "!", "!", False),
    ):
        assert JUDGES[judge](said, right) is verdict
    assert JUDGES.keys() == VALUES.keys()
    assert VALUES["amount"]("18 eggs") == VALUES["amount"]("$18.00") == 18
    assert VALUES["choice"]("(b)") == VALUES["choice"]("Answer: B") == "B"
    assert VALUES["latex"]("$x$.") == VALUES["latex"](r"\boxed{x}") == "x"


FORMULAS = {
    True: (
        *((said, "73") for said in ("**73**", "*73*", "`73`", "**Answer: 73**", "The final answer is **73**.", "**$73$**")),
        *(("**(1,2)**", "(1,2)"), ("**1/2**", "1/2"), ("\u20135", "-5"), (r"\frac{1}{2^{98}}", r"2^{-98}"), ("0.5", r"\frac12")),
        *((r"2\frac{1}{2}", "2.5"), (r"\{2,1\}", r"\{1,2\}"), (r"28\%", "28"), ("72%", "72"), (r"5\text{ miles}", "5")),
        *((r"5 \text{ million}", r"5\text{ million}"), ("x^2+2x+1", "(x+1)^2"), (r"x \in [7,13]", "[7,13]")),
        *((r"\frac12", "0.5"), (r"$\dfrac{2}{4}$", r"\frac{1}{2}"), ("(1, 2)", "(1,2)"), ("[0,1)", "[0,1)")),
        *(("5 cm", r"5\text{ cm}"), ("60\u00b0", r"60^\circ"), ("1+x^2", "x^2+1"), ("-$5$", "-5"), ("So $5$ km.", "5")),
        *((r"2516_{8}", "2516_8"), ("f'(x)", "f'(x)"), (r"\log_2 8", "3")),
    ),
    False: (
        *((r"\frac{1}{3}", r"\frac{1}{2}"), ("(2,1)", "(1,2)"), ("1,2", "(1,2)"), ("(0,1)", "[0,1)"), ("2 or 3", "3")),
        *(("", "1"), ("seat", r"\text{east}"), ("seat", "east"), (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),),
        # what math-verify overlooks
        *(("0.0000002", "0.0000001"), ("-0.0000001", "0.0000001"), (r"\frac{1}{21!}", r"\frac{1}{20!}")),
        *(("0.333333", r"\frac{1}{3}"), (r"5\text{ million}", "5"), ("5", r"5\text{ million}")),
        *((r"5\text{ dozen}", "5"), (r"6\text{ AM}", r"6\text{ PM}"), ("(1,2)", r"\{1,2\}")),
        *((said, "5") for said in ("$5$ million", r"5\textrm{ million}", r"5\text{ twelfths}", "not $5$", "-$5$", "half of $5$")),
        *(("101_2", "101_3"), ("101", "101_2"), ("f'(x)", "f(x)"), ("f'(x)", "f''(x)"), ("A^T", "A"), ("2^{T}", "2")),
        *((r"\{1,2\}", "(1,2)"), ("[1,2]", "(1,2)"), *((rf"\{{1,2,{on}\}}", r"\{1,2\}") for on in (r"\ldots", "..."))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("verdict", FORMULAS)
def test_formulas_are_equal_by_value_and_by_what_math_verify_overlooks(verdict: bool) -> None:
    assert [pair for pair in FORMULAS[verdict] if JUDGES["latex"](*pair) is not verdict] == []


BOMBS = [
    *("9^{9^{9^{9^9}}}", r"\frac{1}{10^{9999999}}", "(x+1)^{100000}", r"\binom{10^9}{5*10^8}", "9!!!!!!", "e^{e^{e^{e^{e}}}}"),
    *("9^9^9^9", "(9!)!", "99999999!", r"\sum_{n=1}^{10^9} n", r"10^{10^{10}}", "2^{99999}", "(((9^9)^9)^9)^9", "{9^9}^{9^9}"),
]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_formula_that_would_take_seconds_is_wrong_at_once(bomb: str) -> None:
    assert not JUDGES["latex"]("1", "5")  # the verifier has been started
    begun = time.monotonic()
    assert not JUDGES["latex"](bomb, "5")
    assert time.monotonic() - begun < 3.0  # its own limit is 5 s of processor time
