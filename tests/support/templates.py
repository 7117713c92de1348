"""Chat templates that tests give a tokenizer in place of its own."""

from typing import Any

from asa_adapter.data.prompts import with_chat_template

_HERMES_CALLS = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}{% endfor %}"
)


def showing_hermes(tokenizer: Any) -> Any:
    """The tokenizer with a template that shows the format `hermes`; prompts without calls are rendered as before."""
    return with_chat_template(tokenizer, _HERMES_CALLS + tokenizer.chat_template)
