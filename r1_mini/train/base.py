"""The base stage: next-token training of random weights on worked arithmetic."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from trl import SFTConfig

from r1_mini.config.base import wrong
from r1_mini.data.source import Source
from r1_mini.model.architecture import ModelSettings, make_model
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.prompts import prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.corpus import Voices, Wording, corpus
from r1_mini.train.sft import TEXT_STAGE, train_on_texts
from r1_mini.train.stage import Job, StageSettings
from r1_mini.train.trainer import arguments


class BaseStage(StageSettings):
    """Next-token training from random weights on worked problems, through TRL's SFTTrainer."""

    VERSION = 1
    CONFIG = "SFTConfig"
    DEFAULTS: ClassVar = {
        **TEXT_STAGE,
        "max_steps": 1000,
        "per_device_train_batch_size": 64,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "warmup_stable_decay",
        "warmup_steps": 50,
        "save_steps": 500,
        "logging_steps": 10,
    }
    reinforces = False
    from_scratch = True

    kind: Literal["base"]
    model: ModelSettings = ModelSettings()
    voices: Voices = Voices()
    """The mixture of styles at the end of training: what the model will write, unforced."""
    early_voices: Voices | None = None
    """The mixture before that; null is the same. Models learn to calculate from worked text, not from bare answers."""
    early_share: float = Field(0.85, ge=0, lt=1)
    """Share of the steps that use `early_voices`."""
    wording: Wording = "list"
    optimizer: Literal["muon", "adamw"] = "muon"

    @model_validator(mode="after")
    def _muon_has_no_such_field(self) -> Self:
        for name in self.trainer if self.optimizer == "muon" else ():
            if name.startswith(("adam_", "optim")):
                fix = "set `optimizer: adamw` of the stage, or leave it out"
                raise wrong("has no effect beside the stage's optimizer, muon", fix, f"trainer.{name}")
        return self

    def train(self, job: Job) -> None:
        tokenizer = make_tokenizer()
        model = make_model(tokenizer, **self.model.model_dump(), seed=job.seed)
        fields = arguments(self.DEFAULTS, self.trainer, job.work, job.seed)
        if fields["lr_scheduler_type"] == "warmup_stable_decay":
            half = {"num_decay_steps": fields["max_steps"] // 2, "decay_type": "linear"}
            fields["lr_scheduler_kwargs"] = half | (fields.get("lr_scheduler_kwargs") or {})
        config = SFTConfig(**fields)
        texts = self.texts(job.problems, self.work(config.world_size).texts, job.seed)
        optimizer = None
        if self.optimizer == "muon":
            optimizer = MuonAdamW(model, lr=config.learning_rate, weight_decay=config.weight_decay)
        train_on_texts(texts, model, tokenizer, config, job, optimizers=(optimizer, None))

    def texts(self, sources: tuple[Source, ...], number: int, seed: int) -> Iterator[tuple[str, str]]:
        """The (prompt, completion) pairs of training, in order: the early mixture, then the last."""
        early = round(self.early_share * number)
        before, after = prompt_for(make_tokenizer(), "?").split("?")  # rendering the template each time is slow

        def texts(voices: Voices, name: str) -> Iterator[tuple[str, str]]:
            ask = f"{before}{{}}{after}".format
            return corpus(sources, voices.model_dump(), self.wording, f"{seed} {name}", ask)

        first, last = texts(self.early_voices or self.voices, "early"), texts(self.voices, "late")
        return chain(islice(first, early), islice(last, number - early))
