"""Fitted once more with VALID's rows: what ships knows them, and what is told of VALID does not."""

from typing import Any

import numpy as np
import pytest

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments


@pytest.fixture(scope="module")
def left(tiny_lfm2: Any, small: Any, shared: Any, trained: Any) -> tuple[ASATrainer, ASAAdapter]:
    """The same training as `trained`, whose stages it finds, without a second fit."""
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**shared, refit=False))
    return trainer, trainer.train()


def test_choice_and_figures_on_valid_are_those_of_the_fit_that_was_judged(trained: Any, left: Any) -> None:
    (trainer, adapter), (plain_trainer, plain) = trained, left
    assert adapter.judged is not None
    assert adapter.judged.digest() == plain.digest() != adapter.digest()
    assert adapter.config == plain.config
    assert trainer.report["chosen"] == plain_trainer.report["chosen"]
    assert trainer.report["variations"]["valid"] == plain_trainer.report["variations"]["valid"]
    assert trainer.report["gates"]["valid"] == plain_trainer.report["gates"]["valid"]
    assert plain_trainer.report["refit"] == {}
    assert plain.judged is None


def test_what_ships_knows_the_rows_of_valid(trained: Any, small: Any) -> None:
    trainer, adapter = trained
    rows = sum(len(trainer._measured.rows(name)) for name in ("cal", "train", "valid"))
    varied = trainer.report["vary_tools"].get("rows", 0)
    assert trainer.report["refit"] == {"rows": rows + varied, "judged": adapter.judged.digest()}
    assert not np.allclose(adapter.probes.pooled_.coef_, adapter.judged.probes.pooled_.coef_)
    assert not np.allclose(adapter.router.estimator_.coef_, adapter.judged.router.estimator_.coef_)
    assert not np.allclose(adapter.vectors.v_global, adapter.judged.vectors.v_global)


def test_an_evaluation_on_valid_is_of_the_fit_that_was_judged(trained: Any) -> None:
    trainer, adapter = trained
    found = trainer.evaluate("valid")
    told = trainer.report["chosen"]["valid"]
    assert (found["asa"]["f1"], found["asa"]["fpr"]) == pytest.approx((told["f1"], told["fpr"]))
    layer = trainer.report["layers"][str(adapter.config.layer)]
    controls = trainer.report["controls"]["valid"]
    assert {key: controls[key] for key in ("probe_auc", "shuffled_auc", "router_accuracy")} == pytest.approx(
        {key: layer[key] for key in ("probe_auc", "shuffled_auc", "router_accuracy")}
    )


def test_its_folder_tells_valid_from_other_splits(trained: Any, shared: Any) -> None:
    _, adapter = trained
    adapter.save_pretrained(shared["output_dir"] / "again")
    loaded = ASAAdapter.from_pretrained(shared["output_dir"] / "again")
    assert loaded.digest() == adapter.digest()
    assert loaded.for_split("valid").digest() == adapter.judged.digest()


def test_the_cosines_told_are_of_the_directions_that_ship(trained: Any) -> None:
    trainer, adapter = trained
    ships, judged = adapter.vectors.v_domain, adapter.judged.vectors.v_domain
    told = np.array(trainer.report["diagnostics"]["domain_cosines"])
    assert told == pytest.approx((ships @ ships.T).numpy(), abs=1e-6)
    assert not np.allclose(told, judged @ judged.T, atol=1e-4)
