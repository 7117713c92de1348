"""An adapter on a model: settings at run time, several at once, copies, removal."""

import copy
import pickle
from typing import Any

import pytest
import torch
import transformers
from models import WIDTH, fitted_adapter, greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter
from asa_adapter.modeling.residual_stream import decoder_blocks


def test_disabled_gives_the_base_model_and_no_decisions(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    with adapter.attach(lfm2) as steering:
        steered = greedy(lfm2, ids)
        with steering.disabled():
            assert torch.equal(greedy(lfm2, ids), base)
            assert steering.decisions == []
        assert torch.equal(greedy(lfm2, ids), steered)


def test_alpha_and_tau_are_set_at_run_time(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    with adapter.attach(lfm2) as steering:
        steering.alpha = 0
        assert torch.equal(greedy(lfm2, ids), base)
        steering.alpha, steering.tau = 20, 1.0
        assert torch.equal(greedy(lfm2, ids), base)
        assert (steering.alpha, steering.tau) == (20, 1.0)
    assert adapter.config.alpha == 20


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("alpha", -1, "alpha is -1; expected 0 to 1000"),
        ("alpha", "1", "alpha is '1'; expected a number"),
        ("alpha", True, "alpha is True; expected a number"),
        ("tau", 0.4, "tau is 0.4; expected 0.5 to 1"),
    ],
)
def test_run_time_settings_are_checked(lfm2: Any, adapter: ASAAdapter, name: str, value: Any, message: str) -> None:
    with adapter.attach(lfm2) as steering, pytest.raises((ValueError, TypeError), match=message):
        setattr(steering, name, value)


@pytest.mark.parametrize("first", [0, 1])
def test_two_adapters_at_different_layers_leave_in_any_order(lfm2: Any, first: int) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    adapters = [fitted_adapter(layer=1), fitted_adapter(layer=3)]
    handles = [adapter.attach(lfm2) for adapter in adapters]
    greedy(lfm2, ids)
    assert [len(handle.decisions) for handle in handles] == [3, 3]
    handles[first].remove()
    with adapters[1 - first].attach(random_model("lfm2")) as alone:
        expected = greedy(alone._steering._model, ids)  # type: ignore[union-attr]
    assert torch.equal(greedy(lfm2, ids), expected)
    handles[1 - first].remove()
    assert traces(lfm2) == []
    assert torch.equal(greedy(lfm2, ids), base)


def test_a_second_adapter_at_the_same_layer_is_refused_and_changes_nothing(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2):
        before = traces(lfm2)
        with pytest.raises(ValueError, match=r"already has an adapter at layer 2; remove\(\) that one first"):
            fitted_adapter().attach(lfm2)
        assert traces(lfm2) == before
    assert traces(lfm2) == []


def test_a_deepcopy_is_clean_and_generates_from_its_own_weights(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    with adapter.attach(lfm2):
        clone = copy.deepcopy(lfm2)
        steered = greedy(lfm2, ids)
        assert traces(clone) == []
        assert torch.equal(greedy(clone, ids), base)
        with torch.no_grad():
            clone.get_input_embeddings().weight.zero_()
        assert torch.equal(greedy(lfm2, ids), steered)
        assert not torch.equal(greedy(clone, ids), base)
        with adapter.attach(clone):
            assert len(traces(clone)) == len(traces(lfm2))


def test_a_copied_block_does_not_steer(lfm2: Any, adapter: ASAAdapter) -> None:
    state = torch.randn(1, 3, WIDTH)
    with adapter.attach(lfm2):
        block = copy.deepcopy(decoder_blocks(lfm2)[2])
    assert torch.equal(block(state), decoder_blocks(lfm2)[2](state))


def test_pickling_a_steered_model_is_refused(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2), pytest.raises(TypeError, match=r"cannot be pickled; call remove\(\) first"):
        pickle.dumps(lfm2)


def test_a_second_adapter_is_seen_through_a_wrapper_of_generate(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2):
        ours = lfm2.generate
        lfm2.generate = lambda *args, **kwargs: ours(*args, **kwargs)
        with pytest.raises(ValueError, match="already has an adapter at layer 2"):
            fitted_adapter().attach(lfm2)
        del lfm2.generate


def test_a_wrapper_put_over_ours_keeps_working_after_removal(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    handle = adapter.attach(lfm2)
    ours = lfm2.generate
    lfm2.generate = lambda *args, **kwargs: ours(*args, **kwargs)
    handle.remove()
    assert torch.equal(greedy(lfm2, ids), base)


def test_two_models_in_one_process_are_steered_apart(lfm2: Any, adapter: ASAAdapter) -> None:
    ids, other = prompts(), random_model("qwen3")
    base = greedy(other, ids)
    with adapter.attach(lfm2) as steering:
        steered = greedy(lfm2, ids)
        assert torch.equal(greedy(other, ids), base)
        with adapter.attach(other) as second:
            assert not torch.equal(greedy(other, ids), base)
            assert torch.equal(greedy(lfm2, ids), steered)
            assert len(second.decisions) == len(steering.decisions) == 3
        assert torch.equal(greedy(other, ids), base)


def test_a_training_model_is_steered_and_stays_in_training_mode(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    with adapter.attach(lfm2):
        steered = greedy(lfm2, ids)
    lfm2.train()
    lfm2.model.layers[1].eval()
    with adapter.attach(lfm2) as steering:
        assert torch.equal(greedy(lfm2, ids), steered)  # this family has no dropout
        assert [d.applied for d in steering.decisions] == [True] * 3
        assert lfm2.training
        assert not lfm2.model.layers[1].training
    lfm2(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in lfm2.parameters())


def test_saving_a_steered_model_writes_the_base_model(lfm2: Any, adapter: ASAAdapter, tmp_path: Any) -> None:
    lfm2.save_pretrained(tmp_path / "base")
    with adapter.attach(lfm2):
        greedy(lfm2, prompts())
        lfm2.save_pretrained(tmp_path / "steered")
    written = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("base", "steered")]
    assert written[0] == written[1]


def test_nothing_but_the_instance_is_changed(lfm2: Any, adapter: ASAAdapter) -> None:
    places = [*type(lfm2).__mro__[:-1], transformers.generation.utils, transformers.modeling_utils]
    before = [dict(vars(place)) for place in places]
    other = random_model("lfm2")
    with adapter.attach(lfm2):
        greedy(lfm2, prompts())
        assert [dict(vars(place)) for place in places] == before
        assert traces(other) == []


def test_generating_past_the_models_own_generate_warns(lfm2: Any, adapter: ASAAdapter) -> None:
    ids, before = prompts(), lfm2.generate
    base = greedy(lfm2, ids)
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with adapter.attach(lfm2) as steering:
        with pytest.warns(RuntimeWarning, match=r"without its own generate\(\), so it is not steered") as seen:
            answers = [before(ids, **settings), type(lfm2).generate(lfm2, ids, **settings)]
        assert all(torch.equal(answer, base) for answer in answers)
        assert len(seen) == 1
        with steering.disabled():
            before(ids, **settings)


def test_a_default_device_that_is_not_the_models_is_borne(lfm2: Any, adapter: ASAAdapter) -> None:
    """As where a user makes the GPU the default device: what we make on the CPU must stay there."""
    ids = prompts()
    masked = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False}
    expected, decided = adapter.generate(lfm2, ids, **masked), adapter.decide(torch.ones(2, WIDTH))
    with torch.device("meta"):
        assert torch.equal(adapter.generate(lfm2, ids, **masked), expected)
        assert adapter.decide(torch.ones(2, WIDTH, device="cpu"), ["first", "first"]) == decided
