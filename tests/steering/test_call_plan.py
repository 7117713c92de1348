"""One call of generate(): what is steered in it, what is refused, and that no plan outlives it."""

import copy
import threading
from typing import Any

import pytest
import torch
import transformers
from models import greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter
from asa_adapter.modeling.forward import CACHE, CACHE_NAMES
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.steering.call_plan import CallPlan
from asa_adapter.steering.generate_arguments import prompt_tokens


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
    cache = getattr(lfm2(ids[:, :10], use_cache=True), CACHE)
    keywords: dict[str, Any] = {"prompt_lookup_num_tokens": 3}
    if place == "generation_config":
        keywords = {"generation_config": transformers.GenerationConfig(**keywords, max_new_tokens=4, pad_token_id=0)}
    with adapter.attach(lfm2), pytest.raises(ValueError, match="a filled cache together with draft tokens"):
        lfm2.generate(ids, **{CACHE: cache}, attention_mask=torch.ones_like(ids), **keywords)


def steered_block(model: Any, forward: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Block 2's input, its output, and the output after the hook: the same tensor objects."""
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
        _, output, after = steered_block(lfm2, decoder_blocks(lfm2)[2].forward, prompts())
        assert [d.applied for d in steering.decisions] == [True] * 3
    assert after is output


def test_a_state_that_the_block_was_given_is_not_written_into(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2) as steering:
        given, output, after = steered_block(lfm2, lambda hidden, *_args, **_keywords: hidden, prompts())
        assert [d.applied for d in steering.decisions] == [True] * 3
        assert steering._record is not None
        before = steering._record.met[0].states
    assert output is given
    assert after is not given
    assert torch.equal(given[:, -1], before)


def test_after_the_prompt_a_window_is_not_looked_for(
    lfm2: Any, adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    located: list[int] = []
    locate = CallPlan.locate
    monkeypatch.setattr(CallPlan, "locate", lambda self, *args, **kw: (located.append(1), locate(self, *args, **kw)))
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
    assert text.startswith("token 8: ")
    assert text.endswith(f"step of {steps[0]:.2f} x the state's norm")


@pytest.mark.parametrize(
    ("mask", "found"),
    [([[1] * 9] * 3, "list"), (torch.ones(3, 1, 1, 9), r"\(3, 1, 1, 9\)"), ({"full_attention": None}, "dict")],
)
def test_an_attention_mask_of_another_shape_is_refused_by_name(
    lfm2: Any, adapter: ASAAdapter, mask: Any, found: str
) -> None:
    message = f"attention_mask is {found}; expected a tensor of shape"
    with adapter.attach(lfm2), pytest.raises(TypeError, match=message):
        lfm2.generate(prompts(), attention_mask=mask, max_new_tokens=1)

    assert traces(lfm2) == []


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_a_filled_cache_is_seen_under_each_of_its_names(lfm2: Any, name: str) -> None:
    """transformers 5.24 calls it `cache`; versions before it, and code written for them, say `past_key_values`."""
    ids = prompts(rows=2, length=14)
    cache = getattr(lfm2(ids[:, :10], use_cache=True), CACHE)
    last, width, cached = prompt_tokens(lfm2, (ids,), {name: cache, "attention_mask": torch.ones_like(ids)})

    assert (last.tolist(), width, cached) == ([3, 3], 4, 10)


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_draft_tokens_are_refused_behind_a_cache_of_any_name(lfm2: Any, name: str) -> None:
    ids = prompts(rows=1, length=14)
    keywords = {name: getattr(lfm2(ids[:, :10], use_cache=True), CACHE), "prompt_lookup_num_tokens": 3}
    with pytest.raises(ValueError, match="a filled cache together with draft tokens"):
        prompt_tokens(lfm2, (ids,), keywords)


def test_behind_a_cache_of_an_unknown_name_no_token_of_the_answer_is_steered(
    lfm2: Any, adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens that the cache holds are taken for tokens still to come; the answer must not pass for them."""
    ids = prompts(rows=2, length=14)
    with torch.no_grad():
        cache = getattr(lfm2(ids[:, :10], use_cache=True), CACHE)
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 16, "min_new_tokens": 16}
    bare = greedy(lfm2, ids, **{CACHE: copy.deepcopy(cache)}, **settings)
    monkeypatch.setattr("asa_adapter.modeling.forward.CACHE_NAMES", ())
    with adapter.attach(lfm2) as steering:
        with pytest.warns(RuntimeWarning, match="ran without being steered.*filled cache came under an unknown"):
            answer = greedy(lfm2, ids, **{CACHE: cache}, **settings)
        assert steering.decisions == []

    assert torch.equal(answer, bare)
