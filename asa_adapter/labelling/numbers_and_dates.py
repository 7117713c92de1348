"""What a text says: the numbers and the dates in it, and where each stands."""

import datetime
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

_NUMBER = re.compile(
    r"(?<![\w.])(?P<digits>[-+]?(?:\d{1,3}(?:[,_']\d{3})+|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"
    r"(?:(?:\s?[x*]\s?10\s?\^\s?|e)\(?(?P<power>[-+]?\d{1,3})\)?)?"
    r"(?![,_']\d{3}(?!\d)|\d|\s?(?:st|nd|rd|th)\b)(?:\s(?P<scale>thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = r"(?P<month>" + "|".join(f"{month[:3]}(?:{month[3:]})?" for month in MONTHS) + r"|sept)\b\.?"
_DAY = r"(?<!\d)(?P<day>\d{1,2})(?:st|nd|rd|th)?\b"
_YEAR = r"(?P<year>\d{4})(?!\d)"
_DATES = [
    re.compile(rf"(?<!\d){_YEAR}-(?P<m>\d{{2}})-(?P<day>\d{{2}})(?!\d)"),
    re.compile(rf"{_DAY}(?:\s+of)?\s+{_MONTH}(?:,?\s+{_YEAR})?", re.IGNORECASE),
    re.compile(rf"\b{_MONTH}\s+(?:the\s+)?{_DAY}(?:,?\s+{_YEAR})?", re.IGNORECASE),
    # Both 5/14/2031 and 14/5/2031 are written, so that some could be either.
    re.compile(rf"(?<!\d)(?P<day>\d{{1,2}})[/.](?P<m>\d{{1,2}})[/.]{_YEAR}"),
    re.compile(rf"(?<!\d)(?P<m>\d{{1,2}})[/.](?P<day>\d{{1,2}})[/.]{_YEAR}"),
]


class Number(NamedTuple):
    """A number in a text.

    Attributes:
        value: what it is, without rounding.
        begin: index of its first character.
        end: index behind its last character.
    """

    value: Fraction
    begin: int
    end: int


class Date(NamedTuple):
    """A date in a text.

    Attributes:
        month: 1 to 12.
        day: 1 to 31.
        year: None where the text leaves it out.
        begin: index of its first character.
    """

    month: int
    day: int
    year: int | None
    begin: int

    def is_of(self, date: datetime.date) -> bool:
        """Whether it is this date; one without a year is of every year."""
        return (self.month, self.day) == (date.month, date.day) and self.year in (None, date.year)


def numbers(text: str, spelled: bool = False) -> list[Number]:
    """The numbers in a text, in its order; ordinals such as "3rd" are none.

    Args:
        text: the text.
        spelled: whether numbers are read that are words, up to "twelve", instead of those in digits.

    Example:
        >>> [float(number.value) for number in numbers("-1,234.50 EUR in 3 parts, and 2.5 million")]
        [-1234.5, 3.0, 2500000.0]
        >>> [float(number.value) for number in numbers("three of them", spelled=True)]
        [3.0]
    """
    if spelled:
        return [Number(Fraction(_WORDS.index(m[0].lower())), m.start(), m.end()) for m in _WORD.finditer(text)]
    return [_number_of_match(match) for match in _NUMBER.finditer(text)]


def _number_of_match(match: re.Match[str]) -> Number:
    """The number that was matched in a text."""
    value = Fraction(re.sub(r"[,_']", "", match["digits"]))
    power = int(match["power"] or 0) + _SCALES.get((match["scale"] or "").lower(), 0)
    return Number(value * Fraction(10) ** power, match.start(), match.end())


def dates(text: str) -> list[Date]:
    """The dates in a text, in its order; one that can be read in two ways is there twice.

    Example:
        >>> [tuple(date)[:3] for date in dates("from March 3rd, 2031 to 2031-04-05, or 31 May")]
        [(3, 3, 2031), (4, 5, 2031), (5, 31, None)]
    """
    return sorted(set(_dates_in(text)), key=lambda date: date.begin)


def _dates_in(text: str) -> Iterator[Date]:
    """The dates in a text, pattern by pattern."""
    for pattern in _DATES:
        for match in pattern.finditer(text):
            groups = match.groupdict()
            month = int(groups["m"]) if "m" in groups else _month(groups["month"])
            day, year = int(groups["day"]), groups.get("year")
            if 1 <= month <= 12 and 1 <= day <= 31:
                yield Date(month, day, None if year is None else int(year), match.start())


def _month(name: str) -> int:
    return next(i for i, month in enumerate(MONTHS, start=1) if month.startswith(name[:3].lower()))
