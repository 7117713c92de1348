"""Probes that read several layers: what they read, in every way of generating, and what is left behind."""

from typing import Any

import pytest
import torch
from models import WIDTH, fitted_adapter, greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.states import last_token_states
from asa_adapter.steering.hook import SteeringHandle

READ = [(0, 1, 2), (1, 2), (0,), (0, 1)]


def bare_states(model: Any) -> torch.Tensor:
    """(L, B, D) states at the prompts' ends."""
    ids = prompts()
    return last_token_states(model, decoder_blocks(model), ids, torch.ones_like(ids), SharedPrefix())


def said(steering: SteeringHandle) -> list[tuple[str, float, int]]:
    """What a handle decided in its latest call; p(tool) without what the order of additions changes."""
    return [(decision.domain, round(decision.p_tool, 4), decision.gate) for decision in steering.decisions]


@pytest.mark.parametrize("read", READ, ids=str)
@pytest.mark.parametrize("family", ["lfm2", "qwen3", "gpt2"])
def test_the_probes_read_the_states_of_their_layers_side_by_side(family: str, read: tuple[int, ...]) -> None:
    model, adapter = random_model(family), fitted_adapter(read_layers=read)
    states = bare_states(model)
    together = torch.cat([states[layer] for layer in read], dim=1)
    with adapter.attach(model) as steering:
        greedy(model, prompts())
        decisions = steering.decisions
    for row, decision in enumerate(decisions):
        expected = adapter.probes.p_tool(together[row : row + 1], decision.domain)[0]
        assert decision.p_tool == pytest.approx(float(expected), abs=1e-5)
        routed = adapter.router.domains[int(adapter.router.predict_proba(states[2][row : row + 1]).argmax())]
        assert decision.domain == routed


@pytest.mark.parametrize(
    "way",
    [
        {"prefill_chunk_size": 2},
        {"num_beams": 1, "use_cache": False},
        {"guidance_scale": 1.0},
        {"prompt_lookup_num_tokens": 3},
        {"cache_implementation": "static"},
    ],
    ids=lambda way: next(iter(way)),
)
def test_every_way_of_generating_gives_the_same_tokens_and_decisions(way: dict[str, Any]) -> None:
    model, adapter = random_model("qwen3"), fitted_adapter(read_layers=(0, 2))
    rows = prompts()[:1] if "prompt_lookup_num_tokens" in way else prompts()
    with adapter.attach(model) as steering:
        expected, facts = greedy(model, rows), said(steering)
        assert torch.equal(greedy(model, rows, **way), expected)
        assert said(steering) == facts
    assert traces(model) == []


def test_a_compiled_forward_reads_the_same() -> None:
    model, adapter = random_model("lfm2"), fitted_adapter(read_layers=(0, 1, 2))
    with adapter.attach(model) as steering:
        expected, facts = greedy(model, prompts()), said(steering)
        model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
        assert torch.equal(greedy(model, prompts()), expected)
        assert said(steering) == facts


def test_one_reading_layer_that_is_the_steered_one_is_written_as_before() -> None:
    adapter = fitted_adapter(read_layers=(2,))
    assert adapter.config.read_layers == ()
    assert adapter.digest() == fitted_adapter().digest()


def test_states_are_decided_on_as_generate_decides() -> None:
    model, adapter = random_model("lfm2"), fitted_adapter(read_layers=(0, 1))
    with adapter.attach(model) as steering:
        greedy(model, prompts())
        generated = [(d.domain, d.gate) for d in steering.decisions]
    states = bare_states(model)[list(adapter.config.hooked)]
    assert [(d.domain, d.gate) for d in adapter.decide(states)] == generated
    with pytest.raises(ValueError, match=rf"states have shape \(3, {WIDTH}\); expected \(3, n, {WIDTH}\)"):
        adapter.decide(states[:, 0])


def test_reading_layers_are_saved_and_loaded(tmp_path: Any) -> None:
    adapter = fitted_adapter(read_layers=(0, 2))
    adapter.save_pretrained(tmp_path)
    again = ASAAdapter.from_pretrained(tmp_path)
    assert again.config.read_layers == (0, 2)
    assert again.digest() == adapter.digest()


def test_what_is_read_is_seen_after_the_steps_of_other_adapters() -> None:
    model, reads, below = random_model("lfm2"), fitted_adapter(layer=3, read_layers=(1, 3)), fitted_adapter(layer=1)
    p_tool = []
    for first, second in ((reads, below), (below, reads)):
        with first.attach(model) as one, second.attach(model) as two:
            greedy(model, prompts())
            handle = one if first is reads else two
            p_tool.append([decision.p_tool for decision in handle.decisions])
    with reads.attach(model) as alone:
        greedy(model, prompts())
        bare = [decision.p_tool for decision in alone.decisions]
    assert p_tool[0] == p_tool[1]
    assert p_tool[0] != bare


def test_a_block_that_is_skipped_is_named() -> None:
    model, adapter = random_model("lfm2"), fitted_adapter(read_layers=(0, 2))
    with adapter.attach(model):
        decoder_blocks(model)[0]._forward_hooks.clear()  # as where a model runs it past its __call__
        with pytest.raises(IncompatibleModelError, match=r"blocks \[0\], which the adapter reads, did not run before"):
            greedy(model, prompts())


@pytest.mark.parametrize(
    ("read", "error", "message"),
    [
        ((1, 3), ValueError, r"read_layers is \(1, 3\); expected at most 64 numbers from 0 to the steered layer, 2"),
        ((2, 1), ValueError, r"read_layers is \(2, 1\); .*each greater than the one before"),
        ((1, 1), ValueError, r"each greater than the one before"),
        ((True,), TypeError, r"read_layers is \(True,\); expected layer numbers"),
        ("12", TypeError, r"read_layers is '12'; expected layer numbers"),
    ],
)
def test_reading_layers_are_checked(read: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted_adapter(read_layers=read)


def test_probes_of_another_width_are_refused() -> None:
    one, several = fitted_adapter(), fitted_adapter(read_layers=(0, 2))
    message = rf"the probes read states of width {WIDTH}; expected the config's {WIDTH} for each of the 2 layers"
    with pytest.raises(ValueError, match=message):
        ASAAdapter(several.config, several.vectors, several.router, one.probes)
