"""`Router` and `Probes`: scikit-learn logistic regressions on residual states, kept in skops files.

States are standardised for fitting. Mean and deviation are then folded into the coefficients, so that a fitted
classifier is one matrix and one bias. The controller runs these as tensors; inference does not need scikit-learn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

from asa_adapter.config.value_checks import PROBES_NAME, ROUTER_NAME
from asa_adapter.errors import AdapterFormatError
from asa_adapter.parts.linear import Linear, fit_logistic, fitted_logistic, float32_tensor, float64_states
from asa_adapter.parts.skops_file import checked_estimator, dump_skops, load_skops

# A domain with fewer training rows than this of either label has no probe of its own; the pooled one is used.
MIN_ROWS_PER_CLASS = 8


class Router:
    """Multinomial logistic regression from residual states to the tool domain.

    Args:
        estimator: a fitted LogisticRegression with the domain names as classes.

    Attributes:
        estimator_: that estimator.
        domains: (K,) domain names, the estimator's classes in their order.

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
            C: inverse of the L2 regularisation strength.
            seed: seed of the solver.

        Raises:
            ValueError: no rows, other lengths or shapes, or states that are not finite.
        """
        h, names = float64_states(states, domains=domains), [str(name) for name in domains]
        if len(set(names)) == 1:
            return cls(fitted_logistic(np.array(names[:1]), np.zeros((1, h.shape[1])), np.zeros(1), C, seed))
        return cls(fit_logistic(h, names, C, seed))

    def predict_proba(self, states: ArrayLike) -> NDArray[np.float32]:
        """(N, K) float32 probabilities of the domains, in the order of `domains`; states are (N, D)."""
        return torch.softmax(self.linear(self.domains)(float32_tensor(states)), dim=1).numpy()

    def linear(self, domains: Sequence[str]) -> Linear:
        """The router as a linear map with a row for each of `domains`; softmax of its scores gives probabilities.

        Raises:
            ValueError: `domains` are not the router's domains.
        """
        if sorted(domains) != sorted(self.domains):
            raise ValueError(f"the router knows the domains {sorted(self.domains)}; expected {sorted(domains)}")
        weight, bias = self.estimator_.coef_, self.estimator_.intercept_
        if len(self.domains) == 2:
            # For two classes scikit-learn has one row, the log-odds. Minus and plus half of it give the same softmax.
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        order = [self.domains.index(name) for name in domains]
        return Linear(float32_tensor(weight[order]), float32_tensor(bias[order]))

    def to_bytes(self) -> bytes:
        """The bytes of the skops file."""
        return dump_skops(self.estimator_)

    @classmethod
    def from_bytes(cls, content: bytes, hidden_size: int, domains: Sequence[str]) -> "Router":
        """Reads the bytes of the skops file; the other arguments are the expected D and domain names.

        Raises:
            AdapterFormatError: not a skops file, another kind of object, or shapes or classes that do not fit.
        """
        rows = 1 if len(domains) <= 2 else len(domains)
        estimator = checked_estimator(load_skops(content, ROUTER_NAME), ROUTER_NAME, rows, hidden_size)
        classes = [str(name) for name in estimator.classes_]
        if sorted(classes) != sorted(domains):
            raise AdapterFormatError(f"{ROUTER_NAME}: its classes are {classes!r:.200}; expected {sorted(domains)}")
        return cls(estimator)


class Probes:
    """Binary logistic regressions from residual states to p(tool needed): one pooled, and one for each domain.

    Args:
        pooled: a LogisticRegression fitted on the rows of all domains, with classes 0 and 1.
        by_domain: by domain name, one fitted on that domain's rows, for each domain with enough rows of both labels.
        by_state: by kind of state the probes fitted on its rows, for each kind with enough rows of both labels.
        ready: how ready a state is for a call, read at the steered layer (see `fit_readiness`); None if not known.

    Attributes:
        pooled_: the pooled estimator.
        by_domain_: the domains' own estimators, by domain name.
        by_state_: the kinds' own probes, by kind of state.
        ready_: the readiness.
    """

    def __init__(
        self,
        pooled: LogisticRegression,
        by_domain: dict[str, LogisticRegression],
        by_state: Mapping[str, "Probes"] | None = None,
        ready: LogisticRegression | None = None,
    ) -> None:
        self.pooled_ = pooled
        self.by_domain_ = by_domain
        self.by_state_ = dict(by_state or {})
        self.ready_ = ready

    def of(self, state: str) -> "Probes":
        """The probes of a kind of state: its own, else those of all rows."""
        return self.by_state_.get(state, self)

    @classmethod
    def fit(
        cls,
        states: ArrayLike,
        labels: ArrayLike,
        domains: Sequence[str],
        C: float = 1.0,
        seed: int = 42,
        given: ArrayLike | None = None,
    ) -> "Probes":
        """Fits the probes.

        Args:
            states: (N, D) residual states.
            labels: (N,) 1 where a tool is needed, else 0.
            domains: (N,) domain names.
            C: inverse of the L2 regularisation strength.
            seed: seed of the solver.
            given: (N,) bool, False for rows that were made from others; None for none. The intercepts make up for
                another share of label 1 among all rows than among those as given (prior correction: King and Zeng,
                Logistic Regression in Rare Events Data, Political Analysis 2001, section 4.1).

        Raises:
            ValueError: no rows, other lengths or shapes, a label that is neither 0 nor 1, one label only, or states
                that are not finite.
        """
        h, names = float64_states(states, domains=domains), [str(name) for name in domains]
        y = np.asarray(labels)
        if y.shape != (len(h),) or not np.isin(y, (0, 1)).all():
            raise ValueError(f"labels have shape {y.shape}; expected ({len(h)},), each 0 or 1")
        if len(np.unique(y)) < 2:
            raise ValueError(f"every label is {y[0]}; a probe needs rows of both labels")
        as_given = np.ones(len(h), dtype=bool) if given is None else np.asarray(given, dtype=bool)
        if as_given.shape != (len(h),):
            raise ValueError(f"given has shape {as_given.shape}; expected ({len(h)},), True or False for each row")

        def fitted(rows: NDArray[np.bool_]) -> LogisticRegression:
            found = fit_logistic(h[rows], y[rows].astype(int), C, seed)
            return _moved(found, _log_odds(y[rows & as_given]) - _log_odds(y[rows]))

        own = {name: fitted(np.array([other == name for other in names])) for name in enough_rows(names, y)}
        return cls(fitted(np.ones(len(h), dtype=bool)), own)

    @classmethod
    def fit_states(
        cls,
        states: ArrayLike,
        labels: ArrayLike,
        domains: Sequence[str],
        kinds: Sequence[str],
        C: float,
        seed: int,
        given: ArrayLike | None = None,
    ) -> "Probes":
        """Fits probes on all rows, and on those of each kind of state that has enough rows of both labels.

        Args:
            states, labels, domains, C, seed, given: as in `fit`.
            kinds: (N,) kind of state of each row.
        """
        h, y = np.asarray(states), np.asarray(labels)
        own = {}
        for kind in enough_rows(kinds, y):
            rows = [i for i, other in enumerate(kinds) if other == kind]
            mine = None if given is None else np.asarray(given)[rows]
            own[kind] = cls.fit(h[rows], y[rows], [domains[i] for i in rows], C, seed, mine)
        whole = cls.fit(h, y, domains, C, seed, given)
        return cls(whole.pooled_, whole.by_domain_, own)

    @classmethod
    def averaged(cls, layers: Sequence["Probes"]) -> "Probes":
        """Probes of R layers as one: for their (N, R D) states side by side, the mean of the layers' log odds.

        All must have probes of the same domains and kinds of state.
        """
        return cls(
            _averaged_estimator([probes.pooled_ for probes in layers]),
            {
                name: _averaged_estimator([probes.by_domain_[name] for probes in layers])
                for name in layers[0].by_domain_
            },
            {kind: cls.averaged([probes.by_state_[kind] for probes in layers]) for kind in layers[0].by_state_},
        )

    def shifted(self, amount: float) -> "Probes":
        """The same with an amount added to all log odds, which moves the threshold of unequal costs to p = .5."""
        own = {kind: probes.shifted(amount) for kind, probes in self.by_state_.items()}
        by_domain = {name: _moved(one, amount) for name, one in self.by_domain_.items()}
        return Probes(_moved(self.pooled_, amount), by_domain, own, self.ready_)

    def with_readiness(self, maps: Mapping[str, LogisticRegression]) -> "Probes":
        """The same with readiness: that of "" for all rows, and that of each kind of state that has probes."""
        own = {kind: Probes(one.pooled_, one.by_domain_, ready=maps[kind]) for kind, one in self.by_state_.items()}
        return Probes(self.pooled_, self.by_domain_, own, maps[""])

    def p_tool(self, states: ArrayLike, domain: str | None = None) -> NDArray[np.float32]:
        """(N,) float32 probabilities that a tool is needed, by the domain's own probe, else by the pooled one."""
        probe = Linear.of(self.by_domain_.get(domain, self.pooled_) if domain is not None else self.pooled_)
        return torch.sigmoid(probe(float32_tensor(states))[:, 0]).numpy()

    def linear(self, domains: Sequence[str], kind: str = "domain") -> Linear:
        """A linear map with a row for each of `domains`: its `p_tool` probe ("domain"), or the pooled ("pooled")."""
        own = self.by_domain_ if kind == "domain" else {}
        rows = [Linear.of(own.get(name, self.pooled_)) for name in domains]
        return Linear(torch.cat([row.weight for row in rows]), torch.cat([row.bias for row in rows]))

    def to_bytes(self) -> bytes:
        """The bytes of the skops file."""
        own = {state: one._parts() for state, one in self.by_state_.items()}
        return dump_skops(self._parts() | ({"by_state": own} if own else {}))

    def _parts(self) -> dict[str, Any]:
        ready = {} if self.ready_ is None else {"ready": self.ready_}
        return {"pooled": self.pooled_, "by_domain": self.by_domain_, **ready}

    @classmethod
    def from_bytes(
        cls,
        content: bytes,
        hidden_size: int,
        domains: Sequence[str],
        states: Sequence[str] = (),
        *,
        steered: int | None = None,
    ) -> "Probes":
        """Reads the bytes of the skops file.

        Args:
            content: the bytes.
            hidden_size: expected width of the states that probes read.
            domains: the domains.
            states: kinds of state.
            steered: expected width of the steered layer's states; None for `hidden_size`.

        Raises:
            AdapterFormatError: not a skops file, another kind of object, or shapes or classes that do not fit.
        """
        parts = load_skops(content, PROBES_NAME)
        own = parts.pop("by_state", {}) if type(parts) is dict else {}
        if type(own) is not dict or not set(own) <= set(states):
            raise AdapterFormatError(f"{PROBES_NAME}: probes for unknown kinds of state; expected some of {states}")
        widths = hidden_size, steered or hidden_size
        whole = cls._checked(parts, *widths, domains)
        by_state = {state: cls._checked(one, *widths, domains) for state, one in own.items()}
        return cls(whole.pooled_, whole.by_domain_, by_state, whole.ready_)

    @classmethod
    def _checked(cls, parts: Any, hidden_size: int, steered: int, domains: Sequence[str]) -> "Probes":
        names = set(parts) - {"ready"} if type(parts) is dict else set()
        if names != {"pooled", "by_domain"} or type(parts["by_domain"]) is not dict:
            raise AdapterFormatError(f"{PROBES_NAME}: expected a dict with 'pooled' and 'by_domain'")
        if strangers := sorted(map(repr, parts["by_domain"].keys() - set(domains))):
            raise AdapterFormatError(f"{PROBES_NAME}: probes for unknown domains {', '.join(strangers):.200}")
        pooled = checked_estimator(parts["pooled"], PROBES_NAME, 1, hidden_size)
        ready = checked_estimator(parts["ready"], PROBES_NAME, 1, steered) if "ready" in parts else None
        own = {
            domain: checked_estimator(estimator, PROBES_NAME, 1, hidden_size)
            for domain, estimator in parts["by_domain"].items()
        }
        for estimator in (pooled, *own.values(), *([] if ready is None else [ready])):
            if estimator.classes_.dtype.kind != "i" or estimator.classes_.tolist() != [0, 1]:
                raise AdapterFormatError(
                    f"{PROBES_NAME}: a probe's classes are {estimator.classes_!r:.80}; expected 0, 1"
                )
        return cls(pooled, own, ready=ready)


def fit_readiness(
    direction: ArrayLike, known: ArrayLike, states: ArrayLike, labels: ArrayLike, seed: int = 42
) -> LogisticRegression:
    """How ready a state is for a call (arXiv 2602.04935v3, eq. 9): Platt's two numbers for its place on a direction.

    Args:
        direction: (D,) the direction towards a call.
        known: (M, D) states whose means and deviations standardise the features.
        states: (N, D) states of the rows on which the two numbers are fitted.
        labels: (N,) 1 where a tool is needed, else 0.

    Returns:
        A logistic regression of the raw states.

    Raises:
        ValueError: one label only, or states that are not finite.
    """
    base, h = float64_states(known), float64_states(states)
    deviation = base.std(axis=0)
    along = np.asarray(direction, dtype=np.float64) / np.where(deviation > 0, deviation, 1.0)
    place = (h - base.mean(axis=0)) @ along
    fitted = fit_logistic(place[:, None], np.asarray(labels).astype(int), 1.0, seed)
    weight = fitted.coef_.astype(np.float64)[0, 0] * along
    bias = fitted.intercept_.astype(np.float64) - weight @ base.mean(axis=0)
    return fitted_logistic(fitted.classes_, weight[None], bias, 1.0, seed)


def enough_rows(names: Sequence[str], labels: NDArray[np.int64]) -> list[str]:
    """Those of (N,) names that have enough rows of both labels for a probe of their own, sorted."""
    counts = Counter(zip(names, (int(label) for label in labels), strict=True))
    return [n for n in sorted(set(names)) if min(counts[n, label] for label in (0, 1)) >= MIN_ROWS_PER_CLASS]


def _log_odds(labels: NDArray[np.int64]) -> float:
    """Log odds of label 1 in (N,) labels; half a row of each is added, so that one label alone has some."""
    return float(np.log(((labels == 1).sum() + 0.5) / ((labels == 0).sum() + 0.5)))


def _moved(one: LogisticRegression, amount: float) -> LogisticRegression:
    """The estimator with an amount added to its log odds."""
    return fitted_logistic(one.classes_, one.coef_, one.intercept_ + amount, one.C, one.random_state)


def _averaged_estimator(estimators: Sequence[LogisticRegression]) -> LogisticRegression:
    """One estimator for the states side by side, whose log odds are the mean of those of the given ones."""
    weight = np.concatenate([estimator.coef_ for estimator in estimators], axis=1) / len(estimators)
    bias = np.mean([estimator.intercept_ for estimator in estimators], axis=0)
    first = estimators[0]
    return fitted_logistic(first.classes_, weight, bias, first.C, first.random_state)
