"""A tokenizer of Qwen's kind, byte-level BPE with a chat template, trained on the spot."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer(
    texts: Iterable[str], size: int, eos: str = "<|im_end|>", pad: str = "<|endoftext|>", template: str = CHATML
) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": size, "initial_alphabet": alphabet, "show_progress": False}
    core.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=special, **options))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token=pad, chat_template=template)
