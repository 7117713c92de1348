"""What differs between two places, and by what."""

import dataclasses
import json
from typing import Any

import pytest
from models import fitted_adapter

from asa_adapter.verification.sample_record import SampleRecord, SeenSample, Where
from asa_adapter.verification.samples import Sample
from asa_adapter.verification.two_records import TwoRecords, compared_records

SEEN = SeenSample("0123", "math", 0.93, 1, [7, 8, 9], [4, 5, 6])
EXACT, ROUNDED = Where("transformers 5", "cpu", "float32"), Where("vLLM 0.33.0", "a GPU", "bfloat16")


def verified(here: Where = EXACT, there: Where = EXACT, expected: SeenSample = SEEN, **changes: Any) -> TwoRecords:
    """One prompt, seen there and seen here with some changes."""
    samples = [Sample([{"role": "user", "content": "What is | 2?"}])]
    found = SampleRecord(samples, [dataclasses.replace(expected, **changes)], here)
    lines = compared_records(fitted_adapter(tau=0.9).config, SampleRecord(samples, [expected], there), found)
    return TwoRecords("mine", "a_model", "d" * 64, lines, str(there), str(here), {"bare": 0.002}, {"torch": "2"})


def test_the_same_in_both_places_is_equal() -> None:
    found = verified()
    assert found.equal
    assert found.verdict() == (
        "Equal: 1 of 1 decisions, 1 of 1 first tokens, 1 of 1 answers, 1 of 1 answers of the bare model; p differs by "
        "0.0000 at most. No difference by the adapter."
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"prompt": "4567"}, "prompt"),
        ({"gate": 0}, "decision"),
        ({"gate": -1}, "decision"),
        ({"domain": "code"}, "decision"),
        ({"steered": [1, 8, 9]}, "first token"),
        ({"steered": [7, 8, 1]}, "answer"),
        ({"p_tool": 0.95}, ""),
        ({"bare": [4, 5, 1], "steered": [1, 8, 9]}, "first token"),
        ({"bare": [4, 5, 1], "steered": [7, 8, 1]}, ""),
    ],
)
def test_what_differs_is_named_if_the_bare_model_answers_alike(changes: dict[str, Any], what: str) -> None:
    found = verified(**changes)
    assert found.lines[0].differs == what
    assert found.equal == (not what)
    if what:
        assert f"**1 of 1 prompts differ**: 1 by the {what}." in found.verdict()


def test_where_the_bare_model_begins_otherwise_nothing_is_called_equal() -> None:
    found = verified(bare=[1, 5, 6], steered=[1, 8, 9])
    assert (found.lines[0].differs, found.comparable, found.equal) == ("", 0, False)
    assert found.verdict().endswith(
        "**Nothing is shown**; 0 of 1 could be compared, as the bare model begins the others otherwise."
    )
    assert found.markdown().splitlines()[-3].endswith("| not comparable |")
    both = dataclasses.replace(found, lines=[*found.lines, *verified().lines])
    assert (both.comparable, both.equal) == (1, True)
    assert "No difference by the adapter; 1 of 2 could be compared" in both.verdict()


def test_a_decision_so_close_to_a_threshold_that_rounding_turns_it_is_no_difference() -> None:
    near = dataclasses.replace(SEEN, p_tool=0.905)
    found = verified(expected=near, p_tool=0.895, gate=0, steered=[1])
    assert found.equal
    assert "| 1, here 0 | other | other | same | near a threshold |" in found.markdown()
    assert verified(expected=dataclasses.replace(SEEN, p_tool=0.105, gate=0), gate=-1).equal
    assert not verified(expected=dataclasses.replace(SEEN, p_tool=0.912), gate=0).equal


def test_nearness_is_that_to_the_threshold_of_the_kind_of_state() -> None:
    config = fitted_adapter(tau=0.9).config
    config = dataclasses.replace(
        config, states=("first",), by_state={"first": {"alpha": 1.0, "tau": 0.7, "beta": 0.0}}
    )
    samples = [Sample([{"role": "user", "content": "Hi"}])]
    for p_tool, near in ((0.705, True), (0.905, False)):
        seen = dataclasses.replace(SEEN, p_tool=p_tool, state="first")
        record = SampleRecord(samples, [seen], EXACT)
        assert compared_records(config, record, record)[0].near is near


def test_a_prompt_that_was_left_alone_shows_no_p_and_is_near_nothing() -> None:
    found = verified(expected=dataclasses.replace(SEEN, p_tool=0.905), gate=0, p_tool=0.0, reason="left alone")
    assert found.lines[0].differs == "decision"
    assert "| 0.9050 | left alone |" in found.markdown()
    assert "p differs by 0.0000 at most" in found.verdict()


def test_a_closed_gate_has_no_domain() -> None:
    assert verified(expected=dataclasses.replace(SEEN, p_tool=0.5, gate=0), domain="code").equal


@pytest.mark.parametrize(("here", "there"), [(ROUNDED, EXACT), (EXACT, ROUNDED), (ROUNDED, ROUNDED)])
def test_where_numbers_are_rounded_answers_may_part_behind_the_first_token(here: Where, there: Where) -> None:
    assert verified(here, there, steered=[7, 1], bare=[4, 1]).equal
    assert not verified(here, there, steered=[1]).equal


def test_the_table_can_be_pasted_and_holds_nothing_that_opens_a_cell() -> None:
    text = verified(ROUNDED, domain="code").markdown()
    assert "| here | vLLM 0.33.0, a GPU, bfloat16 |" in text
    assert "| a step | bare 2.00 ms |" in text
    assert "| What is \\| 2? | math, here code | 0.9300 | 0.9300 | 1 | same | same | same | decision |" in text


def test_the_result_is_json() -> None:
    plain = verified(gate=0).plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["equal"] is False
    assert plain["rows"][0]["differs"] == "decision"
    assert plain["rows"][0]["expected"]["steered"] == [7, 8, 9]
