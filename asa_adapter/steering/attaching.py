"""What has to hold before an adapter steers a model, and what then attaches it."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.matching.compatibility import differences_from_fit, fitting_model
from asa_adapter.matching.parser_and_openings import fitting_openings
from asa_adapter.matching.state_kinds import with_state_marks
from asa_adapter.modeling.block_check import verify_block
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.policy.controller import Controller
from asa_adapter.steering.hook import SteeringHandle


def checked_attaching(
    model: Any, config: ASAConfig, controller: Controller, given: tuple[Any, Tools | None, bool], **scope: bool
) -> Callable[[], SteeringHandle]:
    """Makes all checks of `ASAAdapter.attach`, and returns what attaches, as often as it is called.

    Args:
        model: the model to steer.
        config: the adapter's.
        controller: what decides and steers.
        given: tokenizer or None, tools or None, and whether a mismatch is a warning, as `attach` takes them.
        **scope: which prompts are steered, as `SteeringHandle` takes it.

    Raises:
        IncompatibleModelError: the model does not fit.
        ValueError: the tokens with which calls begin are needed, and not known.
    """
    tokenizer, tools, mismatch = given
    model, blocks = fitting_model(model, config)
    for warning in differences_from_fit(model, tokenizer, tools, config, mismatch):
        warnings.warn(warning, stacklevel=4)
    tokens = fitting_openings(model, config, tokenizer)
    controller = controller.changed(opening=controller.opening and replace(controller.opening, tokens=tokens))
    config = with_state_marks(config, tokenizer)
    if blocks is None:
        return partial(model.attach, controller, config, **scope)
    for layer in config.hooked:
        verify_block(model, blocks, layer)
    return partial(SteeringHandle, model, [blocks[layer] for layer in config.hooked], controller, config, **scope)
