"""Text to tool calls and back, in each format that models write. No model is needed here, and nothing is run.

What a model wrote is data: a reader returns the calls that it could read, and never raises.
"""

from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.notations.tool_schemas import tool_schemas, unwrapped
from asa_adapter.tool_calls.gold_calls import matches_gold
from asa_adapter.tool_calls.known_formats import FORMATS
from asa_adapter.tool_calls.parser import ToolCallParser

__all__ = ["FORMATS", "ToolCall", "ToolCallParser", "matches_gold", "tool_schemas", "unwrapped"]
