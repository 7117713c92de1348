"""The prompts that are compared."""

import json
from pathlib import Path
from typing import Any

import pytest
from models import fitted_adapter

from asa_adapter.diagnostics.patient import PLAIN_TOOLS
from asa_adapter.verification.samples import neutral_samples, prompt_digest, read_samples

LAMP = {"name": "lamp", "parameters": {"type": "object", "properties": {}}}


def written(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_the_package_has_a_dozen_prompts_of_its_own() -> None:
    said = [sample.messages[0]["content"] for sample in neutral_samples()]
    assert len(set(said)) == 12


def test_a_prompt_offers_the_adapters_tools_or_plain_ones(tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    sample = neutral_samples()[0]
    with_tools, without = fitted_adapter(tools=[LAMP]).config, fitted_adapter().config
    assert sample.offering(with_tools) is sample
    assert sample.offering(without).tools == PLAIN_TOOLS
    assert "lamp" in tokenizer.decode(sample.prompt(tokenizer, with_tools))
    assert "calculator" in tokenizer.decode(sample.offering(without).prompt(tokenizer, without))


def test_rows_of_the_users_are_read_with_their_tools(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    path = written(tmp_path, {"instruction": "hello"}, "", {"messages": chat, "tools": [LAMP], "label": 1})
    first, second = read_samples(path)
    assert (first.messages, first.tools) == ([{"role": "user", "content": "hello"}], None)
    assert (second.messages, second.tools) == (chat, [LAMP])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "rows.jsonl: 0 rows; expected 1 to 64, since the adapter will hold them"),
        ([{"instruction": "a"}] * 65, "65 rows; expected 1 to 64"),
        ([{"instruction": "a"}, "{"], "rows.jsonl, line 2: not valid JSON"),
        (["[]"], "rows.jsonl, line 1: found a list; expected an object"),
        ([{"label": 1}], "rows.jsonl, line 1"),
        ([{"instruction": "a", "tools": []}], "line 1: the row offers no tools; expected some"),
    ],
)
def test_a_file_that_holds_anything_else_is_refused(lines: list[Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        read_samples(written(tmp_path, *lines))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file of sample rows at"):
        read_samples(tmp_path / "rows.jsonl")


def test_a_digest_tells_prompts_apart() -> None:
    assert prompt_digest([1, 23]) == prompt_digest((1, 23))
    assert len({prompt_digest([1, 23]), prompt_digest([12, 3]), prompt_digest([1, 2, 3])}) == 3
