"""Text that others wrote, before it is shown or kept: hostile characters are made visible, and secrets are found."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
    "|[\U000e0000-\U000e007f]"
)
_WORDS = (
    r"(?<!eos_)(?<!pad_)(?<!bos_)(?<!unk_)"
    r"(?i:token|passw(?:or)?d|passphrase|pwd|secret|credentials?|(?:api|access)_?key|auth(?:orization)?)"
)
_NAMES = rf"(?:^|[\W_]|(?<=[a-z])(?=[A-Z])){_WORDS}"
_NAME = re.compile(rf"{_NAMES}(?:\.\d+)*$")
_NAMED = re.compile(rf"({_NAMES}\b[\"']?\s*[=:]).*", re.DOTALL)
_LOGIN = re.compile(r"(:/{1,2})[^:/\s]*:\S+@|(https?:/{1,2})[^/\s]+@")  # a path has made one slash of two
_TOKEN = re.compile(r"\b(?:hf_|gh[pousr]_|github_pat_|sk-(?:\w+-)*)\w{20,}[\w-]*")
_QUERY = re.compile(rf"([?&][\w-]*(?:{_WORDS}|(?i:sig(?:nature)?))=)[^&\s]*")


def visible(text: str) -> str:
    r"""The text with control characters, bidirectional controls and lone surrogates written as `\u202e`."""
    return _UNSEEN.sub(lambda match: ("\\u%04x" if match[0] < "\uffff" else "\\U%08x") % ord(match[0]), text)


def short(name: str, most: int = 40) -> str:
    """A name that others chose, as a table can show it: visible, and its middle left out where it is long."""
    name = visible(" ".join(name.split()))
    return name if len(name) <= most else f"{name[: most // 2]}…{name[1 - most // 2 :]}"


def masked(text: str) -> str:
    """The text without passwords of URLs and tokens of the Hub, of OpenAI and of GitHub."""
    return _QUERY.sub(r"\1***", _TOKEN.sub("***", _LOGIN.sub(r"\1\2***@", text)))


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
    elif value and value is not True and (_NAME.search(key) or masked(str(value)) != str(value)):
        yield key
