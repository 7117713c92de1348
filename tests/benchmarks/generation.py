"""What answers cost whose rows leave their batch when they have ended, beside two ways without it; for `speed.py`.

"Finalists" are the bare model and four adapters, whose answers end where a call begins; "evaluation" is the bare model
and one adapter, to the end of the text. `plain` is one generate() of transformers for each batch and adapter, to the
end of the text; "whole batches" is ours as it was before rows left: one prefill for all adapters, and one generate()
for each batch, which ends where calls begin. The times hold the prompts too.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors
from asa_adapter.answering.decoding import Regrouping
from asa_adapter.data.prompts import encode_rows
from asa_adapter.engine.padded_batches import batches_by_length, pad_batch, pad_token_id
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.modeling.forward import greedy_settings
from asa_adapter.modeling.residual_stream import decoder_blocks, text_config

NEW_TOKENS, BATCH = 64, 16
# The number of adapters, and whether answers end where a call begins.
STAGES = {"finalists": (4, True), "evaluation": (1, False)}


def gentle_adapter(model: Any) -> ASAAdapter:
    """An adapter in the middle that always opens its gate, for a step of a hundredth of the state's length."""
    width, depth = int(text_config(model).hidden_size), len(decoder_blocks(model))
    generator = np.random.default_rng(0)
    states, labels = generator.normal(size=(80, width)), np.arange(80) % 2
    names = ["any"] * 80
    config = ASAConfig(
        hidden_size=width,
        num_layers=depth,
        layer=depth // 2,
        domains=("any",),
        tau=0.5,
        alpha=0.01,
        residual_norm=float(np.sqrt(width)),
    )
    vectors = SteeringVectors.fit(states, labels.tolist(), names, ("any",))
    return ASAAdapter(config, vectors, Router.fit(states, names), Probes.fit(states, labels, names))


def variants(adapter: ASAAdapter, stage: str) -> dict[str, ASAAdapter | None]:
    """The bare model and the adapters of a stage, by name."""
    return {"base": None, **{f"adapter {i}": adapter for i in range(STAGES[stage][0])}}


def rounds(asks: Evaluation, rows: Sequence[Any], adapter: ASAAdapter, stage: str) -> dict[str, list[str]]:
    """The answers of each variant, in our way."""
    return asks.answers_of_each(rows, variants(adapter, stage), until_call=STAGES[stage][1])


def whole_batches(asks: Evaluation, rows: Sequence[Any], adapter: ASAAdapter, stage: str) -> dict[str, list[str]]:
    """The same without rows leaving their batch."""
    with mock.patch.object(Regrouping, "holds", return_value=False):
        return rounds(asks, rows, adapter, stage)


def plain(asks: Evaluation, rows: Sequence[Any], adapter: ASAAdapter, stage: str) -> dict[str, list[str]]:
    """The answers of each variant by one generate() for each batch."""
    prompts = encode_rows(asks.tokenizer, rows, asks.tools, asks.parser)
    return {name: _generated(asks, prompts, one) for name, one in variants(adapter, stage).items()}


def _generated(asks: Evaluation, prompts: Sequence[Sequence[int]], adapter: ASAAdapter | None) -> list[str]:
    model: Any = asks.model
    pad_id, settings = pad_token_id(asks.tokenizer), greedy_settings(asks.tokenizer, asks.max_new_tokens)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    texts = [""] * len(prompts)
    with asks._steered(adapter), torch.no_grad():
        for batch in batches_by_length(prompts, asks.batch_size):
            ids, mask = pad_batch([prompts[i] for i in batch], pad_id, "left")
            answers = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, ids.shape[1] :].tolist()
            for i, answer in zip(batch, answers, strict=True):
                end = next((place for place, token in enumerate(answer, start=1) if token in ends), None)
                texts[i] = asks._text(answer[:end])
    return texts


WAYS: Mapping[str, Callable[..., dict[str, list[str]]]] = {
    "plain": plain,
    "whole_batches": whole_batches,
    "rounds": rounds,
}


def compared(asks: Evaluation, rows: Sequence[Any], adapter: ASAAdapter, stage: str, repeats: int) -> dict[str, Any]:
    """Median times of the ways of a stage, which take turns, and how alike their answers are to ours."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    found: dict[str, dict[str, list[str]]] = {}
    for _ in range(repeats):
        for way, work in WAYS.items():
            began = time.process_time()
            found[way] = work(asks, rows, adapter, stage)
            times[way].append(time.process_time() - began)
    seconds = {way: statistics.median(taken) for way, taken in times.items()}
    ours = [text for texts in found["rounds"].values() for text in texts]
    lengths = [len(asks.tokenizer.encode(text, add_special_tokens=False)) for text in ours]
    # Plain answers go on behind the beginning of a call, where the finalists' end.
    read: Callable[[str], Any] = asks.parser.triggered if STAGES[stage][1] else str
    alike = {
        way: statistics.mean(
            read(answer) == read(other)
            for name in texts
            for answer, other in zip(found["rounds"][name], texts[name], strict=True)
        )
        for way, texts in found.items()
    }
    return {
        "adapters": STAGES[stage][0],
        "rows": len(rows),
        "seconds": seconds,
        "over": {way: seconds["rounds"] / taken for way, taken in seconds.items() if way != "rounds"},
        "tokens": {"median": statistics.median(lengths), "mean": statistics.mean(lengths), "most": max(lengths)},
        "alike": alike,
    }
