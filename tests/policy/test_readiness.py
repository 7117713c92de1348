"""The policy "readiness" beside the gate (arXiv 2602.04935v3), the cap of a step, and where both are the gate."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import WIDTH, controller_of, default_dtype, fitted_adapter, prompts, random_model
from sklearn.linear_model import LogisticRegression

from asa_adapter import ASAAdapter, Probes, SteeringVectors
from asa_adapter.comparison.ablation import ablations
from asa_adapter.parts.classifiers import fit_readiness
from asa_adapter.policy.controller import Readiness, _with_readiness

DOMAINS = ("code", "math")
NEUTRAL = {"ready_below": 1.0, "ready_above": 0.0, "domain_alpha": 0.0}


def ready_adapter(**rule: float) -> ASAAdapter:
    """An adapter whose readiness is read along the global direction, with a rule for its one kind of state."""
    given = fitted_adapter(DOMAINS, tau=0.6, beta=1.0, alpha=5.0)
    generator = np.random.default_rng(4)
    states, labels = generator.normal(size=(60, WIDTH)), np.arange(60) % 2
    states[:, 0] += 2 * labels
    ready = fit_readiness(given.vectors.v_global, states, states, labels)
    probes = Probes(given.probes.pooled_, given.probes.by_domain_, ready=ready)
    config = dataclasses.replace(given.config, by_state={"first": rule} if rule else {})
    return ASAAdapter(config, given.vectors, given.router, probes)


def calling(adapter: ASAAdapter) -> ASAAdapter:
    """The adapter with probes that say of every state that a tool is needed."""
    for estimator in (adapter.probes.pooled_, *adapter.probes.by_domain_.values()):
        estimator.intercept_ = estimator.intercept_ + 100
    return ASAAdapter(adapter.config, adapter.vectors, adapter.router, adapter.probes)


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(3)) * 3


def test_without_limits_and_without_a_step_of_the_domain_it_is_the_gate_bit_for_bit(states: torch.Tensor) -> None:
    plain = controller_of(ready_adapter())
    # Also where readiness is read, so that the arithmetic is that of the policy.
    adapter = ready_adapter()
    read = _with_readiness(plain, adapter.config.rule("first"), adapter.probes.ready_, adapter.vectors.own(), 1.0)
    assert read.readiness == Readiness(1.0, 0.0, 0.0, 0.0)
    for other in (controller_of(ready_adapter(**NEUTRAL)), read):
        for mine, theirs in zip(plain.decide(states), other.decide(states), strict=True):
            assert torch.equal(mine, theirs)
        assert torch.equal(plain.steer(states, plain.decide(states)), other.steer(states, other.decide(states)))


def test_states_are_pushed_as_their_need_and_their_readiness_ask_for(states: torch.Tensor) -> None:
    adapter = ready_adapter(ready_below=0.7, ready_above=0.3, domain_alpha=2.0, route=0.6)
    plain, policy, own = controller_of(ready_adapter()), controller_of(adapter), adapter.vectors.own()
    gate, domain = plain.decide(states).gate, plain.decide(states).domain
    ready = torch.from_numpy(adapter.probes.ready_.predict_proba(states.numpy())[:, 1])  # type: ignore[union-attr]
    sure = torch.from_numpy(adapter.router.predict_proba(states)).amax(dim=1) > 0.6
    found = policy.decide(states)
    steered = policy.steer(states, found)
    met = set()
    for i in range(len(states)):
        if gate[i] > 0 and ready[i] >= 0.7:
            what, step = ("own", 2.0 * own[domain[i]]) if sure[i] else ("unsure", torch.zeros(WIDTH))
        elif gate[i] > 0:
            what, step = "up", 5.0 * adapter.vectors.v_global
        elif gate[i] < 0 and ready[i] > 0.3:
            what, step = "down", -5.0 * adapter.vectors.v_global
        else:
            what, step = "alone", torch.zeros(WIDTH)
        met.add(what)
        assert torch.allclose(steered[i], states[i] + step, atol=1e-5), what
        assert bool(found.gate[i]) == bool(step.any())
    assert met == {"own", "unsure", "up", "down", "alone"}


def test_lengths_and_domains_of_decisions_are_those_of_the_step_that_was_made() -> None:
    lfm2, ids = random_model("lfm2"), prompts(60)
    with calling(ready_adapter(ready_below=0.0, domain_alpha=2.0)).attach(lfm2) as steering:
        lfm2.generate(ids, max_new_tokens=1, do_sample=False)
        found = steering.decisions
    with calling(fitted_adapter(DOMAINS, tau=0.6, beta=1.0, alpha=2.0)).attach(lfm2) as steering:
        lfm2.generate(ids, max_new_tokens=1, do_sample=False)
        expected = steering.decisions
    pushed = [row for row, decision in enumerate(found) if decision.gate > 0]
    assert pushed
    for row in pushed:
        told = (found[row].domain, found[row].relative_step, found[row].applied)
        assert told == (expected[row].domain, expected[row].relative_step, True)


def test_what_is_a_domains_own_is_at_right_angles_to_what_all_share_and_left_out_where_little_is_left() -> None:
    base = torch.zeros(4)
    base[0] = 1.0
    near = torch.tensor([0.99, np.sqrt(1 - 0.99**2), 0.0, 0.0], dtype=torch.float32)
    far = torch.tensor([0.6, 0.0, 0.8, 0.0])
    own = SteeringVectors(base, torch.stack([near, far, torch.zeros(4)])).own()
    assert torch.equal(own[0], torch.zeros(4))
    assert torch.allclose(own[1], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert torch.equal(own[2], torch.zeros(4))


def test_readiness_is_platts_map_of_the_place_on_the_direction() -> None:
    generator = np.random.default_rng(0)
    known, states, labels = generator.normal(3, 5, (50, 4)), generator.normal(3, 5, (40, 4)), np.arange(40) % 2
    states[:, 1] += 4 * labels
    direction = np.array([0.6, 0.8, 0.0, 0.0])
    place = ((states - known.mean(0)) / known.std(0)) @ direction
    scaled = ((place - place.mean()) / place.std())[:, None]
    expected = LogisticRegression(C=1.0).fit(scaled, labels).predict_proba(scaled)[:, 1]
    found = fit_readiness(direction, known, states, labels).predict_proba(states.astype(np.float32))[:, 1]
    assert np.allclose(found, expected, atol=1e-3)


def test_a_step_is_capped_at_a_share_of_the_states_norm(states: torch.Tensor) -> None:
    given = ready_adapter()
    capped = controller_of(ASAAdapter(dataclasses.replace(given.config, cap=0.1), *_parts(given)))
    verdicts = capped.decide(states)
    lengths = (capped.steer(states, verdicts) - states).norm(dim=1)
    assert torch.allclose(lengths, torch.where(verdicts.gate != 0, 0.1 * states.norm(dim=1), 0.0), atol=1e-4)
    plain = controller_of(given)
    wide = controller_of(ASAAdapter(dataclasses.replace(given.config, cap=1000.0), *_parts(given)))
    assert torch.equal(wide.steer(states, verdicts), plain.steer(states, verdicts))


def test_an_adapter_with_the_policy_comes_back_from_its_folder(tmp_path: Path) -> None:
    adapter = ready_adapter(ready_below=0.7, domain_alpha=2.0)
    adapter.save_pretrained(tmp_path)
    loaded = ASAAdapter.from_pretrained(tmp_path)
    assert loaded.digest() == adapter.digest() != ready_adapter().digest()
    assert loaded.config.rule("first").domain_alpha == 2.0


def test_thresholds_without_a_fitted_readiness_are_refused() -> None:
    given = ready_adapter(ready_below=0.7)
    probes = Probes(given.probes.pooled_, given.probes.by_domain_)
    with pytest.raises(ValueError, match="thresholds of readiness, and the probes hold no readiness for that kind"):
        ASAAdapter(given.config, given.vectors, given.router, probes)


def test_the_ablation_without_readiness_is_the_gate_alone(states: torch.Tensor) -> None:
    found = ablations(ready_adapter(ready_below=0.7, domain_alpha=2.0))
    alone, plain = found["no readiness"]._controller, controller_of(ready_adapter())
    assert torch.equal(alone.steer(states, alone.decide(states)), plain.steer(states, plain.decide(states)))
    assert len(found["random direction (seed 0)"]._controller.direction) == 2 * len(DOMAINS)
    assert "no readiness" not in ablations(ready_adapter())


def test_the_ablation_without_the_residual_leaves_ready_states_alone(states: torch.Tensor) -> None:
    found = ablations(ready_adapter(ready_below=0.7, domain_alpha=2.0))
    full, still = found["full"]._controller, found["no residual"]._controller
    expected, verdicts = full.decide(states), still.decide(states)
    along = expected.domain >= len(DOMAINS)
    assert along.any()
    assert torch.equal(verdicts.gate, torch.where(along, 0, expected.gate))
    assert "no residual" not in ablations(ready_adapter(ready_below=0.7))


def test_the_ablation_without_the_cap_takes_steps_of_full_length(states: torch.Tensor) -> None:
    given = ready_adapter()
    capped = ASAAdapter(dataclasses.replace(given.config, cap=0.1), *_parts(given))
    free, plain = ablations(capped)["no cap"]._controller, controller_of(given)
    assert torch.equal(free.steer(states, free.decide(states)), plain.steer(states, plain.decide(states)))
    assert "no cap" not in ablations(given)


def _parts(adapter: ASAAdapter) -> tuple[Any, Any, Any]:
    return adapter.vectors, adapter.router, adapter.probes


def test_a_step_of_the_domain_without_a_limit_never_acts_so_the_adapter_abstains() -> None:
    config = dataclasses.replace(ready_adapter().config, alpha=0.0, by_state={"first": {"domain_alpha": 1.0}})
    assert config.abstains
    assert not dataclasses.replace(config, by_state={"first": {"domain_alpha": 1.0, "ready_below": 0.5}}).abstains


def test_the_handles_alpha_scales_the_step_of_the_domain_and_0_stops_it() -> None:
    adapter = calling(ready_adapter(ready_below=0.0, domain_alpha=2.0))
    model = random_model()
    with adapter.attach(model) as steering:
        unit = adapter.config.residual_norm
        steering.alpha = 2.5  # half of the fitted 5
        assert steering._controller.readiness is not None
        assert steering._controller.readiness.step == pytest.approx(1.0 * unit)
        steering.alpha = 0.0
        assert steering._controller.readiness.step == 0.0
        assert not steering._controller.pushes


def test_kinds_with_and_without_readiness_share_an_adapter(states: torch.Tensor) -> None:
    ready = controller_of(calling(ready_adapter(ready_below=0.5, domain_alpha=2.0)))
    plain = controller_of(calling(ready_adapter()))
    both, rule = dataclasses.replace(ready, others=(plain,)), torch.arange(len(states)) % 2
    verdicts = both.decide(states, rule)
    steered = both.steer(states, verdicts, rule)
    assert bool((verdicts.domain >= len(DOMAINS)).any())
    for which, one in enumerate((ready, plain)):
        rows = rule == which
        assert torch.equal(steered[rows], one.steer(states[rows], one.decide(states[rows])))


def test_tensors_are_float32_on_the_cpu_whatever_the_defaults_are(tmp_path: Path) -> None:
    """vLLM builds models, and what is in them, under the model's own dtype and device as defaults."""
    adapter = ready_adapter(ready_below=0.5, domain_alpha=2.0)
    folder, usual = adapter.save_pretrained(tmp_path), adapter._controller
    with default_dtype(torch.bfloat16):
        loaded = ASAAdapter.from_pretrained(folder)
        with torch.device("meta"):
            again = ASAAdapter(loaded.config, loaded.vectors, loaded.router, loaded.probes)
            found, variants = again._controller, ablations(again)
    for name in ("weight", "bias", "direction"):
        assert torch.equal(getattr(found, name), getattr(usual, name))
    expected = ablations(adapter)
    assert {name: one.digest() for name, one in variants.items()} == {n: one.digest() for n, one in expected.items()}
