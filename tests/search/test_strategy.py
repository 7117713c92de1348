"""How many settings generate on VALID, by a model of which first tokens tell much or little."""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.evaluation.first_tokens import Screened
from asa_adapter.fitting.layer_fit import LayerPrediction
from asa_adapter.search.reasons import why_unreadable
from asa_adapter.search.strategy import Search
from asa_adapter.tool_calls.outcomes import Outcome

ROWS = 100
LABELS = np.arange(ROWS) % 2
CALLED = LABELS == 1
SETTINGS = [Setting(layer, 1.0, 0.5, 0.5, "domain") for layer in range(4)]


class Measured:
    """VALID, of which the bare model calls nothing, and the steered one what is needed; keeps what it is asked for."""

    def __init__(self, wrong: int, cut: int = 0, fits: bool = True) -> None:
        self.fits = fits  # whether calls fit an offered tool
        self.cut = cut  # answers that max_new_tokens cuts
        self.told = CALLED ^ (np.arange(ROWS) < wrong)  # what first tokens tell of the steered model
        self.generated: list[int] = []

    def labels(self, _: str) -> Any:
        return LABELS

    def groups(self, _: str) -> Any:
        return np.arange(ROWS)

    def labelled(self, _: str, layer: int) -> Any:
        return SimpleNamespace(states=layer)

    def outcomes(self, _: str, variants: Any) -> dict[str, Any]:
        self.generated += [adapter.layer for adapter in variants.values() if adapter]
        called = {name: CALLED & (adapter is not None) for name, adapter in variants.items()}
        return {name: Outcome(calls, calls & self.fits, np.arange(ROWS) < self.cut) for name, calls in called.items()}

    def first_tokens(self, _: str, pushes: Any) -> Screened:
        found = np.stack([np.zeros(ROWS, dtype=bool), *[self.told] * len(pushes)])
        return Screened(found, found.astype(np.float32), found.astype(np.float32) - 0.5)


def fit() -> Any:
    prediction = LayerPrediction(np.zeros(ROWS, dtype=np.int64), np.full((ROWS, 2), 9, dtype=np.float32))
    vectors = SimpleNamespace(mixed=lambda beta: torch.ones(1, 2))
    return SimpleNamespace(residual_norm=1.0, vectors=vectors, predict=lambda states: prediction)


def decided(measured: Measured, candidates: int, train_rows: int = 60) -> tuple[dict[str, Any], list[str]]:
    """The part of the report on VALID, and the warnings; the screen has run some rows of TRAIN."""
    report: dict[str, Any] = {}

    def build(setting: Setting, _: Any) -> Any:
        return SimpleNamespace(layer=setting.layer, config=SimpleNamespace(step=1.0))

    args = ASATrainingArguments(finalists=2, resamples=100, refit=False)
    search = Search(measured, args, ("a",), build, report)  # type: ignore[arg-type]
    search.fits = {layer: fit() for layer in range(4)}
    search._ran = np.arange(train_rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.decide([Scored(setting, 1.0, CALLED[:train_rows]) for setting in SETTINGS[:candidates]])
    return report["valid"], [str(warning.message) for warning in caught]


@pytest.mark.parametrize("wrong", [0, 5])
def test_where_first_tokens_tell_enough_the_finalists_alone_generate(wrong: int) -> None:
    measured = Measured(wrong)
    valid, told = decided(measured, 4)
    assert measured.generated == [0, 1]
    assert [finalist["layer"] for finalist in valid["finalists"]] == [0, 1]
    assert [finalist["screen_agreement"] for finalist in valid["finalists"]] == [1 - wrong / 100] * 2
    assert "screen_note" not in valid
    assert told == []


def test_where_they_tell_too_little_twice_as_many_generate_and_it_is_said() -> None:
    measured = Measured(wrong=6)
    valid, told = decided(measured, 4)
    assert measured.generated == [0, 1, 2, 3]
    assert [finalist["layer"] for finalist in valid["finalists"]] == [0, 1, 2, 3]
    assert [finalist["screen_agreement"] for finalist in valid["finalists"]] == [0.94] * 4
    assert told == [valid["screen_note"]]
    assert "on only 94% of the VALID rows whether the model calls a tool (expected 95%)" in told[0]
    assert told[0].endswith("2 further settings generate on VALID")


@pytest.mark.parametrize(("wrong", "rows"), [(5, 60), (6, 0)])
def test_rows_of_train_count_where_first_tokens_tell_enough(wrong: int, rows: int) -> None:
    assert decided(Measured(wrong), 4)[0]["train_rows"] == rows


def test_where_no_further_setting_is_left_it_is_said() -> None:
    measured = Measured(wrong=6)
    valid, told = decided(measured, 2)
    assert measured.generated == [0, 1]
    assert len(valid["finalists"]) == 2
    assert told == [valid["screen_note"]]
    assert told[0].endswith("No further setting is there to generate with; try more layers or alphas")


def test_answers_of_finalists_that_were_cut_are_counted_and_warned_of() -> None:
    valid, told = decided(Measured(wrong=0, cut=5), 2)
    assert [told, valid["base"]["cut_share"]] == [[], 0.05]
    valid, told = decided(Measured(wrong=0, cut=6), 2)
    assert [finalist["cut_share"] for finalist in valid["finalists"]] == [0.06, 0.06]
    [note] = told
    assert "6 % of the answers of the bare model on VALID ended because max_new_tokens (64) ran out" in note
    assert note.endswith("To be sure, give a greater one, such as 128 (--max-new-tokens 128)")


def test_triggers_that_gain_without_calls_that_succeed_are_told_and_reported() -> None:
    valid, told = decided(Measured(wrong=0, fits=False), 2)
    assert told == [valid["success_note"]]
    assert valid["success_note"].startswith(
        "With this adapter the model calls tools better, but no gain in calls that"
    )
    assert valid["success"] == {"base": 0.0, "chosen": 0.0, "lower_bound": 0.0, "upper_bound": 0.0}
    assert [finalist["success_f1"] for finalist in valid["finalists"]] == [0.0, 0.0]
    valid, told = decided(Measured(wrong=0), 2)
    assert (told, "success_note" in valid, valid["success"]["chosen"]) == ([], False, 1.0)


def test_layers_that_read_too_little_are_named_but_never_all_of_them() -> None:
    poor = why_unreadable({1: 0.9, 2: 0.7, 3: 0.81})
    assert poor == {2: "its probe's AUC on TRAIN is 0.700, out of fold; the screen tries layers from 0.800 on"}
    assert why_unreadable({1: 0.49, 2: 0.4}) == {}
