"""The file asa_config.json: what it keeps, what is noticed when it is edited, what is refused."""

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest
from configs import DIGEST, OTHER_DIGEST, TOOL, full, make, stored

from asa_adapter import AdapterFormatError, ASAConfig


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
    "prompt_end": [3, 4, 6],
    "generation_tokens": 1,
    "tools_marks": [[7, 8]],
    "tool_lists": [OTHER_DIGEST],
    "forms": ["lfm2"],
    "openings": [5],
    "action": "bias",
    "bias": "inf",
    "opening_ids": [4],
    "read_layers": [0],
    "states": ["after_result"],
    "state_marks": {"first": [[11]], "after_result": [[12]]},
    "by_state": {"after_result": {"tau": 0.8}},
    "cap": 0.1,
}


def test_every_field_is_edited_below() -> None:
    assert set(EDITS) == {field.name for field in dataclasses.fields(ASAConfig)} - {"format_version"}


@pytest.mark.parametrize("name", EDITS)
def test_edited_field_is_noticed(name: str) -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    with pytest.raises(AdapterFormatError, match=r"^asa_config\.json: its content does not match its config_sha256"):
        ASAConfig.from_json(stored(sealed, **{name: EDITS[name]}))


def test_edited_field_is_noticed_beside_an_unknown_key() -> None:
    sealed = full().sealed({"router.skops": DIGEST})
    ignored = r"ignored unknown keys \['new_in_0_2'\]"
    refused = "does not match its config_sha256"
    with pytest.warns(UserWarning, match=ignored), pytest.raises(AdapterFormatError, match=refused):
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
    with pytest.raises(AdapterFormatError, match=r"format_version is 3; .* reads up to 2: upgrade asa_adapter"):
        ASAConfig.from_json('{"format_version": 3, "all_else": "is new"}')


NEWER = {
    "prompt_end": (1, 2),
    "tools_marks": ((1,),),
    "tool_lists": (DIGEST,),
    "forms": ("json",),
    "openings": (7,),
    "action": "bias",
    "bias": 2.0,
    "opening_ids": (7,),
    "states": ("after_result",),
    "state_marks": {"first": ((1,),), "after_result": ((2,),)},
    "by_state": {"first": {"tau": 0.75}},
    "cap": 0.5,
}


@pytest.mark.parametrize("name", NEWER)
def test_a_config_that_uses_a_field_of_version_2_is_written_as_version_2(name: str) -> None:
    config = make(**{name: NEWER[name]})
    values = json.loads(config.to_json())
    assert config.format_version == values["format_version"] == 2
    assert {key for key in ("generation_tokens", *NEWER) if key in values} == {name}


def test_a_config_without_them_is_written_as_version_1_and_does_not_name_them() -> None:
    values = json.loads(make().to_json())
    assert values["format_version"] == 1
    assert not values.keys() & {"generation_tokens", *NEWER}


def test_a_bias_without_limit_is_a_text_in_strict_json_and_comes_back() -> None:
    config = make(action="both", bias=math.inf, opening_ids=(5, 9)).sealed({})
    values = json.loads(config.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    assert (values["action"], values["bias"], values["opening_ids"]) == ("both", "inf", [5, 9])
    assert ASAConfig.from_json(config.to_json()) == config


def test_a_file_of_version_1_has_no_fields_of_version_2() -> None:
    text = json.dumps({**json.loads(make().to_json()), "prompt_end": [1, 2]})
    with pytest.warns(UserWarning, match=r"ignored unknown keys \['prompt_end'\]"):
        assert ASAConfig.from_json(text) == make()


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
    refused = ""
    try:
        config = ASAConfig.from_json(text)
    except AdapterFormatError as error:
        refused = str(error)
    assert refused.startswith("asa_config.json: ") or json.loads(config.to_json())["tools"] == [json.loads(nested)]


def test_error_names_the_given_source() -> None:
    with pytest.raises(AdapterFormatError, match=r"^their/adapter: missing"):
        ASAConfig.from_json("{}", source="their/adapter")
