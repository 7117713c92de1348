"""The shipped adapter for a real model: it loads, says what it was made from, and is not taken for another's."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from asa_adapter import ASAAdapter, IncompatibleModelError

FOLDER = Path(__file__).parents[2] / "examples" / "qwen25_coder_asa"


def test_it_is_for_the_real_model_and_reads_the_calls_that_it_writes() -> None:
    config = ASAAdapter.from_pretrained(FOLDER).config
    assert (config.base_model, config.model_type) == ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "qwen2")
    assert (config.hidden_size, config.num_layers) == (896, 24)
    assert config.forms == ("json", "hermes")


def test_its_card_says_from_which_weights_it_was_made_and_how_to_go_on() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "dequantised from the model's public Q4_K_M file" in card
    assert "allow_mismatch=True" in card


def test_its_report_has_the_figures_of_the_readme() -> None:
    report = ASAAdapter.from_pretrained(FOLDER).report
    assert report is not None
    found = report["evaluations"]["test"]
    readme = " ".join((FOLDER.parents[1] / "README.md").read_text(encoding="utf-8").split())
    for shown, name in (("F1", "f1"), ("recall", "recall"), ("FPR", "fpr")):
        before, after = (f"{found[which][name]:.3f}".removeprefix("0") for which in ("base", "asa"))
        assert f"{shown} {before} to {after}" in readme


def test_other_weights_of_its_shape_are_refused_with_the_way_on() -> None:
    config = Qwen2Config(
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=8,
        vocab_size=32,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    with pytest.raises(IncompatibleModelError, match=r"not those the adapter was fitted for.*allow_mismatch=True"):
        ASAAdapter.from_pretrained(FOLDER).attach(model)
