"""`ToolCallParser`: which format, whether a call begins, and what `check` says of an answer."""

import copy
from typing import Any

import pytest
import torch
from answers import ADD, FUZZ, LFM2_END, LFM2_START, TOOLS, hermes, lfm2, text_of
from hypothesis import given
from hypothesis import strategies as st

from asa_adapter import ToolCall, ToolCallParser


class StubTokenizer:
    def __init__(self, tokens: list[str], chat_template: Any = None) -> None:
        self.tokens = tokens
        self.chat_template = chat_template

    def get_vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}


# --- which format


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="tool-call format 'xml' is not known; expected one of lfm2, hermes"):
        ToolCallParser("xml")


@pytest.mark.parametrize(
    ("tokenizer", "format"),
    [
        (StubTokenizer([LFM2_START, LFM2_END]), "lfm2"),
        (StubTokenizer(["<tool_call>"]), "hermes"),
        (StubTokenizer([], f"{{{{ '{LFM2_START}' }}}}"), "lfm2"),
        (StubTokenizer([], "{{ '<tool_call>' }}"), "hermes"),
    ],
    ids=["lfm2 token", "hermes token", "lfm2 template", "hermes template"],
)
def test_format_is_found_by_the_tokenizers_marker(tokenizer: StubTokenizer, format: str) -> None:
    assert ToolCallParser.from_tokenizer(tokenizer).format == format


@pytest.mark.parametrize("template", [None, "{{ messages }}", {"default": "{{ messages }}"}], ids=repr)
def test_tokenizer_without_known_marker_is_refused(template: Any) -> None:
    with pytest.raises(
        ValueError, match=r"shows a tool-call format .* \(lfm2, .*\)\. Name the nearest by hand: ToolCallP"
    ):
        ToolCallParser.from_tokenizer(StubTokenizer(["<s>"], template))


# --- triggered


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (lfm2("[now()]"), True),
        ("Let me look. " + LFM2_START, True),
        (LFM2_END, False),
        ("[now()]", False),
        ("<tool_call>", False),
        ("<|tool_call_star", False),
        ("", False),
    ],
)
def test_trigger_is_the_start_marker_anywhere(text: str, expected: bool) -> None:
    assert ToolCallParser("lfm2").triggered(text) is expected


def test_trigger_by_token_does_not_depend_on_decoding(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    parser = ToolCallParser.from_tokenizer(tokenizer)
    ids = tokenizer.encode(lfm2("[now()]"), add_special_tokens=False)
    assert parser.start_id == tokenizer.convert_tokens_to_ids(LFM2_START) == ids[0]
    assert parser.triggered(ids)
    assert parser.triggered(torch.tensor(ids))
    assert not parser.triggered(ids[1:])
    assert not parser.triggered(tokenizer.decode(ids, skip_special_tokens=True))


def test_the_markers_characters_in_other_tokens_are_no_trigger_by_token(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    parser = ToolCallParser.from_tokenizer(tokenizer)
    spelled = [token for c in LFM2_START for token in tokenizer.encode(c, add_special_tokens=False)]
    assert tokenizer.decode(spelled) == LFM2_START
    assert not parser.triggered(spelled)
    assert parser.text(spelled) == "<\u200b|tool_call_start|>"
    real = tokenizer.encode(lfm2("[now()]"), add_special_tokens=False)
    assert parser.parse(parser.text(spelled + real)) == [ToolCall("now", {})]


def test_a_marker_that_decoding_drops_is_in_the_text_all_the_same(tiny_lfm2: Any) -> None:
    tokenizer = copy.copy(tiny_lfm2[1])
    ids = tokenizer.encode("Yes. " + lfm2("[now()]"), add_special_tokens=False)
    tokenizer.decode = lambda ids, skip_special_tokens: tiny_lfm2[1].decode(ids, skip_special_tokens=True)
    parser = ToolCallParser.from_tokenizer(tokenizer)
    assert parser.text(ids) == f"Yes. {LFM2_START}[now()]"
    assert parser.triggered(ids)


@pytest.mark.parametrize(("text", "expected"), [('{"name": "now", "parameters": {}}', True), ("now", False)])
def test_trigger_by_text_where_no_single_token_tells(tiny_lfm2: Any, text: str, expected: bool) -> None:
    tokenizer = tiny_lfm2[1]
    parser = ToolCallParser.from_tokenizer(tokenizer, "llama3")
    assert parser.triggered(tokenizer.encode(text, add_special_tokens=False)) is expected


def test_token_ids_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"found token ids; expected text, or a parser made by .*from_tokenizer\(\)"):
        ToolCallParser("lfm2").triggered([1, 2])


@pytest.mark.parametrize(
    ("format", "start", "opening"),
    [
        (None, None, LFM2_START),
        ("llama3", None, '{"'),
        ("llama4", None, "["),
        ("hermes", "<tools>", "<tools>"),
    ],
)
def test_the_first_token_of_a_call(tiny_lfm2: Any, format: str | None, start: str | None, opening: str) -> None:
    tokenizer = tiny_lfm2[1]
    parser = ToolCallParser.from_tokenizer(tokenizer, format, start=start)
    assert parser.opening_id(tokenizer) == tokenizer.encode(opening, add_special_tokens=False)[0]


# --- a tokenizer that reads calls by itself


def with_response_template(tokenizer: Any) -> Any:
    changed = copy.copy(tokenizer)
    changed.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "tool_calls": {
                "open": "<tool_call>",
                "close": "</tool_call>",
                "repeats": True,
                "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close": "<|im_end|>", "content": "text"},
        },
    }
    return changed


def test_a_response_template_reads_the_calls(tiny_lfm2: Any) -> None:
    parser = ToolCallParser.from_tokenizer(with_response_template(tiny_lfm2[1]), "hermes")
    good = hermes('{"name": "add", "arguments": {"a": 1}}')
    assert parser.parse(good + good) == [ToolCall("add", {"a": 1})] * 2
    assert parser.check(good, TOOLS)["arguments"] is True
    assert parser.parse("prose") == []
    assert parser.check("prose", TOOLS)["errors"] == []


def test_what_a_response_template_cannot_read_is_a_trigger_that_does_not_parse(tiny_lfm2: Any) -> None:
    tokenizer = with_response_template(tiny_lfm2[1])
    parser = ToolCallParser.from_tokenizer(tokenizer, "hermes")
    broken = hermes('{"name": "add", ')
    with pytest.raises(ValueError, match="JSON"):
        tokenizer.parse_response(broken, prefix="")
    assert parser.parse(broken) == []
    result = parser.check(broken, TOOLS)
    assert (result["triggered"], result["format"]) == (True, False)


# --- check


def test_check_of_a_good_call() -> None:
    assert ToolCallParser("lfm2").check(lfm2("[add(a=1, b=2)]"), TOOLS) == {
        "triggered": True,
        "format": True,
        "tool_name": True,
        "arguments": True,
        "errors": [],
    }


def test_check_of_prose_finds_nothing_and_no_fault() -> None:
    assert ToolCallParser("lfm2").check("The sum is 3.", TOOLS) == {
        "triggered": False,
        "format": False,
        "tool_name": False,
        "arguments": False,
        "errors": [],
    }


@pytest.mark.parametrize(
    ("payload", "verdicts", "errors"),
    [
        ("[add(a=", (False, False, False), ["not readable as a call: [add(a="]),
        ("[sub(a=1)]", (True, False, False), ["no such tool: sub"]),
        ("[add(a=1), sub(a=1)]", (True, False, False), ["no such tool: sub"]),
        ("[add(b=1)]", (True, True, False), ["add: 'a' is a required property"]),
        ("[add()]", (True, True, False), ["add: 'a' is a required property"]),
        ('[add(a="1")]', (True, True, False), ["add: '1' is not of type 'integer'"]),
        ("[add(a=true)]", (True, True, False), ["add: True is not of type 'integer'"]),
        ("[add(a=1.5)]", (True, True, False), ["add: 1.5 is not of type 'integer'"]),
        ("[add(a=1, c=2)]", (True, True, False), ["add: unknown argument 'c'"]),
        ('[say(text="")]', (True, True, False), ["say: 'text' is empty"]),
        ("[say(text=null)]", (True, True, False), ["say: None is not of type 'string'"]),
        ("[now(when=1)]", (True, True, False), ["now: unknown argument 'when'"]),
        ("[add(a=1), say(text='x'), now()]", (True, True, True), []),
        ("[add(a=1), add(b=2)]", (True, True, False), ["add: 'a' is a required property"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_check_tells_what_is_wrong(payload: str, verdicts: tuple[bool, bool, bool], errors: list[str]) -> None:
    result = ToolCallParser("lfm2").check(lfm2(payload), TOOLS)
    assert (result["format"], result["tool_name"], result["arguments"]) == verdicts
    assert result["errors"] == errors


def test_one_unreadable_block_spoils_the_format() -> None:
    result = ToolCallParser("lfm2").check(lfm2("[add(a=1)]") + lfm2("[oops"), TOOLS)
    assert result["errors"] == ["not readable as a call: [oops"]
    assert (result["format"], result["tool_name"], result["arguments"]) == (False, False, False)


def test_check_of_hermes_blocks() -> None:
    text = hermes('{"name": "add", "arguments": {"a": "x"}}')
    assert ToolCallParser("hermes").check(text, TOOLS)["errors"] == ["add: 'x' is not of type 'integer'"]


def test_wrapped_tools_are_unwrapped() -> None:
    wrapped = [{"type": "function", "function": ADD}]
    assert ToolCallParser("lfm2").check(lfm2("[add(b=1)]"), wrapped)["errors"] == ["add: 'a' is a required property"]


def test_no_offered_tools_make_every_name_unknown() -> None:
    result = ToolCallParser("lfm2").check(lfm2("[add(a=1)]"), [])
    assert (result["format"], result["tool_name"], result["errors"]) == (True, False, ["no such tool: add"])


# --- arbitrary text

PIECES = [LFM2_START, LFM2_END, "<tool_call>", "</tool_call>", *"[]{}(),.:=\"'*\\-\n", "add", "say", "a", "text", "1"]
PIECES += ["add(a=1)", '{"name": "add", "arguments": {"a": 1}}', '"name"', '"arguments"', "true", "1e999", "0x", "NaN"]
ANY_TEXT = text_of(st.integers(0, 127), st.integers(0, 0x10FFFF), longest=60)
TEXTS = (
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | ANY_TEXT.map(lfm2) | ANY_TEXT.map(hermes) | ANY_TEXT
)


@FUZZ
@given(TEXTS)
@pytest.mark.parametrize("format", ["lfm2", "hermes"])
def test_any_text_is_parsed_without_an_exception(format: str, text: str) -> None:
    for call in ToolCallParser(format).parse(text):
        assert type(call.name) is str
        assert type(call.arguments) is dict


@FUZZ
@given(TEXTS)
@pytest.mark.parametrize("format", ["lfm2", "hermes"])
def test_any_text_is_checked_without_an_exception(format: str, text: str) -> None:
    parser = ToolCallParser(format)
    result = parser.check(text, TOOLS)
    assert result["triggered"] is parser.triggered(text, TOOLS)
    assert result["format"] >= result["tool_name"] >= result["arguments"]
    assert result["arguments"] is (result["triggered"] and not result["errors"])
