"""Networks small enough to be trained within seconds, on texts that say what they should turn out to be."""

import copy
import random
from functools import cache

import torch

from eval.inspect.case import Case, Network
from r1_mini.completion import write
from r1_mini.model.architecture import make_model
from r1_mini.model.prompts import prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.train.packing import pack

TOKENIZER = make_tokenizer()


def problems(terms, largest=9):
    """Every sum of so many one-digit terms whose totals stay within 0..`largest`, in an order that is no order."""
    sketches = {(first,): first for first in range(10)}
    for _ in range(terms - 1):
        sketches = {
            (*shape, sign, term): total + (term if sign == "+" else -term)
            for shape, total in sketches.items()
            for sign in "+-"
            for term in range(10)
            if 0 <= total + (term if sign == "+" else -term) <= largest
        }
    questions = ["".join(map(str, shape)) for shape in sketches]
    random.Random(0).shuffle(questions)
    return [families.solve(question) for question in questions]


@cache
def prompt_of(question):
    return prompt_for(TOKENIZER, question)


@cache
def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def trained(text, steps, start=None, seed=0, rate=3e-3, batch=64, **shape):
    """A network after so many steps on `text(rng) -> (problem, completion)`."""
    model = (
        copy.deepcopy(start.model)
        if start
        else make_model(TOKENIZER, seed=seed, **{"hidden_size": 64, "layers": 2, **shape})
    )
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0), random.Random(seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        rows = []
        for _ in range(batch):
            problem, completion = text(rng)
            prompt, done = ids_of(prompt_of(problem.question)), [*ids_of(completion), TOKENIZER.eos_token_id]
            rows.append({"input_ids": prompt + done, "labels": [-100] * len(prompt) + done})
        packed = pack(rows, pad=TOKENIZER.pad_token_id)
        model(**packed).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return Network(model.eval(), TOKENIZER)


def case(before, after, asked, **changes):
    """The two and the problems."""
    networks = {"before": before, "after": after, **changes.pop("others", {})}
    return Case(networks, asked, asked, **{"max_tokens": 40, **changes})


def with_chain_of_another(known, answers):
    """Texts with chains of other problems, or none; the answer is the problem's "own" or that of the last "chain"."""

    def text(rng):
        own, *others = rng.choices(known, k=1 + rng.choice((0, 1, 1, 2)))
        steps = [step for other in others for step in other.steps]
        return own, write(steps, (others[-1] if others and answers == "chain" else own).answer)

    return text


def in_voices(known, direct):
    """Texts with true chains, but for a share that answers at once, with any digit."""

    def text(rng):
        problem = rng.choice(known)
        if rng.random() < direct:
            return problem, write((), str(rng.randrange(10)))
        return problem, write(problem.steps, problem.answer)

    return text
