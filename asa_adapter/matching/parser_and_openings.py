"""How a fitted model's calls are read and begin: its parser, and the tokens that an adapter may bias."""

from dataclasses import replace
from typing import Any

from torch import nn

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.residual_stream import text_config
from asa_adapter.tool_calls.parser import ToolCallParser


def parser_of_config(config: ASAConfig, tokenizer: Any) -> ToolCallParser:
    """A parser of the config's formats, or of the tokenizer's if the config has none.

    Raises:
        ValueError: the config's format is unknown, or it has none and the tokenizer shows no known one.
    """
    if config.tool_call_format is None:
        return ToolCallParser.from_tokenizer(tokenizer)
    markers = {"start": config.tool_call_start, "end": config.tool_call_end}
    parser = ToolCallParser.from_tokenizer(tokenizer, config.tool_call_format, forms=config.forms, **markers)
    parser.openings = config.openings
    return parser


def config_with_action(config: ASAConfig, action: str, bias: float | None, tokenizer: Any) -> ASAConfig:
    """The config with another action, and with the ids of the openings that this needs.

    Raises:
        ValueError: an unknown action or a negative bias, or the openings are not known.
    """
    amount = config.bias if bias is None else bias
    other = replace(config, action=action, bias=amount, format_version=1, files={}, config_sha256=None)
    return replace(other, opening_ids=known_openings(other, tokenizer))


def known_openings(config: ASAConfig, tokenizer: Any) -> tuple[int, ...]:
    """The openings: ids of the tokens with which calls begin, the config's, or else those of a tokenizer's calls.

    Raises:
        ValueError: the config's action needs them, and it has none and no tokenizer is given.
    """
    if config.opening_ids or config.action == "steer":
        return config.opening_ids
    if tokenizer is None:
        raise ValueError(
            f"the adapter's action is {config.action!r}, but its config does not name the tokens with which calls "
            "begin (opening_ids is empty). Give the model's tokenizer too: tokenizer=tokenizer"
        )
    return parser_of_config(config, tokenizer).opening_ids(tokenizer)


def fitting_openings(model: nn.Module, config: ASAConfig, tokenizer: Any) -> tuple[int, ...]:
    """The openings for a model that passed `fitting_blocks`.

    Raises:
        ValueError: as in `known_openings`.
        IncompatibleModelError: the model's vocabulary has no such token.
    """
    found, size = known_openings(config, tokenizer), getattr(text_config(model), "vocab_size", None)
    if size is not None and (beyond := [token for token in found if token >= size]):
        raise IncompatibleModelError(
            f"calls begin with token {beyond[0]} (opening_ids), but the model's vocabulary has {size} tokens"
        )
    return found
