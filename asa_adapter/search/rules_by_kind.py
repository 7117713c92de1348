"""Rules of their own for each kind of state, put together from what a race has measured already."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Reader, Scored, Setting, gated_triggers
from asa_adapter.choice.sure_departures import without_unsure_departures
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.config.value_checks import STATES
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.fitting.layer_fit import LayerPrediction
from asa_adapter.search.racing import PushKey, Race

# How many rules of each kind are tried with those of the others.
_BEST = 12


class _Rule(NamedTuple):
    """A rule for one kind of state, and the triggers of all rows under it."""

    setting: Setting  # with its own alpha, tau, beta and down
    triggered: NDArray[np.bool_]


def with_rules_by_kind(
    args: ASATrainingArguments,
    objective: Objective,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    predictions: Mapping[Reader, LayerPrediction],
    race: Race,
    scored: Sequence[Scored],
) -> list[Scored]:
    """The best settings with a rule for each kind of state, one for each place and probe of the given ones.

    A rule has a threshold, a direction, and steps towards a call and away from one, among those that the race ran to
    its end. The best rules of each kind by its own rows are tried together on all rows.

    Args:
        args: which thresholds take part.
        objective: what settings are ranked by.
        labels: (N,) 1 where a tool is needed.
        groups: (N,) numbers; rows with the same number belong together.
        predictions: out-of-fold predictions for the rows, by where they read.
        race: the race, after its run.
        scored: its settings with their results.

    Returns:
        The best first; none where one rule is for all rows.
    """
    rows, found = race.rows, list[Scored]()
    for (place, probe), (leader, *_) in _leaders_by_place(scored).items():
        if (rule := predictions[place].rule) is None:
            continue
        kinds = [rule[rows] == index for index in range(len(STATES))]
        p_tool = predictions[place].p_tool(probe)[rows]
        rules = _rules_of_race(args, leader, {one.setting for one in scored}, race, p_tool)
        best = [_best_rules_of_kind(args, objective, labels[rows], groups[rows], rules, mine) for mine in kinds]
        tried = [_joined_rules(leader, some, kinds) for some in itertools.product(*best)]
        scores = [float(objective.rank(ConfusionCounts.of(labels[rows], one.triggered))) for one in tried]
        found += [one._replace(score=score) for one, score in zip(tried, scores, strict=True)]
    return list(_leaders_by_place(found).values())


def _leaders_by_place(scored: Sequence[Scored]) -> dict[tuple[Reader, str], Scored]:
    """The best setting for each place and probe, the best of all first."""
    best: dict[tuple[Reader, str], Scored] = {}
    for one in sorted(scored, key=Scored.rank):
        best.setdefault((one.setting.reader, one.setting.probe), one)
    return best


def _rules_of_race(
    args: ASATrainingArguments, leader: Setting, ran: set[Setting], race: Race, p_tool: NDArray[np.float32]
) -> list[_Rule]:
    """All rules at the place of a setting, by the pushes that the race has run to its end."""
    rows, base = race.rows, race.base[race.rows]
    keys = sorted({PushKey(s.layer, s.beta, s.alpha) for s in ran if s.layer == leader.layer})
    found = []
    for up, down, tau in itertools.product(keys, keys, args.taus):
        if up.beta == down.beta:
            called = gated_triggers(p_tool, tau, base, race.called(up, 1)[rows], race.called(down, -1)[rows])
            own = leader._replace(alpha=up.alpha, beta=up.beta, tau=tau, down=down.alpha)
            found.append(_Rule(own, called))
    return found


def _best_rules_of_kind(
    args: ASATrainingArguments,
    objective: Objective,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    rules: Sequence[_Rule],
    mine: NDArray[np.bool_],
) -> list[_Rule]:
    """The best rules by the rows of one kind; of equal ones those with equal and smaller steps."""
    own = [
        Scored(rule.setting, objective.score(labels[mine], rule.triggered[mine], groups[mine]), rule.triggered[mine])
        for rule in rules
    ]

    def rank(one: Scored) -> tuple[float, ...]:
        setting = one.setting
        steps = setting.down != setting.alpha, setting.alpha + (setting.down or 0.0)
        return (-round(one.score, 9), *steps, -setting.tau)

    whole = {rule.setting: rule for rule in rules}
    told = without_unsure_departures(args, objective, labels[mine], own, groups[mine])
    return [whole[one.setting] for one in sorted(told, key=rank)[:_BEST]]


def _joined_rules(leader: Setting, rules: Sequence[_Rule], kinds: Sequence[NDArray[np.bool_]]) -> Scored:
    """A setting with these rules, whose score is still to be told."""
    called = np.select(list(kinds), [rule.triggered for rule in rules])
    by_state = tuple((state, _fields_of_rule(rule.setting)) for state, rule in zip(STATES, rules, strict=True))
    first = rules[0].setting
    setting = leader._replace(alpha=first.alpha, tau=first.tau, beta=first.beta, by_state=by_state)
    return Scored(setting, 0.0, called)


def _fields_of_rule(rule: Setting) -> tuple[tuple[str, float], ...]:
    values = (("alpha", rule.alpha), ("tau", rule.tau), ("beta", rule.beta))
    return values if rule.down == rule.alpha else (*values, ("alpha_down", float(rule.down or 0.0)))


def plain_and_by_kind(plain: Sequence[Scored], with_rules: Sequence[Scored]) -> list[Scored]:
    """Settings with one rule for all rows and those with a rule for each kind, in turn, as many as the plain ones."""
    turns = itertools.zip_longest(plain, with_rules)
    return [one for pair in turns for one in pair if one is not None][: len(plain)] if with_rules else list(plain)
