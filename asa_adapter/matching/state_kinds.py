"""The kind of state in which a prompt ends: behind the user's turn ("first"), or behind a tool's result.

When an adapter is fitted, the kind is read from the messages. While a model runs there are token ids alone: the kind
is that of the last role marker in them, which are learnt from the chat template and kept in the config.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.state_rules import LONGEST_MARK
from asa_adapter.config.value_checks import STATES
from asa_adapter.data.prompt_landmarks import shared_prompt_end
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.rows import Row, row_messages, row_tools
from asa_adapter.matching.token_runs import last_place, packed
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.tool_calls.parser import ToolCallParser

Marks = Mapping[str, Sequence[Sequence[int]]]

# Turns that begin differently: what they share with what stands before them is the template's.
_REQUESTS = ("Hello.", "what is 7 x 8", "\n- one", '{"a": 1}', "<b>bold</b>")
_RESULTS = ("12:30", '{"area": 42}', "\nnothing found", "[1, 2]", "<p>text</p>")
_EARLIER = ("Good morning!", "how large is it (in m2)?")
_ANSWERS = ("It is 42.", "about 42 m2")
_CALLS: tuple[tuple[str, dict[str, Any]], ...] = (("clock", {}), ("area", {"w": 3}))
_SYSTEM = {"role": "system", "content": "Be brief!"}


def kind_of(row: Row) -> str:
    """The kind of state in which the messages of a row end; instructions behind them make no other one."""
    roles = [turn.get("role") for turn in row_messages(row)]
    last = next((role for role in reversed(roles) if role not in ("system", "developer")), None)
    return "after_result" if last in ("tool", "function") else "first"


def told_kinds(prompts: Sequence[bytes], marks: Marks) -> list[int]:
    """The kind of state of each of B prompts, an index into `STATES`.

    It is the kind whose mark ends last, the longer mark where two end together; -1 where there is none.

    Args:
        prompts: their token ids, as `token_runs.packed_rows` gives them.
        marks: runs of token ids, by kind of state.

    Example:
        >>> marks = {"first": ((7, 8),), "after_result": ((7, 9),)}
        >>> told_kinds([packed([7, 8, 1, 7, 9]), packed([7, 9, 1, 7, 8]), packed([1, 1, 1, 1])], marks)
        [1, 0, -1]
    """
    runs = [(len(run), packed(run), kind) for kind, name in enumerate(STATES) for run in marks.get(name, ())]
    return [_told_kind(prompt, runs) for prompt in prompts]


def _told_kind(prompt: bytes, runs: Sequence[tuple[int, bytes, int]]) -> int:
    """The kind of one prompt, by the length, the bytes and the kind of each mark."""
    # Of two kinds that share a mark the first one counts, as its number is the lower one.
    found = [(place + size, size, -kind) for size, run, kind in runs if (place := last_place(prompt, run)) >= 0]
    return -max(found)[2] if found else -1


def marks_of_state_kinds(
    tokenizer: Any, tools: Tools | None = None, parser: ToolCallParser | None = None
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The role markers of a chat template: by kind of state, runs of token ids that begin a turn of that kind.

    Args:
        tokenizer: the model's tokenizer, with a chat template.
        tools: tools that the sample chats offer.
        parser: writes tool calls that the template drops; found by the tokenizer where None.

    Returns:
        {} where the template does not tell the kinds apart, or renders no results of tools.
    """

    def rendered(chats: Iterable[Sequence[Any]]) -> list[list[int]]:
        return [encode_prompt(tokenizer, list(chat), tools, parser) for chat in chats]

    samples: list[tuple[str, list[list[list[int]]]]] = []
    for state, shape in _sample_chats():
        with contextlib.suppress(ValueError):  # a turn that the template refuses, such as the system's
            samples.append((state, [rendered(chats) for chats in shape]))
    together, apart = dict[str, Any](), dict[str, Any]()
    for state in STATES:
        begun = [[_shared_beginning(some) for some in variants] for name, variants in samples if name == state]
        every = list(itertools.chain.from_iterable(begun))
        ends = [shared_prompt_end(every, LONGEST_MARK)], [shared_prompt_end(some, LONGEST_MARK) for some in begun]
        special = frozenset(getattr(tokenizer, "all_special_ids", ()))
        together[state], apart[state] = (_marks_of_state([_from_last(special, run) for run in runs]) for runs in ends)
    return next((marks for marks in (together, apart) if _marks_tell_kinds(marks, samples)), {})


def _marks_tell_kinds(marks: Marks, samples: Sequence[tuple[str, Sequence[Sequence[Sequence[int]]]]]) -> bool:
    """Whether the marks tell the kind of each sample."""
    return all(marks.values()) and all(
        told_kinds([packed(prompt)], marks) == [STATES.index(state)]
        for state, variants in samples
        for prompts in variants
        for prompt in prompts
    )


def _sample_chats() -> list[tuple[str, list[list[list[Any]]]]]:
    """Sample chats: the kind in which they end, and for several beginnings the chats that differ in the last turn."""
    begun = [[{"role": "user", "content": text}] for text in _EARLIER]
    called = [[*chat, _call_turn(i)] for i, chat in enumerate(begun)]
    answered = [[*chat, _result_turn(i, "42"), _assistant_turn(i)] for i, chat in enumerate(called)]
    again = [[*chat, _result_turn(i, "42"), _call_turn(1 - i)] for i, chat in enumerate(called)]
    untold = [
        [*chat, _assistant_turn(i)] for i, chat in enumerate(begun)
    ]  # a call that the template does not show as one
    asked = [{"role": "user", "content": text} for text in _REQUESTS]
    return [
        ("first", [[[turn] for turn in asked]]),
        ("first", [[[_SYSTEM, turn] for turn in asked]]),
        ("first", [[[*chat, turn] for turn in asked] for chat in answered]),
        ("after_result", [[[*chat, _result_turn(i, text)] for text in _RESULTS] for i, chat in enumerate(called)]),
        ("after_result", [[[*chat, _result_turn(1 - i, text)] for text in _RESULTS] for i, chat in enumerate(again)]),
        ("after_result", [[[*chat, _result_turn(i, text)] for text in _RESULTS] for i, chat in enumerate(untold)]),
    ]


def _assistant_turn(i: int) -> dict[str, Any]:
    return {"role": "assistant", "content": _ANSWERS[i]}


def _call_turn(i: int) -> dict[str, Any]:
    """The turn of a sample chat that calls a tool."""
    name, arguments = _CALLS[i]
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": _call_id(i), "function": function}],
    }


def _result_turn(i: int, text: str) -> dict[str, Any]:
    return {"role": "tool", "name": _CALLS[i][0], "tool_call_id": _call_id(i), "content": text}


def _call_id(i: int) -> str:
    return f"call0000{i}"  # nine characters, as templates that check them want


def _shared_beginning(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all sample prompts of a kind of state begin with."""
    shared = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    return [tokens[0] for tokens in shared]


def _from_last(special: Collection[int], run: tuple[int, ...]) -> tuple[int, ...]:
    """A run from its last special token on; the whole run where it has none."""
    return run[max((i for i, token in enumerate(run) if token in special), default=0) :]


def _marks_of_state(runs: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The marks of a kind of state: runs, without empty ones and those that end in another, found with them."""
    kept: list[tuple[int, ...]] = []
    for run in sorted({*filter(None, runs)}, key=lambda run: (len(run), run)):
        if not any(run[-len(other) :] == other for other in kept):
            kept.append(run)
    return tuple(kept)


def state_kind_fields(
    tokenizer: Any,
    rows: Sequence[Row],
    prompts: Sequence[Sequence[int]],
    tools: Tools | None,
    parser: ToolCallParser | None = None,
) -> dict[str, Any]:
    """The fields of the config about kinds of state, by the rows that an adapter is fitted on.

    Args:
        tokenizer: the model's tokenizer.
        rows: N rows.
        prompts: their prompts as token ids.
        tools: tools for rows that have none of their own.
        parser: as in `state_marks`.

    Returns:
        `states` and `state_marks`. Where the marks do not tell the kind of each prompt rightly there are none, and one
        kind stands for all.
    """
    marks = marks_of_state_kinds(tokenizer, row_tools(rows[0], tools), parser)
    named = [kind_of(row) for row in rows]
    told = told_kinds([packed(prompt) for prompt in prompts], marks)
    if not marks or told != [STATES.index(name) for name in named]:
        return {"states": STATES[:1], "state_marks": {}}
    return {"states": tuple(state for state in STATES if state in named), "state_marks": marks}


def with_state_marks(config: ASAConfig, tokenizer: Any) -> ASAConfig:
    """The config with the marks of a tokenizer's chat template, for an adapter from before there were any.

    A later one without marks was fitted where these did not tell the kinds apart, so that one kind stands for all.
    """
    if config.state_marks or config.format_version > 1 or not getattr(tokenizer, "chat_template", None):
        return config
    return dataclasses.replace(config, state_marks=marks_of_state_kinds(tokenizer, config.tools))
