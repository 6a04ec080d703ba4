"""Problems in, graded completions out: what expert iteration, the exam and `r1-mini sample` use.

Not here: how tokens are sampled (`engine.py`), and what a completion is worth (`completion.py`). GRPO calls the engine
itself, since TRL asks for token ids.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from r1_mini.completion import FORCED, Finish, Graded, begun, grade
from r1_mini.model.prompts import encode, prompts_for, require_context, stop_tokens
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.likelihood import log_likelihoods
from r1_mini.rollout.params import Completion, SamplingParams
from r1_mini.system import distributed as processes


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of a problem: its text and tokens, and how it is judged."""

    prompt: str
    text: str
    """The completion; where the prompt ends with `<think>`, as some templates do, it begins with that."""
    tokens: list[int]
    finish: Finish
    logp: float
    """Log-probability (nats) of all tokens but a forced prefix, at the temperature of sampling."""
    logp_reference: float | None
    """The same under the reference model; None without one."""
    graded: Graded


def require_readable(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    max_tokens: int,
    where: str,
) -> None:
    """UserError if a model of this shape cannot be asked these problems: it lacks a character, or context length."""
    require_context(config, encode(tokenizer, prompts_for(tokenizer, problems)), max_tokens, where)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    params: SamplingParams,
    *,
    progress: Callable[[int], None] | None = None,
    first_sample: int = 0,
    reference: PreTrainedModel | None = None,
) -> list[list[Sample]]:
    """`params.n` graded completions of each problem, numbered from `first_sample`; each depends on nothing else.

    A `reference` model with the same tokenizer scores them too, if they are sampled from the policy as it is: at
    temperature 1, without top-p and without a forced voice. `progress` is called with each number of new completions.
    """
    prompts = prompts_for(tokenizer, problems)
    ids = encode(tokenizer, prompts)
    opened = begun(prompts[0]) if prompts else ""  # all prompts have one template
    forced, forbidden = FORCED[params.voice]
    prefix, banned = (
        tokenizer("".join(tags), add_special_tokens=False)["input_ids"]
        for tags in (forced[1:] if opened else forced, forbidden)
    )
    require_context(model.config, ids, len(prefix) + params.max_tokens, "max_tokens")
    groups = rollout(
        model,
        ids,
        params,
        stop=stop_tokens(model.generation_config, tokenizer),
        prefix=prefix,
        banned_first=banned[:1],
        progress=progress,
        first_sample=first_sample,
    )
    unchanged = params.temperature == 1 and params.top_p == 1 and params.voice is None
    scores: Sequence[Sequence[float | None]] = [[None] * params.n] * len(groups)
    if reference is not None and unchanged:
        scores = log_likelihoods(reference, ids, groups)

    def sample(problem: Problem, prompt: str, completion: Completion, score: float | None) -> Sample:
        text = opened + tokenizer.decode(completion.tokens, skip_special_tokens=True)
        graded = grade(problem, text, completion.finish)
        logp = math.fsum(completion.logprobs)
        return Sample(prompt, text, completion.tokens, completion.finish, logp, score, graded)

    return [
        [sample(problem, prompt, *pair) for pair in zip(group, group_scores, strict=True)]
        for problem, prompt, group, group_scores in zip(problems, prompts, groups, scores, strict=True)
    ]


def generate_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    params: SamplingParams,
    progress: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """What `generate` returns. Each process samples its share of the problems, and has the completions of all."""
    mine = share(problems)
    asked = [problems[place] for place in mine]
    groups = generate(model, tokenizer, asked, params, progress=progress) if asked else []
    together = processes.gather([*zip(mine, groups, strict=True)])
    return [group for _, group in sorted(together, key=itemgetter(0))]


def share(problems: Sequence[Problem]) -> list[int]:
    """Places of the problems that this process samples: all copies of a question, since the sampler counts them."""
    questions = {question: number for number, question in enumerate(dict.fromkeys(each.question for each in problems))}
    owners = [questions[each.question] % processes.count() for each in problems]
    return [place for place, owner in enumerate(owners) if owner == processes.rank()]
