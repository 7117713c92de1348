"""The rows with answers to check: they are what their script makes, and their answers are right."""

import ast
import json
import operator
from collections import Counter, defaultdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from checkout import ROOT, load_script

from asa_adapter import load_splits
from asa_adapter.data.duplicates import near_duplicate_groups
from asa_adapter.labelling import expected_results, is_right
from asa_adapter.notations.tool_schemas import schema_errors

Row = dict[str, Any]
CHECKABLE = ROOT / "examples" / "checkable"
FILES = ("cal", "train", "valid", "test")
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
SIGNS = {ast.Add: operator.add, ast.Mult: operator.mul, ast.Div: operator.truediv}
FACTORS = {
    ("hours", "minutes"): 60, ("days", "hours"): 24, ("minutes", "seconds"): 60, ("weeks", "days"): 7,
    ("days", "minutes"): 24 * 60, ("weeks", "hours"): 7 * 24, ("years", "months"): 12,
    ("miles", "kilometres"): "1.609344", ("pounds", "kilograms"): ".45359237", ("inches", "centimetres"): "2.54",
    ("gallons", "litres"): "3.785411784", ("feet", "metres"): ".3048", ("ounces", "grams"): "28.349523125",
    ("yards", "metres"): ".9144",
}  # fmt: skip


@pytest.fixture(scope="module")
def problems() -> Any:
    return load_script(CHECKABLE / "problems.py")


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Row]]:
    return {
        name: [json.loads(line) for line in (CHECKABLE / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in FILES
    }


@pytest.fixture(scope="module")
def rows(shipped: dict[str, list[Row]]) -> list[Row]:
    return [row for part in shipped.values() for row in part]


def calculator(expression: str) -> Decimal:
    def value(node: Any) -> Decimal:
        if isinstance(node, ast.BinOp):
            result: Decimal = SIGNS[type(node.op)](value(node.left), value(node.right))
            return result
        return Decimal(str(node.value))

    return value(ast.parse(expression, mode="eval").body)


def converter(value: float, from_unit: str, to_unit: str) -> Any:
    if to_unit in ("binary", "hexadecimal"):
        return (bin if to_unit == "binary" else hex)(int(value))[2:]
    if to_unit == "fahrenheit":
        return Decimal(str(value)) * 9 / 5 + 32
    return Decimal(str(value)) * Decimal(FACTORS[from_unit, to_unit])


def date_calculator(operation: str, **given: Any) -> Any:
    if operation == "add_to_weekday":
        return WEEKDAYS[(WEEKDAYS.index(given["weekday"]) + given["days"]) % 7]
    day = date.fromisoformat(given["date"])
    if operation == "add_days":
        return (day + timedelta(days=given["days"])).isoformat()
    return WEEKDAYS[day.weekday()] if operation == "weekday_of" else (date.fromisoformat(given["end_date"]) - day).days


def text_tool(operation: str, text: str, letter: str = "", position: int = 0) -> Any:
    return {
        "reverse": lambda: "".join(reversed(text)),
        "count_letter": lambda: sum(one == letter for one in text),
        "letter_at": lambda: text[position - 1],
        "sort_letters": lambda: "".join(sorted(text)),
    }[operation]()


TOOLS = {tool.__name__: tool for tool in (calculator, converter, date_calculator, text_tool)}


def test_the_files_are_what_the_script_makes(problems: Any, shipped: dict[str, list[Row]]) -> None:
    assert problems.build() == shipped


def test_every_gold_call_fits_its_tool_and_gives_the_answer(rows: list[Row]) -> None:
    offered = {tool["name"]: tool for tool in json.loads((CHECKABLE / "tools.json").read_text(encoding="utf-8"))}
    assert set(offered) == set(TOOLS)
    for row in rows:
        (call,) = row["gold_calls"]
        assert not schema_errors(call["arguments"], offered[call["name"]]), row
        found = TOOLS[call["name"]](**call["arguments"])
        expected = row["answer"]
        if isinstance(expected, dict):
            assert abs(Decimal(str(found)) - Decimal(str(expected["value"]))) <= Decimal("0.005"), row
        elif isinstance(expected, str):
            assert found == expected, row
        else:
            assert Decimal(found) == Decimal(str(expected)), row


def test_every_answer_is_judged_right_in_a_sentence_and_another_wrong(rows: list[Row]) -> None:
    for row in rows:
        expected = row["answer"]["value"] if isinstance(row["answer"], dict) else row["answer"]
        results = expected_results(row["answer"], row["id"])
        other = expected * 2 + 1 if isinstance(expected, int | float) else WEEKDAYS[0] + "x"
        for sentence in ("{}", "The result is {}.", "**{}**\n\nLet me know if you need more.", "So the answer is: {}"):
            assert is_right(sentence.format(expected), results, row["instruction"]), (sentence, row)
            assert not is_right(sentence.format(other), results, row["instruction"]), (sentence, row)


def test_no_row_is_nearly_another(rows: list[Row]) -> None:
    assert len(near_duplicate_groups([row["instruction"] for row in rows])) == len(rows) == 448


def test_difficulties_domains_and_kinds_are_alike_in_every_file(shipped: dict[str, list[Row]]) -> None:
    assert {name: len(part) for name, part in shipped.items()} == {"cal": 128, "train": 128, "valid": 64, "test": 128}
    for name, part in shipped.items():
        each = Counter((row["domain"], row["difficulty"]) for row in part)
        assert set(each.values()) == {len(part) // 16}, name
        assert {row["kind"] for row in part} == {row["kind"] for row in shipped["test"]}
        assert len({row["id"] for row in part}) == len(part)
        assert not any("label" in row for row in part)  # a label is a model's


def test_every_wording_asks_at_every_difficulty_in_one_file(problems: Any) -> None:
    levels: dict[str, list[int]] = defaultdict(list)
    for _, _, _, frame, _ in problems.wordings():
        levels[frame] += problems.DIFFICULTIES
    assert len(levels) == 112
    assert all(found == [1, 2, 3, 4] for found in levels.values())


def test_other_seeds_give_other_rows_and_the_script_writes_them(problems: Any, tmp_path: Any) -> None:
    problems.main(["--output", str(tmp_path), "--seed", "7"])
    written = (tmp_path / "valid.jsonl").read_text(encoding="utf-8")
    assert len(written.splitlines()) == 64
    assert written != (CHECKABLE / "valid.jsonl").read_text(encoding="utf-8")


def test_without_labels_the_rows_are_not_taken_for_training() -> None:
    with pytest.raises(ValueError, match=r"cal.jsonl, line 1: label is None; expected 0 .*the row also has 'answer'"):
        load_splits(CHECKABLE)
