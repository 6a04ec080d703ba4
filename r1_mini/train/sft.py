"""Next-token training on texts, and the SFT stage: worked solutions in the format that rewards ask for, before RL.

R1's cold start (2501.12948, section 2.3.1). The loss is the mean of -log p over all completion tokens of a batch. Texts
are packed (`packing.py`), which changes no gradient. Not here: which texts (`corpus.py`).
"""

from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar, Literal

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from r1_mini.completion import begun
from r1_mini.data.source import Source
from r1_mini.model.checkpoint import adapter
from r1_mini.model.prompts import prompt_for
from r1_mini.train.callbacks import progress_bar
from r1_mini.train.corpus import Voices, Wording, corpus, tokenized
from r1_mini.train.packing import pack
from r1_mini.train.stage import EVERY_STAGE, Job, TuningStage
from r1_mini.train.trainer import arguments, load, save, train

TEXT_STAGE: dict[str, Any] = {
    **EVERY_STAGE,
    "max_length": None,
    "train_sampling_strategy": "sequential",  # the texts are in the order of training already
    "dataset_kwargs": {"skip_prepare_dataset": True},  # and tokenized
}
"""Default fields of SFTConfig."""

LOGGED = {
    **{name: name for name in ("loss", "learning_rate", "grad_norm")},
    "mean_token_accuracy": "token_accuracy",
}
"""The trainer's name of a metric -> ours."""


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
    reinforces = False

    kind: Literal["sft"]
    voices: Voices = Voices(direct=0.0, worked=1.0, checked=0.0)
    wording: Wording = "list"

    def train(self, job: Job) -> None:
        model, tokenizer = load(job)
        config = SFTConfig(**arguments(self.DEFAULTS, self.trainer, job.work, job.seed))
        texts = self.texts(job.problems, tokenizer, job.seed)
        train_on_texts(texts, model, tokenizer, config, job, peft_config=adapter(self.peft))

    def texts(
        self, sources: tuple[Source, ...], tokenizer: PreTrainedTokenizerBase, seed: int
    ) -> Iterator[tuple[str, str]]:
        """The (prompt, completion) pairs of training, in order, without end."""
        pairs = corpus(sources, self.voices.model_dump(), self.wording, f"{seed} sft", partial(prompt_for, tokenizer))
        return ((prompt, completion.removeprefix(begun(prompt))) for prompt, completion in pairs)


def text_trainer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SFTConfig, examples: Dataset, **options: Any
) -> SFTTrainer:
    """A trainer on `input_ids` and `labels`, free of padding; `options` are more arguments of SFTTrainer."""
    collate = partial(pack, pad=tokenizer.pad_token_id)
    data = {"train_dataset": examples, "processing_class": tokenizer, "data_collator": collate}
    return SFTTrainer(model=model, args=config, **data, **options)


def train_on_texts(
    texts: Iterator[tuple[str, str]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SFTConfig,
    job: Job,
    **options: Any,
) -> None:
    """Train on (prompt, completion) pairs and save the result in `job.out`; `options` as in `text_trainer`."""
    rows = job.settings.work(config.world_size).texts
    with progress_bar(job.console) as bar:
        advance = partial(bar.advance, bar.add_task("corpus", total=rows, note=""))
        examples = tokenized(texts, tokenizer, rows, config.per_device_train_batch_size, job.seed, advance)
    tokens = list(accumulate(map(len, examples["input_ids"])))  # TRL would count those of packed rows wrongly
    trainer = text_trainer(model, tokenizer, config, examples, **options)
    names = {**LOGGED, "entropy": "entropy"}
    train(trainer, job, names, lambda step: {"tokens": tokens[step * rows // config.max_steps - 1]})
    save(trainer, job.out)
