"""Samples asked of a model of transformers, kept in a report and read from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from asa_adapter import ASAAdapter
from asa_adapter.report import Report
from asa_adapter.verification.asking_model import AskedSamples, ask, step_seconds, until_end
from asa_adapter.verification.sample_record import ANSWER_TOKENS, SampleRecord
from asa_adapter.verification.samples import prompt_digest


@pytest.fixture(scope="module")
def seen(tiny_lfm2: Any, tiny_adapter: ASAAdapter) -> SampleRecord:
    return AskedSamples(*tiny_lfm2).seen(tiny_adapter)


def test_what_is_seen_is_what_the_model_answers_and_the_adapter_decides(
    seen: SampleRecord, tiny_lfm2: Any, tiny_adapter: ASAAdapter
) -> None:
    model, tokenizer = tiny_lfm2
    prompt = seen.samples[1].prompt(tokenizer, tiny_adapter.config)
    given = {"max_new_tokens": ANSWER_TOKENS, "do_sample": False, "pad_token_id": 0}
    ids = torch.tensor([prompt])
    bare = model.generate(ids, attention_mask=torch.ones_like(ids), **given)[0, len(prompt) :].tolist()
    with tiny_adapter.attach(model, tokenizer=tokenizer) as handle:
        steered = model.generate(ids, attention_mask=torch.ones_like(ids), **given)[0, len(prompt) :].tolist()
        decision = handle.decisions[0]
    one = seen.seen[1]
    assert (one.prompt, one.domain, one.gate) == (prompt_digest(prompt), decision.domain, decision.gate)
    assert one.p_tool == pytest.approx(decision.p_tool, abs=1e-4)
    assert (one.bare, one.steered) == (bare, steered)
    assert str(seen.where).endswith(", cpu, float32")


def test_the_model_is_left_as_it_was(seen: SampleRecord, tiny_lfm2: Any) -> None:
    assert not [part for part in tiny_lfm2[0].modules() if part._forward_hooks]


def test_a_report_keeps_what_was_seen_and_gives_it_back(seen: SampleRecord) -> None:
    report = json.loads(json.dumps({"samples": seen.plain()}, allow_nan=False))
    assert SampleRecord.of(report) == SampleRecord(list(seen.samples), list(seen.seen), seen.where)
    assert set(seen.plain()) == {"engine", "device", "dtype", "quantised", "rows"}


@pytest.mark.parametrize(
    "report",
    [
        None,
        {},
        {"samples": {"rows": []}},
        {"samples": {"rows": [{"chat": "[]"}]}},
        {"samples": [1]},
    ],
)
def test_a_report_without_samples_gives_none(report: Any) -> None:
    assert SampleRecord.of(report) is None


@pytest.mark.parametrize(
    ("name", "value"), [("chat", "{"), ("chat", '"a"'), ("tools", "3"), ("gate", 2), ("p_tool", 7)]
)
def test_samples_that_are_not_sound_count_as_none(name: str, value: Any, seen: SampleRecord) -> None:
    plain = seen.plain()
    plain["rows"][3][name] = value
    assert SampleRecord.of({"samples": plain}) is None
    assert Report.read({"samples": plain}).samples.keys() >= {"engine"}


def test_samples_of_the_users_are_asked_instead(tiny_lfm2: Any, tiny_adapter: ASAAdapter, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "What is 17 times 23?"}')
    record = AskedSamples(*tiny_lfm2, str(tmp_path / "rows.jsonl")).seen(tiny_adapter)
    assert [sample.messages for sample in record.samples] == [[{"role": "user", "content": "What is 17 times 23?"}]]


def test_the_size_of_a_batch_changes_no_answer(seen: SampleRecord, tiny_lfm2: Any, tiny_adapter: ASAAdapter) -> None:
    again = ask(tiny_adapter, *tiny_lfm2, seen.samples, batch_size=5)
    assert [one.steered for one in again.seen] == [one.steered for one in seen.seen]
    assert [one.gate for one in again.seen] == [one.gate for one in seen.seen]


def test_a_step_is_timed_without_the_adapter_and_with_it(tiny_lfm2: Any, tiny_adapter: ASAAdapter) -> None:
    model, tokenizer = tiny_lfm2
    seconds = step_seconds(tiny_adapter, model, tokenizer, [tokenizer.encode("hello")])
    assert list(seconds) == ["bare", "off", "steered"]
    assert min(seconds.values()) > 0


def test_an_answer_ends_with_the_token_that_ends_it() -> None:
    assert until_end([4, 5, 2, 0, 0], {2}) == [4, 5, 2]
    assert until_end([4, 5], {2}) == [4, 5]
    assert until_end([], {2}) == []
