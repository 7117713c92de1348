"""What the screen costs, and whether its race costs anything in quality; for `speed.py`.

In the screen settings race on parts of TRAIN. Its first choice is compared with that of the exhaustive screen, which
runs all settings on all rows. Choices are made on TRAIN and measured on TEST, by first tokens. The seed draws folds
and the race's order of the rows.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from asa_adapter import ASATrainer, ASATrainingArguments
from asa_adapter.choice.settings import Scored, Setting, gated_triggers
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.search.strategy import Search

FITTED_ON = ("cal", "train", "valid")
WAYS = {"race": False, "whole grid": True}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work returns, and its CPU time in seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def collect(trainer: ASATrainer) -> None:
    """Collects the states of CAL, TRAIN and VALID anew."""
    trainer._measured.begin(None)
    for split in FITTED_ON:
        trainer._measured.states(split)


def ways(race_only: bool) -> list[str]:
    """Names of the ways to be measured."""
    return list(WAYS)[: 1 if race_only else 2]


def fitted(trainer: ASATrainer, seed: int, way: str) -> Callable[[], tuple[Search, Scored]]:
    """A screen that is ready to run: it returns its search and the best setting."""
    args = ASATrainingArguments(exhaustive=WAYS[way], seed=seed, progress=False)
    search = Search(trainer._measured, args, trainer._domains, trainer._build, trainer.report)
    layers = search.fit(trainer._layers)
    return lambda: (search, search.screen(layers)[0])


def test_f1(trainer: ASATrainer, search: Search, setting: Setting) -> float:
    """F1 of a setting on TEST, by first tokens."""
    prediction = search._predicted("test", setting.reader)
    pushes = [search._push(prediction, setting.layer, setting.beta, sign * setting.alpha) for sign in (1, -1)]
    base, up, down = trainer._measured.first_tokens("test", pushes).triggered
    triggered = gated_triggers(prediction.p_tool(setting.probe), setting.tau, base, up, down)
    return float(ConfusionCounts.of(trainer._measured.labels("test"), triggered).ratios()["f1"])


def one_seed(trainer: ASATrainer, seed: int, race_only: bool) -> dict[str, Any]:
    """The states' time, and of each way its time, its choice and the choice's F1 on TEST."""
    _, states = timed(lambda: collect(trainer))
    found: dict[str, Any] = {"seed": seed, "states_seconds": states}
    for way in ways(race_only):
        (search, best), seconds = timed(fitted(trainer, seed, way))
        found[way] = {
            "seconds": seconds,
            "over_states": seconds / states,
            "settings_on_all_rows": trainer.report["screen"]["settings"],
            "chosen": best.setting._asdict(),
            "test_f1": test_f1(trainer, search, best.setting),
        }
    return found


def compared(trainer: ASATrainer, seeds: Sequence[int], race_only: bool) -> dict[str, Any]:
    """All seeds, and the median ratios."""
    found = [one_seed(trainer, seed, race_only) for seed in seeds]
    over = {way: statistics.median(one[way]["over_states"] for one in found) for way in ways(race_only)}
    return {"seeds": found, "over_states": over}
