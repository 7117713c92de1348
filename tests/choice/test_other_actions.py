"""What a bias does to first tokens, by margins, beside logits that are biased by hand."""

import math

import numpy as np
import pytest
import torch

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.finalists import choose, gentlest_near_best
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.other_actions import (
    BIASES,
    best_by_action,
    biased_settings,
    opened_by_bias,
    scored_actions,
    with_bias,
)
from asa_adapter.choice.settings import Reader, Scored, Setting
from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.evaluation.first_tokens import _screened_logits
from asa_adapter.parts.opening_bias import OpeningBias, biased_logits
from asa_adapter.policy.controller import ternary_gate

ROWS, OPENINGS = 200, (3, 11)
LABELS = np.arange(ROWS) % 2
LOGITS = torch.randn(ROWS, 20, generator=torch.Generator().manual_seed(0)) * 3
P_TOOL = np.clip(0.5 + 0.3 * (2 * LABELS - 1) + np.random.default_rng(0).normal(0, 0.3, ROWS), 0, 1).astype(np.float32)
STEER = Setting(2, 1.0, 0.7, 0.5, "domain")


@pytest.mark.parametrize("bias", BIASES)
def test_a_bias_opens_the_calls_that_it_opens_in_the_logits(bias: float) -> None:
    setting = STEER._replace(action="bias", bias=bias)
    gates = ternary_gate(torch.from_numpy(P_TOOL), setting.tau)
    by_logits = biased_logits(LOGITS, [(OpeningBias(OPENINGS, bias), gates)]).argmax(dim=1)
    bare = _screened_logits(LOGITS, OPENINGS)
    found = opened_by_bias(setting, P_TOOL, bare.triggered, bare.margin, bare.margin)
    assert np.array_equal(found, torch.isin(by_logits, torch.tensor(OPENINGS)).numpy())
    assert set(gates.tolist()) == {-1, 0, 1}


def test_without_limit_the_gate_alone_decides() -> None:
    bare = _screened_logits(LOGITS, OPENINGS)
    found = opened_by_bias(STEER._replace(bias=math.inf), P_TOOL, bare.triggered, bare.margin, bare.margin)
    gates = ternary_gate(torch.from_numpy(P_TOOL), 0.7).numpy()
    assert np.array_equal(found, np.where(gates > 0, True, np.where(gates < 0, False, bare.triggered)))


def test_the_margin_is_to_the_likeliest_other_token() -> None:
    logits = torch.tensor([[0.0, 5.0, 3.0, 4.0], [9.0, 1.0, 2.0, 8.0]])
    assert _screened_logits(logits, [1, 3]).margin.tolist() == [2.0, -1.0]
    assert _screened_logits(logits, [0, 1, 2, 3]).margin.tolist() == [math.inf, math.inf]


def test_settings_of_other_actions_are_fields_of_a_config_and_plain_json() -> None:
    args = ASATrainingArguments(taus=(0.5, 0.7), probes=("pooled",))
    settings = [*biased_settings([Reader(1), Reader(3)], args), *with_bias([STEER])]
    assert len(settings) == 2 * 2 * len(BIASES) + len(BIASES)
    for setting in settings:
        config = ASAConfig(hidden_size=8, num_layers=4, domains=("a",), opening_ids=(7,), **setting.plain())
        assert (config.action, config.bias) == (setting.action, setting.bias)
        assert config.step == (1.0 if setting.action == "both" else 0.0)
    assert STEER.plain() == {"layer": 2, "alpha": 1.0, "tau": 0.7, "beta": 0.5, "probe": "domain", "read_layers": []}
    assert STEER._replace(action="both", bias=math.inf).plain()["bias"] == "inf"


def test_the_best_of_each_name_is_the_gentler_one_on_ties() -> None:
    called = LABELS == 1
    settings = [STEER._replace(alpha=0.0, action="bias", bias=bias) for bias in (4.0, 2.0, math.inf)]
    triggers = dict.fromkeys([*settings, *with_bias([STEER])], called)
    best = best_by_action(scored_actions(Objective(), LABELS, triggers, None))
    assert {name: one.setting.bias for name, one in best.items()} == {"bias": 2.0, "force": math.inf, "both": 1.0}
    assert {one.score for one in best.values()} == {1.0}


@pytest.mark.parametrize("lead", [0, 40])
def test_the_push_is_taken_unless_another_action_is_better_by_more_than_noise(lead: int) -> None:
    """All call where a tool is needed and in ten rows more; the push, where it is worse, in twenty further ones."""
    args = ASATrainingArguments(resamples=200)
    alike = (LABELS == 1) | (np.arange(ROWS) < 20)
    pushed = alike | ((np.arange(ROWS) >= 100) & (np.arange(ROWS) < 100 + lead))
    others = [STEER._replace(action=action, bias=1.0) for action in ("bias", "both")]
    finalists = scored_actions(Objective.of(args), LABELS, {others[0]: alike, others[1]: alike, STEER: pushed}, None)
    chosen = choose(args, LABELS, finalists)[0]
    assert chosen.setting.action == ("bias" if lead else "steer")


def test_a_step_is_gentler_than_any_bias() -> None:
    settings = [STEER._replace(action="bias", alpha=0.0, bias=1.0), STEER._replace(alpha=100.0)]
    scores, errors = np.zeros((2, 1)), np.ones((2, 2))
    assert gentlest_near_best(
        [s.gentleness() for s in settings], scores, errors, np.ones((2, 1), dtype=bool)
    ).tolist() == [1]
    assert Scored(settings[1], 0.5, LABELS == 1).rank() < Scored(settings[0], 0.5, LABELS == 1).rank()
