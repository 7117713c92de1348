"""Checks of the fields of `ASAConfig` about prompts, calls and layers; what they hold becomes tuples."""

from typing import Any

from asa_adapter.config.value_checks import (
    MAX_LISTS,
    check_digests,
    check_text,
    check_token_ids,
)


def check_prompts(config: Any) -> None:
    """Checks the fields that tell a prompt's end and its tools.

    Raises:
        TypeError: a field has another type.
        ValueError: a field's value is out of its range.
    """
    object.__setattr__(config, "prompt_end", check_token_ids("prompt_end", config.prompt_end))
    if not 0 <= config.generation_tokens <= len(config.prompt_end):
        raise ValueError(
            f"generation_tokens is {config.generation_tokens}; expected 0 to {len(config.prompt_end)}, the length of "
            "prompt_end"
        )
    if not isinstance(config.tools_marks, list | tuple) or not all(config.tools_marks):
        raise TypeError(f"tools_marks is {config.tools_marks!r:.80}; expected runs of token ids, none empty")
    if max(len(config.tools_marks), len(config.tool_lists)) > MAX_LISTS:
        raise ValueError(f"tools_marks or tool_lists holds more than {MAX_LISTS} entries")
    marks = tuple(check_token_ids("tools_marks", run) for run in config.tools_marks)
    object.__setattr__(config, "tools_marks", marks)
    object.__setattr__(config, "tool_lists", check_digests("tool_lists", config.tool_lists))


def check_calls(config: Any) -> None:
    """Checks the fields about how calls begin.

    Raises:
        TypeError: a field has another type.
        ValueError: a field's value is out of its range.
    """
    for name in ("openings", "opening_ids"):
        object.__setattr__(config, name, check_token_ids(name, getattr(config, name)))
    if not isinstance(config.forms, list | tuple) or not all(type(name) is str for name in config.forms):
        raise TypeError(f"forms is {config.forms!r:.80}; expected names of tool-call formats")
    if len(config.forms) > MAX_LISTS:
        raise ValueError(f"forms holds {len(config.forms)} names; expected at most {MAX_LISTS}")
    for name in config.forms:
        check_text("forms", name)
    object.__setattr__(config, "forms", tuple(config.forms))


def check_read_layers(config: Any) -> None:
    """Checks the field about the layers that the probes read.

    Raises:
        TypeError: a field has another type.
        ValueError: a field's value is out of its range.
    """
    layers = config.read_layers
    if not isinstance(layers, list | tuple) or any(type(layer) is not int for layer in layers):
        raise TypeError(f"read_layers is {layers!r:.80}; expected layer numbers")
    ascending = list(layers) == sorted({layer for layer in layers if 0 <= layer <= config.layer})
    if not ascending or len(layers) > MAX_LISTS:
        raise ValueError(
            f"read_layers is {layers!r:.80}; expected at most {MAX_LISTS} numbers from 0 to the steered layer, "
            f"{config.layer}, each greater than the one before"
        )
    # One that reads what it steers is written as older versions read it.
    object.__setattr__(config, "read_layers", () if tuple(layers) == (config.layer,) else tuple(layers))
