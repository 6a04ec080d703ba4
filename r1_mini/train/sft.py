"""The SFT stage: worked solutions in the format that rewards ask for (R1's cold start, 2501.12948, section 2.3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Literal

from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

from r1_mini.completion import begun
from r1_mini.data.source import Source
from r1_mini.model.prompts import prompt_for
from r1_mini.train.corpus import Voices, Wording, corpus
from r1_mini.train.stage import Job, TuningStage, Work
from r1_mini.train.supervised import TEXT_STAGE, text_work, train_on_texts
from r1_mini.train.trainer import adapter, arguments, load


class SftStage(TuningStage):
    """Next-token training of a model on worked problems, through TRL's SFTTrainer: R1's cold start."""

    VERSION = 1
    CONFIG = "SFTConfig"
    DEFAULTS: ClassVar = {
        **TEXT_STAGE,
        "max_steps": 100,
        "per_device_train_batch_size": 16,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
    }
    FIXED: ClassVar = {"num_train_epochs": "problems are sampled without end; set max_steps"}
    reinforces = False

    kind: Literal["sft"]
    voices: Voices = Voices(direct=0.0, worked=1.0, checked=0.0)
    wording: Wording = "list"

    def train(self, job: Job) -> None:
        model, tokenizer = load(job, self.trainer)
        config = SFTConfig(**arguments(self.DEFAULTS, self.trainer, job.work, job.seed))
        texts = self.texts(job.problems, tokenizer, job.seed)
        train_on_texts("sft", texts, model, tokenizer, config, job, peft_config=adapter(self.peft))

    def work(self, processes: int = 1, sharded: bool = False) -> Work:
        return text_work(self.fields, processes)

    def texts(
        self, sources: tuple[Source, ...], tokenizer: PreTrainedTokenizerBase, seed: int
    ) -> Iterator[tuple[str, str]]:
        """The (prompt, completion) pairs of training, in order, without end."""
        pairs = corpus(sources, self.voices.model_dump(), self.wording, f"{seed} sft", partial(prompt_for, tokenizer))
        return ((prompt, completion.removeprefix(begun(prompt))) for prompt, completion in pairs)
