"""Calls written as Python between the markers of LFM2: what is read, what is not, and that nothing is run."""

from typing import Any

import pytest
from answers import ARGUMENTS, FUZZ, LFM2_START, TOOLS, hermes, lfm2, parse_lfm2
from hypothesis import given

from asa_adapter import ToolCall, ToolCallParser

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


@FUZZ
@given(ARGUMENTS)
def test_any_python_literals_come_back(arguments: dict[str, Any]) -> None:
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    assert parse_lfm2(f"[f({written})]") == [ToolCall("f", arguments)]
