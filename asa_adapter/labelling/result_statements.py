"""Where an answer gives its result: behind what announces it, or in its last sentences, without the working."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_REASONING_ENDS = re.compile(r"</(?:seed:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]")
# Characters that say the same as those of a keyboard.
_PLAIN = {ord(sign): "-" for sign in "\u2010\u2011\u2012\u2013\u2212"}  # hyphens and the minus sign
_PLAIN |= {ord(sign): "=" for sign in "\u2248\u2192\u21d2"}  # about equal, arrows
_PLAIN |= (
    {ord(sign): "'" for sign in "\u2018\u2019"} | {ord(sign): '"' for sign in "\u201c\u201d"} | {ord("\u00d7"): "*"}
)
_LATEX = [
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname|boxed)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"), r"\1"),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\(?:approx|Rightarrow|rightarrow|implies|to)\b"), "="),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\^\{([-+\d]+)\}"), r"^\1"),
    (re.compile(r"\\[,;!: ()\[\]]|\\(?=[%$])|(?<!\\)\$"), ""),
]
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
# Spaces within a number, and the prefixes of other bases.
_DIGIT_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_BASE_PREFIX = re.compile(r"\b0[box](?=[0-9a-fA-F]+\b)")
_LIST_MARK = re.compile(r"^[ \t]*(?:\d{1,2}[.)]|[-*+])[ \t]+|^[ \t]*#+[ \t]*", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_PRECISION = re.compile(
    r"(?:\brounded\s)?(?:\bto\s)?\b(?:the\s(?:nearest|closest)\s\w+"
    r"|(?:\d|one|two|three|four|five|six)\s(?:decimals|(?:decimal|significant)\s(?:places?|figures?|digits?|points?)))\b",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(r"\banswer\b(?:[^.\n:=]{0,80}?\b(?:is|are|be)\b|[\s*]*[:=])[\s:]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])[\s*]+(?=[A-Z\"'(*])")
# Sentences behind the result that say nothing of it.
_REMARK = re.compile(
    r"\W*(?:let me know|i hope|hope (?:this|that)|if you|feel free|is there|do you|would you|please)", re.I
)


class Statement(NamedTuple):
    """A part of an answer that may give its result.

    Attributes:
        text: the part.
        announced: whether it follows "the answer is" or stands in a box, so that it begins with the result.
        spelled: whether the answer has no digits, so that its numbers are words.
    """

    text: str
    announced: bool
    spelled: bool


def statements(answer: str) -> Iterator[Statement]:
    """The parts of an answer that may give its result, the likeliest first.

    Those are the last box, what follows the last "the answer is", and its sentences from the last one on. Reasoning
    that comes before the answer, questions, markup, and remarks on the precision of a number are left out; bold text
    stays bold.

    Example:
        >>> [statement.text for statement in statements("First 2 + 2 = 4. So the answer is **5**, I think.")]
        ['**5**, I think.', 'So the answer is **5**, I think.', 'First 2 + 2 = 4.']
    """
    text = _REASONING_ENDS.split(answer)[-1]
    if boxes := _BOXED.findall(text):
        yield Statement(without_markup(boxes[-1]), announced=True, spelled=False)
    text = without_markup(text)
    spelled = not re.search(r"\d", text)
    if found := list(_ANNOUNCED.finditer(text)):
        rest = text[found[-1].end() :].strip()
        yield Statement(_SENTENCE_END.split(rest)[0], announced=True, spelled=spelled)
    for sentence in reversed(_SENTENCE_END.split(text)):
        if sentence.strip(" \t*.") and not sentence.rstrip(" *").endswith("?") and not _REMARK.match(sentence):
            yield Statement(sentence.strip(), announced=False, spelled=spelled)


def without_markup(text: str) -> str:
    """An answer's text without LaTeX, list marks, code fences and remarks on precision, with plain signs."""
    text = _DIGIT_SPACE.sub(",", text).translate(_PLAIN)
    for pattern, replacement in _LATEX * 2:  # one may stand in another
        text = pattern.sub(replacement, text)
    text = _FENCE.sub("", text)
    if len(_LIST_MARK.findall(text)) > 1:  # a single one may be the answer: "4. That is all."
        text = _LIST_MARK.sub("", text)
    return _PRECISION.sub("", _BASE_PREFIX.sub("", text)).replace("`", "").strip()
