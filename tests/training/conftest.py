"""One training on a part of the shipped data, for all tests that look at its outcome."""

from typing import Any

import pytest
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments


@pytest.fixture(scope="session")
def small(splits: Any) -> dict[str, list[dict[str, Any]]]:
    """Every second row, of TEST every fifth: all domains and labels, in seconds."""
    return {name: list(rows)[:: 5 if name == "test" else 2] for name, rows in splits.items()}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """SMALL with a folder in which what one test has asked the model is kept for the others."""
    return {**SMALL, "output_dir": tmp_path_factory.mktemp("shared")}


@pytest.fixture(scope="session")
def trained(tiny_lfm2: Any, small: Any, shared: Any) -> tuple[ASATrainer, ASAAdapter]:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**shared))
    return trainer, trainer.train()
