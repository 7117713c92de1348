from typing import Any

import pytest
import torch
from models import FAMILIES, fitted_adapter, greedy, prompts, random_model, traces
from torch import nn

from asa_adapter import IncompatibleModelError
from asa_adapter.modeling.block_check import verify_block
from asa_adapter.modeling.residual_stream import decoder_blocks


@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_block_of_every_family_passes(family: str, layer: int) -> None:
    model = random_model(family)
    verify_block(model, decoder_blocks(model), layer)
    assert traces(model) == []


def test_the_check_leaves_no_trace() -> None:
    model = random_model("lfm2").train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    keys = [set(module.__dict__) for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    random = torch.random.get_rng_state()
    verify_block(model, decoder_blocks(model), 2)
    assert [module.training for module in model.modules()] == modes
    assert [set(module.__dict__) for module in model.modules()] == keys
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_a_block_is_checked_once() -> None:
    model, passes = random_model("lfm2"), []
    with model.register_forward_pre_hook(lambda *_: passes.append(1)):
        for layer in (2, 2, 1):
            verify_block(model, decoder_blocks(model), layer)
    assert len(passes) == 2


class Odd(nn.Module):
    """A model whose blocks have one oddity."""

    def __init__(self, oddity: str) -> None:
        super().__init__()
        self.oddity = oddity
        self.embed = nn.Embedding(8, 4)
        self.blocks = nn.ModuleList(Block(oddity) for _ in range(3))
        self.config = type("Config", (), {"num_hidden_layers": 3, "hidden_size": 4})()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        if self.oddity == "needs an image":
            raise RuntimeError("no image given")
        hidden = self.embed(input_ids)
        for i, block in enumerate(self.blocks):
            if self.oddity == "skips the second block" and i == 1:
                continue
            if self.oddity == "runs blocks again":
                hidden = block(hidden)
            out = block(hidden.transpose(0, 1) if self.oddity == "tokens first" else hidden)
            hidden = hidden + (out["state"] if isinstance(out, dict) else out).reshape(1, 2, -1, 4).mean(dim=2)
        return hidden


class Block(nn.Module):
    """Puts out what the model adds to its stream, in the form of the oddity."""

    def __init__(self, oddity: str) -> None:
        super().__init__()
        self.oddity = oddity
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden: torch.Tensor) -> Any:
        out = self.linear(hidden)
        if self.oddity == "several streams":
            return out.unsqueeze(2).expand(-1, -1, 3, -1)
        return {"state": out} if self.oddity == "a dict" else out


@pytest.mark.parametrize(
    ("oddity", "layer", "message"),
    [
        ("tokens first", 1, r"returned a state of shape \(2, 1, 4\) .* \(rows, tokens, width\) = \(1, 2, 4\)"),
        ("several streams", 1, r"of shape \(1, 2, 3, 4\) for one row of two tokens; expected .* = \(1, 2, 4\)"),
        ("a dict", 1, "a decoder block returned a dict; expected a tensor"),
        ("needs an image", 1, "Odd could not read two tokens.* checked: RuntimeError: no image given"),
        ("skips the second block", 1, "block 1 of Odd did not run when the model read two tokens.*layer_path"),
        ("runs blocks again", 1, "block 1 of Odd runs 2 times in one forward pass.* no one state to read and steer"),
        ("adds outside", 0, "block 1 of Odd does not read the output of block 0, so that is not the residual stream"),
        ("adds outside", 2, "block 2 of Odd does not read the output of block 1, so that is not the residual stream"),
    ],
)  # fmt: skip
def test_what_is_no_residual_stream_is_refused(oddity: str, layer: int, message: str) -> None:
    model = Odd(oddity)
    with pytest.raises(IncompatibleModelError, match=message):
        verify_block(model, model.blocks, layer)
    assert traces(model) == []


def test_attach_checks_before_it_changes_the_model() -> None:
    model = random_model("llama")
    model.model.layers[3] = nn.Module()
    with pytest.raises(IncompatibleModelError, match="LlamaForCausalLM could not read two tokens"):
        fitted_adapter().attach(model)
    assert traces(model) == []


def test_the_check_runs_with_an_adapter_at_another_layer() -> None:
    model, ids = random_model("lfm2"), prompts()
    with fitted_adapter(layer=1).attach(model) as first:
        greedy(model, ids)
        decisions = first.decisions
        with fitted_adapter(layer=3).attach(model):
            assert first.decisions == decisions
