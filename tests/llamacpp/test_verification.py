"""Samples of `asa-adapter verify`, answered by llama.cpp."""

from typing import Any

from gguf_models import needs_llamacpp

from asa_adapter.verification.asking_model import AskedSamples, ask, step_seconds
from asa_adapter.verification.two_records import compared_records

pytestmark = needs_llamacpp


def test_what_llama_cpp_sees_of_the_samples_is_what_transformers_sees(pair: Any) -> None:
    there = AskedSamples(pair.torch, pair.tokenizer).seen(pair.adapter)
    here = ask(pair.adapter, pair.file, pair.tokenizer, there.samples)
    assert [line.differs for line in compared_records(pair.adapter.config, there, here)] == [""] * 12
    assert [one.steered for one in here.seen] == [one.steered for one in there.seen]
    assert str(here.where).startswith("llama.cpp (xllamacpp ")
    assert (here.where.dtype, here.where.quantised) == ("F32", "")
    seconds = step_seconds(pair.adapter, pair.file, pair.tokenizer, [pair.prompts[0]])
    assert min(seconds.values()) > 0
