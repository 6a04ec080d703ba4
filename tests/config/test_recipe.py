"""A recipe loads into what it says, or into one line that says what is wrong, where, and the fix."""

from collections.abc import Callable
from pathlib import Path

import pytest

from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import dump, load

Write = Callable[..., Path]


def refusal(path: Path, *overrides: str) -> str:
    """The one line that the user sees, without the folder of the test."""
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(f"{path.parent}/", "")


def test_overrides_leave_the_rest_of_the_recipe_alone(recipe_file: Write) -> None:
    path = recipe_file()
    assert load(path, ["seed=7"]).model_dump() == load(path).model_dump() | {"seed": 7}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=-1", "seed: should be greater than or equal to 0, got -1; change it"),
        ("seed=true", "seed: should be a valid integer, got true; change it"),
        ("problems=7", "problems: should be a list, as [a, b], got 7; change it"),
        ("grpo.form=base", "stages.1.form: unknown key; did you mean 'from'?"),
        ("name=../x", "name: should match pattern"),
        ("stages=[]", "stages: should have at least 1 item"),
        ("stages.0.kind=bose", "stages.0.kind: no stage is called 'bose'; did you mean 'base'?"),
        ("model=x", "model: given, but every stage starts from other weights; remove `model`"),
        ("base.voices.direct=0.7", "stages.0.voices: direct, worked and checked sum to 1.1, not 1"),
        ("base.optimizer=sgd", "stages.0.optimizer: \"sgd\" is not a choice; known: adamw, muon"),
        ("base.trainer.adam_beta1=0.8", "stages.0.trainer.adam_beta1: has no effect beside the stage's optimizer, muon; "),
        ("base.trainer.optim=sgd", "stages.0.trainer.optim: has no effect beside the stage's optimizer, muon; "),
        ("base.model.hidden_size=97", "stages.0.model: hidden_size should be a multiple of 8, twice the heads, not 97; correct it"),
        ("problems.0.terms=[5, 3]", "problems.0.terms: [5, 3]: the first is larger than the second; swap them"),
        ("problems.0.family=sun", "problems.0.family: 'sun' is not known; did you mean 'sum'?"),
        ("problems.0.term=3", "problems.0.term: unknown key; did you mean 'terms'?"),
        ("problems.0.terms=1", "problems.0.terms.0: should be greater than or equal to 2, got 1; change it"),
        ("problems.0.terms=[2, 41]", "problems.0.terms.1: should be less than or equal to 40, got 41; change it"),
        ("problems.0.weight=0", "problems.0.weight: should be greater than 0, got 0; change it"),
        ("problems.0={family: countdown, wording: long}", 'problems.0.wording: "long" is not a choice; known: sentence, short'),
        ("problems.0={family: expression, operators: +^}", "problems.0.operators: should match pattern '^[-+*/]+$', got"),
        ("problems.0={}", "problems.0: {} does not name one source; give one of family, jsonl, dataset, reasoning_gym"),
        ("problems.0={jsonl: x, dataset: y}", 'problems.0: {"jsonl": "x", "dataset": "y"} does not name one source; give '),
        ("problems.0={jsonl: x, judge: amuont}", "problems.0.judge: 'amuont' is not known; did you mean 'amount'?"),
        ("problems.0={jsonl: x, judge: reasoning_gym}", "problems.0.judge: 'reasoning_gym' is not known; "),
        ("problems.0={jsonl: x, extract: box}", "problems.0.extract: 'box' is not known; did you mean 'boxed'?"),
        ("evaluate.temperature=0.009", "evaluate.temperature: should be 0 (greedy) or from 0.01 to 10, got 0.009"),
        ("evaluate.temperature=11.0", "evaluate.temperature: should be 0 (greedy) or from 0.01 to 10, got 11.0"),
        ("evaluate.samples=0", "evaluate.samples: should be greater than or equal to 1, got 0; change it"),
        ("grpo.trainer=[1]", "stages.1.trainer: should be keys and values, as {a: 1}, got [1]; change it"),
        ("grpo.rewards={acuracy: 1}", "stages.1.rewards.acuracy: 'acuracy' is not known; did you mean 'accuracy'?"),
        ("grpo.rewards={}", "stages.1.rewards: should have at least 1 item, not 0, got {}; change it"),
        ("grpo.rewards={format: .inf}", "stages.1.rewards.format: should be a finite number, got Infinity; change it"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_fix(recipe_file: Write, override: str, line: str) -> None:
    assert refusal(recipe_file(), override).startswith(f"override '{override}': {line}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- 1", "holds no keys and values; "),
        ("1: a", "1: unknown key; "),
        ("name: a", "stages: missing; add it"),
        ("name: a\nstages: [{}]", "stages.0.kind: missing; known: base, collect, distill, grpo, rejection, sft"),
        ("name: a\nstages: [base]", "stages.0.kind: missing"),
        ("name: a\nstages: [{kind: base}]", "stages.0.problems: no problems here nor at the top; add for example "),
        ("name: a\nproblems: [{family: sum}]\nstages: [{kind: grpo}]", "model: missing, and no base stage makes one; "),
        ("name: a\nproblems: [{family: sum}]\nstages: [{kind: base}, {kind: base}]", "stages.1.kind: a base stage starts "),
        ("name: a\nstages: [{kind: base, problems: [{jsonl: a}]}]", "stages.0.problems: 'a' has no worked solutions to learn "),
        ("name: a\nstages: [{kind: base, problems: [{dataset: a/b}]}]", "stages.0.problems: 'b' has no worked solutions to "),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_gets_one_line(recipe_file: Write, text: str, line: str) -> None:
    assert refusal(recipe_file(text), "seed=1").startswith(f"recipe.yaml: {line}")


def test_a_dumped_recipe_loads_into_an_equal_one(recipe_file: Write) -> None:
    quoted = ["name='1e-3'", "evaluate.suite='010'", "base.trainer.logging_strategy=no"]
    first = load(recipe_file(), quoted)
    assert (first.name, first.evaluate.suite) == ("1e-3", "010")
    assert load(recipe_file(dump(first))) == first
    assert dump(load(recipe_file(dump(first)))) == dump(first)


GRAPH = """
name: graph
model: m
problems: [{family: sum}]
stages:
  cold: {kind: sft}
  rl2: {kind: grpo, from: rl1}
  rl1: {kind: grpo, from: cold}
  small: {kind: base, model: {layers: 1}}
  data: {kind: collect, from: rl1}
  again: {kind: sft, problems: [{collected: data}]}
  pupil: {kind: distill, from: small, teacher: rl1}
evaluate: {columns: [cold, cold+worked, model], pairs: [[cold, model]]}
"""


def test_a_mapping_of_stages_is_a_graph_and_a_dumped_one_loads_equal(recipe_file: Write) -> None:
    recipe = load(recipe_file(GRAPH))
    starts = {"cold": "00-model", "rl2": "rl1", "rl1": "cold", "small": None}
    starts |= {"data": "rl1", "again": "00-model", "pupil": "small"}
    assert {name: recipe.start_of(name) for name in recipe.nodes} == starts
    order = recipe.order()
    assert sorted(order) == sorted(starts)
    assert order.index("cold") < order.index("rl1") < order.index("rl2")
    assert order.index("rl1") < order.index("data") < order.index("again")  # what it reads comes before it
    assert max(order.index("small"), order.index("rl1")) < order.index("pupil")
    assert load(recipe_file(dump(recipe))) == recipe


def test_a_model_may_be_there_only_to_teach_and_what_is_collected_be_called_by_its_kind(recipe_file: Write) -> None:
    stages = """
  small: {kind: base, model: {layers: 1}}
  more: {kind: collect, from: small}
  pupil: {kind: distill, from: small, teacher: model}
  reader: {kind: sft, from: small, problems: [{collected: collect}]}
"""
    recipe = load(recipe_file(f"name: a\nmodel: big\nproblems: [{{family: sum}}]\nstages: {stages}"))
    assert recipe.read_by(recipe.nodes["pupil"]) == {"00-model": "model"}
    assert recipe.read_by(recipe.nodes["reader"]) == {"more": "collect"}
    assert recipe.foreseen(recipe.problems_of(recipe.nodes["reader"])) == list(recipe.problems)


def test_in_a_list_each_stage_starts_from_the_one_above_unless_it_says_otherwise(recipe_file: Write) -> None:
    grpo = "{kind: grpo, from: base, name: other}"
    stages = f"[{{kind: base}}, {{kind: grpo}}, {grpo}, {{kind: rejection}}]"
    recipe = load(recipe_file(f"name: a\nproblems: [{{family: sum}}]\nstages: {stages}"))
    starts = {"01-base": None, "02-grpo": "01-base", "other": "01-base", "04-rejection": "other"}
    assert {name: recipe.start_of(name) for name in recipe.nodes} == starts
    assert load(recipe_file(dump(recipe))) == recipe
    plain = dump(load(recipe_file()))
    assert "from:" not in plain
    assert plain.count("name:") == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("rl2.from=rl3", "stages.rl2.from: no stage is called 'rl3'; did you mean 'rl"),
        ("rl2.from=grpo", "stages.rl2.from: 2 stages are called 'grpo'; "),
        ("rl1.from=rl2", "stages: a circle: "),
        ("rl1.trainer.beta=x", 'stages.rl1.trainer.beta: should be a valid number, got "x"; change it'),
        ("small.from=cold", "stages.small.kind: a base stage starts from random weights; "),
        ("again.from=data", "stages.again.from: 'data' makes a data set, not a checkpoint; read it with `problems: [{"),
        ("again.problems=[{collected: rl1}]", "stages.again.problems: 'rl1' makes a checkpoint, not a data set; name"),
        ("again.problems=[{collected: dta}]", "stages.again.problems: no stage is called 'dta'; did you mean 'data'?"),
        ("pupil.teacher=data", "stages.pupil.teacher: 'data' makes a data set, not a checkpoint; "),
        (
            "again.problems=[{collected: model}]",
            "stages.again.problems: 'model' makes a checkpoint, not a data set; name",
        ),
        ("pupil.teacher=pupil", "stages: a circle: "),
        (
            "pupil={kind: grpo, from: small, rewards: {language_words: 1}}",
            "stages.pupil: the model has never read words; give `languages` of small a share of words",
        ),
        ("problems=[{collected: data}]", "problems: what is collected is for a stage; "),
        ("data.trainer={max_steps: 3}", "stages.data.trainer: a collect stage trains nothing; leave it out"),
        ("evaluate.columns=[data]", "evaluate.columns: 'data' makes a data set, not a checkpoint; leave it out"),
        ("model=null", "model: missing, and no base stage makes one; "),
        ("evaluate.columns=[cold, rl9]", "evaluate.columns: no stage is called 'rl9'; "),
        ("evaluate.columns=[cold+loud]", "evaluate.columns.0: "),
        ("evaluate.pairs=[[cold]]", "evaluate.pairs.0: "),
    ],
)
def test_a_graph_that_cannot_be_run_gets_one_line(recipe_file: Write, change: str, line: str) -> None:
    assert f": {line}" in refusal(recipe_file(GRAPH), change)
