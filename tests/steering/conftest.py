"""The adapter and the models that most of these tests steer."""

from typing import Any

import pytest
from models import fitted_adapter, random_model

from asa_adapter import ASAAdapter


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


@pytest.fixture
def adapter() -> ASAAdapter:
    return fitted_adapter()


@pytest.fixture
def lfm2() -> Any:
    return random_model("lfm2")
