"""The body of a chat completion, read and checked: what is not understood is refused, never ignored in silence."""

from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter.notations.tool_schemas import unwrapped
from asa_adapter.server.engine import Asked
from asa_adapter.strict_json import strict_json
from asa_adapter.templates.call_history import check_turn_calls
from asa_adapter.vllm.requests import ALL_STATES, WITHOUT_TOOLS, steering_factor

MAX_STOPS = 16
MAX_STOP_LENGTH = 200
# A template is rendered once for each call, to see whether it keeps them; each tool's name is looked for in an answer.
MAX_TURNS, MAX_CALLS, MAX_TOOLS = 2048, 512, 512
_COLDEST = 1e-2  # of the temperatures with which samples are drawn; scores divided by less may overflow
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# What would change the answer if it had another value, and is not done here.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "top_k": (0, -1),
    "min_p": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "repetition_penalty": (1,),
    "reasoning_effort": ("none",),
    "chat_template_kwargs": ({},),
}


def read_chat(body: bytes, model: str) -> Asked:
    """The request in a body.

    Args:
        body: what the client sent.
        model: the name of the model that is served.

    Raises:
        ValueError: the body is no JSON, or not a request that can be answered; the message says what was expected.
        LookupError: it asks for another model.
    """
    try:
        given = strict_json(body.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not valid JSON: {error or 'nested too deep'}") from error
    if not isinstance(given, dict):
        raise ValueError(f"the body is {_described(given)}; expected an object with model and messages")
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("model", model) != model:
        raise LookupError(f"there is no model {given['model']!r:.120} here; this server has {model!r}")
    _refuse_unsupported(given)
    tools, must_call = _offered_tools(given)
    extra = given.get("vllm_xargs", {})
    if not isinstance(extra, dict):
        raise ValueError(f"vllm_xargs is {_described(extra)}; expected an object")
    steering = {name: value for name, value in {**extra, **given}.items() if name.startswith("asa")}
    temperature = _read_number(given, "temperature", 0.0, 0.0, 100.0)
    return Asked(
        messages=_read_turns(given.get("messages")),
        tools=tools,
        must_call=must_call,
        one_call=not _read_flag(given, "parallel_tool_calls", True),
        max_tokens=_most_tokens(given),
        temperature=temperature if temperature >= _COLDEST else 0.0,
        top_p=_read_number(given, "top_p", 1.0, 1e-6, 1.0),
        seed=_read_seed(given),
        stops=_stop_texts(given.get("stop")),
        factor=steering_factor(steering),
        without_tools=bool(steering.get(WITHOUT_TOOLS, False)),
        all_states=bool(steering.get(ALL_STATES, False)),
        stream=_read_flag(given, "stream", False),
        usage=_wants_usage(given),
    )


def _described(value: Any) -> str:
    """What a value of a request is, for an error."""
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), f"{value!r:.80}")


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    """Refuses fields of a request that this server does not act on."""
    for name, fine in _UNSUPPORTED.items():
        if name in given and given[name] not in fine:
            raise ValueError(f"{name} is {given[name]!r:.80}, which this server does not do; leave it out")


def _read_turns(given: Any) -> list[dict[str, Any]]:
    """The turns of a request."""
    if not isinstance(given, list) or not given:
        raise ValueError(f"messages is {'missing' if given is None else _described(given)}; expected a list of turns")
    _refuse_too_many("messages", given, MAX_TURNS, "turns")
    turns = [_read_turn(turn, i) for i, turn in enumerate(given)]
    _refuse_too_many(
        "messages", [call for turn in turns for call in turn.get("tool_calls", [])], MAX_CALLS, "tool calls"
    )
    return turns


def _refuse_too_many(name: str, found: Sequence[Any], most: int, what: str) -> None:
    """Refuses a request with more of something than is read."""
    if len(found) > most:
        raise ValueError(f"{name} has {len(found)} {what}; expected at most {most}")


def _read_turn(turn: Any, i: int) -> dict[str, Any]:
    """One turn of a request, checked."""
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str) or turn["role"] not in _ROLES:
        role = f"has the role {turn.get('role')!r:.40}" if isinstance(turn, dict) else f"is {_described(turn)}"
        raise ValueError(f"messages[{i}] {role}; expected an object with one of the roles {', '.join(_ROLES)}")
    kept = {name: turn[name] for name in ("tool_calls", "tool_call_id", "name") if turn.get(name) is not None}
    for name in ("tool_call_id", "name"):
        if not isinstance(kept.get(name, ""), str):
            raise ValueError(f"messages[{i}].{name} is {_described(kept[name])}; expected text")
    if turn.get("function_call") is not None:
        raise ValueError(f"messages[{i}] has a function_call, which this server does not read; expected tool_calls")
    try:
        check_turn_calls(kept)
    except ValueError as error:
        raise ValueError(f"messages[{i}]: {error}") from error
    content = turn.get("content")
    if content is None and not kept.get("tool_calls") and turn["role"] != "assistant":
        raise ValueError(f"messages[{i}] has no content; expected text")
    return {"role": _ROLES[turn["role"]], "content": _turn_text(content, i), **kept}


def _turn_text(content: Any, i: int) -> str:
    """The text of a turn, which may come in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            what = f"a part of type {part.get('type')!r:.40}" if isinstance(part, dict) else _described(part)
            raise ValueError(f"messages[{i}].content has {what}; this server reads text alone")
        texts.append(part["text"])
    return "\n".join(texts)


def _offered_tools(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """The tools that a request offers, and whether one has to be called."""
    tools, choice = given.get("tools", []), given.get("tool_choice", "auto")
    if not isinstance(tools, list):
        raise ValueError(f"tools is {_described(tools)}; expected a list")
    _refuse_too_many("tools", tools, MAX_TOOLS, "tools")
    names = [_checked_tool_name(tool, i) for i, tool in enumerate(tools)]
    if choice == "none":
        return [], False
    if choice == "auto" or (choice == "required" and tools):
        return tools, choice == "required"
    named = unwrapped(choice).get("name") if isinstance(choice, dict) else None
    if named not in names:
        what = f"{choice!r:.120}"
        raise ValueError(
            f"tool_choice is {what}; expected none, auto, required (with tools), or one of the tools by its name"
        )
    return [tools[names.index(named)]], True


def _checked_tool_name(tool: Any, i: int) -> str:
    """The name of a tool that a request offers; the tool is checked."""
    inner = unwrapped(tool) if isinstance(tool, dict) else {}
    name = inner.get("name")
    if not isinstance(name, str) or not name or not isinstance(inner.get("parameters", {}), dict | None):
        raise ValueError(
            f'tools[{i}] is {tool!r:.120}; expected {{"type": "function", "function": {{"name": ..., '
            '"description": ..., "parameters": {...}}}'
        )
    return name


def _read_flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r:.80}; expected true or false")
    return value


def _read_number(given: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r:.80}; expected a number from {least:g} to {most:g}")
    return float(value)


def _most_tokens(given: Mapping[str, Any]) -> int | None:
    name = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
    value = given.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{name} is {value!r:.80}; expected a whole number, 1 or more")
    return value


def _read_seed(given: Mapping[str, Any]) -> int | None:
    value = given.get("seed")
    if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
        raise ValueError(f"seed is {value!r:.80}; expected a whole number of 64 bits")
    return value


def _stop_texts(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    fine = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not fine or not all(isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
        raise ValueError(
            f"stop is {given!r:.120}; expected a text, or at most {MAX_STOPS}, of 1 to {MAX_STOP_LENGTH} characters"
        )
    return tuple(stops)


def _wants_usage(given: Mapping[str, Any]) -> bool:
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise ValueError(f"stream_options is {_described(options)}; expected an object")
    return _read_flag(options, "include_usage", False)
