"""In which formats a model's calls come, by its own answers."""

import json
from typing import Any

import pytest
from answers import OSLO_JSON, WEATHER_TOOLS, hermes, lfm2
from checkout import DATA, ROOT

from asa_adapter.tool_calls.call_habits import Habit, few_of_each_label, habit_of_answers

TOOLS = json.loads((DATA / "tools.json").read_text(encoding="utf-8"))
LINES = (ROOT / "tests/fixtures/answers/qwen2.5-coder-0.5b.jsonl").read_text(encoding="utf-8").splitlines()
REAL: list[dict[str, Any]] = [json.loads(line) for line in LINES]
JSON_CALL, HERMES_CALL, LFM2_CALL = OSLO_JSON, hermes(OSLO_JSON), lfm2('[get_weather(city="Oslo")]')


def of(answers: list[str], expected: str | None = None) -> Habit:
    return habit_of_answers(answers, [WEATHER_TOOLS] * len(answers), expected)


def test_a_real_model_writes_json_where_its_template_asks_for_hermes() -> None:
    found = habit_of_answers([row["answer"] for row in REAL], [TOOLS] * len(REAL), "hermes")
    assert (found.answers, found.calls, found.forms) == (60, 46, {"json": 46})
    assert found.differs
    assert found.formats == ("json", "hermes")
    assert found.shares() == {"json": 1.0}
    assert str(found) == "json 100 % of 46 calls"
    begins = [row["answer"] for row in REAL if row["call"] and row["answer"][0] in "{[`"]
    assert set(begins) <= set(found.calling) < {row["answer"] for row in REAL if row["call"]}


def test_formats_are_told_apart_and_the_most_frequent_comes_first() -> None:
    found = of(["Fine.", HERMES_CALL, LFM2_CALL, HERMES_CALL, JSON_CALL], "lfm2")
    # LFM2 models write bare JSON too, so the expected format has it.
    assert found.forms == {"hermes": 2, "lfm2": 2}
    assert not found.differs
    assert of(["Fine.", HERMES_CALL, LFM2_CALL, HERMES_CALL, JSON_CALL], "hermes").forms == {
        "hermes": 2,
        "lfm2": 1,
        "json": 1,
    }


def test_without_an_expected_format_the_marker_decides() -> None:
    assert of([HERMES_CALL, LFM2_CALL, JSON_CALL]).forms == {"hermes": 1, "lfm2": 1, "json": 1}


def test_a_call_that_is_cut_counts_for_the_format_that_sees_it_begin() -> None:
    assert of(['<tool_call>{"name": "get_weather", "argum'], "hermes").forms == {"hermes": 1}


def test_a_format_of_few_calls_is_an_accident_unless_it_is_expected() -> None:
    many = [JSON_CALL] * 19 + [HERMES_CALL]
    assert of(many, "hermes").formats == ("json", "hermes")
    assert of(many, "hermes").differs
    assert of(many, "qwen3_coder").formats == ("json", "qwen3_coder")
    assert of([JSON_CALL] * 9 + [HERMES_CALL]).formats == ("json", "hermes")
    assert not of([JSON_CALL] * 9 + [HERMES_CALL], "hermes").differs


@pytest.mark.parametrize(("expected", "formats"), [("hermes", ("hermes",)), (None, ())])
def test_without_calls_the_expected_format_stays(expected: str | None, formats: tuple[str, ...]) -> None:
    found = of(["Fine.", "Rain."], expected)
    assert (found.calls, found.forms, found.shares(), found.differs) == (0, {}, {}, False)
    assert found.formats == formats
    assert str(found) == "no call in 2 answers"


def test_printed_it_has_the_shares() -> None:
    assert str(of([JSON_CALL] * 3 + [HERMES_CALL, "Fine."])) == "json 75 %, hermes 25 % of 4 calls"


def test_only_answers_that_begin_with_their_call_are_calling() -> None:
    fenced = f"```json\n{JSON_CALL}\n```"
    assert of([f"Sure: {HERMES_CALL}", HERMES_CALL, f" {JSON_CALL}", fenced, "Fine."]).calling == [
        HERMES_CALL,
        f" {JSON_CALL}",
        fenced,
    ]


def test_a_marker_that_no_format_knows_is_told() -> None:
    answers = ["<functioncall>area</functioncall>", " <functioncall> {}", "Fine.", "<p>text"]
    assert of(answers).markers == {"<functioncall>": 2, "<p>": 1}
    assert of(answers).unknown_format() == (
        "2 of 4 answers begin with <functioncall>, which no known format does: if that is how the model calls, say so "
        "by tool_call_format='json', tool_call_start='<functioncall>' and tool_call_end, or --tool-call-start and "
        "--tool-call-end"
    )


@pytest.mark.parametrize(
    "answers",
    [
        ["<p>text", "<i>text", "Fine."],  # once each
        ["<|im_end|>", "<|im_end|>"],  # an empty answer
        ["[1] so", "[2] so", "[1] and"],
        [HERMES_CALL, "<a>b", "<a>b"],  # some calls are known
    ],
)
def test_what_is_no_marker_is_not_told(answers: list[str]) -> None:
    assert of(answers).unknown_format() == ""


def test_a_few_are_the_first_of_each_label() -> None:
    rows = [{"id": i, "label": int(i >= 6)} for i in range(9)]
    assert [row["id"] for row in few_of_each_label(rows)] == [0, 1, 2, 3, 6, 7, 8]
    assert [row["id"] for row in few_of_each_label(rows, of_each=1)] == [0, 6]
    assert [row["id"] for row in few_of_each_label([{"id": i} for i in range(6)])] == [0, 1, 2, 3]
