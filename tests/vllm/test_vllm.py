"""The vLLM plug-in as far as it needs no vLLM; tests/serving compares what it serves with transformers."""

import contextlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import DEPTH, WIDTH, fitted_adapter, random_model

import asa_adapter
from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.modeling.fingerprint import model_fingerprint
from asa_adapter.steering.controller import Controller
from asa_adapter.vllm import models, plugin
from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.keys import install_block_keys, steered_block_key
from asa_adapter.vllm.layers import self_check, steer_layer
from asa_adapter.vllm.refusals import architecture_of, check_engine, check_version
from asa_adapter.vllm.requests import prompt_ends, steering_factor
from asa_adapter.vllm.runners import hook_first_runner, plan_step, steered_model_state
from asa_adapter.vllm.weights import WatchedWeights

CPU = torch.device("cpu")


def array(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.int32)


def controller() -> Controller:
    adapter = fitted_adapter(tau=0.5)
    return Controller.build(adapter.config, adapter.vectors, adapter.router, adapter.probes)


def sampling(**extra: Any) -> SimpleNamespace:
    return SimpleNamespace(extra_args=extra or None)


# What a request asks for


@pytest.mark.parametrize(
    ("extra", "factor"),
    [
        (None, 1.0),
        ({}, 1.0),
        ({"asa": 1}, 1.0),
        ({"asa": True}, 1.0),
        ({"asa": 0}, 0.0),
        ({"asa": False}, 0.0),
        ({"asa_factor": 0.5}, 0.5),
        ({"asa_factor": 100}, 100.0),
        ({"asa_factor": 0}, 0.0),
        ({"asa": 0, "asa_factor": 2.0}, 0.0),
        ({"somebody_elses": "x", 3: "y"}, 1.0),
    ],
)
def test_a_request_says_how_far_it_is_steered(extra: dict[str, Any] | None, factor: float) -> None:
    assert steering_factor(extra) == factor


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"asa": 2}, "asa is 2; expected 0 (off) or 1 (on)"),
        ({"asa": "1"}, "asa is '1'; expected 0 (off) or 1 (on)"),
        ({"asa": 1.0}, "asa is 1.0; expected 0 (off) or 1 (on)"),
        ({"asa": None}, "asa is None; expected 0 (off) or 1 (on)"),
        ({"asa": [1]}, "asa is [1]; expected 0 (off) or 1 (on)"),
        ({"asa_factor": math.nan}, "asa_factor is nan; expected a number from 0 to 100"),
        ({"asa_factor": math.inf}, "asa_factor is inf; expected a number from 0 to 100"),
        ({"asa_factor": -0.1}, "asa_factor is -0.1; expected a number from 0 to 100"),
        ({"asa_factor": 101}, "asa_factor is 101; expected a number from 0 to 100"),
        ({"asa_factor": 10**400}, "expected a number from 0 to 100"),
        ({"asa_factor": True}, "asa_factor is True; expected a number from 0 to 100"),
        ({"asa_factor": "1"}, "asa_factor is '1'; expected a number from 0 to 100"),
        ({"asa": 0, "asa_factor": "1"}, "asa_factor is '1'; expected a number from 0 to 100"),
        ({"asa_alpha": 1}, "the request has ['asa_alpha']; asa_adapter knows 'asa' and 'asa_factor'"),
    ],
)
def test_a_request_that_means_nothing_is_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        steering_factor(extra)
    assert message in str(error.value)


# Which rows end a prompt


def test_prompt_ends_of_whole_prompts_decodes_and_chunks() -> None:
    # a whole prompt of 5; a decode; a first chunk; a last chunk of 2 out of 9; the recomputation of a prompt of 3 and
    # its answer of 2; a prompt of which all but one token came from the cache
    starts, counts, lengths = array(0, 7, 0, 7, 0, 5), array(5, 1, 4, 2, 5, 1), array(5, 7, 9, 9, 3, 6)
    met, rows = prompt_ends(starts, counts, lengths)
    assert met.tolist() == [0, 3, 4, 5]
    assert rows.tolist() == [4, 11, 14, 17]


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 6), st.lists(st.integers(1, 5), max_size=12)),
        min_size=1,
        max_size=6,
    )
)
def test_however_prompts_are_cut_each_end_is_met_once(requests: list[tuple[int, int, list[int]]]) -> None:
    """Each request computes its prompt and answer in pieces, from behind what a cache holds (not the last token)."""
    lengths = [length for length, _, _ in requests]
    at = [min(cached, length - 1) for length, cached, _ in requests]
    pieces = [[*cuts, 100] for _, _, cuts in requests]
    seen: list[int] = []
    for step in range(max(map(len, pieces))):
        running = [i for i in range(len(requests)) if step < len(pieces[i])]
        counts = [pieces[i][step] for i in running]
        laid = [(i, at[i] + k) for i, n in zip(running, counts, strict=True) for k in range(n)]
        met, rows = prompt_ends(
            array(*(at[i] for i in running)), array(*counts), array(*(lengths[i] for i in running))
        )
        assert [laid[row] for row in rows] == [(running[m], lengths[running[m]] - 1) for m in met]
        seen += [running[m] for m in met]
        for i, n in zip(running, counts, strict=True):
            at[i] += n
    assert sorted(seen) == list(range(len(requests)))


# Names of cache blocks


def test_only_the_block_with_the_steered_token_gets_a_key() -> None:
    request = SimpleNamespace(num_prompt_tokens=6, sampling_params=sampling())
    keys = [steered_block_key(request, start, start + 4, "d") for start in (0, 4, 8)]
    assert keys == [None, ("asa", "d:1.0:1"), None]


def test_keys_tell_adapters_factors_and_places_apart() -> None:
    def key(digest: str, tokens: int, **extra: Any) -> Any:
        return steered_block_key(
            SimpleNamespace(num_prompt_tokens=tokens, sampling_params=sampling(**extra)), 0, 8, digest
        )

    keys = [key("a", 5), key("b", 5), key("a", 6), key("a", 5, asa_factor=0.5)]
    assert len(set(keys)) == len(keys) and None not in keys
    assert key("a", 5, asa=1) == key("a", 5, asa_factor=1) == key("a", 5)


def test_a_request_that_is_not_steered_has_no_key() -> None:
    for params in (sampling(asa=0), sampling(asa_factor=0), None):
        request = SimpleNamespace(num_prompt_tokens=6, sampling_params=params)
        assert steered_block_key(request, 4, 8, "d") is None


# The operation


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


def test_a_layer_that_did_not_run_as_planned_is_told() -> None:
    injection = Injection(controller(), slots=2, device=CPU)
    injection.check()
    injection.plan([0], [1.0])
    with pytest.raises(RuntimeError, match="ran 0 times and steered 0 prompts, where 1 were planned"):
        injection.check()


def test_an_engine_that_warmed_up_without_the_layer_is_told_before_the_first_request() -> None:
    injection = Injection(controller(), slots=2, device=CPU, warms_up=True)
    with pytest.raises(RuntimeError, match="the engine runs another graph than the one with the adapter"):
        injection.check()


def test_what_ran_as_planned_passes_and_is_not_counted_again() -> None:
    injection = Injection(controller(), slots=2, device=CPU, warms_up=True)
    injection.steer(torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))
    injection.check()
    injection.plan([0], [1.0])
    injection.steer(torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))
    injection.check()
    injection.ran.zero_()
    injection.check()
    assert injection.planned == 1


# The steered layer


class Layer(torch.nn.Module):
    """A decoder layer as vLLM has them."""

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> Any:
        return hidden_states * 2, residual + hidden_states


class SingleLayer(Layer):
    """One whose output is the stream itself."""

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> Any:
        return hidden_states + residual


@pytest.fixture
def forward_context(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The layers of vLLM's forward context."""
    found: dict[str, Any] = {}
    context = SimpleNamespace(no_compile_layers=found)
    fake(
        monkeypatch,
        "vllm.forward_context",
        get_forward_context=lambda: context,
        create_forward_context=lambda metadata, config: context,
        override_forward_context=contextlib.nullcontext,
    )
    return found


def test_a_steered_layer_puts_out_its_own_pair_with_the_planned_rows_steered(forward_context: dict[str, Any]) -> None:
    injection, layer = Injection(controller(), slots=2, device=CPU), Layer()
    forward_context[INJECTION] = injection
    plain = Layer()
    hidden, residual = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
    steer_layer(layer, injection)
    injection.plan([2], [1.0])
    expected = list(plain(hidden, residual))
    injection.steer(*expected)
    found = layer(hidden_states=hidden, residual=residual)
    assert isinstance(layer, Layer) and layer.asa is injection
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert torch.equal(found[0][:2], 2 * hidden[:2]) and not torch.equal(found[0][2], 2 * hidden[2])


def test_a_layer_that_puts_out_no_pair_is_refused() -> None:
    layer = SingleLayer()
    steer_layer(layer, Injection(controller(), slots=2, device=CPU))
    with pytest.raises(IncompatibleModelError, match="SingleLayer returns a Tensor; expected the pair"):
        layer(torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))


def test_a_layer_whose_forward_was_replaced_is_refused() -> None:
    layer = Layer()
    layer.__dict__["forward"] = lambda *args: args
    with pytest.raises(IncompatibleModelError, match="the forward pass of Layer was replaced"):
        steer_layer(layer, Injection(controller(), slots=2, device=CPU))


@pytest.mark.parametrize("slots", [1, 64])
def test_the_self_check_passes_and_leaves_no_trace(forward_context: dict[str, Any], slots: int) -> None:
    injection = forward_context[INJECTION] = Injection(controller(), slots=slots, device=CPU)
    self_check(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16)))
    assert (injection.ran.tolist(), injection.planned, injection.due.tolist()) == ([0, 0], 0, [1, 0])


def test_the_self_check_stops_an_operation_that_does_nothing(forward_context: dict[str, Any]) -> None:
    injection = Injection(controller(), slots=4, device=CPU)
    forward_context[INJECTION] = SimpleNamespace(steer=lambda hidden, residual: None)
    with pytest.raises(RuntimeError, match="did not steer exactly the rows it was told to"):
        self_check(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32)))


# The two runners


class Planned(Injection):
    """Keeps its plans."""

    def __init__(self) -> None:
        super().__init__(controller(), slots=8, device=CPU)
        self.plans: list[tuple[list[int], list[float]]] = []

    def plan(self, rows: Any, factors: Any) -> None:
        self.plans.append((list(rows), list(factors)))

    def check(self) -> None:
        """Nothing runs here."""


def test_a_step_is_planned_without_those_that_are_off() -> None:
    injection = Planned()
    plan_step(injection, array(0, 0, 4), array(3, 2, 1), array(3, 2, 4), lambda i: [0.0, 2.0, 1.0][i])
    assert injection.plans == [([4], [2.0])]


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    """A module of vLLM's with just what is given."""
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    if "." in name:
        parent, _, child = name.rpartition(".")
        monkeypatch.setattr(sys.modules.get(parent) or fake(monkeypatch, parent), child, module, raising=False)
    return module


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
                "c": SimpleNamespace(sampling_params=sampling(asa_factor=0.25)),
            }
            self.input_batch = SimpleNamespace(
                num_reqs=3,
                req_ids=["a", "b", "c"],
                num_computed_tokens_cpu=array(0, 8, 2, 0),
                num_prompt_tokens=array(3, 8, 7, 0),
            )

        def _model_forward(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs, len(injection.plans), len(cleared)

    fake(monkeypatch, "vllm.v1.worker.gpu_model_runner", GPUModelRunner=GPUModelRunner)
    hook_first_runner()
    hook_first_runner()
    assert GPUModelRunner()._model_forward(1, b=2) == ((1,), {"b": 2}, 1, 0)
    assert injection.plans == [([2, 8], [1.0, 0.25])]
    assert cleared == [1]


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
    state.add_request(2, SimpleNamespace(sampling_params=sampling(asa_factor=3)))
    batch = SimpleNamespace(
        num_reqs=2,
        idx_mapping_np=array(2, 5),
        num_computed_tokens_np=array(0, 0),
        query_start_loc_np=array(0, 4, 6, 6),
    )
    lengths = SimpleNamespace(prompt_len=SimpleNamespace(np=array(0, 0, 4, 0, 0, 2)))
    assert state.prepare_inputs(batch, lengths) == {"planned": 1}
    assert injection.plans == [([3], [3.0])]
    assert (state.model, state.added) == ("model", 2)
    injection._is_clear = False
    assert state.prepare_dummy_inputs(1, 9) == {"tokens": 9}
    assert injection._is_clear


# Refusals


@pytest.mark.parametrize("version", ["0.32.0", "0.32.4", "0.32.0+cpu", "0.32.1rc1"])
def test_tried_versions_pass(version: str) -> None:
    check_version(version)
    assert plugin.active() is None


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "1.0.0", "dev"])
def test_untried_versions_are_refused(version: str) -> None:
    with pytest.raises(RuntimeError) as error:
        check_version(version)
    assert str(error.value).startswith(f"this is vLLM {version}; asa_adapter steers 0.32 up to, but not, 0.33. ")


def test_an_architecture_that_was_not_tried_is_refused() -> None:
    assert architecture_of(fitted_adapter(model_type="qwen3").config) == "Qwen3ForCausalLM"
    for model_type in ("gpt2", None):
        with pytest.raises(
            IncompatibleModelError, match=f"a model of type {model_type!r}; in vLLM asa_adapter steers"
        ):
            architecture_of(fitted_adapter(model_type=model_type).config)


def engine_config(**changes: Any) -> SimpleNamespace:
    """What `check_engine` looks at of vLLM's configuration, as of an engine that can be steered."""
    values: dict[str, Any] = {
        "model_config.runner_type": "generate",
        "model_config.is_encoder_decoder": False,
        "model_config.is_multimodal_model": False,
        "model_config.enable_prompt_embeds": False,
        "model_config.architecture": "Lfm2ForCausalLM",
        "model_config.get_hidden_size": lambda: WIDTH,
        "model_config.get_total_num_hidden_layers": lambda: DEPTH,
        "model_config.hf_config": SimpleNamespace(_commit_hash=None),
        "model_config.model": "people/lfm2",
        "parallel_config.pipeline_parallel_size": 1,
        "parallel_config.data_parallel_size": 1,
        "parallel_config.prefill_context_parallel_size": 1,
        "parallel_config.decode_context_parallel_size": 1,
        "parallel_config.use_sequence_parallel_moe": False,
        "parallel_config.use_ubatching": False,
        "parallel_config.nnodes": 1,
        "parallel_config.distributed_executor_backend": "mp",
        "cache_config.kv_sharing_fast_prefill": False,
        "offload_config.uva": SimpleNamespace(cpu_offload_gb=0),
        "offload_config.prefetch": SimpleNamespace(offload_group_size=0),
        "kv_transfer_config": None,
        "ec_transfer_config": None,
        "lora_config": None,
        "diffusion_config": None,
        "speculative_config": None,
        "additional_config": {},
        **changes,
    }
    config = SimpleNamespace()
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        if section and not hasattr(config, section):
            setattr(config, section, SimpleNamespace())
        setattr(getattr(config, section) if section else config, name, value)
    return config


def lfm2_adapter(**changes: Any) -> ASAAdapter:
    return fitted_adapter(model_type="lfm2", base_model="people/lfm2", **changes)


@pytest.mark.parametrize("method", [None, "ngram"])
def test_a_usual_engine_passes(method: str | None) -> None:
    speculation = method and SimpleNamespace(method=method)
    vllm_config = engine_config(speculative_config=speculation)
    check_engine(vllm_config, lfm2_adapter().config, "Lfm2ForCausalLM")
    assert vllm_config.additional_config == {}


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("model_config.runner_type", "pooling", "not tried with pooling models"),
        ("model_config.is_encoder_decoder", True, "not tried with encoder-decoder models"),
        ("model_config.is_multimodal_model", True, "not tried with multimodal models"),
        ("model_config.enable_prompt_embeds", True, "not tried with prompt embeddings"),
        ("parallel_config.pipeline_parallel_size", 2, "not tried with pipeline parallelism"),
        ("parallel_config.data_parallel_size", 2, "not tried with data parallelism"),
        ("parallel_config.prefill_context_parallel_size", 2, "not tried with prefill context parallelism"),
        ("parallel_config.decode_context_parallel_size", 2, "not tried with decode context parallelism"),
        ("parallel_config.use_sequence_parallel_moe", True, "not tried with sequence parallelism"),
        ("parallel_config.use_ubatching", True, "not tried with dual batch overlap"),
        ("parallel_config.nnodes", 2, "not tried with several nodes"),
        ("parallel_config.distributed_executor_backend", "ray", "not tried with executors other than 'mp' and 'uni'"),
        ("cache_config.kv_sharing_fast_prefill", True, "not tried with --kv-sharing-fast-prefill"),
        ("kv_transfer_config", object(), "not tried with KV connectors"),
        ("ec_transfer_config", object(), "not tried with encoder-cache connectors"),
        ("offload_config.uva", SimpleNamespace(cpu_offload_gb=1), "not tried with weights offloaded"),
        ("offload_config.prefetch", SimpleNamespace(offload_group_size=1), "not tried with weights offloaded"),
        ("lora_config", object(), "not tried with LoRA"),
        ("diffusion_config", object(), "not tried with diffusion decoding"),
        ("speculative_config", SimpleNamespace(method="eagle"), "speculative decoding other than 'ngram'"),
        (
            "model_config.architecture",
            "Qwen3ForCausalLM",
            "architecture is 'Qwen3ForCausalLM', but the adapter was fitted",
        ),
        (
            "model_config.get_hidden_size",
            lambda: 8,
            f"hidden size is 8, but the adapter was fitted for {WIDTH} (people/lfm2)",
        ),
        ("model_config.get_total_num_hidden_layers", lambda: 9, "number of decoder blocks is 9, but the adapter was"),
        (
            "model_config.model",
            "people/other",
            "the model is 'people/other', but the adapter was fitted for 'people/lfm2'",
        ),
        (
            "model_config.hf_config",
            SimpleNamespace(_commit_hash="b"),
            "the model is at revision b, but the adapter was",
        ),
    ],
)
def test_what_was_not_tried_is_refused(setting: str, value: Any, reason: str) -> None:
    config = lfm2_adapter(base_model_revision="a").config
    with pytest.raises(IncompatibleModelError) as error:
        check_engine(engine_config(**{setting: value}), config, "Lfm2ForCausalLM")
    assert reason in str(error.value)
    assert str(error.value).endswith("Change this, or unset ASA_ADAPTER to serve the bare model")


def test_the_rust_front_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(IncompatibleModelError, match=r"not tried with the Rust front end \(VLLM_USE_RUST_FRONTEND\)"):
        check_engine(engine_config(), lfm2_adapter().config, "Lfm2ForCausalLM")


def test_all_reasons_are_told_at_once() -> None:
    vllm_config = engine_config(lora_config=object(), **{"parallel_config.nnodes": 2})
    with pytest.raises(IncompatibleModelError, match=r"several nodes; asa_adapter was not tried with LoRA"):
        check_engine(vllm_config, lfm2_adapter().config, "Lfm2ForCausalLM")


# vLLM's block hashes with the keys


class HashedRequest:
    """A request of vLLM's whose blocks are hashed as they fill."""

    def __init__(
        self,
        name: str,
        tokens: list[int],
        sampling_params: Any,
        pooling_params: Any,
        block_hasher: Callable[[Any], Any],
    ) -> None:
        self.num_prompt_tokens, self.tokens, self.sampling_params = len(tokens), list(tokens), sampling_params
        self._hasher = block_hasher

    def append_output_token_ids(self, tokens: list[int]) -> None:
        self.tokens += tokens

    @property
    def block_hashes(self) -> list[Any]:
        return self._hasher(self)


def fake_block_hashes(monkeypatch: pytest.MonkeyPatch, reads_keys: bool = True) -> tuple[ModuleType, ModuleType]:
    """vLLM's two modules that name blocks, by chained hashes."""

    def own_keys(request: Any, start: int, end: int, start_mm_idx: int) -> Any:
        return (("image",) if start == 0 else None), start_mm_idx

    def hasher(size: int, hash_function: Callable[[Any], bytes]) -> Callable[[Any], list[bytes]]:
        def hashes(request: Any) -> list[bytes]:
            found = [b""]
            for start in range(0, len(request.tokens), size):
                function = utils.generate_block_hash_extra_keys if reads_keys else own_keys
                keys, _ = function(request, start, start + size, 0)
                found.append(hash_function((found[-1], request.tokens[start : start + size], keys)))
            return found[1:]

        return hashes

    name = "vllm.v1.core.kv_cache_utils"
    utils = fake(monkeypatch, name, generate_block_hash_extra_keys=own_keys, get_request_block_hasher=hasher)
    vars(utils)["init_none_hash"] = lambda function: setattr(utils, "NONE_HASH", function(0))
    pool = fake(monkeypatch, "vllm.v1.core.block_pool", generate_block_hash_extra_keys=own_keys)
    fake(monkeypatch, "vllm.v1.request", Request=HashedRequest)
    fake(monkeypatch, "vllm.sampling_params", SamplingParams=lambda max_tokens, extra_args: sampling(**extra_args))
    return utils, pool


def test_vllm_names_a_steered_block_by_its_own_keys_and_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = fake_block_hashes(monkeypatch)
    install_block_keys("d")
    request = SimpleNamespace(num_prompt_tokens=6, sampling_params=sampling())
    for module in modules:
        assert module.generate_block_hash_extra_keys(request, 0, 8, 3) == (("image", ("asa", "d:1.0:5")), 3)
        assert module.generate_block_hash_extra_keys(request, 4, 8, 3) == ((("asa", "d:1.0:1"),), 3)
        assert module.generate_block_hash_extra_keys(request, 0, 4, 3) == (("image",), 3)


def test_block_hashes_that_do_not_read_the_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_block_hashes(monkeypatch, reads_keys=False)
    with pytest.raises(
        RuntimeError, match=r"without steering are alike in \[True, True, True\]; expected \[True, False"
    ):
        install_block_keys("d")


def test_a_block_pool_with_another_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool = fake_block_hashes(monkeypatch)
    monkeypatch.setattr(pool, "generate_block_hash_extra_keys", lambda *args: (None, 0))
    with pytest.raises(RuntimeError, match="vllm.v1.core.block_pool has another generate_block_hash_extra_keys than"):
        install_block_keys("d")


# The steered model


class Lfm2ForCausalLM(torch.nn.Module):
    """As vLLM's, as far as it is looked at."""

    def __init__(self, *, vllm_config: Any, prefix: str) -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList(Layer() for _ in range(vllm_config.depth))
        self.head = torch.nn.Linear(1, 1)

    def load_weights(self, weights: Any) -> set[str]:
        return {name for name, _ in weights}


@pytest.fixture
def steered_class(monkeypatch: pytest.MonkeyPatch, forward_context: dict[str, Any]) -> type[Any]:
    """The class that vLLM finds where it looks for the architecture of the adapter, whose digest is "d"."""
    module = "vllm.model_executor.models.lfm2"
    fake(monkeypatch, module, Lfm2ForCausalLM=Lfm2ForCausalLM)
    fake(monkeypatch, "vllm.config", CompilationMode=SimpleNamespace(NONE=0))
    served = random_model("lfm2")
    adapter = lfm2_adapter(base_model_fingerprint=model_fingerprint(served))
    monkeypatch.setattr(plugin, "_active", plugin.Plugin(adapter, "d", "Lfm2ForCausalLM", module))
    models._steered_class.cache_clear()
    return models.Lfm2ForCausalLM


def built(steered: type[Any], context: dict[str, Any], digest: str = "d", depth: int = DEPTH) -> Any:
    """A steered model, built as vLLM does."""
    vllm_config = engine_config(additional_config={"asa_adapter": digest}, depth=depth, use_v2_model_runner=True)
    vllm_config.compilation_config = SimpleNamespace(mode=0, static_forward_context=context)
    vllm_config.scheduler_config = SimpleNamespace(max_num_seqs=4)
    vllm_config.model_config.dtype = torch.float32
    vllm_config.model_config.hf_config = random_model("lfm2").config
    return steered(vllm_config=vllm_config, prefix="")


def test_the_models_one_layer_is_steered_as_it_is_built(
    steered_class: type[Any], forward_context: dict[str, Any]
) -> None:
    model = built(steered_class, forward_context)
    assert isinstance(model, Lfm2ForCausalLM) and type(model).__name__ == "Lfm2ForCausalLM"
    assert [type(layer).__name__ for layer in model.model.layers] == ["Layer", "Layer", "SteeredLayer", "Layer"]
    assert model.model.layers[2].asa is forward_context[INJECTION]
    assert forward_context[INJECTION].slots == 4


def test_a_process_with_another_adapter_than_the_engines_is_refused(
    steered_class: type[Any], forward_context: dict[str, Any]
) -> None:
    with pytest.raises(IncompatibleModelError, match="configured for the adapter 'e', but this process loaded 'd'"):
        built(steered_class, forward_context, digest="e")


def test_a_model_of_another_depth_is_refused(steered_class: type[Any], forward_context: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleModelError, match=f"has 3 decoder blocks, but the adapter was fitted for {DEPTH}"):
        built(steered_class, forward_context, depth=3)


def test_a_process_without_the_plug_in_is_told(
    steered_class: type[Any], forward_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "_active", None)
    with pytest.raises(RuntimeError, match="did not load asa_adapter's plug-in in this process; is ASA_ADAPTER set"):
        built(steered_class, forward_context)
    with pytest.raises(AttributeError, match="has no attribute 'Lfm2ForCausalLM'"):
        getattr(models, "Lfm2ForCausalLM")  # noqa: B009


def test_the_steered_model_takes_the_adapters_weights_and_no_others(
    steered_class: type[Any], forward_context: dict[str, Any]
) -> None:
    model = built(steered_class, forward_context)
    own = random_model("lfm2").state_dict()
    assert model.load_weights(own.items()) == set(own)
    with pytest.raises(IncompatibleModelError, match="are not those the adapter was fitted for"):
        model.load_weights(random_model("lfm2", seed=1).state_dict().items())


def test_the_models_own_state_class_plans_for_the_second_runner(
    steered_class: type[Any], forward_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own:
        """vLLM's for this model."""

    asked: list[Any] = []
    fake(
        monkeypatch,
        "vllm.v1.worker.gpu.model_states",
        resolve_model_state_cls=lambda config, inner: asked.append(inner) or Own,
    )
    model = built(steered_class, forward_context)
    state = model.get_model_state_cls()
    assert issubclass(state, Own) and state.__name__ == "SteeredModelState"
    assert asked == [model.model]


# The weights that pass by


def passed(model: Any, stored: str | None, leave_out: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Names of the weights that came through, with the check behind them."""
    watched = WatchedWeights(model.config, stored)
    kept = [(name, weight) for name, weight in model.state_dict().items() if not leave_out(name)]
    names = [name for name, _ in watched.passing(kept)]
    watched.check()
    return names


def test_the_weights_that_the_adapter_was_fitted_for_pass() -> None:
    model = random_model("qwen3")
    assert passed(model, model_fingerprint(model)) == list(model.state_dict())


def test_other_weights_are_refused() -> None:
    with pytest.raises(IncompatibleModelError, match="are not those the adapter was fitted for"):
        passed(random_model("qwen3", seed=1), model_fingerprint(random_model("qwen3")))


def test_weights_without_a_fingerprint_are_not_looked_at() -> None:
    model = random_model("qwen3")
    assert passed(model, None) == list(model.state_dict())


def test_quantised_matrices_are_left_out_of_the_comparison() -> None:
    model, other = random_model("qwen3"), random_model("qwen3", seed=1)
    assert passed(model, model_fingerprint(model), lambda name: "proj" in name)
    with pytest.raises(IncompatibleModelError, match="are not those the adapter was fitted for"):
        passed(other, model_fingerprint(model), lambda name: "proj" in name)


# Installing


class ValidationError(Exception):
    """As vLLM's."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)


class BeamSearchParams:
    """As vLLM's."""


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """As much of vLLM as the plug-in changes, and an adapter at the last layer, which needs no keys."""

    class EngineArgs:
        def create_engine_config(self, **changes: Any) -> Any:
            return engine_config(**changes)

    class InputProcessor:
        def process_inputs(self, request_id: str, prompt: Any, params: Any, resumable: bool = False) -> Any:
            return SimpleNamespace(request_id=request_id, resumable=resumable)

        def resolve_watermarking(self, params: Any) -> bool:
            return True

    own = SimpleNamespace(module_name="vllm.model_executor.models.lfm2")
    registered: dict[str, str] = {}
    registry = SimpleNamespace(models={"Lfm2ForCausalLM": own}, register_model=registered.__setitem__)
    fake(monkeypatch, "vllm", ModelRegistry=registry)
    fake(monkeypatch, "vllm.version", __version__="0.32.0")
    fake(monkeypatch, "vllm.engine.arg_utils", EngineArgs=EngineArgs)
    fake(monkeypatch, "vllm.exceptions", VLLMValidationError=ValidationError)
    fake(monkeypatch, "vllm.sampling_params", BeamSearchParams=BeamSearchParams)
    fake(monkeypatch, "vllm.v1.engine.input_processor", InputProcessor=InputProcessor)
    monkeypatch.setattr(plugin, "_active", None)
    monkeypatch.setenv("ASA_ADAPTER", str(lfm2_adapter(layer=DEPTH - 1).save_pretrained(tmp_path / "adapter")))
    monkeypatch.setenv("ASA_ADAPTER_REVISION", "")
    return SimpleNamespace(args=EngineArgs, processor=InputProcessor, registered=registered)


def test_installing_registers_the_steered_architecture_and_marks_the_configuration(vllm: SimpleNamespace) -> None:
    plugin.install()
    active = plugin.active()
    assert active is not None and active.module == "vllm.model_executor.models.lfm2"
    assert vllm.registered == {"Lfm2ForCausalLM": "asa_adapter.vllm.models:Lfm2ForCausalLM"}
    assert vllm.args().create_engine_config().additional_config == {"asa_adapter": active.adapter.digest()}


def test_installing_twice_changes_nothing(vllm: SimpleNamespace) -> None:
    plugin.install()
    before = (plugin.active(), vllm.args.create_engine_config, vllm.processor.process_inputs)
    plugin.install()
    assert (plugin.active(), vllm.args.create_engine_config, vllm.processor.process_inputs) == before


def test_an_engine_that_cannot_be_steered_is_refused_where_it_is_configured(vllm: SimpleNamespace) -> None:
    plugin.install()
    with pytest.raises(IncompatibleModelError, match="not tried with LoRA"):
        vllm.args().create_engine_config(lora_config=object())


def test_requests_are_checked_where_they_come_in(vllm: SimpleNamespace) -> None:
    plugin.install()
    processor = vllm.processor()
    assert processor.process_inputs("a", [1], sampling(asa=0)).request_id == "a"
    with pytest.raises(ValidationError, match="asa is 7; expected 0"):
        processor.process_inputs("a", [1], sampling(asa=7))
    with pytest.raises(ValidationError, match="no streaming input"):
        processor.process_inputs("a", [1], sampling(), resumable=True)


def test_beam_search_is_refused(vllm: SimpleNamespace) -> None:
    plugin.install()
    assert vllm.processor().resolve_watermarking(sampling()) is True
    with pytest.raises(ValidationError, match="no beam search"):
        vllm.processor().resolve_watermarking(BeamSearchParams())


def test_an_untried_vllm_stops_before_anything_is_changed(
    vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["vllm.version"], "__version__", "0.99.0")
    with pytest.raises(RuntimeError, match="this is vLLM 0.99.0"):
        plugin.install()
    assert vllm.registered == {} and plugin.active() is None


def test_a_missing_adapter_stops_the_engine(vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASA_ADAPTER", "/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="no adapter folder at /nowhere/at/all"):
        plugin.install()
    assert vllm.registered == {} and plugin.active() is None


ENTRY = Path(asa_adapter.__file__).parent / "vllm" / "entry.py"


def run_entry(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Calls the entry point as vLLM does, in a process of its own, and names what of ours and vLLM's it imported."""
    (tmp_path / "asa_adapter_vllm.py").write_text(ENTRY.read_text())
    code = (
        "import sys, asa_adapter_vllm; asa_adapter_vllm.register()\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'asa_adapter', 'torch', 'vllm'}))"
    )
    path = f"{tmp_path}:{ENTRY.parents[2]}"
    return subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize("environment", [{}, {"ASA_ADAPTER": ""}])
def test_without_an_adapter_nothing_is_imported(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run_entry(tmp_path, **environment).stdout == "[]\n"


def test_with_an_adapter_whatever_is_wrong_is_raised(tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text("raise ImportError('a broken vLLM')")
    done = run_entry(tmp_path, ASA_ADAPTER="somewhere")
    assert done.returncode == 1 and "a broken vLLM" in done.stderr
