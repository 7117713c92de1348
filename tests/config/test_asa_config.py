import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
import pytest

from asa_adapter import AdapterFormatError, ASAConfig

TOOL = {"name": "wetter", "description": "Wie ist das Wetter? ☔", "parameters": {"type": "object", "properties": {}}}
DIGEST = "0123456789abcdef" * 4
OTHER_DIGEST = "f" * 64


def make(**changes: Any) -> ASAConfig:
    return ASAConfig(**{"hidden_size": 8, "num_layers": 4, "layer": 2, "domains": ("math", "code"), **changes})


def full() -> ASAConfig:
    """A config in which no field has its default."""
    return make(
        alpha=0.75,
        tau=0.8,
        beta=0.25,
        residual_norm=3.5,
        probe="pooled",
        base_model="LiquidAI/LFM2.5-1.2B-Instruct",
        base_model_revision="main",
        base_model_fingerprint="bfloat16:0123456789abcdef:-",
        model_type="lfm2",
        layer_path="model.layers",
        tool_call_format="lfm2",
        tool_call_start="<|tool_call_start|>",
        tool_call_end="<|tool_call_end|>",
        chat_template="{{ messages }}",
        chat_template_sha256=DIGEST,
        chat_template_variables={"enable_thinking": False},
        tools=[TOOL],
        files={"router.skops": DIGEST},
    )


def stored(config: ASAConfig, **changes: Any) -> str:
    """The config's file after somebody changed some of its keys."""
    return json.dumps({**json.loads(config.to_json()), **changes})


# --- values that are accepted


def test_fields_without_value_have_the_documented_defaults() -> None:
    config = make()
    assert (config.format_version, config.residual_norm, config.probe) == (1, 1.0, "domain")
    assert (config.base_model, config.tools, config.files, config.config_sha256) == (None, None, {}, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.0},
        {"alpha": 1000.0},
        {"tau": 0.5},
        {"tau": 1.0},
        {"beta": 0.0},
        {"beta": 1.0},
        {"layer": 0},
        {"layer": 3},
        {"residual_norm": 1e-6},
        {"probe": "pooled"},
        {"domains": ("x",)},
        {"domains": ("x" * 64, "Übersetzung", "two words")},
        {"layer_path": "transformer.h"},
        {"layer_path": "blocks"},
        {"tools": []},
    ],
    ids=str,
)
def test_border_values_are_accepted(changes: dict[str, Any]) -> None:
    [(name, value)] = changes.items()
    assert getattr(make(**changes), name) == value


def test_domains_from_a_list_become_a_tuple() -> None:
    assert make(domains=["a", "b"]).domains == ("a", "b")


@pytest.mark.parametrize("name", ["alpha", "tau", "beta", "residual_norm"])
def test_whole_numbers_become_floats(name: str) -> None:
    assert type(getattr(make(**{name: 1}), name)) is float


def test_step_is_alpha_times_the_residual_norm() -> None:
    assert make(alpha=0.5, residual_norm=3.0).step == 1.5


def test_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().alpha = 2.0  # type: ignore[misc]


# --- values that are refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version is 2; this version of asa_adapter reads 1: upgrade"),
        ({"format_version": 0}, "format_version is 0; this version of asa_adapter reads 1"),
        ({"hidden_size": 0}, "hidden_size is 0 and num_layers 4; expected both at least 1"),
        ({"num_layers": 0}, "hidden_size is 8 and num_layers 0; expected both at least 1"),
        ({"layer": -1}, "layer is -1; expected 0 to 3, since the model has 4 decoder blocks"),
        ({"layer": 4}, "layer is 4; expected 0 to 3"),
        ({"alpha": -0.001}, "alpha is -0.001; expected 0 to 1000"),
        ({"alpha": 1000.001}, "alpha is 1000.001; expected 0 to 1000"),
        ({"alpha": float("nan")}, "alpha is nan; expected a finite number"),
        ({"alpha": float("inf")}, "alpha is inf; expected a finite number"),
        ({"tau": 0.499}, "tau is 0.499; expected 0.5 to 1"),
        ({"tau": 1.001}, "tau is 1.001; expected 0.5 to 1"),
        ({"tau": float("nan")}, "tau is nan; expected a finite number"),
        ({"beta": -0.1}, "beta is -0.1; expected 0 to 1"),
        ({"beta": 1.1}, "beta is 1.1; expected 0 to 1"),
        ({"beta": float("-inf")}, "beta is -inf; expected a finite number"),
        ({"residual_norm": 0.0}, "residual_norm is 0.0; expected more than 0"),
        ({"residual_norm": -1.0}, "residual_norm is -1.0; expected more than 0"),
        ({"residual_norm": float("nan")}, "residual_norm is nan; expected a finite number"),
        ({"probe": "both"}, "probe is 'both'; expected 'domain' or 'pooled'"),
        ({"domains": ()}, "there are 0 domains; expected 1 to 256"),
        ({"domains": tuple(map(str, range(257)))}, "there are 257 domains; expected 1 to 256"),
        ({"domains": ("",)}, "a domain is ''; expected 1 to 64 printable characters"),
        ({"domains": ("x" * 65,)}, "expected 1 to 64 printable characters"),
        ({"domains": (" a",)}, "a domain is ' a'; expected .* no space around"),
        ({"domains": ("a\nb",)}, r"a domain is 'a\\nb'; expected 1 to 64 printable"),
        ({"domains": ("a\u202eb",)}, "expected 1 to 64 printable characters"),
        ({"domains": ("\ud800",)}, "expected 1 to 64 printable characters"),
        ({"domains": ("a", "b", "a")}, r"domains are \['a', 'b', 'a'\]; expected different names"),
        ({"base_model": ""}, "base_model has 0 characters; expected 1 to 512, or None"),
        ({"tool_call_start": "x" * 513}, "tool_call_start has 513 characters; expected 1 to 512, or None"),
        ({"layer_path": "model..layers"}, "layer_path is 'model..layers'; expected a dotted path"),
        ({"layer_path": "layers[0]"}, r"layer_path is 'layers\[0\]'; expected a dotted path"),
        ({"layer_path": "../layers"}, "layer_path is '../layers'; expected a dotted path"),
        ({"chat_template": ""}, "chat_template has 0 characters; expected 1 to 262144, or None"),
        ({"chat_template": "x" * 262_145}, "chat_template has 262145 characters; expected 1 to 262144"),
        ({"chat_template_variables": {"x": float("nan")}}, "chat_template_variables cannot be written as JSON"),
        ({"chat_template_sha256": "abc"}, "chat_template_sha256 is 'abc'; expected 64 hexadecimal digits"),
        ({"chat_template_sha256": DIGEST + "\n"}, "chat_template_sha256 is .*; expected 64 hexadecimal digits"),
        ({"config_sha256": "A" * 64}, "config_sha256 is 'A+'; expected 64 hexadecimal digits"),
        ({"files": {"a": "xyz"}}, "files holds 'a': 'xyz'; expected a file name and 64 hexadecimal digits"),
        ({"files": {"a": None}}, "files holds 'a': None; expected a file name and 64 hexadecimal digits"),
        ({"files": {1: DIGEST}}, "files holds 1: .*; expected a file name and 64 hexadecimal digits"),
        ({"tools": [{"x": float("nan")}]}, "tools cannot be written as JSON"),
        ({"tools": [{"x": {1, 2}}]}, "tools cannot be written as JSON"),
    ],
    ids=str,
)
def test_value_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: True}, f"{name} is True; expected an int") for name in ("format_version", "hidden_size", "layer")),
        ({"num_layers": 4.0}, "num_layers is 4.0; expected an int"),
        ({"layer": "2"}, "layer is '2'; expected an int"),
        ({"hidden_size": None}, "hidden_size is None; expected an int"),
        *(({name: True}, f"{name} is True; expected a number") for name in ("alpha", "tau", "beta", "residual_norm")),
        ({"alpha": "1"}, "alpha is '1'; expected a number"),
        ({"tau": None}, "tau is None; expected a number"),
        ({"beta": np.float64(0.5)}, "beta is .*0.5.*; expected a number"),
        ({"domains": "math"}, "domains is 'math'; expected a tuple of str"),
        ({"domains": {"a": 1}}, "domains is {'a': 1}; expected a tuple of str"),
        ({"domains": ("a", 1)}, "a domain is 1; expected a str"),
        ({"base_model": 3}, "base_model is 3; expected a str or None"),
        ({"layer_path": ["model"]}, r"layer_path is \['model'\]; expected a str or None"),
        ({"config_sha256": 0}, "config_sha256 is 0; expected a str or None"),
        ({"tools": {}}, "tools is {}; expected a list of JSON-schema tools or None"),
        ({"tools": ["add"]}, r"tools is \['add'\]; expected a list of JSON-schema tools or None"),
        ({"files": None}, "files is None; expected a dict of SHA-256 by file name"),
    ],
    ids=str,
)
def test_other_type_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(**changes)


def test_step_that_overflows_is_refused() -> None:
    with pytest.raises(ValueError, match="residual_norm"):
        make(alpha=1000.0, residual_norm=1e308)


def test_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha .*expected a finite number"):
        make(alpha=10**400)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer": "x" * 10_000},
        {"hidden_size": "x" * 10_000},
        {"alpha": "x" * 10_000},
        {"probe": "x" * 10_000},
        {"layer_path": "/" * 512},
        {"domains": ("x" * 10_000,)},
        {"domains": "x" * 10_000},
        {"base_model": ["x" * 10_000]},
        {"tools": "x" * 10_000},
        {"files": {"x" * 10_000: "x" * 10_000}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_error_shortens_a_long_value(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make(**changes)
    assert len(str(caught.value)) < 1000


# --- the file


@pytest.mark.parametrize("config", [make(), full()], ids=["defaults", "everything set"])
def test_json_round_trip_gives_an_equal_config(config: ASAConfig) -> None:
    assert ASAConfig.from_json(config.to_json()) == config


def test_sealed_round_trip_gives_an_equal_config() -> None:
    sealed = full().sealed({"router.skops": DIGEST, "probes.skops": OTHER_DIGEST})
    assert ASAConfig.from_json(sealed.to_json()) == sealed


def test_file_is_an_object_in_utf8_with_a_line_end() -> None:
    text = full().to_json()
    assert json.loads(text)["tools"] == [TOOL]
    assert "☔" in text
    assert text.endswith("}\n")


def test_sealed_names_the_files() -> None:
    assert full().sealed({"probes.skops": OTHER_DIGEST}).files == {"probes.skops": OTHER_DIGEST}


def test_fingerprint_is_the_sha256_of_the_canonical_rest() -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    rest = {key: value for key, value in json.loads(sealed.to_json()).items() if key != "config_sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert sealed.config_sha256 == hashlib.sha256(canonical.encode("ascii")).hexdigest()


def test_order_and_spacing_of_the_file_do_not_matter() -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    values = json.loads(sealed.to_json())
    assert ASAConfig.from_json(json.dumps(dict(reversed(values.items())), separators=(",", ":"))) == sealed


EDITS = {
    "hidden_size": 16,
    "num_layers": 5,
    "layer": 1,
    "domains": ["code", "math"],
    "alpha": 0.7500000001,
    "tau": 0.9,
    "beta": 0.5,
    "residual_norm": 3.6,
    "probe": "domain",
    "base_model": "someone/else",
    "base_model_revision": None,
    "base_model_fingerprint": None,
    "model_type": "llama",
    "layer_path": None,
    "tool_call_format": "hermes",
    "tool_call_start": "<tool_call>",
    "tool_call_end": "</tool_call>",
    "chat_template": "{{ tools }}",
    "chat_template_sha256": OTHER_DIGEST,
    "chat_template_variables": {"enable_thinking": True},
    "tools": [{**TOOL, "parameters": {"type": "object", "properties": {"x": {}}}}],
    "files": {"router.skops": OTHER_DIGEST},
    "config_sha256": OTHER_DIGEST,
}


def test_every_field_is_edited_below() -> None:
    assert set(EDITS) == {field.name for field in dataclasses.fields(ASAConfig)} - {"format_version"}


@pytest.mark.parametrize("name", EDITS)
def test_edited_field_is_noticed(name: str) -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    with pytest.raises(AdapterFormatError, match="^asa_config.json: its content does not match its config_sha256"):
        ASAConfig.from_json(stored(sealed, **{name: EDITS[name]}))


def test_edited_field_is_noticed_beside_an_unknown_key() -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    with pytest.warns(UserWarning), pytest.raises(AdapterFormatError, match="does not match its config_sha256"):
        ASAConfig.from_json(stored(sealed, alpha=0.5, new_in_0_2=True))


def test_config_without_checksum_is_accepted() -> None:
    assert ASAConfig.from_json(stored(full(), alpha=0.5)).alpha == 0.5


def test_unknown_keys_warn_and_are_ignored() -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    with pytest.warns(UserWarning, match=r"asa_config.json: ignored unknown keys \['new_a', 'new_b'\]"):
        assert ASAConfig.from_json(stored(sealed, new_b=1, new_a={})) == sealed


@pytest.mark.parametrize("name", ["format_version", "hidden_size", "num_layers", "layer", "domains"])
def test_missing_field_is_named(name: str) -> None:
    values = json.loads(full().to_json())
    del values[name]
    with pytest.raises(AdapterFormatError, match=f"^asa_config.json: missing {name}$"):
        ASAConfig.from_json(json.dumps(values))


def test_future_format_version_is_refused_before_anything_else_is_read() -> None:
    with pytest.raises(AdapterFormatError, match="format_version is 2; .* reads up to 1: upgrade asa_adapter"):
        ASAConfig.from_json('{"format_version": 2, "all_else": "is new"}')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 0}, "format_version is 0"),
        ({"format_version": "1"}, "format_version is '1'; expected an int"),
        ({"format_version": True}, "format_version is True; expected an int"),
        ({"layer": True}, "layer is True; expected an int"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0; expected an int"),
        ({"alpha": False}, "alpha is False; expected a number"),
        ({"tau": 0.4}, "tau is 0.4; expected 0.5 to 1"),
        ({"domains": "math"}, "domains is 'math'; expected a tuple of str"),
        ({"tools": {}}, "tools is {}; expected a list"),
        ({"files": []}, r"files is \[\]; expected a dict"),
        ({"files": {"../x": "y"}}, "files holds '../x'"),
    ],
    ids=str,
)
def test_field_that_does_not_check_is_refused_with_the_file(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterFormatError, match=f"^asa_config.json: {message}"):
        ASAConfig.from_json(stored(full(), **changes))


def with_alpha(written: str) -> str:
    return make(alpha=0.5).to_json().replace('"alpha": 0.5', f'"alpha": {written}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "found a list; expected a JSON object"),
        ("null", "found a NoneType; expected a JSON object"),
        ("{} {}", "not valid JSON: Extra data"),
        ("\ufeff" + make().to_json(), "not valid JSON: Unexpected UTF-8 BOM"),
        (with_alpha("NaN"), "not valid JSON: found NaN; expected finite numbers"),
        (with_alpha("-Infinity"), "not valid JSON: found -Infinity; expected finite numbers"),
        (with_alpha("1e999"), "not valid JSON: found 1e999; expected finite numbers"),
        (with_alpha("0.5, \"alpha\": 0.6"), "not valid JSON: the key 'alpha' stands twice in one object"),
        (with_alpha("1" + "0" * 5000), "not valid JSON: Exceeds the limit"),
        (with_alpha("1" + "0" * 400), "alpha .*expected a finite number"),
        (stored(make(), tools=[{}]).replace("[{}]", '[{"a": {"b": 1, "b": 2}}]'), "the key 'b' stands twice"),
        (stored(make(), tools=[{}]).replace("[{}]", '[{"a": NaN}]'), "found NaN; expected finite numbers"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
    ],
    ids=[
        "empty", "cut", "list", "null", "two values", "BOM", "NaN", "-Infinity", "1e999", "double key",
        "integer of 5,001 digits", "integer of 401 digits", "nested double key", "nested NaN",
        "deep lists", "deep objects",
    ],
)  # fmt: skip
def test_file_that_is_not_strict_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(AdapterFormatError, match=message) as caught:
        ASAConfig.from_json(text)
    assert str(caught.value).startswith("asa_config.json: ")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("depth", [300, 600, 900])
@pytest.mark.parametrize("sealed", [False, True], ids=["without checksum", "with a wrong checksum"])
def test_nested_tools_are_read_or_refused_at_any_depth(depth: int, sealed: bool) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    text = stored(make(), tools=[{}], config_sha256=OTHER_DIGEST if sealed else None).replace("[{}]", f"[{nested}]")
    try:
        config = ASAConfig.from_json(text)
    except AdapterFormatError as error:
        assert str(error).startswith("asa_config.json: ")
    else:
        assert json.loads(config.to_json())["tools"] == [json.loads(nested)]


def test_error_names_the_given_source() -> None:
    with pytest.raises(AdapterFormatError, match="^their/adapter: missing"):
        ASAConfig.from_json("{}", source="their/adapter")
