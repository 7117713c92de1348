"""`Rule`: how rows of one kind of state are decided and steered; and the checks of the config's kinds and rules."""

from typing import Any, NamedTuple

from asa_adapter.config.value_checks import MAX_ALPHA, MAX_LISTS, STATES, check_range, check_token_ids, finite_float

# The longest run of tokens that marks a role in a prompt.
LONGEST_MARK = 12
_MAX_STEP = 1e30
_BOUNDS = {
    "alpha": (0.0, MAX_ALPHA),
    "alpha_down": (0.0, MAX_ALPHA),
    "tau": (0.5, 1.0),
    "beta": (0.0, 1.0),
    "ready_below": (0.0, 1.0),
    "ready_above": (0.0, 1.0),
    "domain_alpha": (0.0, MAX_ALPHA),
    "route": (0.0, 1.0),
}


class Rule(NamedTuple):
    """How rows of one kind of state are decided and steered.

    Attributes:
        alpha: length of the step towards a call, in units of `residual_norm`.
        tau: confidence from which the gate opens.
        beta: share of the global direction.
        alpha_down: length of the step away from a call; None for that of `alpha`.
        ready_below: readiness below which a state is pushed towards a call (arXiv 2602.04935v3: tau_b); 1 for any.
        ready_above: readiness above which a state is pushed away from one (gamma); 0 for any.
        domain_alpha: length of the step along what is the domain's own, for states that need a call and are ready
            (eta_s); 0 for none.
        route: confidence of the router above which that step is made (tau_s).
    """

    alpha: float
    tau: float
    beta: float
    alpha_down: float | None = None
    ready_below: float = 1.0
    ready_above: float = 0.0
    domain_alpha: float = 0.0
    route: float = 0.0

    @property
    def steps(self) -> bool:
        """Whether it has a step at all."""
        return bool(self.alpha or self.alpha_down or (self.domain_alpha and self.ready_below < 1))

    @property
    def asks_readiness(self) -> bool:
        """Whether readiness plays a part."""
        return self.ready_below < 1 or self.ready_above > 0


def check_states(config: Any) -> None:
    """Checks for which kinds of state the adapter was fitted, and how they are told from token ids.

    Raises:
        TypeError: a field has another type.
        ValueError: an unknown kind, or several kinds without marks.
    """
    states, marks = config.states, config.state_marks
    if not isinstance(states, list | tuple) or any(type(name) is not str for name in states):
        raise TypeError(f"states is {states!r:.80}; expected kinds of state")
    if not states or list(states) != [name for name in STATES if name in states]:
        raise ValueError(f"states is {states!r:.80}; expected some of {STATES}, in this order")
    if not isinstance(marks, dict) or not all(isinstance(runs, list | tuple) and all(runs) for runs in marks.values()):
        raise TypeError(f"state_marks is {marks!r:.80}; expected runs of token ids by kind of state, none empty")
    if marks and (sorted(marks) != sorted(STATES) or not all(0 < len(runs) <= MAX_LISTS for runs in marks.values())):
        raise ValueError(
            f"state_marks holds {sorted(map(str, marks))!r:.80}; expected 1 to {MAX_LISTS} runs for each of {STATES}"
        )
    if len(states) > 1 and not marks:
        raise ValueError(f"states is {states!r:.80} and state_marks empty; expected the marks that tell these apart")
    found = {name: tuple(check_token_ids("state_marks", run) for run in marks[name]) for name in STATES if marks}
    if any(len(run) > LONGEST_MARK for runs in found.values() for run in runs):
        raise ValueError(f"state_marks holds a run of more than {LONGEST_MARK} tokens; expected shorter ones")
    object.__setattr__(config, "states", tuple(states))
    object.__setattr__(config, "state_marks", found)


def check_by_state(config: Any) -> None:
    """Checks the rules of kinds of state that differ from the config's own fields.

    Raises:
        TypeError: a field has another type.
        ValueError: a kind that was not fitted, an unknown name, or a value out of its range.
    """
    if not isinstance(config.by_state, dict) or not all(isinstance(rule, dict) for rule in config.by_state.values()):
        raise TypeError(f"by_state is {config.by_state!r:.80}; expected a dict of numbers for each kind of state")
    if strangers := [state for state in config.by_state if state not in config.states]:
        raise ValueError(f"by_state holds {strangers[0]!r:.80}; expected kinds of state among {config.states}")
    found: dict[str, dict[str, float]] = {}
    for state in (state for state in config.states if config.by_state.get(state)):
        if unknown := [name for name in config.by_state[state] if name not in _BOUNDS]:
            raise ValueError(f"by_state holds {unknown[0]!r:.80}; expected some of {', '.join(_BOUNDS)}")
        found[state] = {
            name: finite_float(f"by_state: {name}", config.by_state[state][name])
            for name in _BOUNDS
            if name in config.by_state[state]
        }
        for name, value in found[state].items():
            check_range(f"by_state: {name}", value, *_BOUNDS[name])
        longest = max(found[state].get(name, 0.0) for name in ("alpha", "alpha_down", "domain_alpha"))
        check_step(f"by_state: a step of {state!r}", longest, config.residual_norm)
    object.__setattr__(config, "by_state", found)


def check_step(name: str, alpha: float, residual_norm: float) -> None:
    """Refuses a step that float32 cannot hold.

    Raises:
        ValueError: it is too long.
    """
    if alpha * residual_norm > _MAX_STEP:
        raise ValueError(f"{name} {alpha:g} times residual_norm {residual_norm:g} is beyond the range of float32")
