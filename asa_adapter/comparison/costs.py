"""What a rule costs a request: tokens that are read and written, and time."""

import statistics
import time
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch

from asa_adapter.adapter import ASAAdapter
from asa_adapter.answering.forcing import Forcing
from asa_adapter.answering.leads import Variant
from asa_adapter.comparison.simpler_rules import Treatment
from asa_adapter.engine.protocol import Answering, EngineModel, Question, is_engine_model
from asa_adapter.evaluation.answers import variant_of_rows
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.modeling.forward import evaluation_mode, forward, greedy_settings, input_device

# Requests of each label that are timed, each by itself.
_TIMED = 3


class Cost(NamedTuple):
    """What one request costs, in the mean; the time is a median.

    Attributes:
        read: prompt tokens, those of a question asked before included.
        written: tokens of the answer.
        milliseconds: time until the answer is there, of a few requests that are answered one by one.
    """

    read: float
    written: float
    milliseconds: float


# Seconds by all that is done for an answer: what is read before and then, whether an adapter acts, and the answer.
Times = dict[Hashable, float]


def cost(treatment: Treatment, split: str, answers: Sequence[str], times: Times) -> Cost:
    """The cost of answering the rows of a split.

    Args:
        treatment: what is done with the rows.
        split: name of the split.
        answers: the answers that came of it.
        times: of requests that were timed before, to which those of this treatment are added. Rules that come to the
            same answer to the same prompt do the same work, which is timed once.
    """
    measured, variant, before = treatment
    tokenizer = measured.evaluation.tokenizer
    prompts = [part.prompts(split) for part in (measured, before) if part is not None]
    read = sum(len(ids) for part in prompts for ids in part) / len(answers)
    written = statistics.mean(len(tokenizer.encode(text, add_special_tokens=False)) for text in answers)
    labels = measured.labels(split)
    rows = [int(i) for label in (0, 1) for i in (labels == label).nonzero()[0][:_TIMED]]
    asked = [[part[i] for part in prompts] for i in rows]
    acts = variant.digest() if isinstance(variant, ASAAdapter) else ""
    keys = [(acts, answers[i], *map(tuple, some)) for i, some in zip(rows, asked, strict=True)]
    new = [place for place, key in enumerate(keys) if key not in times]
    if new:
        found = _seconds_to_answer(measured, variant, [rows[i] for i in new], [asked[i] for i in new])
        times.update(zip((keys[i] for i in new), found, strict=True))
    return Cost(read, written, 1000 * statistics.median(times[key] for key in keys))


def _seconds_to_answer(
    measured: Measurements, variant: Variant, rows: Sequence[int], asked: Sequence[Sequence[Sequence[int]]]
) -> list[float]:
    """Seconds that a rule takes until the answer to each of these rows is there; a first run is not counted.

    Args:
        measured: the rows.
        variant: what acts on their answers.
        rows: their indices.
        asked: for each of them, the prompt that is answered, and one that is read before, if there is one.
    """
    evaluation = measured.evaluation
    settings = greedy_settings(evaluation.tokenizer, evaluation.max_new_tokens)

    def answer(row: int, prompts: Sequence[Sequence[int]]) -> float:
        some = variant_of_rows(variant, [row])
        if is_engine_model(evaluation.model):
            return _seconds_of_engine_to_answer(evaluation.model, prompts, some, settings["max_new_tokens"])
        began = time.perf_counter()
        (ids, mask), *first = [_prompt_tensors(evaluation.model, prompt) for prompt in prompts]
        for question in first:
            forward(evaluation.model, *question, use_cache=False).logits.sum().item()
        forced = {"logits_processor": [some.processor(ids.shape[1])]} if isinstance(some, Forcing) else {}
        evaluation.model.generate(input_ids=ids, attention_mask=mask, **settings, **forced).sum().item()
        return time.perf_counter() - began

    with evaluation_mode(evaluation.model), evaluation.steered(variant):
        times = [answer(row, prompts) for row, prompts in zip([rows[0], *rows], [asked[0], *asked], strict=True)]
    return times[1:]


def _seconds_of_engine_to_answer(
    model: EngineModel, prompts: Sequence[Sequence[int]], variant: Variant, max_new_tokens: int
) -> float:
    """The same for a model that another engine runs; adapters are attached already."""
    prompt, *first = prompts
    forced = variant.of_one if isinstance(variant, Forcing) else None
    began = time.perf_counter()
    for question in first:
        list(model.answers([question], lambda _: [Question(0, nullcontext)], Answering(1)))
    list(model.answers([prompt], lambda _: [Question(0, nullcontext, forced)], Answering(max_new_tokens)))
    return time.perf_counter() - began


def _prompt_tensors(model: torch.nn.Module, prompt: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A prompt whose time is measured, as (1, T) ids and mask."""
    ids = torch.tensor([list(prompt)], device=input_device(model))
    return ids, torch.ones_like(ids)
