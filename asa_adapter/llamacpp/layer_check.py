"""What is tried when a model is opened and an adapter attached: are states read that the graph made, do steps act?

Some builds ignored control vectors in some architectures without a word. So nothing is taken for granted: a zero step
must not change a bit, a huge one must change the logits, a visit must not change anything, and where llama.cpp's own
control vectors act in an architecture, they must do what our step does.
"""

from collections.abc import Callable
from contextlib import closing

import torch

from asa_adapter.engine.protocol import Facts
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.libllama.context import Context, Run, Visit

_TOKENS = range(1, 10)  # ids of the tokens that are read
_HUGE = 100.0  # times the state's norm
_LEAST_COSINE = 0.99  # of what a huge step changes in the logits, behind a whole prompt and behind one token


def check_layer(make: Callable[..., Context], facts: Facts, layer: int) -> None:
    """Reads a few tokens with and without steps behind one block.

    Args:
        make: makes a context.
        facts: what the model is.
        layer: index of the block.

    Raises:
        IncompatibleModelError: the states behind the block cannot be read, or a step is not what it should be.
    """
    seen: list[torch.Tensor] = []
    what = f"the states behind block {layer} of this {facts.model_types[0]} model"
    with closing(make(64)) as plain, closing(make(64, watched=True)) as watched:
        bare = _logits_of_check(plain)
        looked = _logits_of_check(watched, {layer: seen.append}, once=False)
        if len(seen) != 1 or not seen[0].shape[0] or not seen[0].isfinite().all():
            raise IncompatibleModelError(
                f"{what} cannot be read: llama.cpp shows {len(seen)} tensors of the name l_out-{layer}; expected one. "
                "This architecture cannot be steered"
            )
        if not torch.equal(bare, looked):
            raise IncompatibleModelError(f"{what}: reading them changes the logits. {_WAY_OUT}")
        state = seen[0][-1]
        if not torch.equal(bare, _logits_of_check(watched, {layer: _add_step(torch.zeros_like(state))})):
            raise IncompatibleModelError(f"{what}: a step of zero changes the logits. {_WAY_OUT}")
        step = _HUGE * state.norm() * torch.arange(1.0, 1 + len(state)).cos() / (len(state) / 2) ** 0.5
        steered = _logits_of_check(watched, {layer: _add_step(step)})
        if torch.equal(bare, steered):
            raise IncompatibleModelError(f"{what}: a huge step does not change the logits. {_WAY_OUT}")
        alone = _logits_of_last_alone(watched, {layer: _add_step(step)})
        if torch.cosine_similarity(alone - _logits_of_last_alone(plain), steered - bare, dim=0) < _LEAST_COSINE:
            raise IncompatibleModelError(f"{what}: a step does something else to a token by itself. {_WAY_OUT}")
        if layer:  # block 0 takes no control vector
            _check_by_control(plain, alone, layer, step, what)


_WAY_OUT = "Steer this model with transformers, or with the tested build of llama.cpp"


def _check_by_control(plain: Context, steered: torch.Tensor, layer: int, step: torch.Tensor, what: str) -> None:
    """Compares the step with llama.cpp's own control vector, where the architecture knows these.

    A control vector acts on all tokens of a pass, so the last one is read by itself.
    """
    bare, found = (_logits_of_last_alone(plain, control=(layer, one)) for one in (None, step))
    known = not torch.equal(found, bare)
    if known and not torch.allclose(found, steered, atol=1e-3 * float(bare.std()), rtol=1e-3):
        raise IncompatibleModelError(f"{what}: a control vector of llama.cpp does something else. {_WAY_OUT}")


def _logits_of_last_alone(
    context: Context,
    visits: dict[int, Visit] | None = None,
    control: tuple[int, torch.Tensor | None] = (0, None),
) -> torch.Tensor:
    """The same where the last token is read by itself, which rounds in another way; and with a control vector."""
    context.clear()
    context.read([Run(0, _TOKENS[:-1], 0, answers=False)])
    layer, step = control
    context.control(layer, step)
    try:
        context.read([Run(0, _TOKENS[-1:], len(_TOKENS) - 1)], visits)
    finally:
        context.control(layer, None)
    return context.logits()


def _logits_of_check(context: Context, visits: dict[int, Visit] | None = None, once: bool = True) -> torch.Tensor:
    """The logits behind the checked tokens, with what visits the blocks."""
    context.clear()
    context.read([Run(0, _TOKENS, 0)], visits, once)
    return context.logits()


def _add_step(step: torch.Tensor) -> Visit:
    return lambda states: states + step
