"""`SteeringHandle`: changes a model so that its generate() is steered, and undoes the change.

ReplacedMethods of the model instance are replaced (see `replaced_methods`): they find the last prompt tokens in
each forward pass. A forward hook on the steered block steers them there. For an adapter that biases the openings of
calls, one on the model changes the logits at the end of the prompts.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.value_checks import MAX_ALPHA, bias_amount, finite_float
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.errors import HandleHabits
from asa_adapter.matching.prompt_resemblance import Resemblance
from asa_adapter.matching.scope import Scope
from asa_adapter.modeling.forward import compiled_parts
from asa_adapter.modeling.residual_stream import generating_model, hidden_state, replace_hidden_state
from asa_adapter.parts.opening_bias import output_logits
from asa_adapter.policy.controller import Controller
from asa_adapter.policy.decision import Decision
from asa_adapter.steering.replaced_methods import NO_PICKLE, ReplacedMethods, methods_of
from asa_adapter.steering.windows_and_records import Record, Slot, Window


class SteeringHandle(HandleHabits):
    """An attached adapter, made by `ASAAdapter.attach`; a context manager that removes it when the `with` block ends.

    Args:
        model: the model to steer; the caller has checked that it fits.
        blocks: the decoder blocks of `config.hooked`; the output of the last is steered.
        controller: makes the decisions and the steps.
        config: the adapter's config, of which the controller was made.

    Attributes:
        layer: index of the steered block.
        steer_without_tools: whether rows whose prompt offers no tools are steered too; a new value applies to later
            generate() calls.
        every_state: whether rows are steered that end in a kind of state that was not fitted; likewise.

    Raises:
        ValueError: the model already has an adapter at this layer.
    """

    def _begin_with(
        self, controller: Controller, config: ASAConfig, steer_without_tools: bool, every_state: bool
    ) -> None:
        """Sets what a handle has before it changes any model."""
        self.layer = config.layer
        self.steer_without_tools, self.every_state = steer_without_tools, every_state
        self._weight: nn.Parameter | None = None
        self._controller = controller
        self._residual_norm = config.residual_norm
        self._fitted = Resemblance(config)
        self._earlier = config.hooked[:-1]
        self._warned = False
        self._slot = Slot()
        self._record: Any = None
        self._recordings = _Recordings()
        self._pauses: set[object] = set()
        self._changed: tuple[nn.Module, ...] = ()
        self._steering: Any = None

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        controller: Controller,
        config: ASAConfig,
        *,
        steer_without_tools: bool = False,
        every_state: bool = False,
    ) -> None:
        self._begin_with(controller, config, steer_without_tools, every_state)
        self._weight = next(blocks[-1].parameters(), None)
        self._changed = (*blocks, *([model] if controller.opening is not None else []))
        methods = self._steering = ReplacedMethods.of(model)
        try:
            methods.add(self)
            for block in blocks:
                # What is read is what the next block sees, after the steps of other adapters.
                steers = block is blocks[-1]
                hook = self._steer if steers else self._read
                block.register_forward_hook(hook, prepend=steers, with_kwargs=True)
            if controller.opening is not None:
                model.register_forward_hook(self._bias_openings, prepend=True)
            if compiled_parts(model):
                torch.compiler.reset()  # graphs that were compiled before do not have the hook
        except BaseException:  # Ctrl-C among them: nobody would have a handle to remove
            self.remove()
            raise

    def remove(self) -> None:
        """Detaches the adapter and restores the model. Calling it again does nothing, also after Ctrl-C inside it."""
        try:
            self._detach()
        finally:
            self._detach()  # each step of it can be repeated: if Ctrl-C came in the middle, this is the rest

    unload = remove  # as PEFT calls it

    def _detach(self) -> None:
        for module in self._changed:
            for key, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__self__", None) is self:
                    module._forward_hooks_with_kwargs.pop(key, None)
                    del module._forward_hooks[key]
        if self._steering is not None:
            self._steering.discard(self)
        self._steering = self._weight = None
        self._changed = ()  # a removed handle keeps no weight alive

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Pauses steering: generate() calls that begin inside the `with` block are not steered, in any thread."""
        pause = object()
        try:
            try:
                self._pauses.add(pause)
                yield
            finally:
                self._pauses.discard(pause)
        finally:  # Ctrl-C just above would leave all later calls unsteered
            self._pauses.discard(pause)

    disable_adapter = disabled

    @contextlib.contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Multiplies each kind's steps, and the bias, by a factor above 0 for the calls inside the `with` block.

        Raises:
            ValueError: a step would be longer than `alpha` may be.
        """
        kept, scaled = self._controller, self._controller.scaled(factor)
        if (alpha := scaled.longest / self._residual_norm) > MAX_ALPHA:
            raise ValueError(f"the factor is {factor:g}, and the step {alpha:g}; expected at most {MAX_ALPHA:g}")
        try:
            self._controller = scaled
            yield
        finally:
            self._controller = kept

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[list[Decision]]]:
        """Records the decisions of the generate() calls that this thread makes inside the `with` block.

        Other threads' calls are not in it, so a server can tell its requests apart. It may be nested.

        Yields:
            A list that grows by one entry when a call ends, also by an error: its decisions, one for each row, as
            `decisions` has them; [] for a call that was not steered. It is yours: the handle forgets it at the end of
            the block.

        Example:
            with handle.recording() as calls:
                answer = model.generate(**inputs)
            print(calls[0][0].gate)
        """
        calls: list[list[Decision]] = []
        outer = self._recordings.open
        try:
            try:
                self._recordings.open = (*outer, calls)
                yield calls
            finally:
                self._recordings.open = outer
        finally:  # Ctrl-C just above would let the list grow for ever
            self._recordings.open = outer

    @property
    def decisions(self) -> list[Decision]:
        """One decision for each row of the latest generate() call of any thread; [] if that was not steered.

        Where a decoding strategy runs the model's loop several times, they are those of its latest run. With more than
        one thread, `recording` tells whose they are.
        """
        return list(self._record.decisions()) if self._record is not None else []

    @property
    def alpha(self) -> float:
        """Length of the step in units of `residual_norm`, 0 or more; a new value applies to later generate() calls.

        It holds for steps towards a call and away from one, in every kind of state; read, it is that of the first
        kind's steps towards a call.
        """
        return self._controller.step / self._residual_norm

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0 <= (alpha := finite_float("alpha", value)) <= MAX_ALPHA:
            raise ValueError(f"alpha is {value!r}; expected 0 to {MAX_ALPHA:g}")
        self._controller = self._controller.stepping(alpha * self._residual_norm)

    @property
    def tau(self) -> float:
        """Confidence from which the gate opens, 0.5 to 1; a new value applies to later calls in every state."""
        return self._controller.tau

    @tau.setter
    def tau(self, value: float) -> None:
        if not 0.5 <= (tau := finite_float("tau", value)) <= 1:
            raise ValueError(f"tau is {value!r}; expected 0.5 to 1")
        self._controller = self._controller.changed(tau=tau)

    @property
    def bias(self) -> float:
        """What the gate adds to the logits of the calls' openings, 0 or more; a new value applies to later calls.

        Only an adapter with the action "bias" or "both" takes another value: it knows the openings.
        """
        return self._controller.opening.amount if self._controller.opening is not None else 0.0

    @bias.setter
    def bias(self, value: float) -> None:
        if (opening := self._controller.opening) is None:
            raise ValueError('this adapter only steers; attach `adapter.with_action("both", bias=...)` instead')
        self._controller = self._controller.changed(opening=replace(opening, amount=bias_amount(value)))

    @property
    def action(self) -> str:
        """What an open gate does now: "steer", "bias", "both", or "" where step and bias are 0."""
        return self._controller.action

    def __enter__(self) -> "SteeringHandle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "attached" if self._steering is not None else "removed"
        bias = f", bias={self.bias:g}" if self.bias else ""
        return f"SteeringHandle(layer={self.layer}, alpha={self.alpha:g}, tau={self.tau:g}{bias}, {state})"

    def _is_active(self) -> bool:
        return not self._pauses

    def _begin(self) -> None:
        self._record = None

    def _end(self, record: Any) -> None:
        """Tells the recordings of this thread about a call that ends."""
        if self._recordings.open:
            decisions = record.decisions() if record is not None else []
            for calls in self._recordings.open:
                calls.append(list(decisions))

    def _open(self, last: NDArray[np.int64], tokens: torch.Tensor | None) -> Record:
        """The record of a generate() call that begins now.

        Args:
            last: (B,) indices of the last prompt tokens.
            tokens: (B, T) the prompts' token ids; None where they are not known.
        """
        # Offloaded weights are on the meta device; then the controller is moved to the state's device later.
        if self._weight is not None and self._weight.device.type != "meta":
            self._controller = self._controller.to(self._weight.device)
        scope = Scope(self._fitted, self.steer_without_tools, self.every_state)
        record = Record(self._slot, self._controller, self._fitted.config.domains, last, self._earlier, scope)
        record.see(tokens)
        self._record = record
        return record

    def _tell(self, last: NDArray[np.int64] | None, tokens: torch.Tensor | None) -> None:
        """Warns once if a prompt that was steered ends otherwise than those that the adapter was fitted with."""
        if self._warned or tokens is None or last is None:
            return
        if other := self._fitted.first_other_end(tokens, last):
            self._warned = True
            warnings.warn(other, RuntimeWarning, stacklevel=4)

    def _read(self, module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        """The forward hook of an earlier block: keeps the states that the probes read in the window that is open."""
        if (window := self._open_window()) is not None:
            window.read(self._earlier[self._changed.index(module)], hidden_state(output))

    def _steer(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The forward hook: steers the tokens of the window that is open for this forward pass, if any."""
        if (window := self._open_window()) is None:
            return None
        hidden = hidden_state(output)
        return replace_hidden_state(
            output, window.steer(hidden, in_place=_may_change_in_place(hidden, output, args, kwargs))
        )

    def _open_window(self) -> Window | None:
        """The window on this forward pass, if it has one that is not steered yet."""
        window = self._slot.window
        if window is None or window.used:
            return None
        if not (torch.compiler.is_compiling() or self._runs(window.record)):
            return None  # left behind by a call that Ctrl-C ended
        return window

    def _bias_openings(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        """The forward hook on the model: biases the openings of calls where the pass ends the prompts."""
        ending = self._slot.ending
        if ending is None or ending.used or (logits := output_logits(output)) is None:
            return
        if torch.compiler.is_compiling() or self._runs(ending.records[0]):
            ending.bias(logits)

    def _runs(self, record: Record) -> bool:
        """Whether a record is that of a generate() call that runs in this thread."""
        call = self._steering.running() if self._steering is not None else None
        return call is not None and any(record is own for own in call.records)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SteeringHandle":
        # Called when the block and its hooks are copied. The copy does nothing: no generate() opens its windows.
        inert = object.__new__(SteeringHandle)
        none = dict.fromkeys(("_record", "_steering", "_weight"))
        inert.__dict__.update(self.__dict__, **none, _changed=(), _slot=Slot(), _recordings=_Recordings())
        return inert

    def __reduce__(self) -> Any:
        raise TypeError(NO_PICKLE)


class _Recordings(threading.local):
    """The lists that the open recordings of one thread fill, the innermost last."""

    open: tuple[list[list[Decision]], ...] = ()


def _may_change_in_place(hidden: torch.Tensor, output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a block's output can be changed in place: neither autograd nor another tensor needs the old values."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or hidden._is_view():
        return False
    beside = (*args, *kwargs.values(), *(() if output is hidden else output[1:]))
    return not any(isinstance(x, torch.Tensor) and x.data_ptr() == hidden.data_ptr() for x in beside)


def is_steered(model: Any) -> bool:
    """Whether an adapter is attached to the model, or to the model inside its wrappers."""
    if is_engine_model(model):
        return model.is_steered
    return methods_of(generating_model(model)) is not None
