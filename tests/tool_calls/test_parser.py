import contextlib
import copy
import json
import urllib.request
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asa_adapter import ToolCall, ToolCallParser

LFM2_START, LFM2_END = "<|tool_call_start|>", "<|tool_call_end|>"
ADD = {
    "name": "add",
    "description": "Adds.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
}
SAY = {
    "name": "say",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
NOW = {"name": "now"}
TOOLS = [ADD, SAY, NOW]


class StubTokenizer:
    def __init__(self, tokens: list[str], chat_template: Any = None) -> None:
        self.tokens = tokens
        self.chat_template = chat_template

    def get_vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}


def lfm2(payload: str) -> str:
    return f"{LFM2_START}{payload}{LFM2_END}"


def hermes(payload: str) -> str:
    return f"<tool_call>{payload}</tool_call>"


def parse_lfm2(payload: str) -> list[ToolCall]:
    return ToolCallParser("lfm2").parse(lfm2(payload))


def check_add(parameters: Any, payload: str = "[add(a=1)]") -> dict[str, Any]:
    return ToolCallParser("lfm2").check(lfm2(payload), [{"name": "add", "parameters": parameters}])


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
    assert parser.triggered(ids) and parser.triggered(torch.tensor(ids)) and not parser.triggered(ids[1:])
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


@pytest.mark.parametrize(("text", "expected"), [('{"name": "now"}', True), ("now", False)])
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
    assert parser.parse("prose") == [] and parser.check("prose", TOOLS)["errors"] == []


def test_what_a_response_template_cannot_read_is_a_trigger_that_does_not_parse(tiny_lfm2: Any) -> None:
    tokenizer = with_response_template(tiny_lfm2[1])
    parser = ToolCallParser.from_tokenizer(tokenizer, "hermes")
    broken = hermes('{"name": "add", ')
    with pytest.raises(ValueError):
        tokenizer.parse_response(broken, prefix="")
    assert parser.parse(broken) == []
    result = parser.check(broken, TOOLS)
    assert (result["triggered"], result["format"]) == (True, False)


# --- lfm2: what is read


@pytest.mark.parametrize(
    ("payload", "arguments"),
    [
        ("[f()]", {}),
        ("f(a=1)", {"a": 1}),
        (" [f(a=1)] ", {"a": 1}),
        ("[f(\n  a=1,\n  b=2,\n)]", {"a": 1, "b": 2}),
        ('[f(a="x")]', {"a": "x"}),
        ("[f(a='it is \"so\"')]", {"a": 'it is "so"'}),
        (r"[f(a='it\'s')]", {"a": "it's"}),
        (r'[f(a="two\nlines")]', {"a": "two\nlines"}),
        ('[f(a="北京 ☔")]', {"a": "北京 ☔"}),
        ('[f(a=")] , g(b=1)")]', {"a": ")] , g(b=1)"}),
        ("[f(a=-3, b=2.5, c=-1e-3)]", {"a": -3, "b": 2.5, "c": -0.001}),
        ("[f(a=True, b=False, c=None)]", {"a": True, "b": False, "c": None}),
        ("[f(a=true, b=false, c=null)]", {"a": True, "b": False, "c": None}),
        ("[f(a=[], b={})]", {"a": [], "b": {}}),
        ("[f(a=[1, [2, 'x'], {'k': [true, null]}])]", {"a": [1, [2, "x"], {"k": [True, None]}]}),
        ('[f(a={"b": {"c": "d"}, \'e\': 1})]', {"a": {"b": {"c": "d"}, "e": 1}}),
        ("[f(a=(1, 2))]", {"a": [1, 2]}),
        ("[f(a={1: 2})]", {"a": {"1": 2}}),
        ("[f(städte='x')]", {"städte": "x"}),
    ],
)
def test_arguments_are_read(payload: str, arguments: dict[str, Any]) -> None:
    [call] = parse_lfm2(payload)
    assert repr(call) == repr(ToolCall("f", arguments))


@pytest.mark.parametrize("name", ["get_weather", "math.sum", "a.b.c", "_x1", "wetter_für"])
def test_name_is_read(name: str) -> None:
    assert parse_lfm2(f"[{name}(x=1)]") == [ToolCall(name, {"x": 1})]


def test_several_calls_are_read_in_order() -> None:
    calls = parse_lfm2('[f(a=1), g.h(b="x"), f(a=2)]')
    assert calls == [ToolCall("f", {"a": 1}), ToolCall("g.h", {"b": "x"}), ToolCall("f", {"a": 2})]


def test_several_blocks_are_read_in_order() -> None:
    text = f"First {lfm2('[f(a=1)]')} then {lfm2('[g(b=2)]')} done."
    assert ToolCallParser("lfm2").parse(text) == [ToolCall("f", {"a": 1}), ToolCall("g", {"b": 2})]


def test_text_around_the_markers_is_left_out() -> None:
    assert ToolCallParser("lfm2").parse(f"[no(a=1)] {lfm2('[f(a=1)]')} [no(b=2)]") == [ToolCall("f", {"a": 1})]


def test_missing_end_marker_ends_with_the_text() -> None:
    assert ToolCallParser("lfm2").parse(LFM2_START + "[f(a=1)]") == [ToolCall("f", {"a": 1})]


def test_block_that_was_cut_leaves_the_blocks_before_it() -> None:
    assert ToolCallParser("lfm2").parse(lfm2("[f(a=1)]") + LFM2_START + '[g(b="x') == [ToolCall("f", {"a": 1})]


def test_text_without_marker_has_no_calls() -> None:
    assert ToolCallParser("lfm2").parse("[f(a=1)]") == []


def test_backslash_that_escapes_nothing_is_read_as_it_stands() -> None:
    assert parse_lfm2(r'[f(pattern="\d+")]') == [ToolCall("f", {"pattern": r"\d+"})]


@pytest.mark.parametrize(
    ("payload", "call"),
    [
        ('[send(from="here", to="there")]', ToolCall("send", {"from": "here", "to": "there"})),
        ("[get-weather(city='Oslo')]", ToolCall("get-weather", {"city": "Oslo"})),
        ("[say(text='two\nlines')]", ToolCall("say", {"text": "two\nlines"})),
        ("[dial(code=007)]", ToolCall("dial", {"code": 7})),
    ],
    ids=["keyword as argument", "hyphen in the name", "line end in a string", "leading zeros"],
)
def test_call_that_is_not_quite_python_is_read(payload: str, call: ToolCall) -> None:
    assert parse_lfm2(payload) == [call]


@pytest.mark.parametrize("rest", ["", ", g(b=", ', g(b="two', ", g(1)]"])
def test_calls_before_the_unreadable_rest_are_read(rest: str) -> None:
    assert parse_lfm2("[f(a=1)" + rest) == [ToolCall("f", {"a": 1})]


@pytest.mark.parametrize(
    "payload",
    [
        '{"name": "f", "arguments": {"a": 1}}',
        '[{"name": "f", "arguments": {"a": 1}}]',
        '{"name":"f","parameters":{"a":1}}',
    ],
)
def test_json_between_the_markers_is_read(payload: str) -> None:
    assert parse_lfm2(payload) == [ToolCall("f", {"a": 1})]


# --- lfm2: what is not read


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "[]",
        "[f]",
        "f",
        "42",
        '"f(a=1)"',
        "[f(1)]",
        '[f("x", a=1)]',
        "[f(*[1])]",
        "[f(**{'a': 1})]",
        "[f(a=1, a=2)]",
        "[f(a=x)]",
        "[f(a=nan)]",
        "[f(a=g())]",
        "[f(a=1+1)]",
        "[f(a=1j)]",
        "[f(a=b'x')]",
        "[f(a={1, 2})]",
        "[f(a={**{}})]",
        "[f(a=...)]",
        "[f(a=f'{1}')]",
        "[f(a=[i for i in range(9)])]",
        "[f(a=lambda: 1)]",
        "[f()(a=1)]",
        "[f[0](a=1)]",
        "['f'(a=1)]",
        "[f(a=",
        "x = f(a=1)",
        "import os",
        "[f(a='\0')]",
        "[f(a='x)]",
        "[" * 5000,
        "[f(a=" + "-" * 50_000 + "1)]",
        "[f(a=" + "(" * 500 + "1" + ")" * 500 + ")]",
        "[f(a='" + "x" * 100_000 + "')]",
        "[f(a=" + "9" * 5000 + ")]",
    ],
    ids=lambda payload: payload[:30] or "nothing",
)
def test_anything_else_gives_no_call(payload: str) -> None:
    assert parse_lfm2(payload) == []


CODE = [
    '[__import__("os").system("touch {target}")]',
    '[f(a=__import__("os").system("touch {target}"))]',
    '[f(a=open("{target}", "w"))]',
    '[f(a=[open("{target}", "w")])]',
    '[f(a={{"k": open("{target}", "w")}})]',
    '[f(a={{open("{target}", "w"): 1}})]',
    "[f(a=f\"{{open('{target}', 'w')}}\")]",
    '[(lambda: open("{target}", "w"))()]',
    '[open("{target}", "w") for i in [1]]',
    '[f(a=(x := open("{target}", "w")))]',
    "[exec(\"open('{target}', 'w')\")]",
    'open("{target}", "w")',
]


@pytest.mark.parametrize("payload", CODE)
@pytest.mark.parametrize("format", ["lfm2", "hermes"])
def test_code_is_never_run(tmp_path: Any, format: str, payload: str) -> None:
    code = payload.format(target=tmp_path / "ran")
    text = lfm2(code) if format == "lfm2" else hermes(code)
    ToolCallParser(format).parse(text)
    ToolCallParser(format).check(text, TOOLS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload", CODE)
def test_code_gives_no_call(payload: str) -> None:
    assert parse_lfm2(payload.format(target="/nowhere/at/all")) == []


# --- hermes


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (hermes('{"name": "f", "arguments": {"a": [1, {"b": null}]}}'), [ToolCall("f", {"a": [1, {"b": None}]})]),
        (hermes('\n{"name": "f", "arguments": {}}\n'), [ToolCall("f", {})]),
        (hermes('{"name": "f"}'), [ToolCall("f", {})]),
        (hermes('{"name": "f", "parameters": {"a": 1}}'), [ToolCall("f", {"a": 1})]),
        (hermes('[{"name": "f"}, {"name": "g"}]'), [ToolCall("f", {}), ToolCall("g", {})]),
        (hermes('{"name": "f"}\n{"name": "g"}'), [ToolCall("f", {}), ToolCall("g", {})]),
        ("So: " + hermes('{"name": "f"}') + "\n" + hermes('{"name": "g"}'), [ToolCall("f", {}), ToolCall("g", {})]),
        ('<tool_call>{"name": "f"}', [ToolCall("f", {})]),
        (hermes('{"name": "f"}') + '<tool_call>{"name": "g", "argu', [ToolCall("f", {})]),
        (hermes("{broken") + hermes('{"name": "g"}'), [ToolCall("g", {})]),
    ],
    ids=[
        "nested",
        "lines",
        "no arguments",
        "parameters",
        "list",
        "two in a block",
        "two blocks",
        "no end",
        "cut",
        "one broken",
    ],
)
def test_hermes_blocks_are_read(text: str, calls: list[ToolCall]) -> None:
    assert ToolCallParser("hermes").parse(text) == calls


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "f(a=1)",
        "[f(a=1)]",
        "{'name': 'f'}",
        '{"arguments": {}}',
        '{"name": 1, "arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": null}',
        '"f"',
        "[]",
        "[1]",
        "null",
        "[" * 50_000,
    ],
    ids=lambda payload: payload[:30] or "nothing",
)
def test_other_hermes_payload_gives_no_call(payload: str) -> None:
    assert ToolCallParser("hermes").parse(hermes(payload)) == []


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


def test_empty_string_of_an_optional_argument_is_allowed() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert check_add(parameters, '[add(a="")]')["arguments"] is True


def test_schema_may_allow_other_arguments() -> None:
    parameters = {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}}
    assert check_add(parameters, "[add(x=1)]")["arguments"] is True


def test_schema_may_refer_to_its_own_definitions() -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/number"}},
        "$defs": {"number": {"type": "integer"}},
    }
    assert check_add(parameters, '[add(a="x")]')["errors"] == ["add: 'x' is not of type 'integer'"]


BROKEN_SCHEMAS = [
    "a schema",
    5,
    {"type": "number!"},
    {"type": {"a": 1}},
    {"properties": 5},
    {"properties": ["a"]},
    {"properties": {"a": 5}},
    {"properties": {"a": {"enum": 5}}},
    {"properties": {"a": {"multipleOf": 0}}},
    {"properties": {"a": {"minimum": "x"}}},
    {"properties": {"a": {"$ref": "#/nowhere"}}},
    {"properties": {"a": {"$ref": 5}}},
    {"patternProperties": {"(": {}}},
    {"required": 5},
    {"required": [["a"]]},
    {"allOf": 5},
    {"$id": 5},
    {"$ref": "#"},
]


@pytest.mark.parametrize("parameters", BROKEN_SCHEMAS, ids=str)
def test_broken_schema_is_told_and_not_raised(parameters: Any) -> None:
    result = check_add(parameters)
    assert (result["format"], result["tool_name"], result["arguments"]) == (True, True, False)
    assert len(result["errors"]) == 1 and result["errors"][0].startswith("add: ")


def test_broken_pattern_is_told_and_not_raised() -> None:
    result = check_add({"properties": {"a": {"pattern": "("}}}, '[add(a="x")]')
    assert result["arguments"] is False


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/schema.json", "file:///etc/hostname"])
def test_schema_never_opens_what_it_refers_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    opened: list[Any] = []

    def urlopen(request: Any, *_args: Any, **_keywords: Any) -> Any:
        opened.append(request)
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with contextlib.suppress(Exception):
        check_add({"properties": {"a": {"$ref": url}}})
    assert opened == []


@pytest.mark.parametrize("value", ["1e999", "-1e999", "0x" + "f" * 5000], ids=lambda value: value[:10])
@pytest.mark.parametrize("schema", [{"type": "string"}, {"multipleOf": 0.1}], ids=str)
def test_absurd_number_is_checked_without_an_exception(value: str, schema: dict[str, Any]) -> None:
    parameters = {"type": "object", "properties": {"a": schema}}
    assert check_add(parameters, f"[add(a={value})]")["arguments"] is False


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_absurd_number_in_json_is_checked_without_an_exception(value: str) -> None:
    tools = [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"multipleOf": 0.1}}}}]
    text = hermes(f'{{"name": "add", "arguments": {{"a": {value}}}}}')
    assert ToolCallParser("hermes").check(text, tools)["arguments"] is False


# --- arbitrary text

FUZZ = settings(deadline=None, max_examples=150, derandomize=True, database=None)
PIECES = [LFM2_START, LFM2_END, "<tool_call>", "</tool_call>", *"[]{}(),.:=\"'*\\-\n", "add", "say", "a", "text", "1"]
PIECES += ["add(a=1)", '{"name": "add", "arguments": {"a": 1}}', '"name"', '"arguments"', "true", "1e999", "0x", "NaN"]


def text_of(*code_points: st.SearchStrategy[int], longest: int) -> st.SearchStrategy[str]:
    # hypothesis's own text() first builds tables of all of Unicode, which takes seconds.
    return st.lists(st.one_of(*code_points), max_size=longest).map(lambda codes: "".join(map(chr, codes)))


ANY_TEXT = text_of(st.integers(0, 127), st.integers(0, 0x10FFFF), longest=60)
TEXTS = (
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | ANY_TEXT.map(lfm2) | ANY_TEXT.map(hermes) | ANY_TEXT
)
STRINGS = text_of(st.integers(0, 0x2FF), st.integers(0xE000, 0x10FFFF), longest=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "some_name", "städte"]), VALUES, max_size=3)


@FUZZ
@given(TEXTS)
@pytest.mark.parametrize("format", ["lfm2", "hermes"])
def test_any_text_is_parsed_without_an_exception(format: str, text: str) -> None:
    for call in ToolCallParser(format).parse(text):
        assert type(call.name) is str and type(call.arguments) is dict


@FUZZ
@given(TEXTS)
@pytest.mark.parametrize("format", ["lfm2", "hermes"])
def test_any_text_is_checked_without_an_exception(format: str, text: str) -> None:
    parser = ToolCallParser(format)
    result = parser.check(text, TOOLS)
    assert result["triggered"] is parser.triggered(text)
    assert result["format"] >= result["tool_name"] >= result["arguments"]
    assert result["arguments"] is (result["triggered"] and not result["errors"])


@FUZZ
@given(ARGUMENTS)
def test_any_python_literals_come_back(arguments: dict[str, Any]) -> None:
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    assert parse_lfm2(f"[f({written})]") == [ToolCall("f", arguments)]


@FUZZ
@given(ARGUMENTS)
def test_any_json_arguments_come_back(arguments: dict[str, Any]) -> None:
    text = hermes(json.dumps({"name": "f", "arguments": arguments}))
    assert ToolCallParser("hermes").parse(text) == [ToolCall("f", arguments)]
