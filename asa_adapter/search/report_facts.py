"""What the report says of the screen: its best settings, and how far each layer's pushes move a call's opening."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, setting_facts, shortlisted_settings
from asa_adapter.evaluation.metrics import success_f1
from asa_adapter.tool_calls.outcomes import Outcome


def layer_effects(changes: Mapping[tuple[Any, int], float]) -> dict[int, dict[str, float]]:
    """What the report says of how much a push changes the probability of a call's first token, at each layer.

    Args:
        changes: mean change over rows, by (layer, beta, alpha) and sign; the steps of a layer are equally long.

    Returns:
        For each layer the mean change over betas, `up` for steps towards a call and `down` for steps away, at `alpha`.
    """
    effects = {}
    for layer in sorted({key[0] for key, _ in changes}):
        [alpha] = {key[2] for key, _ in changes if key[0] == layer}
        up, down = (
            float(np.mean([change for (key, sign), change in changes.items() if (key[0], sign) == (layer, wanted)]))
            for wanted in (1, -1)
        )
        effects[layer] = {"alpha": alpha, "up": up, "down": down}
    return effects


def screen_facts(
    objective: Objective,
    labels: NDArray[np.int64],
    base: NDArray[np.bool_],
    scored: Sequence[Scored],
    groups: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Results of the screen, for the report.

    Args:
        objective: what the screen ranked by.
        labels: (N,) 1 where a tool is needed.
        base: (N,) triggers of the bare model.
        scored: the settings that were measured on all rows, with their results.
        groups: (N,) numbers from 0; rows with the same number belong together. None makes each row a group.

    Returns:
        split, settings (their number), base, best_of_each_layer, front (the Pareto front of low FPR and high recall)
        and alpha_tau (scores by alpha and tau, the rest as in the best setting).
    """
    ranked = sorted(scored, key=Scored.rank)
    best = ranked[0].setting
    leaders = shortlisted_settings(scored, len({s.setting.layer for s in scored}))
    points = [(setting_facts(objective, labels, s.triggered, groups), s.setting) for s in scored]
    front: list[dict[str, Any]] = []
    for numbers, setting in sorted(points, key=lambda point: (point[0]["fpr"], -point[0]["recall"], point[1].alpha)):
        if not front or numbers["recall"] > front[-1]["recall"]:
            front.append({**setting.plain(), "recall": numbers["recall"], "fpr": numbers["fpr"]})
    return {
        "split": "train",
        "settings": len(scored),
        "base": setting_facts(objective, labels, base, groups),
        "best_of_each_layer": [scored_facts(objective, labels, leader, groups) for leader in leaders],
        "front": front,
        "alpha_tau": [
            {"alpha": s.setting.alpha, "tau": s.setting.tau, "score": s.score}
            for s in scored
            if s.setting._replace(alpha=best.alpha, tau=best.tau) == best
        ],
    }


def scored_facts(
    objective: Objective, labels: NDArray[np.int64], one: Scored, groups: NDArray[np.int64] | None
) -> dict[str, Any]:
    """A setting, and its `setting_facts` on rows with (N,) labels and groups."""
    return {**one.setting.plain(), **setting_facts(objective, labels, one.triggered, groups)}


def outcome_facts(
    objective: Objective, labels: NDArray[np.int64], outcome: Outcome, groups: NDArray[np.int64]
) -> dict[str, Any]:
    """The `setting_facts` of answers to rows with (N,) labels and groups, the calls that succeed and those cut."""
    return {
        **setting_facts(objective, labels, outcome.triggered, groups),
        "success_f1": float(success_f1(labels, outcome.triggered, outcome.fits)),
        "cut_share": float(outcome.cut.mean()),
    }


def finalist_facts(
    finalists: Sequence[Scored],
    own: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
    agreements: Sequence[float],
    errors: Sequence[float],
) -> list[dict[str, Any]]:
    """What the report says of each of F finalists.

    Args:
        finalists: the settings.
        own: the `outcome_facts` of each.
        scores: in the screen.
        agreements: shares of VALID rows on which first token and generation agree.
        errors: standard errors of the differences from the best.
    """
    return [
        {
            **finalist.setting.plain(),
            **found,
            "screen_score": score,
            "screen_agreement": agreement,
            "standard_error": error,
        }
        for finalist, found, score, agreement, error in zip(finalists, own, scores, agreements, errors, strict=True)
    ]
