"""An answer whole and in chunks: the same text, calls and reason, and nothing of a call is shown as text."""

import json
import re
from typing import Any

import pytest
from scripted import WEATHER, ScriptedEngine, joined

from asa_adapter import ToolCall
from asa_adapter.server.engine import Answer, Asked
from asa_adapter.server.replies import Reply, decision_json
from asa_adapter.tool_calls import FORMATS

CALL = ToolCall("get_weather", {"city": "São Paulo {[<"})
ASKED = Asked(messages=[], tools=[WEATHER])


def both(text: str, asked: Asked = ASKED, format: str = "lfm2", step: int = 1) -> tuple[Any, Any, list[str]]:
    """An answer as it is sent whole, as a stream comes to, and the pieces of the stream's text."""
    engine, answer = ScriptedEngine(lambda _: "", format), Answer(text, 1, 1)
    message = (choice := Reply(engine, asked).whole(answer)["choices"][0])["message"]
    whole = (message["content"] or "", [call["function"] for call in message.get("tool_calls", [])])
    reply = Reply(engine, asked)
    sent = [reply.begun(None), *(reply.grown(text[:end]) for end in range(1, len(text) + 1, step))]
    sent += reply.ended(answer)
    chunks = [json.loads(line[6:]) for line in sent if line and "[DONE]" not in line]
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    return (*whole, choice["finish_reason"]), joined(chunks), [piece for piece in pieces if piece]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("before", ["", "Let me look.\n"])
def test_no_part_of_a_call_is_shown_as_text(format: str, before: str) -> None:
    engine = ScriptedEngine(lambda _: "", format)
    text = before + engine.parser.write([CALL])
    if not engine.parser.parse(text, [WEATHER]):
        pytest.skip("this format has no words before a call")
    whole, stream, _ = both(text, format=format)
    assert whole == stream
    assert whole[0] == before.strip()
    assert [(call["name"], json.loads(call["arguments"])) for call in whole[1]] == [(CALL.name, CALL.arguments)]
    assert whole[2] == "tool_calls"


@pytest.mark.parametrize("format", ["lfm2", "hermes", "mistral", "kimi_k2", "deepseek_v3", "granite"])
def test_words_with_brackets_before_a_call_are_whole(format: str) -> None:
    before = "I will search the web [as you asked], with `get_weather`, for {x} <y>."
    text = f"{before}\n{ScriptedEngine(lambda _: '', format).parser.write([CALL])}"
    whole, stream, _ = both(text, format=format)
    assert whole == stream
    assert whole[0] == before
    assert [call["name"] for call in whole[1]] == [CALL.name]


def test_an_answer_in_words_is_shown_as_it_grows() -> None:
    whole, stream, pieces = both("It is sunny.\nAnd warm <3, they say.<|im_end|>")
    assert whole == stream == ("It is sunny.\nAnd warm <3, they say.", [], "stop")
    assert pieces[:3] == ["I", "t", " i"]
    assert pieces[-1] == " <3, they say."


def test_without_tools_nothing_is_a_call_nor_held_back_as_one() -> None:
    text = "<|tool_call_start|>[get_weather(city='Oslo')]<|tool_call_end|>"
    whole, stream, pieces = both(text, Asked(messages=[]))
    assert whole == stream == (text, [], "stop")
    assert len(pieces) == len(text) - 4  # twice <| could have become the end of the turn


def test_a_call_that_cannot_be_read_is_shown_as_it_is() -> None:
    text = "<|tool_call_start|>[get_weather(city=<|tool_call_end|>"
    whole, stream, _ = both(text)
    assert whole == stream == (text, [], "stop")


def test_the_beginning_of_a_stop_text_is_held_back() -> None:
    _, _, pieces = both("So: Obs", Asked(messages=[], stops=("Observation:",)))
    assert pieces == ["S", "o", ":", " ", "Obs"]


def test_the_beginning_of_a_text_that_nobody_is_shown_is_held_back() -> None:
    whole, stream, pieces = both("So.<|im_end|> <|im", Asked(messages=[]))
    assert whole == stream == ("So. <|im", [], "stop")
    assert pieces == ["S", "o", ".", " ", "<|im"]


def test_a_call_has_an_id_that_every_chat_template_takes() -> None:
    engine = ScriptedEngine(lambda _: "")
    body = Reply(engine, ASKED).whole(Answer(engine.parser.write([CALL, CALL]), 1, 1))
    ids = [call["id"] for call in body["choices"][0]["message"]["tool_calls"]]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", name) for name in ids)
    assert len(set(ids)) == 2


def test_a_part_of_a_character_is_held_back() -> None:
    reply = Reply(ScriptedEngine(lambda _: ""), Asked(messages=[]))
    assert json.loads(reply.grown("a\ufffd")[6:])["choices"][0]["delta"] == {"content": "a"}
    assert json.loads(reply.grown("aé")[6:])["choices"][0]["delta"] == {"content": "é"}


def test_calls_behind_the_first_are_left_out_where_one_is_asked_for() -> None:
    text = ScriptedEngine(lambda _: "").parser.write([CALL, ToolCall("get_weather", {"city": "Oslo"})])
    assert len(both(text)[0][1]) == 2
    whole, stream, _ = both(text, Asked(messages=[], tools=[WEATHER], one_call=True))
    assert whole == stream
    assert len(whole[1]) == 1


def test_an_answer_that_is_as_long_as_it_may_be_says_so() -> None:
    body = Reply(ScriptedEngine(lambda _: ""), ASKED).whole(Answer("It is", 1, 2, cut=True))
    assert body["choices"][0]["finish_reason"] == "length"


def test_an_answer_that_was_cut_off_in_its_last_call_says_so() -> None:
    engine = ScriptedEngine(lambda _: "", "hermes")
    call = engine.parser.write([CALL])
    reasons = [
        Reply(engine, ASKED).whole(Answer(text, 1, 2, cut=True))["choices"][0]["finish_reason"]
        for text in (call, f"{call}\n{call[:40]}")
    ]
    assert reasons == ["tool_calls", "length"]


def test_half_a_character_in_arguments_can_be_sent() -> None:
    text = '<|tool_call_start|>[{"name": "get_weather", "arguments": {"city": "\\ud800"}}]<|tool_call_end|>'
    body = Reply(ScriptedEngine(lambda _: ""), ASKED).whole(Answer(text, 1, 1))
    arguments = body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert arguments.encode() == b'{"city": "\\ud800"}'


def test_the_header_of_an_unsteered_answer_is_null() -> None:
    assert decision_json(None) == "null"
