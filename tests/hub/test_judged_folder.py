"""The fit that VALID judged, in a folder of the adapter's own."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from models import WIDTH, fitted_adapter
from strangers import CONFIG, PROBES, ROUTER, VECTORS

from asa_adapter import AdapterFormatError, ASAAdapter
from asa_adapter.measurement.known_splits import known_splits

STATES = 3 * torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(3))
NOT_AT_HAND = (
    "fitted once more with VALID's rows, and the fit that was judged there is not at hand: figures on VALID are too"
)


@pytest.fixture
def adapter() -> ASAAdapter:
    """One that was fitted once more, with the fit that was judged beside it."""
    made, judged = fitted_adapter(), fitted_adapter(alpha=3.0, tau=0.9)
    made.judged, made.report = judged, {"refit": {"rows": 80, "judged": judged.digest()}}
    return made


def test_on_valid_the_fit_that_was_judged_is_measured_and_elsewhere_the_shipped_one(adapter: ASAAdapter) -> None:
    assert adapter.for_split("valid") is adapter.judged
    assert adapter.for_split("test") is adapter.for_split("train") is adapter


def test_an_adapter_that_was_fitted_once_is_the_same_on_every_split() -> None:
    once = fitted_adapter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert once.for_split("valid") is once


def test_a_saved_adapter_brings_it_along(adapter: ASAAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path / "first")
    assert {path.name for path in (tmp_path / "first" / "judged").iterdir()} == {
        CONFIG,
        VECTORS,
        ROUTER,
        PROBES,
        "report.json",
    }
    loaded = ASAAdapter.from_pretrained(tmp_path / "first")
    assert loaded.decide(STATES) == adapter.decide(STATES)
    assert loaded.for_split("valid").digest() == adapter.for_split("valid").digest() != loaded.digest()
    second = ASAAdapter.from_pretrained(
        ASAAdapter.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    )
    assert second.for_split("valid").config.tau == 0.9


def test_an_adapter_that_acts_otherwise_keeps_it() -> None:
    made, judged = (fitted_adapter(opening_ids=(5, 6), tau=tau) for tau in (0.5, 0.9))
    made.judged = judged
    biased = made.with_action("bias", 2.0)
    on_valid = biased.for_split("valid")
    assert (biased.config.tau, on_valid.config.tau) == (0.5, 0.9)
    assert (on_valid.config.action, on_valid.config.bias) == ("bias", 2.0)
    assert made.judged.config.action == "steer"


def test_a_copy_of_a_loaded_adapter_that_acts_otherwise_brings_it_along(tmp_path: Path) -> None:
    made, judged = (fitted_adapter(opening_ids=(5, 6), tau=tau) for tau in (0.5, 0.9))
    made.judged, made.report = judged, {"refit": {"rows": 80, "judged": judged.digest()}, "why": "measured"}
    biased = ASAAdapter.from_pretrained(made.save_pretrained(tmp_path / "first")).with_action("bias", 2.0)
    assert biased.report == {"refit": {"rows": 80, "judged": biased.for_split("valid").digest()}}
    again = ASAAdapter.from_pretrained(biased.save_pretrained(tmp_path / "second"))
    on_valid = again.for_split("valid")
    assert (again.config.tau, on_valid.config.tau, on_valid.config.action) == (0.5, 0.9, "bias")


def test_a_copy_of_one_without_it_warns_too(tmp_path: Path) -> None:
    made = fitted_adapter(opening_ids=(5, 6))
    made.report = {"refit": {"rows": 80, "judged": "0" * 64}}
    with pytest.warns(UserWarning, match=NOT_AT_HAND):
        made.with_action("bias", 2.0).for_split("valid")


def test_the_fit_that_was_judged_knows_itself(adapter: ASAAdapter) -> None:
    assert adapter.judged is not None
    adapter.judged.report = adapter.report
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adapter.judged.for_split("valid") is adapter.judged
    assert known_splits(adapter.judged, "test") == ("cal", "train")
    assert known_splits(adapter, "test") == ("cal", "train", "valid")


def test_a_save_that_was_interrupted_is_read_with_it(adapter: ASAAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path / "whole")
    fitted_adapter(tau=0.7).save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "whole", tmp_path / "a" / ".asa-next")
    (tmp_path / "a" / "judged").mkdir()
    loaded = ASAAdapter.from_pretrained(tmp_path / "a")
    assert loaded.for_split("valid").digest() == adapter.for_split("valid").digest()


def test_a_damaged_one_does_not_keep_an_adapter_from_being_saved(adapter: ASAAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "judged" / ROUTER).write_bytes(b"x")
    loaded = ASAAdapter.from_pretrained(tmp_path / "first")
    with pytest.warns(UserWarning, match=rf"judged on VALID is left out, since it is damaged: {ROUTER}"):
        loaded.save_pretrained(tmp_path / "second")
    assert not (tmp_path / "second" / "judged").exists()


def test_one_that_was_fitted_once_takes_it_out_of_the_folder(adapter: ASAAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path)
    fitted_adapter().save_pretrained(tmp_path)
    assert not (tmp_path / "judged").exists()
    ASAAdapter.from_pretrained(tmp_path).for_split("valid")


def test_without_it_a_warning_says_that_figures_on_valid_are_too_good(adapter: ASAAdapter, tmp_path: Path) -> None:
    loaded = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    for path in (tmp_path / "judged").iterdir():
        path.unlink()
    (tmp_path / "judged").rmdir()
    with pytest.warns(UserWarning, match=NOT_AT_HAND):
        assert loaded.for_split("valid") is loaded
    assert loaded.decide(STATES) == adapter.decide(STATES)


def test_the_fit_of_another_adapter_is_not_taken(adapter: ASAAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path)
    fitted_adapter(alpha=5.0).save_pretrained(tmp_path / "judged")
    loaded = ASAAdapter.from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=NOT_AT_HAND):
        assert loaded.for_split("valid") is loaded


def test_a_damaged_one_is_refused_where_it_is_asked_for_and_nowhere_else(adapter: ASAAdapter, tmp_path: Path) -> None:
    adapter.save_pretrained(tmp_path)
    (tmp_path / "judged" / ROUTER).write_bytes(b"x")
    loaded = ASAAdapter.from_pretrained(tmp_path)
    assert loaded.decide(STATES) == adapter.decide(STATES)
    with pytest.raises(AdapterFormatError, match=rf"^{ROUTER}: its SHA-256 is not the one in {CONFIG}"):
        loaded.for_split("valid")
