"""Exams made of hand-written samples: rows, arrays of them, and folders as an exam leaves them."""

import json
import shutil

from eval.exam.lineup import BASE, COOLED, FORCED, RL, Lineup, Sitting, pairs_of
from eval.exam.samples import tabled
from r1_mini.pipeline.store import NOTE
from r1_mini.system.files import sha256

COMPLETIONS = {  # mark: (completion, answer, correct, voice, chain, first wrong step)
    "1": ("<think>1+1=2\n2+1=3</think><answer>3</answer>", "3", True, "worked", "right", None),
    "0": ("<think>1+1=2\n2+1=4</think><answer>4</answer>", "4", False, "worked", "wrong", 2),
    "d": ("<think></think><answer>3</answer>", "3", True, "direct", "none", None),
    "x": ("<think></think><answer>5</answer>", "5", False, "direct", "none", None),
    "l": ("<think>1+1=3\n3+1=3</think><answer>3</answer>", "3", True, "worked", "wrong", 1),
    "?": ("<think>1+1=2\n2+1=3</think><answer>three</answer>", "three", False, "worked", "right", None),
    "-": ("<think>1+1=2", None, False, "none", "none", None),
}
"""1 right, 0 a slip, d and x direct and right or wrong, l right by a wrong chain, ? no number, - cut off."""


def make_row(key, mark, index=0, depth=2, **changes):
    completion, parsed, correct, voice, chain, first_wrong = COMPLETIONS[mark]
    row = {
        **{"key": key, "family": "sum", "axis": None, "difficulty": {"depth": depth, "digits": 1}, "formula": "1+1+1"},
        **{"question": "1+1+1", "answer": "3", "judge": "number", "prompt": "User: 1+1+1\nAssistant:"},
        **{"completion": completion, "finish": "length" if mark == "-" else "stop", "sample_index": index},
        **{"n_tokens": len(completion), "logp": -0.5 * len(completion), "logp_reference": None},
        **{"parsed": parsed, "correct": correct, "lenient": correct, "well_formed": mark != "-"},
        **{"voice": voice, "chain": chain, "first_wrong": first_wrong, "rewards": {"accuracy": float(correct)}},
        **{"suite": "arithmetic", "split": "test", "seed": 7, "temperature": 1.0, "top_p": 1.0, "max_tokens": 64},
    }
    return row | changes


def make_rows(marks, **changes):
    """{"a": "10"} is problem a with its first sample right and its second wrong."""
    return [make_row(key, mark, index, **changes) for key, text in marks.items() for index, mark in enumerate(text)]


def make_samples(*marks, **changes):
    """An exam of problems a, b, c, …, a string of marks each."""
    return tabled(make_rows({chr(97 + place): text for place, text in enumerate(marks)}, **changes))


def write_exam(folder, rows, greedy=(), **identity):
    """A finished exam's folder."""
    folder.mkdir(parents=True)
    paths = {folder / "samples.jsonl": rows} | ({folder / "greedy.jsonl": greedy} if greedy else {})
    for path, lines in paths.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    files = {path.name: sha256(path) for path in paths}
    note = {"key": folder.name, "files": files, "seconds": 1.0, "identity": identity}
    note |= {"made_with": {}, "begun": 0.0}
    (folder / NOTE).write_text(json.dumps(note), encoding="utf-8")
    return folder


def write_run(folder, seed, base, forced, rl, setting="", **recipe):
    """A run folder with the three exams of eight problems, all problems marked alike."""
    columns = {BASE: Sitting("base", "01-base"), FORCED: Sitting("base, forced", "01-base", "worked")}
    columns[RL] = Sitting("after RL", "02-grpo")
    exam = folder / "eval" / "arithmetic"
    for sitting, marks in zip(columns.values(), (base, forced, rl), strict=True):
        write_exam(exam / sitting.folder, make_rows({key: marks for key in "abcdefgh"}))
    Lineup(columns, pairs_of(columns), seed, setting).write(exam)
    settings = {"name": "x", "seed": seed, "stages": [{"kind": "base"}, {"kind": "grpo"}], **recipe}
    (folder / "recipe.yaml").write_text(json.dumps({**settings, "evaluate": {"suite": "arithmetic"}}), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"stages": {}, "seconds": {"total": 9.0}}), encoding="utf-8")
    return folder


def cool(run, marks, temperature, greedy=""):
    """Add to a run of `write_run` the column that is cooled, and greedy answers of it and of RL, a mark each."""
    exam = run / "eval" / "arithmetic"
    lineup = Lineup.read(exam)
    columns = {**lineup.columns, COOLED: Sitting("base, forced, best T", "01-base", "worked", cooled=True)}
    rl = exam / columns[RL].folder
    rows = [json.loads(line) for line in (rl / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    shutil.rmtree(rl)
    cooled, answers = make_rows(dict.fromkeys("abcdefgh", marks), temperature=temperature), list(greedy)
    for folder, samples in ((exam / columns[COOLED].folder, cooled), (rl, rows)):
        mark = answers.pop(0) if answers else ""
        write_exam(folder, samples, make_rows(dict.fromkeys("abcdefgh", mark), temperature=0.0))
    Lineup(columns, [*lineup.pairs, (COOLED, RL)], lineup.seed, lineup.setting).write(exam)
    return run
