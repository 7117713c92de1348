"""A classifier of the words of a prompt alone: a control beside what the probes measure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.data.rows import Row, row_labels, row_text
from asa_adapter.evaluation.metrics import auc, trigger_metrics


def bag_of_words(fitted_on: Sequence[Row], judged: Sequence[Row], seed: int = 42) -> dict[str, Any]:
    """Trigger metrics and AUC of the classifier of `word_scores`.

    If it is as good as the probe, the probe may only have learnt the wording.

    Args:
        fitted_on: labelled rows to fit on.
        judged: labelled rows to predict.
        seed: seed of the solver.

    Returns:
        The dict of `trigger_metrics`, with "auc" added.
    """
    p_tool = word_scores(fitted_on, judged, seed)
    labels = row_labels(judged)
    return {**trigger_metrics(labels, p_tool >= 0.5), "auc": auc(labels, p_tool)}


def word_scores(fitted_on: Sequence[Row], judged: Sequence[Row], seed: int = 42) -> NDArray[np.float64]:
    """(N,) probabilities that a tool is needed, by a classifier that sees the words of the prompt and no state.

    It is a logistic regression on TF-IDF features of words and word pairs.

    Args:
        fitted_on: labelled rows to fit on.
        judged: N rows to predict.
        seed: seed of the solver.

    Raises:
        ValueError: the rows to fit on have one label only, or no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000, random_state=seed))
    model.fit([row_text(row) for row in fitted_on], [int(row["label"]) for row in fitted_on])
    return np.asarray(model.predict_proba([row_text(row) for row in judged])[:, 1], dtype=np.float64)
