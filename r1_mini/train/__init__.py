"""Training: the kinds of stages, and what they share."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny

from r1_mini.config.base import wrong
from r1_mini.errors import nearest
from r1_mini.train.collect import CollectStage
from r1_mini.train.distill import DistillStage
from r1_mini.train.grpo import GrpoStage
from r1_mini.train.rejection import RejectionStage
from r1_mini.train.sft import BaseStage, SftStage
from r1_mini.train.stage import StageSettings

STAGES: dict[str, type[StageSettings]] = {
    "base": BaseStage,
    "sft": SftStage,
    "grpo": GrpoStage,
    "rejection": RejectionStage,
    "collect": CollectStage,
    "distill": DistillStage,
}
"""`kind` in a recipe -> the settings class of the stage. A new kind is a file in this folder and a line here."""


def stage_of(entry: Any) -> Any:
    """The settings of the stage that an entry of `stages:` describes."""
    if isinstance(entry, StageSettings):
        return entry
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if kind not in STAGES:
        raise wrong("missing" if kind is None else f"no stage is called '{kind}'", nearest(str(kind), STAGES), "kind")
    return STAGES[kind].model_validate(entry)


AnyStage = Annotated[SerializeAsAny[StageSettings], PlainValidator(stage_of)]
"""The type of a stage in a pydantic model."""
