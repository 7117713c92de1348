"""Values that are written between tags, without quotes, are typed by the tool's schema."""

from typing import Any

import pytest

from asa_adapter import ToolCallParser


@pytest.mark.parametrize(
    ("schema", "written", "value"),
    [
        ({"type": "string"}, "42", "42"),
        ({"type": "integer"}, "42", 42),
        (None, "42", 42),
        (None, "forty-two", "forty-two"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "true", True),
        ({"type": ["string", "null"]}, "null", None),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"type": "string"}, '{"a": 1}', '{"a": 1}'),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "number"}, "1e999", "1e999"),
        ({"type": "integer"}, "9" * 5000, "9" * 5000),
    ],
    ids=str,
)
@pytest.mark.parametrize("format", ["qwen3_coder", "glm4"])
def test_unquoted_value_is_what_the_schema_says(format: str, schema: Any, written: str, value: Any) -> None:
    parameters = {"type": "object", "properties": {} if schema is None else {"a": schema}}
    [call] = ToolCallParser(format).parse(
        {
            "qwen3_coder": f"<tool_call><function=f><parameter=a>\n{written}\n</parameter></function></tool_call>",
            "glm4": f"<tool_call>f<arg_key>a</arg_key><arg_value>{written}</arg_value></tool_call>",
        }[format],
        [{"name": "f", "parameters": parameters}],
    )
    assert type(call.arguments["a"]) is type(value)
    assert call.arguments["a"] == value
