from typing import Any

import pytest
import torch
from models import DEPTH, WIDTH, random_model
from torch import nn

from asa_adapter import IncompatibleModelError
from asa_adapter.modeling.residual_stream import (
    decoder_blocks,
    hidden_size,
    hidden_state,
    last_prompt_index,
    replace_hidden_state,
)


@pytest.mark.parametrize(
    ("family", "path"),
    [("lfm2", "model.layers"), ("llama", "model.layers"), ("qwen3", "model.layers"), ("gpt2", "transformer.h")],
)
def test_the_rule_finds_the_decoder_blocks(family: str, path: str) -> None:
    model = random_model(family)
    assert decoder_blocks(model) is model.get_submodule(path)
    assert decoder_blocks(model, path) is model.get_submodule(path)
    assert len(decoder_blocks(model)) == DEPTH
    assert hidden_size(model) == WIDTH


class Odd(nn.Module):
    """A decoder beside a larger vision tower of the same depth, with a list inside each block."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.vision_tower = nn.ModuleList(nn.Linear(9, 9) for _ in range(depth))
        self.trunk = nn.Module()
        self.trunk.parts = nn.ModuleList(nn.ModuleList([nn.Linear(2, 2)]) for _ in range(depth))
        self.config = type("Config", (), {"num_hidden_layers": 3, "hidden_size": 2})()


def test_the_rule_prefers_the_decoder_over_a_larger_tower() -> None:
    model = Odd()
    assert decoder_blocks(model) is model.trunk.parts


def test_a_decoder_that_is_called_an_encoder_is_found_beside_an_image_encoder() -> None:
    model = Odd()
    model.encoder, model.image_encoder = model.trunk, nn.Module()
    model.image_encoder.encoder = model.vision_tower
    del model.trunk, model.vision_tower
    assert decoder_blocks(model) is model.encoder.parts


def test_the_rule_takes_the_longest_list_where_none_has_the_depth() -> None:
    model = Odd(depth=5)
    assert decoder_blocks(model) is model.trunk.parts


def test_a_model_without_a_list_is_refused_with_the_way_out() -> None:
    model = nn.Linear(2, 2)
    model.config = Odd().config  # type: ignore[assignment]
    with pytest.raises(
        IncompatibleModelError, match="no list of decoder blocks found in Linear; name it with layer_path"
    ):
        decoder_blocks(model)


@pytest.mark.parametrize(
    ("path", "message"),
    [("model.nothing", "has no 'model.nothing'"), ("model.norm", "is a LlamaRMSNorm; expected the ModuleList")],
)
def test_a_wrong_layer_path_is_refused(path: str, message: str) -> None:
    with pytest.raises(IncompatibleModelError, match=message):
        decoder_blocks(random_model("llama"), path)


def test_a_module_without_a_config_is_refused() -> None:
    with pytest.raises(IncompatibleModelError, match="Linear has no config"):
        hidden_size(nn.Linear(2, 2))


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (t,), lambda t: (t, 1, None), lambda t: [t, 2]])
def test_a_state_is_read_and_replaced_in_its_container(wrap: Any) -> None:
    old, new = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    output = wrap(old)
    assert hidden_state(output) is old
    replaced = replace_hidden_state(output, new)
    assert type(replaced) is type(output)
    assert hidden_state(replaced) is new
    if not isinstance(output, torch.Tensor):
        assert list(replaced[1:]) == list(output[1:])


@pytest.mark.parametrize("output", [None, {"state": 1}, (), ("a",)])
def test_an_output_without_a_state_is_refused(output: Any) -> None:
    with pytest.raises(IncompatibleModelError, match="expected a tensor or a tuple that begins with one"):
        hidden_state(output)


@pytest.mark.parametrize(
    ("mask", "last"),
    [([[1, 1, 1]], [2]), ([[0, 1, 1], [1, 1, 0], [0, 1, 0]], [2, 1, 1]), ([[1, 0, 1, 0]], [2])],
)
def test_last_prompt_index_finds_the_last_unmasked_token(mask: list[list[int]], last: list[int]) -> None:
    assert last_prompt_index(torch.tensor(mask)).tolist() == last


def test_a_row_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows \[1\] of the attention mask are all zeros"):
        last_prompt_index(torch.tensor([[1, 1], [0, 0]]))


def test_a_mask_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \(3,\); expected \(rows, tokens\)"):
        last_prompt_index(torch.tensor([1, 1, 1]))
