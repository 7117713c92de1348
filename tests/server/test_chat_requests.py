"""What a request may say, and what is refused by name."""

import json
from typing import Any

import pytest
from scripted import WEATHER

from asa_adapter.server.chat_requests import read_chat
from asa_adapter.server.engine import Asked

TURN = {"role": "user", "content": "hi"}
OTHER = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
CALL = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}


def read(**more: Any) -> Asked:
    return read_chat(json.dumps({"messages": [TURN], **more}).encode(), "tiny")


def test_what_is_not_said_has_a_default() -> None:
    assert read() == Asked(messages=[TURN], tools=[])
    assert read(max_tokens=None, temperature=None, stop=None, tools=None, stream_options=None) == read()


def test_everything_that_is_understood_is_read() -> None:
    said = {"max_completion_tokens": 5, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["a"]}
    said |= {"tools": [WEATHER], "parallel_tool_calls": False, "stream": True}
    read_back = read(**said, stream_options={"include_usage": True}, asa_factor=2, model="tiny", user="someone")
    assert read_back == Asked(
        messages=[TURN],
        tools=[WEATHER],
        one_call=True,
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stops=("a",),
        factor=2.0,
        stream=True,
        usage=True,
    )


def test_what_leaves_the_answer_as_it_is_is_taken() -> None:
    assert read(top_k=-1, min_p=0, repetition_penalty=1.0, reasoning_effort="none", chat_template_kwargs={}) == read()


def test_a_temperature_by_which_scores_would_overflow_is_greedy() -> None:
    assert [read(temperature=value).temperature for value in (1e-40, 0.0099, 0.01)] == [0.0, 0.0, 0.01]


def test_a_request_may_be_steered_in_every_kind_of_state() -> None:
    assert [read(asa_all_states=value).all_states for value in (0, 1)] == [False, True]


def test_a_turn_keeps_what_belongs_to_its_calls_and_has_text() -> None:
    turns = [
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
    ]
    assert list(read(messages=turns).messages) == [
        {"role": "system", "content": "Be\nbrief."},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sun", "tool_call_id": "a"},
    ]


@pytest.mark.parametrize(
    ("choice", "names", "must"),
    [
        ("auto", ["get_weather", "other"], False),
        ("none", [], False),
        ("required", ["get_weather", "other"], True),
        ({"type": "function", "function": {"name": "other"}}, ["other"], True),
        ({"type": "function", "name": "other"}, ["other"], True),
    ],
)
def test_tool_choice_tells_which_tools_are_offered(choice: Any, names: list[str], must: bool) -> None:
    asked = read(tools=[WEATHER, OTHER], tool_choice=choice)
    assert ([tool["function"]["name"] for tool in asked.tools], asked.must_call) == (names, must)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages is text; expected a list of turns"),
        (
            {"messages": ["hi"]},
            "messages[0] is text; expected an object with one of the roles developer",
        ),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0] has the role 'robot'; expected"),
        ({"messages": [{"role": [], "content": ""}]}, "messages[0] has the role []; expected"),
        ({"messages": [TURN] * 2049}, "messages has 2049 turns; expected at most 2048"),
        (
            {"messages": [TURN, *[{"role": "assistant", "tool_calls": [CALL] * 171}] * 3]},
            "messages has 513 tool calls; expected at most 512",
        ),
        (
            {"messages": [TURN, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]},
            "messages[1] has a function_call, which this server does not read; expected tool_calls",
        ),
        ({"tools": [WEATHER] * 513}, "tools has 513 tools; expected at most 512"),
        ({"messages": [{"role": "user"}]}, "messages[0] has no content; expected text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content has a part of type 'image_url'; this server reads text alone",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [7]}]}, "messages[0]: a tool call is 7; expected a name"),
        ({"messages": [{**TURN, "name": 7}]}, "messages[0].name is 7; expected text"),
        ({"tools": {}}, "tools is an object; expected a list"),
        ({"tools": [{"type": "function"}]}, "tools[0] is {'type': 'function'}; expected {"),
        ({"tools": [7]}, "tools[0] is 7; expected {"),
        ({"tool_choice": "required"}, "tool_choice is 'required'; expected none, auto, required (with tools), or one"),
        ({"tools": [WEATHER], "tool_choice": {"function": {"name": "x"}}}, "or one of the tools by its name"),
        ({"temperature": -1}, "temperature is -1; expected a number from 0 to 100"),
        ({"temperature": 10**400}, "temperature is 1000000"),
        ({"temperature": True}, "temperature is True; expected a number from 0 to 100"),
        ({"top_p": 0}, "top_p is 0; expected a number from 1e-06 to 1"),
        ({"max_tokens": 0}, "max_tokens is 0; expected a whole number, 1 or more"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens is 1.5; expected a whole number"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected a whole number of 64 bits"),
        ({"stop": ["a"] * 17}, "expected a text, or at most 16, of 1 to 200 characters"),
        ({"stop": ""}, "expected a text, or at most 16"),
        ({"stream": 1}, "stream is 1; expected true or false"),
        ({"stream_options": []}, "stream_options is a list; expected an object"),
        ({"n": 2}, "n is 2, which this server does not do; leave it out"),
        ({"top_k": 40}, "top_k is 40, which this server does not do; leave it out"),
        ({"min_p": 0.1}, "min_p is 0.1, which"),
        ({"repetition_penalty": 1.2}, "repetition_penalty is 1.2, which"),
        ({"reasoning_effort": "high"}, "reasoning_effort is 'high', which"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs is {'enable_thinking': False}"),
        ({"logprobs": True}, "logprobs is True, which this server does not do"),
        (
            {"response_format": {"type": "json_object"}},
            "response_format is {'type': 'json_object'}, which this server",
        ),
        ({"asa": 2}, "asa is 2; expected 0 (off) or 1 (on)"),
        ({"asa_factor": 101}, "asa_factor is 101; expected a number from 0 to 100"),
        ({"asa_faktor": 1}, "the request has ['asa_faktor']; asa_adapter knows"),
        ({"vllm_xargs": {"asa_alpha": 1}}, "the request has ['asa_alpha']; asa_adapter knows"),
        ({"vllm_xargs": 1}, "vllm_xargs is 1; expected an object"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        read(**said)
    assert told in str(refused.value)
