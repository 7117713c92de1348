"""A model is refused where states cannot be read, steps do not act, or reading changes anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_models import needs_llamacpp

from asa_adapter import IncompatibleModelError
from asa_adapter.libllama.context import Context

pytestmark = needs_llamacpp


def opened(path: Path) -> Any:
    from asa_adapter.llamacpp import GGUFModel

    return GGUFModel(path, n_ctx=256, threads=1)


def with_visit(monkeypatch: pytest.MonkeyPatch, changed: Callable[[Any], Any]) -> None:
    """Has each step changed by a fault before it is written."""
    original = Context._visit
    monkeypatch.setattr(Context, "_visit", lambda self, tensor, visit: original(self, tensor, changed(visit)))


def test_a_step_that_does_not_act_is_refused(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(visit: Any) -> Any:
        def visited(states: torch.Tensor) -> None:
            visit(states)

        return visited

    with_visit(monkeypatch, lost)
    with pytest.raises(IncompatibleModelError, match="block 4 of this lfm2 model: a huge step does not change the lo"):
        opened(written())


def test_a_second_tensor_of_the_blocks_name_is_refused(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Context._called

    def twice(self: Context, tensor: int, asks: bool, given: Any) -> bool:
        """As if the graph had another tensor of the name behind each one."""
        found = original(self, tensor, asks, given)
        return original(self, tensor, asks, given) if found and not asks else found

    monkeypatch.setattr(Context, "_called", twice)
    with pytest.raises(IncompatibleModelError, match=r"llama\.cpp shows 2 tensors of the name l_out-4; expected one"):
        opened(written())


def test_a_step_that_is_another_one_is_refused(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(visit: Any) -> Any:
        def visited(states: torch.Tensor) -> torch.Tensor | None:
            changed = visit(states.clone())
            return None if changed is None else states + 0.5 * (changed - states)

        return visited

    with_visit(monkeypatch, halved)
    with pytest.raises(IncompatibleModelError, match=r"a control vector of llama\.cpp does something else"):
        opened(written())


def test_reading_that_changes_something_is_refused(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(visit: Any) -> Any:
        def visited(states: torch.Tensor) -> torch.Tensor:
            changed = visit(states)
            return 1.01 * (states if changed is None else changed)

        return visited

    with_visit(monkeypatch, changing)
    with pytest.raises(IncompatibleModelError, match="reading them changes the logits"):
        opened(written())


def test_states_that_have_another_name_are_refused(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from asa_adapter.libllama.library import open_library

    library = open_library()
    own = library.ggml_get_name
    monkeypatch.setattr(library, "ggml_get_name", lambda tensor: own(tensor).replace(b"l_out", b"out"))
    with pytest.raises(IncompatibleModelError, match="shows 0 tensors of the name l_out-4; expected one"):
        opened(written())


def test_states_of_a_block_that_is_not_shown_are_never_made_up(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the middle block is tried when a model is opened."""
    model = opened(written())
    own = model._library.ggml_get_name
    monkeypatch.setattr(model._library, "ggml_get_name", lambda tensor: own(tensor).replace(b"l_out-2", b"out-2"))
    with pytest.raises(
        IncompatibleModelError, match=r"shows no states, or NaN, behind the blocks \[2\] of this lfm2 model"
    ):
        model.last_states([[1, 5, 9]], lambda count: None)


@pytest.mark.parametrize(("name", "count"), [("n_ctx", 0), ("threads", -1)])
def test_sizes_below_one_are_refused(written: Callable[..., Path], name: str, count: int) -> None:
    from asa_adapter.llamacpp import GGUFModel

    with pytest.raises(ValueError, match=f"{name} is {count}; expected at least 1"):
        GGUFModel(written(), **{name: count})


def test_an_error_inside_a_visit_is_raised_and_the_model_answers_on(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asa_adapter.steering.windows_and_records import Window

    prompt = torch.tensor([pair.prompts[0]])
    before = pair.file.generate(prompt, max_new_tokens=4)
    with pair.adapter.attach(pair.file), monkeypatch.context() as faulty:
        faulty.setattr(Window, "steer_states", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pair.file.generate(prompt, max_new_tokens=4)
    assert torch.equal(pair.file.generate(prompt, max_new_tokens=4), before)


def test_each_layer_of_an_adapter_is_checked_once(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.adapter.attach(pair.file).remove()
    monkeypatch.setattr("asa_adapter.llamacpp.model.check_layer", lambda *_: pytest.fail("checked again"))
    pair.adapter.attach(pair.file).remove()
    assert {*pair.adapter.config.hooked} <= pair.file._checked
