"""The examination of a server: questions one after the other, and the faults that the answers prove.

A fault is named where at least two answers show it, or one whose shape leaves no doubt. What cannot be shown, since a
server does not count tokens or an answer was cut off, is left out.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from asa_adapter.interview.chat_client import ChatClient, ServerError, shown_evidence
from asa_adapter.interview.faults import FAULTS, Fault, found_fault
from asa_adapter.interview.questions import IDLE, MANY, NEEDED, PAIRS, TOOLS, Needed, Pair, said
from asa_adapter.interview.reply_reading import Answer, read_reply
from asa_adapter.notations.tool_call import ToolCall

_SHOWS = 2  # answers that prove a habit
_TOKENS = 10  # four tools take more
_LATER = (408, 425, 429)  # statuses that say "not now", and nothing of tools
_FAILURES = 3  # unanswered questions, after which no more are asked
_OF_NEEDED = ("bare_json", "call_left_as_text", "answers_instead_of_calling", "announces_and_stops")


_Answered = Sequence[tuple[Needed, Answer]]


class Examination(NamedTuple):
    """What was found.

    Attributes:
        faults: the faults, those that explain others first.
        asked: number of questions.
        unshown: names of faults that could not be looked for, with the reason.
    """

    faults: list[Fault]
    asked: int
    unshown: dict[str, str]


def examine(client: ChatClient, progress: Callable[[str], object] = lambda _: None) -> Examination:
    """Examines a server.

    Args:
        client: asks it.
        progress: is told of each question.

    Raises:
        ServerError: it does not answer a plain question, or not as the interface has it.
    """
    return _Examiner(client, progress).examine()


class _Examiner:
    def __init__(self, client: ChatClient, progress: Callable[[str], object]) -> None:
        self._client, self._progress = client, progress
        self._faults: list[Fault] = []
        self._unshown: dict[str, str] = {}
        self._seen: list[Answer] = []
        self._failures = 0

    def examine(self) -> Examination:
        self._progress(NEEDED[0].text)
        plain = self._client.ask(said(NEEDED[0].text))
        try:
            first = self._ask(said(NEEDED[0].text))
        except ServerError as error:
            if error.status is None or error.status >= 500 or error.status in _LATER:
                raise
            self._faults.append(found_fault("refuses_tools", shown_evidence(str(error))))
            return self._done()
        others = [(question, self._try(_OF_NEEDED, said(question.text))) for question in NEEDED[1:]]
        needed = [(NEEDED[0], first), *((question, answer) for question, answer in others if answer)]
        unseen = self._unseen(plain.prompt_tokens, first.reply.prompt_tokens)
        self._text_calls(needed)
        self._idle()
        if not unseen:
            self._silent(needed)
        self._repeats(needed)
        self._pairs()
        if not unseen:
            self._many(needed)
        self._arguments()
        return self._done()

    def _done(self) -> Examination:
        order = list(FAULTS)
        faults = sorted(self._faults, key=lambda fault: order.index(fault.name))
        named = {fault.name for fault in faults}
        unshown = {name: why for name, why in self._unshown.items() if name not in named}
        return Examination(faults, self._client.asked, unshown)

    def _ask(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = TOOLS) -> Answer:
        self._progress(str(next(turn["content"] for turn in reversed(messages) if turn["role"] == "user")))
        answer = read_reply(self._client.ask(messages, tools), tools)
        self._seen.append(answer)
        return answer

    def _try(
        self, names: Sequence[str], messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = TOOLS
    ) -> Answer | None:
        """An answer; None where there is none, by which the faults of some names may not be shown."""
        if self._failures < _FAILURES:
            try:
                return self._ask(messages, tools)
            except ServerError as error:
                self._failures += 1
                why = f"a question was not answered ({shown_evidence(str(error))})"
        else:
            why = f"{_FAILURES} questions were not answered, and no more were asked"
        for name in names:
            self._unshown.setdefault(name, why)
        return None

    def _name(self, name: str, shows: Sequence[tuple[str, Answer]], of: int, least: int = _SHOWS) -> None:
        """Names a fault where enough answers show it."""
        if len(shows) >= least:
            asked, answer = shows[0]
            self._faults.append(
                found_fault(name, f"{len(shows)} of {of}, such as: asked {asked!r}, it {_deed(answer)}")
            )

    def _unseen(self, without: int | None, with_tools: int | None) -> bool:
        """Whether the tools never reach the prompt."""
        if not without or not with_tools:
            self._unshown["tools_not_in_prompt"] = "the server does not count the tokens of prompts"
            return False
        if with_tools - without >= _TOKENS:
            return False
        told = f"{without} tokens of prompt without tools, {with_tools} with {len(TOOLS)} of them"
        self._faults.append(found_fault("tools_not_in_prompt", told))
        return True

    def _text_calls(self, needed: _Answered) -> None:
        pairs = [(question.text, answer) for question, answer in needed if answer.form]
        self._name("bare_json", [pair for pair in pairs if pair[1].form == "json"], len(needed))
        self._name("call_left_as_text", [pair for pair in pairs if pair[1].form != "json"], len(needed))

    def _idle(self) -> None:
        tried = [(text, self._try(["calls_on_hello"], said(text))) for text in IDLE]
        answers = [(text, answer) for text, answer in tried if answer]
        self._name("calls_on_hello", [(text, answer) for text, answer in answers if answer.calls], len(answers))

    def _silent(self, needed: _Answered) -> None:
        """Answers without a call where one is needed; right all the same, they are no fault."""
        silent = [
            (question.text, answer)
            for question, answer in needed
            if not answer.calls and not answer.cut and not _is_right(question, answer)
        ]
        self._name("announces_and_stops", [pair for pair in silent if pair[1].announces], len(needed))
        self._name("answers_instead_of_calling", [pair for pair in silent if not pair[1].announces], len(needed))

    def _repeats(self, needed: _Answered) -> None:
        shows, tried = [], 0
        for question, answer in needed[:2]:
            if [call.name for call in answer.calls] == [question.tool]:
                told = [*said(question.text), *_turns_before_question(answer.calls, [question.result])]
                after = self._try(["repeats_a_call"], told)
                tried += after is not None
                if after and answer.calls[0] in after.calls:
                    shows.append((f"{question.text} (and told {question.result})", after))
        self._name("repeats_a_call", shows, tried)
        if tried < _SHOWS:
            self._unshown.setdefault("repeats_a_call", "too few questions were answered with one call")

    def _pairs(self) -> None:
        shows, tried = [], 0
        for pair in PAIRS:
            answer = self._try(["stops_after_the_first_call"], said(pair.text))
            cities = [city for call in answer.calls if (city := _city(call, pair))] if answer else []
            if not answer or not cities:
                continue
            tried += 1
            if len(set(cities)) == 1 and len(answer.calls) == 1:
                told = [*said(pair.text), *_turns_before_question(answer.calls, [pair.results[cities[0]]])]
                after = self._try(["stops_after_the_first_call"], told)
                tried -= after is None
                if after and not after.calls and not after.cut:
                    shows.append((f"{pair.text} (and told of {cities[0]} alone)", after))
        self._name("stops_after_the_first_call", shows, tried)
        if tried < _SHOWS:
            self._unshown.setdefault("stops_after_the_first_call", "too few questions were answered with a call")

    def _many(self, needed: _Answered) -> None:
        shows, tried = [], 0
        for question, answer in needed:
            if question.tool in [call.name for call in answer.calls]:
                many = self._try(["too_many_tools"], said(question.text), MANY)
                tried += many is not None
                if many and question.tool not in [call.name for call in many.calls] and not many.cut:
                    shows.append((question.text, many))
        self._name("too_many_tools", shows, tried)
        if tried < _SHOWS:
            self._unshown.setdefault("too_many_tools", "too few questions were answered with the right call by four")

    def _arguments(self) -> None:
        wrong = [answer.wrong for answer in self._seen if answer.wrong]
        calls = sum(bool(answer.reply.calls) for answer in self._seen)
        if len(wrong) >= _SHOWS:
            self._faults.append(
                found_fault("malformed_arguments", f"{len(wrong)} of {calls}, such as {shown_evidence(wrong[0])}")
            )


def _deed(answer: Answer) -> str:
    """What an answer did, as evidence of a fault."""
    if answer.reply.calls:
        return f"called {shown_evidence(', '.join(_written_call(call) for call in answer.calls))}"
    return f"said '{shown_evidence(answer.words)}'"


def _written_call(call: ToolCall) -> str:
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


def _is_right(question: Needed, answer: Answer) -> bool:
    """Whether an answer in words has the result that the examiner's question asks for."""
    digits = "".join(c for c in answer.words if c.isalnum())
    return bool(question.right) and question.right in digits


def _city(call: ToolCall, pair: Pair) -> str:
    """The city that a call asks for; "" for any other call."""
    asked = str(call.arguments.get("city", "")).lower()
    return next((city for city in pair.results if call.name == pair.tool and city.lower() in asked), "")


def _turns_before_question(calls: Sequence[ToolCall], results: Sequence[str]) -> list[dict[str, Any]]:
    """The turn that makes an answer's calls, and those that tell their results, for a further question."""
    ids = [f"call{i:05d}" for i in range(len(calls))]
    made = [
        {"id": name, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for name, call in zip(ids, calls, strict=True)
    ]
    told = [
        {"role": "tool", "tool_call_id": name, "content": result} for name, result in zip(ids, results, strict=True)
    ]
    return [{"role": "assistant", "content": "", "tool_calls": made}, *told]
