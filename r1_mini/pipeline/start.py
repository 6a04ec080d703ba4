"""What is checked before a run starts: what this machine lacks, and what no machine could do."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.attacks import Verdict, earned, solved
from r1_mini.config import packaged
from r1_mini.config.trl_fields import MOST_TEXTS, require_machine
from r1_mini.data.mix import draw, listed, tasks
from r1_mini.data.overlap import separated
from r1_mini.data.source import Source
from r1_mini.errors import UserError, nearest
from r1_mini.model.architecture import make_config
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint, load_shape, shape_of
from r1_mini.model.prompts import encode, prompts_for, require_context, require_known
from r1_mini.model.templates import give_template
from r1_mini.model.tokenizer import CHARACTERS
from r1_mini.pipeline.recipe import MODEL, Recipe, load
from r1_mini.pipeline.store import say
from r1_mini.problems.problem import Problem
from r1_mini.rewards import RULES, as_trl_reward
from r1_mini.system import distributed as processes
from r1_mini.system import environment, plugin
from r1_mini.system.logs import silent
from r1_mini.train.corpus import completion
from r1_mini.train.sft import BaseStage, SolutionStage
from r1_mini.train.stage import StageSettings

TRIED = 100
"""Problems of a source that are sampled to check it; every depth is among them."""
REWARDED = 8
"""Problems that a reward of the user's own is tried on, each solved and with every attack."""
ATTACKED = 50
"""Problems that `check-reward` attacks a reward on."""
LOADING = ("dtype", "device_map", "low_cpu_mem_usage", "quantization_config", "revision", "trust_remote_code")
"""Options of from_pretrained that concern the weights; the others are of the model or its config."""


@dataclass(frozen=True)
class Start:
    """The model that a branch of a recipe begins with, as far as its small files tell: no weights."""

    where: str
    config: PretrainedConfig
    generation: GenerationConfig | None
    tokenizer: PreTrainedTokenizerBase
    saved: torch.dtype = torch.float32
    """dtype of the weights on disk."""


def start_of(recipe: Recipe, stage: str = "") -> Start:
    """What the branch of a stage begins with; of the last stage by default. Downloads only small files from the Hub."""
    root = recipe.root_of(stage or list(recipe.nodes)[-1])
    if root == MODEL:
        config, generation, tokenizer = load_shape(
            find_checkpoint(Path(str(recipe.model)), weights=False), recipe.prompt
        )
        return Start(str(recipe.model), config, generation, tokenizer, config.dtype or torch.float32)
    base = recipe.nodes[root]
    assert isinstance(base, BaseStage)
    tokenizer = base.tokenizer()
    give_template(tokenizer, recipe.prompt, "prompt")
    return Start("random weights", make_config(tokenizer, **base.model.model_dump()), None, tokenizer)


def lettered(recipe: Recipe) -> Recipe:
    """The recipe with a token in each base stage for whatever character its tables and the user's own tasks write,
    those of RL and exam too.

    Of a task a sample is looked through, of what is streamed nothing. UserError for a table that cannot be read.
    """
    if not any(isinstance(stage, BaseStage) for stage in recipe.stages):
        return recipe
    sources = (*recipe.problems, *(each for stage in recipe.stages for each in stage.problems))
    written = chain(listed(sources), *(task.draws(axes) for task, axes in tasks(sources)))
    letters = {letter for each in written for letter in f"{each.question}{each.answer}{each.solution or ''}"}

    def known(stage: StageSettings) -> StageSettings:
        if not isinstance(stage, BaseStage):
            return stage
        own = stage.model.characters
        more = own + "".join(sorted(letters - {*CHARACTERS, *own}))
        return stage.model_copy(update={"model": stage.model.model_copy(update={"characters": more})})

    return recipe.model_copy(update={"stages": tuple(map(known, recipe.stages))})


def named(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or the packaged one of that name, with overrides, and its letters as tokens."""
    return lettered(load(packaged.find(name, "tiny", "laptop", "gpu"), overrides))


def pretrained(recipe: Recipe) -> Path | None:
    """The folder of the recipe's `model`; UserError if its weights cannot be loaded, before anything is written."""
    if recipe.model is None:
        return None
    folder = find_checkpoint(Path(recipe.model))
    with silent():
        load_checkpoint(folder, prompt=recipe.prompt, dtype="auto")
    return folder


def check(
    recipe: Recipe, examined: Sequence[Problem], console: Console, elsewhere: bool = False
) -> dict[str, tuple[Source, ...]]:
    """UserError for whatever would keep a recipe from running to its end, before anything is trained or written.

    Returns the problems of each stage, without those of an exam. `elsewhere`: another machine will run it.
    """
    if not elsewhere:
        half = any(stage.trainer.get("bf16") for stage in recipe.stages)
        say(console, f"on: {environment.on(processes.count(), 'bf16' * half)}")
    with silent(), TemporaryDirectory() as folder:
        for place, stage in enumerate(() if elsewhere else recipe.stages):
            require_machine(stage.trainer, f"{stage.name or f'stages.{place}'}.trainer")
        problems = training_problems(recipe, examined, console)
        for place, (name, stage) in enumerate(recipe.nodes.items()):
            start, where = start_of(recipe, name), stage.name or f"stages.{place}"
            for key, other in ((key, other) for key, other, is_data in stage.reads if not is_data):
                theirs = start_of(recipe, recipe.find(other)).tokenizer
                if theirs.get_vocab() != start.tokenizer.get_vocab():
                    what = f"{other} has another vocabulary, so its probabilities are of other tokens"
                    fix = (
                        "give both base stages the same `languages` and characters, or take a model of the same family"
                    )
                    raise UserError(what, where=f"{where}.{key}", fix=fix)
            sources = recipe.foreseen(problems[name])
            some = require_possible(stage, start, sources, where)
            for own in filter(plugin.is_own, getattr(stage, "rewards", ())):
                plugin.load(own)  # read here, and not again while it trains
                earned(as_trl_reward(own), start.tokenizer, list(islice(draw(sources, stage.split, "tried"), REWARDED)))
            rehearse(stage, start, some, where, Path(folder), elsewhere)
    return problems


def attacked(recipe: Recipe, reward: str) -> Verdict:
    """What attacks on the problems of a recipe's RL earn by a rule, or by a function of the user's own.

    UserError if there is no such reward. `accuracy` is that of the stage's `judge`.
    """
    if not plugin.is_own(reward) and reward not in RULES:
        raise UserError(f"no rule is called '{reward}'", where="check-reward", fix=nearest(reward, RULES))
    *others, last = recipe.nodes.items()
    name, stage = next((each for each in others if hasattr(each[1], "rewards")), last)
    sources = recipe.foreseen(recipe.problems_of(stage))
    problems = [each for each in islice(draw(sources, stage.split, "attacked"), ATTACKED) if solved(each)]
    if not problems:
        raise UserError("no solution of its problems is known", where=recipe.name, fix="name a recipe of others")
    if plugin.is_own(reward):
        plugin.load(reward)
    paid = as_trl_reward(reward, judge=getattr(stage, "judge", "exact"))
    return Verdict(reward, len(problems), earned(paid, start_of(recipe, name).tokenizer, problems))


def require_possible(stage: StageSettings, start: Start, sources: Sequence[Source], where: str) -> Problem:
    """UserError for what no machine could do: more texts than fit a life, problems that do not exist or that the
    tokenizer cannot write, texts that leave no room in the model's context. Returns a problem of the stage."""
    if start.tokenizer.eos_token is None:
        raise UserError("the tokenizer has no EOS token", where=start.where, fix="set eos_token in its settings")
    work = stage.work()
    number = max(work.rounds * work.texts, work.prompts * (work.sampling.n if work.sampling else 0))
    if number > MOST_TEXTS:
        what = f"samples or trains on {number:.0e} texts, the most is {MOST_TEXTS:.0e}"
        raise UserError(what, where=where, fix="lower its steps or its batch")
    for source in sources:
        try:
            some = list(islice(draw([source], stage.split, "possible"), TRIED))
        except UserError as error:
            raise UserError(str(error), where=f"{where}.problems") from None
        problems = source.listed(stage.split) or some
        if getattr(getattr(stage, "keep", None), "sound", False) and all(each.formula is None for each in some):
            what, fix = f"no exact checker reads the steps of '{source.name}', so none would be kept", "leave it out"
            raise UserError(what, where=f"{where}.keep.sound", fix=fix)
        texts, most = prompts_for(start.tokenizer, problems), 0
        if isinstance(stage, SolutionStage):
            manner = ("worked", stage.wording, Random(0), stage.languages.model_dump())
            solved = [completion(each, *manner) for each in problems]
            taught = zip(problems, solved, strict=True)
            require_known(start.tokenizer, (replace(each, answer=solution) for each, solution in taught))
            texts = [prompt + solution for prompt, solution in zip(texts, solved, strict=True)]
        elif work.sampling:
            most = work.sampling.max_tokens
        require_context(start.config, encode(start.tokenizer, texts), most, f"{where}.{stage.LENGTH_KEY}")
    return some[0]


def rehearse(
    stage: StageSettings, start: Start, problem: Problem, where: str, folder: Path, elsewhere: bool = False
) -> None:
    """UserError for what TRL, peft or torch refuse when the stage's trainer, optimizer and schedule are built.

    The model is on fake tensors, which take no memory, and the data are one row. Where weights are sharded, building a
    trainer shards them, so nothing is rehearsed. `elsewhere`: packages and a GPU that are missing here do not count.
    """
    adapter = getattr(stage, "peft", None)
    if processes.sharded():
        if adapter is not None:
            what = "an adapter of weights that are sharded over processes cannot be merged"
            raise UserError(what, where=f"{where}.peft", fix="launch with recipes/accelerate/ddp.yaml")
        return
    if adapter is not None:
        shape_of(start.config, torch.float32, adapter)
    options = stage.trainer.get("model_init_kwargs") or {}
    options = {key: value for key, value in options.items() if key not in LOADING and not hasattr(start.config, key)}
    if elsewhere:
        kept = {key: value for key, value in stage.trainer.items() if key not in ("fp16", "tf32")}
        stage = stage.model_copy(update={"trainer": kept})
    try:
        config = stage.config(folder, 0)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(start.config), dtype=torch.float32, **options)
        with FakeTensorMode(allow_non_fake_inputs=True):  # on meta, torch's fused optimizers refuse to be built
            model = model.to_empty(device=config.device)
            model.tie_weights()
        model.hf_device_map = {"": str(config.device)}  # so that no trainer moves it, which fake tensors refuse
        if trainer := stage.rehearse(model, copy.deepcopy(start.tokenizer), config, problem):
            trainer.create_optimizer_and_scheduler(stage.work().steps)
            trainer.get_train_dataloader()
    except Exception as error:  # libraries refuse in many ways
        if not (elsewhere and isinstance(error, ImportError)):
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(reason.rstrip("."), where=f"{where}.trainer", fix="correct or remove the field") from error


def training_problems(recipe: Recipe, examined: Sequence[Problem], console: Console) -> dict[str, tuple[Source, ...]]:
    """Stage -> its problems without those of an exam. Prints what was left out or is wrong with the data, a line each.

    UserError for data that cannot be read.
    """
    problems, lines = {}, []
    for name, stage in recipe.nodes.items():
        problems[name], overlaps = separated(recipe.problems_of(stage), examined)
        lines += [note for each in recipe.problems_of(stage) if each.content_hash() for note in each.notes()]
        lines += overlaps
    for line in dict.fromkeys(lines):
        say(console, line)
    return problems
