import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from conftest import DEPTH, FAMILIES, PAD, WIDTH, fitted_adapter, greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.residual import decoder_blocks, hidden_state


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


@pytest.fixture
def adapter() -> ASAAdapter:
    return fitted_adapter()


@pytest.fixture
def lfm2() -> Any:
    return random_model("lfm2")


def block_outputs(model: Any, layer: int, ids: torch.Tensor, **keywords: Any) -> list[torch.Tensor]:
    """What a block puts out, after all other hooks, in each forward pass of a generate() call."""
    seen: list[torch.Tensor] = []
    with decoder_blocks(model)[layer].register_forward_hook(
        lambda _m, _a, out: seen.append(hidden_state(out).clone())
    ):
        greedy(model, ids, **keywords)
    return seen


def padded(ids: torch.Tensor, lengths: list[int], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = ids.clone(), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        kept = slice(ids.shape[1] - length, None) if side == "left" else slice(0, length)
        mask[row, kept] = 1
    return ids.masked_fill(mask == 0, PAD), mask


@pytest.mark.parametrize("side", ["left", "right"])
def test_exactly_the_last_prompt_token_moves_by_the_controllers_step(
    model: Any, adapter: ASAAdapter, side: str
) -> None:
    ids, mask = padded(prompts(), [9, 6, 4], side)
    before = block_outputs(model, 2, ids, attention_mask=mask)[0]
    with adapter.attach(model):
        after = block_outputs(model, 2, ids, attention_mask=mask)[0]
    last = [8, 8, 8] if side == "left" else [8, 5, 3]
    rows = torch.arange(3)
    states = before[rows, last]
    expected = before.clone()
    controller = adapter._controller
    expected[rows, last] = controller.steer(states, controller.decide(states))
    assert torch.equal(after, expected)
    assert not torch.equal(after[rows, last], states)


def test_decode_steps_are_not_touched(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        greedy(model, prompts())
        record = steering._record
    assert record is not None
    assert [len(rows) for rows, _ in record.parts] == [3]


def test_steering_changes_the_answer(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(model, ids)
    with adapter.attach(model):
        assert not torch.equal(greedy(model, ids), base)


def test_after_removal_nothing_is_left_and_logits_are_bit_identical(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    keys, logits, tokens = set(model.__dict__), model(ids).logits, greedy(model, ids)
    handle = adapter.attach(model)
    greedy(model, ids)
    handle.remove()
    handle.remove()
    assert traces(model) == []
    assert set(model.__dict__) == keys
    assert torch.equal(model(ids).logits, logits)
    assert torch.equal(greedy(model, ids), tokens)


def test_alpha_zero_abstains_bit_identically(model: Any) -> None:
    ids = prompts()
    base = block_outputs(model, DEPTH - 1, ids)
    with fitted_adapter(alpha=0.0).attach(model) as steering:
        steered = block_outputs(model, DEPTH - 1, ids)
        assert [(d.gate, d.applied) for d in steering.decisions] == [(0, False)] * 3
    assert all(torch.equal(a, b) for a, b in zip(base, steered, strict=True))


def test_rows_with_gate_zero_keep_every_bit_beside_steered_ones(lfm2: Any) -> None:
    ids = prompts(rows=8)
    before = block_outputs(lfm2, 2, ids)[0]
    adapter = fitted_adapter()
    p_tools = sorted(d.p_tool for d in adapter.decide(before[:, -1]))
    tau = 0.5 + sorted(abs(p - 0.5) for p in p_tools)[4] + 1e-6
    with adapter.attach(lfm2) as steering:
        steering.tau = tau
        after = block_outputs(lfm2, 2, ids)[0]
        gates = [d.gate for d in steering.decisions]
    assert 0 in gates and any(gates)
    for row, gate in enumerate(gates):
        assert torch.equal(after[row], before[row]) == (gate == 0)


def test_same_tokens_without_a_cache(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model):
        assert torch.equal(greedy(model, prompts(), use_cache=False), greedy(model, prompts()))


@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 9, 20])
def test_same_tokens_and_position_with_chunked_prefill(model: Any, adapter: ASAAdapter, chunk: int) -> None:
    with adapter.attach(model) as steering:
        whole = greedy(model, prompts())
        assert torch.equal(greedy(model, prompts(), prefill_chunk_size=chunk), whole)
        assert [d.position for d in steering.decisions] == [8, 8, 8]


def test_same_tokens_with_prompt_lookup(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts(rows=1, length=12).repeat(1, 2)
    with adapter.attach(model) as steering:
        plain = greedy(model, ids)
        assert torch.equal(greedy(model, ids, prompt_lookup_num_tokens=3), plain)
        assert [d.position for d in steering.decisions] == [23]


def test_beams_and_return_sequences_give_one_decision_for_each_row(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        output = greedy(model, prompts(), num_beams=3, num_return_sequences=2)
        record = steering._record
        assert len(output) == 6
        assert len(steering.decisions) == 3
    assert record is not None
    assert [len(rows) for rows, _ in record.parts] == [9]


def test_sampling_is_steered_once_and_follows_the_seed(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        outputs = []
        for _ in range(2):
            torch.manual_seed(3)
            outputs.append(greedy(model, prompts(), do_sample=True, top_k=0))
        record = steering._record
    assert torch.equal(*outputs)
    assert record is not None and [len(rows) for rows, _ in record.parts] == [3]


def test_a_streamer_sees_the_steered_tokens(lfm2: Any, adapter: ASAAdapter) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    streamer, ids = Streamer(), prompts(rows=1)
    with adapter.attach(lfm2):
        output = greedy(lfm2, ids, streamer=streamer)
    assert streamer.tokens == [*output[0].tolist(), -1]


def test_guidance_runs_the_model_again_but_steers_once(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2) as steering:
        greedy(lfm2, prompts(), guidance_scale=1.5)
        record = steering._record
    assert record is not None
    assert [len(rows) for rows, _ in record.parts] == [3]


def test_a_prompt_of_one_token_is_steered(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model) as steering:
        greedy(model, prompts(length=1))
        assert [d.position for d in steering.decisions] == [0, 0, 0]


def test_inputs_embeds_are_steered_like_their_tokens(model: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    with adapter.attach(model):
        tokens = greedy(model, ids)[:, 9:]
        embeds = model.get_input_embeddings()(ids)
        output = model.generate(
            inputs_embeds=embeds, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=PAD
        )
    assert torch.equal(output, tokens)


@pytest.mark.parametrize("whole_row", [True, False])
def test_a_continued_cache_is_steered_at_its_new_last_token(model: Any, adapter: ASAAdapter, whole_row: bool) -> None:
    ids = prompts(length=14)
    cache = model(ids[:, :10], use_cache=True).past_key_values
    given = ids if whole_row else ids[:, 10:]
    with adapter.attach(model) as steering:
        greedy(model, given, past_key_values=cache, attention_mask=torch.ones_like(ids))
        record = steering._record
        assert [d.position for d in steering.decisions] == [given.shape[1] - 1] * 3
    assert record is not None and len(record.parts) == 1


def test_a_mask_that_generate_infers_from_pad_tokens_is_followed(lfm2: Any, adapter: ASAAdapter) -> None:
    ids, _ = padded(prompts(), [9, 6, 4], "right")
    with adapter.attach(lfm2) as steering:
        greedy(lfm2, ids)
        assert [d.position for d in steering.decisions] == [8, 5, 3]


def test_static_cache_gives_the_same_tokens(lfm2: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(lfm2):
        assert torch.equal(greedy(lfm2, prompts(), cache_implementation="static"), greedy(lfm2, prompts()))


def test_bfloat16_states_keep_their_type(adapter: ASAAdapter) -> None:
    model = random_model("lfm2").to(torch.bfloat16)
    with adapter.attach(model) as steering:
        assert block_outputs(model, 2, prompts())[0].dtype == torch.bfloat16
        assert all(d.applied for d in steering.decisions)


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


def test_a_compiled_forward_gives_the_same_tokens_without_a_graph_break(lfm2: Any, adapter: ASAAdapter) -> None:
    torch._dynamo.reset()
    with adapter.attach(lfm2):
        steered = greedy(lfm2, prompts())
        lfm2.forward = torch.compile(lfm2.forward, backend="eager", fullgraph=True)
        try:
            assert torch.equal(greedy(lfm2, prompts()), steered)
        finally:
            del lfm2.forward
            torch._dynamo.reset()


def test_a_compiled_wrapper_of_the_model_is_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    with adapter.attach(lfm2):
        steered = greedy(lfm2, ids)
    compiled = torch.compile(lfm2, backend="eager")
    base = greedy(compiled, ids)
    with adapter.attach(compiled):
        assert torch.equal(greedy(compiled, ids), steered)
    assert torch.equal(greedy(compiled, ids), base)
    assert traces(lfm2) == []


def test_a_model_compiled_before_attach_warns_that_it_was_not_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    torch._dynamo.reset()
    lfm2.forward = torch.compile(lfm2.forward, backend="eager")
    try:
        greedy(lfm2, prompts())
        with adapter.attach(lfm2), pytest.warns(RuntimeWarning, match="without being steered"):
            greedy(lfm2, prompts())
    finally:
        del lfm2.forward
        torch._dynamo.reset()


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


def test_a_block_with_another_axis_order_is_refused(lfm2: Any, adapter: ASAAdapter) -> None:
    def transpose(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output.transpose(0, 1)

    with adapter.attach(lfm2), decoder_blocks(lfm2)[2].register_forward_hook(transpose, prepend=True):
        with pytest.raises(IncompatibleModelError, match=r"expected \(rows, tokens, width\) with 3 rows of 9 tokens"):
            greedy(lfm2, prompts())


def test_a_wrapper_put_over_ours_keeps_working_after_removal(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()
    base = greedy(lfm2, ids)
    handle = adapter.attach(lfm2)
    ours = lfm2.generate
    lfm2.generate = lambda *args, **kwargs: ours(*args, **kwargs)
    handle.remove()
    assert torch.equal(greedy(lfm2, ids), base)
