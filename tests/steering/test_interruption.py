"""Ctrl-C at every step of the code that changes a model or plans a call: the model is whole; the handle says so."""

import dis
import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch
from models import fitted_adapter, greedy, prompts, random_model, traces

import asa_adapter.steering.hook
from asa_adapter import ASAAdapter
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.steering.hook import SteeringHandle, is_steered

WING = str(Path(asa_adapter.steering.hook.__file__).parent)


@pytest.fixture
def adapter() -> ASAAdapter:
    """One that changes the model in two places, a block and the model itself."""
    return fitted_adapter(action="both", bias=4.0, opening_ids=(7, 9))


@functools.cache
def returning(code: CodeType) -> set[int]:
    """Offsets of the instructions that only return None: what was done can no longer be undone there."""
    steps = list(dis.get_instructions(code))
    ends = {step.offset for step in steps if step.opname in ("RETURN_VALUE", "RETURN_CONST")}
    before = {a.offset for a, b in itertools.pairwise(steps) if b.offset in ends and a.opname.startswith("LOAD_")}
    return ends | before


def interrupted(work: Callable[[], Any], at: int, opcodes: bool) -> bool:
    """Runs some work with a KeyboardInterrupt at its `at`-th step in this wing; False if it has fewer steps."""
    passed = -1

    def follow(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(WING):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = opcodes, not opcodes
        if event == ("opcode" if opcodes else "line") and frame.f_lasti not in returning(frame.f_code):
            passed += 1
            if passed == at:
                raise KeyboardInterrupt
        return follow

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return passed >= at


def attached(model: Any, adapter: ASAAdapter) -> SteeringHandle:
    """As `adapter.attach`, without the checks before it, which change nothing."""
    config = adapter.config
    block = decoder_blocks(model)[config.layer]
    return SteeringHandle(model, [block], adapter._controller, config)


def whole(model: Any) -> tuple[set[str], list[int]]:
    """What an adapter changes: the model's own attributes, and its hooks with their settings."""
    hooks = [len(part._forward_hooks) + len(part._forward_hooks_with_kwargs) for part in model.modules()]
    return set(model.__dict__), hooks


@pytest.mark.parametrize("opcodes", [False, True], ids=["lines", "opcodes"])
def test_ctrl_c_while_attaching_leaves_the_model_as_it_was(lfm2: Any, adapter: ASAAdapter, opcodes: bool) -> None:
    before, at = whole(lfm2), 0
    while interrupted(lambda: attached(lfm2, adapter), at, opcodes):
        assert whole(lfm2) == before, at
        assert not is_steered(lfm2)
        at += 1
    assert at > 20
    assert is_steered(lfm2)  # the last one ran to its end


@pytest.mark.parametrize("opcodes", [False, True], ids=["lines", "opcodes"])
def test_ctrl_c_while_removing_leaves_all_or_nothing_and_a_second_remove_is_enough(
    lfm2: Any, adapter: ASAAdapter, opcodes: bool
) -> None:
    bare, at, more = whole(lfm2), 0, True
    handle = attached(lfm2, adapter)
    steered = whole(lfm2)
    while more:
        more = interrupted(handle.remove, at, opcodes)
        assert whole(lfm2) == (steered if "attached" in repr(handle) else bare), at
        handle.remove()
        handle.remove()
        assert whole(lfm2) == bare
        assert "removed" in repr(handle)
        handle = attached(lfm2, adapter)
        assert whole(lfm2) == steered
        at += 1
    assert at > 20
    handle.remove()


def test_ctrl_c_while_one_of_two_adapters_leaves_does_not_touch_the_other(lfm2: Any, adapter: ASAAdapter) -> None:
    other = attached(lfm2, fitted_adapter(layer=1))
    alone, at, more = whole(lfm2), 0, True
    while more:
        handle = attached(lfm2, adapter)
        more = interrupted(handle.remove, at, opcodes=True)
        handle.remove()
        assert whole(lfm2) == alone, at
        at += 1
    other.remove()
    assert traces(lfm2) == []


@pytest.mark.parametrize(
    "opcodes", [pytest.param(False, id="lines"), pytest.param(True, id="opcodes", marks=pytest.mark.slow)]
)
def test_after_ctrl_c_in_generate_later_calls_are_steered_and_bare_passes_are_not(
    adapter: ASAAdapter, opcodes: bool
) -> None:
    model, ids = random_model("llama"), prompts(rows=1, length=3)
    with torch.no_grad():
        bare = model(ids).logits
        with adapter.attach(model) as steering:
            expected = greedy(model, ids, max_new_tokens=2, min_new_tokens=2)
            state, at = whole(model), 0
            while interrupted(lambda: greedy(model, ids, max_new_tokens=2, min_new_tokens=2), at, opcodes):
                assert torch.equal(model(ids).logits, bare), at
                assert torch.equal(greedy(model, ids, max_new_tokens=2, min_new_tokens=2), expected), at
                assert [d.applied for d in steering.decisions] == [True]
                at += 1
            assert at > 50
            assert whole(model) == state
    assert torch.equal(model(ids).logits, bare)
    assert traces(model) == []


@pytest.mark.parametrize("name", ["disabled", "recording"])
def test_ctrl_c_at_a_blocks_ends_does_not_leave_it_open(lfm2: Any, adapter: ASAAdapter, name: str) -> None:
    handle = attached(lfm2, adapter)

    def block() -> None:
        with getattr(handle, name)():
            pass

    at = 0
    while interrupted(block, at, opcodes=True):
        assert handle._is_active(), at
        assert handle._recordings.open == ()
        at += 1
    assert at > 10
    handle.remove()
