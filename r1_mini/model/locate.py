"""Finds a model: a folder, or an id on the Hub."""

import re
from pathlib import Path

from r1_mini.errors import UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_checkpoint(path: Path, weights: bool = True) -> Path:
    """The folder of a model: `path` itself, or the local copy of the Hub's model of that id, downloaded if needed.

    Without `weights` only small files are downloaded, and a folder need not have weights. UserError with the likely fix
    if there is no such model.
    """
    if not path.exists() and HUB_ID.fullmatch(str(path)) and not path.parent.exists():
        return _from_hub(str(path), weights)
    if not path.exists():
        fix = "give the folder of a checkpoint, such as runs/tiny-r1-zero/02-grpo"
        raise UserError("no such folder", where=str(path), fix=fix)
    if not (path / "config.json").is_file() or (weights and not any(path.glob("*.safetensors"))):
        inside = sorted(each.parent.name for each in path.glob("*/node.json")) if path.is_dir() else []
        fix = f"did you mean {path / inside[-1]}?" if inside else "give a folder with config.json and model.safetensors"
        raise UserError("not a checkpoint", where=str(path), fix=fix)
    return path


def _from_hub(model: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    kept = ["*.json", "*.model", "*.txt", "*.jinja", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=kept))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        fix = "give a folder; or download it into HF_HOME where there is a network; a gated model needs HF_TOKEN"
        raise UserError(f"no such folder, nor model on the Hub ({reason})", where=model, fix=fix) from None
