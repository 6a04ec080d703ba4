"""Reading amounts, option letters, texts and formulas: values by hand, and hostile text."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.judges.answers import LONGEST_ANSWER, amount, boxed, choice, formula, plain_text, words_of

AMOUNTS = {
    18: (
        *("18", "18 dollars", "18.", "The answer is 18.", "x = 18", "18 = 18.0", "18 ($18)", "18/day", "USD 18"),
        *("#### 18", r"\boxed{18}", r"first 3, then \boxed{18\text{ eggs}}"),
    ),
    -5: ("-$5", "$-5", "\u22125"),
    72: ("72%",),
    1234: (r"1{,}234",),
    18_000: ("18k",),
    2_000_000: ("2 million",),
    Fraction(2469, 2): ("$1,234.50",),
    Fraction(3, 4): (r"$\frac{3}{4}$", "3/4"),
    Fraction(1, 2): (".5",),
}


@pytest.mark.parametrize(("text", "value"), [(text, value) for value, texts in AMOUNTS.items() for text in texts])
def test_an_amount_is_read_exactly(text: str, value: Fraction) -> None:
    assert amount(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "eighteen", "18 or 20", "18 20", "5-6", "5-5", "9*9", "9 9", "3:30", "5, 6", "1,23", "1.2.3"),
        *("half of 18", "18 and a half", "more than 18", "at least 18", "not 18", "isn't 18", "5!", "18^2"),
        *(r"\sqrt{18}", "18\u00b2", "2\u03c0", "1e3", "x2", "4/0", "a - 5", "\u0663"),
    ],
)
def test_what_may_mean_another_number_is_no_amount(text: str) -> None:
    assert amount(text) is None


def test_a_box_is_read_with_the_braces_in_it() -> None:
    assert boxed(r"so \boxed{1} no, \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert boxed(r"\boxed{\{1,2\}}") == r"\{1,2\}"
    assert boxed(r"\boxed{\left\{ x \right.}") == r"\left\{ x \right."
    assert boxed(r"\boxed 7.") == "7"
    assert boxed(r"\boxed{1") is None
    assert boxed("1") is None


@pytest.mark.parametrize(
    "text",
    [
        *("B", "b", "(B)", "(b)", "B.", "B)", "[B]", "**B**", "B. Paris", "(B) A dog", "B: Paris", "$B$"),
        *("Answer: B", "The answer is (B).", "the answer is b", "Option B", r"\boxed{B}", r"\boxed{\text{(B)}}"),
        *("The correct answer is **B. Paris**", "Answer is option (B)"),
    ],
)
def test_an_option_is_read_in_every_notation(text: str) -> None:
    assert choice(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        *("", "F", "A or B", "(A) and (B)", "AB", "B, not A", "(B) or A", "Paris", "A dog", "The answer is A dog"),
        *("A\nB", "not B", "A. one\nB. two", "2"),
    ],
)
def test_no_or_several_options_are_no_choice(text: str) -> None:
    assert choice(text) is None


def test_a_text_is_compared_without_case_spacing_and_punctuation_but_with_signs() -> None:
    assert plain_text("  New   York. ") == plain_text("new york") == "new york"
    assert plain_text("well-known") == plain_text("well known")
    assert plain_text("-5") != plain_text("5")
    assert plain_text("1.5") != plain_text("15")
    assert plain_text("...") is None


def test_a_formula_is_taken_out_of_its_box_or_dollars() -> None:
    assert formula(r"So $\frac{1}{2}$.") == r"\frac{1}{2}"
    assert formula(r"\(x\)") == "x"
    assert formula(r"The answer is 7.") == "7"
    assert formula(r"\$12.50") == "12.50"
    assert formula("25%") == r"25\%"
    assert formula("60\u00b0") == r"60^\circ"
    assert formula(r"$1$ or $2$") is None
    assert formula("  ") is None


def test_words_are_told_from_formulas() -> None:
    assert words_of(r"\text{East}") == words_of("east") == "east"
    assert words_of("x+y") is None
    assert words_of(r"\text{(C)}") is None


READERS = (amount, choice, plain_text, formula, boxed)
PARTS = ["\\boxed{", "}", "{", "$", "1", ",", ".", "-", "/", "(", "A", "B", " or ", "\\frac", "%", "9" * 70]
PIECES = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=400), PIECES))
def test_no_reader_raises_on_anything(text: str) -> None:
    for read in READERS:
        read(text)


@pytest.mark.parametrize("piece", ["\\boxed{", "{", "$", "-", "1,", "\\text{", "(A", "\\frac{1}", "=\n", "9", " "])
def test_long_text_is_read_in_bounded_time(piece: str) -> None:
    begun = time.process_time()
    for text in (piece * LONGEST_ANSWER, (piece * LONGEST_ANSWER)[:LONGEST_ANSWER], piece * 200_000):
        for read in READERS:
            read(text)
    assert time.process_time() - begun < 2.0
