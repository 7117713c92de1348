"""What attach() says of LoRA, quantised weights and wrappers."""

import warnings
from collections.abc import Callable
from typing import Any

import accelerate
import peft
import pytest
import torch
from models import fitted_adapter, random_model

from asa_adapter import ASATrainer, IncompatibleModelError, ToolCallParser
from asa_adapter.diagnostics import diagnose
from asa_adapter.modeling.fingerprint import model_fingerprint, same_fingerprint
from asa_adapter.modeling.residual_stream import generating_model
from asa_adapter.states import collect_hidden_states

# PEFT asks transformers 5.23 by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TARGETS = ["q_proj", "down_proj"]
OLD = "float32:0eb8e77f0de3508c:0165149ca8c222e5"  # a sample of the tiny Llama's weights, as it was written before


def tuned(config: Any) -> Any:
    return peft.get_peft_model(random_model("llama"), config, autocast_adapter_dtype=False).eval()


def lora(**settings: Any) -> Any:
    return tuned(peft.LoraConfig(r=2, target_modules=TARGETS, **settings))


def fingerprint(model: Any, like: str | None = None) -> str | None:
    return model_fingerprint(generating_model(model), like=like)


UNCHANGED: dict[str, Callable[[], Any]] = {
    "fresh LoRA": lora,
    "fresh DoRA": lambda: lora(use_dora=True),
    "LoRA on embeddings": lambda: tuned(peft.LoraConfig(r=2, target_modules=["embed_tokens", "v_proj"])),
    "fresh IA3": lambda: tuned(peft.IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"])),
    "fresh VeRA": lambda: tuned(peft.VeraConfig(r=2, target_modules=["q_proj"])),
    "fresh LoHa": lambda: tuned(peft.LoHaConfig(r=2, target_modules=TARGETS)),
    "modules to save": lambda: lora(modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("name", UNCHANGED)
@pytest.mark.parametrize("stored", [None, OLD])
def test_peft_that_changes_nothing_is_the_same_model(name: str, stored: str | None) -> None:
    stored = stored or model_fingerprint(random_model("llama"))
    assert same_fingerprint(stored, fingerprint(UNCHANGED[name](), stored))[0] is True


def test_a_marker_that_training_took_is_taken_by_attach(tiny_lfm2: Any) -> None:
    """It was named by hand, and stands in neither vocabulary nor template: what tells is how calls begin."""
    tokenizer = tiny_lfm2[1]
    named = {"tool_call_format": "hermes", "tool_call_start": "<act>", "tool_call_end": "</act>"}
    openings = ToolCallParser.from_tokenizer(tokenizer, "hermes", start="<act>", end="</act>").opening_ids(tokenizer)
    model = random_model("llama")
    with fitted_adapter(**named, opening_ids=openings).attach(model, tokenizer=tokenizer):
        pass
    for other in ((), (5,)):
        with pytest.raises(IncompatibleModelError, match="nor chat template has the tool-call marker '<act>'"):
            fitted_adapter(**named, opening_ids=other).attach(model, tokenizer=tokenizer)


def test_lora_that_changes_something_is_refused_by_name() -> None:
    adapter = fitted_adapter(base_model_fingerprint=model_fingerprint(random_model("llama")))
    model = lora(init_lora_weights=False)
    with pytest.raises(IncompatibleModelError, match=r"the LoRA adapter 'default' changes the weights"):
        adapter.attach(model)
    with model.disable_adapter():
        adapter.attach(model).remove()
    model.merge_adapter()
    with pytest.raises(IncompatibleModelError, match=r"the LoRA adapter 'default' changes the weights"):
        adapter.attach(model)
    model.unmerge_adapter()


def test_of_several_adapters_the_active_one_counts() -> None:
    adapter = fitted_adapter(base_model_fingerprint=model_fingerprint(random_model("llama")))
    model = lora()
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False))
    adapter.attach(model).remove()
    model.set_adapter("other")
    with pytest.raises(IncompatibleModelError, match=r"the LoRA adapter 'other' changes the weights"):
        adapter.attach(model)


def test_a_scale_of_zero_changes_nothing() -> None:
    model = lora(init_lora_weights=False)
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] = 0.0
    assert fingerprint(model) == model_fingerprint(random_model("llama"))


def test_an_adapter_fitted_with_lora_fits_that_lora_only() -> None:
    model = lora(init_lora_weights=False)
    stored = fingerprint(model)
    assert stored != model_fingerprint(random_model("llama"))
    assert fingerprint(model) == stored
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name)[0, 0] += 1
    assert same_fingerprint(stored, fingerprint(model, stored))[0] is False


def test_a_trained_copy_of_the_head_is_another_model() -> None:
    model = lora(modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight[5] += 1
    adapter = fitted_adapter(base_model_fingerprint=model_fingerprint(random_model("llama")))
    with pytest.raises(IncompatibleModelError, match=r"the LoRA adapter 'default' changes the weights"):
        adapter.attach(model)


# --- quantised weights

WORDS = r"the weights are quantised \(packed\): an adapter fitted on the full model reads other states here; fit and"


def packed(**config: Any) -> Any:
    model = random_model("llama")
    model.config.quantization_config = config
    return model


def test_quantised_weights_are_told_once_at_attach() -> None:
    adapter = fitted_adapter(base_model_fingerprint=model_fingerprint(random_model("llama")))
    with pytest.warns(UserWarning, match=WORDS) as told:
        adapter.attach(packed(quant_method="bitsandbytes")).remove()
    assert len(told) == 1


def test_an_adapter_fitted_on_these_packed_weights_says_nothing() -> None:
    model = packed(quant_method="bitsandbytes")
    fitted_adapter(base_model_fingerprint=model_fingerprint(model)).attach(model).remove()
    sampled = (model_fingerprint(model, like=OLD) or "").rpartition(":")[0] + ":-"
    fitted_adapter(base_model_fingerprint=sampled).attach(model).remove()


@pytest.mark.parametrize("config", [{"quant_method": "gguf"}, {"quant_method": "mxfp4", "dequantize": True}])
def test_weights_that_were_unpacked_on_loading_are_plain(config: dict[str, Any]) -> None:
    model = packed(**config)
    plain = model_fingerprint(random_model("llama"))
    assert model_fingerprint(model) == plain
    fitted_adapter(base_model_fingerprint=plain).attach(model).remove()


# --- wrappers


def wrapped(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nn.DataParallel(model)


def test_a_wrapper_is_refused_with_what_to_pass(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = wrapped(tiny_lfm2[0]), tiny_lfm2[1]
    adapter, told = fitted_adapter(), pytest.raises(IncompatibleModelError, match=r"DataParallel .*pass model\.module")
    with told:
        adapter.attach(model)
    with told:
        adapter.generate(model, input_ids=torch.ones(1, 3, dtype=torch.long))
    with told:
        adapter.explain(model, tokenizer, "Hello.")
    with told:
        diagnose(model, tokenizer)
    with told:
        ASATrainer(model, tokenizer, splits)
    with told:
        collect_hidden_states(model, tokenizer, list(splits["train"])[:2])


def test_a_model_that_accelerate_prepared_is_steered() -> None:
    prepared = accelerate.Accelerator(cpu=True).prepare(random_model())
    fitted_adapter().attach(prepared).remove()
