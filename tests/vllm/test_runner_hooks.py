"""The two model runners, each planning a step."""

from types import SimpleNamespace
from typing import Any

import pytest
from engines import CPU, array, controller, fake, sampling

from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.requests import Asked
from asa_adapter.vllm.runner_hooks import hook_first_runner, plan_step, steered_model_state


class Planned(Injection):
    """Keeps its plans."""

    def __init__(self) -> None:
        super().__init__(controller(), slots=8, device=CPU)
        self.plans: list[tuple[list[int], list[float], list[int]]] = []

    def plan(self, rows: Any, factors: Any, rules: Any = None) -> None:
        self.plans.append((list(rows), list(factors), list(rules)))

    def check(self) -> None:
        """Nothing runs here."""


def test_a_step_is_planned_without_those_that_are_off() -> None:
    injection = Planned()
    wishes = [Asked(0.0, 1), Asked(2.0, 1), Asked(1.0)]
    plan_step(injection, array(0, 0, 4), array(3, 2, 1), array(3, 2, 4), wishes.__getitem__)
    assert injection.plans == [([4], [2.0], [1])]


def test_the_first_runner_plans_before_its_forward_and_clears_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    injection = Planned()
    cleared: list[int] = []
    monkeypatch.setattr(injection, "clear", lambda: cleared.append(len(injection.plans)))

    class GPUModelRunner:
        def __init__(self) -> None:
            self.compilation_config = SimpleNamespace(static_forward_context={INJECTION: injection})
            self.query_start_loc = SimpleNamespace(np=array(0, 3, 4, 9, 9))
            self.requests = {
                "a": SimpleNamespace(sampling_params=sampling()),
                "b": SimpleNamespace(sampling_params=sampling()),
                "c": SimpleNamespace(sampling_params=sampling(asa_factor=0.25, _asa_rule=1)),
            }
            self.input_batch = SimpleNamespace(
                num_reqs=3,
                req_ids=["a", "b", "c"],
                num_computed_tokens_cpu=array(0, 8, 2, 0),
                num_prompt_tokens=array(3, 8, 7, 0),
            )

        def model(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs, len(injection.plans), len(cleared)

        def _model_forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.model(*args, **kwargs)

    fake(monkeypatch, "vllm.v1.worker.gpu_model_runner", GPUModelRunner=GPUModelRunner)
    hook_first_runner()
    hook_first_runner()
    assert GPUModelRunner()._model_forward(1, b=2) == ((1,), {"b": 2}, 1, 0)
    assert injection.plans == [([2, 8], [1.0, 0.25], [0, 1])]
    assert cleared == [1]


def test_a_runner_whose_method_does_not_run_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class GPUModelRunner:
        def _model_forward(self) -> None:
            """Runs nothing."""

    fake(monkeypatch, "vllm.v1.worker.gpu_model_runner", GPUModelRunner=GPUModelRunner)
    with pytest.raises(
        RuntimeError, match=r"model runner V1 went \[\(\[2\], \[0\.5\], \[0\]\), 'cleared'\]; expected"
    ):
        hook_first_runner()


def test_a_runner_that_needs_more_than_is_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class GPUModelRunner:
        def _model_forward(self) -> None:
            self.graphs.run()  # type: ignore[attr-defined]

    fake(monkeypatch, "vllm.v1.worker.gpu_model_runner", GPUModelRunner=GPUModelRunner)
    with pytest.raises(
        RuntimeError, match=r"AttributeError: 'types.SimpleNamespace' object has no attribute 'graphs'"
    ):
        hook_first_runner()


def test_the_second_runner_plans_where_it_prepares_a_step() -> None:
    injection = Planned()

    class State:
        def __init__(self, vllm_config: Any, model: str) -> None:
            self.model = model

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            self.added = req_index

        def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, int]:
            return {"planned": len(injection.plans)}

        def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, int]:
            return {"tokens": num_tokens}

    config = SimpleNamespace(compilation_config=SimpleNamespace(static_forward_context={INJECTION: injection}))
    state = steered_model_state(State)(config, "model")
    state.add_request(5, SimpleNamespace(sampling_params=sampling(asa=0)))
    state.add_request(2, SimpleNamespace(sampling_params=sampling(asa_factor=3, _asa_rule=1)))
    batch = SimpleNamespace(
        num_reqs=2,
        idx_mapping_np=array(2, 5),
        num_computed_tokens_np=array(0, 0),
        query_start_loc_np=array(0, 4, 6, 6),
    )
    lengths = SimpleNamespace(prompt_len=SimpleNamespace(np=array(0, 0, 4, 0, 0, 2)))
    assert state.prepare_inputs(batch, lengths) == {"planned": 1}
    assert injection.plans == [([3], [3.0], [1])]
    assert (state.model, state.added) == ("model", 2)
    injection._is_clear = False
    assert state.prepare_dummy_inputs(1, 9) == {"tokens": 9}
    assert injection._is_clear
