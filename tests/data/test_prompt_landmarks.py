"""What prompts have in common: their end, and the words of the template around the tools."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from asa_adapter import load_splits
from asa_adapter.config.value_checks import MAX_LISTS
from asa_adapter.data.prompt_landmarks import MOST_LISTS, Landmarks, landmarks, tools_digest
from asa_adapter.data.prompts import encode_rows, with_chat_template

EXAMPLES = Path(__file__).parents[2] / "examples"
TOOLS = [{"name": "weather", "description": "Weather of a city.", "parameters": {"type": "object"}}]
OTHER_TOOLS = [{"name": "sum", "description": "adds", "parameters": {"properties": {"a": {"type": "number"}}}}]
ROWS = [
    {"instruction": "Is it raining in Oslo?", "label": 1, "tools": TOOLS},
    {"instruction": "add 3 and 4", "label": 1, "tools": OTHER_TOOLS},
    {"instruction": "Thanks a lot!", "label": 0, "tools": TOOLS},
]

# A template that writes the tools into the last user turn, has no system turn, and begins answers by its switch.
IN_THE_USER_TURN = """{%- for m in messages %}
{%- if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}
{%- if m.role == 'user' and loop.last and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
WITHOUT_TOOLS = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


def tokenizer(name: str = "tiny_lfm2", template: str | None = None) -> Any:
    return with_chat_template(AutoTokenizer.from_pretrained(EXAMPLES / name), template)


def found(tok: Any, rows: list[dict[str, Any]] = ROWS) -> Landmarks:
    return landmarks(tok, rows, encode_rows(tok, rows), None)


def has(ids: list[int], mark: tuple[int, ...]) -> bool:
    return any(tuple(ids[i : i + len(mark)]) == mark for i in range(len(ids)))


@pytest.mark.parametrize("name", ["tiny_lfm2", "tiny_qwen3"])
def test_prompts_end_with_the_end_of_the_turn_and_the_beginning_of_an_answer(name: str) -> None:
    tok = tokenizer(name)
    marks = found(tok)
    assert tok.decode(marks.prompt_end) == "<|im_end|>\n<|im_start|>assistant\n"
    assert tok.decode(marks.prompt_end[-marks.generation_tokens :]) == "<|im_start|>assistant\n"


def test_the_end_holds_what_a_switch_of_the_template_adds() -> None:
    tok = tokenizer(template=IN_THE_USER_TURN)
    marks = found(tok)
    text = tok.decode(marks.prompt_end[-marks.generation_tokens :])
    assert text == "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_words_that_all_rows_happen_to_end_with_are_no_landmark() -> None:
    rows = [{**row, "instruction": f"{row['instruction']} please"} for row in ROWS]
    assert found(tokenizer(), rows).prompt_end == found(tokenizer()).prompt_end


@pytest.mark.parametrize("template", [None, IN_THE_USER_TURN], ids=["system turn", "user turn"])
@pytest.mark.parametrize("tools", [TOOLS, OTHER_TOOLS, [{"type": "function", "function": TOOLS[0]}]])
def test_a_mark_is_in_prompts_with_tools_unlike_the_fitted_ones(
    tools: list[dict[str, Any]], template: str | None
) -> None:
    tok = tokenizer(template=template)
    marks = found(tok, ROWS[:1]).tools_marks
    other = [{"messages": [{"role": "user", "content": "When is noon?"}], "tools": tools}]
    assert any(has(encode_rows(tok, other)[0], mark) for mark in marks)


@pytest.mark.parametrize("template", [None, IN_THE_USER_TURN], ids=["system turn", "user turn"])
@pytest.mark.parametrize("text", ["hello", json.dumps(TOOLS), json.dumps(OTHER_TOOLS, indent=2)])
def test_no_mark_is_in_a_prompt_without_tools_even_if_it_quotes_them(text: str, template: str | None) -> None:
    tok = tokenizer(template=template)
    marks = found(tok).tools_marks
    assert marks
    assert not any(has(encode_rows(tok, [{"instruction": text}])[0], mark) for mark in marks)


def test_there_are_no_marks_where_the_template_ignores_tools() -> None:
    assert found(tokenizer(template=WITHOUT_TOOLS)).tools_marks == ()


def test_there_are_no_marks_where_a_row_offers_no_tools() -> None:
    assert found(tokenizer(), [*ROWS, {"instruction": "Hi.", "label": 0}]).tools_marks == ()


def test_the_shipped_data_has_marks_in_each_prompt() -> None:
    tok, rows = tokenizer(), list(load_splits(EXAMPLES / "data")["cal"])
    prompts = encode_rows(tok, rows)
    marks = landmarks(tok, rows, prompts, None)
    assert all(any(has(ids, mark) for mark in marks.tools_marks) for ids in prompts)
    assert len(marks.tool_lists) == len({json.dumps(row["tools"]) for row in rows})


def test_lists_of_tools_are_told_apart_by_how_they_are_written() -> None:
    same = json.loads(json.dumps(TOOLS))
    wrapped = [{"type": "function", "function": TOOLS[0]}]
    assert tools_digest(TOOLS) == tools_digest(same)
    assert len({tools_digest(tools) for tools in (TOOLS, OTHER_TOOLS, wrapped, None)}) == 4


def test_too_many_lists_of_tools_are_not_kept() -> None:
    assert MOST_LISTS == MAX_LISTS == 64
    rows = [{**ROWS[0], "tools": [{**TOOLS[0], "name": f"tool_{i}"}]} for i in range(65)]
    assert found(tokenizer(), rows).tool_lists == ()
    assert len(found(tokenizer(), rows[:64]).tool_lists) == 64


def test_lists_of_varied_rows_are_known_as_far_as_there_is_room() -> None:
    tok = tokenizer()
    lists = [[{"name": f"tool_{i}"}] for i in range(MOST_LISTS)]
    often, seldom = ([{"type": "function", "function": tool} for tool in some] for some in (TOOLS, OTHER_TOOLS))
    varied = [{**ROWS[0], "tools": tools} for tools in (seldom, often, often)]
    for count, expected in ((MOST_LISTS - 2, [often, seldom]), (MOST_LISTS - 1, [often]), (MOST_LISTS, [])):
        rows = [{**ROWS[0], "tools": tools} for tools in lists[:count]]
        digests = landmarks(tok, rows, encode_rows(tok, [*rows[:1], *varied]), None, varied).tool_lists
        assert set(digests) == {*map(tools_digest, [*lists[:count], *expected])}
    many = [{**ROWS[0], "tools": tools} for tools in [*lists, TOOLS]]
    assert landmarks(tok, many, encode_rows(tok, many[:2]), None, varied).tool_lists == ()
