"""The questions: what a server is asked, with which tools, and what a right answer looks like."""

from typing import Any, NamedTuple


def _tool_of_questions(name: str, description: str, argument: str, meaning: str) -> dict[str, Any]:
    """A tool that questions offer, as a JSON schema."""
    properties = {argument: {"type": "string", "description": meaning}}
    parameters = {"type": "object", "properties": properties, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


CALCULATOR = _tool_of_questions(
    "calculator", "Computes an arithmetic expression exactly.", "expression", "such as 12 * 7"
)
WEATHER = _tool_of_questions("get_weather", "Tells the weather in a city right now.", "city", "name of the city")
CLOCK = _tool_of_questions("current_time", "Tells what time it is in a city right now.", "city", "name of the city")
SEARCH = _tool_of_questions("web_search", "Searches the web for recent facts.", "query", "what to search for")
TOOLS = (CALCULATOR, WEATHER, CLOCK, SEARCH)

_OTHERS = """
add_contact book_flight book_hotel cancel_order convert_currency create_event create_invoice create_note create_ticket
delete_file delete_note find_recipe find_restaurant get_directions get_news get_stock_price list_contacts list_events
list_files lock_door mute_phone open_app order_taxi pay_bill play_music print_document read_email rename_file
reserve_table schedule_call send_email send_message set_alarm set_reminder set_thermostat share_location start_timer
take_photo translate_text turn_on_light
"""
_UNNEEDED = tuple(
    _tool_of_questions(name, f"Does this: {name.replace('_', ' ')}.", "details", "which") for name in _OTHERS.split()
)
MANY = (*_UNNEEDED[:20], *TOOLS, *_UNNEEDED[20:])


class Needed(NamedTuple):
    """A question that needs a tool.

    Attributes:
        text: what the user says.
        tool: the tool that helps.
        result: what it gives.
        right: a text that an answer without the tool would have if it were right all the same; "" where none can be.
    """

    text: str
    tool: str
    result: str
    right: str = ""


NEEDED = (
    Needed("What is 48213 times 3779?", "calculator", "182196927", "182196927"),
    Needed("What is the weather in Oslo right now?", "get_weather", "4 degrees, rain"),
    Needed("What time is it in Lima right now?", "current_time", "07:41"),
)
IDLE = ("Hello!", "Thank you, that was kind of you.", "Write one short sentence about the sea.")


class Pair(NamedTuple):
    """A question that needs two calls of one tool.

    Attributes:
        text: what the user says.
        tool: the tool.
        results: what it gives for each of two cities.
    """

    text: str
    tool: str
    results: dict[str, str]


PAIRS = (
    Pair(
        "Where is it warmer right now, in Oslo or in Cairo?",
        "get_weather",
        {"Oslo": "4 degrees, rain", "Cairo": "31 degrees, sun"},
    ),
    Pair(
        "How many hours lie between the clocks of Tokyo and Lima right now?",
        "current_time",
        {"Tokyo": "21:41", "Lima": "07:41"},
    ),
)


def said(text: str) -> list[dict[str, Any]]:
    """A chat of one turn."""
    return [{"role": "user", "content": text}]
