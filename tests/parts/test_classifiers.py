"""Router and probes: fitted as by scikit-learn's own pipeline, on whatever holds numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from labelled_states import NAMES, data, pipeline, probes, router
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from asa_adapter import Probes, Router

# --- Router


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("domains", [2, 4])
def test_router_agrees_with_a_pipeline_that_keeps_its_scaler(domains: int, C: float) -> None:
    states, _, names = data(domains)
    fitted, expected = Router.fit(states, names, C=C), pipeline(states, names, C)
    assert fitted.domains == tuple(expected.classes_)
    np.testing.assert_allclose(fitted.predict_proba(states), expected.predict_proba(states), atol=1e-5)


def test_router_of_one_domain_is_constant() -> None:
    states, _, names = data(1)
    assert Router.fit(states, names).predict_proba(states).tolist() == [[1.0]] * len(states)


def test_router_scores_are_those_of_the_estimator_that_it_holds() -> None:
    states, _, _ = data(4)
    fitted = router()
    np.testing.assert_allclose(fitted.predict_proba(states), fitted.estimator_.predict_proba(states), atol=1e-5)


@pytest.mark.parametrize("domains", [1, 2, 4])
def test_router_rows_follow_the_given_order(domains: int) -> None:
    states, _, names = data(domains)
    fitted = Router.fit(states, names)
    order = list(fitted.domains)[::-1]
    scores = fitted.linear(order)(torch.from_numpy(states))
    np.testing.assert_allclose(scores.softmax(dim=1), fitted.predict_proba(states)[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("wanted", [["math"], [*NAMES, "new"], ["math", "code", "search", "new"]], ids=str)
def test_router_refuses_other_domains(wanted: list[str]) -> None:
    with pytest.raises(ValueError, match=r"the router knows the domains \['chat', 'code', .*\]; expected \["):
        router().linear(wanted)


# --- Probes


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("domains", [1, 2, 4])
def test_pooled_probe_agrees_with_a_pipeline_that_keeps_its_scaler(domains: int, C: float) -> None:
    states, labels, names = data(domains)
    expected = pipeline(states, labels, C).predict_proba(states)[:, 1]
    np.testing.assert_allclose(Probes.fit(states, labels, names, C=C).p_tool(states), expected, atol=1e-5)


@pytest.mark.parametrize("domain", NAMES)
def test_domain_probe_agrees_with_a_pipeline_on_its_own_rows(domain: str) -> None:
    states, labels, names = data(4)
    own = np.array(names) == domain
    expected = pipeline(states[own], labels[own]).predict_proba(states)[:, 1]
    np.testing.assert_allclose(probes().p_tool(states, domain), expected, atol=1e-5)


def test_unknown_domain_uses_the_pooled_probe() -> None:
    states, _, _ = data(4)
    assert probes().p_tool(states, "never seen").tolist() == probes().p_tool(states).tolist()


@pytest.mark.parametrize(
    ("kept", "own"),
    [
        ({0: 0, 1: 15}, False),
        ({0: 15, 1: 0}, False),
        ({0: 15, 1: 7}, False),
        ({0: 7, 1: 15}, False),
        ({0: 8, 1: 8}, True),
    ],
    ids=["no zeros", "no ones", "seven ones", "seven zeros", "eight of each"],
)
def test_domain_with_too_few_rows_uses_the_pooled_probe(kept: dict[int, int], own: bool) -> None:
    states, labels, names = data(4)
    seen = {0: 0, 1: 0}
    rows = []
    for i, (label, name) in enumerate(zip(labels, names, strict=True)):
        if name == "code":
            seen[label] += 1
        if name != "code" or seen[label] <= kept[label]:
            rows.append(i)
    fitted = Probes.fit(states[rows], labels[rows], [names[i] for i in rows])
    assert (fitted.p_tool(states, "code").tolist() != fitted.p_tool(states).tolist()) is own


def test_probe_rows_follow_the_given_order() -> None:
    states, _, _ = data(4)
    fitted, order = probes(), ["search", "new", "chat"]
    p = torch.sigmoid(fitted.linear(order)(torch.from_numpy(states)))
    expected = np.stack([fitted.p_tool(states, name) for name in order], axis=1)
    np.testing.assert_allclose(p, expected, atol=1e-6)


def test_pooled_kind_asks_the_pooled_probe_for_every_domain() -> None:
    states, _, _ = data(4)
    p = torch.sigmoid(probes().linear(NAMES, "pooled")(torch.from_numpy(states)))
    np.testing.assert_allclose(p, np.stack([probes().p_tool(states)] * 4, axis=1), atol=1e-6)


def unreadable(rows: int) -> np.ndarray:
    """States that tell nothing of the label."""
    return np.random.default_rng(7).normal(size=(rows, 3)).astype(np.float32)


def test_rows_made_from_others_do_not_change_how_often_a_probe_calls() -> None:
    labels, names = np.arange(800) % 2, ["a", "b"] * 400
    labels = np.where(np.arange(800) // 2 % 2, labels, 1 - labels)  # half of each domain, as given
    labels[1::16] = 0  # and fewer of "b"
    made = np.arange(800) >= 400
    labels[made & (np.arange(800) % 6 < 2)] = 0  # these lost the tool that they needed
    plain, fair = (Probes.fit(unreadable(800), labels, names, C=1e-6, given=given) for given in (None, ~made))
    for key in ("a", "b", None):
        mine = np.array([key in (None, name) for name in names])
        as_given = float(labels[mine & ~made].mean())
        assert float(fair.p_tool(unreadable(800), key).mean()) == pytest.approx(as_given, abs=0.005), key
        assert float(plain.p_tool(unreadable(800), key).mean()) < as_given - 0.05, key
    np.testing.assert_array_equal(fair.pooled_.coef_, plain.pooled_.coef_)


def test_each_kind_of_state_keeps_its_own_share() -> None:
    labels, kinds = np.arange(400) % 2, ["first"] * 200 + ["after_result"] * 200
    made = np.arange(400) % 4 > 1
    labels[:200][made[:200]] = 0  # of the first kind alone rows lost their tool
    fitted = Probes.fit_states(unreadable(400), labels, ["a"] * 400, kinds, 1e-6, 42, ~made)
    for kind in ("first", "after_result"):
        assert float(fitted.of(kind).p_tool(unreadable(400)).mean()) == pytest.approx(0.5, abs=0.005), kind


def test_a_domain_that_is_in_need_only_where_rows_were_made_is_not_put_beyond_doubt() -> None:
    labels, made = np.arange(80) % 2, np.arange(80) < 40
    labels[~made] = 0
    fitted = Probes.fit(unreadable(80), labels, ["a"] * 80, C=1e-6, given=~made)
    assert 0.0 < float(fitted.p_tool(unreadable(80)).mean()) < 0.05


def test_given_of_another_length_is_refused() -> None:
    states, labels, names = data(2)
    with pytest.raises(ValueError, match=r"^given has shape \(3,\); expected \(120,\), True or False for each row$"):
        Probes.fit(states, labels, names, given=[True, False, True])


def test_rows_that_are_all_as_given_are_fitted_to_the_bit_as_without_a_word_of_it() -> None:
    states, labels, names = data(4)
    kinds = ["first"] * 60 + ["after_result"] * 60
    given = np.ones(len(labels), dtype=bool)
    assert Probes.fit(states, labels, names, given=given).to_bytes() == probes().to_bytes()
    plain, told = (Probes.fit_states(states, labels, names, kinds, 1.0, 42, some) for some in (None, given))
    assert told.to_bytes() == plain.to_bytes()


# --- what both fits take


@pytest.mark.parametrize("value", [0.0, 3.0, -1234.567], ids=str)
def test_constant_feature_changes_nothing(value: float) -> None:
    states, labels, names = data(2)
    wider = np.hstack([states, np.full((len(states), 1), value, dtype=np.float32)])
    expected = pipeline(states, labels).predict_proba(states)[:, 1]
    np.testing.assert_allclose(Probes.fit(wider, labels, names).p_tool(wider), expected, atol=1e-5)


def test_feature_of_rounding_noise_is_not_amplified() -> None:
    states, labels, names = data(2)
    last_bits = np.random.default_rng(1).integers(-1, 2, len(states))
    noisy = (np.float32(100) + last_bits * np.spacing(np.float32(100))).astype(np.float32)
    fitted = Probes.fit(np.column_stack([states, noisy]), labels, names)
    one = np.column_stack([states, np.full(len(states), np.float32(100))])
    other = np.column_stack([states, np.full(len(states), np.nextafter(np.float32(100), np.float32(200)))])
    np.testing.assert_allclose(fitted.p_tool(one), fitted.p_tool(other), atol=1e-3)


def test_same_seed_gives_the_same_bits() -> None:
    states, labels, names = data(4)
    first, second = (Probes.fit(states, labels, names, seed=7) for _ in range(2))
    assert first.p_tool(states).tobytes() == second.p_tool(states).tobytes()


def test_only_float32_coefficients_are_kept() -> None:
    estimators = [router().estimator_, probes().pooled_, *probes().by_domain_.values()]
    assert {type(estimator) for estimator in estimators} == {LogisticRegression}
    assert {(estimator.coef_.dtype, estimator.intercept_.dtype) for estimator in estimators} == {
        (np.dtype(np.float32), np.dtype(np.float32))
    }


TAKEN: list[tuple[str, Callable[[np.ndarray], Any]]] = [
    ("float64 array", lambda states: states.astype(np.float64)),
    ("read-only array", lambda states: np.frombuffer(states.tobytes(), dtype=np.float32).reshape(states.shape)),
    ("reversed view", lambda states: states[::-1].copy()[::-1]),
    ("nested lists", lambda states: states.tolist()),
    ("float32 tensor", torch.from_numpy),
    ("bfloat16 tensor", lambda states: torch.from_numpy(states).bfloat16()),
    ("tensor with gradients", lambda states: torch.from_numpy(states).requires_grad_()),
]


def as_float32(given: Any) -> np.ndarray:
    if isinstance(given, torch.Tensor):
        return given.detach().float().numpy()
    return np.array(given, dtype=np.float32)


@pytest.fixture
def torch_warns_always() -> Iterator[None]:
    """Torch gives some warnings only once in a process, which would hide them from all but one test."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("torch_warns_always")
@pytest.mark.parametrize("make", [make for _, make in TAKEN], ids=[name for name, _ in TAKEN])
def test_fit_takes_arrays_and_tensors(make: Callable[[np.ndarray], Any]) -> None:
    states, labels, names = data(2)
    values = as_float32(make(states))
    expected = pipeline(values, labels).predict_proba(values)[:, 1]
    np.testing.assert_allclose(Probes.fit(make(states), labels, names).p_tool(values), expected, atol=1e-5)


@pytest.mark.usefixtures("torch_warns_always")
@pytest.mark.parametrize("make", [make for _, make in TAKEN], ids=[name for name, _ in TAKEN])
def test_prediction_takes_arrays_and_tensors(make: Callable[[np.ndarray], Any]) -> None:
    given = make(data(4)[0])
    fitted = router()
    np.testing.assert_allclose(
        fitted.predict_proba(given), fitted.estimator_.predict_proba(as_float32(given)), atol=1e-5
    )


def test_prediction_is_the_same_under_autocast() -> None:
    states, _, _ = data(4)
    outside = router().predict_proba(states), probes().p_tool(states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = router().predict_proba(states), probes().p_tool(states)
    assert [part.tobytes() for part in inside] == [part.tobytes() for part in outside]


@pytest.mark.parametrize(
    "fit", [Router.fit, lambda states, names: Probes.fit(states, [0, 1], names)], ids=["router", "probes"]
)
@pytest.mark.parametrize(
    ("states", "names", "message"),
    [
        (np.zeros((0, 3)), [], r"states have shape \(0, 3\); expected \(N, D\) with at least one row"),
        (np.zeros(3), ["a"], r"states have shape \(3,\); expected \(N, D\)"),
        (np.zeros((2, 3)), ["a"], r"there are 1 domains for 2 states; expected one for each"),
        (
            np.array([[1.0, np.nan], [0, 0]]),
            ["a", "b"],
            "the states hold NaN or infinity; the model may have overflowed",
        ),
        (
            np.array([[1.0, np.inf], [0, 0]]),
            ["a", "b"],
            "the states hold NaN or infinity; the model may have overflowed",
        ),
    ],
    ids=["no rows", "flat", "lengths differ", "NaN", "infinity"],
)
def test_fit_refuses_other_states(fit: Any, states: np.ndarray, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(states, names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"labels have shape \(2,\); expected \(4,\), each 0 or 1"),
        ([[0], [1], [0], [1]], r"labels have shape \(4, 1\); expected \(4,\), each 0 or 1"),
        ([0, 1, 2, 0], "expected .*, each 0 or 1"),
        ([0, 1, 0.5, 0], "expected .*, each 0 or 1"),
        (["0", "1", "0", "1"], "expected .*, each 0 or 1"),
        ([1, 1, 1, 1], "every label is 1; a probe needs rows of both labels"),
        ([0, 0, 0, 0], "every label is 0; a probe needs rows of both labels"),
    ],
    ids=str,
)
def test_probes_refuse_other_labels(labels: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Probes.fit(np.eye(4), labels, ["a"] * 4)


def test_classifiers_are_fitted_with_one_blas_thread_and_the_pools_stay_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pools that wait at each of the solver's small products made a training's fits take twenty times the CPU time."""

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    inside, fit = [], LogisticRegression.fit

    def recorded(self: LogisticRegression, *args: Any) -> LogisticRegression:
        inside.append(threads())
        return fit(self, *args)

    monkeypatch.setattr(LogisticRegression, "fit", recorded)
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        Router.fit([[0.0], [0.1], [0.9], [1.0]], ["code", "code", "math", "math"])
        assert threads() == before
    assert inside == [{1}]
