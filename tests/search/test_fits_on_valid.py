"""What settings are made of: the fit that was judged, and the one with VALID's rows."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from labelled_states import split

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Setting
from asa_adapter.fitting.layer_fit import fit_layer
from asa_adapter.search.fits_on_valid import FitsOnValid

NAMES = ("a", "b")
SPLITS = {name: split(seed, signal=2.0) for seed, name in enumerate(("cal", "train", "valid"))}
POLICY = (("ready_below", 0.2), ("ready_above", 0.8), ("domain_alpha", 0.5), ("route", 0.5))
SETTING = Setting(2, 1.0, 0.5, 1.0, "pooled", by_state=(("first", POLICY),))


@pytest.fixture
def fits() -> Any:
    """Builds the fit itself in place of an adapter."""
    measured: Any = SimpleNamespace(labelled=lambda name, layer: SPLITS[name])
    made = FitsOnValid(measured, Objective(), lambda setting, fit: fit)  # type: ignore[arg-type, return-value]
    made.fits[2] = fit_layer(*SPLITS.values(), NAMES, (0.1,), 42)
    return made


def test_readiness_stays_fitted_along_a_direction_that_does_not_know_the_rows_of_valid(fits: Any) -> None:
    judged, again = fits._build(SETTING), fits._refitted(SETTING, NAMES, (), 42)
    assert not np.allclose(again.vectors.v_global, judged.vectors.v_global)
    assert np.array_equal(again.probes.ready_.coef_, judged.probes.ready_.coef_)
    assert np.array_equal(again.probes.ready_.intercept_, judged.probes.ready_.intercept_)
