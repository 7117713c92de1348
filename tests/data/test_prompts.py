import hashlib
from typing import Any

import pytest

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.data.prompts import (
    chat_template_sha256,
    check_chat_template,
    encode_prompt,
    encode_rows,
    template_variables,
    with_chat_template,
)
from asa_adapter.data.rows import row_messages, row_tools

ADD, NOW = {"name": "add"}, {"name": "now"}


class StubTokenizer:
    """Writes down what it is asked, and answers with one token for each message, after one for the tools."""

    def __init__(self, chat_template: Any = "{{ messages }}", **attributes: Any) -> None:
        self.chat_template = chat_template
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def apply_chat_template(self, messages: Any, **keywords: Any) -> dict[str, list[int]]:
        self.calls.append((messages, keywords))
        return {"input_ids": [len(keywords["tools"] or []), *(len(m["content"]) for m in messages)]}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens is False
        return "".join(chr(64 + i) for i in ids) + self.ending

    ending = ""


# --- rows


def test_instruction_becomes_one_user_turn() -> None:
    assert row_messages({"instruction": " Add 1 and 2. "}) == [{"role": "user", "content": " Add 1 and 2. "}]


def test_messages_come_back_as_they_are() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"id": "1"}]}]
    assert row_messages({"messages": messages, "instruction": None}) == messages


def test_messages_come_before_the_instruction() -> None:
    messages = [{"role": "user", "content": "a"}]
    assert row_messages({"messages": messages, "instruction": "b"}) == messages


@pytest.mark.parametrize("messages", [None, []], ids=str)
def test_no_messages_leave_the_instruction(messages: Any) -> None:
    assert row_messages({"messages": messages, "instruction": "b"}) == [{"role": "user", "content": "b"}]


@pytest.mark.parametrize(
    "row",
    [{}, {"instruction": None}, {"instruction": ""}, {"instruction": " \n"}, {"instruction": 5}, {"messages": []}],
    ids=str,
)
def test_row_without_a_prompt_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^row 'cal-7' has no instruction and no messages; expected one of them$"):
        row_messages({"id": "cal-7", **row})


def test_row_without_an_id_is_refused_too() -> None:
    with pytest.raises(ValueError, match=r"^row '\?' has no instruction"):
        row_messages({})


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [
        ([ADD], [NOW], [ADD]),
        ([ADD], None, [ADD]),
        ([], [NOW], []),
        (None, [NOW], [NOW]),
        (None, [], []),
        (None, None, None),
    ],
    ids=["own first", "own only", "own empty list", "given", "given empty list", "none"],
)
def test_own_tools_come_before_the_given(own: Any, given: Any, expected: Any) -> None:
    assert row_tools({"tools": own}, given) == expected


def test_row_that_has_no_tools_key_gets_the_given() -> None:
    assert row_tools({}, [NOW]) == [NOW]


def test_tools_of_a_row_are_copies() -> None:
    given = [{"name": "add"}]
    offered = row_tools({}, given)
    assert offered is not None
    offered[0]["name"] = "changed"
    assert given == [{"name": "add"}]


# --- the chat template


@pytest.mark.parametrize("template", [None, ""], ids=repr)
def test_tokenizer_without_template_is_refused_by_name(template: str | None) -> None:
    with pytest.raises(ValueError, match=r"the tokenizer 'some/model' has no chat template; .*instruct version"):
        check_chat_template(StubTokenizer(template, name_or_path="some/model"))


@pytest.mark.parametrize("name", ["", None], ids=repr)
def test_tokenizer_without_template_and_name_is_refused_by_class(name: str | None) -> None:
    with pytest.raises(ValueError, match="the tokenizer 'StubTokenizer' has no chat template"):
        check_chat_template(StubTokenizer(None, name_or_path=name))


def test_object_that_knows_no_templates_is_refused() -> None:
    with pytest.raises(ValueError, match="the tokenizer 'object' has no chat template"):
        check_chat_template(object())


def test_fingerprint_of_a_template_is_the_sha256_of_its_utf8() -> None:
    assert chat_template_sha256(StubTokenizer("{{ 'é' }}")) == hashlib.sha256(b"{{ '\xc3\xa9' }}").hexdigest()


@pytest.mark.parametrize("tokenizer", [StubTokenizer(None), object()], ids=["none", "no attribute"])
def test_no_template_has_no_fingerprint(tokenizer: Any) -> None:
    assert chat_template_sha256(tokenizer) is None


def test_fingerprint_of_several_templates_is_that_of_all_of_them() -> None:
    one, other = {"default": "a", "tool_use": "b"}, {"tool_use": "b", "default": "a"}
    digests = {chat_template_sha256(StubTokenizer(template)) for template in (one, other)}
    assert digests == {hashlib.sha256(b'{"default": "a", "tool_use": "b"}').hexdigest()}


def test_another_template_leaves_the_tokenizer_as_it_is(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    before = tokenizer.chat_template
    changed = with_chat_template(tokenizer, "{{ messages[0].content }}")
    assert tokenizer.decode(encode_prompt(changed, [{"role": "user", "content": "Hello"}])) == "Hello"
    assert tokenizer.chat_template == before
    assert with_chat_template(tokenizer, None) is tokenizer


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        ("{{ enable_thinking }}", {"enable_thinking": False}),
        ({"default": "a", "tool_use": "enable_thinking"}, {"enable_thinking": False}),
        ("a", {}),
    ],
)
def test_thinking_is_switched_off_where_there_is_a_switch(template: Any, variables: dict[str, Any]) -> None:
    assert template_variables(StubTokenizer(template)) == variables


# --- encoding


def test_prompt_is_rendered_and_tokenised_in_one_call() -> None:
    tokenizer, messages = StubTokenizer(), [{"role": "user", "content": "abc"}]
    assert encode_prompt(tokenizer, messages, [ADD]) == [1, 3]
    assert tokenizer.calls == [
        (messages, {"tools": [ADD], "add_generation_prompt": True, "tokenize": True, "return_dict": True})
    ]


@pytest.mark.parametrize("tools", [None, []], ids=str)
def test_no_tools_are_passed_as_none(tools: Any) -> None:
    tokenizer = StubTokenizer()
    encode_prompt(tokenizer, [{"role": "user", "content": "abc"}], tools)
    assert tokenizer.calls[0][1]["tools"] is None


def test_encoding_without_a_template_is_refused() -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        encode_prompt(StubTokenizer(None), [{"role": "user", "content": "abc"}])


def test_rows_are_encoded_with_their_own_tools_first() -> None:
    rows = [{"instruction": "ab"}, {"messages": [{"role": "user", "content": "abc"}], "tools": [ADD, NOW]}]
    assert encode_rows(StubTokenizer(), rows, [NOW]) == [[1, 2], [2, 3]]


def get_weather(city: str, days: int) -> str:
    """Tells the weather.

    Args:
        city: The city.
        days: For how many days.
    """
    return city * days


def test_python_functions_are_described_by_their_schema(tiny_lfm2: Any) -> None:
    tokenizer, messages = tiny_lfm2[1], [{"role": "user", "content": "Hi"}]
    text = tokenizer.decode(encode_prompt(tokenizer, messages, [get_weather]))
    assert '"name": "get_weather"' in text
    assert "For how many days." in text
    [schema] = row_tools({}, [get_weather]) or []
    assert encode_prompt(tokenizer, messages, [schema]) == encode_prompt(tokenizer, messages, [get_weather])


@pytest.mark.parametrize(
    ("tool", "error", "message"),
    [
        (5, TypeError, r"a tool is 5; expected a JSON schema \(dict\) or a Python function"),
        (lambda city: city, ValueError, "the function '<lambda>' cannot be offered as a tool: .*docstring"),
    ],
    ids=["a number", "no docstring"],
)
def test_what_is_no_tool_is_refused(tool: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        row_tools({"tools": [tool]}, None)


CALL = ToolCall("calculator", {"expression": "6 * 7"})
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 6 * 7?"},
    {"role": "assistant", "tool_calls": [{"name": CALL.name, "arguments": CALL.arguments}]},
    {"role": "tool", "content": "42"},
    {"role": "assistant"},
    {"role": "user", "content": "Thanks."},
]


def test_calls_results_and_system_prompt_survive_where_the_template_drops_calls(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    dropped = tokenizer.apply_chat_template([{"content": "", **turn} for turn in HISTORY], tokenize=False)
    assert "6 * 7)" not in dropped
    assert "calculator" not in dropped
    ids = encode_prompt(tokenizer, HISTORY, [{"name": "calculator"}])
    text = tokenizer.decode(ids)
    assert text.startswith(f"{tokenizer.bos_token}<|im_start|>system\nBe brief.\nList of tools: ")
    assert ToolCallParser.from_tokenizer(tokenizer).parse(text) == [CALL]
    assert "<|im_start|>tool\n42<|im_end|>" in text
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.convert_tokens_to_ids("<|tool_call_start|>") in ids


def test_calls_are_written_in_the_format_set_by_hand(tiny_lfm2: Any) -> None:
    text = tiny_lfm2[1].decode(encode_prompt(tiny_lfm2[1], HISTORY, parser=ToolCallParser("llama3")))
    assert '<|im_start|>assistant\n{"name": "calculator", "parameters": {"expression": "6 * 7"}}' in text


AVAILABLE_TOOLS = (
    "{% if tools %}<|im_start|>system\nWrite a tool call between the two tokens. Available tools:\n"
    "{{ tools | tojson(indent=2) }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_prompt_format_of_ones_own_is_a_template(tiny_lfm2: Any) -> None:
    tokenizer = with_chat_template(tiny_lfm2[1], AVAILABLE_TOOLS)
    text = tokenizer.decode(encode_prompt(tokenizer, [{"role": "user", "content": "Hi"}], [ADD]))
    assert text.startswith("<|im_start|>system\nWrite a tool call between the two tokens. Available tools:\n[\n  {")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "ending", ["<think>", "<think>\n", "[THINK]", "<|channel>thought\n", "<|START_THINKING|>", "<seed:think>"]
)
def test_a_prompt_inside_an_open_reasoning_block_is_refused(ending: str) -> None:
    with pytest.raises(ValueError, match=r"ends inside an open reasoning block .*chat template whose prompts close"):
        encode_prompt(StubTokenizer(ending=ending), [{"role": "user", "content": "abc"}])


@pytest.mark.parametrize(
    "ending", ["<think>\n\n</think>\n\n", "<think></think>", "</think>", "<|channel>thought\n<channel|>"]
)
def test_a_closed_reasoning_block_is_fine(ending: str) -> None:
    assert encode_prompt(StubTokenizer(ending=ending), [{"role": "user", "content": "abc"}]) == [0, 3]


def test_the_switch_for_thinking_reaches_the_template(tiny_lfm2: Any) -> None:
    template = "{{ messages[0].content }}<think>{% if enable_thinking is false %}</think>{% endif %}"
    tokenizer = with_chat_template(tiny_lfm2[1], template)
    assert tokenizer.decode(encode_prompt(tokenizer, [{"role": "user", "content": "Hi"}])) == "Hi<think></think>"


def test_a_chat_that_the_template_cannot_render_is_refused_with_its_reason(tiny_lfm2: Any) -> None:
    tokenizer = with_chat_template(tiny_lfm2[1], "{{ raise_exception('System role not supported') }}")
    with pytest.raises(ValueError, match="cannot render this chat: System role not supported"):
        encode_prompt(tokenizer, [{"role": "system", "content": "Hi"}])
