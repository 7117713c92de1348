"""The actions "bias" and "both": the gate changes the logits of the calls' openings at the first answer token alone.

What is expected is made by hand from the bare model's logits, for every way of calling generate().
"""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from models import PAD, VOCABULARY, fitted_adapter, greedy, prompts, random_model, traces
from steered_families import families

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.modeling.forward import CACHE
from asa_adapter.parts.opening_bias import OpeningBias, biased_logits

OPENINGS = (7, 40, 23)
FIRST = {"output_logits": True, "return_dict_in_generate": True}
SIZES = pytest.mark.parametrize("bias", [6.0, math.inf])


def acting(action: str = "bias", bias: float = math.inf, **changes: Any) -> ASAAdapter:
    return fitted_adapter(**{"action": action, "bias": bias, "opening_ids": OPENINGS, "tau": 0.6, **changes})


def acting_on(model: Any, *args: Any, **changes: Any) -> ASAAdapter:
    """The same with a probe that is centred on the states of eight prompts: some lie on either side."""
    adapter = acting(*args, **{"tau": 0.5, **changes})
    with adapter.attach(model) as steering:
        greedy(model, prompts(rows=8))
        [met] = steering._record.met if steering._record is not None else []
    own, domains = adapter._controller, len(adapter.config.domains)
    probed = torch.nn.functional.linear(met.states, own.weight, own.bias)[:, domains:]
    own.bias[domains:] -= probed.gather(1, met.verdicts.domain[:, None]).median()
    return adapter


def by_hand(logits: torch.Tensor, gates: list[int], bias: float, openings: tuple[int, ...] = OPENINGS) -> torch.Tensor:
    """The (B, V) logits that the first answer token is expected to have, row by row."""
    expected = logits.clone()
    for row, gate in zip(expected, gates, strict=True):
        ids = list(openings)
        if gate and bias < math.inf:
            row[ids] += gate * bias
        elif gate < 0:
            row[ids] = -math.inf
        elif gate > 0:
            likeliest = max(ids, key=lambda token: float(row[token]))
            kept = float(row[likeliest])
            row[:] = -math.inf
            row[likeliest] = kept
    return expected


def first_logits(model: Any, ids: torch.Tensor, **keywords: Any) -> torch.Tensor:
    """The (B, V) logits of the first answer token."""
    return greedy(model, ids, **FIRST, **keywords).logits[0]


def answered_by_hand(model: Any, ids: torch.Tensor, first: torch.Tensor, **keywords: Any) -> torch.Tensor:
    """Greedy answers of the bare model that begin with the likeliest token of (B, V) `first`."""
    begun = torch.cat([ids, first.argmax(dim=1)[:, None]], dim=1)
    if (mask := keywords.pop("attention_mask", None)) is not None:
        keywords["attention_mask"] = torch.cat([mask, mask[:, :1] * 0 + 1], dim=1)
    return greedy(model, begun, max_new_tokens=7, min_new_tokens=7, **keywords)


@families()
@SIZES
def test_the_gate_changes_the_logits_of_the_first_answer_token_alone(model: Any, bias: float) -> None:
    ids = prompts(rows=8)
    bare = first_logits(model, ids)
    with acting_on(model, bias=bias).attach(model) as steering:
        found = first_logits(model, ids)
        answers = greedy(model, ids)
        decisions = steering.decisions
    gates = [decision.gate for decision in decisions]
    assert {-1, 1} <= set(gates)
    expected = by_hand(bare, gates, bias)
    assert torch.equal(found, expected)
    assert torch.equal(answers, answered_by_hand(model, ids, expected))
    assert [(d.applied, d.relative_step, d.action) for d in decisions] == [
        (gate != 0, 0.0, "bias" if gate else "") for gate in gates
    ]
    assert traces(model) == []


@families()
@SIZES
def test_both_biases_the_logits_of_the_steered_model(model: Any, bias: float) -> None:
    ids = prompts(rows=8)
    adapter = acting_on(model, "both", bias)
    with adapter.with_action("steer").attach(model) as steering:
        pushed = first_logits(model, ids)
        gates = [decision.gate for decision in steering.decisions]
    with adapter.attach(model) as steering:
        found = first_logits(model, ids)
        assert [d.action for d in steering.decisions] == ["both" if gate else "" for gate in gates]
        assert all(d.relative_step > 0 for d in steering.decisions if d.gate)
    assert torch.equal(found, by_hand(pushed, gates, bias))


@contextlib.contextmanager
def hand_made(model: Any, gates: list[int], bias: float) -> Iterator[None]:
    """The bare model, whose first forward pass returns logits made by hand."""
    own, passes = model.forward, []

    def forward(*args: Any, **keywords: Any) -> Any:
        output = own(*args, **keywords)
        if not passes:
            times = len(output.logits) // len(gates)
            expected = by_hand(output.logits[:, -1], [gate for gate in gates for _ in range(times)], bias)
            output.logits = torch.cat([output.logits[:, :-1], expected[:, None]], dim=1)
        passes.append(output)
        return output

    model.forward = forward
    try:
        yield
    finally:
        del model.forward


def answers(model: Any, ids: torch.Tensor, **keywords: Any) -> torch.Tensor:
    torch.manual_seed(5)
    return greedy(model, ids, **keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 2, "do_sample": True},
        {"do_sample": True, "top_k": 0, "temperature": 1.4},
        {"do_sample": True, "num_return_sequences": 3, "top_p": 0.9},
        {"guidance_scale": 1.5},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"cache_implementation": "static"},
        {"use_cache": False},
    ],
    ids=str,
)
@SIZES
def test_every_strategy_reads_the_logits_made_by_hand(lfm2: Any, keywords: dict[str, Any], bias: float) -> None:
    ids = prompts(rows=8)
    with acting_on(lfm2, bias=bias).attach(lfm2) as steering:
        found = answers(lfm2, ids, **keywords)
        gates = [decision.gate for decision in steering.decisions]
        assert [d.action for d in steering.decisions] == ["bias" if gate else "" for gate in gates]
    with hand_made(lfm2, gates, bias):
        expected = answers(lfm2, ids, **keywords)
    assert torch.equal(found, expected)
    assert not torch.equal(found, answers(lfm2, ids, **keywords))
    if bias == math.inf:
        times = len(found) // len(gates)
        opens = torch.isin(found[:, 9], torch.tensor(OPENINGS)).reshape(-1, times)
        assert all(row.all() if gate > 0 else not row.any() for row, gate in zip(opens, gates, strict=True) if gate)


@families("chunked prefill")
@pytest.mark.parametrize("chunk", [1, 4, 8, 9, 20])
def test_same_answers_with_chunked_prefill(model: Any, chunk: int) -> None:
    with acting(bias=6.0).attach(model) as steering:
        whole = greedy(model, prompts())
        assert torch.equal(greedy(model, prompts(), prefill_chunk_size=chunk), whole)
        assert [d.applied for d in steering.decisions] == [d.gate != 0 for d in steering.decisions]


@families()
def test_same_answers_without_a_cache_and_with_a_static_one(model: Any) -> None:
    with acting(bias=6.0).attach(model):
        whole = greedy(model, prompts())
        assert torch.equal(greedy(model, prompts(), use_cache=False), whole)
        assert torch.equal(greedy(model, prompts(), cache_implementation="static"), whole)


@families("draft tokens")
@pytest.mark.parametrize("seed", range(2))
@SIZES
def test_same_answers_with_draft_tokens(model: Any, seed: int, bias: float) -> None:
    """The drafts behind the prompt are judged in the pass that ends it; only the first of them meets the bias."""
    ids, assistant = prompts(rows=1, length=12, seed=seed).repeat(1, 2), random_model("llama", seed=1)
    drafts = greedy(assistant, ids)
    with acting_on(model, bias=bias).attach(model) as steering:
        plain = greedy(model, ids)
        for drafting in ({"assistant_model": assistant}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(greedy(model, ids, **drafting), plain)
            assert [(d.position, d.action) for d in steering.decisions] == [(23, "bias")]
    assert torch.equal(greedy(assistant, ids), drafts)


def test_an_early_exit_of_the_same_model_drafts_without_the_bias() -> None:
    model, ids = random_model("llama"), prompts(rows=1)
    with acting(tau=0.5).attach(model):
        assert torch.equal(greedy(model, ids, assistant_early_exit=2), greedy(model, ids))


@families()
@pytest.mark.parametrize("side", ["left", "right"])
@SIZES
def test_padded_rows_are_biased_where_generate_reads_their_logits(model: Any, side: str, bias: float) -> None:
    ids, mask = prompts(rows=6), torch.ones(6, 9, dtype=torch.long)
    for row in range(1, 6):
        mask[row, slice(0, row) if side == "left" else slice(9 - row, None)] = 0
    ids = ids.masked_fill(mask == 0, PAD)
    bare = first_logits(model, ids, attention_mask=mask)
    with acting(bias=bias).attach(model) as steering:
        found = first_logits(model, ids, attention_mask=mask)
        assert [d.position for d in steering.decisions] == ([8] * 6 if side == "left" else [8, 7, 6, 5, 4, 3])
        gates = [decision.gate for decision in steering.decisions]
    assert any(gates)
    assert torch.equal(found, by_hand(bare, gates, bias))


@families("chunked prefill")
def test_rows_padded_on_the_right_that_end_in_an_earlier_chunk_are_biased_in_the_last(model: Any) -> None:
    ids, mask = prompts(rows=4), torch.ones(4, 9, dtype=torch.long)
    mask[1:, 3:] = 0
    with acting().attach(model):
        whole = greedy(model, ids, attention_mask=mask)
        assert torch.equal(greedy(model, ids, attention_mask=mask, prefill_chunk_size=4), whole)


@families("inputs_embeds")
def test_embeddings_are_biased_like_their_tokens(model: Any) -> None:
    ids = prompts()
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": PAD}
    with acting(bias=6.0).attach(model):
        tokens = greedy(model, ids)[:, 9:]
        assert torch.equal(model.generate(inputs_embeds=model.get_input_embeddings()(ids), **settings), tokens)


@families("continued cache")
@pytest.mark.parametrize("whole_row", [True, False])
def test_a_continued_cache_is_biased_at_its_new_end(model: Any, whole_row: bool) -> None:
    ids = prompts(length=14)
    with torch.no_grad():
        cache = getattr(model(ids[:, :10], use_cache=True), CACHE)
    given = ids if whole_row else ids[:, 10:]
    keywords = {"attention_mask": torch.ones_like(ids)}
    bare = first_logits(model, given, **keywords, **{CACHE: copy.deepcopy(cache)})
    with acting().attach(model) as steering:
        found = first_logits(model, given, **keywords, **{CACHE: cache})
        gates = [decision.gate for decision in steering.decisions]
    assert torch.equal(found, by_hand(bare, gates, math.inf))


def test_a_strategy_that_runs_the_loop_again_with_a_longer_prompt_is_biased_in_each_run(lfm2: Any) -> None:
    ids = prompts()
    more = torch.tensor([[11, 12, 13]]).expand(3, -1)

    def twice(model: Any, input_ids: torch.Tensor, *_: Any, **_keywords: Any) -> torch.Tensor:
        greedy(model, input_ids)
        return greedy(model, torch.cat([input_ids, more], dim=1))

    with acting().attach(lfm2) as steering:
        expected = greedy(lfm2, torch.cat([ids, more], dim=1))
        assert torch.equal(greedy(lfm2, ids, custom_generate=twice), expected)
        assert [(d.position, d.applied) for d in steering.decisions] == [(11, d.gate != 0) for d in steering.decisions]


def test_the_users_own_logits_processors_come_behind_the_bias(lfm2: Any) -> None:
    seen = []

    class Processor(transformers.LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            seen.append(scores.clone())
            return scores

    given = transformers.LogitsProcessorList([Processor()])
    bare = first_logits(lfm2, prompts(rows=8))
    with acting(bias=6.0).attach(lfm2) as steering:
        greedy(lfm2, prompts(rows=8), logits_processor=given, min_new_tokens=0)
        gates = [decision.gate for decision in steering.decisions]
    assert torch.equal(seen[0], by_hand(bare, gates, 6.0))
    assert len(given) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@SIZES
def test_logits_of_half_precision_keep_their_type(lfm2: Any, dtype: torch.dtype, bias: float) -> None:
    model = lfm2.to(dtype)
    seen = []
    with acting(bias=bias).attach(model), model.register_forward_hook(lambda _m, _a, out: seen.append(out.logits)):
        greedy(model, prompts())
    assert {logits.dtype for logits in seen} == {dtype}


def test_two_adapters_at_two_layers_bias_by_their_own_gates(lfm2: Any) -> None:
    ids = prompts(rows=8)
    bare = first_logits(lfm2, ids)
    first, second = acting_on(lfm2, bias=4.0), acting_on(lfm2, bias=2.0, layer=1, opening_ids=(7, 9))
    with first.attach(lfm2) as one, second.attach(lfm2) as other:
        found = first_logits(lfm2, ids)
        gates = [[decision.gate for decision in handle.decisions] for handle in (one, other)]
        one.remove()
        alone = first_logits(lfm2, ids)
        other.remove()
    assert gates[0] != gates[1]
    torch.testing.assert_close(found, by_hand(by_hand(bare, gates[0], 4.0), gates[1], 2.0, (7, 9)), rtol=0, atol=1e-5)
    assert torch.equal(alone, by_hand(bare, gates[1], 2.0, (7, 9)))
    assert torch.equal(first_logits(lfm2, ids), bare)


def test_what_one_adapter_forbids_another_cannot_force() -> None:
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    force = OpeningBias((7, 9), math.inf), torch.tensor([1, 1])
    for forbidden, left in (((7, 9), None), ((9,), 7)):
        forbid = OpeningBias(forbidden, math.inf), torch.tensor([-1, -1])
        for order in ([force, forbid], [forbid, force]):
            found = biased_logits(logits, order)
            assert found[:, list(forbidden)].isneginf().all()
            assert found.isfinite().sum(dim=1).tolist() == [VOCABULARY - 2 if left is None else 1] * 2
            if left is not None:
                assert torch.equal(found[:, left], logits[:, left])


def test_paused_and_removed_it_leaves_the_model_bit_for_bit_as_it_was(lfm2: Any) -> None:
    ids = prompts(rows=8)
    keys, logits, base = set(lfm2.__dict__), lfm2(ids).logits, greedy(lfm2, ids)
    handle = acting_on(lfm2).attach(lfm2)
    biased_answers = greedy(lfm2, ids)
    with handle.disabled():
        assert torch.equal(greedy(lfm2, ids), base)
    assert torch.equal(lfm2(ids).logits, logits)  # outside generate()
    assert torch.equal(greedy(lfm2, ids), biased_answers)
    clone = copy.deepcopy(lfm2)
    handle.remove()
    handle.remove()
    assert not torch.equal(biased_answers, base)
    for model in (lfm2, clone):
        assert traces(model) == []
        assert set(model.__dict__) == keys
        assert torch.equal(model(ids).logits, logits)
        assert torch.equal(greedy(model, ids), base)


def test_a_recording_has_what_was_biased_in_each_call(lfm2: Any) -> None:
    with acting().attach(lfm2) as steering, steering.recording() as calls:
        greedy(lfm2, prompts())
        with steering.disabled():
            greedy(lfm2, prompts())
        greedy(lfm2, prompts(rows=2, seed=4), num_beams=2)
    assert [len(call) for call in calls] == [3, 0, 2]
    assert {d.action for call in calls for d in call if d.gate} == {"bias"}
    assert str(calls[0][0]).endswith("logits of the openings biased")


def test_bias_and_alpha_can_be_set_at_run_time(lfm2: Any) -> None:
    ids = prompts(rows=8)
    bare = first_logits(lfm2, ids)
    with acting(bias=1.0).attach(lfm2) as steering:
        assert (steering.bias, steering.alpha, steering.action) == (1.0, 0.0, "bias")
        steering.bias = 3
        found = first_logits(lfm2, ids)
        gates = [decision.gate for decision in steering.decisions]
        assert torch.equal(found, by_hand(bare, gates, 3.0))
        assert repr(steering).startswith("SteeringHandle(layer=2, alpha=0, tau=0.6, bias=3, ")
        steering.alpha = 20.0
        assert steering.action == "both"
        steering.alpha, steering.bias = 0, 0
        assert steering.action == ""
        assert torch.equal(first_logits(lfm2, ids), bare)
        assert {d.gate for d in steering.decisions} == {0}
        with pytest.raises(ValueError, match="bias is -1; expected 0 or more"):
            steering.bias = -1
    with fitted_adapter().attach(lfm2) as steering:
        assert (steering.bias, steering.action) == (0.0, "steer")
        with pytest.raises(ValueError, match=r"this adapter only steers; attach `adapter\.with_action\(\"both\""):
            steering.bias = 1.0


def test_an_adapter_whose_openings_are_unknown_is_refused_and_the_model_unchanged(lfm2: Any) -> None:
    with pytest.raises(
        ValueError, match=r"action is 'bias', but its config does not name .* \(opening_ids is empty\)"
    ):
        acting(opening_ids=()).attach(lfm2)
    with pytest.raises(IncompatibleModelError, match=r"calls begin with token 64 .* vocabulary has 64 tokens"):
        acting(opening_ids=(7, 64)).attach(lfm2)
    assert traces(lfm2) == []


def test_another_action_of_an_adapter_decides_alike(lfm2: Any) -> None:
    adapter = fitted_adapter(opening_ids=OPENINGS, tau=0.6)
    forced = adapter.with_action("bias", math.inf)
    assert (forced.config.action, forced.config.bias, forced.config.format_version) == ("bias", math.inf, 2)
    assert (adapter.config.action, adapter.config.bias) == ("steer", 0.0)
    assert forced.with_action("steer", 0.0).config == adapter.config
    assert len({a.digest() for a in (adapter, forced, adapter.with_action("bias", 2.0))}) == 3
    with adapter.attach(lfm2) as steering:
        greedy(lfm2, prompts())
        gates = [decision.gate for decision in steering.decisions]
    greedy_forced = forced.generate(lfm2, prompts(), max_new_tokens=1)
    opens = torch.isin(greedy_forced[:, 9], torch.tensor(OPENINGS)).tolist()
    assert all(opened == (gate > 0) for opened, gate in zip(opens, gates, strict=True) if gate)
    with pytest.raises(ValueError, match="its config does not name the tokens"):
        fitted_adapter().with_action("both", 1.0)


def test_a_model_whose_logits_are_never_seen_warns_that_it_was_not_biased(lfm2: Any) -> None:
    def past_its_call(model: Any, input_ids: torch.Tensor, *_: Any, **keywords: Any) -> torch.Tensor:
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, use_cache=True)
        return model.forward(**inputs).logits[:, -1].argmax(dim=1)

    with acting().attach(lfm2) as steering, pytest.warns(RuntimeWarning, match="ran without being steered"):
        greedy(lfm2, prompts(), custom_generate=past_its_call)
    assert [(d.applied, d.action) for d in steering.decisions] == [(False, "")] * 3


def test_a_compiled_model_is_biased_all_the_same(lfm2: Any) -> None:
    ids, two = prompts(), {"max_new_tokens": 2, "min_new_tokens": 2}
    with acting(bias=6.0).attach(lfm2):
        expected = greedy(lfm2, ids, **two)
    torch.compiler.reset()
    lfm2.compile(backend="eager")
    with acting(bias=6.0).attach(lfm2) as steering:
        assert torch.equal(greedy(lfm2, ids, **two), expected)
        assert {d.action for d in steering.decisions if d.gate} == {"bias"}
    torch.compiler.reset()
