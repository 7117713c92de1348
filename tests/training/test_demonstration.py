"""What a card shows first: the package's own prompts, asked bare and steered."""

import dataclasses
from typing import Any

import pytest
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS
from asa_adapter.report import Report
from asa_adapter.training.demonstration import demonstration


@pytest.fixture(scope="module")
def measured(tiny_lfm2: Any, small: Any) -> Any:
    return ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))._measured


def test_the_first_prompt_that_the_adapter_changes_is_shown_with_both_answers(
    measured: Any, tiny_lfm2: Any, tiny_adapter: ASAAdapter
) -> None:
    found = demonstration(measured, tiny_adapter)
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


def test_an_adapter_that_abstains_or_has_no_tools_shows_nothing(measured: Any, tiny_adapter: ASAAdapter) -> None:
    for change in ({"alpha": 0.0}, {"tools": None}):
        config = dataclasses.replace(tiny_adapter.config, **change)
        other = ASAAdapter(config, tiny_adapter.vectors, tiny_adapter.router, tiny_adapter.probes)
        assert demonstration(measured, other) == {}
