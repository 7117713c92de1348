"""Models inside torch.compile(), PEFT and accelerate."""

import copy
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
from models import greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.steering.hook import is_steered

# PEFT 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def test_a_compiled_forward_gives_the_same_tokens_without_a_graph_break(lfm2: Any, adapter: ASAAdapter) -> None:
    torch._dynamo.reset()
    with adapter.attach(lfm2):
        steered = greedy(lfm2, prompts())
        lfm2.forward = torch.compile(lfm2.forward, backend="eager", fullgraph=True)
        try:
            assert torch.equal(greedy(lfm2, prompts()), steered)
        finally:
            del lfm2.forward
            torch._dynamo.reset()


def test_a_compiled_wrapper_of_the_model_is_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    with adapter.attach(lfm2):
        steered = greedy(lfm2, ids)
    compiled = torch.compile(lfm2, backend="eager")
    base = greedy(compiled, ids)
    with adapter.attach(compiled):
        assert torch.equal(greedy(compiled, ids), steered)
    assert torch.equal(greedy(compiled, ids), base)
    assert traces(lfm2) == []


def test_a_model_that_passes_the_block_by_is_not_silently_unsteered(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2):
        lfm2.model.layers[2] = copy.deepcopy(lfm2.model.layers[2])
        with pytest.warns(RuntimeWarning, match=r"ran without being steered.*torch.compiler.reset"):
            greedy(lfm2, prompts())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["forward", "compile()", "block"])
def test_a_model_compiled_before_attach_is_steered_all_the_same(lfm2: Any, adapter: ASAAdapter, way: str) -> None:
    ids = prompts()
    with adapter.attach(lfm2):
        steered = greedy(lfm2, ids)
    base = greedy(lfm2, ids)
    torch._dynamo.reset()
    try:
        if way == "forward":
            lfm2.forward = torch.compile(lfm2.forward, backend="eager")
        elif way == "compile()":
            lfm2.compile(backend="eager")
        else:
            lfm2.model.layers[2] = torch.compile(lfm2.model.layers[2], backend="eager")
        assert torch.equal(greedy(lfm2, ids), base)
        with adapter.attach(lfm2) as steering:
            assert torch.equal(greedy(lfm2, ids), steered)
            assert len(steering.decisions) == 3
        assert torch.equal(greedy(lfm2, ids), base)
    finally:
        torch._dynamo.reset()


@pytest.fixture
def lora() -> Any:
    """A PeftModel whose LoRA weights say something."""
    torch.manual_seed(5)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "in_proj"], init_lora_weights=False)
    return peft.get_peft_model(random_model("lfm2"), config, autocast_adapter_dtype=False).eval()


@pytest.mark.parametrize("place", ["the PeftModel", "its base"])
def test_a_peft_model_is_steered_wherever_the_adapter_is_attached(lora: Any, adapter: ASAAdapter, place: str) -> None:
    ids = prompts()
    base = greedy(lora, ids)
    with adapter.attach(lora if place == "the PeftModel" else lora.get_base_model()) as steering:
        steered = greedy(lora, ids)
        assert [(d.position, d.applied) for d in steering.decisions] == [(8, True)] * 3
        assert is_steered(lora)
        with lora.disable_adapter():
            assert not torch.equal(greedy(lora, ids), steered)
            assert len(steering.decisions) == 3
    assert not torch.equal(steered, base)
    assert torch.equal(greedy(lora, ids), base)
    assert traces(lora) == []
    assert not is_steered(lora)


def test_a_peft_model_made_of_a_steered_model_is_steered(adapter: ASAAdapter) -> None:
    ids, model = prompts(), random_model("lfm2")
    with adapter.attach(model):
        steered = greedy(model, ids)
        config = peft.LoraConfig(r=4, target_modules=["q_proj"])  # fresh LoRA weights change nothing
        lora = peft.get_peft_model(model, config)
        assert torch.equal(greedy(lora, ids), steered)
    assert traces(lora) == []


def test_learnt_prompts_are_refused(adapter: ASAAdapter) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(random_model("llama"), config)
    with pytest.raises(
        IncompatibleModelError, match="learnt tokens before the prompt, so the last prompt token moves"
    ):
        adapter.attach(model)
    assert traces(model) == []


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("offload", ["cpu", "disk", "device_map"])
def test_an_offloaded_model_is_steered(adapter: ASAAdapter, tmp_path: Path, offload: str, order: str) -> None:
    ids = prompts()
    model = random_model("lfm2")
    base = greedy(model, ids)
    with adapter.attach(model):
        steered = greedy(model, ids)

    def offloaded() -> None:
        if offload == "cpu":
            accelerate.cpu_offload(model, execution_device="cpu")
        elif offload == "disk":
            accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
        else:
            places = {f"model.layers.{i}": "cpu" if i % 2 else "disk" for i in range(4)}
            places |= {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.embedding_norm": "cpu"}
            places |= {"model.rotary_emb": "cpu"}
            accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)

    if order == "after":
        offloaded()
    with adapter.attach(model) as steering:
        if order == "before":
            offloaded()
        assert torch.equal(greedy(model, ids), steered)
        assert len(steering.decisions) == 3
    assert torch.equal(greedy(model, ids), base)
    assert traces(model) == []
