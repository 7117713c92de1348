"""The replaced methods of one model: they plan each generate() call and find the planned tokens in its forward passes.

`generate` makes a plan (see `call_plan`), and `prepare_inputs_for_generation` finds the planned tokens in the
next forward pass. They are shared by all adapters on a model and restored when the last one is removed.
"""

import contextvars
import copy
import functools
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.steering.call_plan import CallPlan
from asa_adapter.steering.generate_arguments import (
    drafts_for_another,
    drafts_tokens,
    named_arguments,
    prompt_tokens,
    visible_tokens,
)
from asa_adapter.steering.loop_prompts import Loop
from asa_adapter.steering.windows_and_records import Record

NO_PICKLE = "a steered model cannot be pickled; call remove() first, and attach the adapter again later"


class Attached(Protocol):
    """What the methods ask of an attached adapter.

    Attributes:
        layer: index of the steered block.
    """

    layer: int

    def _is_active(self) -> bool:
        """Whether calls that begin now are steered."""

    def _begin(self) -> None:
        """A generate() call begins, of which nothing is known yet."""

    def _open(self, last: NDArray[np.int64], tokens: torch.Tensor | None) -> Record:
        """The record of a generate() call that begins now, by its last prompt tokens and its token ids."""

    def _tell(self, last: NDArray[np.int64] | None, tokens: torch.Tensor | None) -> None:
        """A generate() call with these prompts was steered: tells of prompts that are unlike those of the fit."""

    def _end(self, record: Record | None) -> None:
        """A generate() call of this thread ends, also by an error; None if it was not steered."""


@dataclass(eq=False)
class _RunningGenerate:
    """A running generate() call.

    Attributes:
        methods: those of its model.
        call: its plan; None if it is not steered.
        depth: 1 for the outermost generate() of the model, 2 for one inside it.
        thread: the thread it runs in; the context may be copied into another one.
        over: it has ended; a copy of the context may live on.
    """

    methods: "ReplacedMethods"
    call: CallPlan | None
    depth: int
    thread: int = field(default_factory=threading.get_ident)
    over: bool = False


class _Warned(threading.local):
    """Whether this thread was warned that it generates without being steered."""

    yet = False


# The running generate() calls, the innermost last. `Context.run` puts the old value back without a line of Python, so
# that Ctrl-C cannot leave a call behind that has ended.
_RUNNING: contextvars.ContextVar[tuple[_RunningGenerate, ...]] = contextvars.ContextVar("running", default=())


class ReplacedMethods:
    """What all adapters on one model share: its replaced methods, and the running generate() calls."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[Attached] = []
        self._saved: dict[str, Any] = {}
        self._warned = _Warned()

    @classmethod
    def of(cls, model: nn.Module) -> "ReplacedMethods":
        """The model's instance, or a new one, which has not changed the model yet."""
        return methods_of(model) or cls(model)

    def add(self, handle: Attached) -> None:
        """Adds an adapter, if there is none at its layer; the first one replaces the model's methods."""
        if any(other.layer == handle.layer for other in self._handles):
            raise ValueError(
                f"this model already has an adapter at layer {handle.layer}; remove() that one first, or attach at "
                "another layer"
            )
        if not self._handles:
            self._install()
        self._handles.append(handle)

    def discard(self, handle: Attached) -> None:
        """Removes an adapter, if it is there; without any the model has its own methods again."""
        self._handles = [other for other in self._handles if other is not handle]
        if not self._handles:
            self._uninstall()

    def running(self) -> CallPlan | None:
        """The plan of the innermost generate() call of this thread; None if there is no call, or it is not steered."""
        running = self._running()
        return running.call if running is not None else None

    def _running(self) -> _RunningGenerate | None:
        for running in reversed(_RUNNING.get()):
            if running.methods is self and not running.over and running.thread == threading.get_ident():
                return running
        return None

    def _install(self) -> None:
        replaced = {
            "generate": self._generate,
            "prepare_inputs_for_generation": self._prepare,
            "_prefill": self._prefill,
            "_get_candidate_generator": self._candidates,
            "init_continuous_batching": self._continuous_batching,  # called first by generate_batch() and the like
        }
        replacements = {
            name: _Replacement(self, getattr(self._model, name), own)
            for name, own in replaced.items()
            if hasattr(self._model, name)
        }
        replacements["__deepcopy__"] = _Replacement(self, copy.deepcopy, self._deepcopy)
        for name, replacement in replacements.items():
            self._saved[name] = self._model.__dict__.get(name)
            self._model.__dict__[name] = replacement

    def _uninstall(self) -> None:
        for name, before in self._saved.items():
            now = self._model.__dict__.get(name)
            if not isinstance(now, _Replacement) or now.methods is not self:
                continue  # another library wrapped ours, which now calls the original only
            if before is None:
                del self._model.__dict__[name]
            else:
                self._model.__dict__[name] = before

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `generate`: plans the call, also one inside another that has not run the model by itself."""
        outer = self._running()
        named = named_arguments(original, args, kwargs)
        if outer is not None:
            return self._inside(outer, original, args, kwargs, named)
        handles, call = list(self._handles), None
        records: dict[int, Record] = {}
        try:
            call, records = self._plan(handles, args, named)
            given = next((record.last for record in records.values()), None)
            result = self._run(_RunningGenerate(self, call, 1), original, args, kwargs)
        finally:
            if call is not None:
                call.close()
            for handle in handles:
                handle._end(records.get(id(handle)))
        if call is None:
            return result
        if call.steered:
            for handle in handles:
                if id(handle) in records:
                    handle._tell(given, visible_tokens(args, named))
        else:
            warnings.warn(
                "generate() ran without being steered: the steered block never met the last prompt token. Perhaps a "
                "part of the model was compiled before attach() (call torch.compiler.reset()), blocks run past their "
                "__call__, a generate() inside this one gave the answer, a filled cache came under an unknown name, "
                "or a strategy (custom_generate) runs the model again without telling prepare_inputs_for_generation() "
                "that it is_first_iteration",
                RuntimeWarning,
                stacklevel=3,
            )
        return result

    def _inside(
        self,
        outer: _RunningGenerate,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        named: dict[str, Any],
    ) -> Any:
        """A generate() call inside another one: steered if it answers for that one, as a decoding strategy does."""
        call = outer.call
        if call is None or drafts_for_another(self._model, args, named):
            return self._run(_RunningGenerate(self, None, outer.depth + 1), original, args, kwargs)
        if call.looped >= outer.depth:  # asked in the middle of an answer, as by a logits processor
            result = self._run(_RunningGenerate(self, None, outer.depth + 1), original, args, kwargs)
            call.asked_inside = True
            return result
        drafts = drafts_tokens(self._model, args, named)
        call.expect(*prompt_tokens(self._model, args, named), drafts, named.get("attention_mask"))
        before = call.looped
        try:
            return self._run(_RunningGenerate(self, call, outer.depth + 1), original, args, kwargs)
        finally:
            call.looped = before

    def _run(
        self, running: _RunningGenerate, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        def run() -> Any:
            _RUNNING.set((*_RUNNING.get(), running))
            return original(*args, **kwargs)

        try:
            return contextvars.copy_context().run(run)
        finally:
            running.over = True

    def _plan(
        self, handles: list[Attached], args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[CallPlan | None, dict[int, Record]]:
        """The plan of a generate() call and the adapters' records by id; None where all adapters are disabled."""
        for handle in handles:
            handle._begin()
        if not (active := [handle for handle in handles if handle._is_active()]):
            return None, {}
        last, width, cached = prompt_tokens(self._model, args, named)
        tokens = visible_tokens(args, named)
        records = {id(handle): handle._open(last + cached, tokens) for handle in active}
        call = CallPlan(last, width, list(records.values()), shown=None if tokens is None else tokens.shape)
        call.expect(last, width, cached, drafts_tokens(self._model, args, named), named.get("attention_mask"))
        return call, records

    def _prepare(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `prepare_inputs_for_generation`: opens the windows on the next forward pass."""
        inputs = original(*args, **kwargs)
        running = self._running()
        if running is None:
            self._warn_of_another_generate()
            return inputs
        call = running.call
        if call is None:
            return inputs
        call.asked_inside = False
        of_prompt = bool(kwargs.get("is_first_iteration"))
        if of_prompt or not (call.closed and call.begun):  # otherwise a decoding step, which costs these checks only
            call.looped = running.depth
            call.locate(
                inputs, _continues_last_pass(inputs, kwargs), of_prompt, named_arguments(original, args, kwargs)
            )
        return inputs

    def _prefill(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `_prefill`, which runs the prompt of a loop: tells the plan what that is given."""
        if (call := self.running()) is not None:
            given = named_arguments(original, args, kwargs)
            ids, of_model = given.get("input_ids"), given.get("model_kwargs") or {}
            if getattr(given.get("generation_config"), "prefill_chunk_size", None) is None or ids is None:
                call.loop = Loop()
            else:
                call.loop = Loop(ids.shape[1], True, of_model.get("attention_mask"))
        return original(*args, **kwargs)

    def _candidates(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `_get_candidate_generator`, which begins a loop with draft tokens behind its rows."""
        if (call := self.running()) is not None:
            ids = named_arguments(original, args, kwargs).get("input_ids")
            call.loop = Loop(ids.shape[1]) if ids is not None else None
        return original(*args, **kwargs)

    def _warn_of_another_generate(self) -> None:
        if not self._warned.yet and any(handle._is_active() for handle in self._handles):
            self._warned.yet = True
            warnings.warn(
                "the steered model generates without its own generate(), so it is not steered: call "
                "model.generate(...) itself, not its class's function or a method taken before attach()",
                RuntimeWarning,
                stacklevel=4,
            )

    def _continuous_batching(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if any(handle._is_active() for handle in self._handles):
            raise ValueError(
                "continuous batching (generate_batch, cache_implementation='paged') cannot be steered: its forward "
                "passes mix prompts and answers without saying which token ends a prompt. CallPlan generate() with a "
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
        kinds = tuple({type(handle) for handle in self._handles})
        for module in clone.modules():
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(getattr(hook, "__self__", None), kinds):
                    del module._forward_hooks[key]
        return clone


def _continues_last_pass(inputs: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether a forward pass continues where the one before ended; without a cache it starts at the first token.

    `asked` are the keywords of prepare_inputs_for_generation(), `inputs` what it returned for them.
    """
    wanted, ids = asked.get("next_sequence_length"), inputs.get("input_ids")
    if wanted and ids is not None and ids.shape[1] > wanted:
        return False  # GPT-1 has no cache, and is fed whole rows whatever generate() asks for
    return bool(asked.get("use_cache", inputs.get("use_cache", True)))


def methods_of(model: nn.Module) -> ReplacedMethods | None:
    """The model's instance, or None. All attributes are searched: another library may have wrapped generate()."""
    for value in model.__dict__.values():
        if isinstance(value, _Replacement):
            return value.methods
    return None


class _Replacement:
    """A replaced method of a model instance. It keeps the original's signature, which generate() inspects."""

    def __init__(self, methods: ReplacedMethods, original: Callable[..., Any], replaced: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self.methods = methods
        self._original = original
        self._replaced = replaced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._replaced(self._original, *args, **kwargs)

    def __reduce__(self) -> Any:
        raise TypeError(NO_PICKLE)
