from typing import Any

import pytest
from huggingface_hub import ModelCard

from asa_adapter import ASAConfig
from asa_adapter.card import escaped, markdown_table, model_card
from asa_adapter.metrics import trigger_metrics


def config(**changes: Any) -> ASAConfig:
    settings: dict[str, Any] = {
        "hidden_size": 8,
        "num_layers": 4,
        "layer": 2,
        "domains": ("code", "math"),
        "alpha": 0.5,
        "residual_norm": 4.0,
        "tau": 0.8,
        "beta": 0.25,
        "base_model": "LiquidAI/LFM2.5-1.2B-Instruct",
        "tool_call_start": "<|tool_call_start|>",
        "tools": [{"name": "calculator"}, {"type": "function", "function": {"name": "run_code"}}],
        **changes,
    }
    return ASAConfig(**settings)


def report() -> dict[str, Any]:
    labels, domains = [1, 1, 0, 0], ["math", "code", "math", "code"]
    base, asa = [0, 1, 1, 1], [1, 1, 0, 1]
    return {
        "splits": {"train": {"rows": 320}},
        "chosen": {"why": "the best of 4 finalists"},
        "evaluations": {
            "test": {
                "base": trigger_metrics(labels, base, domains),
                "asa": trigger_metrics(labels, asa, domains),
            }
        },
        "versions": {"torch": "2.13.0"},
    }


def test_its_numbers_are_those_of_config_and_report() -> None:
    text = model_card(config(), report())
    assert "| the model alone | 0.333 | 0.500 | 0.400 | 0.250 | 1.000 |" in text
    assert "| with ASA | 0.667 | 1.000 | 0.800 | 0.750 | 0.500 |" in text
    assert "| math, with ASA | 1.000 | 1.000 | 1.000 | 1.000 | 0.000 |" in text
    assert "| code, alone | 0.500 | 1.000 | 0.667 | 0.500 | 1.000 |" in text
    assert "### TEST, 4 prompts" in text
    assert "| alpha | 0.5 times the mean residual norm |" in text
    assert "| length of the step | 2 |" in text
    assert "| layer (output of decoder block, from 0) | 2 of 4 |" in text
    assert "on 320 labelled prompts" in text
    assert "Why these: the best of 4 finalists." in text


def test_the_hub_client_reads_its_metadata() -> None:
    data = ModelCard(model_card(config(), report())).data.to_dict()
    assert data["base_model"] == "LiquidAI/LFM2.5-1.2B-Instruct"
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "asa-adapter"
    assert {"activation-steering", "tool-calling"} <= set(data["tags"])


def test_a_local_path_is_not_given_out_as_a_base_model() -> None:
    data = ModelCard(model_card(config(base_model="/home/me/model"), None)).data.to_dict()
    assert "base_model" not in data and "base_model_relation" not in data


def test_without_a_report_it_says_that_nothing_was_measured() -> None:
    text = model_card(config(), None)
    assert "Nothing was measured: the adapter came without a report." in text
    assert "How these were chosen is not recorded." in text


def test_an_abstaining_adapter_says_so_first() -> None:
    body = ModelCard(model_card(config(alpha=0), report())).text
    assert body.strip().splitlines()[2].startswith("**This adapter abstains:")
    assert "abstains" not in model_card(config(), report())


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b", "[x](http://y)", "`{{ config }}`"])
def test_users_strings_are_escaped(name: str) -> None:
    text = model_card(config(domains=(name,), tools=None), None)
    assert name not in text
    assert escaped(name) in text


def test_no_line_of_a_template_is_left() -> None:
    text = model_card(config(), report())
    assert "{{" not in text and "{%" not in text


def test_escaping_keeps_one_line() -> None:
    assert escaped("a\n---\nb\u202ec") == "a --- b c"


def test_a_table_has_one_row_for_each_result() -> None:
    metrics = trigger_metrics([1, 0], [1, 0])
    assert markdown_table({"x": metrics, "y": metrics}).count("\n") == 3
