"""Blocks recorded, pushed and passed over for a moment, on tiny random models."""

import pytest
import torch
from models import DEPTH, WIDTH, prompts, random_model, traces

from asa_adapter.modeling.recording import BlockCall, pushed, recorded, resumed
from asa_adapter.modeling.residual_stream import decoder_blocks, hidden_state


@pytest.mark.parametrize("family", ["lfm2", "gpt2", "falcon_h1"])
def test_what_is_recorded_is_what_transformers_calls_the_hidden_states(family: str) -> None:
    model, ids = random_model(family), prompts()
    with torch.no_grad(), recorded(decoder_blocks(model), [0, 2], lambda call: hidden_state(call.output)) as outputs:
        states = model(ids, output_hidden_states=True).hidden_states

    assert {layer: len(found) for layer, found in outputs.items()} == {0: 1, 2: 1}
    assert all(torch.equal(outputs[layer][0], states[layer + 1]) for layer in (0, 2))


def test_each_call_of_a_block_is_an_entry_with_the_tensors_it_was_given() -> None:
    model, ids = random_model(), prompts()
    blocks = decoder_blocks(model)
    with torch.no_grad(), recorded(blocks, range(DEPTH), lambda call: call) as calls:
        model(ids)
        model(ids[:, :4])

    assert [tuple(hidden_state(call.output).shape) for call in calls[1]] == [(3, 9, WIDTH), (3, 4, WIDTH)]
    handed_over = hidden_state(calls[0][0].output)
    assert any(torch.equal(value, handed_over) for value in calls[1][0].inputs if value.shape == handed_over.shape)


def test_a_block_that_does_not_run_has_no_entry() -> None:
    with recorded(decoder_blocks(random_model()), [1], lambda call: call) as calls:
        assert calls == {}


def refuse(call: BlockCall) -> None:
    raise ValueError(f"block {call.layer} is refused")


@pytest.mark.parametrize("fails", ["recorded", "pushed", "resumed"])
def test_no_trace_is_left_behind_an_error(fails: str) -> None:
    model, ids = random_model(), prompts()
    blocks, delta = decoder_blocks(model), torch.zeros(1, WIDTH)
    ways = {
        "recorded": lambda: recorded(blocks, [2], refuse),
        "pushed": lambda: pushed(blocks[2], torch.zeros(1, WIDTH + 1)),
        "resumed": lambda: resumed(blocks, 2, torch.zeros(3, 9, WIDTH + 1), torch.zeros(1, WIDTH + 1)),
    }
    before = [set(module.__dict__) for module in model.modules()]
    with pytest.raises((ValueError, RuntimeError)), ways[fails]():
        model(ids)

    assert traces(model) == []
    assert [set(module.__dict__) for module in model.modules()] == before
    with torch.no_grad(), pushed(blocks[2], delta):
        assert torch.equal(model(ids).logits, random_model()(ids).logits)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_push_reaches_the_last_token_alone(layer: int) -> None:
    model, ids = random_model(), prompts()
    blocks, delta = decoder_blocks(model), torch.full((3, WIDTH), 0.5)
    with torch.no_grad(), recorded(blocks, [layer], lambda call: hidden_state(call.output)) as outputs:
        model(ids)
        with pushed(blocks[layer], delta):
            after = model(ids, output_hidden_states=True).hidden_states[layer + 1]

    bare = outputs[layer][0]
    assert torch.equal(after[:, :-1], bare[:, :-1])
    torch.testing.assert_close(after[:, -1], bare[:, -1] + delta)


def test_a_resumed_model_gives_the_logits_of_the_whole_one() -> None:
    model, ids = random_model(), prompts()
    blocks = decoder_blocks(model)
    with torch.no_grad(), recorded(blocks, [2], lambda call: call.output) as outputs:
        whole = model(ids).logits
    with torch.no_grad(), resumed(blocks, 2, outputs[2][0], torch.zeros(1)):
        assert torch.equal(model(ids).logits, whole)
