"""`diagnose --url`: each fault is found on a server that has it, alone, and none on servers without one."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from chatty import Brain, asked, calling, chatty, good, needed, tokens, words

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.interview.chat_client import ChatClient, ServerError
from asa_adapter.interview.examination import Examination, examine
from asa_adapter.interview.faults import FAULTS
from asa_adapter.interview.questions import MANY


def examined(brain: Brain, **options: Any) -> Examination:
    with chatty(brain, **options) as url:
        return examine(ChatClient(url))


def otherwise(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Brain:
    """The good server, its messages changed: `change` takes the request and the good message."""
    return lambda body: change(body, good(body))


def as_text(form: str) -> Brain:
    """Calls are written into the text in a format."""

    def change(_: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        calls = [call["function"] for call in message.get("tool_calls", [])]
        made = [ToolCall(call["name"], json.loads(call["arguments"])) for call in calls]
        return words(ToolCallParser(form).write(made)) if made else message

    return otherwise(change)


def refusing(body: dict[str, Any]) -> Any:
    return (400, {"error": {"message": "made-up does not support tools"}}) if body.get("tools") else good(body)


def on_hello(body: dict[str, Any]) -> Any:
    idle = body.get("tools") and not needed(body) and not asked(body)[1]
    return calling(("web_search", {"query": asked(body)[0]})) if idle else good(body)


def first_turn(said: str) -> Brain:
    """Words in the place of a single call that is needed."""

    def change(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        return words(said) if len(needed(body)) == 1 and message.get("tool_calls") else message

    return otherwise(change)


def repeating(body: dict[str, Any]) -> Any:
    calls = needed(body)
    return calling(calls[0]) if len(calls) == 1 and body.get("tools") else good(body)


def stopping(body: dict[str, Any]) -> Any:
    return words("It is Oslo.") if asked(body)[1] else good(body)


def lost_in_many(body: dict[str, Any]) -> Any:
    return words("I do not know.") if len(body.get("tools", [])) > 10 else good(body)


def misspelling(arguments: str) -> Brain:
    def change(_: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        calls = [(call["function"]["name"], arguments) for call in message.get("tool_calls", [])]
        return calling(*calls) if calls else message

    return otherwise(change)


def unseeing(body: dict[str, Any]) -> Any:
    return words("I cannot look that up.")


MULTIPLIED = "such as: asked 'What is 48213 times 3779?', it said "
ANNOUNCED = "Sure! Let me check the weather for you."
WITH_A_FAULT: list[tuple[str, Brain, dict[str, Any], str]] = [
    ("refuses_tools", refusing, {}, 'answered 400: {"error": {"message": "made-up does not support tools"}}'),
    ("tools_not_in_prompt", unseeing, {"count": lambda _: 20}, "20 tokens of prompt without tools, 20 with 4 of them"),
    ("call_left_as_text", as_text("hermes"), {}, f"3 of 3, {MULTIPLIED}'<tool_call>"),
    ("call_left_as_text", as_text("lfm2"), {}, f"3 of 3, {MULTIPLIED}'<|tool_call_start|>[calculator(expression="),
    ("bare_json", as_text("json"), {}, f'3 of 3, {MULTIPLIED}\'{{"name": "calculator"'),
    ("calls_on_hello", on_hello, {}, "3 of 3, such as: asked 'Hello!', it called web_search(query='Hello!')"),
    ("answers_instead_of_calling", first_turn("It is about 12."), {}, f"3 of 3, {MULTIPLIED}'It is about 12.'"),
    ("announces_and_stops", first_turn(ANNOUNCED), {}, f"3 of 3, {MULTIPLIED}'{ANNOUNCED}'"),
    (
        "repeats_a_call",
        repeating,
        {},
        "2 of 2, such as: asked 'What is 48213 times 3779? (and told 182196927)', it call",
    ),
    ("stops_after_the_first_call", stopping, {}, "2 of 2, such as: asked 'Where is it warmer right now, in Oslo or"),
    ("too_many_tools", lost_in_many, {}, f"3 of 3, {MULTIPLIED}'I do not know.'"),
    ("malformed_arguments", misspelling('{"city": '), {}, "calculator: '{\"city\": ' (is no JSON)"),
    ("malformed_arguments", misspelling("[]"), {}, "(is no object)"),
    ("malformed_arguments", misspelling("{}"), {}, "is a required property)"),
]


@pytest.mark.parametrize(("name", "brain", "options", "evidence"), WITH_A_FAULT)
def test_a_fault_is_named_with_its_evidence(name: str, brain: Brain, options: dict[str, Any], evidence: str) -> None:
    found = examined(brain, **options).faults
    assert [fault.name for fault in found] == [name]
    assert evidence in found[0].evidence
    assert found[0][1:] == (FAULTS[name].meaning, found[0].evidence, FAULTS[name].cure, FAULTS[name].adapter)


def test_each_name_has_a_server_with_that_fault() -> None:
    assert {name for name, *_ in WITH_A_FAULT} == set(FAULTS)


def at_once(body: dict[str, Any]) -> Any:
    """It makes all calls in one turn."""
    calls = needed(body)
    return calling(*calls) if body.get("tools") and calls and not asked(body)[1] else words("It is Cairo.")


def thinking(body: dict[str, Any]) -> Any:
    """It thinks aloud, announces its calls and makes them."""
    message = good(body)
    text = "<think>Let me use a tool? Let me check.</think>" + (
        "Let me check." if message.get("tool_calls") else "So."
    )
    return {**message, "content": text, "reasoning_content": "Let me call get_weather."}


def clever(body: dict[str, Any]) -> Any:
    """It multiplies by itself, rightly, and calls for the rest."""
    return words("That makes 182,196,927.") if "48213" in asked(body)[0] else good(body)


def as_objects(body: dict[str, Any]) -> Any:
    """Arguments come as objects, as some servers send them."""
    message = good(body)
    for call in message.get("tool_calls", []):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return message


@pytest.mark.parametrize(
    ("brain", "options"),
    [
        (good, {}),
        (at_once, {}),
        (thinking, {"count": lambda _: None}),
        (clever, {"system_fingerprint": 7}),
        (as_objects, {}),
    ],
)
def test_nothing_is_found_where_nothing_is_wrong(brain: Brain, options: dict[str, Any]) -> None:
    assert examined(brain, **options).faults == []


def test_what_cannot_be_shown_is_left_out_with_the_reason() -> None:
    examination = examined(good, count=lambda _: None)
    assert examination.unshown == {"tools_not_in_prompt": "the server does not count the tokens of prompts"}
    silent = examined(lambda _: words("Well."), count=tokens)
    assert set(silent.unshown) == {"repeats_a_call", "stops_after_the_first_call", "too_many_tools"}
    assert [fault.name for fault in silent.faults] == ["answers_instead_of_calling"]


def test_answers_that_were_cut_off_prove_nothing() -> None:
    with chatty(lambda _: (200, {"choices": [{"message": words("I think"), "finish_reason": "length"}]})) as url:
        assert examine(ChatClient(url)).faults == []


def test_one_answer_of_three_is_no_habit() -> None:
    def once(body: dict[str, Any]) -> Any:
        return words("About 182 million.") if "48213" in asked(body)[0] else good(body)

    assert examined(once).faults == []


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_a_server_that_is_busy_does_not_refuse_tools(status: int) -> None:
    with pytest.raises(ServerError, match=f"answered {status}"):
        examined(lambda body: (status, b"later") if body.get("tools") else good(body))


def test_faults_that_were_found_stay_where_a_later_question_is_not_answered() -> None:
    def failing(body: dict[str, Any]) -> Any:
        return (500, b"broken") if len(body.get("tools", [])) > 10 else repeating(body)

    examination = examined(failing)
    assert [fault.name for fault in examination.faults] == ["repeats_a_call"]
    why = examination.unshown.pop("too_many_tools")
    assert why.startswith("a question was not answered (")
    assert why.endswith("answered 500: broken)")
    assert examination.unshown == {}


def test_a_server_that_fails_again_and_again_is_left() -> None:
    first: list[Any] = []

    def dying(body: dict[str, Any]) -> Any:
        first.append(body)
        return good(body) if len(first) < 3 else (429, b"slowly")

    examination = examined(dying)
    assert (examination.faults, examination.asked, len(first)) == ([], 5, 5)
    assert "answered 429: slowly" in examination.unshown["announces_and_stops"]
    assert examination.unshown["too_many_tools"] == "3 questions were not answered, and no more were asked"


def test_ids_of_calls_are_nine_letters_or_digits_as_some_templates_demand() -> None:
    ids: set[str] = set()

    def noting(body: dict[str, Any]) -> Any:
        ids.update(turn["tool_call_id"] for turn in body["messages"] if turn["role"] == "tool")
        return good(body)

    examined(noting)
    assert ids
    assert all(len(one) == 9 and one.isalnum() for one in ids)


def test_it_takes_a_dozen_questions_and_a_few() -> None:
    assert examined(good).asked == 16
    assert len(MANY) == 44


def test_our_own_server_has_none_of_the_faults() -> None:
    pytest.importorskip("starlette", reason="the extra [serve] is not installed")
    from scripted import ScriptedEngine, served

    def script(request: Any) -> str:
        message = good({"messages": request.messages, "tools": request.tools})
        calls = [call["function"] for call in message.get("tool_calls", [])]
        made = [ToolCall(call["name"], json.loads(call["arguments"])) for call in calls]
        return ToolCallParser("lfm2").write(made) if made else str(message["content"])

    with served(ScriptedEngine(script)) as place:
        assert examine(ChatClient(f"http://{place}")).faults == []
