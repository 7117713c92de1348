"""`SteeringHandle`: changes a model so that its generate() is steered, and undoes the change.

Methods of the model instance are replaced. `generate` makes a plan (see `asa_adapter.steering.plan`),
`prepare_inputs_for_generation` finds the planned tokens in the next forward pass, and a forward hook on the steered
block steers them there. The replaced methods are shared by all adapters on a model and restored when the last one is
removed. A generate() call inside another one is not steered.
"""

import contextlib
import copy
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.fields import MAX_ALPHA, finite_float
from asa_adapter.modeling.forward import compiled_parts
from asa_adapter.modeling.residual import generating_model, hidden_state, replace_hidden_state
from asa_adapter.steering.controller import Controller, Decision
from asa_adapter.steering.plan import Call, Record, Slot, prompt_tokens, visible_tokens
from asa_adapter.steering.resemblance import Resemblance

_NO_PICKLE = "a steered model cannot be pickled; call remove() first, and attach the adapter again later"


class SteeringHandle:
    """An attached adapter, made by `ASAAdapter.attach`; a context manager that removes it when the `with` block ends.

    Args:
        model: the model to steer; the caller has checked that it fits.
        block: the decoder block whose output is steered.
        controller: makes the decisions and the steps.
        config: the adapter's config, of which the controller was made.

    Attributes:
        layer: index of the steered block.
        steer_without_tools: whether rows whose prompt offers no tools are steered too; a new value applies to later
            generate() calls.

    Raises:
        ValueError: the model already has an adapter at this layer.
    """

    def __init__(
        self,
        model: nn.Module,
        block: nn.Module,
        controller: Controller,
        config: ASAConfig,
        *,
        steer_without_tools: bool = False,
    ) -> None:
        self.layer = config.layer
        self.steer_without_tools = steer_without_tools
        self._weight = next(block.parameters(), None)
        self._controller = controller
        self._residual_norm = config.residual_norm
        self._fitted = Resemblance(config)
        self._warned = False
        self._slot = Slot()
        self._record: Record | None = None
        self._paused = 0
        self._steering: _Steering | None = _Steering.of(model)
        self._steering.add(self)
        self._hook = block.register_forward_hook(self._steer, prepend=True, with_kwargs=True)
        if compiled_parts(model):
            torch.compiler.reset()  # graphs that were compiled before do not have the hook

    def remove(self) -> None:
        """Detaches the adapter and restores the model. Calling it again does nothing."""
        if self._steering is not None:
            self._hook.remove()
            self._steering.discard(self)
            self._steering = None

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Pauses steering: generate() calls that begin inside the `with` block are not steered, in any thread."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    @property
    def decisions(self) -> list[Decision]:
        """One decision for each row of the latest generate() call of any thread; [] if that was not steered."""
        return self._record.decisions() if self._record is not None else []

    @property
    def alpha(self) -> float:
        """Length of the step in units of `residual_norm`, 0 or more; a new value applies to later generate() calls."""
        return self._controller.step / self._residual_norm

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0 <= (alpha := finite_float("alpha", value)) <= MAX_ALPHA:
            raise ValueError(f"alpha is {value!r}; expected 0 to {MAX_ALPHA:g}")
        self._controller = replace(self._controller, step=alpha * self._residual_norm)

    @property
    def tau(self) -> float:
        """Confidence from which the gate opens, 0.5 to 1; a new value applies to later generate() calls."""
        return self._controller.tau

    @tau.setter
    def tau(self, value: float) -> None:
        if not 0.5 <= (tau := finite_float("tau", value)) <= 1:
            raise ValueError(f"tau is {value!r}; expected 0.5 to 1")
        self._controller = replace(self._controller, tau=tau)

    def __enter__(self) -> "SteeringHandle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "attached" if self._steering is not None else "removed"
        return f"SteeringHandle(layer={self.layer}, alpha={self.alpha:g}, tau={self.tau:g}, {state})"

    def _open(self, last: NDArray[np.int64], tokens: torch.Tensor | None) -> Record:
        """The record of a generate() call that begins now.

        Args:
            last: (B,) indices of the last prompt tokens.
            tokens: (B, T) the prompts' token ids; None where they are not known.
        """
        # Offloaded weights are on the meta device; then the controller is moved to the state's device later.
        if self._weight is not None and self._weight.device.type != "meta":
            self._controller = self._controller.to(self._weight.device)
        offers = None if tokens is None or self.steer_without_tools else self._fitted.offers_tools(tokens)
        self._record = Record(self._slot, self._controller, self._fitted.config.domains, last, offers)
        return self._record

    def _tell(self, record: Record, tokens: torch.Tensor | None) -> None:
        """Warns once if a prompt that was steered ends otherwise than those that the adapter was fitted with."""
        if self._warned or tokens is None:
            return
        if other := self._fitted.first_other_end(tokens, record.last, record.offers_tools):
            self._warned = True
            warnings.warn(other, RuntimeWarning, stacklevel=5)

    def _steer(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The forward hook: steers the tokens of the window that is open for this forward pass, if any."""
        window = self._slot.window
        if window is None or window.used:
            return None
        hidden = hidden_state(output)
        return replace_hidden_state(output, window.steer(hidden, in_place=_is_its_own(hidden, output, args, kwargs)))

    def __deepcopy__(self, memo: dict[int, Any]) -> "SteeringHandle":
        # Called when the block and its hooks are copied. The copy does nothing: no generate() opens its windows.
        inert = object.__new__(SteeringHandle)
        inert.__dict__.update(self.__dict__, _slot=Slot(), _record=None, _steering=None)
        return inert

    def __reduce__(self) -> Any:
        raise TypeError(_NO_PICKLE)


class _Calls(threading.local):
    """The running generate() calls of the current thread.

    Attributes:
        stack: the calls, the innermost last; None for a call that is not steered.
        warned: this thread was warned that it generates without being steered.
    """

    def __init__(self) -> None:
        self.stack: list[Call | None] = []
        self.warned = False


class _Steering:
    """What all adapters on one model share: its replaced methods, and the running generate() calls."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[SteeringHandle] = []
        self._calls = _Calls()
        self._saved: dict[str, Any] = {}

    @classmethod
    def of(cls, model: nn.Module) -> "_Steering":
        """The model's instance, or a new one, which has not changed the model yet."""
        return _steering_of(model) or cls(model)

    def add(self, handle: SteeringHandle) -> None:
        """Adds an adapter, if there is none at its layer; the first one replaces the model's methods."""
        if any(other.layer == handle.layer for other in self._handles):
            raise ValueError(
                f"this model already has an adapter at layer {handle.layer}; remove() that one first, or attach at "
                "another layer"
            )
        if not self._handles:
            self._install()
        self._handles.append(handle)

    def discard(self, handle: SteeringHandle) -> None:
        """Removes an adapter; the last one restores the model's methods."""
        self._handles.remove(handle)
        if not self._handles:
            self._uninstall()

    def _install(self) -> None:
        model: Any = self._model
        prepare = model.prepare_inputs_for_generation
        replacements = {
            "generate": _Replacement(self, model.generate, self._generate),
            "prepare_inputs_for_generation": _Replacement(self, prepare, self._prepare),
            "__deepcopy__": _Replacement(self, copy.deepcopy, self._deepcopy),
        }
        if hasattr(model, "init_continuous_batching"):  # called first by generate_batch() and the like
            replacements["init_continuous_batching"] = _Replacement(
                self, model.init_continuous_batching, self._continuous_batching
            )
        for name, replacement in replacements.items():
            self._saved[name] = self._model.__dict__.get(name)
            self._model.__dict__[name] = replacement

    def _uninstall(self) -> None:
        for name, before in self._saved.items():
            now = self._model.__dict__.get(name)
            if not isinstance(now, _Replacement) or now.steering is not self:
                continue  # another library wrapped ours, which now calls the original only
            if before is None:
                del self._model.__dict__[name]
            else:
                self._model.__dict__[name] = before

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `generate`: makes a plan, unless inside another generate(), and warns if it was never used."""
        call = None if self._calls.stack else self._plan(args, kwargs)
        self._calls.stack.append(call)
        try:
            result = original(*args, **kwargs)
        finally:
            self._calls.stack.pop()
            if call is not None:
                call.close()
        if call is not None and not all(record.met for record in call.records):
            warnings.warn(
                "generate() ran without being steered: the steered block never met the last prompt token. Perhaps a "
                "part of the model was compiled before attach() (call torch.compiler.reset()), blocks run past their "
                "__call__, a generate() inside this one gave the answer, or a filled cache came under an unknown name",
                RuntimeWarning,
                stacklevel=3,
            )
        elif call is not None:
            self._tell_of_other_ends(call, args, kwargs)
        return result

    def _tell_of_other_ends(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = visible_tokens(args, kwargs)
        for handle in self._handles:
            if (record := next((r for r in call.records if r.slot is handle._slot), None)) is not None:
                handle._tell(record, tokens)

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The plan of a generate() call with these arguments; None where all adapters are disabled."""
        for handle in self._handles:
            handle._record = None
        if not (active := self._active()):
            return None
        last, width, cached = prompt_tokens(self._model, args, kwargs)
        tokens = visible_tokens(args, kwargs)
        return Call(last, width, [handle._open(last + cached, tokens) for handle in active])

    def _active(self) -> list[SteeringHandle]:
        return [handle for handle in self._handles if not handle._paused]

    def _prepare(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `prepare_inputs_for_generation`: opens the windows on the next forward pass."""
        inputs = original(*args, **kwargs)
        if not self._calls.stack:
            self._warn_of_another_generate()
            return inputs
        call = self._calls.stack[-1]
        if call is not None and not call.closed:  # once the prompt is done, a decoding step costs this check only
            call.locate(inputs, _goes_on(inputs, kwargs), bool(kwargs.get("is_first_iteration")))
        return inputs

    def _warn_of_another_generate(self) -> None:
        if self._active() and not self._calls.warned:
            self._calls.warned = True
            warnings.warn(
                "the steered model generates without its own generate(), so it is not steered: call "
                "model.generate(...) itself, not its class's function or a method taken before attach()",
                RuntimeWarning,
                stacklevel=4,
            )

    def _continuous_batching(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._active():
            raise ValueError(
                "continuous batching (generate_batch, cache_implementation='paged') cannot be steered: its forward "
                "passes mix prompts and answers without saying which token ends a prompt. Call generate() with a "
                "padded batch; or remove() the adapter, or go inside its disabled(), to run the base model"
            )
        return original(*args, **kwargs)

    def _deepcopy(self, _original: Callable[..., Any], memo: dict[int, Any]) -> nn.Module:
        """A copy of the model without any trace of its adapters."""
        model = self._model
        clone = type(model).__new__(type(model))
        memo[id(model)] = clone
        own = {name: value for name, value in model.__dict__.items() if not isinstance(value, _Replacement)}
        own |= {name: value for name, value in self._saved.items() if value is not None}
        clone.__setstate__(copy.deepcopy(own, memo))
        for module in clone.modules():
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(getattr(hook, "__self__", None), SteeringHandle):
                    del module._forward_hooks[key]
        return clone


def _is_its_own(hidden: torch.Tensor, output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a block's output can be changed in place: neither autograd nor another tensor needs the old values."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or hidden._is_view():
        return False
    beside = (*args, *kwargs.values(), *(() if output is hidden else output[1:]))
    return not any(isinstance(x, torch.Tensor) and x.data_ptr() == hidden.data_ptr() for x in beside)


def _goes_on(inputs: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a forward pass continues where the one before ended; without a cache it starts at the first token.

    `asked` are the keywords of prepare_inputs_for_generation(), `inputs` what it returned for them.
    """
    wanted, ids = asked.get("next_sequence_length"), inputs.get("input_ids")
    if wanted and ids is not None and ids.shape[1] > wanted:
        return False  # GPT-1 has no cache, and is fed whole rows whatever generate() asks for
    return bool(asked.get("use_cache", inputs.get("use_cache", True)))


def is_steered(model: nn.Module) -> bool:
    """Whether an adapter is attached to the model, or to the model inside its wrappers."""
    return _steering_of(generating_model(model)) is not None


def _steering_of(model: nn.Module) -> _Steering | None:
    """The model's instance, or None. All attributes are searched: another library may have wrapped generate()."""
    for value in model.__dict__.values():
        if isinstance(value, _Replacement):
            return value.steering
    return None


class _Replacement:
    """A replaced method of a model instance. It keeps the original's signature, which generate() inspects."""

    def __init__(self, steering: _Steering, original: Callable[..., Any], replaced: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self.steering = steering
        self._original = original
        self._replaced = replaced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._replaced(self._original, *args, **kwargs)

    def __reduce__(self) -> Any:
        raise TypeError(_NO_PICKLE)
