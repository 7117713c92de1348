"""`ToolCallParser`: finds and reads the tool calls in a model's answer; malformed text never raises."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asa_adapter.notations.tag_calls import with_typed_values
from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.notations.tool_schemas import Tools, properties, schema_errors, tool_names, tool_schemas, unwrapped
from asa_adapter.tool_calls.call_format import Block, ToolCallFormat
from asa_adapter.tool_calls.call_habits import Habit, few_of_each_label
from asa_adapter.tool_calls.format_detection import detected_format
from asa_adapter.tool_calls.known_formats import FORMATS

# Reads an answer in place of our own reader, as `tokenizer.parse_response` does.
_Respond = Callable[[str, list[dict[str, Any]]], Mapping[str, Any]]


class ToolCallParser:
    """Reads tool calls in one format, or in each of several.

    Args:
        format: one of "lfm2", "hermes", "qwen3_coder", "llama3", "llama4", "mistral", "gemma4", "functiongemma",
            "granite", "deepseek_v3", "phi4", "glm4", "kimi_k2", "gpt_oss", "json";
            `asa_adapter.tool_calls.FORMATS` names the models of each.
        start: the marker that opens a call, where it differs from the format's.
        end: the marker that closes it, where it differs from the format's.
        forms: further formats in which calls come; an answer is read with the first format that can read its calls.

    Attributes:
        format: the first format, in which calls are written.
        forms: all of them.
        openings: ids of further tokens with which calls begin, as a model's own answers showed them.
        start_id: the id of the token that is the start marker; None where the parser is not from a tokenizer, or the
            tokenizer has no such token.

    Raises:
        ValueError: the format is unknown.

    Example:
        >>> parser = ToolCallParser("lfm2")
        >>> parser.parse('<|tool_call_start|>[add(a=1, b="x")]<|tool_call_end|>')
        [ToolCall(name='add', arguments={'a': 1, 'b': 'x'})]
    """

    def __init__(
        self, format: str, *, start: str | None = None, end: str | None = None, forms: Sequence[str] = ()
    ) -> None:
        for name in (format, *forms):
            if name not in FORMATS:
                raise ValueError(f"tool-call format {name!r} is not known; expected one of {', '.join(FORMATS)}")
        self.format = format
        self.forms = tuple(dict.fromkeys([format, *forms]))
        self.openings: tuple[int, ...] = ()
        self._format = _with_markers(FORMATS[format], start, end)
        self.start = self._format.start
        self.end = self._format.end
        self.start_id: int | None = None
        self._decode: Callable[[Sequence[int]], str] | None = None
        self._respond: _Respond | None = None

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        format: str | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
        forms: Sequence[str] = (),
    ) -> "ToolCallParser":
        """The parser for a tokenizer's model.

        The format is found by the chat template and the vocabulary. Where the start marker is a single token, a call
        is recognised by that token. A tokenizer with a `response_template` reads its calls itself (transformers'
        `parse_response`).

        Args:
            tokenizer: the model's tokenizer.
            format: the format, where it is known or not found.
            start: the marker that opens a call, where it is another than the format's.
            end: the marker that closes it, likewise.
            forms: further formats in which the model's calls come.

        Raises:
            ValueError: no known format, or one by another name.
        """
        if format is None and (format := detected_format(tokenizer)) is None:
            raise ValueError(
                "neither chat template nor vocabulary shows a tool-call format that is known here "
                f"({', '.join(FORMATS)}). Name the nearest by hand: ToolCallParser(format, start=..., end=...), "
                "ASATrainingArguments(tool_call_format=..., tool_call_start=..., tool_call_end=...), or "
                "--tool-call-format on the command line"
            )
        parser = cls(format, start=start, end=end, forms=forms)
        parser.start_id = marker_token_id(tokenizer, parser.start)
        if getattr(tokenizer, "response_template", None):
            parser._respond = lambda text, tools: tokenizer.parse_response(text, prefix="", tools=tools or None)
        parser._decode = lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))
        return parser

    @classmethod
    def from_model(
        cls, model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], *, tools: Tools | None = None
    ) -> "ToolCallParser":
        """The parser for the formats in which a model's calls really come, which it is asked for.

        The bare model answers a few rows of each label, and the answers are read with every format. Where it calls
        nothing, template and vocabulary decide.

        Args:
            model: a causal language model.
            tokenizer: its tokenizer, with a chat template.
            rows: rows with `instruction` or `messages`, some of which need a tool; the first four of each label count.
            tools: the tools for rows that have none of their own.

        Raises:
            ValueError: no known format, neither shown nor written, or a row cannot be rendered.
        """
        from asa_adapter.diagnostics.patient import habit_of_patient

        found = habit_of_patient(model, tokenizer, few_of_each_label(rows), tools)
        return cls.from_habit(tokenizer, found) if found.formats else cls.from_tokenizer(tokenizer)

    @classmethod
    def from_habit(
        cls, tokenizer: Any, found: Habit, *, start: str | None = None, end: str | None = None
    ) -> "ToolCallParser":
        """The parser for the formats in which a model's calls came, and the tokens with which they began.

        Args:
            tokenizer: the model's tokenizer.
            found: what the model's answers showed; it has formats.
            start: the marker that opens a call, where it is another than the first format's.
            end: the marker that closes it, likewise.
        """
        first, *others = found.formats
        parser = cls.from_tokenizer(tokenizer, first, start=start, end=end, forms=others)
        known = parser.opening_ids(tokenizer)
        parser.openings = tuple(token for token in first_token_ids(tokenizer, found.calling) if token not in known)
        return parser

    @property
    def knows_tokens(self) -> bool:
        """Whether the parser comes from a tokenizer, and so can read token ids."""
        return self._decode is not None

    @property
    def call_token(self) -> int | None:
        """The id of the token that begins a call wherever it is; None where calls are recognised by text."""
        return None if self._format.opens or self._format.json == "anywhere" else self.start_id

    def triggered(self, answer: str | Sequence[int], tools: Tools | None = None) -> bool:
        """Whether a tool call begins anywhere in an answer, other than in its reasoning.

        Args:
            answer: its text, decoded with the special tokens, or its token ids. Ids are safer where the marker is one
                token: decoding cannot drop it, and the same characters in prose are not mistaken for it.
            tools: the offered tools. A call that has lost its markers, or is JSON with a name alone, is told from data
                by their names; without tools it is data.

        Raises:
            ValueError: token ids, and the parser is not from a tokenizer.
        """
        text = answer if isinstance(answer, str) else self.text(answer)
        return bool(self._blocks(text, tool_names(tool_schemas(tools))))

    def text(self, answer: Sequence[int]) -> str:
        """An answer's text, with the start marker where its token is and nowhere else.

        The marker is shown even where the tokenizer drops it when it decodes. A marker that the model spelled in other
        tokens opens no call, so a zero-width space breaks it.

        Args:
            answer: token ids.

        Raises:
            ValueError: the parser is not from a tokenizer.
        """
        if self._decode is None:
            raise ValueError("found token ids; expected text, or a parser made by ToolCallParser.from_tokenizer()")
        ids = [int(token) for token in answer]
        text = self._decode(ids)
        if self.call_token is None or text.count(self.start) == ids.count(self.call_token):
            return text
        pieces: list[list[int]] = [[]]
        for token in ids:
            if token == self.call_token:
                pieces.append([])
            else:
                pieces[-1].append(token)
        broken = f"{self.start[0]}\u200b{self.start[1:]}"
        return self.start.join(self._decode(piece).replace(self.start, broken) for piece in pieces)

    def parse(self, text: str, tools: Tools | None = None) -> list[ToolCall]:
        """The calls that could be read, in their order.

        Args:
            text: the answer, decoded with its special tokens.
            tools: JSON-schema tools or Python functions. In formats that write values without quotes (Qwen3-Coder,
                GLM), their schemas decide whether `7` is a number or text; see also `triggered`.
        """
        return [call for block in self._read(text, tool_schemas(tools)) for call in block.calls]

    def check(self, text: str, tools: Tools) -> dict[str, Any]:
        """Checks the calls of one answer against the offered tools.

        Args:
            text: the answer, decoded with its special tokens.
            tools: JSON-schema tools, bare or wrapped in {"type": "function", "function": ...}, or Python functions.

        Returns:
            triggered, format (every payload could be read), tool_name (every call names an offered tool), arguments
            (every call's arguments fit the tool's schema), and errors (what was wrong, in words).
        """
        schemas = tool_schemas(tools)
        blocks = self._read(text, schemas)
        calls = [call for block in blocks for call in block.calls]
        offered = {schema.get("name"): schema for schema in map(unwrapped, schemas)}
        errors = [f"not readable as a call: {block.text:.80}" for block in blocks if not block.whole]
        readable = bool(calls) and not errors
        unknown = [call.name for call in calls if call.name not in offered]
        errors += [f"no such tool: {name}" for name in unknown]
        misfits = [
            f"{call.name}: {misfit}"
            for call in calls
            if call.name in offered
            for misfit in schema_errors(call.arguments, offered[call.name])
        ]
        return {
            "triggered": bool(blocks),
            "format": readable,
            "tool_name": readable and not unknown,
            "arguments": readable and not unknown and not misfits,
            "errors": errors + misfits,
        }

    def write(self, calls: Sequence[ToolCall]) -> str:
        """The calls as a model of this family writes them, markers included."""
        return self._format.written(calls)

    def opening_id(self, tokenizer: Any) -> int:
        """The token with which an answer that is a call begins: the start marker, or the first token of its text."""
        if self.start_id is not None and not self._format.opening:
            return self.start_id
        return int(tokenizer.encode(self._format.opening or self.start, add_special_tokens=False)[0])

    def opening_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """The tokens with which answers that are calls begin: by each format, and by the model's own answers."""
        found = [self.opening_id(tokenizer), *self.openings]
        for known in (self._format, *(FORMATS[name] for name in self.forms[1:])):
            marker = marker_token_id(tokenizer, known.start)
            found += [] if marker is None else [marker]
            found += first_token_ids(tokenizer, known.beginnings)
        return tuple(dict.fromkeys(found))

    def _blocks(self, text: str, offered: Sequence[str]) -> list[Block]:
        """The blocks by the first format that reads all of them, or else by the first that sees a call begin."""
        begun: list[Block] = []
        for known in (self._format, *(FORMATS[name] for name in self.forms[1:])):
            blocks = known.blocks(text, offered)
            if blocks and all(block.whole for block in blocks):
                return blocks
            begun = begun or blocks
        return begun

    def _read(self, text: str, tools: list[dict[str, Any]]) -> list[Block]:
        """The blocks of an answer, their unquoted values typed by the tools' schemas."""
        blocks = self._blocks(text, tool_names(tools))
        if self._respond is not None and blocks:
            return [_response_block(self._respond, text, tools)]
        schemas = {schema.get("name"): schema for schema in map(unwrapped, tools)}
        return [
            block._replace(calls=[with_typed_values(call, properties(schemas.get(call.name))) for call in block.calls])
            for block in blocks
        ]


def first_token_ids(tokenizer: Any, texts: Sequence[str]) -> tuple[int, ...]:
    """The ids of the tokens with which texts begin, each once."""
    ids = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    return tuple(dict.fromkeys(int(found[0]) for found in ids if found))


def marker_token_id(tokenizer: Any, marker: str) -> int | None:
    """The id of the single token that is the marker; None if there is no such token."""
    found = tokenizer.get_vocab().get(marker)
    return None if found is None else int(found)


def _with_markers(known: ToolCallFormat, start: str | None, end: str | None) -> ToolCallFormat:
    """A format with other markers, for a parser."""
    changed = dataclasses.replace(known, end=end or known.end)
    if start in (None, known.start):
        return changed
    return dataclasses.replace(
        changed, start=start, opens="", loose="", bare="", json="", skipped=False, around=None, opening=""
    )


def _response_block(respond: _Respond, text: str, tools: list[dict[str, Any]]) -> Block:
    """The calls that the tokenizer's own response template reads in an answer."""
    try:
        found = respond(text, tools).get("tool_calls") or []
        calls = [ToolCall(str(call["function"]["name"]), dict(call["function"]["arguments"])) for call in found]
    # A template and a model's text can fail together in any way; it means a call that cannot be read.
    except Exception:
        calls = []
    return Block(calls, bool(calls), text)
