"""`SteeringHandle.recording()`: the decisions of the calls that one thread makes inside the `with` block."""

import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from models import fitted_adapter, greedy, prompts, random_model

from asa_adapter import ASAAdapter


def test_each_call_inside_the_block_has_an_entry_and_those_outside_have_none(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2) as steering:
        greedy(lfm2, prompts())
        with steering.recording() as calls:
            greedy(lfm2, prompts(rows=2))
            first = steering.decisions
            assert calls == [first]
            with steering.disabled():
                greedy(lfm2, prompts())
            greedy(lfm2, prompts(rows=1, length=5))
        greedy(lfm2, prompts())
    assert [[d.position for d in decisions] for decisions in calls] == [[8, 8], [], [4]]
    assert calls[0] == first


def test_threads_record_their_own_calls_alone(lfm2: Any, adapter: ASAAdapter) -> None:
    found: dict[int, list[Any]] = {}
    begun = threading.Barrier(4)

    def serve(i: int) -> None:
        with steering.recording() as calls:
            begun.wait()
            for k in range(3):
                greedy(lfm2, prompts(rows=1, length=4 + 3 * i + k))
        found[i] = calls

    with adapter.attach(lfm2) as steering, steering.recording() as here:
        threads = [threading.Thread(target=serve, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    positions = {i: [[d.position for d in call] for call in calls] for i, calls in found.items()}
    assert positions == {i: [[3 + 3 * i + k] for k in range(3)] for i in range(4)}
    assert here == []


def test_blocks_may_be_nested_and_adapters_record_apart(lfm2: Any) -> None:
    with fitted_adapter(layer=1).attach(lfm2) as low, fitted_adapter(layer=3).attach(lfm2) as high:
        with low.recording() as outer, high.recording() as other:
            greedy(lfm2, prompts(rows=1))
            with low.recording() as inner:
                greedy(lfm2, prompts(rows=2))
            greedy(lfm2, prompts())
        assert [len(call) for call in outer] == [1, 2, 3]
        assert [len(call) for call in inner] == [2]
        assert [len(call) for call in other] == [1, 2, 3]
        assert outer[2] == low.decisions
        assert other[2] == high.decisions
        assert inner[0] == outer[1]


def test_a_call_that_ends_by_an_error_has_an_entry_too(lfm2: Any, adapter: ASAAdapter) -> None:
    class Stop(Exception):
        pass

    def fail(*_: Any) -> None:
        raise Stop

    with adapter.attach(lfm2) as steering:
        with steering.recording() as calls:
            greedy(lfm2, prompts(rows=1))
            with lfm2.lm_head.register_forward_hook(fail), pytest.raises(Stop):
                greedy(lfm2, prompts(rows=2))
        assert [len(call) for call in calls] == [1, 2]
        with steering.recording() as later, pytest.raises(TypeError, match="expected a tensor of token ids"):
            lfm2.generate([[5]])
        assert later == [[]]
        greedy(lfm2, prompts())
    assert len(calls) == 2


def test_a_generate_inside_another_belongs_to_that_call(lfm2: Any, adapter: ASAAdapter) -> None:
    def inside(model: Any, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return greedy(model, torch.cat([input_ids, input_ids], dim=1))

    with adapter.attach(lfm2) as steering, steering.recording() as calls:
        greedy(lfm2, prompts(), custom_generate=inside)
    assert [[d.position for d in call] for call in calls] == [[17] * 3]


def test_a_removed_handle_keeps_its_decisions_but_no_weight(adapter: ASAAdapter) -> None:
    model = random_model("lfm2")
    handle = adapter.attach(model)
    greedy(model, prompts())
    gone = [weakref.ref(model), *(weakref.ref(weight) for weight in model.parameters())]
    handle.remove()
    del model
    gc.collect()
    assert [ref() for ref in gone if ref() is not None] == []
    assert [(d.position, d.applied) for d in handle.decisions] == [(8, True)] * 3
