"""A GGUF file in llama.cpp answers, decides and is steered as the same model in transformers."""

import copy
import dataclasses
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_models import needs_llamacpp

from asa_adapter import ASAAdapter
from asa_adapter.engine.padded_batches import pad_batch
from asa_adapter.matching.scope import state_not_fitted
from asa_adapter.modeling.forward import greedy_settings

pytestmark = needs_llamacpp

NEW_TOKENS = 24


def answered(model: Any, pair: Any, prompt: list[int]) -> list[int]:
    settings = greedy_settings(pair.tokenizer, NEW_TOKENS)
    ids = torch.tensor([prompt])
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


def first_logits(model: Any, prompt: list[int]) -> torch.Tensor:
    wanted = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    return model.generate(torch.tensor([prompt]), **wanted).logits[0][0]


def test_bare_and_steered_greedy_answers_are_those_of_transformers(pair: Any) -> None:
    def all_answers(model: Any) -> list[list[int]]:
        return [answered(model, pair, prompt) for prompt in pair.prompts]

    bare = all_answers(pair.torch)
    with pair.adapter.attach(pair.torch):
        steered = all_answers(pair.torch)
    assert all_answers(pair.file) == bare
    with pair.adapter.attach(pair.file):
        assert all_answers(pair.file) == steered
    assert bare != steered


def test_decisions_are_those_of_transformers(pair: Any) -> None:
    found = {}
    for name, model in (("torch", pair.torch), ("file", pair.file)):
        with pair.adapter.attach(model) as steering, steering.recording() as calls:
            for prompt in pair.prompts:
                answered(model, pair, prompt)
        found[name] = [decision for call in calls for decision in call]
    for own, other in zip(found["file"], found["torch"], strict=True):
        assert (own.domain, own.gate, own.position, own.applied, own.action) == (
            other.domain,
            other.gate,
            other.position,
            other.applied,
            other.action,
        )
        assert own.p_tool == pytest.approx(other.p_tool, abs=1e-4)
        assert own.relative_step == pytest.approx(other.relative_step, rel=1e-4)
    assert {decision.gate for decision in found["file"]} == {-1, 1}


def test_off_again_every_bit_is_what_it_was(pair: Any) -> None:
    prompt = pair.prompts[0]
    bare = first_logits(pair.file, prompt)
    with pair.adapter.attach(pair.file) as steering:
        assert not torch.equal(first_logits(pair.file, prompt), bare)
        assert steering.decisions[0].applied
        with steering.disabled():
            assert torch.equal(first_logits(pair.file, prompt), bare)
        assert steering.decisions == []
    assert torch.equal(first_logits(pair.file, prompt), bare)
    steering.remove()
    assert not pair.file.is_steered


def test_a_row_with_gate_0_keeps_every_bit(pair: Any) -> None:
    bare = first_logits(pair.file, pair.prompts[0])
    with pair.adapter.attach(pair.file) as steering:
        steering.tau = 1.0
        assert torch.equal(first_logits(pair.file, pair.prompts[0]), bare)
        assert steering.decisions[0].gate == 0
        steering.tau, steering.alpha = 0.5, 0.0
        assert torch.equal(first_logits(pair.file, pair.prompts[0]), bare)


def test_a_prompt_without_tools_is_left_alone(pair: Any) -> None:
    marked = pair.adapter.with_action("steer")
    marked.config = copy.copy(marked.config)
    object.__setattr__(marked.config, "tools_marks", ((2999, 2998),))
    bare = first_logits(pair.file, pair.prompts[0])
    with marked.attach(pair.file) as steering:
        assert torch.equal(first_logits(pair.file, pair.prompts[0]), bare)
        assert steering.decisions[0].reason == "the prompt offers no tools"
        steering.steer_without_tools = True
        assert not torch.equal(first_logits(pair.file, pair.prompts[0]), bare)


def test_a_prompt_of_a_kind_that_was_not_fitted_is_left_alone(pair: Any) -> None:
    other = pair.adapter.with_action("steer")
    marks = {"first": ((2999, 2998),), "after_result": (tuple(pair.prompts[0][-4:]),)}
    other.config = dataclasses.replace(other.config, state_marks=marks)
    bare = first_logits(pair.file, pair.prompts[0])
    with other.attach(pair.file) as steering:
        assert torch.equal(first_logits(pair.file, pair.prompts[0]), bare)
        assert steering.decisions[0].state == "after_result"
        assert steering.decisions[0].reason == state_not_fitted("after_result")
    with other.attach(pair.file, states="all") as steering:
        assert not torch.equal(first_logits(pair.file, pair.prompts[0]), bare)
        assert steering.decisions[0].reason == ""


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_padded_batch_answer_as_each_alone(pair: Any, side: str) -> None:
    some = [prompt[-60 - 7 * i :] for i, prompt in enumerate(pair.prompts[:3])]
    ids, mask = pad_batch(some, 0, side)
    with pair.adapter.attach(pair.file) as steering:
        alone = [answered(pair.file, pair, prompt) for prompt in some]
        together = pair.file.generate(ids, attention_mask=mask, **greedy_settings(pair.tokenizer, NEW_TOKENS))
        found = [decision.position for decision in steering.decisions]
    for row, answer in zip(together[:, ids.shape[1] :].tolist(), alone, strict=True):
        assert row[: len(answer)] == answer
        assert set(row[len(answer) :]) <= {0}
    assert found == [int(row.nonzero().max()) for row in mask]


def test_an_adapter_that_biases_openings_forces_and_forbids_them(pair: Any) -> None:
    opening = 77
    for action in ("bias", "both"):
        adapter = pair.adapter.with_action("steer")
        object.__setattr__(adapter.config, "opening_ids", (opening,))
        adapter = adapter.with_action(action, float("inf"))
        with adapter.attach(pair.file) as steering:
            gates = {}
            for prompt in pair.prompts:
                token = answered(pair.file, pair, prompt)[0]
                gates.setdefault(steering.decisions[0].gate, set()).add(token == opening)
                assert steering.decisions[0].action == action
        assert gates == {1: {True}, -1: {False}}


def test_two_adapters_at_two_layers_do_what_they_do_in_transformers(pair: Any) -> None:
    def lower(adapter: ASAAdapter) -> ASAAdapter:
        config = copy.copy(adapter.config)
        for name, value in (("layer", 1), ("read_layers", ())):
            object.__setattr__(config, name, value)
        return ASAAdapter(config, adapter.vectors, adapter.router, one_layer_probes)

    from asa_adapter import Probes

    labels = [int(row["label"]) for row in pair.rows] * 2
    one_layer_probes = Probes.fit(
        torch.randn(len(labels), pair.adapter.config.hidden_size), labels, [row["domain"] for row in pair.rows] * 2
    )
    other = lower(pair.adapter)
    found = []
    for model in (pair.torch, pair.file):
        first, second = pair.adapter.attach(model), other.attach(model)
        with pytest.raises(ValueError, match="already has an adapter at layer 1"):
            other.attach(model)
        logits = [first_logits(model, prompt) for prompt in pair.prompts[:3]]
        first.remove()
        alone = [first_logits(model, prompt) for prompt in pair.prompts[:3]]
        second.remove()
        found.append(torch.stack([*logits, *alone]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_samples_are_drawn_by_torchs_generator_and_cut_by_top_k(pair: Any) -> None:
    def sampled(**settings: Any) -> list[int]:
        torch.manual_seed(3)
        ids = torch.tensor([pair.prompts[0]])
        return pair.file.generate(ids, max_new_tokens=12, do_sample=True, **settings)[0, ids.shape[1] :].tolist()

    assert sampled(temperature=2.0) == sampled(temperature=2.0) != sampled(temperature=1.0)
    greedy = pair.file.generate(torch.tensor([pair.prompts[0]]), max_new_tokens=12)[0, len(pair.prompts[0]) :].tolist()
    assert sampled(temperature=2.0, top_k=1) == greedy == sampled(top_p=1e-6)


def test_an_answer_ends_with_the_token_that_ends_a_text_or_that_the_call_names(pair: Any) -> None:
    prompt = pair.prompts[0]
    answer = answered(pair.file, pair, prompt)
    assert answer[-1] == pair.tokenizer.eos_token_id
    ids = torch.tensor([prompt])
    cut = pair.file.generate(ids, max_new_tokens=NEW_TOKENS, eos_token_id=answer[1])[0, len(prompt) :].tolist()
    assert cut == answer[:2]


def test_a_setting_that_is_not_known_is_refused(pair: Any) -> None:
    with pytest.raises(ValueError, match=r"does not know num_beams, penalty_alpha; it knows max_new_tokens"):
        pair.file.generate(torch.tensor([[1, 2]]), num_beams=4, penalty_alpha=0.6)


def test_a_prompt_that_is_too_long_is_refused(pair: Any) -> None:
    with pytest.raises(
        ValueError, match=r"may have 1100 tokens; this model was opened for 1024\..* n_ctx \(--n-ctx\), of \d+ at most"
    ):
        pair.file.generate(torch.ones(1, 1000, dtype=torch.long), max_new_tokens=100)


def test_results_of_another_library_are_other_results(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, library = pair.file.digest(), pair.file._library
    assert len(library.digest) == 64
    monkeypatch.setitem(library.__dict__, "digest", "0" * 64)
    assert pair.file.digest() != before


def test_a_prompt_of_several_passes_is_steered_once_at_its_end(pair: Any, written: Callable[..., Path]) -> None:
    from asa_adapter.llamacpp import GGUFModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        long = torch.randint(10, 2000, (1100,)).tolist() + pair.prompts[0]
    file = GGUFModel(written(pair.file.name_or_path.split("-")[0]), n_ctx=2048, threads=1)
    found = []
    for model in (pair.torch, file):
        with pair.adapter.attach(model) as steering:
            found.append(first_logits(model, long))
            assert [decision.position for decision in steering.decisions] == [len(long) - 1]
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=2e-3)


def test_a_model_is_neither_copied_nor_pickled(pair: Any) -> None:
    with pytest.raises(TypeError, match="open the file again"):
        copy.deepcopy(pair.file)
    with pytest.raises(TypeError, match="open the file again"):
        pickle.dumps(pair.file)


def test_the_readmes_explanation_is_that_of_transformers(written: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from asa_adapter.llamacpp import GGUFModel

    examples = Path(__file__).resolve().parents[2] / "examples"
    adapter, tokenizer = (
        ASAAdapter.from_pretrained(examples / "tiny_lfm2_asa"),
        AutoTokenizer.from_pretrained(examples / "tiny_lfm2"),
    )
    model = AutoModelForCausalLM.from_pretrained(examples / "tiny_lfm2", dtype=torch.float32)
    file = GGUFModel(written(), n_ctx=512, threads=1, ends=[tokenizer.eos_token_id])
    asked = "how much is 48713 times 9264"
    assert str(adapter.explain(file, tokenizer, asked)) == str(adapter.explain(model, tokenizer, asked))
    assert not file.is_steered


@pytest.mark.parametrize(
    ("ids", "mask", "told"),
    [
        ([[1, 2]], None, "input_ids is a list; expected whole numbers of shape (rows, tokens)"),
        (torch.tensor([1, 2]), None, "input_ids is a tensor of shape (2,) and torch.int64; expected"),
        (
            torch.zeros(1, 0, dtype=torch.int64),
            None,
            "input_ids is a tensor of shape (1, 0) and torch.int64",
        ),
        (torch.tensor([[1.0, 2.0]]), None, "input_ids is a tensor of shape (1, 2) and torch.float32; expected"),
        (
            torch.tensor([[1, 2]]),
            torch.ones(2),
            "attention_mask is a tensor of shape (2,) and torch.float32",
        ),
        (torch.tensor([[1, 2]]), torch.ones(2, 2), "expected the shape of input_ids, (1, 2)"),
        (torch.tensor([[1, 2]]), [[1, 1]], "attention_mask is a list; expected the shape of input_ids, (1, 2)"),
    ],
)
def test_what_is_no_batch_of_prompts_is_refused(pair: Any, ids: Any, mask: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        pair.file.generate(ids, mask, max_new_tokens=1)


def test_weights_that_are_packed_are_warned_of_and_named(written: Callable[..., Path], pair: Any) -> None:
    from asa_adapter.llamacpp import GGUFModel

    name = pair.file.name_or_path.split("-")[0]
    for kind in ("Q8_0", "Q4_0"):
        file = GGUFModel(written(name, kind), n_ctx=512, threads=1)
        assert file.facts.quantised == kind
        with pytest.warns(UserWarning, match=rf"the weights are quantised \({kind}\): an adapter fitted on the full"):
            pair.adapter.attach(file).remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair.adapter.attach(pair.file).remove()
