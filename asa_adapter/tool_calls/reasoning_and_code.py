"""What an answer's text holds beside calls: reasoning, and code that only shows a call."""

import re

_TAGS = r"(?i:(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|scratch[_-]?pad|(?:inner_)?monologue))"
# Where reasoning begins, at the beginning of a line or behind a special token.
THOUGHT = rf"(?:\A|(?<=[\n>\]]))[ \t]*(?:<{_TAGS}>|\[THINK\]|<\|START_THINKING\|>|<\|channel>thought)"
_THOUGHT_ENDS = re.compile(rf"</{_TAGS}>|\[/THINK\]|<\|END_THINKING\|>|<channel\|>")
# Reasoning that began in the prompt ends on a line of its own.
_PROMPT_THOUGHT_ENDS = re.compile(rf"(?:\A|(?<=\n))(?:</{_TAGS}>|\[/THINK\])")
_REASONING_BEGINS = re.compile(
    r"(?:<(?:seed:)?(?:think|thinking|thought|reasoning)>|\[THINK\]|<\|START_THINKING\|>|<\|channel>thought"
    r"|<\|channel\|>analysis<\|message\|>|Here are my reasoning steps:)\s*\Z"
)
_BEGINNING = 64  # characters of an answer in which a reasoning block may be opened
COMMENT = "<!--"
_THOUGHT_BEGINS = re.compile(THOUGHT)
_FIRST_THOUGHT = re.compile(rf"\s*{THOUGHT}")
_SENTENCE_ENDS = ("\n", ".", "!", "?", ":", "…", "。")
FENCE = r"```[^\n`{\[<]{0,40}\s*"
# JSON that is assigned, passed on or quoted.
QUOTED = r"(?:[=(]\s*|[\"'`])(?=[\[{])"
JSON = r"(?:\[\s*)?\{\s*(?=\")"


def after_thought(text: str, position: int) -> int:
    """Where the reasoning that begins at a position is over; the end of the text if it is cut."""
    ended = _THOUGHT_ENDS.search(text, position)
    return ended.end() if ended else len(text)


def first_word(text: str) -> int:
    """Where an answer begins behind its reasoning, the beginning of which may be in the prompt; 0 if it has none."""
    if begun := _FIRST_THOUGHT.match(text):
        return after_thought(text, begun.end())
    ended = _PROMPT_THOUGHT_ENDS.search(text)
    return ended.end() if ended and not _THOUGHT_BEGINS.search(text, 0, ended.start()) else 0


def in_words(text: str, position: int) -> bool:
    """Whether a position is amid a sentence or code, not behind a sentence or at the beginning of a line."""
    before = text[:position].rstrip(" \t")
    return text.count("```", 0, position) % 2 == 1 or not before.endswith(_SENTENCE_ENDS)


def after_code(text: str, position: int) -> int:
    """Where a fence ends whose code begins at a position; that position where it begins like a call."""
    if text.startswith(("{", "[", "<"), position):
        return position
    closed = text.find("```", position)
    return len(text) if closed < 0 else closed + 3


def open_reasoning(text: str) -> str:
    """The marker of a reasoning block with which a text ends; "" where it ends with none."""
    found = _REASONING_BEGINS.search(text)
    return found[0].strip() if found else ""


def reasons_first(answer: str) -> str:
    """The marker of the reasoning block with which an answer begins; "" where it begins with none."""
    beginnings = (answer[:end] for end in range(1, min(len(answer), _BEGINNING) + 1))
    return next(filter(None, map(open_reasoning, beginnings)), "")
