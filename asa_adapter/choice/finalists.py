"""Chooses among the finalists: by answers to the rows of VALID, and by first tokens of answers to those of TRAIN."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.intervals import resamples
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import ConfusionCounts, success_f1


class ScreenedFinalists(NamedTuple):
    """What the screen knows of F finalists: rows of TRAIN by their first tokens, with out-of-fold probes.

    Attributes:
        labels: (M,) 1 where a tool is needed.
        triggered: (F, M) whether each answer begins with a call.
        groups: (M,) numbers; rows with the same number belong together.
    """

    labels: NDArray[np.int64]
    triggered: NDArray[np.bool_]
    groups: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        finalists: Sequence[Scored],
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
    ) -> "ScreenedFinalists":
        """What finalists did in the screen on (M,) rows of TRAIN, whose labels and groups are given."""
        return cls(labels[rows], np.stack([finalist.triggered for finalist in finalists]), groups[rows])


class FinalistEvidence(NamedTuple):
    """The rows by which F finalists are compared: N of VALID, then, where they count, M of TRAIN.

    Attributes:
        labels: (N + M,) 1 where a tool is needed.
        called: (F, N + M) whether the answer calls a tool.
        weights: (B, N + M) how often each row counts in each of B resamples; each split is drawn for itself.
    """

    labels: NDArray[np.int64]
    called: NDArray[np.bool_]
    weights: NDArray[np.int64]

    def plain(self) -> ConfusionCounts:
        """(F,) counts of the rows."""
        return ConfusionCounts.of(self.labels, self.called)

    def drawn(self) -> ConfusionCounts:
        """(F, B) counts of the resamples."""
        return ConfusionCounts.of(self.labels, self.called, self.weights)

    def first(self, rows: int) -> "FinalistEvidence":
        """The first rows alone: as many as VALID has are VALID's."""
        return FinalistEvidence(self.labels[:rows], self.called[:, :rows], self.weights[:, :rows])

    def successes(
        self, finalists: Sequence[Scored]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
        """F1 of successful calls: (F,), (F, B) of the resamples, and the (F, F) standard errors of the differences.

        It is known of VALID's rows alone, which these have to be; None where a finalist has no `fits`.
        """
        fits = [finalist.fits for finalist in finalists if finalist.fits is not None]
        if len(fits) < len(finalists):
            return None
        drawn = success_f1(self.labels, self.called, np.stack(fits), self.weights)
        return success_f1(self.labels, self.called, np.stack(fits)), drawn, standard_errors(drawn)

    @classmethod
    def of(
        cls,
        args: ASATrainingArguments,
        labels: NDArray[np.int64],
        finalists: Sequence[Scored],
        groups: NDArray[np.int64] | None = None,
        screened: ScreenedFinalists | None = None,
    ) -> "FinalistEvidence":
        """Puts the rows together and draws them again; see `choose` for the arguments."""
        called = np.stack([finalist.triggered for finalist in finalists])
        weights = resamples(len(labels), args.resamples, args.seed, groups)
        if screened is None:
            return cls(labels, called, weights)
        others = resamples(len(screened.labels), args.resamples, args.seed + 1, screened.groups)
        return cls(
            np.concatenate([labels, screened.labels]),
            np.concatenate([called, screened.triggered], axis=1),
            np.concatenate([weights, others], axis=1),
        )


def choose(
    args: ASATrainingArguments,
    labels: NDArray[np.int64],
    finalists: Sequence[Scored],
    groups: NDArray[np.int64] | None = None,
    screened: ScreenedFinalists | None = None,
) -> tuple[Scored, list[float]]:
    """The gentlest finalist within one standard error of the best; one that meets max_fpr, if any does.

    Where it is known which calls fit an offered tool, it is the gentlest of those finalists that are also within one
    standard error of the best of them in the F1 of successful calls.

    Small differences between finalists are mostly noise, and a smaller step is safer. The standard error is that of
    the difference from the best finalist on the same rows, by a paired bootstrap. The rows of TRAIN make it smaller.

    Args:
        args: of these, the objective with its limit, resamples and seed are used.
        labels: (N,) 1 where a tool is needed, of VALID.
        finalists: F settings with their results on these rows; the limit and successful calls are judged here alone.
        groups: (N,) numbers from 0; rows with the same number are drawn together. None makes each row a group.
        screened: what is known of TRAIN, which then counts row by row as VALID does; None where its first tokens do
            not tell enough.

    Returns:
        The chosen finalist, and the F standard errors of the differences from the best.
    """
    objective = Objective.of(args)
    evidence = FinalistEvidence.of(args, labels, finalists, groups, screened)
    errors, plain = standard_errors(objective.value(evidence.drawn())), objective.value(evidence.plain())
    keeps = np.array([args.max_fpr is None or finalist.score >= 0 for finalist in finalists])
    success = None
    if found := evidence.first(len(labels)).successes(finalists):
        values, _, apart = found
        success = values[:, None], apart
    gentleness = [finalist.gentleness() for finalist in finalists]
    chosen = gentlest_near_best(gentleness, plain[:, None], errors, keeps[:, None], success)
    best = int(np.where(keeps == keeps.any(), plain, -np.inf).argmax())
    return finalists[int(chosen[0])], errors[best].tolist()


def standard_errors(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, F) standard errors of the differences between the (F, B) resampled scores of finalists."""
    return np.stack([(scores - one).std(axis=1) for one in scores])


def gentlest_near_best(
    gentleness: Sequence[tuple[float, ...]],
    scores: NDArray[np.float64],
    errors: NDArray[np.float64],
    keeps: NDArray[np.bool_],
    success: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> NDArray[np.int64]:
    """The gentlest finalist within one standard error of the best, in each of B trials.

    Args:
        gentleness: sort keys of F settings, the gentlest first.
        scores: (F, B) results, higher is better.
        errors: (F, F) standard errors of their differences.
        keeps: (F, B) whether the limit of the FPR is kept; settings that keep it come first.
        success: (F, B) results and (F, F) standard errors by which the near ones must be near the best of them too.

    Returns:
        (B,) int64 indices.
    """
    first = keeps == keeps.any(axis=0)
    ranked = np.where(first, scores, -np.inf)
    near = first & _near_best(ranked, errors)
    if success is not None:
        near &= _near_best(np.where(near, success[0], -np.inf), success[1])
    # Of equally gentle ones, the one that scores higher.
    ranks = np.unique(np.array(gentleness), axis=0, return_inverse=True)[1].reshape(-1, 1)
    gentlest = near & (ranks == np.where(near, ranks, len(ranks)).min(axis=0))
    return np.where(gentlest, ranked, -np.inf).argmax(axis=0)


def _near_best(ranked: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F, B) which of the (F, B) results lie within the (F, F) standard errors of the best one's difference."""
    best = ranked.argmax(axis=0)
    return ranked[best, np.arange(ranked.shape[1])] - ranked <= errors[best].T
