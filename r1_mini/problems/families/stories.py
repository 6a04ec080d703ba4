"""The stories of the word problems: what can happen in each, and three ways to tell it.

What a part does to the number that stands, s, with numbers of its own, a and b, is its key, one of `FORMS` in word.py.
Every sentence names what it counts, since any other one may stand before it. `{a}` is a number, `{a:egg|eggs}` the word
that agrees with it; `{thing}` is one of the story's pairs of words, `{things}` its plural. `{he}`, `{him}`, `{his}` and
`{himself}` follow `{name}`. Factors and divisors are never 1.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

WORDINGS = 3
Parts: TypeAlias = dict[str, tuple[str, str, str]]
"""What may happen -> how it is told."""


class Aside(NamedTuple):
    """A sentence with a number, d, that has no part in the answer (GSM-NoOp, 2410.05229)."""

    text: str
    limits: tuple[int, int] | None = None
    """None is at least 1 and fewer than what stands."""


class Story(NamedTuple):
    """An opening, some events, and a closing, which asks; the asides lie between."""

    name: str
    things: tuple[str, ...]
    openings: Parts
    events: Parts
    closings: Parts
    asides: tuple[Aside, Aside, Aside]  # the first is of what is counted, the others can always be told


HE = {"he": "he", "He": "He", "him": "him", "his": "his", "himself": "himself"}
SHE = {"he": "she", "He": "She", "him": "her", "his": "her", "himself": "herself"}
NAMES = {
    **dict.fromkeys(("Anna", "Grace", "Leila", "Maria", "Mei", "Nadia", "Priya", "Sofia"), SHE),
    **dict.fromkeys(("Ben", "David", "Kenji", "Luis", "Omar", "Peter", "Ravi", "Tom"), HE),
}

STORIES = (
    Story(
        "collection",
        things=(
            "marble|marbles",
            "sticker|stickers",
            "stamp|stamps",
            "postcard|postcards",
            "seashell|seashells",
        ),
        openings={
            "a": (
                "{name} had {a} {a:{thing}}.",
                "{name} owned a collection of {a} {a:{thing}}.",
                "At first there {a:was|were} {a} {a:{thing}} in {name}'s collection.",
            ),
            "a*b": (
                "{name} had {a} boxes with {b} {things} in each.",
                "{name} kept {his} {things} in {a} boxes of {b} {things}.",
                "There were {a} boxes in {name}'s room, and each of them held {b} {things}.",
            ),
        },
        events={
            "s+a": (
                "{He} bought {a} more {a:{thing}}.",
                "Then {he} got {a} more {a:{thing}} as a present.",
                "After that, {he} found {a} more {a:{thing}} in a drawer.",
            ),
            "s-a": (
                "{He} gave away {a} of the {things}.",
                "Then {he} lost {a} of the {things}.",
                "After that, {he} sold {a} of {his} {things}.",
            ),
            "s+a*b": (
                "{He} bought {a} bags of {b} {things}.",
                "Then {a} friends gave {him} {b} {things} each.",
                "After that, {he} got {a} packs with {b} more {things} in each.",
            ),
            "s*a": (
                "A year later {he} had {a} times as many {things}.",
                "{He} went on collecting until {he} had {a} times as many {things}.",
                "By the summer the number of {his} {things} had grown to {a} times what it was.",
            ),
            "s/a": (
                "{He} split the {things} into {a} equal piles and kept only one of the piles.",
                "Then {he} shared the {things} equally among {a} children, {himself} included.",
                "After that, {he} put the {things} into {a} bags, the same number in each, and kept just one bag.",
            ),
        },
        closings={
            "s": (
                "How many {things} did {name} have in the end?",
                "How many {things} did {he} have then?",
                "What was the number of {name}'s {things} after all this?",
            ),
        },
        asides=(
            Aside("{d} of the {things} {d:was|were} a little smaller than the rest."),
            Aside("{name} was {d} years old.", (8, 16)),
            Aside("The nearest toy shop was {d} minutes away.", (3, 30)),
        ),
    ),
    Story(
        "train",
        things=("passenger|passengers",),
        openings={
            "a": (
                "A train left the first station with {a} {a:passenger|passengers}.",
                "There {a:was|were} {a} {a:passenger|passengers} on the train when {name} began {his} shift.",
                "{name} drove a train with {a} {a:passenger|passengers} on board.",
            ),
            "a*b": (
                "A train had {a} cars with {b} passengers in each.",
                "{name} drove a train of {a} cars, and {b} passengers sat in each car.",
                "In each of the {a} cars of a train there were {b} passengers.",
            ),
        },
        events={
            "s+a": (
                "At the next station {a} {a:passenger|passengers} got on.",
                "Then {a} more {a:passenger|passengers} boarded the train.",
                "One stop later, {a} new {a:passenger|passengers} came on board.",
            ),
            "s-a": (
                "At the next station {a} {a:passenger|passengers} got off.",
                "Then {a} of the passengers left the train.",
                "One stop later, {a} {a:passenger|passengers} stepped out.",
            ),
            "s+a*b": (
                "At the next station {a} groups of {b} passengers got on.",
                "Then {a} school classes boarded the train, each with {b} passengers.",
                "One stop later, {a} families of {b} passengers each came on board.",
            ),
            "s-a*b": (
                "At the next station {a} groups of {b} passengers got off.",
                "Then {a} families left the train, each with {b} passengers.",
                "One stop later, passengers stepped out of {a} doors, {b} from each door.",
            ),
        },
        closings={
            "s": (
                "How many passengers were on the train then?",
                "How many passengers did the train carry in the end?",
                "What was the number of passengers on board after that?",
            ),
            "s*a": (
                "Every passenger who was on the train then paid {a} dollars. How many dollars did they pay in all?",
                "Those on board at the end each bought {a} drinks. How many drinks was that?",
                "Each passenger then on board had {a} bags. How many bags were on the train?",
            ),
            "s/a": (
                "The passengers then on board sat on benches, {a} on each bench. How many benches did they fill?",
                "In the end all the passengers moved to rows of {a} seats and filled them. How many rows was that?",
                "Those on board shared taxis at the last station, {a} in each taxi. How many taxis did they take?",
            ),
        },
        asides=(
            Aside("{d} of the passengers {d:was|were} asleep."),
            Aside("The train was {d} minutes late.", (2, 20)),
            Aside("The line had been open for {d} years.", (2, 50)),
        ),
    ),
    Story(
        "library",
        things=("book|books",),
        openings={
            "a": (
                "The library where {name} worked had {a} {a:book|books} about animals.",
                "{name} was in charge of {a} {a:book|books} in a small library.",
                "In the morning there {a:was|were} {a} {a:book|books} in {name}'s library.",
            ),
            "a*b": (
                "The library where {name} worked had {a} shelves with {b} books on each.",
                "{name} was in charge of {a} shelves of {b} books in a small library.",
                "In the morning there were {a} shelves in {name}'s library, and {b} books stood on each.",
            ),
        },
        events={
            "s+a": (
                "Readers brought back {a} {a:book|books}.",
                "Then {a} new {a:book|books} arrived.",
                "After that, {name} bought {a} more {a:book|books} for the library.",
            ),
            "s-a": (
                "Readers borrowed {a} of the books.",
                "Then {a} old {a:book was|books were} thrown out.",
                "After that, {a} of the books went to another library.",
            ),
            "s+a*b": (
                "Readers donated {a} boxes of {b} books.",
                "Then {a} readers brought back {b} books each.",
                "After that, {a} parcels arrived with {b} new books in each.",
            ),
            "s-a*b": (
                "Readers came in, and {a} of them borrowed {b} books each.",
                "Then {a} school classes borrowed {b} of the books each.",
                "After that, {a} boxes of {b} books went to another library.",
            ),
        },
        closings={
            "s": (
                "How many books were in the library then?",
                "How many books did the library have in the end?",
                "What was the number of books in the library after that?",
            ),
            "s/a": (
                "{name} packed all the books of the library into boxes of {a} books. How many boxes did {he} need?",
                "{name} put all the books that were there on shelves of {a} books. How many shelves did {he} use?",
                "In the evening {name} piled up all the books in stacks of {a}. How many stacks were there?",
            ),
        },
        asides=(
            Aside("{d} of the books had a torn cover."),
            Aside("The library had {d} windows.", (4, 40)),
            Aside("The library opened at {d} o'clock.", (7, 11)),
        ),
    ),
    Story(
        "savings",
        things=("dollar|dollars",),
        openings={
            "a": (
                "{name} had saved {a} {a:dollar|dollars}.",
                "There {a:was|were} {a} {a:dollar|dollars} in {name}'s money box.",
                "{name} started the month with {a} {a:dollar|dollars}.",
            ),
            "a*b": (
                "{name} worked for {a} hours and earned {b} dollars an hour.",
                "In each of {a} weeks {name} saved {b} dollars.",
                "{name} started the month with {a} envelopes, and there were {b} dollars in each.",
            ),
        },
        events={
            "s+a": (
                "{He} earned {a} more {a:dollar|dollars} by washing cars.",
                "Then {he} got {a} {a:dollar|dollars} as a birthday present.",
                "After that, {he} sold an old game for {a} {a:dollar|dollars}.",
            ),
            "s-a": (
                "{He} spent {a} {a:dollar|dollars} on a book.",
                "Then {he} paid {a} {a:dollar|dollars} for a ticket.",
                "After that, {he} bought a gift for {a} {a:dollar|dollars}.",
            ),
            "s+a*b": (
                "{He} mowed {a} lawns for {b} dollars each.",
                "Then {he} worked for {a} hours and got {b} dollars an hour.",
                "After that, {he} sold {a} old toys at {b} dollars each.",
            ),
            "s-a*b": (
                "{He} bought {a} notebooks for {b} dollars each.",
                "Then {he} paid for {a} tickets at {b} dollars each.",
                "After that, {he} spent {b} dollars a day for {a} days.",
            ),
        },
        closings={
            "s": (
                "How many dollars did {name} have then?",
                "How many dollars did {name} have in the end?",
                "What was the amount of {name}'s money after that, in dollars?",
            ),
            "a-s": (
                "{name} wanted a bicycle that cost {a} dollars. How many dollars did {he} still need?",
                "{name}'s goal was to have {a} dollars. How many dollars were still missing?",
                "A tent cost {a} dollars. How many more dollars did {name} have to save to buy it?",
            ),
            "s/a": (
                "{He} spent all {he} had on pens at {a} dollars each. How many pens did {he} buy?",
                "{name} shared all {his} money equally among {a} people. How many dollars did each get?",
                "With all {his} money {name} bought plants for {a} dollars each. How many plants was that?",
            ),
        },
        asides=(
            Aside("{d} of the dollars {d:was|were} in coins."),
            Aside("{name} was {d} years old.", (8, 16)),
            Aside("The bank was {d} minutes away.", (3, 30)),
        ),
    ),
    Story(
        "bakery",
        things=(
            "muffin|muffins",
            "cookie|cookies",
            "bagel|bagels",
            "pretzel|pretzels",
        ),
        openings={
            "a": (
                "{name} baked {a} {a:{thing}}.",
                "Early in the morning {name} took {a} {a:{thing}} out of the oven.",
                "There {a:was|were} {a} {a:{thing}} in {name}'s bakery.",
            ),
            "a*b": (
                "{name} baked {a} trays of {b} {things}.",
                "Early in the morning {name} took {a} trays with {b} {things} on each out of the oven.",
                "There were {a} baskets in {name}'s bakery, and each of them held {b} {things}.",
            ),
        },
        events={
            "s+a": (
                "{He} baked {a} more {a:{thing}}.",
                "Then {he} made {a} more {a:{thing}}.",
                "After that, {a} more {a:{thing}} came out of the oven.",
            ),
            "s-a": (
                "{He} sold {a} of the {things}.",
                "Then {a} of the {things} {a:was|were} eaten.",
                "After that, {he} gave away {a} of the {things}.",
            ),
            "s+a*b": (
                "{He} baked {a} more trays of {b} {things}.",
                "Then {a} trays came out of the oven with {b} {things} on each.",
                "After that, {a} helpers brought {b} more {things} each.",
            ),
            "s-a*b": (
                "{He} sold {a} bags of {b} {things}.",
                "Then {a} customers bought {b} {things} each.",
                "After that, {he} gave away {a} boxes with {b} {things} in each.",
            ),
        },
        closings={
            "s": (
                "How many {things} did {name} have then?",
                "How many {things} were in the bakery in the end?",
                "What was the number of {things} after that?",
            ),
            "s*a": (
                "{name} then sold all {his} {things} for {a} dollars each. How many dollars did {he} get?",
                "In the end each of the {things} got {a} nuts on it. How many nuts was that?",
                "The {things} of the bakery then weighed {a} grams each. How many grams was that in all?",
            ),
            "s/a": (
                "{name} then packed all {his} {things} into boxes of {a}. How many boxes did {he} fill?",
                "In the end {name} put all the {things} on plates, {a} on each. How many plates did {he} need?",
                "Then {a} people shared all the {things} equally. How many {things} did each get?",
            ),
        },
        asides=(
            Aside("{d} of the {things} {d:was|were} a little darker than the rest."),
            Aside("The oven was {d} years old.", (2, 25)),
            Aside("It was {d} o'clock by then.", (6, 11)),
        ),
    ),
    Story(
        "reading",
        things=("page|pages",),
        openings={
            "a": (
                "{name} read {a} {a:page|pages} of a book on the first day.",
                "On Monday {name} began a book and read {a} {a:page|pages}.",
                "{name} opened a new book and read {a} {a:page|pages}.",
            ),
            "a*b": (
                "{name} read a book for {a} days, {b} pages a day.",
                "On each of {a} days {name} read {b} pages of a book.",
                "{name} read the first {a} chapters of a book, and each had {b} pages.",
            ),
        },
        events={
            "s+a": (
                "The next day {he} read {a} more {a:page|pages}.",
                "Then {he} read {a} {a:page|pages} before going to bed.",
                "After a break {he} read {a} {a:page|pages} more.",
            ),
            "s+a*b": (
                "On each of the next {a} days {he} read {b} more pages.",
                "Then {he} read {a} more chapters of {b} pages each.",
                "After a break {he} read for {a} hours, {b} pages an hour.",
            ),
        },
        closings={
            "s": (
                "How many pages did {name} read in all?",
                "How many pages had {name} read by then?",
                "What was the number of pages that {name} had read after that?",
            ),
            "a-s": (
                "The book had {a} pages. How many pages did {name} still have to read?",
                "There were {a} pages in the book. How many of them had {name} not read yet?",
                "The last page of the book was page {a}. How many pages were left to read?",
            ),
        },
        asides=(
            Aside("{d} of the pages had pictures."),
            Aside("The book was {d} years old.", (2, 60)),
            Aside("{name} was {d} years old.", (8, 16)),
        ),
    ),
    Story(
        "cycling",
        things=("kilometer|kilometers",),
        openings={
            "a": (
                "{name} cycled {a} {a:kilometer|kilometers} before lunch.",
                "On the first day of a tour {name} rode {a} {a:kilometer|kilometers}.",
                "{name} got on {his} bicycle and rode {a} {a:kilometer|kilometers} to a lake.",
            ),
            "a*b": (
                "{name} cycled for {a} hours at {b} kilometers an hour.",
                "On each of the first {a} days of a tour {name} rode {b} kilometers.",
                "{name} got on {his} bicycle and rode around a lake {a} times, {b} kilometers each time.",
            ),
        },
        events={
            "s+a": (
                "After a rest {he} rode {a} more {a:kilometer|kilometers}.",
                "Then {he} cycled {a} {a:kilometer|kilometers} more.",
                "From there {he} went on for {a} {a:kilometer|kilometers}.",
            ),
            "s+a*b": (
                "After a rest {he} rode for {a} hours at {b} kilometers an hour.",
                "Then {he} cycled for another {a} days, {b} kilometers each day.",
                "From there {he} went on in {a} stages of {b} kilometers.",
            ),
        },
        closings={
            "s": (
                "How many kilometers did {name} ride in all?",
                "How many kilometers had {name} ridden by then?",
                "What was the length of {name}'s ride in kilometers?",
            ),
            "a-s": (
                "The whole tour was {a} kilometers long. How many kilometers were left?",
                "{name}'s goal was to ride {a} kilometers. How many kilometers were still missing?",
                "The way to the sea was {a} kilometers long. How many kilometers did {he} still have to ride?",
            ),
            "s*a": (
                "{name} made this whole ride {a} times that year. How many kilometers was that?",
                "A friend rode {a} times as far in all. How many kilometers did the friend ride?",
                "By car {name} went {a} times as far in all as by bicycle. How many kilometers did {he} go by car?",
            ),
        },
        asides=(
            Aside("{d} of the kilometers {d:was|were} uphill."),
            Aside("It was {d} degrees outside.", (5, 30)),
            Aside("The bicycle had {d} gears.", (3, 27)),
        ),
    ),
    Story(
        "garden",
        things=(
            "tulip|tulips",
            "rosebush|rosebushes",
            "tomato plant|tomato plants",
            "sunflower|sunflowers",
        ),
        openings={
            "a": (
                "{name} planted {a} {a:{thing}}.",
                "There {a:was|were} {a} {a:{thing}} in {name}'s garden.",
                "In spring {a} {a:{thing}} grew in {name}'s garden.",
            ),
            "a*b": (
                "{name} planted {a} rows of {b} {things}.",
                "There were {a} beds in {name}'s garden with {b} {things} in each.",
                "In spring {a} rows grew in {name}'s garden, and {b} {things} stood in each row.",
            ),
        },
        events={
            "s+a": (
                "{He} planted {a} more {a:{thing}}.",
                "Then {he} bought {a} more {a:{thing}} for the garden.",
                "After that, {a} more {a:{thing}} came up.",
            ),
            "s-a": (
                "Frost killed {a} of the {things}.",
                "Then {he} gave {a} of the {things} to the school.",
                "After that, rabbits ate {a} of the {things}.",
            ),
            "s+a*b": (
                "{He} planted {a} more rows of {b} {things}.",
                "Then {he} bought {a} boxes with {b} {things} in each for the garden.",
                "After that, {a} neighbors each brought {b} {things} for the garden.",
            ),
        },
        closings={
            "s": (
                "How many {things} were in the garden then?",
                "How many {things} did {name} have in the end?",
                "What was the number of {things} in the garden after that?",
            ),
            "s*a": (
                "In the end {name} gave each of the {things} {a} liters of water. How many liters was that?",
                "Each of the {things} now needed {a} grams of fertilizer. How many grams was that in all?",
                "In the end it took {a} minutes to water each of the {things}. How many minutes was that in all?",
            ),
            "s/a": (
                "In the end {name} set all the {things} in rows of {a}. How many rows were there?",
                "Then {name} moved all the {things} to {a} beds, the same number to each. How many were in each bed?",
                "{name} put all the {things} of the garden into pots of {a}. How many pots did {he} need?",
            ),
        },
        asides=(
            Aside("{d} of the {things} {d:was|were} taller than the rest."),
            Aside("The fence around the garden was {d} meters long.", (9, 90)),
            Aside("It had not rained for {d} days.", (2, 20)),
        ),
    ),
    Story(
        "tank",
        things=("liter|liters",),
        openings={
            "a": (
                "There {a:was|were} {a} {a:liter|liters} of water in {name}'s tank.",
                "{name} had a tank with {a} {a:liter|liters} of water in it.",
                "{name} poured {a} {a:liter|liters} of water into an empty tank.",
            ),
            "a*b": (
                "{name} poured {a} buckets of {b} liters of water into an empty tank.",
                "{name} let water into an empty tank for {a} minutes, {b} liters a minute.",
                "{name} emptied {a} cans with {b} liters of water in each into a dry tank.",
            ),
        },
        events={
            "s+a": (
                "Rain added {a} {a:liter|liters}.",
                "Then {he} poured in {a} more {a:liter|liters}.",
                "After that, {a} {a:liter|liters} of water flowed into the tank.",
            ),
            "s-a": (
                "{He} used {a} {a:liter|liters} of the water for the plants.",
                "Then {a} {a:liter|liters} of water leaked out.",
                "After that, {he} let {a} {a:liter|liters} of water out of the tank.",
            ),
            "s+a*b": (
                "{He} poured in {a} buckets of {b} liters.",
                "Then water flowed in for {a} minutes, {b} liters a minute.",
                "After that, it rained on {a} days, and each day added {b} liters.",
            ),
            "s-a*b": (
                "{He} took out {a} buckets of {b} liters.",
                "Then water flowed out for {a} minutes, {b} liters a minute.",
                "After that, {he} used {b} liters of the water a day for {a} days.",
            ),
        },
        closings={
            "s": (
                "How many liters of water were in the tank then?",
                "How many liters of water did the tank hold in the end?",
                "What was the amount of water in the tank after that, in liters?",
            ),
            "s/a": (
                "{name} filled all the water into bottles of {a} liters. How many bottles did {he} fill?",
                "Then {a} cows drank up all the water, the same amount each. How many liters did each cow drink?",
                "{name} used up all the water in {a} days, the same amount on each. How many liters a day was that?",
            ),
        },
        asides=(
            Aside("{d} of the liters {d:was|were} from a well."),
            Aside("The tank was {d} years old.", (2, 40)),
            Aside("The tank stood {d} meters from the house.", (3, 60)),
        ),
    ),
    Story(
        "excursion",
        things=("child|children",),
        openings={
            "a": (
                "At {name}'s school {a} {a:child|children} signed up for a trip to the zoo.",
                "{name} planned a trip to the zoo for {a} {a:child|children}.",
                "There {a:was|were} {a} {a:child|children} on {name}'s list for a trip to the zoo.",
            ),
            "a*b": (
                "At {name}'s school {a} classes of {b} children signed up for a trip to the zoo.",
                "{name} planned a trip to the zoo for {a} groups of {b} children.",
                "There were {a} classes of {b} children on {name}'s list for a trip to the zoo.",
            ),
        },
        events={
            "s+a": (
                "Then {a} more {a:child|children} joined the trip.",
                "A little later {a} {a:child was|children were} added to the list.",
                "After that, {a} more {a:child|children} wanted to come along, and {name} agreed.",
            ),
            "s-a": (
                "Then {a} of the children fell ill and stayed at home.",
                "A little later {a} {a:child was|children were} taken off the list.",
                "After that, {a} of the children decided not to come.",
            ),
            "s+a*b": (
                "Then {a} more groups of {b} children joined the trip.",
                "A little later {a} classes were added to the list, with {b} children in each.",
                "After that, {a} clubs of {b} children each wanted to come along, and {name} agreed.",
            ),
        },
        closings={
            "s": (
                "How many children went on the trip?",
                "How many children took part in the end?",
                "What was the number of children on the trip after that?",
            ),
            "s*a": (
                "Each child on the trip paid {a} dollars. How many dollars did they pay in all?",
                "Each child who took part got {a} sandwiches. How many sandwiches was that?",
                "{name} bought {a} tickets for each child on the trip. How many tickets was that?",
            ),
            "s/a": (
                "All the children on the trip were put into groups of {a}. How many groups were there?",
                "The children who took part rode in vans, {a} in each van. How many vans did they need?",
                "For a game all the children on the trip formed {a} equal teams. How many were in each team?",
            ),
        },
        asides=(
            Aside("{d} of the children had a red cap."),
            Aside("The zoo had {d} monkeys.", (4, 40)),
            Aside("The way to the zoo took {d} minutes.", (9, 50)),
        ),
    ),
)
