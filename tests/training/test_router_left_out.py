"""A router that is no better than chance is left out."""

from typing import Any

import numpy as np
import pytest
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.hub.card import model_card
from asa_adapter.report import Report
from asa_adapter.search.reasons import router_note

DOMAINS = ["a"] * 60 + ["b"] * 40


@pytest.mark.parametrize(
    ("wrong", "copies", "left_out"),
    [
        (10, 1, False),  # .9 are found, at least .839
        (33, 1, True),  # .67 are found, at least .589
        (31, 1, False),  # .69 are found, at least .609
        (20, 1, False),  # .8 are found, at least .727
        (20, 20, True),  # one of five groups is wrong: at least .44
    ],
)
def test_a_router_must_surely_find_more_than_the_largest_domain(wrong: int, copies: int, left_out: bool) -> None:
    predicted = np.where(np.arange(100) < wrong, "c", DOMAINS).tolist()
    note = router_note(predicted, DOMAINS, np.arange(100) // copies, 7)
    assert bool(note) is left_out
    if note:
        assert f"at layer 7, which reads the need best, it finds the domain of {1 - wrong / 100:.3f} of" in note
        assert "and 0.600 of them are of the domain 'a'. It is left out" in note


def test_domains_without_meaning_are_left_out_and_it_is_said(tiny_lfm2: Any, splits: Any, tmp_path: Any) -> None:
    generator = np.random.default_rng(5)
    few = {
        name: [{**row, "domain": str(generator.choice(["one", "two"]))} for row in list(rows)[::4]]
        for name, rows in splits.items()
    }
    options = {"layers": (4, 6), "alphas": (1.0,), "Cs": (0.1,), "finalists": 1}
    trainer = ASATrainer(*tiny_lfm2, few, ASATrainingArguments(**{**SMALL, **options}))
    with pytest.warns(UserWarning, match="the router is no better than chance: at layer 6, which reads the need best"):
        adapter = trainer.train()
    assert adapter.config.domains == ("general",)
    assert adapter.config.probe == "pooled"
    report = trainer.report
    assert report["domains"] == ["general"]
    assert report["layers"]["6"]["router_accuracy"] < 0.75
    results = trainer.evaluate("valid")
    assert set(results["asa"]["per_domain"]) == {"one", "two"}  # the rows keep theirs
    assert results["asa"]["f1"] > results["base"]["f1"]
    assert "It tells no domains apart: the router is no better" in model_card(adapter.config, Report.read(report))
    assert ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path)).digest() == adapter.digest()
    with pytest.warns(UserWarning, match="the router is no better than chance"):
        assert trainer.train().digest() == adapter.digest()
