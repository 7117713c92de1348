"""What users of PEFT try first is answered by name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from models import fitted_adapter, greedy, prompts, random_model, traces

import asa_adapter
from asa_adapter import ASAAdapter, Decision


@pytest.mark.parametrize("order", ["model and path", "path and model", "model alone"])
def test_a_model_where_a_folder_belongs_is_answered_with_attach(order: str, tmp_path: Path) -> None:
    folder, model = fitted_adapter().save_pretrained(tmp_path / "a"), random_model()
    given: list[Any] = {"model and path": [model, folder], "path and model": [folder, model]}.get(order, [model])
    path = "path" if order == "model alone" else folder
    with pytest.raises(TypeError) as error:
        ASAAdapter.from_pretrained(*given)
    assert str(error.value) == (
        "from_pretrained takes a folder or a repository alone, and gives an adapter, then .attach(model): "
        f"ASAAdapter.from_pretrained({str(path)!r:.80}).attach(model)"
    )


def test_a_revision_that_stands_behind_the_repository_is_to_be_named() -> None:
    with pytest.raises(TypeError, match=r"and 'main' stands behind it; options go by name, such as revision='main'"):
        ASAAdapter.from_pretrained("user/lfm25-asa", "main")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("disable_adapter", "it is the handle's: steering = adapter.attach(model); with steering.disabled(): ..."),
        ("unload", "it is the handle's: steering = adapter.attach(model); steering.remove()"),
        ("merge_and_unload", "there is nothing to merge: the weights stay as they are. Save the adapter beside the"),
        ("set_adapter", "steering = adapter.attach(model) puts it on a model"),
        ("to", "it holds no module: attach() puts what it needs where the model is"),
        ("decisions", "it is the handle's: steering = adapter.attach(model); steering.decisions"),
    ],
)
def test_names_of_peft_on_an_adapter_say_what_it_is_here(name: str, answer: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(fitted_adapter(), name)
    assert str(error.value).startswith(f"ASAAdapter has no attribute {name!r}: {answer}")
    assert not hasattr(fitted_adapter(), name)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("merge_and_unload", "there is nothing to merge: "),
        ("generate", "call the model's own generate(): it is steered while this is attached"),
        ("save_pretrained", "save the adapter: adapter.save_pretrained(folder)"),
        ("get_base_model", "the model that you attached to is it; remove() restores it"),
    ],
)
def test_names_of_peft_on_a_handle_say_what_it_is_here(name: str, answer: str) -> None:
    with (
        fitted_adapter().attach(random_model()) as steering,
        pytest.raises(AttributeError, match=f"SteeringHandle has no attribute '{name}': ") as error,
    ):
        getattr(steering, name)
    assert answer in str(error.value)


def test_other_names_are_plain_attribute_errors() -> None:
    with pytest.raises(AttributeError, match=r"^ASAAdapter has no attribute 'stear'$"):
        _ = fitted_adapter().stear  # type: ignore[attr-defined]
    assert copy.copy(fitted_adapter()).config == fitted_adapter().config


def test_pefts_names_for_a_pause_and_for_removal_work() -> None:
    ids, model = prompts(), random_model()
    base = greedy(model, ids)
    steering = fitted_adapter().attach(model)
    steered = greedy(model, ids)
    assert not torch.equal(steered, base)
    with steering.disable_adapter():
        assert torch.equal(greedy(model, ids), base)
    assert torch.equal(greedy(model, ids), steered)
    steering.unload()
    assert torch.equal(greedy(model, ids), base)
    assert traces(model) == []


def test_a_list_of_decisions_can_be_read() -> None:
    decisions = [Decision("math", 0.953, 1, 212, True, 0.71, "", "steer"), Decision("code", 0.2, 0, 7)]
    assert str(decisions) == (
        "[<token 212: math, p(tool) 0.953, gate +1, step of 0.71 x the state's norm>, "
        "<token 7: code, p(tool) 0.200, gate 0, left as it was>]"
    )


def test_dir_shows_the_public_names_and_no_others() -> None:
    assert dir(asa_adapter) == sorted(asa_adapter.__all__)
