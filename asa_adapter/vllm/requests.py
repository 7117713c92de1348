"""How far one request is steered, and which of a step's tokens end a prompt. Nothing here needs vLLM."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.matching.prompt_resemblance import Resemblance
from asa_adapter.matching.scope import Scope

SWITCH, FACTOR, WITHOUT_TOOLS, ALL_STATES = "asa", "asa_factor", "asa_without_tools", "asa_all_states"
MAX_FACTOR = 100.0
_RULE = "_asa_rule"  # set where a request comes in, whatever it says itself; no key of the user's begins so


class Asked(NamedTuple):
    """What is done to one request.

    Attributes:
        factor: what the adapter's step is multiplied by; 0 leaves the request to the bare model.
        rule: by which of the kinds of state that were fitted it is decided.
    """

    factor: float
    rule: int = 0


def asked(extra_args: Mapping[str, Any] | None) -> Asked:
    """What is done to a request, by the `extra_args` that `told` gave it.

    Raises:
        ValueError: as in `steering_factor`.
    """
    return Asked(steering_factor(extra_args), int((extra_args or {}).get(_RULE, 0)))


def steering_factor(extra_args: Mapping[str, Any] | None) -> float:
    """What the adapter's step is multiplied by in a request; 0 leaves the request to the bare model.

    Args:
        extra_args: `SamplingParams.extra_args`, over HTTP `vllm_xargs`: "asa" is 0 or 1 (off or on, the default),
            "asa_factor" a number from 0 to 100, and "asa_without_tools" and "asa_all_states" 0 or 1 (see
            `unless_left_alone`). Keys that do not begin with "asa" are ignored.

    Raises:
        ValueError: another key that begins with "asa", or another value.
    """
    given = {key: value for key, value in (extra_args or {}).items() if isinstance(key, str) and key.startswith("asa")}
    if unknown := sorted(given.keys() - {SWITCH, FACTOR, WITHOUT_TOOLS, ALL_STATES}):
        known = f"{SWITCH!r}, {FACTOR!r}, {WITHOUT_TOOLS!r} and {ALL_STATES!r}"
        raise ValueError(f"the request has {unknown!r:.200}; asa_adapter knows {known}")
    switch, factor = given.get(SWITCH, 1), given.get(FACTOR, 1.0)
    for name, value in ((SWITCH, switch), *((name, given.get(name, 0)) for name in (WITHOUT_TOOLS, ALL_STATES))):
        if type(value) not in (bool, int) or value not in (0, 1):
            raise ValueError(f"{name} is {value!r:.80}; expected 0 (off) or 1 (on)")
    if type(factor) not in (int, float) or not 0 <= factor <= MAX_FACTOR:  # NaN is not within either
        raise ValueError(f"{FACTOR} is {factor!r:.80}; expected a number from 0 to {MAX_FACTOR:g}")
    return float(factor) if switch else 0.0


def told(extra_args: Mapping[str, Any] | None, prompt: Sequence[int], adapter: Resemblance) -> dict[str, Any]:
    """The `extra_args` of a request with what its prompt tells.

    Steering is switched off where the adapter does not act on such prompts; of an adapter with a rule for each of
    several kinds of state, the prompt's is noted, for `asked`.

    Args:
        extra_args: those of the request; "asa_without_tools" 1 steers prompts without tools too, "asa_all_states" 1
            those that end in a kind of state that was not fitted, by the rule of the first kind.
        prompt: its token ids.
        adapter: what the prompts of the adapter's fit look like.
    """
    given = {key: value for key, value in (extra_args or {}).items() if key != _RULE}
    scope = Scope(adapter, bool(given.get(WITHOUT_TOOLS)), bool(given.get(ALL_STATES)))
    seen = scope.look(torch.tensor([list(prompt)]), 1)
    if seen.acts is not None:
        return {**given, SWITCH: 0}
    if len(seen.states) > 1 and seen.rules is not None and seen.rules[0] > 0:
        given[_RULE] = seen.rules[0]
    return given


def request_ends(
    starts: NDArray[np.integer[Any]],
    counts: NDArray[np.integer[Any]],
    lengths: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of the requests' last prompt tokens among the tokens of one step, which are concatenated.

    No state is kept for chunks, decoding, recomputation after a preemption or draft tokens: a request is met exactly
    when this step computes its last prompt token.

    Args:
        starts: (n,) number of tokens of each request that were computed before this step.
        counts: (n,) number of its tokens in this step.
        lengths: (n,) number of its prompt tokens.

    Returns:
        (m,) indices of the requests that are met, and (m,) rows of their last prompt tokens among the step's tokens.
    """
    ahead = lengths.astype(np.int64) - 1 - starts
    met = np.flatnonzero((ahead >= 0) & (ahead < counts))
    first_rows = np.cumsum(counts, dtype=np.int64) - counts
    return met, first_rows[met] + ahead[met]
