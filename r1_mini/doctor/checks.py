"""The checks. Each is a function of a stage's course, or of a whole case, that returns a finding or None.

A new one is a function and its name in `COURSE` or `CASE`. docs/DOCTOR.md lists them, with rules, thresholds and
sources. Here the right answer is known at every step, so an alarm about the reward compares what is paid with what is
right. A check is silent where its numbers are missing. Causes come before what follows from them.
"""

import math
from collections.abc import Callable, Sequence

from r1_mini.doctor.case import Case, Course, Finding, Row, flow, key_of, mean, scaled
from r1_mini.rewards import Late
from r1_mini.train.sft import SolutionStage

TRUE = "{accuracy: 1.0, format: 0.1}"
"""The default reward."""


def never_stops(c: Course) -> Finding | None:
    """Half of the completions go on after a whole answer, to the limit."""
    share = mean(row["finish"] == "length" and "</answer>" in row["text"] for row in c.rollouts[-32:])
    if not share >= 0.5:
        return None
    other = "chat" if c.recipe.prompt == "base" else "base"
    return Finding(
        "never stops",
        f"{share:.0%} of the kept completions write a whole answer and go on to the limit",
        "a completion that is not finished earns nothing, and each costs the longest rollout",
        ("the model does not end a turn with its stop token in this template", "it never learned the stop token"),
        (f"prompt={other}",) if c.recipe.model else (),
        samples=c.look(),
    )


def truncates(c: Course) -> Finding | None:
    """A tenth is truncated, and worked solutions are longer than the limit, or what is truncated was right so far."""
    limit, share = c.stage.fields["max_completion_length"], max(c.start("truncated"), c.end("truncated"))
    cut = [row["steps"] for row in c.rollouts if row["finish"] == "length" and row["steps"]]
    right = mean(all(verdict != "wrong" for _, verdict in steps) for steps in cut)
    too_short = c.needed > limit
    if not (too_short or (len(cut) >= 4 and right >= 0.5)) or not (share >= 0.1 or (too_short and not c.steps)):
        return None
    why = f"the longest worked solution has {c.needed}" if too_short else f"{right:.0%} of those were right so far"
    many = f"{share:.0%} of completions are truncated" if c.steps else "completions will be truncated"
    more = math.ceil((1.1 * c.needed if too_short else 2 * limit) / 8) * 8
    return Finding(
        "truncated",
        f"{many} at {limit} tokens, and {why}",
        "a right chain that is cut off earns nothing, so RL learns to write none",
        ("max_completion_length is shorter than the solutions",),
        (f"{c.key}.trainer.max_completion_length={more}",),
        samples=c.look(0),
    )


def disagrees(c: Course) -> Finding | None:
    """Sampler and trainer find log-probabilities that differ by more than 0.02 nats on average, or in 32 bits by 0.2
    once: in 16 bits single tokens do."""
    average, most = (
        max((row.get(key) or 0.0 for row in c.steps), default=0.0) for key in ("logp_gap_mean", "logp_gap_max")
    )
    fields, fix = c.stage.fields, []
    if average <= 0.02 and (most <= 0.2 or fields["bf16"] or fields["fp16"]):
        return None
    plain = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}
    fix += [
        f"{c.key}.trainer.{key}={flow(value)}"
        for key, value in plain.items()
        if key in c.stage.trainer and fields[key] != value
    ]
    if fields["use_vllm"]:
        fix += [f"{c.key}.trainer.vllm_importance_sampling_correction=true"]
    elif not fix:
        fix += [f"{c.key}.trainer.bf16=false" if fields["bf16"] else f"{c.key}.trainer.cast_lm_head_to_fp32=true"]
    return Finding(
        "sampler and trainer disagree",
        f"log-probabilities of the sampled tokens differ by up to {average:.2g} nats on average, {most:.2g} at most",
        "what is trained is not the policy that was sampled, and the gradient is of another loss",
        (
            "sampling that is cut (top_p, top_k)"
            if "p=" in fix[0] or "k=" in fix[0]
            else "16-bit arithmetic in the logits",
        ),
        tuple(fix),
        grave=average > 0.02,
    )


def samples_otherwise(c: Course) -> Finding | None:
    """The temperature is above 1.2 and completions are noise (0.5 nats), or it is below 0.7, or top_p, top_k or min_p
    cut, and half of the groups are alike."""
    fields, entropy, alike = c.stage.fields, c.start("entropy"), c.start("zero_variance")
    plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": None}
    other = {key: value for key, value in plain.items() if key in c.stage.trainer and fields[key] != value}
    noise = fields["temperature"] > 1.2 and entropy >= 0.5
    narrow = any(key != "temperature" or fields[key] < 0.7 for key in other) and alike >= 0.5
    if not noise and not narrow:
        return None
    how = ", ".join(f"{key} {flow(fields[key])}" for key in other)
    formed = f"{c.start('format'):.0%} of completions are well-formed, entropy {entropy:.2g} nats per token"
    return Finding(
        "not sampled as it is",
        f"with {how}, {formed if noise else f'{alike:.0%} of the groups have one reward'}",
        "RL learns from samples of the policy as it is; noise earns nothing, and equal completions teach nothing",
        (how,),
        tuple(f"{c.key}.trainer.{key}={flow(value)}" for key, value in other.items()),
        samples=c.look(0),
    )


def breaks(c: Course) -> Finding | None:
    """Accuracy falls from its best by a third, 0.1 and four standard errors, and the reward by a tenth."""
    (best, peak), end, (paid, _) = c.best("accuracy"), c.end("accuracy"), c.best("reward")
    least = max(0.1, 4 * math.sqrt(2) * c.error("accuracy"))
    fell = best - end >= least and end <= best * 2 / 3 and c.end("reward") <= paid - 0.1 * abs(paid)
    if not fell or len(c.steps) < 5:
        return None
    rate = c.stage.fields["learning_rate"]
    after = next((row["step"] for row in c.steps[peak + 1 :] if row["accuracy"] <= best / 2), c.steps[-1]["step"])
    lower = min(rate / 10, c.usual_rate) if rate > 3 * c.usual_rate else rate / 3
    return Finding(
        "falls apart",
        f"accuracy fell from {best:.0%} to {end:.0%}, below half at step {after}; {c.went('entropy', 'format')}",
        "a policy that writes nonsense earns nothing, and finds no way back",
        (f"learning_rate {rate:g} is too high", "batches too small for it"),
        (f"{c.key}.trainer.learning_rate={lower:g}",),
        samples=c.look(after),
    )


def earns_nothing(c: Course) -> Finding | None:
    """Nothing is ever right, and no reward differs within a group: three steps, or a pilot of 16 completions."""
    dead = all(row.get("accuracy") == 0 and row.get("zero_variance") == 1 for row in c.steps)
    if not dead or len(c.steps) < (1 if len(c.rollouts) >= 16 and len(c.steps) == 1 else 3):
        return None
    first, last, text = c.steps[0]["step"], c.steps[-1]["step"], c.rollouts[0]["text"] if c.rollouts else ""
    formed, cut = c.start("format"), c.start("truncated")
    when = f"step {first}" if last == first else f"steps {first} to {last}"
    shown = f", such as {' '.join(text.split())[:80]!r}" if text else ""
    causes: tuple[str, ...]
    if formed >= 0.5:
        causes, fix = ("the problems are too hard for what it starts from",), easier(c)
    else:
        causes = (
            "what it starts from cannot do this yet: a cold start comes first",
            "it is asked in a template it was not made for",
        )
        fix = colder_start(c)
    return Finding(
        "nothing earns",
        f"no completion of {when} was right or earned more than another: {formed:.0%} well-formed, {cut:.0%} "
        f"truncated, entropy {c.start('entropy'):.2g} nats{shown}",
        "GRPO learns from differences within a group; there are none",
        causes,
        fix,
        samples=c.look(0),
    )


def is_fooled(c: Course) -> Finding | None:
    """The judge that pays for accuracy accepts 0.1 more than the exact one."""
    paid, right = c.end("reward_accuracy"), c.end("accuracy")
    if not paid - right >= 0.1:
        return None
    return Finding(
        "reward hacked",
        f"{paid:.0%} of completions are paid as right, and {right:.0%} are; {c.went('reward_accuracy', 'accuracy')}",
        "RL finds whatever is paid: here the judge, not the problems",
        ("a judge that accepts an answer anywhere in a text",),
        (f"{c.key}.judge=exact",),
        samples=c.look(),
    )


def pays_something_else(c: Course) -> Finding | None:
    """Right completions earn no more than wrong ones (eight kept of each, Welch's t below 2), or the reward rises by
    0.15 of what a right answer earns, and accuracy, under 90 %, by less than 0.02."""
    right, wrong = ([row["reward"] for row in c.rollouts if row["correct"] is side] for side in (True, False))
    weights = {name: weight for name, weight, _ in c.stage.weighed()}
    late = any(isinstance(weight, Late) for weight in c.stage.rewards.values())  # whose beginning is a rise of its own
    size = weights.get("accuracy", 0.0)  # what a right answer earns
    size = size if size > 0 else max((abs(row.get("reward") or 0.0) for row in c.steps), default=0.0)
    rise, gain = c.end("reward") - c.start("reward"), c.end("accuracy") - c.start("accuracy")
    rises = c.is_long and not late and rise >= 0.15 * size > 0 and gain < 0.02 and c.end("accuracy") < 0.9
    blind = min(len(right), len(wrong)) >= 8 and t_value(right, wrong) < 2
    if not blind and not rises:
        return None
    parts = {name: weight * (c.end(f"reward_{name}") - c.start(f"reward_{name}")) for name, weight in weights.items()}
    most = max(parts, key=lambda name: -math.inf if math.isnan(parts[name]) else parts[name])
    now = c.went("reward", "accuracy")
    if blind:
        now = f"right completions earn {mean(right):.2g}, wrong ones {mean(wrong):.2g}; {now}"
    return Finding(
        "reward without accuracy",
        now,
        "the policy learns what is paid, and that is not to be right",
        (
            f"the part {most!r} of the reward pays for something else",
            "accuracy has too little weight, or the wrong sign",
        ),
        (f"{c.key}.rewards={TRUE}",),
        samples=c.look(),
    )


def never_saw_steps(c: Course) -> Finding | None:
    """Fewer than 1 in 200 completions have steps at the start, half are well-formed, and problems take several."""
    share = c.start("voice_worked") + c.start("voice_checked")
    deep = any((row.get("depth") or 0) > 1 for row in c.rollouts)
    if not (share < 0.005 and c.start("format") >= 0.5 and deep and c.best("accuracy")[0] < 0.9):
        return None
    return Finding(
        "steps were never seen",
        f"{share:.1%} of the completions of the first {c.window} steps write steps",
        "RL makes likely what is sampled; what has no chance is not sampled, so it stays away",
        ("what it starts from learned to answer at once only",),
        taught(c, "voices", "{direct: 0.7, worked: 0.25, checked: 0.05}"),
        samples=c.look(0),
    )


def never_saw_language(c: Course) -> Finding | None:
    """A language is rewarded that fewer than 1 in 100 steps of the chains are in, over the whole stage so far."""
    for language in ("signs", "words"):
        share = mean(row.get(f"reward_language_{language}") for row in c.steps)
        if f"language_{language}" in c.stage.rewards and len(c.steps) >= 3 and share < 0.01:
            return Finding(
                "a language was never seen",
                f"{language} are rewarded, and {share:.1%} of the steps are in them",
                "RL makes likely what is sampled; what has no chance is not sampled, so it stays away",
                (f"what it starts from never read chains in {language}",),
                taught(c, "languages", "{signs: 0.5, words: 0.5, mixed: 0.0}"),
                samples=c.look(0),
            )
    return None


def is_too_rare(c: Course) -> Finding | None:
    """In 80 % of the groups nothing is right at the start, and in 60 % at the end."""
    start, end = c.start("failed"), c.end("failed")
    if not (start >= 0.8 and end >= 0.6):
        return None
    group = c.stage.fields["num_generations"]
    larger = next((times * group for times in (4, 2) if c.asked % (times * group) == 0), 0)
    seen = ", ".join(f"{kind} {share:.0%}" for kind, (share, _) in c.kinds().items())
    return Finding(
        "too hard",
        f"in {start:.0%} of the groups nothing is right at the start, {end:.0%} at the end; {seen}".rstrip("; "),
        "such a group teaches nothing of the answer, and only luck starts it",
        ("the problems are too hard for what it starts from", "groups too small to hold a right one"),
        easier(c) or (f"{c.key}.trainer.num_generations={larger}",) if larger else (),
        samples=c.look(0),
    )


def is_solved(c: Course) -> Finding | None:
    """In 90 % of the groups all are right at the start."""
    if not c.start("solved") >= 0.9:
        return None
    harder = scaled(c.recipe.foreseen(c.recipe.problems_of(c.stage)), 2)
    return Finding(
        "solved already",
        f"in {c.start('solved'):.0%} of the groups all are right at the start (entropy {c.start('entropy'):.2g} nats)",
        "RL chooses among what is sampled; where all is right, and alike, there is nothing to choose",
        ("the problems are too easy for what it starts from", "its training left one way to answer"),
        (f"{c.key}.problems={harder}",) if harder else (),
        samples=c.look(0),
    )


def collapses(c: Course) -> Finding | None:
    """Entropy falls to a fifth, below 0.05 nats, accuracy is under 60 % and has not risen by 0.1."""
    start, end = c.start("entropy"), c.end("entropy")
    gain = c.end("accuracy") - c.start("accuracy")
    if not (c.is_long and end < 0.2 * start and end < 0.05 and c.end("accuracy") < 0.6 and gain < 0.1):
        return None
    rate = c.stage.fields["learning_rate"]
    return Finding(
        "entropy collapse",
        c.went("entropy", "accuracy"),
        "one completion for each prompt is left, right or wrong, so no group has anything to compare",
        (f"learning_rate {rate:g} is too high", "a reward that one way of answering satisfies"),
        (f"{c.key}.trainer.learning_rate={rate / 3:g}",),
        samples=c.look(),
    )


def dev_falls(c: Course) -> Finding | None:
    """dev falls by 0.05 from its best, while the reward stays within 0.05 of its own."""
    scores = {row["step"]: row["dev_pass_at_1"] for row in c.steps if row.get("dev_pass_at_1") is not None}
    if len(scores) < 3:
        return None
    best, last = max(scores, key=lambda step: scores[step]), max(scores)
    if scores[best] - scores[last] < 0.05 or c.end("reward") < c.best("reward")[0] - 0.05:
        return None
    keeps = c.stage.dev is not None and c.stage.dev.keep == "best"
    return Finding(
        "dev falls",
        f"dev fell from {scores[best]:.0%} at step {best} to {scores[last]:.0%}, the reward did not",
        "what is learned now does not carry over to problems that are not trained on",
        ("too few problems, trained on again and again", "a reward that pays for something else"),
        (f"{c.key}.trainer.max_steps={best}",) + (() if keeps else (f"{c.key}.dev.keep=best",)),
        grave=not keeps,
        samples=c.look(best),
    )


def does_not_move(c: Course) -> Finding | None:
    """With signal, over 15 steps and a fifth of the stage, accuracy moves by less than 0.1, entropy and length by less
    than a quarter."""
    if (
        len(c.steps) < 15
        or c.steps[-1]["step"] < c.stage.fields["max_steps"] / 5
        or c.end("zero_variance") >= 0.9
        or c.end("accuracy") >= 0.9
    ):
        return None
    moved = [abs(c.end(key) / (c.start(key) or math.nan) - 1) for key in ("entropy", "length")]
    if abs(c.end("accuracy") - c.start("accuracy")) >= 0.1 or not all(each < 0.25 for each in moved):
        return None
    rate, beta = c.stage.fields["learning_rate"], c.stage.fields["beta"]
    held = beta >= 0.2
    faster = c.usual_rate if rate < c.usual_rate / 3 else 3 * rate
    return Finding(
        "nothing moves",
        f"in {len(c.steps)} steps {c.went('accuracy', 'entropy', 'length')}",
        "there are groups to learn from, and nothing is learned",
        (f"beta {beta:g} holds it to its start",) if held else (f"learning_rate {rate:g} is too low", "too few steps"),
        (f"{c.key}.trainer.beta=0.0",) if held else (f"{c.key}.trainer.learning_rate={faster:g}",),
        grave=held or rate < c.usual_rate / 3,
        samples=c.look(),
    )


def runs_on(c: Course) -> Finding | None:
    """Length grows by half, and truncation by 0.1, without a gain of 0.05 in accuracy."""
    start, end = c.start("length"), c.end("length")
    if not (c.is_long and end >= 1.5 * start and c.end("truncated") - c.start("truncated") >= 0.1):
        return None
    if c.end("accuracy") - c.start("accuracy") >= 0.05:
        return None
    return Finding(
        "lengths run away",
        c.went("length", "truncated", "accuracy"),
        "long completions cost time, and what is truncated earns nothing",
        ("a reward that pays for length", "a loss that charges long wrong completions less (loss_type: grpo)"),
        (f"{c.key}.rewards={TRUE}", f"{c.key}.trainer.loss_type=dapo"),
        samples=c.look(),
    )


def depth_without_success(c: Course) -> Finding | None:
    """A kind of problem is never right, while another is in 30 %."""
    kinds = c.kinds()
    never = [kind for kind, shares in kinds.items() if max(shares) == 0]
    if not never or not any(shares[1] >= 0.3 for shares in kinds.values()):
        return None
    return Finding(
        "a depth was never solved",
        f"no problem of {', '.join(never)} is right, at the start or at the end",
        "their groups teach nothing, and take their share of each rollout",
        ("too long for what it starts from",),
        grave=False,
        samples=c.look(0),
    )


def samples_slowly(c: Course) -> Finding | None:
    """Steps of 5 seconds and more, of which rollouts take 80 %."""
    seconds, sampling = mean(row.get("seconds") for row in c.steps), mean(row.get("seconds_rollout") for row in c.steps)
    if not (seconds >= 5 and sampling >= 0.8 * seconds):
        return None
    limit = c.stage.fields["max_completion_length"]
    few = c.stage.rows < c.asked
    return Finding(
        "slow rollouts",
        f"they take {sampling:.1f} of {seconds:.1f} seconds of a step; {c.went('length')}, at most {limit}",
        "a batch waits for its longest completion",
        (f"{c.asked} completions, {c.stage.rows} at once",) if few else ("long completions", "a slow device"),
        (f"{c.key}.rows={c.asked}",) if few else (),
        grave=False,
    )


COURSE: tuple[Callable[[Course], Finding | None], ...] = (
    never_stops,
    truncates,
    disagrees,
    samples_otherwise,
    earns_nothing,
    is_fooled,
    pays_something_else,
    breaks,
    never_saw_steps,
    never_saw_language,
    is_too_rare,
    is_solved,
    collapses,
    dev_falls,
    does_not_move,
    runs_on,
    depth_without_success,
    samples_slowly,
)
"""Causes before what follows from them."""


def harms(case: Case) -> Finding | None:
    """The exam shows that a checkpoint is worse than what it was trained from."""
    for stage, start, one in edges(case):
        if one["verdict"] == "worse":
            return Finding(
                "a stage harmed",
                f"{stage} against {start}: {points(one)}",
                "its checkpoint is worse than what it was trained from",
                ("what else is found here", "a reward or data for other problems than those of the exam"),
            )
    return None


def changes_nothing(case: Case) -> Finding | None:
    """The exam does not tell a checkpoint apart from what it was trained from."""
    for stage, start, one in edges(case):
        if one["verdict"] == "not shown":
            return Finding(
                "a stage changed nothing",
                f"{stage} is not told apart from {start}: {points(one)}",
                "without a difference that the exam can show there is no result",
                ("training too short or too slow", "an exam too small: raise evaluate.limit"),
                grave=False,
            )
    return None


def has_nothing_left(case: Case) -> Finding | None:
    """Of a checkpoint that RL starts from, pass@k is within 3 points of pass@1, below 97 %, at under 0.05 nats."""
    starts = {before for before in (case.summary.get("starts") or {}).values() if before}
    for name in starts & set(case.summary.get("scores", {})):
        score = case.summary["scores"][name]
        once, tries, entropy = score["pass_at_1"], score["pass_at_k"][-1], score["entropy"]
        if tries["k"] > 1 and tries["estimate"] - once < 0.03 and entropy and entropy < 0.05 and once < 0.97:
            return Finding(
                "nothing left to reinforce",
                f"{case.summary['names'][name]}: pass@1 {once:.0%}, pass@{tries['k']} {tries['estimate']:.0%}, "
                f"entropy {entropy:.2g} nats",
                "RL makes likely what is sampled sometimes; here every try gives the same",
                ("the stage before RL was trained too long",),
                grave=False,
            )
    return None


CASE: tuple[Callable[[Case], Finding | None], ...] = (harms, changes_nothing, has_nothing_left)


def edges(case: Case) -> list[tuple[str, str, Row]]:
    """What the exam compares with what it was trained from: names of both, and the difference."""
    starts, names = case.summary.get("starts") or {}, case.summary.get("names") or {}
    found = case.summary.get("comparisons") or ()
    return [
        (names[one["after"]], names[one["before"]], one) for one in found if starts.get(one["after"]) == one["before"]
    ]


def points(one: Row) -> str:
    """A difference of the exam in points, with its 95% interval."""
    return f"{100 * one['estimate']:+.1f} points (95% interval {100 * one['low']:+.1f} to {100 * one['high']:+.1f})"


def t_value(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Welch's t of two samples; infinite if they differ and neither varies, 0 if they are equal."""
    difference = mean(right) - mean(wrong)
    spread = math.sqrt(sum(mean((value - mean(side)) ** 2 for value in side) / len(side) for side in (right, wrong)))
    return difference / spread if spread else math.copysign(math.inf, difference) if difference else 0.0


def easier(c: Course) -> tuple[str, ...]:
    """The problems that its start learned from, or the same with half the operations; none if neither is known."""
    above = c.recipe.nodes.get(c.recipe.root_of(c.name))
    own = c.recipe.foreseen(c.recipe.problems_of(c.stage))
    theirs = c.recipe.problems_of(above) if above is not None and isinstance(above, SolutionStage) else ()
    if theirs and [*theirs] != [*own]:
        return (f"{c.key}.problems={flow([each.model_dump(mode='json', exclude_defaults=True) for each in theirs])}",)
    fewer = scaled(own, 0.5)
    return (f"{c.key}.problems={fewer}",) if fewer else ()


def colder_start(c: Course) -> tuple[str, ...]:
    """Train what it starts from longer; after a foreign model, put an `sft` stage in between."""
    above = c.recipe.nodes.get(c.above)
    if above is not None:
        steps = max(4 * above.fields["max_steps"], above.DEFAULTS.get("max_steps", 0))
        return (f"{key_of(c.recipe, c.above)}.trainer.max_steps={steps}",)
    stages = list(c.recipe.nodes.values())
    if stages[0] is c.stage and all(each.worked for each in c.recipe.problems_of(c.stage)):
        after = [each.model_dump(mode="json", exclude_defaults=True) for each in stages]
        return (f"stages={flow([{'kind': 'sft'}, *after])}",)
    return ()


def taught(c: Course, key: str, value: str) -> tuple[str, ...]:
    """A share in what the stage of worked solutions above reads; before a foreign model, none."""
    for name in reversed(c.recipe.way_to(c.name)):
        if isinstance(c.recipe.nodes.get(name), SolutionStage):
            return (f"{key_of(c.recipe, name)}.{key}={value}",)
    return ()
