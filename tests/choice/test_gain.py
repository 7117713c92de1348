from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.finalists import choose
from asa_adapter.choice.gain import Gain, GainRedraw, sure_gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.evaluation.metrics import ConfusionCounts

ARGS = ASATrainingArguments(resamples=500)
BALANCED = ASATrainingArguments(resamples=500, objective="balanced_accuracy")
ROWS = 160
LABELS = np.arange(ROWS) % 2


def decided(
    labels: NDArray[np.int64],
    base: NDArray[np.bool_],
    triggered: Sequence[NDArray[np.bool_]],
    groups: NDArray[np.int64] | None = None,
    args: ASATrainingArguments = ARGS,
) -> Gain:
    """What is decided of finalists, the gentlest first."""
    rank = Objective.of(args).rank
    finalists = [
        Scored(Setting(1, 1.0 + i, 0.5, 0.0, "pooled"), float(rank(ConfusionCounts.of(labels, row))), row)
        for i, row in enumerate(triggered)
    ]
    chosen, _ = choose(args, labels, finalists, groups)
    return sure_gain(GainRedraw.of(args, labels, finalists, chosen, groups), base)


def but_for(wrong: Any) -> NDArray[np.bool_]:
    """Triggers that are right but for some rows."""
    triggered = LABELS.astype(bool)
    triggered[np.asarray(wrong, dtype=int)] ^= True
    return triggered


def shares(
    trials: int, rows: int, gain: float, *, copies: int = 1, wrong: float = 0.3
) -> tuple[float, list[float], list[float]]:
    """Of trainings with four finalists that err more rarely by `gain`: share that ship, told and apparent gains."""
    told, apparent = [], []
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        of_row = np.repeat(np.arange(rows // copies), copies)
        labels = np.arange(rows // copies) % 2
        luck = generator.random((5, rows // copies)) < np.array([[wrong], *[[wrong - gain]] * 4])
        called = (labels.astype(bool) ^ luck)[:, of_row]
        found = decided(labels[of_row], called[0], called[1:], of_row, BALANCED)
        if found.sure:
            told.append(found.mean)
            apparent.append(found.apparent)
    return len(told) / trials, told, apparent


def test_a_clear_gain_is_sure() -> None:
    gain = decided(LABELS, but_for(range(80)), [but_for([0, 1])])
    assert gain.sure
    assert gain.apparent == pytest.approx(0.4873, abs=1e-3)  # F1 from .5 to .9875, less 0
    assert gain.mean == pytest.approx(gain.apparent, abs=0.01)
    assert 0.35 < gain.lower_bound < gain.mean
    assert gain.groups == 80


def test_a_model_that_does_the_same_gains_nothing() -> None:
    base = but_for([0, 1, 2])
    gain = decided(LABELS, base, [base])
    assert gain[:4] == (0.0, 0.0, 0.0, 0.0)
    assert not gain.sure
    assert gain.doubt("F1") == "its lower 95 % bound is +0.000 (F1)"


def test_the_luck_of_choosing_among_equals_is_no_gain() -> None:
    assert shares(60, 160, 0.0)[0] <= 0.1  # 5 % of 60 are three


def test_copies_are_no_evidence() -> None:
    """With ten copies of each row 47 % of such trainings shipped."""
    assert shares(60, 320, 0.0, copies=10)[0] <= 0.1


def test_a_gain_of_a_tenth_on_160_rows_ships_more_often_than_not() -> None:
    """38 % did."""
    assert shares(60, 160, 0.1)[0] >= 0.55


def test_what_is_told_of_an_adapter_that_ships_is_not_inflated() -> None:
    """On 40 rows only the lucky ship: of a gain of .10, about .26 is measured in those."""
    _, told, apparent = shares(100, 40, 0.1)
    assert np.mean(apparent) > 0.2
    assert np.mean(told) == pytest.approx(0.1, abs=0.045)


def test_f1_alone_is_no_gain() -> None:
    """Of coin flips with 80 % ones, more calls have a higher F1, and more false ones too."""
    generator = np.random.default_rng(0)
    labels = (generator.random(ROWS) < 0.8).astype(np.int64)
    base, more = generator.random(ROWS) < 0.5, generator.random(ROWS) < 0.95
    gain = decided(labels, base, [more])
    assert gain.lower_bound > 0.1
    assert gain.balanced_accuracy_bound < 0
    assert not gain.sure
    assert gain.doubt("F1").endswith("in balanced accuracy, whatever F1 says")


def test_a_gentler_choice_must_be_a_gain_itself() -> None:
    base = but_for(range(12))
    best, gentle = but_for(range(10)), base
    assert decided(LABELS, base, [gentle, best])[:2] == (pytest.approx(0, abs=0.03), pytest.approx(-0.05, abs=0.05))
    assert not decided(LABELS, base, [gentle, best]).sure


def test_choosing_among_many_needs_a_larger_gain() -> None:
    base = but_for(range(40))
    generator = np.random.default_rng(1)
    best = but_for(range(20))
    others = [but_for(generator.choice(ROWS, 40, replace=False)) for _ in range(7)]
    alone, among = decided(LABELS, base, [best]), decided(LABELS, base, [best, *others])
    assert among.lower_bound < alone.lower_bound
    assert among.apparent == alone.apparent


def test_too_few_groups_are_no_evidence() -> None:
    base, right = but_for(range(80)), but_for([])
    gain = decided(LABELS, base, [right], np.arange(ROWS) // 40)
    assert (gain.groups, gain.lower_bound, gain.sure) == (4, -1.0, False)
    assert gain.doubt("F1") == "one label has 4 groups of rows that belong together; expected at least 10"


def test_a_gain_is_told_in_the_cost_that_it_saves() -> None:
    """The bare model misses 40 calls and makes 8 without need; the finalist none: (8 + 4 * 40) / 160."""
    args = ASATrainingArguments(resamples=500, cost=(1, 4))
    gain = decided(LABELS, but_for([*range(1, 81, 2), *range(0, 16, 2)]), [but_for([])], args=args)
    assert gain.apparent == pytest.approx(1.05)
    assert gain.sure
    assert 0 < gain.balanced_accuracy_bound < gain.lower_bound < gain.mean


def test_calls_everywhere_are_no_sure_gain_whatever_a_missed_one_costs() -> None:
    args = ASATrainingArguments(resamples=500, cost=(1, 100))
    gain = decided(LABELS, but_for([]) & (np.arange(ROWS) % 4 == 1), [np.ones(ROWS, dtype=bool)], args=args)
    assert gain.lower_bound > 0
    assert not gain.sure
    assert "in balanced accuracy, whatever saved cost per row says" in gain.doubt("saved cost per row")


def test_under_a_limit_the_gain_is_in_balanced_accuracy() -> None:
    args = ASATrainingArguments(resamples=500, max_fpr=0.1)
    gain = decided(LABELS, but_for(range(1, 81, 2)), [but_for(range(1, 41, 2)), but_for(range(60))], args=args)
    assert gain.apparent == pytest.approx(0.125)
    assert gain.lower_bound == gain.balanced_accuracy_bound > 0


def test_how_often_the_same_setting_is_chosen_again_says_how_settled_the_choice_is() -> None:
    labels = np.arange(80) % 2
    right, wrong = labels == 1, labels == 0
    alone = GainRedraw.of(ARGS, labels, [one := finalist(right, 1.0)], one)
    assert alone.again == 1.0
    clear = [finalist(wrong, 1.0), finalist(right, 2.0)]
    assert GainRedraw.of(ARGS, labels, clear, clear[1]).again == 1.0
    left, other = right.copy(), right.copy()
    left[:20], other[20:40] = False, False  # each misses ten calls of its own
    level = [finalist(left, 1.0), finalist(other, 2.0)]
    chosen = GainRedraw.of(ARGS, labels, level, level[0]).again
    assert 0.5 < chosen < 1
    assert GainRedraw.of(ARGS, labels, level, level[1]).again == pytest.approx(1 - chosen)


def finalist(triggered: NDArray[np.bool_], alpha: float) -> Scored:
    score = float(Objective.of(ARGS).rank(ConfusionCounts.of(np.arange(80) % 2, triggered)))
    return Scored(Setting(1, alpha, 0.5, 0.0, "pooled"), score, triggered)
