"""What a card shows first: sample prompts, asked bare and steered."""

import dataclasses
from typing import Any

import pytest
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS
from asa_adapter.hub.card import model_card
from asa_adapter.report import Report
from asa_adapter.training.demonstration import demonstration
from asa_adapter.verification.samples import Sample, neutral_samples

_CHAT = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "on"},
]


@pytest.fixture(scope="module")
def measured(tiny_lfm2: Any, small: Any) -> Any:
    return ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))._measured


def test_the_first_prompt_that_the_adapter_changes_is_shown_with_both_answers(
    measured: Any, tiny_lfm2: Any, tiny_adapter: ASAAdapter
) -> None:
    found = demonstration(measured, tiny_adapter, neutral_samples())
    assert found["asked"] == len(SAMPLE_PROMPTS) == 12
    assert 0 < found["changed"] <= 12
    shown = found["shown"]
    assert shown["prompt"] in SAMPLE_PROMPTS
    told = tiny_adapter.explain(*tiny_lfm2, shown["prompt"])
    assert (shown["base"], shown["asa"]) == (told["base"]["answer"], told["steered"]["answer"])
    assert told["base"]["triggered"] != told["steered"]["triggered"]
    before = SAMPLE_PROMPTS[: SAMPLE_PROMPTS.index(shown["prompt"])]
    for prompt in before:
        told = tiny_adapter.explain(*tiny_lfm2, prompt)
        assert told["base"]["triggered"] == told["steered"]["triggered"]
    assert Report.read({"demonstration": found}).demonstration == found
    assert "own" not in found


def test_prompts_that_the_user_named_are_asked_with_their_own_tools(measured: Any, tiny_adapter: ASAAdapter) -> None:
    lamp = [{"name": "lamp", "description": "Switch a lamp.", "parameters": {"type": "object", "properties": {}}}]
    samples = [Sample([{"role": "user", "content": "how much is 48713 times 9264"}]), Sample(_CHAT, lamp)]
    found = demonstration(measured, tiny_adapter, samples)
    assert (found["asked"], found["own"]) == (2, True)
    assert found["shown"]["prompt"] == "how much is 48713 times 9264"
    assert [row["tools"] for row in measured.rows("demonstration")] == [tiny_adapter.config.tools, lamp]
    assert Report.read({"demonstration": found}).demonstration == found
    text = model_card(tiny_adapter.config, Report.read({"demonstration": found}))
    assert "Of 2 sample prompts that its maker named it changed for " in text


def test_an_adapter_that_abstains_or_has_no_tools_shows_nothing(measured: Any, tiny_adapter: ASAAdapter) -> None:
    for change in ({"alpha": 0.0}, {"tools": None}):
        config = dataclasses.replace(tiny_adapter.config, **change)
        other = ASAAdapter(config, tiny_adapter.vectors, tiny_adapter.router, tiny_adapter.probes)
        assert demonstration(measured, other, neutral_samples()) == {}
