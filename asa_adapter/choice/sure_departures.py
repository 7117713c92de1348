"""Which gates may differ from the plain one: those that are surely better.

A push can be gated in many ways for nothing: by each threshold, by the domain's probe or the pooled one, read at one
layer or at several. The best of so many by a few hundred rows is often the luckiest, and other rows would choose
another.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.intervals import resamples
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import ConfusionCounts

# A gate is surely better by more than this many standard errors of its difference from the plain one: with some twenty
# gates for each of dozens of pushes, two are reached by luck.
_SURE = 3.0
_MOST_RESAMPLES = 200


def without_unsure_departures(
    args: ASATrainingArguments,
    objective: Objective,
    labels: NDArray[np.int64],
    scored: Sequence[Scored],
    groups: NDArray[np.int64] | None,
) -> list[Scored]:
    """Settings whose gate is the plain one, or better than it on the same rows by more than three standard errors.

    The plain gate asks the first of `args.probes`, has the lowest tau and reads the most layers, whose mean also holds
    better for wordings that were not fitted on; the two are compared where all else is equal. With `max_fpr` all
    settings stay, since it is the threshold that keeps the limit.

    Args:
        args: of these, probes, resamples and seed are used.
        objective: what settings are chosen by.
        labels: (N,) 1 where a tool is needed.
        scored: settings with one rule for all rows, and their results on these rows.
        groups: (N,) numbers; rows with the same number are drawn together. None makes each row a group.
    """
    if objective.max_fpr is not None:
        return list(scored)
    alike: dict[Setting, list[Scored]] = defaultdict(list)
    for one in scored:
        alike[one.setting._replace(tau=0.0, probe="", read_layers=())].append(one)
    weights = resamples(len(labels), min(args.resamples, _MOST_RESAMPLES), args.seed, groups)
    kept = set[Setting]()
    for some in alike.values():
        plain_first = sorted(some, key=lambda one: _departure(one.setting, args))
        kept |= {one.setting for one in _first_or_surely_better(plain_first, objective, labels, weights)}
    return [one for one in scored if one.setting in kept]


def _departure(setting: Setting, args: ASATrainingArguments) -> tuple[float, ...]:
    """Sort key: the plain gate first."""
    return list(args.probes).index(setting.probe), setting.tau, -len(setting.read_layers)


def _first_or_surely_better(
    some: Sequence[Scored], objective: Objective, labels: NDArray[np.int64], weights: NDArray[np.int64]
) -> list[Scored]:
    """The first of some settings, and those that are better than it beyond noise."""
    called = np.stack([one.triggered for one in some])
    values = objective.value(ConfusionCounts.of(labels, called))
    drawn = objective.value(ConfusionCounts.of(labels, called, weights))
    sure = values - values[0] > _SURE * (drawn - drawn[0]).std(axis=1)
    return [one for i, one in enumerate(some) if i == 0 or sure[i]]
