"""Asks a model of transformers or of llama.cpp about the samples, with an adapter and without."""

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from asa_adapter.adapter import ASAAdapter
from asa_adapter.answering.decoding import text_ends
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.modeling.forward import evaluation_mode, greedy_answers
from asa_adapter.verification.sample_record import ANSWER_TOKENS, SampleRecord, SeenSample, Where
from asa_adapter.verification.samples import Sample, neutral_samples, prompt_digest, read_samples

_NO_TOKEN = 10**9  # as the end of an answer: none
_REPEATS = 3


class AskedSamples:
    """The samples that an adapter will keep to be verified by: the package's own, or those that the user names.

    Args:
        model: the model that an adapter is fitted for.
        tokenizer: its tokenizer.
        rows: a file of the user's rows; None for the neutral ones.
        batch_size: prompts that are answered together.

    Attributes:
        samples: the prompts.

    Raises:
        FileNotFoundError, ValueError: as in `read_samples`.
    """

    def __init__(self, model: Any, tokenizer: Any, rows: str | None = None, batch_size: int = 12) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.samples = neutral_samples() if rows is None else read_samples(Path(rows))
        self._batch_size = batch_size

    def seen(self, adapter: ASAAdapter) -> SampleRecord:
        """What they come to with an adapter that was just fitted."""
        samples = [sample.offering(adapter.config) for sample in self.samples]
        return ask(adapter, self._model, self._tokenizer, samples, batch_size=self._batch_size)


def ask(
    adapter: ASAAdapter, model: Any, tokenizer: Any, samples: Sequence[Sample], *, batch_size: int = 12, **how: Any
) -> SampleRecord:
    """Answers every sample twice, greedily.

    Args:
        adapter: the adapter.
        model: the model that it is for.
        tokenizer: its tokenizer.
        samples: what is asked.
        batch_size: prompts that are answered together.
        how: further arguments of `ASAAdapter.attach`.

    Raises:
        IncompatibleModelError: the adapter does not fit the model.
        ValueError: a prompt cannot be rendered.
    """
    prompts = [sample.prompt(tokenizer, adapter.config) for sample in samples]
    ends = set(text_ends(model))
    seen: list[SeenSample] = []
    with evaluation_mode(model), adapter.attach(model, tokenizer=tokenizer, **how) as handle:
        for start in range(0, len(prompts), batch_size):
            some = prompts[start : start + batch_size]
            with handle.recording() as calls:
                steered = _answers_to_samples(model, tokenizer, some, ends)
            with handle.disabled():
                bare = _answers_to_samples(model, tokenizer, some, ends)
            for prompt, decision, with_it, without in zip(some, calls[0], steered, bare, strict=True):
                decided = (decision.domain, decision.p_tool, decision.gate)
                more = (decision.state, decision.reason)
                seen.append(SeenSample(prompt_digest(prompt), *decided, with_it, without, *more))
    return SampleRecord(samples, seen, where_asked(model))


def step_seconds(
    adapter: ASAAdapter, model: Any, tokenizer: Any, prompts: Sequence[list[int]], **how: Any
) -> dict[str, float]:
    """Seconds for each token of an answer that is written to some prompts together, prefill included.

    Returns:
        The medians of three turns, under "bare", "off" (the adapter is attached, and switched off) and "steered".
    """

    def seconds() -> float:
        began = time.perf_counter()
        greedy_answers(model, tokenizer, prompts, ANSWER_TOKENS, eos_token_id=_NO_TOKEN)
        return (time.perf_counter() - began) / ANSWER_TOKENS

    found: dict[str, list[float]] = {"bare": [], "off": [], "steered": []}
    with evaluation_mode(model):
        seconds()  # warms up
        for _ in range(_REPEATS):
            found["bare"].append(seconds())
            with adapter.attach(model, tokenizer=tokenizer, **how) as handle:
                found["steered"].append(seconds())
                with handle.disabled():
                    found["off"].append(seconds())
    return {name: median(values) for name, values in found.items()}


def where_asked(model: Any) -> Where:
    """What a model runs on."""
    if is_engine_model(model):
        _, stored, _ = model.fingerprint().split(":")
        return Where(f"llama.cpp (xllamacpp {version('xllamacpp')})", "cpu", stored, model.facts.quantised)
    device = torch.device(model.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    quantiser = getattr(getattr(model.config, "quantization_config", None), "quant_method", "")
    method = str(getattr(quantiser, "value", quantiser) or "")
    return Where(f"transformers {version('transformers')}", name, str(model.dtype).removeprefix("torch."), method)


def _answers_to_samples(model: Any, tokenizer: Any, prompts: Sequence[list[int]], ends: set[int]) -> list[list[int]]:
    """The bare or the steered model's greedy answers to the samples' prompts."""
    return [until_end(answer, ends) for answer in greedy_answers(model, tokenizer, prompts, ANSWER_TOKENS)]


def until_end(answer: Sequence[int], ends: set[int]) -> list[int]:
    """An answer up to the first token that ends it, which belongs to it; the rest is padding."""
    end = next((i for i, token in enumerate(answer) if token in ends), len(answer))
    return list(answer[: end + 1])
