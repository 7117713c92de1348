"""Models and settings that are refused."""

from types import SimpleNamespace
from typing import Any

import pytest
from engines import engine_config, lfm2_adapter
from models import WIDTH, fitted_adapter

from asa_adapter import IncompatibleModelError
from asa_adapter.vllm.refusals import architecture_of, check_engine, registered_class


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [("qwen3", "Qwen3ForCausalLM"), ("gpt2", "GPT2LMHeadModel"), ("gemma3_text", "Gemma3ForCausalLM")],
)
def test_the_architecture_is_the_class_that_transformers_names(model_type: str, architecture: str) -> None:
    assert architecture_of(fitted_adapter(model_type=model_type).config) == architecture


@pytest.mark.parametrize("model_type", ["made_up", None])
def test_a_type_that_transformers_does_not_know_is_refused(model_type: str | None) -> None:
    config = fitted_adapter(model_type=model_type).config
    with pytest.raises(IncompatibleModelError, match=f"is for a model of type {model_type!r}, which transformers "):
        architecture_of(config)


def test_an_architecture_is_what_vllm_registered_itself() -> None:
    own = SimpleNamespace(module_name="vllm.models.a", class_name="A")
    assert registered_class({"A": own}, "A") is own
    with pytest.raises(IncompatibleModelError, match="this vLLM does not know the architecture 'B'"):
        registered_class({"A": own}, "B")
    with pytest.raises(IncompatibleModelError, match="this vLLM was given another class for the architecture 'A'"):
        registered_class({"A": object()}, "A")


@pytest.mark.parametrize("action", ["bias", "both"])
def test_an_adapter_that_biases_logits_is_refused(action: str) -> None:
    config = lfm2_adapter(action=action, bias=2.0, opening_ids=(7,)).config
    with pytest.raises(
        IncompatibleModelError, match=rf"the adapter's action is '{action}'.* Serve it with transformers"
    ):
        architecture_of(config)


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
