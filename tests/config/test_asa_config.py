"""Values of a config that are accepted or refused."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from configs import DIGEST, make

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


@pytest.mark.parametrize(
    ("action", "step", "opening_bias"), [("steer", 1.5, 0.0), ("bias", 0.0, 4.0), ("both", 1.5, 4.0)]
)
def test_the_action_says_which_of_step_and_bias_is_used(action: str, step: float, opening_bias: float) -> None:
    config = make(alpha=0.5, residual_norm=3.0, action=action, bias=4)
    assert (config.step, config.opening_bias, config.abstains) == (step, opening_bias, False)


@pytest.mark.parametrize(("action", "alpha", "bias"), [("steer", 0, 4), ("bias", 1, 0), ("both", 0, 0)])
def test_an_action_of_no_size_abstains(action: str, alpha: float, bias: float) -> None:
    assert make(action=action, alpha=alpha, bias=bias).abstains


def test_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().alpha = 2.0  # type: ignore[misc]


# --- values that are refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, "format_version is 3; this version of asa_adapter reads 1 to 2: upgrade"),
        ({"format_version": 0}, "format_version is 0; this version of asa_adapter reads 1 to 2"),
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
        ({"prompt_end": (1, -1)}, "prompt_end holds -1; expected token ids, 0 to"),
        ({"prompt_end": (2**31,)}, "prompt_end holds 2147483648; expected token ids"),
        ({"prompt_end": (1,) * 257}, "prompt_end holds 257 token ids; expected at most 256"),
        ({"prompt_end": (1, 2), "generation_tokens": 3}, "generation_tokens is 3; expected 0 to 2, the length of"),
        ({"generation_tokens": -1}, "generation_tokens is -1; expected 0 to 0"),
        ({"tools_marks": ((-1,),)}, "tools_marks holds -1; expected token ids"),
        ({"tools_marks": ((1,),) * 65}, "tools_marks or tool_lists holds more than 64 entries"),
        ({"openings": (-1,)}, "openings holds -1; expected token ids"),
        ({"opening_ids": (2**31,)}, "opening_ids holds 2147483648; expected token ids"),
        ({"action": "push"}, "action is 'push'; expected 'steer', 'bias' or 'both'"),
        ({"bias": -0.5}, "bias is -0.5; expected 0 or more: the gate gives the sign"),
        ({"bias": -math.inf}, "bias is -inf; expected a finite number"),
        ({"bias": math.nan}, "bias is nan; expected a finite number"),
        ({"forms": ("json",) * 65}, "forms holds 65 names; expected at most 64"),
        ({"forms": ("json", "")}, "forms has 0 characters; expected 1 to 512"),
        ({"states": ()}, r"states is \(\); expected some of \('first', 'after_result'\), in this order"),
        ({"states": ("after_result", "first")}, "expected some of .*, in this order"),
        ({"states": ("first", "last")}, "expected some of .*, in this order"),
        (
            {"states": ("first", "after_result")},
            r"states is \('first', 'after_result'\) and state_marks empty; expected the marks that tell these apart",
        ),
        ({"state_marks": {"first": ((1,),)}}, r"state_marks holds \['first'\]; expected 1 to 64 runs for each of"),
        ({"state_marks": {"first": ((1,),), "after_result": ()}}, "expected 1 to 64 runs for each of"),
        ({"state_marks": {"first": ((1,),), "after_result": ((-1,),)}}, "state_marks holds -1; expected token ids"),
        (
            {"state_marks": {"first": ((1,) * 13,), "after_result": ((2,),)}},
            "state_marks holds a run of more than 12 tokens; expected shorter ones",
        ),
        (
            {"alpha": 0.0, "residual_norm": 1e30, "by_state": {"first": {"alpha_down": 2.0}}},
            r"by_state: a step of 'first' 2 times residual_norm 1e\+30 is beyond the range of float32",
        ),
        (
            {"alpha": 0.0, "residual_norm": 1e30, "by_state": {"first": {"domain_alpha": 3.0}}},
            r"by_state: a step of 'first' 3 times residual_norm 1e\+30 is beyond the range of float32",
        ),
        ({"tool_lists": ("abc",)}, "tool_lists holds 'abc'; expected 64 hexadecimal digits"),
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
        ({"generation_tokens": 1.0}, "generation_tokens is 1.0; expected an int"),
        ({"prompt_end": "abc"}, "prompt_end is 'abc'; expected token ids"),
        ({"prompt_end": (True,)}, r"prompt_end is \(True,\); expected token ids"),
        ({"tools_marks": (1,)}, "tools_marks is 1; expected token ids"),
        ({"tools_marks": ((),)}, r"tools_marks is \(\(\),\); expected runs of token ids, none empty"),
        ({"tool_lists": DIGEST}, "tool_lists is '.*'; expected SHA-256 digests"),
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
    with pytest.raises(ValueError, match=r"alpha .*expected a finite number"):
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
