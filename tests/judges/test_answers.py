"""Reading amounts, option letters, texts and formulas: values by hand, and hostile text."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.judges import answers

DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe58\ufe63\uff0d"
READ = {
    "18": (
        *("18", " 18\n", "18.", "+18", "18.0", "18 dollars", "18 eggs in all.", "18 km", "18 square feet", "18/day"),
        *("#### 18", "= 18", "x = 18", "The answer is 18.", "Final answer: 18", "So the total cost is $18.", "18%"),
        *("18 = 18.0", "18 ($18)", "18\n18", "18\nThe answer is 18", "**18**", "*18*", "_18_", "`18`", '"18"', "$18"),
        *("$18$", r"\$18", r"\(18\)", r"\[18\]", "USD 18", "18 USD", "\u20ac18", "18\u20ac", "**$18**", "Rs. 18"),
        *(r"\boxed{18}", r"**\boxed{18}**", r"\boxed{18\text{ eggs}}", r"first 3, then \boxed{18}", r"18\text{ eggs}"),
        *("18 miles per hour", "$18 a day", r"18\%", "18 percent", "18\u00b0", r"18^\circ", "She has 18 eggs left."),
        *("**Answer: 18**", "Tom gets 18 dollars."),
    ),
    "-5": (*(dash + "5" for dash in DASHES), *(dash + "$5" for dash in DASHES), "$-5", "- 5", "x = \u20135", "**-5**"),
    "1234": ("1,234", "1{,}234", r"1\,234", "1\u202f234", "$1,234", "1234.00", "1,234 dollars"),
    "5/2": ("2.5", "5/2", r"\frac{5}{2}", r"\frac52", r"2\frac{1}{2}", r"2 \tfrac12", "2 1/2", "2\u00bd", "2 and 1/2"),
    "-7/4": (r"-1\dfrac{3}{4}", "-1 3/4", "-7/4", r"\frac{-7}{4}", "-1.75"),
    "1/2": (".5", "\u00bd", "1/2", "$.50", r"$\frac{1}{2}$"),
    "5000": ("5K", "5k", "5 thousand", "5 thousand dollars", "$5k"),
    "1500000": ("1.5 million", "$1.5M", "15 lakh", "1.5 mln"),
    "60": ("5 dozen", "5 dozen eggs"),
}


@pytest.mark.parametrize("value", READ)
def test_an_amount_is_read_exactly(value: str) -> None:
    assert {text: answers.amount(text) for text in READ[value]} == dict.fromkeys(READ[value], Fraction(value))


def test_an_answer_that_is_not_one_number_as_a_whole_is_no_amount() -> None:
    for text in (
        *("", "eighteen", "18 or 20", "18 20", "5-6", "5\u20136", "9*9", "9 9", "3:30", "5, 6", "1,23", "1.2.3", "2,5"),
        *("1,2,3", "5,", "half of 18", "18 and a half", "more than 18", "at least 18", "up to 18", "nearly 18", "~5"),
        *("maybe 18", "5 or more", "\u22485", "not 18", "isn't 18", "isn\u2019t 5", "never 5", "5 is wrong"),
        *("5 (wrong)", "anything but 5", "except 5", "nobody gets 5", "\u22605", "5x", "5 x", "5i", "5/x", "x/5"),
        *("5 + x", "5 - x", "5e", "x2", "f(5)", "g(5) = 5", "the sum of 5 and x", "5 more than x", "-(5)", "(5)"),
        *("|-5|", "-(-5)", "--5", "log 5", "sin 5", "5!", "!5", "5 factorial", "5 mod 3", "18^2", r"\sqrt{18}"),
        *("5 squared", "18\u00b2", "1e3", "2\u03c0", "4/0", "2 3/0", "2 5/3", "a - 5", "\u0663", "\uff15", "5\u200e6"),
        *("-\u200e5", "-\u180e5", "5\u00d71", "5 score", "5 pairs", "5 gross", "5 tens", "3B", "5m", "$4 mil"),
        *("5 times", "5 plus", "5 less", "5 a third", "5/two", "50% of 10", "18 = 19", "18 ($19)", "18\n19"),
        *("5 twelfths", "5 twentieths", "5 billionths"),
        *("5 quadrillions", "5 threes", "5 twenties", "5 upwards", "5 sometimes", "wrong is 5", "0,125", "\u00bd5"),
        r"\frac{1}{2}5",
    ):
        assert answers.amount(text) is None, text


NUMBERS = st.fractions(-3000, 3000, max_denominator=12)
SPOILS = [
    *("{}x", "{} x", "x{}", "{}!", "{}^2", "not {}", "{} or 1", "2*{}", "{}/0", "{}-1", "{}+1", "{},7", "{} 7", "~{}"),
    *("{} is wrong", "half of {}", "more than {}", "sqrt {}", "-({})", "|{}|", "{} mod 7", "\u2248{}", "{}\u00b2"),
]
WRAPPERS = ["{}", "**{}**", "`{}`", r"\boxed{{{}}}", "${}$", "The answer is {}.", "{0} = {0}", "x = {}"]


@st.composite
def made_by_the_grammar(draw: st.DrawFn) -> tuple[str, Fraction]:
    """An answer made by the grammar, and its value."""
    value = draw(NUMBERS)
    size, sign = abs(value), draw(st.sampled_from(DASHES)) if value < 0 else ""
    whole, rest = divmod(size, 1)
    forms = [f"{size.numerator}/{size.denominator}", rf"\frac{{{size.numerator}}}{{{size.denominator}}}"]
    if rest and whole:
        forms += [f"{whole} {rest}", rf"{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}"]
    if not rest:
        forms += [str(whole), f"{whole:,}", f"{whole}.0", f"{whole:,}".replace(",", "{,}")]
    unit = draw(st.sampled_from(["", " dollars", " eggs", r"\text{ km}", " percent", " in all"]))
    return draw(st.sampled_from(WRAPPERS)).format(sign + draw(st.sampled_from(forms)) + unit), value


@settings(deadline=None, max_examples=1500)
@given(made_by_the_grammar(), st.sampled_from(SPOILS))
def test_answers_made_by_the_grammar_have_their_value_and_spoilt_ones_never(made, spoil: str) -> None:
    text, value = made
    assert answers.amount(text) == value
    begun = time.process_time()
    assert answers.amount(spoil.format(value)) != value or value == 0
    assert time.process_time() - begun < 0.01


def test_a_box_is_read_with_the_braces_in_it() -> None:
    boxes = {r"so \boxed{1} no, \boxed{\frac{1}{2}}.": r"\frac{1}{2}", r"\boxed{\{1,2\}}": r"\{1,2\}"}
    boxes |= {r"\boxed{\left\{ x \right.}": r"\left\{ x \right.", r"\boxed 7.": "7", r"\boxed{1": None, "1": None}
    assert {text: answers.boxed(text) for text in boxes} == boxes


LETTERS = {
    "B": (
        *("B", "b", "(B)", "(b)", "B.", "B)", "[B]", "**B**", "B. Paris", "(B) A dog", "B: Paris", "$B$"),
        *("Answer: B", "The answer is (B).", "the answer is b", "Option B", r"\boxed{B}", r"\boxed{\text{(B)}}"),
        *("The correct answer is **B. Paris**", "Answer is option (B)"),
    ),
    None: (
        *("", "F", "A or B", "(A) and (B)", "AB", "B, not A", "(B) or A", "Paris", "A dog", "The answer is A dog", "2"),
        *("A\nB", "not B", "A. one\nB. two", "(A) is incorrect", "A) is wrong; the right one is B", "Not option A"),
        *("A?", "I rule out option A", "A. (incorrect)", "A) wrong, B) right", "option A (false)", "Answer: A, B"),
        *("A-", "!A", "Answer: A/B", "Answer: A & B", "Answer: A? B?", "A) x B) y C) z", "The answer isn't A"),
        *("Option A is wrong", "A. No. The answer should be C", "Answer: A or B", "all but A", "A) x b) y", "A) a) b)"),
        *("A) Rome. Answer: b", "A. Wait", "A. actually c", "A) on second thought: c", "A) dismissed", "A) invalid"),
    ),
}


@pytest.mark.parametrize("letter", LETTERS)
def test_an_option_is_read_in_every_notation_and_none_or_several_or_a_denied_one_is_no_choice(letter) -> None:
    assert {text: answers.choice(text) for text in LETTERS[letter]} == dict.fromkeys(LETTERS[letter], letter)


def test_the_last_number_of_a_text_is_taken_if_it_stands_alone() -> None:
    numbers = {"It is .5": "0.5", "The change is \u22125": "-5", r"so \frac{3}{4}": "0.75", "so 5-3=2": "2"}
    numbers |= {"$1,234.50.": "1234.5", "1, 2, 3": "3", "it (42).": "42", "3 1/2": "3.5", "-.5": "-0.5", "7/0": None}
    numbers |= {"about 16 thousand people": "16000", "16 million.": "16000000", "5 dozen eggs": "60", "16 eggs": "16"}
    numbers |= dict.fromkeys(("grades 12-7", "1,2,3", "1e5", "2020-21", "2024-05-17", "GPT-4", "- 5", "2,5", "10^3"))
    numbers |= dict.fromkeys(("6.02e23", "none", "3 \u00d7 16", "16 + x", "5!", "10\u00b2"))
    assert {text: answers.last_number(text) for text in numbers} == numbers


def test_what_stands_after_the_marks_is_a_plain_number_or_left_as_it_is() -> None:
    golds = {"1,234": "1234", "\u20135": "-5", "2,5": "2,5", "42\nEnd": "42\nEnd"}
    assert {after: answers.after_marks(f"a #### {after}") for after in golds} == golds
    assert answers.after_marks("a") is None


def test_a_text_is_compared_without_case_spacing_and_punctuation_but_with_signs() -> None:
    texts = {"  New   York. ": "new york", "well-known": "well known", ".5": "0.5", "\u20135": "-5", "...": None}
    texts |= {"10\u00b2": "10^2", "5!": "5!", ",5": ",5", "Rome - Italy -": "rome italy", "1.5": "1.5"}
    texts |= dict.fromkeys(("**Paris**", "*Paris*", "`Paris`", r"\boxed{Paris}", r"\text{Paris}", '"Paris"'), "paris")
    assert {text: answers.plain_text(text) for text in texts} == texts
    for one, *others in (
        *(("-$5", "$5"), ("-.5", ".5"), ("-\u221e", "\u221e"), ("-(5)", "(5)"), ("- 5", "5"), ("5 - 3", "5 3")),
        *(("A", "A-", "A+"), ("A-", "A+"), ("5", "-5", "0.5")),
    ):
        assert answers.plain_text(one) not in map(answers.plain_text, others)


def test_a_formula_is_taken_out_of_its_box_or_dollars_and_told_from_words() -> None:
    formulas = {r"So $\frac{1}{2}$.": r"\frac{1}{2}", r"\(x\)": "x", "The answer is 7.": "7", r"\$12.50": "12.50"}
    formulas |= {"25%": r"25\%", "60\u00b0": r"60^\circ", "$1$ or $2$": "1  or  2", "-$5$": "- 5", "  ": None}
    assert {text: answers.formula(text) for text in formulas} == formulas
    words = {r"\text{East}": "east", "east": "east", "x+y": None, r"\text{(C)}": None}
    assert {text: answers.words_of(text) for text in words} == words


READERS = (answers.amount, answers.choice, answers.plain_text, answers.formula, answers.boxed)
READERS += (answers.last_number, answers.after_marks)
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
    long = piece * answers.LONGEST_ANSWER
    for text in (long, long[: answers.LONGEST_ANSWER], piece * 200_000):
        for read in READERS:
            read(text)
    assert time.process_time() - begun < 2.0
