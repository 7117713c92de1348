"""`Router` and `Probes`: scikit-learn logistic regressions on residual states, kept in skops files.

The standardisation that fitting needs is folded into the coefficients afterwards, so that a fitted classifier is one
matrix and one bias: the controller runs it as tensors, and nothing of scikit-learn is needed at inference.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from asa_adapter.errors import AdapterFormatError
from asa_adapter.steering.linear import float32_tensor, float64_states
from asa_adapter.steering.skops_file import audit_skops

try:
    import skops.io
except NameError as error:  # transformers' own, at one of its modules that skops looks at
    raise ImportError(
        f"transformers {transformers.__version__} cannot be used with skops where Pillow is missing: install pillow, "
        "or transformers 5.21 or newer"
    ) from error

ROUTER_NAME = "router.skops"
PROBES_NAME = "probes.skops"

# A domain with fewer calibration rows than this of either label is left to the pooled probe.
MIN_ROWS_PER_CLASS = 8

# Beyond this, a stored coefficient times a state could leave the range of float32.
_MAX_COEFFICIENT = 1e30


@dataclass(frozen=True)
class Linear:
    """One linear map as float32 CPU tensors: scores = states @ weight.T + bias, with weight (R, D) and bias (R,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(N, R) scores of (N, D) states."""
        with torch.autocast(device_type="cpu", enabled=False):
            return torch.nn.functional.linear(states, self.weight, self.bias)


class Router:
    """Multinomial logistic regression from residual states to the tool domain.

    Args:
        estimator: a fitted LogisticRegression with the domain names as classes.

    Attributes:
        estimator_: that estimator.
        domains: its classes.

    Example:
        >>> router = Router.fit([[0.0], [0.1], [0.9], [1.0]], ["code", "code", "math", "math"])
        >>> router.domains[int(router.predict_proba([[0.8]]).argmax())]
        'math'
    """

    def __init__(self, estimator: LogisticRegression) -> None:
        self.estimator_ = estimator
        self.domains: tuple[str, ...] = tuple(str(name) for name in estimator.classes_)

    @classmethod
    def fit(cls, states: ArrayLike, domains: Sequence[str], C: float = 1.0, seed: int = 42) -> "Router":
        """Fits a router.

        Args:
            states: (N, D) residual states.
            domains: (N,) domain names; with a single name the router is constant.
            C: inverse strength of the L2 penalty.
            seed: seed of the solver.

        Raises:
            ValueError: empty or differing lengths, or numbers that are not finite.
        """
        h, names = float64_states(states, domains=domains), [str(name) for name in domains]
        if len(set(names)) == 1:
            return cls(_fitted(np.array(names[:1]), np.zeros((1, h.shape[1])), np.zeros(1), C, seed))
        return cls(_fit_logistic(h, names, C, seed))

    def predict_proba(self, states: ArrayLike) -> NDArray[np.float32]:
        """(N, K) probabilities of the domains, in the order of `domains`."""
        return torch.softmax(self.linear(self.domains)(float32_tensor(states)), dim=1).numpy()

    def linear(self, domains: Sequence[str]) -> Linear:
        """The router as one linear map whose rows are in the given order of domains.

        Raises:
            ValueError: these are not the router's domains.
        """
        if sorted(domains) != sorted(self.domains):
            raise ValueError(f"the router knows the domains {sorted(self.domains)}; expected {sorted(domains)}")
        weight, bias = self.estimator_.coef_, self.estimator_.intercept_
        if len(self.domains) == 2:
            # scikit-learn keeps one row for two classes: its log-odds. Half of it each way gives the same softmax.
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        order = [self.domains.index(name) for name in domains]
        return Linear(float32_tensor(weight[order]), float32_tensor(bias[order]))

    def to_bytes(self) -> bytes:
        """The skops file."""
        return _dump_skops(self.estimator_)

    @classmethod
    def from_bytes(cls, content: bytes, hidden_size: int, domains: Sequence[str]) -> "Router":
        """Reads the skops file.

        Raises:
            AdapterFormatError: not a skops file, another kind of object, or shapes and classes that do not fit.
        """
        rows = 1 if len(domains) <= 2 else len(domains)
        estimator = _checked_estimator(_load_skops(content, ROUTER_NAME), ROUTER_NAME, rows, hidden_size)
        classes = [str(name) for name in estimator.classes_]
        if sorted(classes) != sorted(domains):
            raise AdapterFormatError(f"{ROUTER_NAME}: its classes are {classes!r:.200}; expected {sorted(domains)}")
        return cls(estimator)


class Probes:
    """Binary logistic regressions from residual states to p(tool needed): one pooled, and one for each domain.

    Args:
        pooled: a LogisticRegression fitted on the rows of all domains.
        by_domain: the same for each domain that had enough rows of both labels.

    Attributes:
        pooled_: the pooled estimator.
        by_domain_: the others by domain name.
    """

    def __init__(self, pooled: LogisticRegression, by_domain: dict[str, LogisticRegression]) -> None:
        self.pooled_ = pooled
        self.by_domain_ = by_domain

    @classmethod
    def fit(
        cls, states: ArrayLike, labels: ArrayLike, domains: Sequence[str], C: float = 1.0, seed: int = 42
    ) -> "Probes":
        """Fits the probes.

        Args:
            states: (N, D) residual states.
            labels: (N,) 1 where a tool is needed, else 0.
            domains: (N,) domain names.
            C: inverse strength of the L2 penalty.
            seed: seed of the solver.

        Raises:
            ValueError: empty or differing lengths, other labels than 0 and 1, one class only, or numbers that are
                not finite.
        """
        h, names = float64_states(states, domains=domains), [str(name) for name in domains]
        y = np.asarray(labels)
        if y.shape != (len(h),) or not np.isin(y, (0, 1)).all():
            raise ValueError(f"labels have shape {y.shape}; expected ({len(h)},), each 0 or 1")
        if len(np.unique(y)) < 2:
            raise ValueError(f"every label is {y[0]}; a probe needs rows of both labels")
        own = {}
        for name in sorted(set(names)):
            rows = np.array([other == name for other in names])
            if min(int((y[rows] == label).sum()) for label in (0, 1)) >= MIN_ROWS_PER_CLASS:
                own[name] = _fit_logistic(h[rows], y[rows].astype(int), C, seed)
        return cls(_fit_logistic(h, y.astype(int), C, seed), own)

    def p_tool(self, states: ArrayLike, domain: str | None = None) -> NDArray[np.float32]:
        """(N,) probabilities that a tool is needed, from the domain's probe, or the pooled one where it has none."""
        probe = _linear(self.by_domain_.get(domain, self.pooled_) if domain is not None else self.pooled_)
        return torch.sigmoid(probe(float32_tensor(states))[:, 0]).numpy()

    def linear(self, domains: Sequence[str], kind: str = "domain") -> Linear:
        """One row for each domain, in the given order: its own probe ("domain") or the pooled one ("pooled")."""
        own = self.by_domain_ if kind == "domain" else {}
        rows = [_linear(own.get(name, self.pooled_)) for name in domains]
        return Linear(torch.cat([row.weight for row in rows]), torch.cat([row.bias for row in rows]))

    def to_bytes(self) -> bytes:
        """The skops file."""
        return _dump_skops({"pooled": self.pooled_, "by_domain": self.by_domain_})

    @classmethod
    def from_bytes(cls, content: bytes, hidden_size: int, domains: Sequence[str]) -> "Probes":
        """Reads the skops file.

        Raises:
            AdapterFormatError: not a skops file, another kind of object, or shapes and classes that do not fit.
        """
        parts = _load_skops(content, PROBES_NAME)
        if type(parts) is not dict or set(parts) != {"pooled", "by_domain"} or type(parts["by_domain"]) is not dict:
            raise AdapterFormatError(f"{PROBES_NAME}: expected a dict with 'pooled' and 'by_domain'")
        if strangers := sorted(map(repr, parts["by_domain"].keys() - set(domains))):
            raise AdapterFormatError(f"{PROBES_NAME}: probes for unknown domains {', '.join(strangers):.200}")
        pooled = _checked_estimator(parts["pooled"], PROBES_NAME, 1, hidden_size)
        own = {
            domain: _checked_estimator(estimator, PROBES_NAME, 1, hidden_size)
            for domain, estimator in parts["by_domain"].items()
        }
        for estimator in (pooled, *own.values()):
            if estimator.classes_.dtype.kind != "i" or estimator.classes_.tolist() != [0, 1]:
                raise AdapterFormatError(
                    f"{PROBES_NAME}: a probe's classes are {estimator.classes_!r:.80}; expected 0, 1"
                )
        return cls(pooled, own)


def _fit_logistic(h: NDArray[np.float64], target: Any, C: float, seed: int) -> LogisticRegression:
    """Fits on standardised states, then folds mean and deviation into coefficients for the raw ones."""
    mean, deviation = h.mean(axis=0), h.std(axis=0)
    # A feature that does not vary has no deviation to divide by; it carries nothing, whatever it is divided by.
    # Around a large mean, float32 states vary in their last bits without any meaning.
    deviation = np.where(deviation > 1e-6 * np.abs(mean) + 1e-30, deviation, 1.0)
    model = LogisticRegression(C=C, max_iter=1000, random_state=seed).fit((h - mean) / deviation, target)
    weight = model.coef_ / deviation
    return _fitted(model.classes_, weight, model.intercept_ - weight @ mean, C, seed)


def _fitted(
    classes: NDArray[Any], weight: NDArray[np.float64], bias: NDArray[np.float64], C: float, seed: int
) -> LogisticRegression:
    """A fitted LogisticRegression with these coefficients in float32, and nothing else to store."""
    model = LogisticRegression(C=float(C), max_iter=1000, random_state=int(seed))
    model.classes_ = classes
    model.coef_ = weight.astype(np.float32)
    model.intercept_ = bias.astype(np.float32)
    model.n_features_in_ = weight.shape[1]
    return model


def _linear(estimator: LogisticRegression) -> Linear:
    return Linear(float32_tensor(estimator.coef_), float32_tensor(estimator.intercept_))


def _dump_skops(value: Any) -> bytes:
    # A schema of ten kilobytes stands beside each estimator's coefficients; most of it is the same again and again.
    return skops.io.dumps(value, compression=zipfile.ZIP_DEFLATED)


def _load_skops(content: bytes, name: str) -> Any:
    """An object from a skops file, which may hold nothing but logistic regressions."""
    audit_skops(content, name)
    try:
        return skops.io.loads(content, trusted=[])
    # A hostile file can make the reader fail in any way; every way means the same to the user.
    except Exception as error:
        raise AdapterFormatError(f"{name}: refused: {type(error).__name__}: {str(error)[:200]}") from error


def _checked_estimator(estimator: Any, name: str, rows: int, hidden_size: int) -> LogisticRegression:
    """A new estimator with the coefficients and classes of a stored one; nothing else of that is kept."""
    if type(estimator) is not LogisticRegression:
        raise AdapterFormatError(f"{name}: holds a {type(estimator).__name__}; expected a LogisticRegression")
    shapes = {"coef_": (rows, hidden_size), "intercept_": (rows,)}
    for attribute, shape in shapes.items():
        value = getattr(estimator, attribute, None)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.shape != shape:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise AdapterFormatError(f"{name}: {attribute} is {found}; expected floats of shape {shape}")
        if not (np.abs(value) <= _MAX_COEFFICIENT).all():
            raise AdapterFormatError(f"{name}: {attribute} holds NaN, infinity, or numbers beyond 1e30")
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or classes.dtype.kind not in "iU":
        raise AdapterFormatError(f"{name}: classes_ is {classes!r:.80}; expected names or 0 and 1")
    C, seed = getattr(estimator, "C", None), getattr(estimator, "random_state", None)
    return _fitted(
        classes,
        estimator.coef_,
        estimator.intercept_,
        C if type(C) is float and C > 0 else 1.0,
        seed if type(seed) is int and seed >= 0 else 42,
    )
