"""The policy "readiness" on top of a setting: what it makes of the gate, and which thresholds are the best."""

import numpy as np
import pytest

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.fitting.readiness_policy import Policy, PolicyGrounds, best_policy, with_policy

SETTING = Setting(2, 1.0, 0.7, 0.0, "pooled")


def grounds(rows: int = 200) -> PolicyGrounds:
    generator = np.random.default_rng(0)
    return PolicyGrounds(
        generator.integers(-1, 2, rows),
        generator.random(rows).astype(np.float32),
        generator.random(rows).astype(np.float32),
        generator.random(rows) < 0.7,
    )


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(0.5), Policy(1.0, 0.4), Policy(0.5, 0.4, 1.0), Policy(0.5, 0.0, 1.0, 0.5)]
)
def test_each_row_takes_the_trigger_of_what_is_done_to_it(policy: Policy) -> None:
    given = grounds()
    base, pushed, own = (np.full(200, name) for name in ("base", "pushed", "own"))
    found = given.triggers(policy, base, pushed, own)  # type: ignore[arg-type]
    for i in range(200):
        gate, ready = given.gate[i], given.ready[i]
        expected = "pushed"
        if gate > 0 and policy.ready_below < 1 and ready >= policy.ready_below:
            steps = policy.domain_alpha and given.sure[i] > policy.route and given.has_own[i]
            expected = "own" if steps else "base"
        if gate < 0 and policy.ready_above > 0 and ready <= policy.ready_above:
            expected = "base"
        assert found[i] == expected


def test_the_best_policy_is_found_and_of_equal_ones_the_simplest() -> None:
    given = grounds()
    labels = (given.gate > 0) & (given.ready < 0.5)
    pushed = given.gate > 0
    leader = Scored(SETTING, 0.0, pushed)
    nothing = np.zeros(200, dtype=bool)
    found = best_policy(
        Objective(), labels.astype(np.int64), leader, given, nothing, lambda _: nothing, [0.5, 1.0], ("first",)
    )
    assert found.score == 1.0
    assert found.setting.of("first").policy == tuple(Policy(0.5)._asdict().items())
    assert found.setting.plain()["by_state"] == {"first": Policy(0.5)._asdict()}
    assert found.setting._replace(by_state=()) == SETTING


def test_a_policy_is_added_to_the_rule_that_a_kind_of_state_has() -> None:
    ruled = SETTING._replace(by_state=(("first", (("alpha", 2.0),)),))
    found = with_policy(ruled, Policy(0.9), ("first", "after_result")).plain()["by_state"]
    assert found == {"first": {"alpha": 2.0, **Policy(0.9)._asdict()}, "after_result": Policy(0.9)._asdict()}
