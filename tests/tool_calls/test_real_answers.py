"""Answers of a real model, read by hand, against what the parser reads in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from asa_adapter import ToolCall, ToolCallParser

ROOT = Path(__file__).parents[2]
TOOLS = json.loads((ROOT / "examples/data/tools.json").read_text())
LINES = (ROOT / "tests/fixtures/answers/qwen2.5-coder-0.5b.jsonl").read_text().splitlines()
ANSWERS: list[dict[str, Any]] = [json.loads(line) for line in LINES]


@pytest.mark.parametrize("tools", [TOOLS, None])
def test_json_finds_the_calls_that_a_reader_finds_and_no_other(tools: Any) -> None:
    parser = ToolCallParser("json")
    found = [parser.triggered(row["answer"], tools) for row in ANSWERS]
    assert found == [row["call"] is not None for row in ANSWERS]
    assert (sum(found), len(found)) == (46, 60)


def test_json_reads_every_whole_call_of_a_real_model() -> None:
    parser = ToolCallParser("json")
    whole = [row for row in ANSWERS if row["call"] and row["call"]["arguments"] is not None]
    assert len(whole) == 42
    for row in whole:
        assert parser.parse(row["answer"], TOOLS) == [ToolCall(**row["call"])]


def test_the_format_of_the_template_finds_none_of_them() -> None:
    parser = ToolCallParser("hermes")
    assert not any(parser.triggered(row["answer"], TOOLS) for row in ANSWERS)
