import copy
import pickle
import threading
from typing import Any

import pytest
import torch
import transformers
from models import WIDTH, fitted_adapter, greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter
from asa_adapter.modeling.residual import decoder_blocks
from asa_adapter.steering.plan import Call


@pytest.fixture
def adapter() -> ASAAdapter:
    return fitted_adapter()


@pytest.fixture
def lfm2() -> Any:
    return random_model("lfm2")


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


def test_an_exception_inside_generate_leaves_no_plan(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()

    class Stop(Exception):
        pass

    def fail(*_: Any) -> None:
        raise Stop

    with adapter.attach(lfm2) as steering:
        steered = greedy(lfm2, ids)
        with decoder_blocks(lfm2)[0].register_forward_hook(fail), pytest.raises(Stop):
            greedy(lfm2, ids)
        assert steering._slot.window is None
        bare = lfm2(ids).logits
        assert torch.equal(greedy(lfm2, ids), steered)
    assert torch.equal(lfm2(ids).logits, bare)


def test_a_nested_generate_is_not_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    inner: list[torch.Tensor] = []

    class Asking(torch.nn.Module):
        def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if not inner:
                inner.append(greedy(lfm2, ids))
            return scores

    with adapter.attach(lfm2) as steering:
        plain = greedy(lfm2, ids)
        assert torch.equal(greedy(lfm2, ids, logits_processor=[Asking()]), plain)
        assert len(steering.decisions) == 3
    assert torch.equal(inner[0], base)


def test_two_threads_keep_their_plans_apart(lfm2: Any, adapter: ASAAdapter) -> None:
    inputs = [prompts(rows=1, length=5 + i, seed=i) for i in range(8)]
    with adapter.attach(lfm2):
        alone = [greedy(lfm2, ids) for ids in inputs]
        together: dict[int, torch.Tensor] = {}

        def run(i: int) -> None:
            together[i] = greedy(lfm2, inputs[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(together[i], alone[i]) for i in range(len(inputs)))


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


def test_a_bare_forward_is_not_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    logits = lfm2(ids).logits
    with adapter.attach(lfm2):
        assert torch.equal(lfm2(ids).logits, logits)


def test_wrong_tokens_are_refused_by_name(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2), pytest.raises(TypeError, match="was given list; expected a tensor of token ids"):
        lfm2.generate([[5, 6, 7]])


def test_another_mask_than_one_for_rows_and_tokens_is_refused(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2), pytest.raises(TypeError, match=r"expected|than a tensor of shape \(rows, tokens\)"):
        greedy(lfm2, prompts(), attention_mask={"full_attention": None})


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


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_break_in_the_middle_of_decoding_leaves_no_state(
    lfm2: Any, adapter: ASAAdapter, stop: type[BaseException]
) -> None:
    ids = prompts()

    class Stopping(transformers.StoppingCriteria):
        def __call__(self, _ids: torch.Tensor, _scores: Any, **_: Any) -> Any:
            raise stop

    with adapter.attach(lfm2) as steering:
        steered = greedy(lfm2, ids)
        with pytest.raises(stop):
            greedy(lfm2, ids, stopping_criteria=[Stopping()])
        assert steering._slot.window is None
        assert torch.equal(greedy(lfm2, ids), steered)
    assert traces(lfm2) == []


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
        assert lfm2.training and not lfm2.model.layers[1].training
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
        with pytest.warns(RuntimeWarning, match="without its own generate.., so it is not steered") as seen:
            assert torch.equal(before(ids, **settings), base)
            assert torch.equal(type(lfm2).generate(lfm2, ids, **settings), base)
        assert len(seen) == 1
        with steering.disabled():
            before(ids, **settings)


@pytest.mark.parametrize("way", ["generate_batch", "paged", "init_continuous_batching"])
def test_continuous_batching_is_refused(adapter: ASAAdapter, way: str) -> None:
    ids, model = prompts(), random_model("llama")
    calls = {
        "generate_batch": lambda: model.generate_batch(inputs=ids.tolist()),
        "paged": lambda: greedy(model, ids, cache_implementation="paged"),
        "init_continuous_batching": lambda: model.init_continuous_batching(),
    }
    with adapter.attach(model) as steering:
        with pytest.raises(ValueError, match=r"continuous batching .* cannot be steered.*generate\(\) with a padded"):
            calls[way]()
        with steering.disabled():
            assert type(model.init_continuous_batching()).__name__ == "ContinuousBatchingManager"
    assert traces(model) == []


@pytest.mark.parametrize("place", ["argument", "generation_config"])
def test_draft_tokens_behind_a_filled_cache_are_refused(lfm2: Any, adapter: ASAAdapter, place: str) -> None:
    ids = prompts(rows=1, length=14)
    cache = lfm2(ids[:, :10], use_cache=True).past_key_values
    keywords: dict[str, Any] = {"prompt_lookup_num_tokens": 3}
    if place == "generation_config":
        keywords = {"generation_config": transformers.GenerationConfig(**keywords, max_new_tokens=4, pad_token_id=0)}
    with adapter.attach(lfm2), pytest.raises(ValueError, match="a filled cache together with draft tokens"):
        lfm2.generate(ids, past_key_values=cache, attention_mask=torch.ones_like(ids), **keywords)


def steered_block(model: Any, forward: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs and output of block 2, and what the hook made of it, as the very tensors."""
    block, seen = decoder_blocks(model)[2], []

    def watched(hidden: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        out = forward(hidden, *args, **keywords)
        seen.extend([hidden, out])
        return out

    block.forward = watched
    with block.register_forward_hook(lambda _m, _a, out: seen.append(out)):
        greedy(model, ids)
    del block.forward
    return seen[0], seen[1], seen[2]


def test_the_step_is_written_into_a_state_that_nothing_else_needs(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2) as steering:
        _, put_out, behind = steered_block(lfm2, decoder_blocks(lfm2)[2].forward, prompts())
        assert [d.applied for d in steering.decisions] == [True] * 3
    assert behind is put_out


def test_a_state_that_the_block_was_given_is_not_written_into(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2) as steering:
        given, put_out, behind = steered_block(lfm2, lambda hidden, *_args, **_keywords: hidden, prompts())
        assert [d.applied for d in steering.decisions] == [True] * 3
        assert steering._record is not None
        before = steering._record.met[0].states
    assert put_out is given and behind is not given
    assert torch.equal(given[:, -1], before)


def test_after_the_prompt_a_window_is_not_looked_for(
    lfm2: Any, adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    located: list[int] = []
    locate = Call.locate
    monkeypatch.setattr(Call, "locate", lambda self, *args, **kw: (located.append(1), locate(self, *args, **kw)))
    with adapter.attach(lfm2):
        greedy(lfm2, prompts())
    assert len(located) == 2  # the prompt, and the first step, which closes the call; not the six behind it


def test_a_decision_tells_how_long_the_step_was_beside_the_state(lfm2: Any, adapter: ASAAdapter) -> None:
    ids, norms = prompts(), []
    with decoder_blocks(lfm2)[2].register_forward_hook(lambda _m, _a, out: norms.append(out[:, -1].norm(dim=1))):
        greedy(lfm2, ids)
    with adapter.attach(lfm2) as steering:
        greedy(lfm2, ids)
        steps = [d.relative_step for d in steering.decisions]
        text = str(steering.decisions[0])
        steering.alpha = 0
        greedy(lfm2, ids)
        assert [d.relative_step for d in steering.decisions] == [0.0] * 3
    assert steps == pytest.approx((20 / norms[0]).tolist())
    assert text.startswith("token 8: ") and text.endswith(f"step of {steps[0]:.2f} x the state's norm")
