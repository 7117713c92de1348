"""What a request asks for, and which rows of a step end a prompt."""

import math
import re
from typing import Any

import pytest
from engines import array
from hypothesis import given
from hypothesis import strategies as st

from asa_adapter import ASAConfig
from asa_adapter.matching.prompt_resemblance import Resemblance
from asa_adapter.vllm.requests import Asked, asked, request_ends, steering_factor, told


@pytest.mark.parametrize(
    ("extra", "factor"),
    [
        (None, 1.0),
        ({}, 1.0),
        ({"asa": 1}, 1.0),
        ({"asa": True}, 1.0),
        ({"asa": 0}, 0.0),
        ({"asa": False}, 0.0),
        ({"asa_factor": 0.5}, 0.5),
        ({"asa_factor": 100}, 100.0),
        ({"asa_factor": 0}, 0.0),
        ({"asa": 0, "asa_factor": 2.0}, 0.0),
        ({"somebody_elses": "x", 3: "y"}, 1.0),
    ],
)
def test_a_request_says_how_far_it_is_steered(extra: dict[str, Any] | None, factor: float) -> None:
    assert steering_factor(extra) == factor


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"asa": 2}, "asa is 2; expected 0 (off) or 1 (on)"),
        ({"asa": "1"}, "asa is '1'; expected 0 (off) or 1 (on)"),
        ({"asa": 1.0}, "asa is 1.0; expected 0 (off) or 1 (on)"),
        ({"asa": None}, "asa is None; expected 0 (off) or 1 (on)"),
        ({"asa": [1]}, "asa is [1]; expected 0 (off) or 1 (on)"),
        ({"asa_factor": math.nan}, "asa_factor is nan; expected a number from 0 to 100"),
        ({"asa_factor": math.inf}, "asa_factor is inf; expected a number from 0 to 100"),
        ({"asa_factor": -0.1}, "asa_factor is -0.1; expected a number from 0 to 100"),
        ({"asa_factor": 101}, "asa_factor is 101; expected a number from 0 to 100"),
        ({"asa_factor": 10**400}, "expected a number from 0 to 100"),
        ({"asa_factor": True}, "asa_factor is True; expected a number from 0 to 100"),
        ({"asa_factor": "1"}, "asa_factor is '1'; expected a number from 0 to 100"),
        ({"asa": 0, "asa_factor": "1"}, "asa_factor is '1'; expected a number from 0 to 100"),
        ({"asa_without_tools": 2}, "asa_without_tools is 2; expected 0 (off) or 1 (on)"),
        (
            {"asa_alpha": 1},
            "has ['asa_alpha']; asa_adapter knows 'asa', 'asa_factor', 'asa_without_tools' and 'asa_all_states'",
        ),
    ],
)
def test_a_request_that_means_nothing_is_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        steering_factor(extra)


FITTED = Resemblance(ASAConfig(hidden_size=8, num_layers=2, layer=0, domains=("a",), tools_marks=((7, 8), (9,))))


@pytest.mark.parametrize(
    ("extra", "prompt", "expected"),
    [
        (None, [1, 7, 8, 2], {}),
        (None, [1, 7, 2, 8], {"asa": 0}),
        ({"asa_factor": 0.5, "x": 1}, [1], {"asa_factor": 0.5, "x": 1, "asa": 0}),
        ({"asa_without_tools": 1}, [1], {"asa_without_tools": 1}),
        ({"asa_without_tools": 0}, [9], {"asa_without_tools": 0}),
    ],
)
def test_a_prompt_without_tools_is_left_alone_unless_asked_for(
    extra: dict[str, Any] | None, prompt: list[int], expected: dict[str, Any]
) -> None:
    assert told(extra, prompt, FITTED) == expected


KINDS = {"first": ((5,),), "after_result": ((6,),)}


@pytest.mark.parametrize(
    ("extra", "prompt", "expected"),
    [
        (None, [5, 1, 6, 2], {"asa": 0}),
        (None, [6, 1, 5, 2], {}),
        (None, [1, 2], {}),
        ({"asa_all_states": 1}, [6], {"asa_all_states": 1}),
        ({"asa_all_states": 0}, [6], {"asa_all_states": 0, "asa": 0}),
    ],
)
def test_a_prompt_of_a_kind_that_was_not_fitted_is_left_alone_unless_asked_for(
    extra: dict[str, Any] | None, prompt: list[int], expected: dict[str, Any]
) -> None:
    fitted = Resemblance(ASAConfig(hidden_size=8, num_layers=2, layer=0, domains=("a",), state_marks=KINDS))
    assert told(extra, prompt, fitted) == expected


BOTH = Resemblance(
    ASAConfig(
        hidden_size=8, num_layers=2, layer=0, domains=("a",), state_marks=KINDS, states=("first", "after_result")
    )
)


@pytest.mark.parametrize(
    ("extra", "prompt", "expected"),
    [
        (None, [6, 1, 5, 2], Asked(1.0, 0)),
        (None, [5, 1, 6, 2], Asked(1.0, 1)),
        ({"asa_factor": 0.5}, [6], Asked(0.5, 1)),
        ({"asa": 0}, [6], Asked(0.0, 1)),
        (None, [1, 2], Asked(0.0, 0)),
        ({"asa_all_states": 1}, [1, 2], Asked(1.0, 0)),
    ],
)
def test_a_request_is_decided_by_the_rule_of_its_prompt_s_kind(
    extra: dict[str, Any] | None, prompt: list[int], expected: Asked
) -> None:
    assert asked(told(extra, prompt, BOTH)) == expected


@pytest.mark.parametrize(("prompt", "rule"), [([5], 0), ([6], 1), ([1], 0)])
def test_a_request_cannot_say_itself_by_which_rule(prompt: list[int], rule: int) -> None:
    marked = told(None, [6], BOTH)
    (own,) = marked
    assert asked(told({own: 7, "x": 1}, prompt, BOTH)).rule == rule
    assert told({own: 7, "x": 1}, [5], FITTED) == {"x": 1, "asa": 0}


def test_an_adapter_that_knows_no_marks_steers_every_prompt() -> None:
    first = Resemblance(ASAConfig(hidden_size=8, num_layers=2, layer=0, domains=("a",)))
    assert told({"asa_factor": 2}, [1, 2], first) == {"asa_factor": 2}


def test_prompt_ends_of_whole_prompts_decodes_and_chunks() -> None:
    # a whole prompt of 5; a decode; a first chunk; a last chunk of 2 out of 9; the recomputation of a prompt of 3 and
    # its answer of 2; a prompt of which all but one token came from the cache
    starts, counts, lengths = array(0, 7, 0, 7, 0, 5), array(5, 1, 4, 2, 5, 1), array(5, 7, 9, 9, 3, 6)
    met, rows = request_ends(starts, counts, lengths)
    assert met.tolist() == [0, 3, 4, 5]
    assert rows.tolist() == [4, 11, 14, 17]


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 6), st.lists(st.integers(1, 5), max_size=12)),
        min_size=1,
        max_size=6,
    )
)
def test_however_prompts_are_cut_each_end_is_met_once(requests: list[tuple[int, int, list[int]]]) -> None:
    """Each request computes its prompt and answer in pieces, from behind what a cache holds (not the last token)."""
    lengths = [length for length, _, _ in requests]
    at = [min(cached, length - 1) for length, cached, _ in requests]
    pieces = [[*cuts, 100] for _, _, cuts in requests]
    seen: list[int] = []
    for step in range(max(map(len, pieces))):
        running = [i for i in range(len(requests)) if step < len(pieces[i])]
        counts = [pieces[i][step] for i in running]
        laid = [(i, at[i] + k) for i, n in zip(running, counts, strict=True) for k in range(n)]
        met, rows = request_ends(
            array(*(at[i] for i in running)), array(*counts), array(*(lengths[i] for i in running))
        )
        assert [laid[row] for row in rows] == [(running[m], lengths[running[m]] - 1) for m in met]
        seen += [running[m] for m in met]
        for i, n in zip(running, counts, strict=True):
            at[i] += n
    assert sorted(seen) == list(range(len(requests)))
