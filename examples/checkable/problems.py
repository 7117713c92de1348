"""Makes the rows of this folder, which have answers to check: `python examples/checkable/problems.py`.

Each wording of `frames.txt` is used at every difficulty, and all its rows stay in one file: the size of what is asked
decides whether a model can do it alone, not the words. The rows have no labels: they are a model's, found by trying
(`asa-adapter label`).
"""

import argparse
import json
import random
import re
import string
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from asa_adapter.data import SPLITS, near_duplicate_groups

FOLDER = Path(__file__).parent
SEED = 42
DIFFICULTIES = (1, 2, 3, 4)
# Where the seven wordings of a kind go.
SHARES = ("cal", "cal", "train", "train", "valid", "test", "test")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Unit asked from, unit asked for, factor, other names of the latter; in the order of the wordings.
TIMES = (
    ("hours", "minutes", 60),
    ("days", "hours", 24),
    ("minutes", "seconds", 60),
    ("weeks", "days", 7),
    ("days", "minutes", 1440),
    ("weeks", "hours", 168),
    ("years", "months", 12),
)
IMPERIAL = (
    ("miles", "kilometres", "1.609344", ("kilometers", "km")),
    ("pounds", "kilograms", "0.45359237", ("kilogrammes", "kg")),
    ("inches", "centimetres", "2.54", ("centimeters", "cm")),
    ("gallons", "litres", "3.785411784", ("liters", "l")),
    ("feet", "metres", "0.3048", ("meters", "m")),
    ("ounces", "grams", "28.349523125", ("grammes", "g")),
    ("yards", "metres", "0.9144", ("meters", "m")),
)
BASES = ("binary", "binary", "binary", "hexadecimal", "hexadecimal", "hexadecimal", "binary")


class Problem(NamedTuple):
    """What one row asks.

    Attributes:
        slots: texts for the slots of its wording.
        answer: what `label_by_trying` compares with.
        tool: the name of the tool that solves it.
        arguments: with which it does.
    """

    slots: dict[str, str]
    answer: Any
    tool: str
    arguments: dict[str, Any]


Maker = Callable[[random.Random, int, int], Problem]


def digits(draw: random.Random, count: int) -> int:
    """A number of so many digits, the last of which is neither 0 nor 1."""
    return draw.randrange(10 ** (count - 1), 10**count) // 10 * 10 + draw.randint(2, 9)


def number(value: Decimal | int) -> int | float:
    """A number as JSON has it."""
    return int(value) if value == int(value) else float(value)


def computed(a: Any, sign: str, b: Any, answer: Any) -> Problem:
    """A problem for the calculator."""
    return Problem({"a": str(a), "b": str(b)}, answer, "calculator", {"expression": f"{a} {sign} {b}"})


def sum_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Two numbers to add."""
    a, b = (digits(draw, (1, 2, 5, 16)[level - 1]) for _ in range(2))
    return computed(a, "+", b, a + b)


def product_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Two numbers to multiply."""
    if level == 1:
        a, b = draw.randint(3, 9), draw.randint(2, 5)
    else:
        a, b = (digits(draw, count) for count in ((2, 1), (3, 2), (6, 5))[level - 2])
    return computed(a, "*", b, a * b)


def quotient_of(draw: random.Random, level: int, wording: int) -> Problem:
    """A division without remainder."""
    if level == 1:
        a, b = draw.randint(2, 6), draw.randint(2, 5)
    else:
        a, b = draw.randint(*((11, 20), (120, 980), (10**5, 10**6))[level - 2]), digits(draw, (1, 2, 5)[level - 2])
    return computed(a * b, "/", b, a)


def percentage_of(draw: random.Random, level: int, wording: int) -> Problem:
    """A share of a number."""
    share: Any = draw.choice(((10, 50), (20, 25, 30), range(13, 89, 4), range(113, 889, 4))[level - 1])
    share = Decimal(share) / 10 if level == 4 else share
    whole = (draw.randint(1, 9) * 20, draw.randint(6, 24) * 20, digits(draw, 4), digits(draw, 8))[level - 1]
    answer = number(Decimal(share) * whole / 100)
    return Problem(
        {"a": str(share), "b": str(whole)}, answer, "calculator", {"expression": f"{whole} * {share} / 100"}
    )


def time_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Units of time, whose factors are whole numbers."""
    unit, wanted, factor = TIMES[wording]
    value = draw.randint(*((2, 4), (11, 30), (211, 989), (10**7, 10**8))[level - 1])
    return converted(value, unit, wanted, {"value": value * factor, "unit": wanted})


def imperial_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Units of the United States in metric ones."""
    unit, wanted, factor, names = IMPERIAL[wording]
    value = Decimal(draw.choice((10, 100))) if level == 1 else measure(draw, level, (12, 30))
    answer = {"value": rounded(value * Decimal(factor)), "tolerance": 0.0055, "unit": [wanted, *names]}
    return converted(value, unit, wanted, answer)


def temperature_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Degrees Celsius in degrees Fahrenheit."""
    value = Decimal(draw.choice((0, 10, 20, 30, 100))) if level == 1 else measure(draw, level, (15, 95))
    answer = {"value": rounded(value * 9 / 5 + 32), "tolerance": 0.0055}
    return converted(value, "celsius", "fahrenheit", answer)


def base_of(draw: random.Random, level: int, wording: int) -> Problem:
    """A number in another base."""
    value = draw.randint(*((2, 7), (9, 31), (700, 4000), (10**8, 10**9))[level - 1])
    answer = format(value, {"binary": "b", "hexadecimal": "x"}[BASES[wording]])
    return converted(value, "decimal", BASES[wording], answer)


def measure(draw: random.Random, level: int, whole: tuple[int, int]) -> Decimal:
    """A value to convert: at level 2 a whole number in this range, from level 3 on one with decimals."""
    if level == 2:
        return Decimal(draw.randint(*whole))
    return Decimal(digits(draw, 4)) / 10 if level == 3 else Decimal(digits(draw, 9)) / 1000


def rounded(value: Decimal) -> int | float:
    """To two decimals."""
    return number(round(value, 2))


def converted(value: Decimal | int, unit: str, wanted: str, answer: Any) -> Problem:
    """A problem for the converter."""
    arguments = {"value": number(value), "from_unit": unit, "to_unit": wanted}
    return Problem({"a": str(value)}, answer, "converter", arguments)


def written(day: date, wording: int) -> str:
    """A date in one of three spellings."""
    return (f"{day.day} {day:%B} {day.year}", f"{day:%B} {day.day}, {day.year}", day.isoformat())[wording % 3]


def some_day(draw: random.Random, level: int) -> date:
    """A date; at level 1 one in the first half of a month."""
    days = (1, 15) if level == 1 else (16, 28)
    return date(draw.randint(2003, 2041), draw.randint(1, 12), draw.randint(*days))


def some_span(draw: random.Random, level: int) -> int:
    """A number of days."""
    return draw.randint(*((2, 5), (16, 27), (130, 690), (21_000, 88_000))[level - 1])


def add_of(draw: random.Random, level: int, wording: int) -> Problem:
    """The date so many days later."""
    day, span = some_day(draw, level), some_span(draw, level)
    arguments = {"operation": "add_days", "date": day.isoformat(), "days": span}
    answer = (day + timedelta(span)).isoformat()
    return Problem({"a": str(span), "b": written(day, wording)}, answer, "date_calculator", arguments)


def between_of(draw: random.Random, level: int, wording: int) -> Problem:
    """The number of days between two dates."""
    day, span = some_day(draw, level), some_span(draw, level)
    end = day + timedelta(span)
    arguments = {"operation": "days_between", "date": day.isoformat(), "end_date": end.isoformat()}
    slots = {"a": written(day, wording), "b": written(end, wording)}
    return Problem(slots, {"value": span, "unit": ["days", "day"]}, "date_calculator", arguments)


def weekday_of(draw: random.Random, level: int, wording: int) -> Problem:
    """The weekday so many days later."""
    start = draw.randrange(7)
    span = draw.randint(*((1, 3), (9, 20), (111, 989), (10**6, 10**7))[level - 1])
    span += span % 7 == 0  # the weekday that is told is never the answer
    arguments = {"operation": "add_to_weekday", "weekday": WEEKDAYS[start], "days": span}
    answer = WEEKDAYS[(start + span) % 7]
    return Problem({"a": str(span), "b": WEEKDAYS[start]}, answer, "date_calculator", arguments)


def calendar_of(draw: random.Random, level: int, wording: int) -> Problem:
    """The weekday of a date, beside a date whose weekday is told."""
    day, span = some_day(draw, level), some_span(draw, level)
    span += span % 7 == 0  # as in `weekday_of`
    end = day + timedelta(span)
    slots = {"a": written(day, wording), "b": written(end, wording), "c": WEEKDAYS[day.weekday()]}
    arguments = {"operation": "weekday_of", "date": end.isoformat()}
    return Problem(slots, WEEKDAYS[end.weekday()], "date_calculator", arguments)


def some_word(draw: random.Random, level: int, letters: str = string.ascii_lowercase) -> str:
    """A short, a usual or a long word; at level 4 a string of letters without meaning."""
    if level < 4:
        return draw.choice(WORDS[f"word{level}"])
    return "".join(draw.choice(letters) for _ in range(draw.randint(30, 40)))


def text_problem(slots: dict[str, str], answer: Any, operation: str, **arguments: Any) -> Problem:
    """A problem for the text tool."""
    return Problem(slots, answer, "text_tool", {"operation": operation, "text": slots["a"], **arguments})


def reverse_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Letters backwards."""
    word = some_word(draw, level)
    return text_problem({"a": word}, word[::-1], "reverse")


def count_of(draw: random.Random, level: int, wording: int) -> Problem:
    """How often a letter is in a word."""
    word = some_word(draw, level, "abcdehn")
    letter = draw.choice(sorted(set(word), key=lambda one: (-word.count(one), one))[:2])
    return text_problem({"a": word, "b": letter}, word.count(letter), "count_letter", letter=letter)


def position_of(draw: random.Random, level: int, wording: int) -> Problem:
    """The letter in one place."""
    word = some_word(draw, level)
    place = draw.randint(*((1, 3), (3, 5), (6, 10), (16, 28))[level - 1])
    return text_problem({"a": word, "b": str(place)}, word[place - 1], "letter_at", position=place)


def sort_of(draw: random.Random, level: int, wording: int) -> Problem:
    """Letters in the order of the alphabet."""
    word = some_word(draw, level)
    return text_problem({"a": word}, "".join(sorted(word)), "sort_letters")


MAKERS: dict[str, Maker] = {
    "sum": sum_of,
    "product": product_of,
    "quotient": quotient_of,
    "percentage": percentage_of,
    "time": time_of,
    "imperial": imperial_of,
    "temperature": temperature_of,
    "base": base_of,
    "add": add_of,
    "between": between_of,
    "weekday": weekday_of,
    "calendar": calendar_of,
    "reverse": reverse_of,
    "count": count_of,
    "position": position_of,
    "sort": sort_of,
}


def paragraphs(path: Path) -> dict[str, list[str]]:
    """The lines below each heading in square brackets; lines with "#" are left out."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = lines = []
        elif line.strip() and not line.startswith("#"):
            lines.append(line)
    return found


WORDS = {name: " ".join(lines).split() for name, lines in paragraphs(FOLDER / "words.txt").items()}
FRAMES = paragraphs(FOLDER / "frames.txt")
# What is said besides, and whether before what is asked.
REMARKS = [(remark, name == "before") for name in ("before", "behind") for remark in FRAMES.pop(name)]


def made(draw: random.Random, frame: str, kind: str, level: int, wording: int) -> dict[str, Any]:
    """One row, without its id."""
    problem = MAKERS[kind](draw, level, wording)
    remark, before = draw.choice(REMARKS)
    slots = {name: draw.choice(WORDS[name]) for name in ("name", "thing", "place")} | problem.slots
    asked = re.sub(r"\{(\w+)\}", lambda match: slots[match[1]], frame)
    return {
        "instruction": f"{remark} {asked}" if before else f"{asked}{'' if asked[-1] in '.?!' else '.'} {remark}",
        "answer": problem.answer,
        "kind": kind,
        "difficulty": level,
        "gold_calls": [{"name": problem.tool, "arguments": problem.arguments}],
    }


def wordings() -> Iterator[tuple[str, str, int, str, str]]:
    """Domain, kind, number, text and split of each wording."""
    for number_of_kind, (heading, frames) in enumerate(FRAMES.items()):
        domain, kind = heading.split()
        for wording, frame in enumerate(frames):
            yield domain, kind, wording, frame, SHARES[(wording + number_of_kind) % len(SHARES)]


def build(seed: int = SEED) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split. No two of all rows are near-duplicates: one of a pair is drawn again."""
    draw = random.Random(seed)
    places = [(place, level) for place in wordings() for level in DIFFICULTIES]

    def row(place: tuple[str, str, int, str, str], level: int) -> dict[str, Any]:
        domain, kind, wording, frame, _ = place
        return {"domain": domain, **made(draw, frame, kind, level, wording)}

    rows = [row(*place) for place in places]
    for _ in range(200):
        alike = [group for group in near_duplicate_groups([row["instruction"] for row in rows]) if len(group) > 1]
        if not alike:
            break
        for i in {i for group in alike for i in group[1:]}:
            rows[i] = row(*places[i])
    else:
        raise ValueError(f"{len(alike)} groups of near-duplicates are left; expected more varied wordings")
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for (place, _), one in zip(places, rows, strict=True):
        splits[place[-1]].append(one)
    for name, part in splits.items():
        draw.shuffle(part)
        splits[name] = [{"id": f"{name}-{i:03}", **one} for i, one in enumerate(part)]
    return splits


def main(words: Sequence[str] | None = None) -> None:
    """Writes the four files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the files (default: where this is)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"draws the values (default: {SEED})")
    options = parser.parse_args(words)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in build(options.seed).items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (options.output / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
