import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkout import TINY_LFM2
from models import FAMILIES, fitted_adapter, random_model, traces

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, IncompatibleModelError
from asa_adapter.modeling import fingerprint
from asa_adapter.modeling.fingerprint import model_fingerprint, same_fingerprint
from asa_adapter.modeling.weight_digests import model_digest, weight_digest


def same(one: Any, other: Any) -> bool | None:
    return same_fingerprint(model_fingerprint(one), model_fingerprint(other))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_same_for_the_same_weights_and_another_for_others(family: str) -> None:
    assert model_fingerprint(random_model(family)) == model_fingerprint(random_model(family))
    assert same(random_model(family, seed=0), random_model(family, seed=1)) is False


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_and_float32_of_the_same_weights_agree(family: str) -> None:
    assert same(random_model(family), random_model(family).to(torch.bfloat16)) is True


def test_a_checkpoint_agrees_in_every_precision_it_is_loaded_in() -> None:
    loaded = {
        dtype: transformers.AutoModelForCausalLM.from_pretrained(TINY_LFM2, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16, torch.float64)
    }
    assert same(loaded[torch.float32], loaded[torch.bfloat16]) is True
    assert same(loaded[torch.float32], loaded[torch.float64]) is True


def test_a_bfloat16_checkpoint_agrees_in_float16() -> None:
    model = random_model().to(torch.bfloat16)
    assert same(model, copy.deepcopy(model).to(torch.float16)) is True


def test_other_weights_in_float16_cannot_be_told() -> None:
    found = model_fingerprint(random_model(seed=1).to(torch.float16))
    assert same_fingerprint(model_fingerprint(random_model()), found) == (
        None,
        "one of the models is in float16, which rounds otherwise: their fingerprints cannot be compared",
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.3.self_attn.q_proj.weight",
    ],
)
def test_training_on_changes_it(name: str) -> None:
    tuned = random_model("llama")
    with torch.no_grad():
        tuned.get_parameter(name).mul_(1.02)
    assert same(random_model("llama"), tuned) is False


def test_quantised_matrices_are_left_out() -> None:
    quantised = random_model("llama")
    for module in list(quantised.model.layers.modules()):
        if isinstance(module, torch.nn.Linear):
            packed = torch.nn.Parameter(module.weight.data.to(torch.int8), requires_grad=False)
            module.weight = packed
    found = model_fingerprint(quantised)
    assert found is not None
    assert ":packed-" in found
    assert same_fingerprint(model_fingerprint(random_model("llama")), found)[0] is True
    assert same_fingerprint(model_fingerprint(random_model("llama", seed=1)), found)[0] is False


def test_a_model_that_says_it_is_quantised_is_believed() -> None:
    model = random_model()
    model.config.quantization_config = {"quant_method": "some"}
    assert ":packed-" in (model_fingerprint(model) or "")


def test_weights_that_are_not_there_are_skipped_with_the_reason() -> None:
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(FAMILIES["lfm2"]())
    assert model_fingerprint(empty) is None
    assert same_fingerprint("float32:0123456789abcdef:-", None) == (
        None,
        "the model's weights cannot be looked at: they are offloaded, spread over devices, or not loaded",
    )


def test_one_offloaded_block_is_enough_to_skip() -> None:
    model = random_model()
    model.model.layers[-1].to("meta")
    assert model_fingerprint(model) is None


@pytest.mark.parametrize("stored", [None, "", "v2:something else"])
def test_an_adapter_without_a_known_fingerprint_cannot_tell(stored: str | None) -> None:
    found = model_fingerprint(random_model())
    assert same_fingerprint(stored, found) == (None, "the adapter has no fingerprint of its model's weights")


def test_a_longer_vocabulary_changes_nothing() -> None:
    longer = random_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        longer.resize_token_embeddings(80, mean_resizing=False)
    stored = model_fingerprint(random_model())
    assert same_fingerprint(stored, model_fingerprint(longer, like=stored))[0] is True
    with torch.no_grad():
        longer.get_input_embeddings().weight[3] = 0
    assert same_fingerprint(stored, model_fingerprint(longer, like=stored))[0] is False


def test_of_a_shorter_vocabulary_the_blocks_are_compared() -> None:
    stored, shorter = model_fingerprint(random_model()), random_model()
    shorter.resize_token_embeddings(48)
    assert same_fingerprint(stored, model_fingerprint(shorter, like=stored))[0] is True
    with torch.no_grad():
        shorter.model.layers[1].feed_forward.w2.weight[0, 0] += 1
    assert same_fingerprint(stored, model_fingerprint(shorter, like=stored))[0] is False


def test_every_number_of_every_weight_enters() -> None:
    model = random_model("llama")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    before = model_fingerprint(model)
    for weight in model.parameters():
        place = weight.numel() * 2 // 3 + 1
        with torch.no_grad():
            was = weight.view(-1)[place].clone()
            weight.view(-1)[place] = 3
            assert model_fingerprint(model) != before
            weight.view(-1)[place] = was
        assert model_fingerprint(model) == before


def test_the_zeroed_embedding_of_one_token_is_seen() -> None:
    model = random_model()
    stored, digest = model_fingerprint(model), model_digest(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[37] = 0
    assert same_fingerprint(stored, model_fingerprint(model))[0] is False
    assert model_digest(model) != digest


def test_it_is_read_once_while_the_weights_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = random_model(), []
    monkeypatch.setattr(fingerprint, "weight_digest", lambda weight: read.append(1) or weight_digest(weight))
    first = model_fingerprint(model)
    count = len(read)
    assert model_fingerprint(model) == first
    assert len(read) == count > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fingerprint_of_a_sample_is_compared_by_its_own_rule(seed: int) -> None:
    stored = "float32:0eb8e77f0de3508c:0165149ca8c222e5"  # of the tiny Llama with seed 0, as it was written before
    found = model_fingerprint(random_model("llama", seed=seed), like=stored)
    assert same_fingerprint(stored, found)[0] is (seed == 0)


# --- at attach


def test_other_weights_are_refused_unless_allowed() -> None:
    adapter = fitted_adapter(base_model_fingerprint=model_fingerprint(random_model(seed=1)))
    model = random_model()
    with pytest.raises(IncompatibleModelError, match=r"the model's weights are not those .*allow_mismatch=True"):
        adapter.attach(model)
    assert traces(model) == []
    with pytest.warns(UserWarning, match="the model's weights are not those the adapter was fitted for"):
        adapter.attach(model, allow_mismatch=True).remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_it_was_fitted_for_are_accepted(dtype: torch.dtype, tmp_path: Path) -> None:
    adapter = fitted_adapter(base_model_fingerprint=model_fingerprint(random_model()))
    loaded = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    loaded.attach(random_model().to(dtype)).remove()


def test_training_records_it(tiny_lfm2: Any, splits: Any) -> None:
    small = {name: list(rows)[::8] for name, rows in splits.items()}
    arguments = ASATrainingArguments(
        layers=(6,),
        alphas=(1.0,),
        taus=(0.5,),
        betas=(1.0,),
        Cs=(0.1,),
        finalists=1,
        max_new_tokens=48,
        progress=False,
    )
    adapter = ASATrainer(*tiny_lfm2, small, arguments).train()
    assert adapter.config.base_model_fingerprint == model_fingerprint(tiny_lfm2[0])
    adapter.attach(tiny_lfm2[0]).remove()


def test_offloaded_weights_are_named_by_where_they_came_from() -> None:
    with torch.device("meta"):
        model = random_model()
    before = model_digest(model)
    model.name_or_path = "elsewhere"
    assert model_digest(model) != before


def test_a_models_digest_follows_its_weights() -> None:
    model = random_model()
    before = model_digest(model)
    assert model_digest(random_model()) == before
    assert model_digest(random_model(seed=1)) != before
    assert model_digest(random_model().to(torch.bfloat16)) != before
    with torch.no_grad():
        model.model.layers[3].feed_forward.w2.weight[0, 0] += 1
    assert model_digest(model) != before
