import numpy as np
import pytest

from asa_adapter.evaluation.intervals import comparison, interval, resamples
from asa_adapter.evaluation.metrics import Counts


def test_resamples_draw_as_many_rows_as_there_are_and_follow_the_seed() -> None:
    weights = resamples(30, 500, 7)
    assert weights.shape == (500, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert np.array_equal(weights, resamples(30, 500, 7))
    assert not np.array_equal(weights, resamples(30, 500, 8))


def test_an_interval_is_the_middle_95_percent() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx([25.0, 975.0])


def test_weighted_counts_are_those_of_the_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    labels, called = generator.integers(0, 2, 12), generator.integers(0, 2, (3, 12)).astype(bool)
    weights = resamples(12, 5, 0)
    counts = Counts.of(labels, called, weights)
    for b, times in enumerate(weights):
        rows = np.repeat(np.arange(12), times)
        plain = Counts.of(labels[rows], called[:, rows])
        for weighted, repeated in zip(counts, plain, strict=True):
            assert np.array_equal(weighted[:, b], repeated)


def test_an_interval_of_accuracy_covers_what_the_binomial_says() -> None:
    labels = np.zeros(400, dtype=int)
    wrong = np.arange(400) < 100
    low, high = comparison(labels, wrong, wrong)["intervals"]["asa"]["accuracy"]
    spread = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - spread, abs=0.006)
    assert high == pytest.approx(0.75 + spread, abs=0.006)


def test_the_gain_is_paired() -> None:
    """Two models that err on the same rows differ by less than their own intervals say."""
    generator = np.random.default_rng(1)
    labels = np.arange(200) % 2
    base = labels.astype(bool) ^ (generator.random(200) < 0.3)
    better = base.copy()
    mistakes = np.flatnonzero(base != labels.astype(bool))[:10]
    better[mistakes] = ~better[mistakes]
    found = comparison(labels, base, better)["intervals"]
    width = {name: high - low for name, (low, high) in ((n, found[n]["accuracy"]) for n in ("base", "asa", "gain"))}
    assert width["gain"] < 0.7 * width["base"]
    assert found["gain"]["accuracy"][0] > 0


@pytest.mark.parametrize(
    ("only_base", "only_asa", "p_value"), [(0, 0, 1.0), (0, 5, 2 * 0.5**5), (3, 3, 1.0), (1, 9, 22 / 1024)]
)
def test_mcnemar_is_exact(only_base: int, only_asa: int, p_value: float) -> None:
    labels = np.ones(20, dtype=int)
    base, asa = np.ones(20, dtype=bool), np.ones(20, dtype=bool)
    asa[:only_base] = False
    base[only_base : only_base + only_asa] = False
    found = comparison(labels, base, asa)
    assert (found["only_base_right"], found["only_asa_right"]) == (only_base, only_asa)
    assert found["mcnemar_p"] == pytest.approx(p_value)


def test_each_domain_is_compared_on_its_own_rows() -> None:
    labels = [1, 1, 0, 0] * 5
    base, asa = [True] * 20, [bool(label) for label in labels]
    found = comparison(labels, base, asa, ["a", "b"] * 10, draws=200)
    alone = comparison(labels[::2], base[::2], asa[::2], draws=200)
    assert sorted(found["by_domain"]) == ["a", "b"]
    assert found["by_domain"]["a"] == alone
