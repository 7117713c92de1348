"""A setting as a user would say it: where it acts, how, and when."""

from collections.abc import Mapping
from typing import Any

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.value_checks import STATES
from asa_adapter.summary.markdown import table

WHERE = {"first": "behind the user's turn", "after_result": "behind a tool's result"}


def setting_words(chosen: Mapping[str, Any]) -> str:
    """The choice in words, from a report's `chosen` or the fields of a config.

    Example:
        >>> setting_words({"layer": 6, "alpha": 1.0, "tau": 0.5})
        'layer 6, a push of 1 x the norm, for or against a call on every prompt'
        >>> setting_words({"layer": 6, "alpha": 0.5, "tau": 0.8})
        'layer 6, a push of 0.5 x the norm, where it is at least 80 % sure'
        >>> setting_words({"layer": 6, "alpha": 0.0, "tau": 0.8})
        'it does nothing (it abstains), and the model stays as it is'
    """
    action, bias = chosen.get("action") or "steer", chosen.get("bias") or 0.0
    if action == "steer" and not chosen["alpha"]:
        return "it does nothing (it abstains), and the model stays as it is"
    push = f"a push of {chosen['alpha']:g} x the norm"
    lift = f"a bias of {float(bias):g} on the tokens with which calls begin"
    how = {"steer": push, "bias": lift, "both": f"{push} and {lift}"}[action]
    tau = chosen["tau"]
    when = "for or against a call on every prompt" if tau == 0.5 else f"where it is at least {100 * tau:g} % sure"
    own = ", with a rule of its own for each kind of state" if chosen.get("by_state") else ""
    return f"layer {chosen['layer']:g}, {how}, {when}{own}"


def settings_table(config: ASAConfig) -> str:
    """The settings of a config as a table in Markdown."""
    rows = [
        ["layer (output of the decoder block, counted from 0)", f"{config.layer}, of 0 to {config.num_layers - 1}"],
        ["alpha (step in units of the mean residual norm)", f"{config.alpha:g}"],
        ["length of the step", f"{config.step:.4g}"],
        *([["bias of the logits with which calls begin", f"{config.bias:g}"]] if config.opening_bias else []),
        ["tau (confidence from which it acts)", f"{config.tau:g}"],
        ["beta (share of the direction common to all domains)", f"{config.beta:g}"],
        ["probe", "one for each domain" if config.probe == "domain" else "one for all domains"],
    ]
    if config.read_layers:
        rows.append(["layers that the probe reads", ", ".join(map(str, config.read_layers))])
    if config.states != STATES[:1]:
        rows.append(["kinds of state that it was fitted on", ", ".join(config.states)])
    rows += [
        [f"where the prompt ends {WHERE[state]}", setting_words_of_kind(config, state)] for state in config.by_state
    ]
    return table(["setting", "value"], rows, numbers=1)


def setting_words_of_kind(config: ASAConfig, state: str) -> str:
    """The setting for one kind of state in words."""
    rule = config.rule(state)
    steps = f"alpha {rule.alpha:g}"
    if rule.alpha_down is not None:
        steps += f" towards a call and {rule.alpha_down:g} away from one"
    return f"{steps}, tau {rule.tau:g}, beta {rule.beta:g}"
