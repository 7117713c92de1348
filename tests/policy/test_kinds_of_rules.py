"""A rule for each kind of state: its own probes, directions, threshold and steps; and where one alone is as ever."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import DEPTH, WIDTH, controller_of, fitted_adapter, greedy, prompts, random_model

from asa_adapter import ASAAdapter, ASAConfig, Probes, SteeringVectors
from asa_adapter.comparison.ablation import ablations
from asa_adapter.matching.scope import state_not_fitted
from asa_adapter.parts.classifiers import MIN_ROWS_PER_CLASS

STATES = ("first", "after_result")
MARKS = {"first": ((40, 41),), "after_result": ((40, 42),)}
DOMAINS = ("code", "math")
RULE = {"alpha": 3.0, "alpha_down": 7.0, "tau": 0.9, "beta": 1.0}


def parts(seed: int) -> tuple[SteeringVectors, Probes]:
    """Directions and probes of random states in which another feature tells the need for each seed."""
    generator = np.random.default_rng(seed)
    states, labels = generator.normal(size=(80, WIDTH)), np.arange(80) // 2 % 2
    states[:, seed] += 4 * labels
    names = [DOMAINS[i % 2] for i in range(80)]
    return SteeringVectors.fit(states, labels.tolist(), names, DOMAINS), Probes.fit(states, labels, names)


def alone(seed: int, **changes: Any) -> ASAAdapter:
    """An adapter for one kind, with the parts of a seed and the router of all."""
    given = fitted_adapter(DOMAINS, tau=0.6, beta=0.5, alpha=5.0)
    config = dataclasses.replace(given.config, **changes)
    return ASAAdapter(config, *((own := parts(seed))[0], given.router, own[1]))


def several(**changes: Any) -> ASAAdapter:
    """An adapter with the parts of seed 5 for first turns and of seed 9 behind results."""
    first, vectors, probes = alone(5), *parts(9)
    config = dataclasses.replace(
        first.config, states=STATES, state_marks=MARKS, **{"by_state": {"after_result": RULE}, **changes}
    )
    own = SteeringVectors(first.vectors.v_global, first.vectors.v_domain, {"after_result": vectors})
    return ASAAdapter(
        config, own, first.router, Probes(first.probes.pooled_, first.probes.by_domain_, {"after_result": probes})
    )


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(3)) * 4


def test_each_row_is_decided_and_steered_by_the_rule_of_its_kind_bit_for_bit(states: torch.Tensor) -> None:
    both, first = controller_of(several()), controller_of(alone(5))
    second = controller_of(alone(9, alpha=3.0, tau=0.9, beta=1.0))
    down = controller_of(alone(9, alpha=7.0, tau=0.9, beta=1.0))
    rule = torch.arange(12) % 2
    verdicts = both.decide(states, rule)
    steered = both.steer(states, verdicts, rule)
    signs = set()
    for row in range(12):
        gate = int(verdicts.gate[row])
        own = first if not rule[row] else (second if gate >= 0 else down)
        one = own.decide(states)
        assert verdicts.p_tool[row] == one.p_tool[row]
        assert gate == one.gate[row]
        assert torch.equal(steered[row], own.steer(states, one)[row])
        signs.add((int(rule[row]), gate))
    assert {(0, 1), (1, 1), (1, -1)} <= signs


def test_one_kind_decides_and_steers_bit_for_bit_as_a_controller_without_kinds(states: torch.Tensor) -> None:
    plain, marked = controller_of(alone(5)), controller_of(alone(5, state_marks=MARKS))
    ruled = controller_of(
        alone(5, alpha=1.0, tau=0.5, beta=0.0, by_state={"first": {"alpha": 5.0, "tau": 0.6, "beta": 0.5}})
    )
    for other in (marked, ruled):
        assert other.others == ()
        for mine, theirs in zip(plain.decide(states)[:3], other.decide(states)[:3], strict=True):
            assert torch.equal(mine, theirs)
        assert torch.equal(plain.steer(states, plain.decide(states)), other.steer(states, other.decide(states)))


def test_a_kind_without_a_rule_or_parts_of_its_own_takes_the_pooled_ones(states: torch.Tensor) -> None:
    first = alone(5)
    config = dataclasses.replace(first.config, states=STATES, state_marks=MARKS)
    pooled = controller_of(ASAAdapter(config, first.vectors, first.router, first.probes))
    verdicts = pooled.decide(states, torch.ones(12, dtype=torch.long))
    assert torch.equal(
        pooled.steer(states, verdicts), controller_of(first).steer(states, controller_of(first).decide(states))
    )


def test_decide_says_the_kind_and_takes_its_rule(states: torch.Tensor) -> None:
    adapter = several()
    found = adapter.decide(states, ["first", "after_result"] * 6)
    assert [d.state for d in found] == ["first", "after_result"] * 6
    assert [d.p_tool for d in found[1::2]] == [d.p_tool for d in alone(9).decide(states)[1::2]]
    with pytest.raises(ValueError, match=r"kinds is \['last'\]; expected 12 of \('first', 'after_result'\)"):
        adapter.decide(states, ["last"])


def test_an_adapter_with_several_kinds_comes_back_from_its_folder(tmp_path: Path, states: torch.Tensor) -> None:
    adapter = several()
    adapter.save_pretrained(tmp_path)
    loaded = ASAAdapter.from_pretrained(tmp_path)
    assert loaded.config.by_state == {"after_result": RULE}
    assert loaded.digest() == adapter.digest() != several(by_state={}).digest()
    kinds = ["first", "after_result"] * 6
    assert list(map(str, loaded.decide(states, kinds))) == list(map(str, adapter.decide(states, kinds)))


def test_generate_steers_each_row_by_its_kind() -> None:
    lfm2, ids = random_model("lfm2"), prompts(2, 10)
    ids[:, 1:3] = torch.tensor(MARKS["first"][0])
    ids[1, 5:7] = torch.tensor(MARKS["after_result"][0])
    rule = {"alpha": 40.0, "tau": 0.5}
    found = {}
    for name, adapter in {
        "both": several(alpha=20.0, tau=0.5, by_state={"after_result": rule}),
        "first": alone(5, alpha=20.0, tau=0.5),
        "after_result": alone(9, **rule),
    }.items():
        with adapter.attach(lfm2) as steering:
            found[name] = greedy(lfm2, ids), steering.decisions
    for row, state in enumerate(STATES):
        assert torch.equal(found["both"][0][row], found[state][0][row])
        told, expected = found["both"][1][row], found[state][1][row]
        assert (told.state, told.reason, told.applied) == (state, "", True)
        assert (told.p_tool, told.gate, told.relative_step) == (expected.p_tool, expected.gate, expected.relative_step)


def test_a_kind_whose_steps_are_0_is_left_as_it_is() -> None:
    lfm2, ids = random_model("lfm2"), prompts(1, 10)
    ids[:, 1:3] = torch.tensor(MARKS["after_result"][0])
    bare = greedy(lfm2, ids)
    adapter = several(alpha=40.0, by_state={"after_result": {"alpha": 0.0}})
    assert not adapter.config.abstains
    with adapter.attach(lfm2) as steering:
        assert torch.equal(greedy(lfm2, ids), bare)
        assert [(d.state, d.gate, d.reason) for d in steering.decisions] == [("after_result", 0, "")]
    assert state_not_fitted("after_result").startswith("the prompt ends behind a tool's result")


def test_a_factor_scales_the_steps_of_each_kind_and_is_undone() -> None:
    lfm2 = random_model("lfm2")
    adapter = several(alpha=4.0, by_state={"first": {"alpha_down": 1.0}, "after_result": {"alpha": 0.0}})
    with adapter.attach(lfm2) as steering:
        before = steering._controller
        with steering.scaled(0.5):
            own = steering._controller.each
            assert [(one.step, one.down, one.tau) for one in own] == [(2.0, 0.5, 0.6), (0.0, None, 0.6)]
        assert steering._controller is before
        with pytest.raises(ValueError, match="the factor is 500, and the step 2000; expected at most 1000"):
            steering.scaled(500.0).__enter__()


def test_alpha_and_tau_set_while_it_runs_hold_in_every_kind() -> None:
    lfm2 = random_model("lfm2")
    with several().attach(lfm2) as steering:
        steering.alpha, steering.tau = 2.0, 0.7
        own = steering._controller.each
        assert [(one.step, one.down, one.tau) for one in own] == [(2.0, None, 0.7)] * 2


def test_ablations_change_every_kind() -> None:
    found = ablations(several())
    own = {name: variant._controller for name, variant in found.items()}
    assert [one.gates for one in own["no gate"].each] == [(1, 1)] * 2
    first, second = own["global direction only"].each
    assert torch.allclose(first.direction[0], parts(5)[0].v_global)
    assert torch.allclose(second.direction[0], parts(9)[0].v_global)
    assert [len(one.direction) for one in own["no router"].each] == [1, 1]
    assert own["no router"].others[0].down == 7.0


def test_probes_of_kinds_are_fitted_where_there_are_enough_rows_of_both_labels() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0, 1] * 30)
    states = generator.normal(size=(60, 4)) + labels[:, None]
    few = 2 * MIN_ROWS_PER_CLASS - 1
    kinds = ["after_result"] * few + ["first"] * (60 - few)
    probes = Probes.fit_states(states, labels, ["a"] * 60, kinds, 1.0, 42)
    assert list(probes.by_state_) == ["first"]
    assert np.array_equal(
        probes.of("after_result").p_tool(states), Probes.fit(states, labels, ["a"] * 60).p_tool(states)
    )
    alone = Probes.fit(states[few:], labels[few:], ["a"] * (60 - few))
    assert np.array_equal(probes.of("first").p_tool(states), alone.p_tool(states))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"by_state": {"after_result": {"tau": 0.7}}},
            r"by_state holds 'after_result'; expected .* among \('first',\)",
        ),
        (
            {"by_state": {"first": {"gamma": 0.7}}},
            "by_state holds 'gamma'; expected some of alpha, alpha_down, tau, beta, ready_below",
        ),
        ({"by_state": {"first": {"tau": 0.4}}}, "by_state: tau holds 0.4; expected 0.5 to 1"),
        ({"by_state": {"first": {"alpha_down": -1.0}}}, "by_state: alpha_down holds -1; expected 0 to 1000"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASAConfig(hidden_size=8, num_layers=DEPTH, layer=2, domains=("a",), **changes)


def test_files_with_probes_or_vectors_of_a_kind_that_was_not_fitted_are_refused() -> None:
    adapter = several()
    with pytest.raises(ValueError, match="probes for unknown kinds of state"):
        Probes.from_bytes(adapter.probes.to_bytes(), WIDTH, DOMAINS, ("first",))
    with pytest.raises(ValueError, match=r"steering_vectors.safetensors: holds .*after_result.v_domain"):
        SteeringVectors.from_bytes(adapter.vectors.to_bytes(), WIDTH, 2, ("first",))


def test_the_ablations_of_kinds_put_one_for_all_or_leave_what_ends_behind_results(states: torch.Tensor) -> None:
    adapter = several()
    found = {name: variant._controller for name, variant in ablations(adapter).items()}
    together, shut, full = found["one kind of state"], found["left alone behind results"], found["full"]
    [second] = together.others
    assert torch.equal(second.weight, together.weight)
    assert torch.equal(second.direction, adapter.vectors.mixed(RULE["beta"]))
    assert (second.step, second.down, second.tau) == (3.0, 7.0, 0.9)
    rule = torch.arange(12) % 2
    expected = full.decide(states, rule)
    assert expected.gate[rule == 1].any()
    verdicts = shut.decide(states, rule)
    assert torch.equal(verdicts.gate, torch.where(rule == 1, 0, expected.gate))
    assert torch.equal(shut.steer(states, verdicts, rule)[rule == 1], states[rule == 1])
    assert not {"one kind of state", "left alone behind results"} & ablations(alone(5)).keys()
