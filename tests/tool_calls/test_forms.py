"""Parsers that read several formats, and parsers for what a model really writes."""

from typing import Any

import pytest
from answers import LFM2_START, OSLO_JSON, WEATHER_TOOLS, hermes, lfm2
from templates import showing_hermes

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.data.prompts import with_chat_template

OSLO = ToolCall("get_weather", {"city": "Oslo", "days": 3})
BOTH = [hermes(OSLO_JSON), OSLO_JSON]


def test_an_answer_is_read_with_the_first_format_that_reads_its_calls() -> None:
    parser = ToolCallParser("json", forms=("hermes", "json"))
    assert (parser.format, parser.forms) == ("json", ("json", "hermes"))
    for answer in BOTH:
        assert parser.parse(answer, WEATHER_TOOLS) == [OSLO]
        assert parser.triggered(answer, WEATHER_TOOLS)
        assert parser.check(answer, WEATHER_TOOLS)["arguments"]
    assert not parser.triggered("Rain.", WEATHER_TOOLS)


def test_one_format_alone_is_all_that_is_read_without_others() -> None:
    parser = ToolCallParser("hermes")
    assert parser.forms == ("hermes",)
    assert [parser.triggered(answer, WEATHER_TOOLS) for answer in BOTH] == [True, False]


def test_a_call_that_no_format_can_read_counts_as_one_that_does_not_parse() -> None:
    parser = ToolCallParser("json", forms=("hermes",))
    found = parser.check('<tool_call>{"name": "get_weather", "argum', WEATHER_TOOLS)
    assert (found["triggered"], found["format"]) == (True, False)


def test_calls_are_written_in_the_first_format() -> None:
    assert ToolCallParser("json", forms=("hermes",)).write([OSLO]) == OSLO_JSON


def test_an_unknown_further_format_is_refused() -> None:
    with pytest.raises(ValueError, match="tool-call format 'yaml' is not known; expected one of lfm2"):
        ToolCallParser("json", forms=("yaml",))


def test_calls_begin_with_the_tokens_of_every_format_and_of_the_models_answers(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    parser = ToolCallParser.from_tokenizer(tokenizer, "json", forms=("lfm2",))
    parser.openings = (77,)
    found = parser.opening_ids(tokenizer)
    assert found[0] == parser.opening_id(tokenizer) == tokenizer.encode('{"', add_special_tokens=False)[0]
    assert {77, tokenizer.convert_tokens_to_ids(LFM2_START)} <= set(found)
    assert len(found) == len(set(found))
    assert found[0] not in ToolCallParser.from_tokenizer(tokenizer, "hermes").opening_ids(tokenizer)


def test_a_model_is_asked_in_which_format_its_calls_come(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2[0], showing_hermes(tiny_lfm2[1])
    rows = [row for row in splits["train"] if row["label"]]
    assert ToolCallParser.from_tokenizer(tokenizer).format == "hermes"
    parser = ToolCallParser.from_model(model, tokenizer, rows)
    assert parser.forms == ("lfm2", "hermes")
    assert parser.start_id == tokenizer.convert_tokens_to_ids(LFM2_START)
    assert set(parser.openings) <= set(parser.opening_ids(tokenizer))
    tools = rows[0]["tools"]
    assert parser.triggered(lfm2('[calculator(expression="1 + 1")]'), tools)
    assert not ToolCallParser.from_tokenizer(tokenizer).triggered(lfm2('[calculator(expression="1 + 1")]'), tools)


class Speaker:
    """The tiny model, but every answer is the same text."""

    def __init__(self, model: Any, tokenizer: Any, text: str) -> None:
        self._model, self._answer = model, tokenizer.encode(text, add_special_tokens=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, input_ids: Any, **_: Any) -> Any:
        return input_ids.new_tensor([[*row, *self._answer] for row in input_ids.tolist()])


@pytest.mark.parametrize(
    ("answer", "forms"), [("Rain.", ("hermes",)), ('{"name": "calculator", "arguments": {}}', ("json", "hermes"))]
)
def test_a_model_that_calls_nothing_is_read_as_its_template_shows(
    tiny_lfm2: Any, splits: Any, answer: str, forms: tuple[str, ...]
) -> None:
    tokenizer = showing_hermes(tiny_lfm2[1])
    model = Speaker(tiny_lfm2[0], tokenizer, answer)
    parser = ToolCallParser.from_model(model, tokenizer, list(splits["train"])[:2])
    assert parser.forms == forms


def test_neither_shown_nor_written_is_refused(tiny_lfm2: Any) -> None:
    template = "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}<do>{{ m.tool_calls }}</do>{% endif %}"
    tokenizer = with_chat_template(tiny_lfm2[1], template + "{% endfor %}")
    model, rows = Speaker(tiny_lfm2[0], tokenizer, "Rain."), [{"instruction": "hi", "label": 0}]
    with pytest.raises(ValueError, match="neither chat template nor vocabulary shows a tool-call format"):
        ToolCallParser.from_model(model, tokenizer, rows)
