"""`Alternatives`: what other actions than the push would reach by the same gates, and which of them generate too.

Also what a search says where pushes are hopeless.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.other_actions import best_by_action, biased_settings, opened_by_bias, scored_actions, with_bias
from asa_adapter.choice.settings import Reader, Scored, shortlisted_settings
from asa_adapter.choice.sure_departures import without_unsure_departures
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.fitting.layer_fit import LayerPrediction
from asa_adapter.search.racing import Race
from asa_adapter.search.report_facts import scored_facts


class Alternatives:
    """The best setting of each other action on the rows of TRAIN that a race has run, by first tokens.

    Args:
        args: which settings take part.
        objective: what they are ranked by.
        labels: (N,) 1 where a tool is needed.
        groups: (N,) numbers; rows with the same number belong together.
        predictions: out-of-fold predictions for the rows, by where they read.
        race: the race, after its run.
        steering: its settings with their results.

    Attributes:
        best: by name ("force", "bias", "both") the best setting and its result.
    """

    def __init__(
        self,
        args: ASATrainingArguments,
        objective: Objective,
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        predictions: Mapping[Reader, LayerPrediction],
        race: Race,
        steering: Sequence[Scored],
    ) -> None:
        self._args, self._objective = args, objective
        self._labels, self._groups = labels[race.rows], groups[race.rows]
        rows, base, bare = race.rows, race.base[race.rows], race.margin[race.rows]
        pushed = [one.setting for one in shortlisted_settings(steering, args.finalists)]
        triggers = {}
        for setting in [*biased_settings(list(predictions), args), *with_bias(pushed)]:
            p_tool = predictions[setting.reader].p_tool(setting.probe)[rows]
            both = setting.action == "both"
            up, down = (margins[rows] for margins in race.margins(setting)) if both else (bare, bare)
            triggers[setting] = opened_by_bias(setting, p_tool, base, up, down)
        scored = scored_actions(objective, self._labels, triggers, self._groups)
        told = without_unsure_departures(args, objective, self._labels, scored, self._groups)
        self.best = best_by_action(told)
        self._steering = min(steering, key=Scored.rank)
        self._bare = float(ConfusionCounts.of(self._labels, base).ratios()["f1"])

    def asked(self, hopeless: bool) -> list[Scored]:
        """Those of `best` whose action the arguments name; where no push moves anything, none that pushes."""
        named = [one for one in self.best.values() if one.setting.action in self._args.actions]
        return [one for one in named if not (hopeless and one.setting.action == "both")]

    def facts(self) -> dict[str, Any]:
        """By name, "steer" among them, the best setting and what it reached, for the report."""
        return {name: self._facts(one) for name, one in {"steer": self._steering, **self.best}.items()}

    def _facts(self, one: Scored) -> dict[str, Any]:
        return scored_facts(self._objective, self._labels, one, self._groups)

    def advice(self) -> str:
        """Which action would help where no push does, and what it reached."""
        best = min((self.best["force"], self.best["bias"]), key=Scored.rank)
        found, setting = self._facts(best), best.setting
        how = (
            "forcing or forbidding the opening"
            if math.isinf(setting.bias)
            else f"a bias of {setting.bias:g} on its logits"
        )
        return (
            f"{how} by the gate of layer {setting.layer} gives, by first tokens on these rows, F1 {found['f1']:.3f} "
            f"and FPR {found['fpr']:.3f} (the bare model {self._bare:.3f})"
        )


def why_no_push_helps(race: Race, layers: int, report: Mapping[str, Any], others: Alternatives) -> str:
    """Why no push can help, and what could.

    Args:
        race: the race, after its run.
        layers: number of layers that took part.
        report: of it, `habit` and `tool_call_format` are read.
        others: the other actions.
    """
    habit = report.get("habit", {})
    if calls := habit.get("calls"):
        shares = ", ".join(f"{name} {round(100 * share)} %" for name, share in habit["shares"].items())
        written = f"its calls come as {shares} of {calls}"
    else:
        written = f"it called nothing in {habit.get('answers', 0)} answers"
    if others.asked(hopeless=True):
        then = "VALID decides about the logits of the opening alone"
    else:
        then = (
            "the adapter abstains. What could help: the tool_call_format of its calls, if they come in another one; a "
            "chat template that shows it the tools; an action on the logits in place of the states, with "
            'ASATrainingArguments(actions="all")'
        )
    return (
        f"no push at any of {layers} layers changed a decision on {len(race.rows)} rows of TRAIN, or moved the "
        f"probability of a call's opening by more than {race.moved:.2g} in the mean; the bare model begins "
        f"{int(race.base.sum())} of their answers with a call, and {written} (read as "
        f"{report.get('tool_call_format')}); {then}: {others.advice()}"
    )
