"""Chats with tool calls: whatever a chat template does to them, every call and result is in the prompt."""

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.templates.call_history import kept_history

RAIN, NOW = ToolCall("get_weather", {"city": "Oslo", "days": 3}), ToolCall("now", {})
TURN = "<{{ m.role }}>{{ m.content }}"
CALL = "<tool_call>{{ f.name }} {{ f.arguments | tojson }}</tool_call>"
FIRST_CALL = "{% set f = m.tool_calls[0].function %}" + CALL


def template(calls: str) -> str:
    """A chat template that does this with the calls of a turn that has some."""
    return "{% for m in messages %}" + TURN + "{% if m.tool_calls %}" + calls + "{% endif %}{% endfor %}"


TEMPLATES = {
    "writes all": template("{% for c in m.tool_calls %}{% set f = c.function %}" + CALL + "{% endfor %}"),
    "drops all": template(""),
    "writes the first": template(FIRST_CALL),
    "refuses a second": template("{% if m.tool_calls[1:] %}{{ raise_exception('one only') }}{% endif %}" + FIRST_CALL),
    "refuses all": template("{{ raise_exception('no calls') }}"),
}


def render(name: str) -> Any:
    return lambda chat: render_jinja_template([chat], chat_template=TEMPLATES[name])[0][0]


def wrapped(call: ToolCall, **extra: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}, **extra}


def chat(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain in Oslo?"},
        {"role": "assistant", "content": "I look. ", "tool_calls": list(calls)},
        *({"role": "tool", "content": f"result {i}"} for i in range(len(calls))),
        {"role": "user", "content": "Thanks."},
    ]


WRITE = ToolCallParser("lfm2").write
FIRST = '<tool_call>get_weather {"city": "Oslo", "days": 3}</tool_call>'
SECOND = "<tool_call>now {}</tool_call>"
BEGIN, END = "<system>Be brief.<user>Rain in Oslo?<assistant>I look. ", "<user>Thanks."


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("writes all", BEGIN + FIRST + SECOND + "<tool>result 0<tool>result 1" + END),
        ("writes the first", BEGIN + FIRST + "<tool>result 0<assistant>" + SECOND + "<tool>result 1" + END),
        ("refuses a second", BEGIN + FIRST + "<tool>result 0<assistant>" + SECOND + "<tool>result 1" + END),
        ("drops all", BEGIN + WRITE([RAIN, NOW]) + "<tool>result 0<tool>result 1" + END),
        ("refuses all", BEGIN + WRITE([RAIN, NOW]) + "<tool>result 0<tool>result 1" + END),
    ],
)
def test_every_call_and_result_is_rendered(template: str, expected: str) -> None:
    messages = chat(wrapped(RAIN), wrapped(NOW))
    assert render(template)(kept_history(messages, render(template), WRITE)) == expected


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_chat_that_was_given_stays_as_it_is(template: str) -> None:
    messages = chat(wrapped(RAIN), wrapped(NOW))
    kept_history(messages, render(template), WRITE)
    assert messages == chat(wrapped(RAIN), wrapped(NOW))


def test_results_follow_their_calls_by_id() -> None:
    messages = chat(wrapped(RAIN, id="a"), wrapped(NOW, id="b"))
    messages[3]["tool_call_id"], messages[4]["tool_call_id"] = "b", "a"
    text = render("writes the first")(kept_history(messages, render("writes the first"), WRITE))
    assert FIRST + "<tool>result 1" in text
    assert SECOND + "<tool>result 0" in text


@pytest.mark.parametrize(
    "call",
    [
        {"name": "now", "arguments": {}},
        {"name": "now"},
        {"function": {"name": "now", "arguments": "{}"}},
        {"id": "x", "type": "function", "function": {"name": "now", "arguments": ""}},
    ],
    ids=["bare", "no arguments", "arguments as text", "empty arguments"],
)
def test_calls_come_in_many_shapes(call: dict[str, Any]) -> None:
    [turn] = [turn for turn in kept_history(chat(call), render("writes all"), WRITE) if "tool_calls" in turn]
    assert turn["tool_calls"][0]["function"] == {"name": "now", "arguments": {}}
    assert turn["tool_calls"][0]["id"] in ("call00000", "x")


def test_arguments_may_be_called_parameters() -> None:
    """They were dropped, so that the chat held a call without arguments."""
    [turn] = kept_history(
        [{"role": "assistant", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]}], render("writes all"), WRITE
    )
    assert turn["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ("now()", r"tool_calls is 'now\(\)'; expected a list of calls"),
        (["now"], "a tool call is 'now'; expected a name and an object of arguments"),
        ([{"name": 1}], "a tool call is {'name': 1}; expected"),
        ([{"name": "f", "arguments": [1]}], "a tool call is .*; expected"),
        ([{"name": "f", "arguments": "{"}], "a tool call is .*; expected"),
        ([{"name": "f", "input": {"a": 1}}], "a tool call is .*; expected"),
    ],
)
def test_calls_of_another_shape_are_refused(calls: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kept_history([{"role": "assistant", "tool_calls": calls}], render("writes all"), WRITE)


@pytest.mark.parametrize("content", [{}, {"content": None}], ids=["no content", "content None"])
def test_a_turn_of_the_assistant_without_text_gets_an_empty_one(content: dict[str, Any]) -> None:
    assert kept_history([{"role": "assistant", **content}], render("drops all"), WRITE) == [
        {"role": "assistant", "content": ""}
    ]


def test_calls_are_added_to_text_in_parts() -> None:
    turn = {"role": "assistant", "content": [{"type": "text", "text": "I look."}], "tool_calls": [wrapped(NOW)]}
    [kept] = kept_history([turn], render("drops all"), WRITE)
    assert kept["content"] == [{"type": "text", "text": "I look."}, {"type": "text", "text": WRITE([NOW])}]
