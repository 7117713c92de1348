"""Many prompts at once: states, first tokens under pushes, and answers are those of transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from gguf_models import needs_llamacpp

from asa_adapter.answering.forcing import Forcing
from asa_adapter.diagnostics.diagnosis import diagnose
from asa_adapter.engine.prefix_tree import beginnings
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.first_tokens import Push, first_tokens
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.states import collect_hidden_states
from asa_adapter.tool_calls.parser import ToolCallParser

pytestmark = needs_llamacpp


def test_states_of_all_layers_are_those_of_transformers(pair: Any) -> None:
    found, expected = (
        collect_hidden_states(model, pair.tokenizer, pair.rows, progress=False).states
        for model in (pair.file, pair.torch)
    )
    error = (found - expected).norm(dim=2) / expected.norm(dim=2)
    assert float(error.max()) < 1e-4


def test_states_of_prompts_that_share_a_beginning_are_those_of_each_alone(pair: Any) -> None:
    counted: list[int] = []
    long = pair.prompts[0] + pair.prompts[1] * 3  # more than a pass behind what it shares
    prompts = [*pair.prompts, long, pair.prompts[0][:40]]
    together = pair.file.last_states(prompts, counted.append)
    alone = torch.cat([pair.file.last_states([prompt], lambda _: None) for prompt in prompts], dim=1)
    assert sum(counted) == len(prompts)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().mean()))


def test_a_beginning_that_continues_another_is_gone_on_from_its_saved_sequence(pair: Any) -> None:
    start, first, second = (pair.prompts[0][begin : begin + 60] for begin in (0, 60, 120))
    last = [prompt[-6:] for prompt in pair.prompts[:3]]
    prompts = [[*start, *middle, i, *end] for middle in ([], first, second) for i, end in enumerate(last, start=10)]
    assert [(one.length, one.added) for one in beginnings(prompts)] == [(60, 60), (120, 60), (120, 60)]
    together = pair.file.last_states(prompts, lambda _: None)
    alone = torch.cat([pair.file.last_states([prompt], lambda _: None) for prompt in prompts], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().mean()))


def test_first_tokens_under_pushes_are_those_of_transformers(pair: Any) -> None:
    layers = range(len(decoder_blocks(pair.torch)))  # the first and the last block too
    norm = pair.adapter.config.residual_norm
    domain = torch.arange(len(pair.rows)) % len(pair.adapter.config.domains)
    steps = pair.adapter.vectors.mixed(0.5) * norm
    every = torch.arange(len(pair.rows))
    pushes = [
        Push(layer, sign * steps, domain, rows)
        for layer in layers
        for sign, rows in ((1.0, None), (-1.0, every % 3 == 0), (0.5, every < 0))
    ]
    openings = list(ToolCallParser.from_tokenizer(pair.tokenizer).opening_ids(pair.tokenizer))
    settings: dict[str, Any] = {"pad_id": 0, "batch_size": 8, "progress": False}
    found = first_tokens(pair.file, None, pair.prompts, pushes, openings, **settings)
    expected = first_tokens(pair.torch, decoder_blocks(pair.torch), pair.prompts, pushes, openings, **settings)
    np.testing.assert_array_equal(found.triggered, expected.triggered)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
    np.testing.assert_allclose(found.margin, expected.margin, atol=1e-3, rtol=1e-3)


def test_answers_of_several_variants_are_those_of_transformers(pair: Any) -> None:
    parser = ToolCallParser.from_tokenizer(pair.tokenizer)
    tokens = parser.opening_ids(pair.tokenizer)
    amounts = np.array([np.inf, -np.inf, 0.0, 3.0, -3.0] * 2, dtype=np.float32)
    variants = {"base": None, "asa": pair.adapter, "forced": Forcing(tokens, amounts)}
    answers = {}
    for model in (pair.torch, pair.file):
        evaluation = Evaluation(model, pair.tokenizer, parser, max_new_tokens=20, progress=False)
        answers[model] = evaluation.answers_of_each(pair.rows, variants)
        with_call = evaluation.answers_of_each(pair.rows, {"asa": pair.adapter}, until_call=True)
        answers[model]["until a call"] = with_call["asa"]
    assert answers[pair.file] == answers[pair.torch]
    assert [[a.cut for a in own] for own in answers[pair.file].values()] == [
        [a.cut for a in own] for own in answers[pair.torch].values()
    ]
    assert answers[pair.file]["base"] != answers[pair.file]["asa"]
    assert not pair.file.is_steered


def test_sampled_answers_depend_on_the_seed_alone(pair: Any) -> None:
    parser = ToolCallParser.from_tokenizer(pair.tokenizer)
    evaluation = Evaluation(pair.file, pair.tokenizer, parser, max_new_tokens=8, progress=False, temperature=2.0)

    def sampled(seed: int) -> list[str]:
        torch.manual_seed(seed)
        return [str(answer) for answer in evaluation.answers(pair.rows)]

    first = sampled(1)
    assert sampled(1) == first
    assert sampled(2) != first


def test_a_steered_model_is_not_measured_as_the_base(pair: Any) -> None:
    with pair.adapter.attach(pair.file), pytest.raises(ValueError, match="remove\\(\\) it first"):
        Evaluation(pair.file, pair.tokenizer, ToolCallParser.from_tokenizer(pair.tokenizer))


def test_diagnose_makes_the_checks_that_it_makes_of_transformers(pair: Any) -> None:
    found, expected = (diagnose(model, pair.tokenizer, max_new_tokens=16) for model in (pair.file, pair.torch))
    assert [finding.name for finding in found] == [finding.name for finding in expected]
    assert [finding.ok for finding in found] == [finding.ok for finding in expected]
