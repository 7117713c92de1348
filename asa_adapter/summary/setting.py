"""A setting as a user would say it: where it acts, how, and when."""

from collections.abc import Mapping
from typing import Any


def setting_words(chosen: Mapping[str, Any]) -> str:
    """The choice in words, from a report's `chosen` or the fields of a config.

    Example:
        >>> setting_words({"layer": 6, "alpha": 1.0, "tau": 0.5})
        'layer 6, a push of 1 x the norm, on every prompt'
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
    when = "on every prompt" if tau == 0.5 else f"where it is at least {100 * tau:g} % sure"
    return f"layer {chosen['layer']:g}, {how}, {when}"
