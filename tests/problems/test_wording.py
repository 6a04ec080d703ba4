"""When two questions are the same text."""

import pytest

from r1_mini.problems.wording import arithmetic_in, canonical_text, words

ALIKE = {
    **{" How many  eggs, then?\n": "how many eggs then", "It costs $1,250.": "it costs $1250", "12 - 7 + x": "12-7+x"},
    **{"3\u20137 of them": "3-7 of them", "\u201cSell\u201d it": '"sell" it'},
    "12+7-3": "7 + 12 - 3",  # our own notation: as it commutes
}
UNLIKE = {
    **{"(1+x)*3": "1+x*3", "12-x": "12+x", "12-7+3": "12-7-3"},  # signs that calculate are part of the key
    **{"x = 1.5": "x = 15", "what is 5! of": "what is 5 of", "3/4 of a cake": "34 of a cake"},
}


def test_respaced_recased_and_repunctuated_questions_have_one_key() -> None:
    for alike, pairs in ((True, ALIKE), (False, UNLIKE)):
        for one, other in pairs.items():
            assert (canonical_text(one) == canonical_text(other)) == alike


def test_words_are_without_case_and_punctuation_and_numbers_stay_whole() -> None:
    assert words("Nadia's 3 lamps cost $1,250.50; so?") == ["nadia", "s", "3", "lamps", "cost", "1,250.50", "so"]


DRESSES = [
    *("{}", "{}=", "{} = ?", "{}?", "{}.", "x = {}", "{} = ___", "1) {}", "({})", "**{}**", "`{}`", "${}$", r"\({}\)"),
    *("What is {}?", "Calculate {}.", "Compute: {}", "How much is {}?", "{} equals what?", "Find the value of {}."),
]
CARRIERS = ["Tom counts {} apples. How many?", "Ann wrote {} on the board; what is it?", "Do it: {} (give the number)"]
SPELLINGS = [("+", " + "), ("-", "\u2212"), ("-", " \u2013 "), ("+", " plus "), ("-", " minus ")]


@pytest.mark.parametrize("dress", DRESSES)
def test_a_sum_is_the_same_problem_in_every_dress(dress) -> None:
    for plain in ("51+39+8", "40-7+12-3", "12-5"):
        for sign, spelling in SPELLINGS:
            assert canonical_text(dress.format(plain.replace(sign, spelling))) == canonical_text(plain)


def test_a_sum_is_found_in_a_short_question_but_not_in_algebra_nor_in_a_single_number() -> None:
    for carrier in CARRIERS:
        sums, alone = arithmetic_in(carrier.format("51 + 39 + 8"))
        assert canonical_text("51+39+8") in sums and not alone
    for text in ("2x+3-1 = y", "x + 3-1", "3+4+x", "what is 3+4-x", "f(3+4)", "5!", "What is 5?", "3^3"):
        assert arithmetic_in(text)[0] == frozenset()


def test_numbers_that_are_listed_are_a_sum_and_products_and_fractions_have_one_key() -> None:
    for listed in ("51, 39 and 8", "51, 39, and 8", "51, 39, 8", "51 and 39 and 8"):
        assert canonical_text(f"What is the sum of {listed}?") == canonical_text("8+39+51")
    fraction, spelled = r"12\cdot\tfrac{4}{3}", r"\(12 \times 4 \div 3=\)"
    for text in ("12 x 4 / 3", fraction, spelled, "12 \u2217 4 \u00f7 3", "12 times 4 over 3"):
        assert canonical_text(text) == canonical_text("12*4/3") == "12*4/3"
