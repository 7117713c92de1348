"""How a model goes through a user's turn: its calls, one answer after the other, and what each of them is worth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.data.rows import Row, row_tools
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.tool_calls.gold_calls import matches_gold
from asa_adapter.tool_calls.outcomes import Answer
from asa_adapter.trajectories.user_turns import UserTurn

NO_RESULT = '{"error": "there is no result for this call"}'
# Answers with calls beyond one for each that is needed, after which a turn counts as never finished.
_SPARE = 2


@dataclass
class Course:
    """A model's way through one user's turn.

    Attributes:
        turn: the user's turn.
        said: the messages behind the user's: calls and their results.
        made: indices of the needed calls that were made, in their order.
        needless: number of calls that are not needed, have other arguments, or cannot be read.
        repeated: number of calls that were made before, and are not needed once more.
        answers: number of answers that call.
        asked: number of all answers.
        cut: number of those that `max_new_tokens` ended before a call was complete.
        finished: whether an answer without a call ended it.
        done: whether nothing more is asked.
        first: whether the first call is one of those that are needed first.
    """

    turn: UserTurn
    said: list[dict[str, Any]] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    needless: int = 0
    repeated: int = 0
    answers: int = 0
    asked: int = 0
    cut: int = 0
    finished: bool = False
    done: bool = False
    first: bool = False
    _calls: list[tuple[ToolCall, str]] = field(default_factory=list)

    @property
    def row(self) -> Row:
        """What the model is asked next."""
        return {"messages": [*self.turn.history, *self.said], "tools": self.turn.tools}

    def go_on(self, calls: Sequence[ToolCall], cut: bool, triggered: bool) -> None:
        """Takes an answer with these calls.

        Args:
            calls: the calls that could be read.
            cut: whether it ended only because it was as long as it may be.
            triggered: whether a call begins in it; one that cannot be read is needless, and ends the turn.
        """
        self.asked += 1
        self.cut += cut and not calls
        if not calls:
            self.needless += triggered
            self.finished, self.done = not (cut or triggered), True
            return
        results = [self._result_of(call) for call in calls]
        self.answers += 1
        named = [f"made{len(self._calls) - len(calls) + k:05d}" for k in range(len(calls))]
        self.said.append({"role": "assistant", "content": "", "tool_calls": list(map(_call_in_turn, named, calls))})
        self.said += [
            {"role": "tool", "tool_call_id": name, "name": call.name, "content": result}
            for name, call, result in zip(named, calls, results, strict=True)
        ]
        self.done = self.answers >= len(self.turn.needed) + _SPARE

    def _result_of(self, call: ToolCall) -> str:
        """What the tool says to a call, which is counted."""
        result = self._judged(call)
        self._calls.append((call, result))
        return result

    def _judged(self, call: ToolCall) -> str:
        needed = self.turn.needed
        for i, one in enumerate(needed):
            if i not in self.made and matches_gold([call], [{"name": one.call.name, "arguments": one.call.arguments}]):
                self.first |= not self._calls and one.step == needed[0].step
                self.made.append(i)
                return one.result
        for earlier, result in self._calls:
            if matches_gold([call], [{"name": earlier.name, "arguments": earlier.arguments}]):
                self.repeated += 1
                return result
        self.needless += 1
        return NO_RESULT

    @property
    def missing(self) -> int:
        """Number of needed calls that were not made."""
        return len(self.turn.needed) - len(self.made)

    @property
    def right(self) -> bool:
        """Whether it made all needed calls in their order and no others, and then answered."""
        steps = [self.turn.needed[i].step for i in self.made]
        others = self.missing + self.needless + self.repeated
        return self.finished and not others and steps == sorted(steps)


def _call_in_turn(name: str, call: ToolCall) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def courses_of(
    evaluation: Evaluation, turns: Sequence[UserTurn], adapter: ASAAdapter | None = None, name: str = "base"
) -> list[Course]:
    """How the model goes through user's turns; all that are not done are answered together."""
    courses = [Course(turn) for turn in turns]
    while asked := [course for course in courses if not course.done]:
        rows = [course.row for course in asked]
        for course, row, answer in zip(asked, rows, evaluation.answers(rows, adapter, name), strict=True):
            tools = row_tools(row, evaluation.tools)
            calls, triggered = evaluation.parser.parse(answer, tools), evaluation.parser.triggered(answer, tools)
            course.go_on(calls, isinstance(answer, Answer) and answer.cut, triggered)
    return courses
