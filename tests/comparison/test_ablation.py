import pytest
import torch
from models import WIDTH, fitted_adapter

from asa_adapter.comparison.ablation import ablations


@pytest.fixture
def states() -> torch.Tensor:
    return 4 * torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(0))


def steps(adapter: object, states: torch.Tensor) -> torch.Tensor:
    controller = adapter._controller  # type: ignore[attr-defined]
    return controller.steer(states, controller.decide(states)) - states


def test_each_variant_changes_one_part(states: torch.Tensor) -> None:
    adapter = fitted_adapter(tau=0.8, beta=0.3)
    variants = ablations(adapter)
    gates = {name: [d.gate for d in variant.decide(states)] for name, variant in variants.items()}
    domains = {name: [d.domain for d in variant.decide(states)] for name, variant in variants.items()}
    full = torch.tensor(gates["full"])
    assert set(gates["full"]) == {-1, 0, 1}
    assert gates["no gate"] == [1] * 200
    assert gates["positive gate only"] == full.clamp(min=0).tolist()
    assert gates["negative gate only"] == full.clamp(max=0).tolist()
    for name in variants:
        if "gate" not in name and name != "no router":
            assert gates[name] == gates["full"]
        if name != "no router":
            assert domains[name] == domains["full"]


def test_every_step_has_the_full_length(states: torch.Tensor) -> None:
    for name, variant in ablations(fitted_adapter()).items():
        moved = [d.gate != 0 for d in variant.decide(states)]
        torch.testing.assert_close(
            steps(variant, states)[moved].norm(dim=1),
            torch.full((sum(moved),), 20.0),
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_directions_are_what_the_names_say(states: torch.Tensor) -> None:
    adapter = fitted_adapter(beta=0.3)
    found = {name: variant._controller.direction for name, variant in ablations(adapter).items()}
    v = adapter.vectors
    torch.testing.assert_close(found["global direction only"], v.v_global.expand(2, -1))
    torch.testing.assert_close(found["domain direction only"], v.v_domain)
    mixed = 0.3 * v.v_global + 0.7 * v.v_domain[1]
    torch.testing.assert_close(found["mismatched domain"][0], mixed / mixed.norm())
    randoms = [direction for name, direction in found.items() if name.startswith("random")]
    assert len(randoms) == 3
    assert all((direction @ v.v_global).abs().max() < 0.6 for direction in randoms)
    assert not torch.equal(randoms[0], randoms[1])


def test_without_router_the_pooled_probe_and_the_global_direction_rule(states: torch.Tensor) -> None:
    adapter = fitted_adapter()
    variant = ablations(adapter)["no router"]
    p_tool = torch.tensor([d.p_tool for d in variant.decide(states)])
    torch.testing.assert_close(p_tool, torch.from_numpy(adapter.probes.p_tool(states)))
    assert torch.equal(variant._controller.direction, adapter.vectors.mixed(1.0)[:1])


def test_one_domain_has_no_router_to_leave_out() -> None:
    assert not {"mismatched domain", "no router"} & set(ablations(fitted_adapter(domains=("math",))))


def test_the_adapter_itself_stays_as_it_was(states: torch.Tensor) -> None:
    adapter = fitted_adapter()
    before = adapter.digest()
    variants = ablations(adapter)
    assert adapter.digest() == before == variants["full"].digest()
    assert len({variant.digest() for variant in variants.values()}) == len(variants)


def test_an_abstaining_adapter_has_nothing_to_take_away() -> None:
    with pytest.raises(ValueError, match=r"the adapter abstains \(alpha 0\): it changes nothing"):
        ablations(fitted_adapter(alpha=0.0))


def test_a_variant_that_is_the_adapter_itself_is_left_out() -> None:
    variants = ablations(fitted_adapter(beta=1.0))
    assert not {"global direction only", "mismatched domain"} & set(variants)
    assert "domain direction only" not in ablations(fitted_adapter(beta=0.0))


def test_an_adapter_that_only_biases_logits_has_no_variants_of_its_direction() -> None:
    biasing = ablations(fitted_adapter(tau=0.8, action="bias", bias=3.0, opening_ids=(7,)))
    assert set(biasing) == {"full", "no gate", "positive gate only", "negative gate only", "no router"}
    assert {variant._controller.action for variant in biasing.values()} == {"bias"}
    both = ablations(fitted_adapter(tau=0.8, action="both", bias=3.0, opening_ids=(7,)))
    assert {variant._controller.action for variant in both.values()} == {"both"}
    assert set(both) == set(ablations(fitted_adapter(tau=0.8)))
