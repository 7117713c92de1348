"""Every way of calling generate() on tiny random models of many families: steered once per row, at the right token.

A row of FAMILIES is a family of architectures. What transformers itself refuses for one (`LACKS`) is tested as such:
its own error comes through, and nothing stays behind.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from models import DEPTH, PAD, fitted_adapter, greedy, prompts, random_model, traces
from steered_families import LACKS, families

from asa_adapter import ASAAdapter
from asa_adapter.modeling.residual_stream import decoder_blocks, hidden_state


def block_outputs(model: Any, layer: int, ids: torch.Tensor, **keywords: Any) -> list[torch.Tensor]:
    """A block's output, after all other hooks, in each forward pass of a generate() call."""
    seen: list[torch.Tensor] = []
    with decoder_blocks(model)[layer].register_forward_hook(
        lambda _m, _a, out: seen.append(hidden_state(out).clone())
    ):
        greedy(model, ids, **keywords)
    return seen


def padded(ids: torch.Tensor, lengths: list[int], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = ids.clone(), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        kept = slice(ids.shape[1] - length, None) if side == "left" else slice(0, length)
        mask[row, kept] = 1
    return ids.masked_fill(mask == 0, PAD), mask


@families()
@pytest.mark.parametrize("side", ["left", "right"])
def test_exactly_the_last_prompt_token_moves_by_the_controllers_step(
    model: Any, adapter: ASAAdapter, side: str
) -> None:
    ids, mask = padded(prompts(), [9, 6, 4], side)
    before = block_outputs(model, 2, ids, attention_mask=mask)[0]
    with adapter.attach(model):
        after = block_outputs(model, 2, ids, attention_mask=mask)[0]
    last = [8, 8, 8] if side == "left" else [8, 5, 3]
    rows = torch.arange(3)
    states = before[rows, last]
    expected = before.clone()
    controller = adapter._controller
    expected[rows, last] = controller.steer(states, controller.decide(states))
    assert torch.equal(after, expected)
    assert not torch.equal(after[rows, last], states)


@families()
def test_decode_steps_are_not_touched(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        greedy(model, prompts())
        record = steering._record
    assert record is not None
    assert [len(part.rows) for part in record.met] == [3]


@families()
def test_steering_changes_the_answer(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(model, ids)
    with adapter.attach(model):
        assert not torch.equal(greedy(model, ids), base)


@families()
def test_after_removal_nothing_is_left_and_logits_are_bit_identical(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    keys, logits, tokens = set(model.__dict__), model(ids).logits, greedy(model, ids)
    handle = adapter.attach(model)
    greedy(model, ids)
    handle.remove()
    handle.remove()
    assert traces(model) == []
    assert set(model.__dict__) == keys
    assert torch.equal(model(ids).logits, logits)
    assert torch.equal(greedy(model, ids), tokens)


@families()
def test_alpha_zero_abstains_bit_identically(model: Any) -> None:
    ids = prompts()
    base = block_outputs(model, DEPTH - 1, ids)
    with fitted_adapter(alpha=0.0).attach(model) as steering:
        steered = block_outputs(model, DEPTH - 1, ids)
        assert [(d.gate, d.applied) for d in steering.decisions] == [(0, False)] * 3
    assert all(torch.equal(a, b) for a, b in zip(base, steered, strict=True))


def test_rows_with_gate_zero_keep_every_bit_beside_steered_ones(lfm2: Any) -> None:
    ids = prompts(rows=8)
    before = block_outputs(lfm2, 2, ids)[0]
    adapter = fitted_adapter()
    p_tools = sorted(d.p_tool for d in adapter.decide(before[:, -1]))
    tau = 0.5 + sorted(abs(p - 0.5) for p in p_tools)[4] + 1e-6
    with adapter.attach(lfm2) as steering:
        steering.tau = tau
        after = block_outputs(lfm2, 2, ids)[0]
        gates = [d.gate for d in steering.decisions]
    assert 0 in gates
    assert any(gates)
    for row, gate in enumerate(gates):
        assert torch.equal(after[row], before[row]) == (gate == 0)


@families("draft tokens")
def test_same_tokens_with_prompt_lookup(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts(rows=1, length=12).repeat(1, 2)
    with adapter.attach(model) as steering:
        plain = greedy(model, ids)
        assert torch.equal(greedy(model, ids, prompt_lookup_num_tokens=3), plain)
        assert [d.position for d in steering.decisions] == [23]


@families()
def test_beams_and_return_sequences_give_one_decision_for_each_row(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        output = greedy(model, prompts(), num_beams=3, num_return_sequences=2)
        record = steering._record
        assert len(output) == 6
        assert len(steering.decisions) == 3
    assert record is not None
    assert [len(part.rows) for part in record.met] == [9]


@families()
def test_sampling_is_steered_once_and_follows_the_seed(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        outputs = []
        for _ in range(2):
            torch.manual_seed(3)
            outputs.append(greedy(model, prompts(), do_sample=True, top_k=0))
        record = steering._record
    assert torch.equal(*outputs)
    assert record is not None
    assert [len(part.rows) for part in record.met] == [3]


def test_a_streamer_sees_the_steered_tokens(lfm2: Any, adapter: ASAAdapter) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    streamer, ids = Streamer(), prompts(rows=1)
    with adapter.attach(lfm2):
        output = greedy(lfm2, ids, streamer=streamer)
    assert streamer.tokens == [*output[0].tolist(), -1]


@families()
def test_guidance_runs_the_model_again_but_steers_once(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        greedy(model, prompts(), guidance_scale=1.5)
        record = steering._record
    assert record is not None
    assert [len(part.rows) for part in record.met] == [3]


@families()
def test_a_prompt_of_one_token_is_steered(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        greedy(model, prompts(length=1))
        assert [d.position for d in steering.decisions] == [0, 0, 0]


@families("inputs_embeds")
def test_inputs_embeds_are_steered_like_their_tokens(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    with adapter.attach(model):
        tokens = greedy(model, ids)[:, 9:]
        embeds = model.get_input_embeddings()(ids)
        output = model.generate(
            inputs_embeds=embeds, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=PAD
        )
    assert torch.equal(output, tokens)


def test_a_mask_that_generate_infers_from_pad_tokens_is_followed(lfm2: Any, adapter: ASAAdapter) -> None:
    ids, _ = padded(prompts(), [9, 6, 4], "right")
    with adapter.attach(lfm2) as steering:
        greedy(lfm2, ids)
        assert [d.position for d in steering.decisions] == [8, 5, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@families()
def test_states_of_half_precision_keep_their_type(model: Any, adapter: ASAAdapter, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    kept = block_outputs(model, 2, prompts())[0].dtype  # float32 in Mamba2, whatever the weights have
    with adapter.attach(model) as steering:
        assert block_outputs(model, 2, prompts())[0].dtype == kept
        assert all(d.applied for d in steering.decisions)


@families("draft tokens")
def test_same_tokens_with_an_assistant_model(model: Any, adapter: ASAAdapter) -> None:
    ids, assistant = prompts(rows=1), random_model("llama", seed=1)
    drafts = greedy(assistant, ids)
    with adapter.attach(model) as steering:
        plain = greedy(model, ids)
        assert torch.equal(greedy(model, ids, assistant_model=assistant), plain)
        assert [d.position for d in steering.decisions] == [8]
        record = steering._record
    assert record is not None
    assert [len(part.rows) for part in record.met] == [1]
    assert torch.equal(greedy(assistant, ids), drafts)


@families()
def test_one_prompt_alone_gets_what_it_gets_in_a_batch(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    with adapter.attach(model) as steering:
        together = greedy(model, ids)
        decisions = steering.decisions
        for row in range(3):
            assert torch.equal(greedy(model, ids[row : row + 1])[0], together[row])
            assert steering.decisions[0].gate == decisions[row].gate


@families()
def test_rows_with_all_three_gates_side_by_side(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts(rows=8)
    before = block_outputs(model, 2, ids)[0]
    p_tool = torch.tensor([d.p_tool for d in adapter.decide(before[:, -1])])
    # Centre the probe on these states, so that some of them lie on either side, and two in between.
    logits = torch.logit(p_tool.double(), eps=1e-12)
    k = len(adapter.config.domains)
    adapter._controller.bias[k:] -= logits.median()
    p_tool = torch.tensor([d.p_tool for d in adapter.decide(before[:, -1])])
    tau = 0.5 + (p_tool - 0.5).abs().sort().values[2].item() + 1e-6
    with adapter.attach(model) as steering:
        steering.tau = tau
        after = block_outputs(model, 2, ids)[0]
        gates = [d.gate for d in steering.decisions]
    assert set(gates) == {-1, 0, 1}
    moved = (after - before)[:, -1]
    for row, gate in enumerate(gates):
        direction = adapter._controller.direction[adapter.config.domains.index(steering.decisions[row].domain)]
        torch.testing.assert_close(moved[row], gate * 20.0 * direction, rtol=0, atol=1e-4)
        assert torch.equal(after[row, :-1], before[row, :-1])


@families()
def test_a_generation_config_is_followed(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    config = transformers.GenerationConfig(max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=PAD)
    with adapter.attach(model):
        assert torch.equal(model.generate(ids, generation_config=config), greedy(model, ids))
        assert torch.equal(model.generate(ids, config), greedy(model, ids))


def refusals() -> Iterator[Any]:
    calls = {
        "chunked prefill": {"prefill_chunk_size": 4},
        "draft tokens": {"prompt_lookup_num_tokens": 3},
    }
    for family, modes in LACKS.items():
        for mode in sorted(modes & set(calls)):
            yield pytest.param(family, calls[mode], id=f"{family}-{mode}")


@pytest.mark.parametrize(("model", "keywords"), list(refusals()), indirect=["model"])
def test_what_transformers_refuses_is_refused_alike_and_leaves_nothing(
    model: Any, adapter: ASAAdapter, keywords: dict[str, Any]
) -> None:
    ids = prompts(rows=1)
    with pytest.raises((AttributeError, RuntimeError, TypeError, ValueError)) as plain:
        greedy(model, ids, **keywords)
    with adapter.attach(model) as steering:
        steered = greedy(model, ids)
        with pytest.raises(plain.type) as refused:
            greedy(model, ids, **keywords)
        assert str(refused.value) == str(plain.value)
        assert steering._slot.window is None
        assert torch.equal(greedy(model, ids), steered)
