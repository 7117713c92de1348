"""The package's own exceptions, and how a stranger's text is shown. All other errors are of built-in types."""

import unicodedata

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
