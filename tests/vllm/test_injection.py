"""The operation that steers the planned rows of a step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from engines import CPU, controller
from models import WIDTH
from torch.fx.experimental.proxy_tensor import make_fx

from asa_adapter.policy.controller import Controller, Readiness
from asa_adapter.vllm.injection import Injection


def test_planned_rows_are_steered_as_the_controller_does_and_others_keep_every_bit() -> None:
    one = controller()
    injection = Injection(one, slots=8, device=CPU)
    hidden, residual = torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
    steered = hidden.clone()
    injection.plan([5, 2], [1.0, 0.5])
    injection.steer(steered, residual)
    verdicts = one.decide((hidden + residual)[[5, 2]])
    assert verdicts.gate.abs().tolist() == [1, 1]
    expected = one.steer(hidden[[5, 2]], verdicts._replace(gate=verdicts.gate * torch.tensor([1.0, 0.5])))
    assert torch.equal(steered[[5, 2]], expected)
    assert torch.equal(steered[[0, 1, 3, 4, 6]], hidden[[0, 1, 3, 4, 6]])
    assert injection.ran.tolist() == [1, 2]


def test_the_steered_stream_is_that_of_transformers() -> None:
    """The sum of the pair after steering is the steered sum, up to the last bit or two of float32."""
    one = controller()
    injection = Injection(one, slots=1, device=CPU)
    hidden, residual = torch.randn(2, 1, WIDTH, generator=torch.Generator().manual_seed(1))
    stream = hidden + residual
    injection.plan([0], [1.0])
    injection.steer(hidden, residual)
    torch.testing.assert_close(hidden + residual, one.steer(stream, one.decide(stream)), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_planned_changes_nothing(dtype: torch.dtype) -> None:
    injection = Injection(controller(), slots=4, device=CPU)
    hidden, residual = torch.randn(2, 3, WIDTH).to(dtype)
    hidden[0, 0] = -0.0
    before = hidden.clone()
    injection.steer(hidden, residual)
    injection.plan([1], [1.0])
    injection.clear()
    injection.steer(hidden, residual)
    assert torch.equal(hidden.view(torch.int8), before.view(torch.int8))
    assert injection.ran.tolist() == [2, 0]


def test_an_empty_plan_clears() -> None:
    injection = Injection(controller(), slots=4, device=CPU)
    injection.plan([1], [1.0])
    injection.plan([], [])
    assert injection.factors.tolist() == [0.0] * 4
    assert injection.due.tolist() == [1, 0]


def test_more_ends_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="a step has 3 ends of prompts; expected at most 2"):
        Injection(controller(), slots=2, device=CPU).plan([0, 1, 2], [1.0] * 3)


def test_the_injection_is_not_part_of_the_checkpoint() -> None:
    injection = Injection(controller(), slots=2, device=CPU)
    assert injection.state_dict() == {}
    assert not list(injection.parameters())


def looked_at(**options: Any) -> Injection:
    """One that an engine serves with."""
    injection = Injection(controller(), slots=2, device=CPU, **options)
    injection.looked = True
    return injection


def test_an_engine_whose_layers_were_not_looked_at_serves_nothing() -> None:
    with pytest.raises(RuntimeError, match="so the steered layers were not looked at"):
        Injection(controller(), slots=2, device=CPU).check()


def test_the_decisions_of_the_latest_plan_can_be_read() -> None:
    one = controller()
    injection = Injection(one, slots=2, device=CPU)
    stream = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
    injection.plan([2, 0], [1.0, 1.0])
    injection.steer(stream.clone(), None)
    verdicts = one.decide(stream[[2, 0]])
    expected = [list(map(float, row)) for row in zip(*verdicts, strict=True)]
    assert injection.decided.tolist() == expected
    injection.clear()
    injection.steer(-stream, None)  # a step that ends no prompt, such as of the answer
    assert injection.decided.tolist() == expected


def test_a_stream_that_is_one_tensor_is_steered_as_the_controller_does() -> None:
    one = controller()
    injection = Injection(one, slots=1, device=CPU)
    stream = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1)) * 3
    steered = stream.clone()
    injection.plan([1], [1.0])
    injection.steer(steered, None)
    assert torch.equal(steered[1:], one.steer(stream[1:], one.decide(stream[1:])))
    assert torch.equal(steered[0], stream[0])


def test_a_layer_that_did_not_run_as_planned_is_told() -> None:
    injection = looked_at()
    injection.check()
    injection.plan([0], [1.0])
    with pytest.raises(RuntimeError, match="ran 0 times and steered 0 prompts, where 1 were planned"):
        injection.check()


def test_an_engine_that_warmed_up_without_the_layer_is_told_before_the_first_request() -> None:
    injection = looked_at(warms_up=True)
    with pytest.raises(RuntimeError, match="the engine runs another graph than the one with the adapter"):
        injection.check()


def test_what_ran_as_planned_passes_and_is_not_counted_again() -> None:
    injection = looked_at(warms_up=True)
    injection.steer(torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))
    injection.check()
    injection.plan([0], [1.0])
    injection.steer(torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))
    injection.check()
    injection.ran.zero_()
    injection.check()
    assert injection.planned == 1


def test_an_adapter_that_asks_for_readiness_is_steered_as_the_controller_does() -> None:
    plain = controller()
    one = replace(
        plain,
        weight=torch.cat([plain.weight, torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(5))]),
        bias=torch.cat([plain.bias, torch.zeros(1)]),
        direction=torch.cat([plain.direction, plain.direction.flip(1)]),
        readiness=Readiness(0.5, 0.5, 0.0, 2.0),
        down=1.5,
    )
    injection = Injection(one, slots=16, device=CPU)
    hidden, residual = torch.randn(2, 16, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
    steered = hidden.clone()
    injection.plan(list(range(16)), [1.0] * 16)
    injection.steer(steered, residual)
    verdicts = one.decide(hidden + residual)
    assert (verdicts.domain >= len(plain.direction)).any()
    assert not torch.equal(verdicts.gate, plain.decide(hidden + residual).gate)
    assert torch.equal(steered, one.steer(hidden, verdicts))


def of_two_kinds(cap: float = 0.0) -> Controller:
    """Rules that differ in all that a kind of state may have of its own, even in the number of directions."""
    plain, generator = controller(), torch.Generator().manual_seed(3)
    second = replace(
        plain,
        weight=torch.randn(len(plain.weight) + 1, WIDTH, generator=generator),
        bias=torch.randn(len(plain.bias) + 1, generator=generator),
        direction=torch.cat([plain.direction.flip(1), plain.direction.flip(0)]),
        readiness=Readiness(1.0, 0.0, 0.0, 2.0),
        step=3.0,
        down=7.0,
        tau=0.6,
    )
    return replace(plain, others=(second,)).changed(cap=cap)


@pytest.mark.parametrize("cap", [0.0, 0.1])
@pytest.mark.parametrize("is_pair", [True, False])
def test_each_row_is_steered_by_the_rule_of_its_kind(is_pair: bool, cap: float) -> None:
    one = of_two_kinds(cap)
    injection = Injection(one, slots=16, device=CPU)
    hidden, residual = torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
    stream = hidden + residual if is_pair else hidden
    rows, rules = list(range(1, 11)), [0, 1] * 5
    steered = hidden.clone()
    injection.plan(rows, [1.0, 0.5] * 5, rules)
    injection.steer(steered, residual if is_pair else None)
    signs = set()
    for row, rule, factor in zip(rows, rules, [1.0, 0.5] * 5, strict=True):
        own = replace(one.each[rule], others=())
        verdicts = own.decide(stream[row : row + 1])
        signs.add((rule, int(verdicts.gate)))
        expected = own.scaled(factor).steer(stream[row : row + 1], verdicts)
        found = steered[row : row + 1] + (residual[row : row + 1] if is_pair else 0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        if cap:
            assert float((found - stream[row]).norm()) <= cap * float(stream[row].norm()) * 1.001
    assert {(0, 1), (1, 1), (1, -1)} <= signs
    assert torch.equal(steered[[0, 11]], hidden[[0, 11]])


def test_a_later_plan_does_not_keep_the_rules_of_an_earlier_one() -> None:
    injection = Injection(of_two_kinds(), slots=3, device=CPU)
    injection.plan([0, 1], [1.0, 1.0], [1, 1])
    assert injection.rules.tolist() == [1, 1, 1]
    injection.plan([0], [1.0])
    assert injection.rules.tolist() == [0, 0, 0]


def test_the_operation_waits_for_nothing_of_the_device() -> None:
    """A graph holds it: what it does, and on which shapes, is the same whatever is planned."""
    injection = Injection(of_two_kinds(0.1), slots=4, device=CPU)

    def run(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        injection.steer(hidden, residual)
        return hidden

    hidden, residual = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0))
    graph = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(hidden.clone(), residual)
    assert not {"aten._local_scalar_dense.default", "aten.nonzero.default"} & {
        str(n.target) for n in graph.graph.nodes
    }
