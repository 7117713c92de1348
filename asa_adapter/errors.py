"""The package's own exceptions, how a stranger's text is shown, and what habits of other libraries are answered with.

All other errors are of built-in types.
"""

import re
import textwrap
import unicodedata
from typing import NoReturn

# Control characters, those that turn the direction of text or cannot be seen, half characters, and line separators.
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_HARMLESS = "\n\t\u200c\u200d"  # the last two join and part letters, and emoji


def visible(text: str) -> str:
    """A text without the characters that a terminal, or a reader of other direction, would obey; lines stay lines.

    They are written as escapes of JSON, so that a text that is JSON stays the same JSON.

    Example:
        >>> print(visible("\\x1b[31mred\\u202e"))
        \\u001b[31mred\\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(json_escape(c) if unicodedata.category(c) in _OBEYED and c not in _HARMLESS else c for c in text)


def json_escape(character: str) -> str:
    """A character as JSON writes it in ASCII."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


class AnswerWrapper(textwrap.TextWrapper):
    """Folds a model's answer: a line may end before and behind a marker such as <|tool_call_end|>, but not in it.

    Example:
        >>> AnswerWrapper(12).wrap("[f(x=1)]<|call_end|><|im_end|>")
        ['[f(x=1)]', '<|call_end|>', '<|im_end|>']
    """

    wordsep_re = re.compile(r"(\s+|<[^<>\s]{1,40}>|\[/?[A-Z_]{2,40}\])")


_ATTACH = "steering = adapter.attach(model)"
_NO_MERGE = "there is nothing to merge: the weights stay as they are. Save the adapter beside the model"
_PLAIN = "it holds no module: attach() puts what it needs where the model is"
# What users of PEFT would call, and what it is here.
_OF_AN_ADAPTER = {
    **dict.fromkeys(
        ("load_adapter", "add_adapter", "set_adapter", "enable_adapters"), f"{_ATTACH} puts it on a model"
    ),
    **dict.fromkeys(("disable_adapter", "disabled"), f"it is the handle's: {_ATTACH}; with steering.disabled(): ..."),
    **dict.fromkeys(("unload", "delete_adapter", "remove"), f"it is the handle's: {_ATTACH}; steering.remove()"),
    **dict.fromkeys(("merge_and_unload", "merge_adapter", "unmerge_adapter"), _NO_MERGE),
    **dict.fromkeys(("to", "cuda", "half", "eval"), _PLAIN),
    "decisions": f"it is the handle's: {_ATTACH}; steering.decisions",
}
_OF_A_HANDLE = {
    **dict.fromkeys(("merge_and_unload", "merge_adapter", "unmerge_adapter"), _NO_MERGE),
    "generate": "call the model's own generate(): it is steered while this is attached",
    **dict.fromkeys(("load_adapter", "add_adapter", "set_adapter"), "attach the other adapter to the model as well"),
    "delete_adapter": "call remove()",
    "get_base_model": "the model that you attached to is it; remove() restores it",
    "save_pretrained": "save the adapter: adapter.save_pretrained(folder)",
}


class AdapterHabits:
    """Answers habits of other libraries' adapters with what it is here."""

    _habits = _OF_AN_ADAPTER

    def __getattr__(self, name: str) -> NoReturn:
        why = f": {self._habits[name]}" if name in self._habits else ""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{why}", name=name, obj=self)


class HandleHabits(AdapterHabits):
    """The same for an attached adapter."""

    _habits = _OF_A_HANDLE


class _Shown(Exception):
    """An error whose text may quote a stranger's, and is shown on terminals."""

    def __init__(self, *given: object) -> None:
        super().__init__(*(visible(part) if isinstance(part, str) else part for part in given))


class IncompatibleModelError(_Shown, ValueError):
    """The adapter cannot steer this model: its width, depth or type differs, or its decoder blocks are not found."""


class AdapterFormatError(_Shown, ValueError):
    """A stored adapter is damaged, hostile, or written in a format that this version does not read."""


class AdapterDownloadError(_Shown, OSError):
    """An adapter could not be fetched from the Hub; the message says which repository and revision, and what to do."""


class DamagedDownloadError(AdapterDownloadError, AdapterFormatError):
    """The files that came from the Hub are not a valid adapter: damaged in the download, or already on the Hub."""


class AdapterUploadError(_Shown, OSError):
    """An adapter could not be pushed to the Hub; the message says to which repository, and what to do."""
