from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference as reference
import torch
from models import default_dtype

from asa_adapter import ASAConfig, Decision, Probes, Router, SteeringVectors
from asa_adapter.policy.controller import Controller, Verdicts, ternary_gate

DOMAINS, WIDTH = 3, 6
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def controller(step: float = 2.5, tau: float = 0.6, seed: int = 0) -> Controller:
    generator = np.random.default_rng(seed)
    direction = generator.normal(size=(DOMAINS, WIDTH))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return Controller(
        weight=torch.tensor(generator.normal(size=(2 * DOMAINS, WIDTH)), dtype=torch.float32),
        bias=torch.tensor(generator.normal(size=2 * DOMAINS), dtype=torch.float32),
        direction=torch.tensor(direction, dtype=torch.float32),
        step=step,
        tau=tau,
    )


def random_states(rows: int = 200, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(5).normal(size=(rows, WIDTH)), dtype=dtype)


def reference_decisions(one: Controller, states: torch.Tensor) -> list[tuple[Any, ...]]:
    weight, bias = one.weight.double().numpy(), one.bias.double().numpy()
    router, probes = (weight[:DOMAINS], bias[:DOMAINS]), (weight[DOMAINS:], bias[DOMAINS:])
    return reference.decide(states.double().numpy(), router, probes, one.tau)


def verdicts(gates: list[int], domains: list[int] | None = None) -> Verdicts:
    n = len(gates)
    return Verdicts(torch.tensor(domains or [0] * n), torch.full((n,), 0.5), torch.tensor(gates))


def bits(states: torch.Tensor) -> torch.Tensor:
    return states.view(BITS[states.element_size()])


def special_rows(dtype: torch.dtype) -> torch.Tensor:
    """Rows of every kind of number that an addition of zero could change."""
    limits = torch.finfo(dtype)
    values = [
        -0.0,
        0.0,
        float("nan"),
        float("inf"),
        float("-inf"),
        limits.max,
        limits.tiny,
        limits.smallest_normal / 2,
    ]
    return torch.tensor([values, values[::-1]], dtype=dtype)[:, :WIDTH].contiguous()


# --- the gate


@pytest.mark.parametrize("tau", [0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_gate_opens_at_tau_itself(tau: float) -> None:
    assert ternary_gate(torch.tensor([tau]), tau).tolist() == [1]


@pytest.mark.parametrize("tau", [0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_gate_opens_downwards_at_one_minus_tau_itself(tau: float) -> None:
    assert ternary_gate(torch.tensor([1 - tau]), tau).tolist() == [-1]


@pytest.mark.parametrize("tau", [0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_gate_is_shut_just_inside_the_borders(tau: float) -> None:
    borders = torch.tensor([tau, 1 - tau])
    assert ternary_gate(torch.nextafter(borders, torch.tensor(0.5)), tau).tolist() == [0, 0]


def test_plus_wins_the_tie_at_one_half() -> None:
    p = torch.tensor([0.5, np.nextafter(np.float32(0.5), np.float32(0))])
    assert ternary_gate(p, 0.5).tolist() == [1, -1]


def test_gate_agrees_with_the_reference() -> None:
    p = torch.from_numpy(np.random.default_rng(2).random(1000, dtype=np.float32))
    for tau in (0.5, 0.613, 0.75, 0.9999, 1.0):
        assert ternary_gate(p, tau).tolist() == [reference.gate(float(value), tau) for value in p]


def test_gate_of_a_probability_that_is_no_number_is_shut() -> None:
    assert ternary_gate(torch.tensor([float("nan")]), 0.5).tolist() == [0]


# --- decide


@pytest.mark.parametrize("tau", [0.5, 0.6, 0.9])
def test_decisions_agree_with_the_reference(tau: float) -> None:
    states, one = random_states(), controller(tau=tau)
    domain, p, gate = zip(*reference_decisions(one, states), strict=True)
    made = one.decide(states)
    assert set(gate) == ({-1, 1} if tau == 0.5 else {-1, 0, 1})
    assert made.domain.tolist() == list(domain)
    np.testing.assert_allclose(made.p_tool, p, atol=1e-6)
    assert made.gate.tolist() == list(gate)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_states_of_any_precision_are_decided_in_float32(dtype: torch.dtype) -> None:
    states = random_states(dtype=dtype)
    expected = reference_decisions(controller(), states)
    made = controller().decide(states)
    assert (made.domain.dtype, made.p_tool.dtype, made.gate.dtype) == (torch.int64, torch.float32, torch.int64)
    np.testing.assert_allclose(made.p_tool, [p for _, p, _ in expected], atol=1e-6)


def test_each_row_is_decided_by_itself() -> None:
    states, one = random_states(), controller()
    together = one.decide(states)
    alone = [one.decide(states[i : i + 1]) for i in range(len(states))]
    assert together.gate.tolist() == [made.gate.item() for made in alone]


def test_no_rows_give_no_decisions() -> None:
    assert [part.tolist() for part in controller().decide(torch.zeros(0, WIDTH))] == [[], [], []]


def test_step_of_zero_keeps_every_gate_shut() -> None:
    made = controller(step=0.0).decide(random_states())
    assert not made.gate.any()
    assert made.p_tool.tolist() == controller().decide(random_states()).p_tool.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_decision_under_autocast_is_the_same(dtype: torch.dtype) -> None:
    states, one = random_states(), controller()
    outside = one.decide(states)
    with torch.autocast("cpu", dtype=dtype):
        inside = one.decide(states)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(inside, outside, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_step_under_autocast_is_the_same(dtype: torch.dtype) -> None:
    states, one = random_states(), controller()
    made = one.decide(states)
    outside = one.steer(states, made)
    with torch.autocast("cpu", dtype=dtype):
        inside = one.steer(states, made)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_step_does_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    states, one = random_states(), controller(step=2.7182818)
    made = one.decide(states)
    expected = one.steer(states, made)
    with default_dtype(dtype):
        steered = one.steer(states, made)
    assert torch.equal(steered, expected)


# --- steer


def test_steered_states_agree_with_the_reference() -> None:
    states, one = random_states(), controller()
    expected = reference.step(
        states.double().numpy(), reference_decisions(one, states), one.direction.double().numpy(), one.step
    )
    np.testing.assert_allclose(one.steer(states, one.decide(states)), expected, atol=1e-5)


def test_step_by_hand() -> None:
    one = replace(controller(step=2.0), direction=torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]))
    steered = one.steer(torch.tensor([[1.0, 1.0]] * 4), verdicts([1, -1, 0, -1], [0, 0, 1, 2]))
    np.testing.assert_allclose(steered, [[2.2, 2.6], [-0.2, -0.6], [1.0, 1.0], [1.0, -1.0]], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    states, one = random_states(dtype=dtype), controller()
    expected = states.float() + one.step * one.direction[[0] * len(states)]
    steered = one.steer(states, verdicts([1] * len(states)))
    assert steered.dtype == dtype
    assert torch.equal(steered, expected.to(dtype))


@pytest.mark.parametrize("step", [2.5, 1e30], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_with_gate_zero_keep_every_bit(dtype: torch.dtype, step: float) -> None:
    states = special_rows(dtype)
    steered = controller(step=step).steer(states, verdicts([0, 0]))
    assert steered.dtype == dtype
    assert torch.equal(bits(steered), bits(states))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_with_gate_zero_keep_every_bit_beside_steered_ones(dtype: torch.dtype) -> None:
    states = torch.cat([special_rows(dtype), torch.ones(1, WIDTH, dtype=dtype)])
    steered = controller().steer(states, verdicts([0, 0, 1]))
    assert torch.equal(bits(steered[:2]), bits(states[:2]))
    assert not torch.equal(steered[2], states[2])


def test_given_states_are_not_changed() -> None:
    states = random_states()
    before = states.clone()
    controller().steer(states, verdicts([1] * len(states)))
    assert torch.equal(states, before)


# --- build


def parts() -> tuple[ASAConfig, SteeringVectors, Router, Probes, np.ndarray]:
    generator = np.random.default_rng(3)
    states, labels = generator.normal(size=(120, WIDTH)), np.arange(120) % 2
    names = [("zebra", "ant", "mole")[i // 2 % 3] for i in range(120)]
    states[:, 0] += labels
    states[:, 1] += [("zebra", "ant", "mole").index(name) for name in names]
    config = ASAConfig(
        hidden_size=WIDTH, num_layers=2, layer=1, domains=("zebra", "ant", "mole"), alpha=0.5, tau=0.7, beta=0.3,
        residual_norm=4.0,
    )  # fmt: skip
    vectors = SteeringVectors.fit(states, labels, names, config.domains)
    return config, vectors, Router.fit(states, names), Probes.fit(states, labels, names), states


@pytest.mark.parametrize("kind", ["domain", "pooled"])
def test_built_controller_decides_as_its_estimators_do(kind: str) -> None:
    config, vectors, router, probes, states = parts()
    made = Controller.build(replace(config, probe=kind), vectors, router, probes).decide(torch.tensor(states))
    domains = router.estimator_.predict(states)
    estimators = [probes.pooled_ if kind == "pooled" else probes.by_domain_[name] for name in domains]
    expected = [probe.predict_proba(h[None])[0, 1] for probe, h in zip(estimators, states, strict=True)]
    assert [config.domains[i] for i in made.domain] == domains.tolist()
    np.testing.assert_allclose(made.p_tool, expected, atol=1e-6)


def test_built_controller_takes_step_and_directions_of_the_config() -> None:
    config, vectors, router, probes, _ = parts()
    built = Controller.build(config, vectors, router, probes)
    expected = reference.mixed(vectors.v_global.double().numpy(), vectors.v_domain.double().numpy(), 0.3)
    assert (built.step, built.tau) == (2.0, 0.7)
    np.testing.assert_allclose(built.direction, expected, atol=1e-6)


def test_alpha_of_zero_builds_a_controller_that_abstains() -> None:
    config, vectors, router, probes, states = parts()
    built = Controller.build(replace(config, alpha=0.0, tau=0.5), vectors, router, probes)
    assert not built.decide(torch.tensor(states)).gate.any()


def test_controller_on_its_own_device_is_itself() -> None:
    one = controller()
    assert one.to(torch.device("cpu")) is one


def test_a_controller_that_an_inference_call_moved_is_of_use_with_gradients() -> None:
    with torch.inference_mode():
        moved = controller().to(torch.device("meta"))
    assert not any(tensor.is_inference() for tensor in (moved.weight, moved.bias, moved.direction))


def test_controller_moves_its_tensors_to_a_device() -> None:
    moved = controller().to(torch.device("meta"))
    assert {tensor.device.type for tensor in (moved.weight, moved.bias, moved.direction)} == {"meta"}


@pytest.mark.parametrize(("gate", "shown"), [(1, "+1"), (0, "0"), (-1, "-1")])
def test_a_decision_in_words_has_the_sign_of_its_gate(gate: int, shown: str) -> None:
    decision = Decision("math", 0.76, gate, 213, bool(gate), 0.714 * abs(gate))
    what = "step of 0.71 x the state's norm" if gate else "left as it was"
    assert str(decision) == f"token 213: math, p(tool) 0.760, gate {shown}, {what}"


def test_decision_without_a_row_was_not_applied() -> None:
    assert Decision("math", 0.9, 1) == Decision(domain="math", p_tool=0.9, gate=1, position=-1, applied=False)
