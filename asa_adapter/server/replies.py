"""An answer as OpenAI's interface has it: whole, or in the chunks of a stream."""

import dataclasses
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.notations.tool_schemas import tool_names
from asa_adapter.policy.decision import Decision
from asa_adapter.server.engine import Answer, Asked, Engine
from asa_adapter.tool_calls.known_formats import FORMATS

HEADER = "x-asa-decision"
END = "data: [DONE]\n\n"
_SIGNS = ("<", "[", "{", "`")  # with which a call begins in most formats
_HALF = "\ufffd"  # a character of which the tokens so far are a part
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def decision_json(decision: Decision | None) -> str:
    """A decision as one line of JSON in ASCII; "null" where the bare model answered."""
    return json.dumps(_decision_fields(decision))


def _decision_fields(decision: Decision | None) -> dict[str, Any] | None:
    return None if decision is None else dataclasses.asdict(decision)


class Reply:
    """What is sent for one answer. A stream has the same text, calls and reason as the body sent in one.

    Args:
        engine: whose answer it is.
        asked: the request.
    """

    def __init__(self, engine: Engine, asked: Asked) -> None:
        self._engine, self._asked = engine, asked
        self._frame = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": engine.name}
        self._sent = 0
        self._signs = _call_signs(engine, asked) if asked.tools else ()

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The body of an answer that is sent in one."""
        content, calls = self._read(answer)
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason(answer, bool(calls))}
        body = {**self._frame, "object": "chat.completion", "choices": [choice], "usage": _usage_fields(answer)}
        return {**body, "asa": self._told(answer)}

    def begun(self, decision: Decision | None) -> str:
        """The first chunk of a stream."""
        return self._chunk({"role": "assistant", "content": ""}, asa={"decision": _decision_fields(decision)})

    def grown(self, text: str) -> str:
        """The chunk for an answer that has grown; "" where nothing of it can be shown yet."""
        return self._content(self._sure(self._visible(text)))

    def ended(self, answer: Answer) -> Iterator[str]:
        """The chunks that end a stream: the rest of the text, the calls, and why it ended."""
        content, calls = self._read(answer)
        if rest := self._content(content):
            yield rest
        for i, call in enumerate(calls):
            yield self._chunk({"tool_calls": [{"index": i, **call}]})
        yield self._chunk({}, self._reason(answer, bool(calls)), asa=self._told(answer))
        if self._asked.usage:
            yield _chunk_event(
                {**self._frame, "object": "chat.completion.chunk", "choices": [], "usage": _usage_fields(answer)}
            )
        yield END

    def _content(self, shown: str) -> str:
        delta, self._sent = shown[self._sent :], max(self._sent, len(shown))
        return self._chunk({"content": delta}) if delta else ""

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _chunk_event({**self._frame, "object": "chat.completion.chunk", "choices": [choice], **more})

    def _read(self, answer: Answer) -> tuple[str, list[dict[str, Any]]]:
        """The text before the calls, and the calls; all of the text where there are none."""
        asked, shown = self._asked, self._visible(answer.text)
        found = self._engine.parser.parse(answer.text, asked.tools) if asked.tools else []
        calls = [
            {
                "id": secrets.token_hex(5)[:9],  # the templates of Mistral take no other length
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments_text(call.arguments)},
            }
            for call in (found[:1] if asked.one_call else found)
        ]
        if calls and (at := self._marked(answer.text, found)):
            return self._visible(answer.text[:at]).rstrip(), calls
        return (self._sure(shown) if calls else shown), calls

    def _marked(self, text: str, found: Sequence[ToolCall]) -> int:
        """Where the first marker of the calls stands; 0 where none tells that they all come behind it."""
        markers = [sign for sign in self._signs[len(_SIGNS) :] if len(sign) > 1 and sign[0] in _SIGNS]
        at = min((at for sign in markers if (at := text.find(sign)) >= 0), default=0)
        return at if at and self._engine.parser.parse(text[at:], self._asked.tools) == found else 0

    def _reason(self, answer: Answer, calls: bool) -> str:
        """Why the answer ended; calls of which the last was cut off are no whole answer."""
        asked = self._asked
        whole = not answer.cut or asked.one_call or self._engine.parser.check(answer.text, asked.tools)["format"]
        return "tool_calls" if calls and whole else "length" if answer.cut else "stop"

    def _visible(self, text: str) -> str:
        """The text without what no client wants to see."""
        for hidden in self._engine.hidden:
            text = text.replace(hidden, "")
        return text

    def _sure(self, text: str) -> str:
        """The beginning of a text that is part of no call and no stop text, whatever follows."""
        ends = [at for sign in self._signs if (at := text.find(sign)) >= 0]
        text = text[: min(ends, default=len(text))].rstrip(_HALF)
        for sign in (*self._signs, *self._asked.stops, *self._engine.hidden):
            text = text[: len(text) - _begun_sign(sign, text)]
        return text.rstrip() if self._signs else text

    def _told(self, answer: Answer) -> dict[str, Any]:
        return {"decision": _decision_fields(answer.decision), "factor": self._asked.factor, "forced": answer.forced}


def _call_signs(engine: Engine, asked: Asked) -> tuple[str, ...]:
    """Texts of which one stands at the beginning of each call, or before it: a stream waits there."""
    formats = [FORMATS[name] for name in engine.parser.forms]
    found = (engine.parser.start, *(text for form in formats for text in (form.start, *form.beginnings)))
    return tuple(dict.fromkeys(text for text in (*_SIGNS, *found, *tool_names(asked.tools)) if text))


def _begun_sign(sign: str, text: str) -> int:
    """How many characters at the end of a text could begin a sign."""
    return next((n for n in range(min(len(sign) - 1, len(text)), 0, -1) if text.endswith(sign[:n])), 0)


def _arguments_text(given: dict[str, Any]) -> str:
    """The arguments of a call as JSON text; half characters, which UTF-8 cannot hold, stay escaped."""
    text = json.dumps(given, ensure_ascii=False)
    return json.dumps(given) if _HALF_PAIR.search(text) else text


def _usage_fields(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens, "total_tokens": total}


def _chunk_event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def failure(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def failure_events(message: str) -> Iterable[str]:
    """What ends a stream in which an answer failed."""
    return (_chunk_event(failure(message, "server_error")), END)
