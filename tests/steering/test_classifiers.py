import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from asa_adapter import AdapterFormatError, Probes, Router

NAMES = ["math", "code", "search", "chat"]
WIDTH = 6


def data(domains: int, rows: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Overlapping classes in features of very different means and deviations."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    names = [NAMES[i // 2 % domains] for i in range(rows)]
    states = generator.normal(size=(rows, WIDTH))
    states[:, 0] += 0.7 * labels
    states[:, 1] += 0.7 * np.array([NAMES.index(name) for name in names])
    states = states * [1.0, 3.0, 0.01, 10.0, 0.5, 1.0] + [0.0, 5.0, 0.02, -20.0, 1.0, -1.0]
    return states.astype(np.float32), labels, names


def pipeline(states: np.ndarray, target: Any, C: float = 1.0) -> Pipeline:
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    return fitted.fit(states.astype(np.float64), target)


def router() -> Router:
    states, _, names = data(4)
    return Router.fit(states, names)


def probes() -> Probes:
    return Probes.fit(*data(4))


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


# --- the files


@pytest.mark.parametrize("domains", [1, 2, 4])
def test_router_file_keeps_every_bit(domains: int) -> None:
    states, _, names = data(domains)
    fitted = Router.fit(states, names)
    back = Router.from_bytes(fitted.to_bytes(), WIDTH, fitted.domains)
    assert back.domains == fitted.domains
    assert back.predict_proba(states).tobytes() == fitted.predict_proba(states).tobytes()


@pytest.mark.parametrize("domains", [1, 2, 4])
def test_probes_file_keeps_every_bit(domains: int) -> None:
    states, labels, names = data(domains)
    fitted = Probes.fit(states, labels, names)
    back = Probes.from_bytes(fitted.to_bytes(), WIDTH, NAMES[:domains])
    for domain in (None, *NAMES[:domains]):
        assert back.p_tool(states, domain).tobytes() == fitted.p_tool(states, domain).tobytes()


def test_stored_router_knows_its_domains_in_any_order() -> None:
    assert sorted(Router.from_bytes(router().to_bytes(), WIDTH, NAMES[::-1]).domains) == sorted(NAMES)


def estimator(**attributes: Any) -> LogisticRegression:
    """A stored probe in which somebody set some attributes."""
    states, labels, _ = data(1)
    fitted = LogisticRegression().fit(states, labels)
    for name, value in attributes.items():
        setattr(fitted, name, value)
    return fitted


def read_router(value: Any) -> Router:
    return Router.from_bytes(value if isinstance(value, bytes) else skops.io.dumps(value), WIDTH, NAMES)


def read_probes(pooled: Any, **by_domain: Any) -> Probes:
    return Probes.from_bytes(skops.io.dumps({"pooled": pooled, "by_domain": by_domain}), WIDTH, NAMES)


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_json", ".json"), text)
    return buffer.getvalue()


class Hostile:
    """An object whose unpickling makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip file",
        pickle.dumps({"pooled": 1}),
        zipped(),
        zipped(other="x"),
        zipped(schema_json="not JSON"),
        zipped(schema_json="[]"),
        zipped(schema_json="{}"),
        zipped(schema_json="[" * 100_000),
    ],
    ids=["nothing", "text", "pickle", "empty zip", "no schema", "no JSON", "list", "empty schema", "deep"],
)
@pytest.mark.parametrize("kind", [Router, Probes])
def test_file_that_is_not_skops_is_refused(kind: Any, content: bytes) -> None:
    with pytest.raises(AdapterFormatError, match=f"^{kind.__name__.lower()}.skops: refused: "):
        kind.from_bytes(content, WIDTH, NAMES)


@pytest.mark.parametrize("kind", [Router, Probes])
def test_pickle_in_disguise_is_refused_and_not_run(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(AdapterFormatError, match="refused: BadZipFile"):
        kind.from_bytes(pickle.dumps(Hostile(tmp_path / "ran")), WIDTH, NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [Router, Probes])
def test_code_inside_a_skops_file_is_refused_and_not_run(tmp_path: Path, kind: Any) -> None:
    content = skops.io.dumps(Hostile(tmp_path / "ran"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AdapterFormatError, match="holds a Hostile; expected a LogisticRegression"):
        kind.from_bytes(content, WIDTH, NAMES)
    assert list(tmp_path.iterdir()) == []


def test_torch_file_in_disguise_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save({"pooled": torch.ones(2)}, buffer)
    with pytest.raises(AdapterFormatError, match="^router.skops: refused: "):
        read_router(buffer.getvalue())


def test_file_that_unpacks_to_too_much_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("schema.json", "{}")
        with archive.open("0.npy", "w") as member:
            for _ in range(129):
                member.write(bytes(2**20))
    with pytest.raises(AdapterFormatError, match="^router.skops: unpacks to more than 128 MiB or 1000 members$"):
        read_router(buffer.getvalue())


def test_file_with_too_many_members_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match="unpacks to more than 128 MiB or 1000 members"):
        read_router(zipped(**{f"member{i}": "" for i in range(1001)}))


def test_file_that_was_cut_is_refused() -> None:
    content = router().to_bytes()
    for length in range(0, len(content), 97):
        with pytest.raises(AdapterFormatError, match="^router.skops: refused: "):
            read_router(content[:length])


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (KMeans(4, n_init=1).fit(data(4)[0]), "KMeans"),
        (DummyClassifier().fit(data(4)[0], data(4)[2]), "DummyClassifier"),
        (RidgeClassifier().fit(data(4)[0], data(4)[2]), "RidgeClassifier"),
        (pipeline(data(4)[0], data(4)[2]), "Pipeline"),
        ({"pooled": 1}, "dict"),
        ([1, 2], "list"),
        ("math", "str"),
        (None, "NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_router_file_with_something_else_is_refused(other: Any, name: str) -> None:
    with pytest.raises(AdapterFormatError, match=f"^router.skops: holds a {name}; expected a LogisticRegression$"):
        read_router(other)


@pytest.mark.parametrize("other", [KMeans(2, n_init=1).fit(data(1)[0]), DummyClassifier().fit(*data(1)[:2]), None, 3])
def test_probe_that_is_something_else_is_refused(other: Any) -> None:
    with pytest.raises(AdapterFormatError, match="^probes.skops: holds a .*; expected a LogisticRegression$"):
        read_probes(estimator(), math=other)


@pytest.mark.parametrize(
    "value",
    [estimator(), {}, {"pooled": estimator()}, {"pooled": estimator(), "by_domain": []}, [], {"by_domain": {}},
     {"pooled": estimator(), "by_domain": {}, "more": 1}],
    ids=["estimator", "empty", "no domains", "list of domains", "list", "no pooled", "more"],
)  # fmt: skip
def test_probes_file_with_another_structure_is_refused(value: Any) -> None:
    with pytest.raises(AdapterFormatError, match="^probes.skops: expected a dict with 'pooled' and 'by_domain'$"):
        Probes.from_bytes(skops.io.dumps(value), WIDTH, NAMES)


def test_probes_of_unknown_domains_are_refused() -> None:
    with pytest.raises(AdapterFormatError, match="^probes.skops: probes for unknown domains 'cooking'$"):
        read_probes(estimator(), cooking=estimator())


def test_router_of_other_domains_is_refused() -> None:
    with pytest.raises(
        AdapterFormatError, match=r"^router.skops: its classes are \[.*\]; expected \['a', 'b', 'c', 'd'\]"
    ):
        Router.from_bytes(router().to_bytes(), WIDTH, list("dcba"))


@pytest.mark.parametrize("domains", [NAMES[:1], NAMES[:3]], ids=["one", "three"])
def test_router_of_another_number_of_domains_is_refused(domains: list[str]) -> None:
    with pytest.raises(
        AdapterFormatError, match=r"^router.skops: coef_ is float32 \(4, 6\); expected floats of shape"
    ):
        Router.from_bytes(router().to_bytes(), WIDTH, domains)


def test_router_of_another_width_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match=r"coef_ is float32 \(4, 6\); expected floats of shape \(4, 7\)"):
        Router.from_bytes(router().to_bytes(), WIDTH + 1, NAMES)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"coef_": np.ones((1, 5))}, r"coef_ is float64 \(1, 5\); expected floats of shape \(1, 6\)"),
        ({"coef_": np.ones(6)}, r"coef_ is float64 \(6,\); expected floats of shape \(1, 6\)"),
        ({"coef_": np.ones((1, 6), dtype=int)}, r"coef_ is int64 \(1, 6\); expected floats"),
        ({"coef_": np.ones((1, 6), dtype=complex)}, r"coef_ is complex128 \(1, 6\); expected floats"),
        ({"coef_": [[1.0] * 6]}, "coef_ is list; expected floats"),
        ({"coef_": None}, "coef_ is NoneType; expected floats"),
        ({"coef_": np.full((1, 6), np.nan)}, "coef_ holds NaN, infinity, or numbers beyond 1e30"),
        ({"coef_": np.full((1, 6), np.inf)}, "coef_ holds NaN, infinity, or numbers beyond 1e30"),
        ({"coef_": np.full((1, 6), 1e300)}, "coef_ holds "),
        ({"coef_": np.ma.masked_invalid(np.full((1, 6), np.nan))}, "holds a MaskedArray; expected a Logi"),
        ({"intercept_": np.ones(2)}, r"intercept_ is float64 \(2,\); expected floats of shape \(1,\)"),
        ({"intercept_": np.array([np.nan])}, "intercept_ holds NaN, infinity, or numbers beyond 1e30"),
        ({"intercept_": 1.0}, "intercept_ is float; expected floats"),
        ({"classes_": None}, "classes_ is None; expected names or 0 and 1"),
        ({"classes_": [0, 1]}, r"classes_ is \[0, 1\]; expected names or 0 and 1"),
        ({"classes_": np.array([0.0, 1.0])}, r"classes_ is array\(\[0., 1.\]\); expected names or 0 and 1"),
        ({"classes_": np.array([[0, 1]])}, "classes_ is .*; expected names or 0 and 1"),
        ({"classes_": np.array([1, 0])}, r"a probe's classes are array\(\[1, 0\]\); expected 0, 1"),
        ({"classes_": np.array([0, 1, 2])}, r"a probe's classes are array\(\[0, 1, 2\]\); expected 0, 1"),
        ({"classes_": np.array(["no", "yes"])}, "a probe's classes are .*; expected 0, 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value[:40],
)  # fmt: skip
def test_probe_with_other_attributes_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterFormatError, match=f"^probes.skops: {message}"):
        read_probes(estimator(), math=estimator(**attributes))


def test_unfitted_estimator_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match="coef_ is NoneType; expected floats"):
        read_probes(LogisticRegression())


def test_stored_file_needs_no_trust() -> None:
    assert skops.io.get_untrusted_types(data=probes().to_bytes()) == []


def test_stored_file_names_no_types_but_the_expected() -> None:
    with zipfile.ZipFile(io.BytesIO(probes().to_bytes())) as archive:
        schema = json.loads(archive.read("schema.json"))
    assert schema["__class__"] == "dict"


def test_nothing_but_coefficients_and_classes_is_taken_from_a_file() -> None:
    stored = estimator(predict="mine", extra_=[1, 2], C=0.5, random_state="x", n_features_in_=99)
    back = read_probes(stored).pooled_
    assert set(vars(back)) == set(vars(probes().pooled_))
    assert (back.C, back.random_state, back.n_features_in_) == (0.5, 42, WIDTH)
    np.testing.assert_allclose(back.coef_, stored.coef_)


def test_a_transformers_that_skops_trips_over_says_what_to_install(tmp_path: Path) -> None:
    """transformers 5.8 to 5.20 without Pillow: skops looks at each of its modules, and one of them raises."""
    (tmp_path / "skops").mkdir()
    (tmp_path / "skops" / "__init__.py").write_text("")
    (tmp_path / "skops" / "io.py").write_text("raise NameError('PILImageResampling')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import asa_adapter.steering.classifiers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: transformers " in done.stderr
    assert "cannot be used with skops where Pillow is missing: install pillow, or" in done.stderr
