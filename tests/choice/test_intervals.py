import numpy as np
import pytest
from scipy.stats import binomtest

from asa_adapter.choice.intervals import paired_intervals, resamples, wilson
from asa_adapter.evaluation.metrics import ConfusionCounts


def test_resamples_draw_as_many_rows_as_there_are_and_follow_the_seed() -> None:
    weights = resamples(30, 500, 7)
    assert weights.shape == (500, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert np.array_equal(weights, resamples(30, 500, 7))
    assert not np.array_equal(weights, resamples(30, 500, 8))


def test_rows_of_a_group_are_drawn_together_and_groups_as_often_as_there_are() -> None:
    groups = np.array([0, 1, 0, 2, 1, 0])
    weights = resamples(6, 200, 7, groups)
    assert np.array_equal(weights[:, [0, 1, 3]], resamples(3, 200, 7))
    assert np.array_equal(weights, weights[:, [0, 1, 3]][:, groups])


def test_weighted_counts_are_those_of_the_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    labels, called = generator.integers(0, 2, 12), generator.integers(0, 2, (3, 12)).astype(bool)
    weights = resamples(12, 5, 0)
    counts = ConfusionCounts.of(labels, called, weights)
    for b, times in enumerate(weights):
        rows = np.repeat(np.arange(12), times)
        plain = ConfusionCounts.of(labels[rows], called[:, rows])
        for weighted, repeated in zip(counts, plain, strict=True):
            assert np.array_equal(weighted[:, b], repeated)


@pytest.mark.parametrize(("hits", "rows"), [(0, 20), (3, 20), (20, 20), (1, 1), (0, 1), (100, 400)])
def test_a_share_has_wilsons_interval(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    found = wilson(np.arange(rows) < hits)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_measured_may_be_anything() -> None:
    assert wilson([]) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_copies_tell_as_much_as_one_of_them(share: float) -> None:
    alone = np.arange(20) < 20 * share
    copied, groups = np.repeat(alone, 5), np.repeat(np.arange(20), 5)
    low, high = wilson(alone)
    assert wilson(copied, groups) == pytest.approx((low, high), abs=0.015)
    assert np.diff(wilson(copied)) < 0.7 * (high - low)


def test_rows_of_a_group_that_have_nothing_in_common_tell_as_much_as_others() -> None:
    hits = np.random.default_rng(0).permutation(np.arange(200) < 100)
    groups = np.arange(200) // 4
    assert wilson(hits, groups) == pytest.approx(wilson(hits), abs=0.02)


def perfect(rows: int) -> tuple[list[int], list[bool]]:
    labels = [i % 2 for i in range(rows)]
    return labels, [bool(label) for label in labels]


def test_ratios_of_0_and_1_are_not_certain() -> None:
    """Every one of these intervals had no width."""
    labels, right = perfect(40)
    found = paired_intervals(labels, np.zeros(40, dtype=bool), right, draws=200)["intervals"]
    twenty, forty = 1 / (1 + 1.96**2 / 20), 1 / (1 + 1.96**2 / 40)
    for name, low in {
        "recall": twenty,
        "precision": twenty,
        "accuracy": forty,
        "f1": 2 * twenty / (1 + twenty),
    }.items():
        assert found["asa"][name] == pytest.approx([low, 1.0], abs=1e-3)
    assert found["asa"]["fpr"] == pytest.approx([0.0, 1 - twenty], abs=1e-3)
    assert found["base"]["recall"] == pytest.approx([0.0, 1 - twenty], abs=1e-3)
    assert found["base"]["f1"] == pytest.approx([0.0, 2 * (1 - twenty) / (2 - twenty)], abs=1e-3)
    assert found["base"]["precision"] == [0.0, 1.0]
    assert found["gain"]["recall"][0] == pytest.approx(1 - 2**0.5 * (1 - twenty), abs=1e-3)
    assert found["gain"]["recall"][1] == 1.0
    assert found["gain"]["fpr"] == pytest.approx([twenty - 1, 1 - twenty], abs=1e-3)


def test_an_interval_of_accuracy_covers_what_the_binomial_says() -> None:
    labels = np.zeros(400, dtype=int)
    wrong = np.arange(400) < 100
    low, high = paired_intervals(labels, wrong, wrong)["intervals"]["asa"]["accuracy"]
    spread = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - spread, abs=0.006)
    assert high == pytest.approx(0.75 + spread, abs=0.006)


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("wrong", [0.02, 0.3])
def test_intervals_of_95_percent_cover_the_truth_as_often(copies: int, wrong: float) -> None:
    """With few mistakes, and with copies, they covered it in 36 to 62 %."""
    generator, trials, own = np.random.default_rng(3), 100, 80
    hits = {(model, name): 0 for model in ("base", "asa", "gain") for name in ("recall", "fpr", "accuracy", "f1")}
    for _ in range(trials):
        labels = np.arange(own) % 2
        base = labels.astype(bool) ^ (generator.random(own) < wrong)
        asa = labels.astype(bool) ^ (generator.random(own) < wrong)
        rows = np.repeat(np.arange(own), copies)
        found = paired_intervals(labels[rows], base[rows], asa[rows], draws=100, groups=rows)["intervals"]
        for model, name in hits:
            right = {"recall": 1 - wrong, "fpr": wrong, "accuracy": 1 - wrong, "f1": 1 - wrong}[name]
            low, high = found[model][name]
            hits[model, name] += low <= (0.0 if model == "gain" else right) <= high
    assert min(hits.values()) >= 0.88 * trials


def test_the_gain_is_paired() -> None:
    """Two models that err on the same rows differ by less than their own intervals say."""
    generator = np.random.default_rng(1)
    labels = np.arange(200) % 2
    base = labels.astype(bool) ^ (generator.random(200) < 0.3)
    better = base.copy()
    mistakes = np.flatnonzero(base != labels.astype(bool))[:10]
    better[mistakes] = ~better[mistakes]
    found = paired_intervals(labels, base, better)["intervals"]
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
    found = paired_intervals(labels, base, asa)
    assert (found["only_base_right"], found["only_asa_right"]) == (only_base, only_asa)
    assert found["mcnemar_p"] == pytest.approx(p_value)


def test_mcnemar_counts_groups() -> None:
    """Four copies of five rows that only the steered model decides correctly are five, not twenty."""
    labels, base, asa = np.ones(40, dtype=int), np.zeros(40, dtype=bool), np.zeros(40, dtype=bool)
    asa[:20] = True
    found = paired_intervals(labels, base, asa, draws=100, groups=np.arange(40) // 4)
    assert (found["only_asa_right"], found["groups"]) == (20, 10)
    assert found["mcnemar_p"] == pytest.approx(2 * 0.5**5)


def test_each_domain_is_compared_on_its_own_rows() -> None:
    labels = [1, 1, 0, 0] * 5
    base, asa = [True] * 20, [bool(label) for label in labels]
    groups = np.arange(20) // 4
    found = paired_intervals(labels, base, asa, ["a", "b"] * 10, draws=200, groups=groups)
    alone = paired_intervals(labels[::2], base[::2], asa[::2], draws=200, groups=groups[::2])
    assert sorted(found["by_domain"]) == ["a", "b"]
    assert found["by_domain"]["a"] == alone
    assert alone["groups"] == 5
