"""What other actions on the same gate reach, by the first token of the answer; arithmetic on margins, without a model.

A margin is the logit of the likeliest token that opens a call, minus that of the likeliest other token. A bias of the
openings shifts it, so what any bias does to a first token is known from the margin without it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Reader, Scored, Setting
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.policy.controller import ternary_gate

# Biases to try, in logits; without limit the gate alone decides.
BIASES = (1.0, 2.0, 4.0, 8.0, math.inf)


def opened_by_bias(
    setting: Setting,
    p_tool: NDArray[np.float32],
    base: NDArray[np.bool_],
    up: NDArray[np.float32],
    down: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Whether each row's first token opens a call under a setting's bias.

    Args:
        setting: of these, tau and bias are used.
        p_tool: (N,) probabilities that a tool is needed.
        base: (N,) triggers of the bare model (gate 0).
        up: (N,) margins before the bias where the gate is +1: with a step towards a call, if the setting has one.
        down: (N,) margins before the bias where the gate is -1, likewise.

    Returns:
        (N,) bool.
    """
    gate = ternary_gate(torch.from_numpy(p_tool), setting.tau).numpy()
    return np.where(gate > 0, up + setting.bias > 0, np.where(gate < 0, down - setting.bias > 0, base))


def biased_settings(places: Sequence[Reader], args: ASATrainingArguments) -> list[Setting]:
    """All settings with the other action "bias"; they have no step."""
    points = itertools.product(places, args.taus, args.probes, BIASES)
    return [Setting(at.layer, 0.0, tau, 1.0, probe, at.read_layers, "bias", bias) for at, tau, probe, bias in points]


def with_bias(steering: Sequence[Setting]) -> list[Setting]:
    """Steering settings with each of the biases on top, which is the other action "both"."""
    return [setting._replace(action="both", bias=bias) for setting in steering for bias in BIASES]


def best_by_action(scored: Sequence[Scored]) -> dict[str, Scored]:
    """The best of "force" (a bias without limit), "bias" (with one) and "both", the gentler on ties."""
    found: dict[str, Scored] = {}
    for one in sorted(scored, key=Scored.rank):
        forced = one.setting.action == "bias" and math.isinf(one.setting.bias)
        found.setdefault("force" if forced else one.setting.action, one)
    return found


def scored_actions(
    objective: Objective,
    labels: NDArray[np.int64],
    triggers: Mapping[Setting, NDArray[np.bool_]],
    groups: NDArray[np.int64] | None,
) -> list[Scored]:
    """Settings with their results on N rows; of (N,) groups, rows with the same number belong together."""
    return [Scored(setting, objective.score(labels, called, groups), called) for setting, called in triggers.items()]
