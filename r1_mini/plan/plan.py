"""The plan of a recipe: every stage and the exam, remarks on what usually goes wrong, and whether it fits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any

from jinja2 import TemplateError
from pydantic_core import PydanticCustomError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from r1_mini.completion import TAGS
from r1_mini.config.trl_fields import check_trainer
from r1_mini.errors import UserError
from r1_mini.model.prompts import stop_tokens
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.start import Start, start_of
from r1_mini.plan import Exam
from r1_mini.plan.stages import Part, Setting, Share, exam_part, stage_part
from r1_mini.system.environment import Device
from r1_mini.train.stage import StageSettings

_ANSWER = "<answer>2</answer>"
MARGIN = 0.4
"""How much more than planned a run has taken on a CPU: docs/MEMORY.md."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that usually goes wrong (a warning), or only something to know (a note)."""

    where: str
    text: str
    kind: str = "warning"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe would do, and the memory and disk that it would take, in bytes."""

    name: str
    model: str
    parameters: int
    device: Device
    share: Share
    parts: Sequence[Part]
    remarks: Sequence[Remark] = ()

    @property
    def peak(self) -> tuple[int, str]:
        """Memory of the fullest phase in one process, and its name."""
        phases = ((phase, part) for part in self.parts for phase in part.phases)
        return max((sum(part.phases[phase].values()), f"{phase} of {part.name}") for phase, part in phases)

    @property
    def needed(self) -> int:
        """Memory of the device; processes share that of a CPU and have a GPU each."""
        return self.peak[0] * (self.share.processes if self.device.is_cpu else 1)

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.memory

    @property
    def disk(self) -> int:
        """What is on the disk at the fullest moment."""
        stays = accumulate(part.disk for part in self.parts)
        return max(size + part.disk_meanwhile for size, part in zip(stays, self.parts, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {**asdict(self), "fits": self.fits, "needed": self.needed, "disk": self.disk}


def plan(recipe: Recipe, exam: Exam, dev: Mapping[int, Exam], device: Device, share: Share, framework: int) -> Plan:
    """`dev`: number of a stage -> its exam while it trains. `framework`: what the libraries take on a CPU, bytes.

    UserError for a model that does not exist, a mixture of experts, and a process without a whole group.
    """
    start, parts = start_of(recipe), []
    setting = Setting(recipe, start, share, device.is_cpu, {"framework": framework if device.is_cpu else 0})
    for number, (name, stage) in enumerate(recipe.nodes.items(), start=1):
        check_groups(name, stage, share.processes)
        fields = stage.fields
        if fields.get("use_vllm") and fields["vllm_mode"] == "colocate":  # it stays until the run ends
            vllm = round(fields["vllm_gpu_memory_utilization"] * device.memory)
            setting = replace(setting, held={**setting.held, "vLLM": vllm})
        parts.append(stage_part(name, stage, setting, dev.get(number)))
    parts.append(exam_part(exam, setting))
    whole = Plan(recipe.name, start.where, parts[0].parameters, device, share, parts)
    remarks = [remark for part in parts for remark in of_part(part, start)]
    return replace(whole, remarks=[*remarks, *of_tokenizer(start), *of_exam(exam), *of_memory(whole)])


def check_groups(name: str, stage: StageSettings, processes: int) -> None:
    """UserError where so many processes would refuse to start: each needs whole groups."""
    try:
        check_trainer(stage.CONFIG, stage.trainer, stage.DEFAULTS, stage.FIXED, processes)
    except PydanticCustomError as error:
        context = error.context or {}
        raise UserError(context["what"], where=f"--processes {processes}: {name}.trainer", fix=context["fix"]) from None


def of_part(part: Part, start: Start) -> Iterator[Remark]:
    """Texts that do not fit into the context, solutions that do not fit into a completion, an untried optimizer."""
    context = getattr(start.config.get_text_config(decoder=True), "max_position_embeddings", None)
    completion = part.longest_completion or max(part.solutions, default=0)
    if context and part.longest_prompt + completion > context:
        what = f"a prompt of {part.longest_prompt} tokens and a completion of {completion} do not fit"
        yield Remark(part.name, f"{what} into the context length of {context}")
    if longer := sum(length > completion for length in part.solutions):
        what = f"{longer} of {len(part.solutions)} worked solutions do not fit into {completion} tokens"
        yield Remark(part.name, f"{what}, the longest has {max(part.solutions)}: they would be truncated")
    if part.untried:
        yield Remark(part.name, f"optim={part.untried} does not run here; its memory is counted as Adam's")


def of_tokenizer(start: Start) -> Iterator[Remark]:
    """What usually goes wrong with a tokenizer."""
    yield from (Remark("tokenizer", fault) for fault in tokenizer_faults(start.tokenizer, start.generation))
    if split := [tag for tag in TAGS if len(start.tokenizer(tag, add_special_tokens=False)["input_ids"]) > 1]:
        text = f"{', '.join(split)}: more than one token each, as usual for a model that was not trained on them"
        yield Remark("tokenizer", text, "note")


def tokenizer_faults(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> Iterator[str]:
    """What usually goes wrong in training with a tokenizer, a sentence each."""
    eos, pad = tokenizer.eos_token, tokenizer.pad_token
    if eos is None:
        yield "the tokenizer has no EOS token: only the generation settings can end a completion"
    if pad is None:
        yield "the tokenizer has no pad token: TRL pads with EOS; set one if the model must learn EOS"
    elif pad == eos:
        yield f"the pad token is the EOS token {eos!r}: a loss that leaves out padding leaves out the end too"
    if not tokenizer.chat_template:
        return
    turns = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": _ANSWER}]
    try:
        end = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(_ANSWER)[2]
    except TemplateError:
        yield "the chat template refuses an assistant's turn, so what ends one is unknown"
        return
    stops = stop_tokens(generation, tokenizer)
    if not set(tokenizer(end, add_special_tokens=False)["input_ids"]) & set(stops):
        names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(stops))) or "none"
        what = f"ends a turn with {end!r}" if end.strip() else "writes nothing at the end of a turn"
        yield f"the chat template {what}, which has none of the tokens that end a completion ({names})"


def of_exam(exam: Exam) -> Iterator[Remark]:
    """The test split is not for choosing."""
    if exam.split == "test":
        text = "asks the test split: for figures to report; to choose between settings, evaluate.split=dev"
        yield Remark(f"exam {exam.suite}", text, "note")


def of_memory(whole: Plan) -> Iterator[Remark]:
    """Logits that take more than there is, and a plan that fits only just."""
    for part in whole.parts:
        if any(phase.get("logits", 0) > whole.device.memory for phase in part.phases.values()):
            yield Remark(part.name, "the logits of the sampling alone take more than the memory; lower `rows`")
    if whole.device.is_cpu:
        text = f"on a CPU, libraries and the allocator add up to {MARGIN:.0%} to what is planned (docs/MEMORY.md)"
        tight = whole.fits and whole.needed * (1 + MARGIN) > whole.device.memory
        yield Remark("memory", text + ", and so much is not left" * tight, "warning" if tight else "note")
    if whole.fits and whole.needed > whole.device.free:
        yield Remark("memory", "other programs have too much of it now")
