"""Text that others wrote, before it is shown or kept: hostile characters are made visible, and secrets are found."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NAMES = (
    r"(?<!eos_)(?<!pad_)(?<!bos_)(?<!unk_)"
    r"(?:token|passw(?:or)?d|passphrase|pwd|secret|credentials?|(?:api|access)_?key|auth)"
)
_NAME = re.compile(rf"(?:^|[\W_]){_NAMES}$", re.IGNORECASE)
_NAMED = re.compile(rf"((?:^|[\W_]){_NAMES}\b[\"']?\s*[=:]).*", re.IGNORECASE | re.DOTALL)
_VALUE = re.compile(r"(?<=://)[^:/\s]*:\S+@|(?<=https://)[^/\s]+@|(?<=http://)[^/\s]+@|\b(?:hf_|sk-|gh[pousr]_)\w{20,}")
_QUERY = re.compile(rf"([?&]{_NAMES}=)[^&\s]*", re.IGNORECASE)


def visible(text: str) -> str:
    r"""The text with control characters, bidirectional controls and lone surrogates written as `\u202e`."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def short(name: str, most: int = 40) -> str:
    """A name that others chose, as a table can show it: visible, and its middle left out where it is long."""
    name = visible(" ".join(name.split()))
    return name if len(name) <= most else f"{name[: most // 2]}…{name[1 - most // 2 :]}"


def masked(text: str) -> str:
    """The text without passwords of URLs and tokens of the Hub, of OpenAI and of GitHub."""
    return _QUERY.sub(r"\1***", _VALUE.sub(lambda match: "***" + "@" * match.group().endswith("@"), text))


def cut(text: str) -> str:
    """A setting as the user wrote it, without what follows a name that a secret has, such as `token=`."""
    return _NAMED.sub(r"\1***", masked(text))


def secrets(value: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of all that holds a password or a token, by its name or by its form."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from secrets(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from secrets(item, f"{key}.{place}")
    elif isinstance(value, str) and value and (_NAME.search(key) or masked(value) != value):
        yield key
