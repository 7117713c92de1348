from typing import Any

import pytest

from asa_adapter import ASATrainingArguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "some"}, "layers is 'some'; expected 'all' or layer numbers"),
        ({"layers": 5}, "layers is 5; expected 'all' or layer numbers"),
        ({"layers": ()}, r"layers is \(\); expected different layer numbers"),
        ({"layers": (5, 5)}, r"layers is \(5, 5\); expected different layer numbers"),
        ({"layers": (5.7,)}, r"layers is \(5.7,\); expected different layer numbers"),
        ({"alphas": ()}, r"alphas is \(\); expected a sequence of at least one value"),
        ({"alphas": 1.0}, "alphas is 1.0; expected a sequence"),
        ({"alphas": (-1,)}, "alphas holds -1; expected 0 to 1000"),
        ({"seed": "x"}, "seed is 'x'; expected an int of at least 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5; expected an int of at least 1"),
        ({"alphas": (0,)}, r"alphas is \(0,\); expected at least one step above 0"),
        ({"taus": (0.3,)}, "taus holds 0.3; expected 0.5 to 1"),
        ({"betas": (2,)}, "betas holds 2; expected 0 to 1"),
        ({"max_fpr": 1.5}, "max_fpr holds 1.5; expected 0 to 1"),
        ({"max_fpr_confidence": 0.95}, "max_fpr_confidence is 0.95 and max_fpr None; expected a max_fpr above 0"),
        ({"max_fpr": 0, "max_fpr_confidence": 0.95}, "and max_fpr 0; expected a max_fpr above 0"),
        ({"max_fpr": 0.1, "max_fpr_confidence": 0.5}, "max_fpr_confidence is 0.5; expected a number above .5"),
        ({"max_fpr": 0.1, "max_fpr_confidence": 1}, "max_fpr_confidence is 1; expected a number above .5 and below 1"),
        ({"cost": 1.0}, "cost is 1.0; expected two numbers: of a needless and of a missed call"),
        ({"cost": (1, 2, 3)}, r"cost is \(1, 2, 3\); expected two numbers"),
        ({"cost": (1, -1)}, r"cost is \(1.0, -1.0\); expected two numbers not below 0"),
        ({"cost": (0, 0)}, r"cost is \(0.0, 0.0\); expected two numbers not below 0, one of them above it"),
        ({"cost": (1, float("inf"))}, "cost is inf; expected a finite number"),
        ({"cost": (1, 4), "max_fpr": 0.1}, r"cost is \(1.0, 4.0\) and max_fpr 0.1; expected one of them"),
        ({"success_required": 1}, "success_required is 1; expected True or False"),
        ({"batch_size": 0}, "batch_size is 0; expected an int of at least 1"),
        ({"probes": ("all",)}, r"probes is \('all',\); expected some of"),
        ({"objective": "recall"}, "objective is 'recall'; expected one of"),
        ({"actions": "bias"}, "actions is 'bias'; expected some of .*, or 'all'"),
        ({"actions": ()}, r"actions is \(\); expected some of"),
        ({"actions": ("steer", "push")}, r"actions is \('steer', 'push'\); expected some of"),
        ({"actions": ("all", "bias")}, r"actions is \('all', 'bias'\); expected some of"),
        ({"vary_tools": "yes"}, "vary_tools is 'yes'; expected True, False or None"),
        ({"vary_tools": 1}, "vary_tools is 1; expected True, False or None"),
        ({"chat_template": ""}, "chat_template is ''; expected a text that is not empty, or None"),
        ({"tool_call_start": 5}, "tool_call_start is 5; expected a text"),
    ],
)
def test_arguments_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASATrainingArguments(**changes)


@pytest.mark.parametrize("named", ["all", ("all",), ["steer", "bias", "both"]])
def test_all_actions_are_named_one_by_one(named: Any) -> None:
    assert ASATrainingArguments().actions == ("steer",)
    assert ASATrainingArguments(actions=named).actions == ("steer", "bias", "both")
