from typing import Any

import numpy as np
import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.finalists import ScreenedFinalists, choose
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import (
    Reader,
    Scored,
    Setting,
    gated_triggers,
    readers_to_try,
    setting_facts,
    setting_grid,
    share_left_alone,
    shortlisted_settings,
)
from asa_adapter.evaluation.metrics import ConfusionCounts

ROWS = 160
LABELS = np.arange(ROWS) % 2
ARGS = ASATrainingArguments(layers=(1, 2), alphas=(0.0, 0.5, 1.0), taus=(0.5, 0.7), betas=(0.0, 1.0))


def scored(args: ASATrainingArguments, setting: Setting, wrong: Any) -> Scored:
    """A setting whose triggers are right but for some rows."""
    triggered = but_for(wrong)
    return Scored(setting, float(Objective.of(args).rank(ConfusionCounts.of(LABELS, triggered))), triggered)


def but_for(wrong: Any) -> Any:
    """Triggers that are right but for some rows."""
    triggered = LABELS.astype(bool)
    triggered[np.asarray(wrong, dtype=int)] ^= True
    return triggered


def setting(layer: int = 1, alpha: float = 1.0, tau: float = 0.5) -> Setting:
    return Setting(layer, alpha, tau, 0.5, "domain")


def test_the_grid_holds_every_setting_but_no_step_of_zero() -> None:
    settings = list(setting_grid(ARGS, [Reader(1), Reader(2), Reader(2, (1, 2))]))
    assert len(settings) == len(set(settings)) == 3 * 2 * 2 * 2 * 2
    assert {s.reader for s in settings} == {(1, ()), (2, ()), (2, (1, 2))}
    assert {s.alpha for s in settings} == {0.5, 1.0}


def test_the_probes_read_as_many_layers_as_are_there_up_to_the_steered_one() -> None:
    args = ASATrainingArguments(read_layers=(1, 3, 9))
    assert readers_to_try(args, [7, 2, 5, 4]) == [
        (7, ()),
        (7, (4, 5, 7)),
        (7, (2, 4, 5, 7)),
        (2, ()),
        (5, ()),
        (5, (2, 4, 5)),
        (4, ()),
        (4, (2, 4)),
    ]
    assert readers_to_try(ASATrainingArguments(read_layers=(1,)), [1, 2]) == [(1, ()), (2, ())]


def test_the_gate_picks_among_bare_up_and_down() -> None:
    p_tool = np.array([0.95, 0.5, 0.05], dtype=np.float32)
    base, up, down = (np.array(values) for values in ([0, 1, 1], [1, 0, 0], [1, 0, 0]))
    assert gated_triggers(p_tool, 0.9, base == 1, up == 1, down == 1).tolist() == [True, True, False]


def test_the_shortlist_takes_the_best_of_each_layer_first() -> None:
    candidates = [
        scored(ARGS, setting(1, 0.5), []),
        scored(ARGS, setting(1, 1.0), [0]),
        scored(ARGS, setting(2, 0.5), [0, 1, 2]),
        scored(ARGS, setting(2, 1.0), [0, 1]),
    ]
    order = [s.setting for s in shortlisted_settings(candidates, 3)]
    assert order == [setting(1, 0.5), setting(2, 1.0), setting(1, 1.0)]


def test_equal_scores_go_to_the_smaller_step_then_to_the_gate_that_opens_less() -> None:
    equal = [scored(ARGS, setting(1, 1.0, 0.7), []), scored(ARGS, setting(1, 0.5, 0.5), [])]
    assert min(equal, key=Scored.rank).setting.alpha == 0.5
    equal = [scored(ARGS, setting(1, 0.5, 0.5), []), scored(ARGS, setting(1, 0.5, 0.7), [])]
    assert min(equal, key=Scored.rank).setting.tau == 0.7


def test_a_smaller_step_within_one_standard_error_is_chosen() -> None:
    best, near = scored(ARGS, setting(alpha=2.0), [0]), scored(ARGS, setting(alpha=0.5), [2, 4])
    far = scored(ARGS, setting(alpha=0.25), range(0, 40))
    chosen, errors = choose(ARGS, LABELS, [best, near, far])
    assert chosen is near
    assert errors[0] == 0
    assert 0 < errors[1] < errors[2]


def test_a_smaller_step_that_is_clearly_worse_is_not_chosen() -> None:
    best, far = scored(ARGS, setting(alpha=2.0), []), scored(ARGS, setting(alpha=0.5), range(0, 40, 2))
    assert choose(ARGS, LABELS, [far, best])[0] is best


def test_a_gentle_setting_that_breaks_the_limit_is_not_chosen() -> None:
    args = ASATrainingArguments(max_fpr=0.05)
    keeps = scored(args, setting(alpha=2.0), [0, 2, 4])  # 3 of 80 without need are called
    breaks = scored(args, setting(alpha=0.5), [0, 2, 4, 6, 8])
    assert breaks.score < 0 < keeps.score
    assert choose(args, LABELS, [breaks, keeps])[0] is keeps


def test_with_a_confidence_the_limit_holds_for_the_upper_bound() -> None:
    """Of 80 rows without need, 1 called: at most .054 with 95 % confidence; 4 called: at most .107."""
    args = ASATrainingArguments(max_fpr=0.1, max_fpr_confidence=0.95)
    objective = Objective.of(args)
    few, many = scored(args, setting(alpha=2.0), [0, 1, 3, 5]), scored(args, setting(alpha=0.5), [0, 2, 4, 6])
    assert setting_facts(objective, LABELS, few.triggered, None)["fpr_upper_bound_95"] == pytest.approx(
        0.0541, abs=1e-4
    )
    assert setting_facts(objective, LABELS, many.triggered, None)["fpr_upper_bound_95"] == pytest.approx(
        0.1068, abs=1e-4
    )
    assert many.score == -0.05
    assert few.score == 77 / 80
    assert choose(args, LABELS, [many, few])[0] is few
    measured = [many._replace(score=Objective("f1", 0.1).score(LABELS, many.triggered, None)), few]
    assert choose(ASATrainingArguments(max_fpr=0.1), LABELS, measured)[0] is measured[0]


def test_copies_do_not_narrow_the_bound_of_the_limit() -> None:
    """Four copies of 20 rows without need, one of which is called: .05, at most .196 of 20 rows and .107 of 80."""
    objective, groups = Objective("f1", 0.15, 0.95), np.where(LABELS == 0, np.arange(ROWS) // 8, np.arange(ROWS))
    triggered = (LABELS == 1) | (groups == 0)
    assert objective.score(LABELS, triggered, None) == 1.0
    assert objective.score(LABELS, triggered, groups) == pytest.approx(-0.05)
    assert setting_facts(objective, LABELS, triggered, groups)["fpr_upper_bound_95"] == pytest.approx(0.196, abs=1e-3)


def test_a_bound_that_is_too_high_without_a_false_call_is_no_kept_limit() -> None:
    assert Objective("f1", 0.01, 0.95).score(LABELS, LABELS == 1, None) < 0  # z^2 / (80 + z^2) = .033


def test_the_screen_takes_the_highest_fpr_whose_bound_valid_can_keep() -> None:
    assert Objective("f1", 0.1, 0.95).screening(LABELS) == Objective("f1", 3 / 80)
    assert Objective("f1", 0.1).screening(LABELS) == Objective("f1", 0.1)
    with pytest.raises(ValueError, match=r"80 rows without need: .* max_fpr 0\.03\. Give at least 88 such rows"):
        Objective("f1", 0.03, 0.95).screening(LABELS)


def test_a_cost_is_counted_for_each_row() -> None:
    """Of 160 rows 8 are called without need and 4 missed."""
    objective = Objective.of(ASATrainingArguments(cost=(1, 4)))
    called = but_for([*range(0, 16, 2), *range(1, 9, 2)])
    assert objective.score(LABELS, called, None) == -(8 + 4 * 4) / 160
    assert objective.gain_name == "saved cost per row"
    assert str(objective) == "the cost per row (1 for a needless call, 4 for a missed one)"


@pytest.mark.parametrize(("cost", "tau"), [((1, 9), 0.5), ((9, 1), 0.9)])
def test_the_cost_decides_which_tau_is_chosen(cost: tuple[float, float], tau: float) -> None:
    """The gate that opens early calls without need, the one that opens late misses calls."""
    args = ASATrainingArguments(cost=cost)
    early = scored(args, setting(tau=0.5), range(0, 60, 2))
    late = scored(args, setting(tau=0.9), range(1, 61, 2))
    assert choose(args, LABELS, [early, late])[0].setting.tau == tau


def test_under_a_limit_recall_is_what_counts() -> None:
    args = ASATrainingArguments(max_fpr=0.3)
    much = scored(args, setting(alpha=2.0), range(0, 48, 2))  # FPR .3, recall 1
    little = scored(args, setting(alpha=0.25), range(1, 61, 2))  # FPR 0, recall .625
    assert much.score == 1.0
    assert little.score == 0.625
    assert choose(args, LABELS, [little, much])[0] is much


def test_copies_do_not_narrow_the_standard_error() -> None:
    """Ten copies of 16 rows: taken for 160 rows, the gentler setting seemed surely worse."""
    copy_of = np.arange(ROWS) // 2 % 16
    best = scored(ARGS, setting(alpha=2.0), np.flatnonzero(copy_of == 1))
    gentle = scored(ARGS, setting(alpha=0.5), np.flatnonzero((copy_of == 0) | (copy_of == 2)))
    assert choose(ARGS, LABELS, [best, gentle])[0] is best
    assert choose(ARGS, LABELS, [best, gentle], copy_of)[0] is gentle


def on_train(*wrong: Any) -> ScreenedFinalists:
    """Two rows of TRAIN for each of VALID; the settings' triggers are right but for some of them."""
    labels = np.tile(LABELS, 2)
    triggered = np.tile(labels.astype(bool), (len(wrong), 1))
    for row, some in zip(triggered, wrong, strict=True):
        row[np.asarray(some, dtype=int)] ^= True
    return ScreenedFinalists(labels, triggered, np.arange(len(labels)))


def test_rows_of_train_tell_apart_what_valid_does_not() -> None:
    strong, gentle = scored(ARGS, setting(alpha=2.0), [0]), scored(ARGS, setting(alpha=0.5), [2, 4])
    chosen, errors = choose(ARGS, LABELS, [strong, gentle])
    assert chosen is gentle
    clear, fewer = choose(ARGS, LABELS, [strong, gentle], screened=on_train([0], range(2, 62, 2)))
    assert clear is strong
    equal, smaller = choose(ARGS, LABELS, [strong, gentle], screened=on_train([0], [2]))
    assert equal is gentle
    assert 0 == smaller[0] < smaller[1] < errors[1] < fewer[1]


def test_rows_of_train_overrule_a_lucky_half_of_valid() -> None:
    """On VALID the first is better by more than a standard error, on twice as many rows of TRAIN it is far worse."""
    lucky, sound = scored(ARGS, setting(alpha=0.5), []), scored(ARGS, setting(alpha=2.0), range(0, 16, 2))
    assert choose(ARGS, LABELS, [lucky, sound])[0] is lucky
    assert choose(ARGS, LABELS, [lucky, sound], screened=on_train(range(0, 160, 2), []))[0] is sound


def test_the_limit_is_judged_on_valid_alone() -> None:
    args = ASATrainingArguments(max_fpr=0.05)
    keeps, breaks = scored(args, setting(alpha=2.0), [1, 3]), scored(args, setting(alpha=0.5), [0, 2, 4, 6, 8])
    assert choose(args, LABELS, [breaks, keeps], screened=on_train([], range(0, 160, 2)))[0] is keeps


def test_copies_in_train_do_not_narrow_the_standard_error() -> None:
    strong, gentle = scored(ARGS, setting(alpha=2.0), []), scored(ARGS, setting(alpha=0.5), [0])
    rows = on_train([], range(0, 24, 2))
    copied = rows._replace(groups=np.where(rows.labels == 0, np.arange(len(rows.labels)) // 24, 1000))
    assert choose(ARGS, LABELS, [strong, gentle], screened=rows)[0] is strong
    assert choose(ARGS, LABELS, [strong, gentle], screened=copied)[0] is gentle


def test_objectives_score_what_they_name() -> None:
    counts = ConfusionCounts.of([1] * 5 + [0] * 4, [1, 1, 1, 1, 0, 1, 0, 0, 0])
    assert float(Objective().rank(counts)) == pytest.approx(0.8)
    assert float(Objective("balanced_accuracy").rank(counts)) == pytest.approx(0.775)
    assert float(Objective(max_fpr=0.25).rank(counts)) == 0.8
    assert float(Objective(max_fpr=0.2).rank(counts)) == -0.25
    assert float(Objective(max_fpr=0.2).value(counts)) == 0.8
    assert float(Objective(max_fpr=0.2).gain(counts)) == pytest.approx(0.775)


def test_among_equals_the_gate_that_leaves_more_rows_alone_is_the_gentler_one() -> None:
    """A tau says little across probes: one that is sure of everything opens its gate at .9 too."""
    triggered = but_for([])
    sure = Scored(
        setting(layer=2, tau=0.9), 1.0, triggered, alone=share_left_alone(np.full(4, 0.99, dtype=np.float32), 0.9)
    )
    unsure = Scored(
        setting(tau=0.7), 1.0, triggered, alone=share_left_alone(np.array([0.9, 0.6, 0.5, 0.4], "f4"), 0.7)
    )
    assert (sure.alone, unsure.alone) == (0.0, 0.75)
    assert choose(ARGS, LABELS, [sure, unsure])[0] is unsure
    assert shortlisted_settings([sure, unsure], 1) == [unsure]
    smaller = Scored(setting(layer=2, alpha=0.5, tau=0.9), 1.0, triggered)
    assert choose(ARGS, LABELS, [unsure, smaller])[0] is smaller
    same = sure._replace(alone=unsure.alone)
    assert choose(ARGS, LABELS, [unsure, same])[0] is same


def test_of_equally_long_steps_the_better_is_taken_however_many_layers_it_reads() -> None:
    one, four = (
        scored(ARGS, setting()._replace(read_layers=read), wrong) for read, wrong in (((), [0]), ((0, 1), []))
    )
    assert choose(ARGS, LABELS, [one, four])[0] is four
    assert choose(ARGS, LABELS, [four, one])[0] is four
    equal = [four._replace(score=one.score), one]
    assert min(equal, key=Scored.rank) is one


def test_fewer_limits_of_readiness_are_gentler_whatever_else_is_equal() -> None:
    plain = Setting(2, 1.0, 0.6, 1.0, "pooled", by_state=(("first", (("alpha", 1.0),)), ("after_result", ())))
    limited = (("first", (("alpha", 1.0), ("ready_below", 0.5), ("route", 0.5))), ("after_result", ()))
    assert plain.gentleness() < plain._replace(by_state=limited).gentleness()
    neutral = (("first", (("alpha", 1.0), ("ready_below", 1.0), ("domain_alpha", 0.0))), ("after_result", ()))
    assert plain.gentleness() == plain._replace(by_state=neutral).gentleness()


@pytest.mark.parametrize(("tau", "share"), [(0.5, 0.0), (0.6, 0.25), (0.9, 0.75)])
def test_rows_between_the_two_sides_of_the_gate_are_left_alone(tau: float, share: float) -> None:
    assert share_left_alone(np.array([0.95, 0.7, 0.5, 0.2], dtype=np.float32), tau) == share
