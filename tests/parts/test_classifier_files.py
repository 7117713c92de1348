"""The files of router and probes: what they keep, and what is refused when one is read."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
from labelled_states import NAMES, WIDTH, data, pipeline, probes, router
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from asa_adapter import AdapterFormatError, Probes, Router


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
    with pytest.raises(AdapterFormatError, match=r"^router\.skops: refused: "):
        read_router(buffer.getvalue())


def test_file_that_unpacks_to_too_much_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("schema.json", "{}")
        with archive.open("0.npy", "w") as member:
            for _ in range(129):
                member.write(bytes(2**20))
    with pytest.raises(AdapterFormatError, match=r"^router\.skops: unpacks to more than 128 MiB or 1000 members$"):
        read_router(buffer.getvalue())


def test_file_with_too_many_members_is_refused() -> None:
    with pytest.raises(AdapterFormatError, match="unpacks to more than 128 MiB or 1000 members"):
        read_router(zipped(**{f"member{i}": "" for i in range(1001)}))


def test_file_that_was_cut_is_refused() -> None:
    content = router().to_bytes()
    for length in range(0, len(content), 97):
        with pytest.raises(AdapterFormatError, match=r"^router\.skops: refused: "):
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
    with pytest.raises(AdapterFormatError, match=r"^probes\.skops: holds a .*; expected a LogisticRegression$"):
        read_probes(estimator(), math=other)


@pytest.mark.parametrize(
    "value",
    [estimator(), {}, {"pooled": estimator()}, {"pooled": estimator(), "by_domain": []}, [], {"by_domain": {}},
     {"pooled": estimator(), "by_domain": {}, "more": 1}],
    ids=["estimator", "empty", "no domains", "list of domains", "list", "no pooled", "more"],
)  # fmt: skip
def test_probes_file_with_another_structure_is_refused(value: Any) -> None:
    with pytest.raises(AdapterFormatError, match=r"^probes\.skops: expected a dict with 'pooled' and 'by_domain'$"):
        Probes.from_bytes(skops.io.dumps(value), WIDTH, NAMES)


def test_probes_of_unknown_domains_are_refused() -> None:
    with pytest.raises(AdapterFormatError, match=r"^probes\.skops: probes for unknown domains 'cooking'$"):
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
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import asa_adapter.parts.classifiers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: transformers " in done.stderr
    assert "cannot be used with skops where Pillow is missing: install pillow, or" in done.stderr
