"""What the prompts of a training have in common, as token ids: how they end, and what stands around their tools.

A prompt that lacks these was made in another way than those that router and probes were fitted on.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.rows import Row, row_tools
from asa_adapter.notations.tool_schemas import Tools, tool_schemas

# Two chats and two lists of tools that have nothing in common but the template's own words.
_CHATS = (
    [{"role": "user", "content": "Hello."}],
    [{"role": "system", "content": "Be brief!"}, {"role": "user", "content": "what is 7 x 8"}],
)
_TOOLS = (
    {"name": "clock", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}},
    {"name": "area", "description": "size of a field", "parameters": {"properties": {"w": {"type": "number"}}}},
)
_LONGEST_END = 32
_LONGEST_MARK = 12
_MARKS = 4
MOST_LISTS = 64


class Landmarks(NamedTuple):
    """The fields of `ASAConfig` with the same names."""

    prompt_end: tuple[int, ...]
    generation_tokens: int
    tools_marks: tuple[tuple[int, ...], ...]
    tool_lists: tuple[str, ...]


def landmarks(
    tokenizer: Any,
    rows: Sequence[Row],
    prompts: Sequence[Sequence[int]],
    tools: Tools | None,
    varied: Sequence[Row] = (),
) -> Landmarks:
    """What the prompts of some rows have in common.

    Args:
        tokenizer: the model's tokenizer, with a chat template.
        rows: N rows.
        prompts: their prompts as token ids, and behind them those of the varied rows.
        tools: tools for rows that have none of their own.
        varied: such rows with other lists of tools. Where all lists are too many, those that most rows have are kept.

    Raises:
        ValueError: the chat template cannot render a plain chat.
    """
    lists = {json.dumps(row_tools(row, tools)): row_tools(row, tools) for row in rows}
    samples = [encode_prompt(tokenizer, _CHATS[0], next(iter(lists.values()))), *_sample_prompts(tokenizer, None)]
    end = shared_prompt_end([*prompts, *samples], _LONGEST_END)
    marks: list[tuple[int, ...]] = []
    if all(lists.values()):  # an adapter that was fitted without tools steers without them
        marks = _tools_marks(tokenizer, [offered for offered in lists.values() if offered])
    known = all(any(_has_run(_searchable(prompt), mark) for mark in marks) for prompt in prompts)
    return Landmarks(
        prompt_end=end,
        generation_tokens=min(len(end), _generation_prompt_length(tokenizer)),
        tools_marks=tuple(marks) if known else (),
        tool_lists=_tool_list_digests(lists.values(), [row_tools(row, tools) for row in varied]),
    )


def _tool_list_digests(lists: Collection[Tools | None], varied: Sequence[Tools | None]) -> tuple[str, ...]:
    """The digest of each list of tools; () where the lists alone are too many."""
    own = {*map(tools_digest, lists)}
    if len(own) > MOST_LISTS:
        return ()
    counts = Counter(map(tools_digest, varied))
    others = [name for name, _ in counts.most_common() if name not in own]
    return tuple(sorted([*own, *others[: MOST_LISTS - len(own)]]))


def tools_digest(tools: Tools | None) -> str:
    """SHA-256 of a list of tools as prompts render it: wrapped otherwise or in another order, it is another list."""
    return hashlib.sha256(json.dumps(tool_schemas(tools)).encode()).hexdigest()


def shared_prompt_end(prompts: Sequence[Sequence[int]], most: int) -> tuple[int, ...]:
    """The last token ids that all prompts share, at most so many."""
    backwards = zip(*(reversed(prompt[-most:]) for prompt in prompts), strict=False)
    shared = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, backwards)
    return tuple(tokens[0] for tokens in shared)[::-1]


def _generation_prompt_length(tokenizer: Any) -> int:
    """How many tokens `add_generation_prompt` adds."""
    whole, bare = (
        encode_prompt(tokenizer, _CHATS[0], generation_prompt=generation_prompt) for generation_prompt in (True, False)
    )
    return len(whole) - len(bare) if whole[: len(bare)] == bare else 0


def _tools_marks(tokenizer: Any, lists: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[int, ...]]:
    """Runs of tokens that the template writes with any tools, and never without."""
    wrapped = [[{"type": "function", "function": tool}] for tool in _TOOLS]
    offered = [*([tool] for tool in _TOOLS), *wrapped, *lists[:_MARKS]]
    having = [ids for tools in offered for ids in _sample_prompts(tokenizer, tools)]
    lacking = [_searchable(ids) for ids in _sample_prompts(tokenizer, None)]
    if not having:
        return []
    base = min(having, key=len)
    written = [json.dumps(tools, indent=indent) for tools in offered for indent in (None, 2, 4)]

    def tells(run: Sequence[int]) -> bool:
        return not any(_has_run(text, run) for text in lacking) and not _is_piece_of_tools(
            tokenizer.decode(run), written
        )

    runs = [
        run[start : start + _LONGEST_MARK]
        for run in _shared_token_runs(base, [_searchable(ids) for ids in having])
        for start in range(0, len(run), _LONGEST_MARK)
    ]
    # The first and the last token of a run may be joined with its neighbours in another prompt.
    cut = [run[1:-1] if tells(run[1:-1]) else run for run in runs]
    return [tuple(run) for run in sorted(filter(tells, cut), key=len, reverse=True)[:_MARKS]]


def _sample_prompts(tokenizer: Any, tools: Sequence[dict[str, Any]] | None) -> list[list[int]]:
    """Prompts of sample chats, to find the landmarks in; those that the template refuses are left out."""
    found = []
    for chat in _CHATS:
        try:
            found.append(encode_prompt(tokenizer, chat, tools))
        except ValueError:
            continue
    return found


def _shared_token_runs(base: Sequence[int], texts: Sequence[str]) -> list[Sequence[int]]:
    """The longest runs of tokens of `base` that are in all texts."""
    runs, end = [], 0
    for start in range(len(base)):
        stop = max(end, start)
        while stop < len(base) and all(_has_run(text, base[start : stop + 1]) for text in texts):
            stop += 1
        if stop > end and stop > start:
            runs.append(base[start:stop])
            end = stop
    return runs


def _is_piece_of_tools(text: str, written: Iterable[str]) -> bool:
    """Whether a text is a piece of the tools themselves, as JSON; empty texts are."""
    return any(text.strip() in whole for whole in written)


def _searchable(ids: Sequence[int]) -> str:
    """Token ids as a text in which runs of tokens can be searched."""
    return f" {' '.join(map(str, ids))} "


def _has_run(text: str, run: Sequence[int]) -> bool:
    return _searchable(run) in text
