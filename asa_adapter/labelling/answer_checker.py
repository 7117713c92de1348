"""Whether an answer in words is right: its final result against the one that is expected."""

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from asa_adapter.labelling.numbers_and_dates import MONTHS, Number, dates, numbers
from asa_adapter.labelling.result_statements import Statement, statements, without_markup

_WHOLE_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_KEYS = {"value", "tolerance", "unit"}
_EXPECTED = (
    "expected a number, a text, {'value': number, 'tolerance': number, 'unit': text or list of texts}, or a list of "
    "these, any of which is right"
)
# Texts of which an answer may name only one: the last one counts.
_CLOSED = [
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
    MONTHS,
    ["yes", "no"],
    ["true", "false"],
]
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_QUOTED = re.compile(r"\"([^\"\n]+)\"|(?<!\w)'([^'\n]+)'(?!\w)|\*\*([^*\n]+)\*\*")
_BEFORE_RESULT = re.compile(r".*(?:[:=]|\b(?:is|are|becomes?|gives?|gets?|be)\b)", re.I | re.S)
_BEHIND_RESULT = re.compile(r"\b(?:is|are|was|comes?|would)\b|[,;(]", re.I)

T = TypeVar("T")


@dataclass(frozen=True)
class NumberResult:
    """A number; right within the tolerance.

    Attributes:
        value: what is expected.
        tolerance: greatest difference.
        units: lower-case names of its unit; where an answer gives numbers with and without it, those with it count.
    """

    value: Fraction
    tolerance: Fraction
    units: tuple[str, ...] = ()

    def given(self, statement: Statement, question: str) -> bool | None:
        """Checks whether a statement gives this number; None where the statement has no number."""
        text = _last_emphasised(statement.text, numbers)
        found = _not_in_question(numbers(text, statement.spelled), numbers(question), lambda number: number.value)
        if not found:
            return None
        found = [number for number in found if self._has_unit(text, number)] or found
        behind = [number for number in found if number.begin > text.rfind("=")]
        number = behind[0] if behind and "=" in text else found[0 if statement.announced else -1]
        return abs(number.value - self.value) <= self.tolerance

    def _has_unit(self, text: str, number: Number) -> bool:
        behind = text[number.end :].lstrip(" *-").lower()
        return any(re.match(rf"{re.escape(unit)}(?![a-z])", behind) for unit in self.units)


@dataclass(frozen=True)
class DateResult:
    """A date, however it is written.

    Attributes:
        value: what is expected.
    """

    value: datetime.date

    def given(self, statement: Statement, question: str) -> bool | None:
        """Checks whether a statement gives this date; None where the statement has no date."""
        text = _last_emphasised(statement.text, dates)
        found = _not_in_question(dates(text), dates(question), lambda date: date[:3])
        if not found:
            return None
        place = found[0 if statement.announced else -1].begin
        return any(date.is_of(self.value) for date in found if date.begin == place)


@dataclass(frozen=True)
class TextResult:
    """Words; capitals, punctuation and spaces do not count.

    Attributes:
        value: the words, normalised.
    """

    value: str

    def given(self, statement: Statement, question: str) -> bool | None:
        """Checks whether a statement gives these words; None where the statement may be without any result."""
        text = statement.text
        for names in _CLOSED:
            if self.value in names:
                words = [word for word in normalised(text).split() if word in names]
                asked = normalised(question).split()
                found = _not_in_question(words, asked, str)
                return found[0 if statement.announced else -1] == self.value if found else None
        if f" {normalised(text)}".endswith(f" {self.value}"):
            return True
        asked = _quoted_texts(question)
        if spans := [span for span in _quoted_texts(text) if span not in asked]:
            return spans[-1] == self.value
        return self.value in (normalised(_BEFORE_RESULT.sub("", text)), normalised(_BEHIND_RESULT.split(text)[0]))


Result = NumberResult | DateResult | TextResult


def expected_results(answer: Any, where: str) -> list[Result]:
    """The results of which any makes an answer right.

    Args:
        answer: what is expected. A number, or a text that is one, is right to its last written digit: 12 is met by 12
            and 12.0, 4.83 by 4.828. A text that is a date, as 2031-05-14, is met by that date in any spelling; another
            one by the same words. {"value": number, "tolerance": number, "unit": text or list of texts} says more of a
            number. A list holds several, any of which is right.
        where: how errors name it.

    Raises:
        ValueError: the answer is none of these.
    """
    listed = isinstance(answer, Sequence) and not isinstance(answer, str | bytes)
    results = [_expected_result(one, where) for one in (answer if listed else [answer])]
    if not results:
        raise ValueError(f"{where}: the answer is an empty list; {_EXPECTED}")
    return results


def _expected_result(answer: Any, where: str) -> Result:
    """The result that an expected answer means: a number, a date or words."""
    if isinstance(answer, Mapping):
        return _number_with_tolerance(answer, where)
    if isinstance(answer, str):
        text = answer.strip()
        if _WHOLE_NUMBER.fullmatch(text):
            return _expected_number(text.replace(",", ""))
        try:
            return DateResult(datetime.date.fromisoformat(text))
        except ValueError:
            if words := normalised(text):
                return TextResult(words)
    elif _is_number(answer):
        return _expected_number(repr(answer))
    raise ValueError(f"{where}: the answer is {answer!r:.80}; {_EXPECTED}")


def _number_with_tolerance(answer: Mapping[str, Any], where: str) -> NumberResult:
    """A number with its tolerance and its unit."""
    value, tolerance, unit = (answer.get(key) for key in ("value", "tolerance", "unit"))
    units = [unit] if isinstance(unit, str) else [] if unit is None else unit
    named = isinstance(units, list | tuple) and all(isinstance(one, str) and one.strip() for one in units)
    tolerable = tolerance is None or (_is_number(tolerance) and tolerance >= 0)
    if not (_is_number(value) and tolerable and named) or set(answer) - _KEYS:
        raise ValueError(f"{where}: the answer is {dict(answer)!r:.120}; {_EXPECTED}")
    result = _expected_number(repr(value))
    allowed = result.tolerance if tolerance is None else Fraction(repr(tolerance))
    return NumberResult(result.value, allowed, tuple(one.strip().lower() for one in units))


def _is_number(value: Any) -> bool:
    """Whether an expected answer is a number."""
    return type(value) in (int, float) and math.isfinite(value)


def _expected_number(digits: str) -> NumberResult:
    """An expected number that is right to its last written digit."""
    mantissa, _, power = digits.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    last = Fraction(10) ** (int(power or 0) - places)
    return NumberResult(Fraction(digits), last / 2 if places else Fraction(0))


def is_right(answer: str, results: Iterable[Result], question: str = "") -> bool:
    """Whether the final result of an answer is one of those expected.

    Not any number in the working counts: the last box, what follows "the answer is", else the last sentence that has a
    number (a date, a word of the kind) decides. What the question says itself is not taken for the result, unless
    nothing else is there.

    Args:
        answer: the model's answer, without special tokens.
        results: the expected results, any of which is right.
        question: what was asked.

    Example:
        >>> is_right("12 times 13 is 156.", expected_results(156, "row 0"), "What is 12 times 13?")
        True
        >>> is_right("First 156, then I add 4, which makes 160.", expected_results(156, "row 0"))
        False
    """
    parts = list(statements(answer))
    asked = without_markup(question)
    return any(_first_that_decides(parts, result, asked) for result in results)


def _first_that_decides(parts: Iterable[Statement], result: Result, question: str) -> bool:
    """What the first statement says that has a result of this kind."""
    return next((said for part in parts if (said := result.given(part, question)) is not None), False)


def normalised(text: str) -> str:
    """The words of a text, in lower case, with one space between them."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _last_emphasised(text: str, read: Callable[[str], Sequence[Any]]) -> str:
    """The last bold part of a text in which something can be read, else the text."""
    bold = [part for part in _BOLD.findall(text) if read(part)]
    return bold[-1] if bold else text.replace("**", "")


def _not_in_question(found: list[T], asked: Iterable[Any], key: Callable[[T], Any]) -> list[T]:
    """What the question does not say itself; all of it where the question says everything."""
    known = {key(one) for one in asked}
    return [one for one in found if key(one) not in known] or found


def _quoted_texts(text: str) -> list[str]:
    """What stands in quotation marks or is bold, normalised."""
    return [normalised(next(filter(None, groups))) for groups in _QUOTED.findall(text)]
