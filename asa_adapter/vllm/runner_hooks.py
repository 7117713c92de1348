"""The plan of each step: vLLM's model runners, V1 or V2, tell the injection which rows end a prompt."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.requests import FACTOR, Asked, asked, request_ends


def plan_step(
    injection: Injection,
    starts: NDArray[np.integer[Any]],
    counts: NDArray[np.integer[Any]],
    lengths: NDArray[np.integer[Any]],
    asked_of: Callable[[int], Asked],
) -> None:
    """Plans the coming step, of requests in the order of their tokens.

    Args:
        injection: the engine's.
        starts: (n,) number of tokens of each request that were computed before.
        counts: (n,) number of its tokens in this step.
        lengths: (n,) number of its prompt tokens.
        asked_of: what is done to a request, by its index.

    Raises:
        RuntimeError: the previous steps were not steered as planned.
    """
    injection.check()
    met, rows = request_ends(starts, counts, lengths)
    due = [(int(row), asked_of(int(request))) for request, row in zip(met, rows, strict=True)]
    due = [(row, one) for row, one in due if one.factor]
    injection.plan([row for row, _ in due], [one.factor for _, one in due], [one.rule for _, one in due])


def hook_first_runner() -> None:
    """Model Runner V1: plans in a method that subclasses may override by its docstring, called once per real step."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    original = GPUModelRunner._model_forward
    if hasattr(original, "asa_original"):
        return

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        injection: Injection = self.compilation_config.static_forward_context[INJECTION]
        batch = self.input_batch
        n = batch.num_reqs

        def asked_of(request: int) -> Asked:
            return asked(self.requests[batch.req_ids[request]].sampling_params.extra_args)

        counts = np.diff(self.query_start_loc.np[: n + 1])
        plan_step(injection, batch.num_computed_tokens_cpu[:n], counts, batch.num_prompt_tokens[:n], asked_of)
        try:
            return original(self, *args, **kwargs)
        finally:
            injection.clear()  # the engine's dummy steps do not call this method, and have other rows

    forward.asa_original = original  # type: ignore[attr-defined]
    GPUModelRunner._model_forward = forward
    _check_first_runner(GPUModelRunner)


def _check_first_runner(runner_class: type[Any]) -> None:
    """Lets the runner's method take a made-up step, of the end of a prompt and an answer that goes on.

    Raises:
        RuntimeError: the step was not planned, run and cleared, in this order.
    """
    done: list[Any] = []
    injection = SimpleNamespace(
        check=lambda: None, plan=lambda *given: done.append(given), clear=lambda: done.append("cleared")
    )
    request = SimpleNamespace(sampling_params=SimpleNamespace(extra_args={FACTOR: 0.5}))
    batch = {"num_computed_tokens_cpu": np.array([4, 8]), "num_prompt_tokens": np.array([7, 8])}
    runner = SimpleNamespace(
        compilation_config=SimpleNamespace(static_forward_context={INJECTION: injection}),
        query_start_loc=SimpleNamespace(np=np.array([0, 3, 4])),
        requests={"a": request, "b": request},
        input_batch=SimpleNamespace(num_reqs=2, req_ids=["a", "b"], **batch),
        model=lambda **inputs: done.append("ran"),
    )
    try:
        runner_class._model_forward(runner)
    except Exception as error:
        done.append(f"{type(error).__name__}: {error}")
    if done != [([2], [0.5], [0]), "ran", "cleared"]:
        raise RuntimeError(
            f"a made-up step of vLLM's model runner V1 went {done!r:.300}; expected that its row 2 is planned, that "
            "the model runs, and that the plan is cleared. This vLLM cannot be steered; report it with its version"
        )


def steered_model_state(base: type[Any]) -> type[Any]:
    """Model Runner V2: the model's own state class, which plans where it prepares a step."""

    class SteeredModelState(base):
        def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(vllm_config, *args, **kwargs)
            self.asa_injection: Injection = vllm_config.compilation_config.static_forward_context[INJECTION]
            self.asa_asked: dict[int, Asked] = {}

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            super().add_request(req_index, new_req_data)
            self.asa_asked[req_index] = asked(new_req_data.sampling_params.extra_args)

        def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
            n = input_batch.num_reqs
            indices = input_batch.idx_mapping_np[:n]
            plan_step(
                self.asa_injection,
                input_batch.num_computed_tokens_np[:n],
                np.diff(input_batch.query_start_loc_np[: n + 1]),
                # Not the batch's prefill length, which grows when a preempted request is resumed.
                req_states.prompt_len.np[indices],
                lambda request: self.asa_asked[int(indices[request])],
            )
            inputs: dict[str, Any] = super().prepare_inputs(input_batch, req_states)
            return inputs

        def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, Any]:
            self.asa_injection.clear()
            inputs: dict[str, Any] = super().prepare_dummy_inputs(num_reqs, num_tokens)
            return inputs

    return SteeredModelState
