"""What the report says of the screen."""

import numpy as np
import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Reader, Scored, setting_facts, setting_grid
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.search.report_facts import layer_effects, screen_facts

LABELS = np.arange(160) % 2
ARGS = ASATrainingArguments(layers=(1, 2), alphas=(0.0, 0.5, 1.0), taus=(0.5, 0.7), betas=(0.0, 1.0))


def test_layer_effects_are_the_mean_over_directions() -> None:
    changes = {((3, beta, 0.5), sign): sign * 0.1 + 0.05 * beta for beta in (0.0, 1.0) for sign in (1, -1)}
    effects = layer_effects(changes)
    assert effects[3]["alpha"] == 0.5
    assert effects[3]["up"] == pytest.approx(0.125)
    assert effects[3]["down"] == pytest.approx(-0.075)


def test_the_screens_front_has_more_recall_wherever_it_has_more_false_calls() -> None:
    generator = np.random.default_rng(3)
    objective = Objective.of(ARGS)
    candidates = []
    for setting in setting_grid(ARGS, [Reader(1), Reader(2)]):
        triggered = LABELS.astype(bool) ^ (generator.random(len(LABELS)) < 0.3)
        candidates.append(Scored(setting, float(objective.rank(ConfusionCounts.of(LABELS, triggered))), triggered))
    found = screen_facts(objective, LABELS, np.zeros(len(LABELS), dtype=bool), candidates, None)
    front = [(point["fpr"], point["recall"]) for point in found["front"]]
    assert front == sorted(front)
    assert len({recall for _, recall in front}) == len(front)
    every = [setting_facts(objective, LABELS, s.triggered, None) for s in candidates]
    for numbers in every:
        assert any(fpr <= numbers["fpr"] and recall >= numbers["recall"] for fpr, recall in front)
    assert found["settings"] == 32
    assert len(found["alpha_tau"]) == 4
    assert max(point["score"] for point in found["alpha_tau"]) == max(s.score for s in candidates)
