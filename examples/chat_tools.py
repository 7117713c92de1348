"""Three real tools for a chat: a calculator, units, and a search through the text files of one folder.

Their arguments are written by a model, so nothing in them is trusted: no code is run, no path is opened that the user
did not give, and every number and text has a limit. What cannot be done raises ValueError or ArithmeticError.
"""

import ast
import heapq
import math
import operator
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

MAX_EXPRESSION = 200  # characters
MAX_BITS = 4096  # of a whole number, some 1,200 digits
MAX_FILES, MAX_BYTES, MAX_LINE = 1000, 1_000_000, 200
TEXT_FILES = {".txt", ".md", ".rst"}

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: _power(base, exponent),
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}

# By unit: what it measures, and how it becomes the base unit: (value + shift) * factor.
UNITS: dict[str, tuple[str, float, float]] = {
    name: (quantity, factor, shift)
    for quantity, names, factor, shift in [
        ("length", "m metre meter", 1, 0),
        ("length", "km kilometre kilometer", 1000, 0),
        ("length", "cm centimetre centimeter", 0.01, 0),
        ("length", "mm millimetre millimeter", 0.001, 0),
        ("length", "mi mile", 1609.344, 0),
        ("length", "yd yard", 0.9144, 0),
        ("length", "ft foot feet", 0.3048, 0),
        ("length", "in inch inches", 0.0254, 0),
        ("mass", "kg kilogram", 1, 0),
        ("mass", "g gram", 0.001, 0),
        ("mass", "t tonne", 1000, 0),
        ("mass", "lb pound", 0.45359237, 0),
        ("mass", "oz ounce", 0.028349523125, 0),
        ("volume", "l litre liter", 1, 0),
        ("volume", "ml millilitre milliliter", 0.001, 0),
        ("time", "s second", 1, 0),
        ("time", "min minute", 60, 0),
        ("time", "h hour", 3600, 0),
        ("time", "d day", 86400, 0),
        ("temperature", "k kelvin", 1, 0),
        ("temperature", "c celsius °c", 1, 273.15),
        ("temperature", "f fahrenheit °f", 5 / 9, 459.67),
    ]
    for name in names.split()
}


def calculator(expression: str) -> str:
    """Compute an arithmetic expression.

    Args:
        expression: numbers, parentheses and + - * / // % **, such as (17 + 5) * 3
    """
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"the expression has {len(expression)} characters; expected at most {MAX_EXPRESSION}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{expression!r} is not an arithmetic expression") from error
    return str(_value(tree.body))


def _value(node: ast.expr) -> int | float:
    """The number that a piece of an expression stands for."""
    result: Any
    match node:
        case ast.Constant(value=number) if type(number) in (int, float):
            result = number
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in OPERATORS:
            result = OPERATORS[type(sign)](_value(operand))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            result = OPERATORS[type(sign)](_value(left), _value(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not arithmetic; expected numbers and + - * / // % **")
    if isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
        raise ValueError("the result is not a finite real number")
    if isinstance(result, int) and result.bit_length() > MAX_BITS:
        raise ValueError("the result is too large")
    return result


def _power(base: int | float, exponent: int | float) -> Any:
    """A power, unless it is too large: looked at before it is computed."""
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise ValueError("the power is too large")
    return base**exponent


def convert_units(value: float, from_unit: str, to_unit: str) -> str:
    """Convert a length, mass, volume, time or temperature to another unit.

    Args:
        value: the number to convert.
        from_unit: the unit that it is given in, such as km, lb, l, min or celsius.
        to_unit: the unit wanted.
    """
    (quantity, factor, shift), (wanted, wanted_factor, wanted_shift) = _unit(from_unit), _unit(to_unit)
    if quantity != wanted:
        raise ValueError(f"{from_unit} is a unit of {quantity}, and {to_unit} one of {wanted}")
    result = (value + shift) * factor / wanted_factor - wanted_shift
    if not math.isfinite(result):
        raise ValueError("the result is not a finite number")
    return f"{result:.10g} {to_unit.strip()}"


def _unit(name: str) -> tuple[str, float, float]:
    wanted = name.strip().lower()
    for spelling in (wanted, wanted.removesuffix("s"), wanted.removeprefix("degrees ")):
        if spelling in UNITS:
            return UNITS[spelling]
    raise ValueError(f"the unit {name!r:.40} is not known; known are {', '.join(UNITS)}")


def search_in(folder: Path, name: str = "search_files") -> Callable[[str], str]:
    """The search tool for the text files below one folder, under a name; it opens no file outside of it."""
    root = folder.resolve(strict=True)

    def search_files(query: str) -> str:
        """Search the user's own text files.

        Args:
            query: the words to look for.
        """
        words = set(re.findall(r"\w+", query.lower()))
        hits = (
            (-sum(word in line.lower() for word in words), f"{file.relative_to(root)}:{number}", line.strip())
            for file in _text_files(root)
            for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1)
        )
        best = [f"{place}: {line[:MAX_LINE]}" for score, place, line in heapq.nsmallest(3, hits) if score]
        return "\n".join(best) or f"no line has any of the words {query!r:.80}"

    search_files.__name__ = name
    return search_files


def _text_files(root: Path) -> Iterator[Path]:
    """The first text files below a folder that are not too large; no link leads out of it."""
    found = (path for path in root.rglob("*") if path.suffix.lower() in TEXT_FILES)
    for path in sorted(islice(found, MAX_FILES)):
        inside = path.resolve().is_relative_to(root)
        if inside and path.is_file() and path.stat().st_size <= MAX_BYTES:
            yield path
