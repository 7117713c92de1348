"""Kinds of state on llama.cpp's side: each row is decided by the rule of its prompt. No test needs the library."""

import dataclasses

import pytest
import torch
from models import WIDTH, fitted_adapter

from asa_adapter.llamacpp.steering import AttachedAdapters, GGUFSteering
from asa_adapter.matching.scope import state_not_fitted
from asa_adapter.policy.controller import Controller

MARKS = {"first": ((40, 41),), "after_result": ((40, 42),)}
PROMPTS = {"first": [1, 40, 41, 5, 6], "after_result": [1, 40, 41, 5, 40, 42, 6]}


@pytest.mark.parametrize("state", ["first", "after_result"])
@pytest.mark.parametrize("states", [("first",), ("first", "after_result")])
def test_a_row_is_steered_by_the_rule_of_its_kind_or_left_alone(states: tuple[str, ...], state: str) -> None:
    given = fitted_adapter(alpha=20.0, tau=0.5)
    by_state = {"after_result": {"alpha": 7.0}} if len(states) > 1 else {}
    config = dataclasses.replace(given.config, states=states, state_marks=MARKS, by_state=by_state)
    controller = Controller.build(config, given.vectors, given.router, given.probes)
    handle = GGUFSteering(AttachedAdapters(), controller, config, False, False)
    prompt, states_of_row = PROMPTS[state], torch.ones(1, WIDTH)
    row = handle.row(torch.tensor([prompt]), len(prompt) - 1)
    steered = row.steer(states_of_row)
    [decision] = row.record.decisions()
    assert decision.state == state
    if state not in states:
        assert steered is None
        assert decision.reason == state_not_fitted(state)
        return
    assert steered is not None
    assert float((steered - states_of_row).norm()) == pytest.approx(7.0 if state == "after_result" else 20.0, rel=1e-5)
    assert (decision.applied, decision.reason) == (True, "")
