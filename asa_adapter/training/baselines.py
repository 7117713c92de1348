"""What a number must be compared with: how far the wording alone goes, and labels that mean nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.data.prompts import Row
from asa_adapter.data.splits import row_text
from asa_adapter.evaluation.metrics import auc, trigger_metrics


def bag_of_words(fitted_on: Sequence[Row], judged: Sequence[Row], seed: int = 42) -> dict[str, Any]:
    """Trigger metrics and AUC of a classifier that sees the words of the user's text and nothing of the model.

    One- and two-word TF-IDF features and a logistic regression. Where it does as well as the probe, the probe may have
    learnt the wording too.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000, random_state=seed))
    model.fit([row_text(row) for row in fitted_on], [int(row["label"]) for row in fitted_on])
    p_tool = model.predict_proba([row_text(row) for row in judged])[:, 1]
    labels = np.array([int(row["label"]) for row in judged])
    return {**trigger_metrics(labels, p_tool >= 0.5), "auc": auc(labels, p_tool)}


def shuffled_within(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> NDArray[np.int64]:
    """(N,) control labels, random but half 0 and half 1 within each true label and domain.

    Plainly permuted labels keep a small chance correlation with the true ones, and a strongly regularised probe
    follows it: its AUC is then far from 0.5 on either side.
    """
    generator = np.random.default_rng(seed)
    pairs = list(zip(labels.tolist(), domains, strict=True))
    shuffled = np.zeros_like(labels)
    for group in sorted(set(pairs)):
        rows = np.flatnonzero([pair == group for pair in pairs])
        shuffled[rows] = generator.permutation((np.arange(len(rows)) + generator.integers(2)) % 2)
    if len(np.unique(shuffled)) < 2:  # groups of one row each, that all fell the same way
        shuffled = generator.permutation(np.arange(len(labels)) % 2)
    return shuffled
