"""A model of another engine is one by what it can do; transformers' models are not."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asa_adapter import ASAConfig, IncompatibleModelError
from asa_adapter.engine.protocol import Facts, is_engine_model, or_opened_for_more
from asa_adapter.matching.compatibility import fitting_model, quantisation_note, suspicions
from asa_adapter.modeling.fingerprint import same_fingerprint

OWN, OTHER = "gguf:Q4_0:0123456789abcdef", "gguf:Q8_0:fedcba9876543210"
OF_TORCH = "2:float32:3072:406965992c856682:0a564ff7aa8942d8:96e90d7aa0e525b7"


class Engine:
    """What `EngineModel` asks for, and nothing in it."""

    def __init__(self, quantised: str = "", **facts: Any) -> None:
        known = {"name": "tiny", "model_types": ("llama", "mistral"), "hidden_size": 8, "num_layers": 4, "length": 64}
        self.facts = Facts(**{**known, "quantised": quantised, **facts})
        self.is_steered = False
        self.config = SimpleNamespace()
        self.name_or_path = "tiny.gguf"

    def fingerprint(self) -> str:
        return OWN

    def _nothing(self, *_: Any, **__: Any) -> None: ...

    attach = digest = generate = last_states = pushed_logits = answers = _nothing


def config(**fields: Any) -> ASAConfig:
    return ASAConfig(**{"hidden_size": 8, "num_layers": 4, "layer": 2, "domains": ("math",), **fields})


def test_a_model_is_of_an_engine_by_what_it_can_do() -> None:
    assert is_engine_model(Engine())
    assert not is_engine_model(torch.nn.Linear(2, 2))
    assert not is_engine_model(SimpleNamespace(generate=print))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"hidden_size": 16}, "the model's hidden size is 16, but the adapter was fitted for 8"),
        ({"num_layers": 5}, "the model's number of decoder blocks is 5, but the adapter was fitted for 4"),
        ({"model_types": ("qwen2",)}, "the model's model type is 'qwen2', but the adapter was fitted for 'mistral'"),
    ],
)
def test_another_width_depth_or_type_is_refused(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(IncompatibleModelError, match=reason):
        fitting_model(Engine(**facts), config(model_type="mistral"))


def test_a_type_that_the_file_writes_as_another_one_fits() -> None:
    model = Engine()
    assert fitting_model(model, config(model_type="mistral")) == (model, None)


def test_fingerprints_of_files_are_compared_with_each_other_only() -> None:
    assert same_fingerprint(OWN, OWN)[0] is True
    assert same_fingerprint(OWN, OTHER) == (
        False,
        f"the model's weights are not those the adapter was fitted for (fingerprint {OTHER}, not {OWN})",
    )
    for pair in ((OWN, OF_TORCH), (OF_TORCH, OWN), (OWN, None)):
        assert same_fingerprint(*pair) == (
            None,
            "one of the fingerprints is of a GGUF file, the other is not: they cannot be compared",
        )


def test_other_weights_are_suspicious_and_those_of_another_engine_are_not() -> None:
    assert suspicions(Engine(), None, config(base_model_fingerprint=OWN)) == []
    assert (
        "not those the adapter was fitted for" in suspicions(Engine(), None, config(base_model_fingerprint=OTHER))[0]
    )
    assert suspicions(Engine(), None, config(base_model_fingerprint=OF_TORCH)) == []


def test_packed_weights_are_told_of_by_name_unless_the_adapter_was_fitted_on_them() -> None:
    packed = Engine(quantised="Q4_0")
    assert "(Q4_0)" in str(quantisation_note(packed, config(base_model_fingerprint=OF_TORCH)))
    assert quantisation_note(packed, config(base_model_fingerprint=OWN)) is None
    assert quantisation_note(Engine(), config(base_model_fingerprint=OF_TORCH)) is None


def test_an_adapter_of_a_file_on_a_model_of_transformers_is_told_of(tiny_lfm2: tuple[Any, Any]) -> None:
    told = quantisation_note(tiny_lfm2[0], config(base_model_fingerprint=OWN))
    assert told is not None
    assert told.startswith("the adapter was fitted on a GGUF file, whose states are not quite those of this model")


@pytest.mark.parametrize(
    ("longest", "cure"),
    [
        (0, ", or open it with a greater n_ctx (--n-ctx)"),
        (128, ", or open it with a greater n_ctx (--n-ctx), of 128 at most"),
        (64, "; it was made for no more"),
    ],
)
def test_the_cure_of_a_prompt_that_is_too_long_is_told_where_there_is_one(longest: int, cure: str) -> None:
    assert or_opened_for_more(Engine(longest=longest).facts) == cure
