"""A steered model behind the server: it decides and answers as the library does, in transformers and in llama.cpp."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import DATA, TINY_LFM2
from gguf_models import needs_llamacpp
from scripted import events, joined, post, served

from asa_adapter import ASAAdapter, Decision, ToolCall
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.splits import read_tools
from asa_adapter.matching.state_kinds import with_state_marks
from asa_adapter.modeling.forward import greedy_settings
from asa_adapter.server.engine import Answer, Asked, Gone
from asa_adapter.server.steered_engine import SteeredEngine
from asa_adapter.steering.hook import is_steered

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

TOOLS = [{"type": "function", "function": tool} for tool in read_tools(DATA / "tools.json")]
NEW_TOKENS = 24
CALL = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "2 + 2"}'}}
HISTORY = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "4"},
]


def asked_by(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": row["instruction"]}]
    return {"model": "tiny", "messages": turns, "tools": TOOLS, "max_tokens": NEW_TOKENS, **more}


def by_the_library(
    model: Any, tokenizer: Any, adapter: ASAAdapter, rows: list[dict[str, Any]]
) -> list[tuple[Decision, str]]:
    """Decisions and answers without a server."""
    found = []
    with adapter.attach(model, tokenizer=tokenizer) as steering:
        for row in rows:
            ids = torch.tensor([encode_prompt(tokenizer, row["messages"], adapter.config.tools)])
            output = model.generate(ids, **greedy_settings(tokenizer, NEW_TOKENS))
            found.append((steering.decisions[0], tokenizer.decode(output[0, ids.shape[1] :])))
    return found


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Prompts of TEST that are offered the tools of all, as chats."""
    found = [json.loads(line) for line in (DATA / "test.jsonl").read_text("utf-8").splitlines()]
    plain = [row for row in found if "tools" not in row and "instruction" in row][::48]
    return [{**row, "messages": [{"role": "user", "content": row["instruction"]}]} for row in plain]


@pytest.fixture
def engine(tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter) -> Iterator[SteeredEngine]:
    steered = SteeredEngine("tiny", *tiny_lfm2, tiny_adapter)
    yield steered
    steered.close()


def same(model: Any, tokenizer: Any, adapter: ASAAdapter, rows: list[dict[str, Any]]) -> list[int]:
    """Each row over HTTP, whole and streamed, between requests that leave the adapter out; the gates."""
    expected = by_the_library(model, tokenizer, adapter, rows)
    engine = SteeredEngine("tiny", model, tokenizer, adapter)
    with contextlib.closing(engine), served(engine) as place:
        for row, (decision, text) in zip(rows, expected, strict=True):
            whole, stream = post(place, asked_by(row)), post(place, asked_by(row, stream=True))
            assert post(place, asked_by(row, asa=0)).decision is None
            assert whole.decision == stream.decision
            assert Decision(**whole.decision) == decision
            message = json.loads(whole.body)["choices"][0]["message"]
            told = [call["function"] for call in message.get("tool_calls", [])]
            calls = [ToolCall(call["name"], json.loads(call["arguments"])) for call in told]
            assert calls == engine.parser.parse(text, TOOLS)
            assert (message["content"] or "") == ("" if calls else text.replace("<|im_end|>", ""))
            assert joined(events(stream))[:2] == (message["content"] or "", told)
    assert not is_steered(model)
    return [decision.gate for decision, _ in expected]


def test_transformers_decides_and_answers_as_without_a_server(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter, rows: list[dict[str, Any]]
) -> None:
    assert {1, -1} <= set(same(*tiny_lfm2, tiny_adapter, rows))


@needs_llamacpp
def test_a_model_file_decides_and_answers_as_without_a_server(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    from gguf_files import write_gguf

    from asa_adapter.llamacpp import GGUFModel

    path = write_gguf(TINY_LFM2, tmp_path / "tiny.gguf")
    tokenizer = tiny_lfm2[1]
    file = GGUFModel(path, n_ctx=1024, threads=1, ends=[tokenizer.eos_token_id])
    with contextlib.closing(file):
        assert {1, -1} <= set(same(file, tokenizer, tiny_adapter, rows))


def ask(engine: SteeredEngine, row: dict[str, Any], told: Any = lambda *_: None, **more: Any) -> Answer:
    return engine.answer(
        Asked(**{"messages": row["messages"], "tools": TOOLS, "max_tokens": NEW_TOKENS, **more}), told
    )


def steps(answer: Answer) -> float:
    assert answer.decision is not None
    return answer.decision.relative_step


def test_a_factor_scales_the_step_of_its_request_alone(engine: SteeredEngine, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if steps(ask(engine, row)))
    whole, half, again = ask(engine, row), ask(engine, row, factor=0.5), ask(engine, row)
    assert steps(half) == pytest.approx(steps(whole) / 2)
    assert whole == again
    assert ask(engine, row, factor=0.0).decision is None
    with pytest.raises(ValueError, match="the factor is 2000, and the step 2000; expected at most 1000"):
        ask(engine, row, factor=2000.0)
    assert ask(engine, row) == whole


def test_a_request_keeps_the_adapter_s_own_steps_and_a_factor_scales_each(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter, rows: list[dict[str, Any]]
) -> None:
    config = replace(tiny_adapter.config, by_state={"first": {"alpha": 0.0, "alpha_down": 0.25}})
    own = ASAAdapter(config, tiny_adapter.vectors, tiny_adapter.router, tiny_adapter.probes)
    expected = [decision for decision, _ in by_the_library(*tiny_lfm2, own, rows)]
    with contextlib.closing(SteeredEngine("tiny", *tiny_lfm2, own)) as engine:
        half = [steps(ask(engine, row, factor=0.5)) for row in rows]
        assert [ask(engine, row).decision for row in rows] == expected
    assert half == pytest.approx([decision.relative_step / 2 for decision in expected])
    assert {(decision.gate, decision.relative_step > 0) for decision in expected} == {(1, False), (-1, True)}


def test_an_adapter_that_biases_alone_takes_no_step(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter, rows: list[dict[str, Any]]
) -> None:
    biases = tiny_adapter.with_action("bias", bias=3.0, tokenizer=tiny_lfm2[1])
    with contextlib.closing(SteeredEngine("tiny", *tiny_lfm2, biases)) as engine:
        found = [ask(engine, rows[0], factor=factor).decision for factor in (1.0, 2.0)]
    assert [(decision.action, decision.relative_step) for decision in found if decision] == [("bias", 0.0)] * 2


def test_a_kind_of_state_that_was_not_fitted_is_left_alone_unless_the_request_wants_it(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter
) -> None:
    config = with_state_marks(tiny_adapter.config, tiny_lfm2[1])
    adapter = ASAAdapter(config, tiny_adapter.vectors, tiny_adapter.router, tiny_adapter.probes)
    with contextlib.closing(SteeredEngine("tiny", *tiny_lfm2, adapter)) as engine:
        found = [ask(engine, {"messages": HISTORY}, all_states=wanted).decision for wanted in (False, True, False)]
    assert [decision.state for decision in found if decision] == ["after_result"] * 3
    assert [bool(decision.reason) for decision in found if decision] == [True, False, True]


def test_a_prompt_without_tools_is_left_alone_unless_the_request_wants_it(
    tiny_lfm2: tuple[Any, Any], rows: list[dict[str, Any]]
) -> None:
    shipped = ASAAdapter.from_pretrained(DATA.parent / "tiny_lfm2_asa")
    with contextlib.closing(SteeredEngine("tiny", *tiny_lfm2, shipped)) as engine:
        found = [ask(engine, rows[0], tools=[], without_tools=wanted) for wanted in (False, True, False)]
    assert [answer.decision.applied for answer in found if answer.decision] == [False, True, False]


def test_a_model_that_has_to_call_is_made_to(engine: SteeredEngine, rows: list[dict[str, Any]]) -> None:
    silent = next(row for row in rows if not engine.parser.triggered(ask(engine, row, factor=0.0).text, TOOLS))
    told: list[str] = []
    answer = ask(engine, silent, lambda text, _: told.append(text), must_call=True, factor=0.0, stream=True)
    assert answer.forced
    assert engine.parser.parse(answer.text, TOOLS)
    assert set(told) == {""}
    calling = next(row for row in rows if engine.parser.parse(ask(engine, row).text, TOOLS))
    assert not ask(engine, calling, must_call=True).forced


@pytest.mark.parametrize("most", [1, 3])
def test_an_answer_that_is_made_a_call_is_no_longer_than_others(
    engine: SteeredEngine, rows: list[dict[str, Any]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = next(row for row in rows if not engine.parser.triggered(ask(engine, row, factor=0.0).text, TOOLS))
    length = ask(engine, silent, factor=0.0, max_tokens=1).prompt_tokens
    monkeypatch.setattr(engine, "_longest", length + most)  # as where the chat nearly fills what the model reads
    answer = ask(engine, silent, must_call=True, factor=0.0)
    assert (answer.forced, answer.tokens, answer.cut) == (True, most, True)
    assert answer.text.startswith(engine.parser.start)


def test_samples_depend_on_the_seed(engine: SteeredEngine, rows: list[dict[str, Any]]) -> None:
    hot = {"temperature": 5.0, "top_p": 0.99}
    first, second, other = (ask(engine, rows[0], **hot, seed=seed).text for seed in (1, 1, 2))
    assert first == second != other


def test_an_answer_ends_before_a_stop_text_or_where_it_is_as_long_as_it_may_be(
    engine: SteeredEngine, rows: list[dict[str, Any]]
) -> None:
    row = next(row for row in rows if " " in ask(engine, row, factor=0.0).text.strip())
    whole = ask(engine, row, factor=0.0)
    word = whole.text.split()[1]
    stopped = ask(engine, row, factor=0.0, stops=(word,))
    assert stopped.text == whole.text[: whole.text.index(word)]
    assert not stopped.cut
    short = ask(engine, row, factor=0.0, max_tokens=2)
    assert (short.tokens, short.cut) == (2, True)
    assert not whole.cut


def test_a_chat_that_is_too_long_is_refused_with_its_length(engine: SteeredEngine) -> None:
    row = {"messages": [{"role": "user", "content": "word " * 40_000}]}
    with pytest.raises(ValueError, match=r"the chat has \d+ tokens; this model reads at most \d+ and an answer"):
        ask(engine, row)


def test_an_answer_that_nobody_waits_for_is_left_and_the_next_is_right(
    engine: SteeredEngine, rows: list[dict[str, Any]]
) -> None:
    def leave(*_: Any) -> None:
        raise Gone

    whole = ask(engine, rows[1])
    with pytest.raises(Gone):
        ask(engine, rows[0], leave, factor=0.5)
    assert ask(engine, rows[1]) == whole


def test_a_history_of_calls_is_read(engine: SteeredEngine) -> None:
    assert ask(engine, {"messages": HISTORY}).decision is not None
