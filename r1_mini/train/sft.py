"""Next-token training on texts: the base stage, of random weights, and the SFT stage, of a model before RL.

SFT is R1's cold start (2501.12948, section 2.3.1). The loss is the mean of -log p over all completion tokens of a
batch. Texts are packed (`packing.py`), which changes no gradient. Not here: which texts (`corpus.py`).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from datasets import Dataset
from pydantic import Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from r1_mini.completion import begun
from r1_mini.config.base import wrong
from r1_mini.data.source import Source
from r1_mini.model.architecture import ModelSettings, make_model
from r1_mini.model.checkpoint import adapter
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.prompts import prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.languages import WORDS
from r1_mini.problems.problem import Problem
from r1_mini.train.callbacks import progress_bar
from r1_mini.train.corpus import Languages, Voices, Wording, corpus, tokenized
from r1_mini.train.packing import pack
from r1_mini.train.stage import EVERY_STAGE, Job, StageSettings, TuningStage
from r1_mini.train.trainer import load, save, train

TEXT_STAGE: dict[str, Any] = {
    **EVERY_STAGE,
    "max_length": None,
    "train_sampling_strategy": "sequential",  # the texts are in the order of training already
    "dataset_kwargs": {"skip_prepare_dataset": True},  # and tokenized
}
"""Default fields of SFTConfig."""

LOGGED = {**{name: name for name in ("loss", "learning_rate", "grad_norm")}, "mean_token_accuracy": "token_accuracy"}
"""The trainer's name of a metric -> ours."""


class TextStage(StageSettings):
    """A stage that trains on texts through TRL's SFTTrainer."""

    CONFIG = "SFTConfig"

    def trainer_of(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SFTConfig, examples: Dataset
    ) -> SFTTrainer:
        """TRL's trainer on `input_ids` and `labels`, free of padding."""
        return SFTTrainer(
            model=model,
            args=config,
            train_dataset=examples,
            processing_class=tokenizer,
            data_collator=partial(pack, pad=tokenizer.pad_token_id),
            peft_config=adapter(getattr(self, "peft", None)),
        )

    def rehearse(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SFTConfig, problem: Problem
    ) -> SFTTrainer:
        return self.trainer_of(model, tokenizer, config, Dataset.from_list([{"input_ids": [0, 0], "labels": [0, 0]}]))

    def train_on_texts(
        self,
        texts: Iterator[tuple[str, str]],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: SFTConfig,
        job: Job,
    ) -> None:
        """Train on (prompt, completion) pairs and save the result in `job.out`."""
        rows = self.work(config.world_size).texts
        with progress_bar(job.console) as bar:
            advance = partial(bar.advance, bar.add_task("corpus", total=rows, note=""))
            examples = tokenized(texts, tokenizer, rows, rows // config.max_steps, job.seed, advance)
        tokens = list(accumulate(map(len, examples["input_ids"])))  # TRL would count those of packed rows wrongly
        trainer = self.trainer_of(model, tokenizer, config, examples)
        names = {**LOGGED, "entropy": "entropy"}
        train(trainer, job, names, lambda step: {"tokens": tokens[step * rows // config.max_steps - 1]})
        save(trainer, job.out)


class SolutionStage(TextStage):
    """A stage that learns from the solutions of problems."""

    reinforces = False

    wording: Wording = "list"
    languages: Languages = Languages()
    """The mixture of languages in which chains are written."""


class BaseStage(SolutionStage):
    """Next-token training of random weights on worked problems."""

    VERSION = 2
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
    from_scratch = True

    kind: Literal["base"]
    model: ModelSettings = ModelSettings()
    voices: Voices = Voices()
    """The mixture of styles at the end of training: what the model will write, unforced."""
    early_voices: Voices | None = None
    """The mixture before that; null is the same. Models learn to calculate from worked text, not from bare answers."""
    early_share: float = Field(0.85, ge=0, lt=1)
    """Share of the steps that use `early_voices`."""
    optimizer: Literal["muon", "adamw"] = "muon"

    @model_validator(mode="after")
    def _muon_has_no_such_field(self) -> Self:
        for name in self.trainer if self.optimizer == "muon" else ():
            if name.startswith(("adam_", "optim")):
                fix = "set `optimizer: adamw` of the stage, or leave it out"
                raise wrong("has no effect beside the stage's optimizer, muon", fix, f"trainer.{name}")
        return self

    def train(self, job: Job) -> None:
        tokenizer = self.tokenizer()
        model = make_model(tokenizer, **self.model.model_dump(), seed=job.seed)
        config = self.config(job.work, job.seed)
        texts = self.texts(job.problems, self.work(config.world_size).texts, job.seed)
        self.train_on_texts(texts, model, tokenizer, config, job)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the model, which has a token for each word that the texts write."""
        return make_tokenizer([*self.model.characters, *(WORDS.values() if self.languages.signs < 1 else ())])

    def config(self, work: Path, seed: int) -> SFTConfig:
        """With half of the steps for the decay of the learning rate."""
        config: SFTConfig = super().config(work, seed)
        if config.lr_scheduler_type == "warmup_stable_decay":
            half = {"num_decay_steps": config.max_steps // 2, "decay_type": "linear"}
            config.lr_scheduler_kwargs = half | (config.lr_scheduler_kwargs or {})
        return config

    def trainer_of(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SFTConfig, examples: Dataset
    ) -> SFTTrainer:
        trainer = super().trainer_of(model, tokenizer, config, examples)
        if self.optimizer == "muon":
            trainer.optimizer = MuonAdamW(model, lr=config.learning_rate, weight_decay=config.weight_decay)
        return trainer

    def texts(self, sources: Sequence[Source], number: int, seed: int) -> Iterator[tuple[str, str]]:
        """The (prompt, completion) pairs of training, in order: the early mixture, then the last."""
        before, after = prompt_for(make_tokenizer(), "?").split("?")  # rendering the template each time is slow
        ask = f"{before}{{}}{after}".format
        first, last = (
            corpus(sources, voices.model_dump(), self.wording, f"{seed} {name}", ask, self.languages.model_dump())
            for name, voices in {"early": self.early_voices or self.voices, "late": self.voices}.items()
        )
        early = round(self.early_share * number)
        return chain(islice(first, early), islice(last, number - early))


class SftStage(SolutionStage, TuningStage):
    """Next-token training of a model on worked problems in the format that rewards ask for: R1's cold start."""

    VERSION = 3
    DEFAULTS: ClassVar = {
        **TEXT_STAGE,
        "max_steps": 100,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
    }
    RATES: ClassVar = {"model": 2e-5, "adapter": 1e-3}

    kind: Literal["sft"]
    voices: Voices = Voices(direct=0.0, worked=1.0, checked=0.0)

    def train(self, job: Job) -> None:
        model, tokenizer = load(job)
        config = self.config(job.work, job.seed)
        ask, languages = partial(prompt_for, tokenizer), self.languages.model_dump()
        pairs = corpus(job.problems, self.voices.model_dump(), self.wording, f"{job.seed} sft", ask, languages, True)
        texts = ((prompt, completion.removeprefix(begun(prompt))) for prompt, completion in pairs)
        self.train_on_texts(texts, model, tokenizer, config, job)
