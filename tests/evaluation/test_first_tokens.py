from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from models import PAD, WIDTH, fitted_adapter, prompts, random_model, traces

from asa_adapter.answering.prefill import Prefilled
from asa_adapter.evaluation.first_tokens import Push, Screened
from asa_adapter.evaluation.first_tokens import first_tokens as screen_first_tokens
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.residual_stream import decoder_blocks


def ragged(rows: int = 7) -> list[list[int]]:
    return [ids.tolist()[: 4 + i] for i, ids in enumerate(prompts(rows=rows, length=4 + rows))]


def pushes(rows: int) -> list[Push]:
    generator = torch.Generator().manual_seed(5)
    domain = torch.arange(rows) % 2
    return [Push(layer, 30 * torch.randn(2, WIDTH, generator=generator), domain) for layer in (0, 2, 3)]


def first_tokens(model: Any, ids: list[list[int]], push: Push | None) -> list[int]:
    """Greedy first tokens of each prompt alone, with the push added by a hook of our own."""
    tokens = []
    for row, prompt in enumerate(ids):

        def add(_module: Any, _args: Any, output: torch.Tensor, row: int = row) -> torch.Tensor:
            assert push is not None
            steered = output.clone()
            steered[:, -1] += push.steps[push.domain[row]]
            return steered

        hook = decoder_blocks(model)[push.layer].register_forward_hook(add) if push is not None else None
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([prompt])).logits[0, -1].argmax()))
        if hook is not None:
            hook.remove()
    return tokens


def screened(model: Any, ids: list[list[int]], tried: list[Push], start_id: int) -> Screened:
    return screen_first_tokens(
        model, decoder_blocks(model), ids, tried, [start_id], pad_id=PAD, batch_size=3, progress=False
    )


def run(model: Any, ids: list[list[int]], tried: list[Push], start_id: int) -> np.ndarray:
    found = screened(model, ids, tried, start_id)
    assert found.triggered[found.probability > 0.5].all()
    return found.triggered


@pytest.mark.parametrize("family", ["lfm2", "llama", "qwen3"])
@pytest.mark.parametrize("cached", [True, False])
def test_it_agrees_with_each_prompt_alone(family: str, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not cached:
        monkeypatch.setattr(Prefilled, "is_faithful", lambda _self, _model: False)
    model, ids = random_model(family), ragged()
    tried = pushes(len(ids))
    expected = np.array([first_tokens(model, ids, push) for push in (None, *tried)])
    for start_id in np.unique(expected):
        assert np.array_equal(run(model, ids, tried, int(start_id)), expected == start_id)
    assert traces(model) == []


@pytest.mark.parametrize("family", ["lfm2", "llama", "qwen3"])
@pytest.mark.parametrize("cached", [True, False])
def test_pushes_of_some_prompts_are_those_of_all(family: str, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not cached:
        monkeypatch.setattr(Prefilled, "is_faithful", lambda _self, _model: False)
    model, ids = random_model(family), ragged()
    whole = screened(model, ids, pushes(len(ids)), 3).probability
    asked = torch.rand(3, len(ids), generator=torch.Generator().manual_seed(2)) < 0.5
    some = [replace(push, rows=rows) for push, rows in zip(pushes(len(ids)), asked, strict=True)]
    found = screened(model, ids, some, 3).probability
    assert np.allclose(found[0], whole[0], rtol=1e-4)
    assert np.allclose(found[1:], np.where(asked.numpy(), whole[1:], 0), rtol=1e-4)


def test_several_openings_count_together() -> None:
    model, ids = random_model(), ragged()
    tried = pushes(len(ids))
    each = [screened(model, ids, tried, opening) for opening in (7, 9)]
    both = screen_first_tokens(
        model, decoder_blocks(model), ids, tried, [9, 7, 9], pad_id=PAD, batch_size=3, progress=False
    )
    assert np.array_equal(both.triggered, each[0].triggered | each[1].triggered)
    np.testing.assert_allclose(both.probability, each[0].probability + each[1].probability, rtol=1e-5)


def test_margins_are_those_of_each_prompt_alone() -> None:
    model, ids = random_model(), ragged()
    tried = pushes(len(ids))
    found = screen_first_tokens(
        model, decoder_blocks(model), ids, tried, [9, 7], pad_id=PAD, batch_size=3, progress=False
    )
    with torch.no_grad():
        bare = torch.stack([model(torch.tensor([row])).logits[0, -1] for row in ids])
    others = [token for token in range(bare.shape[1]) if token not in (7, 9)]
    expected = bare[:, [7, 9]].amax(dim=1) - bare[:, others].amax(dim=1)
    np.testing.assert_allclose(found.margin[0], expected.numpy(), atol=1e-3)
    assert np.array_equal(found.margin > 0, found.triggered)


def test_prompts_of_one_token_need_no_cache() -> None:
    model, ids = random_model(), [[5], [6], [7]]
    expected = np.array([first_tokens(model, ids, push) for push in (None, *pushes(3))])
    start_id = int(expected[0, 0])
    assert np.array_equal(run(model, ids, pushes(3), start_id), expected == start_id)


def test_a_cache_that_gives_other_logits_is_not_used() -> None:
    model = random_model()
    with torch.no_grad():
        prompt = Prefilled(model, prompts().tolist(), SharedPrefix(), PAD)
        assert prompt.is_faithful(model)
        for layer in prompt.cache.layers:
            for name in ("keys", "values", "conv_states"):
                if isinstance(state := getattr(layer, name, None), torch.Tensor):
                    state.zero_()
                elif isinstance(state, dict):
                    for value in state.values():
                        value.zero_()
        assert not prompt.is_faithful(model)


def test_a_push_is_what_the_adapter_does() -> None:
    """The screen's step and the attached adapter's give the same first token."""
    model, ids = random_model(), prompts(rows=6)
    adapter = fitted_adapter()
    with adapter.attach(model) as steering:
        output = model.generate(ids, max_new_tokens=1, do_sample=False, pad_token_id=PAD)
        decisions = steering.decisions
    domain = torch.tensor([adapter.config.domains.index(d.domain) for d in decisions])
    gate = torch.tensor([d.gate for d in decisions])
    direction = adapter.vectors.mixed(adapter.config.beta)
    tried = [Push(2, sign * adapter.config.step * direction, domain) for sign in (1, -1)]
    for token in output[:, -1].unique().tolist():
        _, up, down = run(model, ids.tolist(), tried, token)
        assert np.array_equal(np.where(gate > 0, up, down), (output[:, -1] == token).numpy())


def entered(model: Any, only: int | None = None) -> list[int]:
    """Gets the number of each block that is really run; it listens to a part of it, for all blocks are called."""
    calls: list[int] = []
    for layer, block in enumerate(decoder_blocks(model)):
        if only in (None, layer):
            next(iter(block.children())).register_forward_hook(lambda *_, layer=layer: calls.append(layer))
    return calls


@pytest.mark.parametrize("family", ["lfm2", "llama", "qwen3", "gpt2"])
def test_a_push_runs_only_the_blocks_behind_it(family: str) -> None:
    model, ids = random_model(family), prompts(rows=3).tolist()
    push = pushes(3)[0]
    calls = entered(model)

    def runs_of_each_block(count: int) -> np.ndarray:
        calls.clear()
        run(model, ids, [push] * count, 3)
        return np.bincount(calls, minlength=4)

    assert (runs_of_each_block(12) - runs_of_each_block(5)).tolist() == [0, 7, 7, 7]
    assert not any("forward" in block.__dict__ for block in decoder_blocks(model))


@pytest.mark.parametrize("otherwise", [[], [0.0]])
def test_a_model_whose_blocks_share_more_than_the_state_is_run_whole(
    otherwise: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block 3 reads what block 0 left: without block 0 there is nothing, or something else."""
    model, ids = random_model("llama"), ragged()
    blocks, notes = decoder_blocks(model), dict[str, float]()
    first, last = blocks[0].forward, blocks[3].forward

    def leaves(hidden: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        notes["factor"] = 2.0
        return first(hidden, *args, **keywords)

    def reads(hidden: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        factor = notes.pop("factor", *otherwise)
        return last(torch.where(hidden > 0, factor * hidden, hidden), *args, **keywords)

    blocks[0].forward, blocks[3].forward = leaves, reads
    tried = pushes(len(ids))
    found = screened(model, ids, tried, 3)
    monkeypatch.setattr(Prefilled, "is_faithful", lambda _self, _model: False)
    assert np.allclose(found.probability, screened(model, ids, tried, 3).probability, rtol=1e-3)
    assert (blocks[0].forward, blocks[3].forward) == (leaves, reads)


def test_blocks_that_load_their_weights_when_they_run_are_resumed_alike(tmp_path: Path) -> None:
    """accelerate replaces forward() of each block, as the screen does."""
    model, ids = random_model(), ragged()
    expected = screened(model, ids, pushes(len(ids)), 3)
    places = {f"model.layers.{i}": "cpu" if i % 2 else "disk" for i in range(4)}
    places |= dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.embedding_norm", "lm_head"), "cpu")
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    before = [block.__dict__["forward"] for block in decoder_blocks(model)]
    kept, skipped = entered(model), entered(model, 0)
    found = screened(model, ids, pushes(len(ids)), 3)
    assert np.array_equal(found.probability, expected.probability)
    assert len(skipped) < len(kept) / 4  # block 0 was passed over, but not when the caches were tried
    assert [block.__dict__["forward"] for block in decoder_blocks(model)] == before
