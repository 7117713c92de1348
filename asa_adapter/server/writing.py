"""`Writing`: an answer while generate() writes it, as a streamer of transformers."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from asa_adapter.policy.decision import Decision
from asa_adapter.server.engine import Answer, Asked, Told
from asa_adapter.tool_calls.parser import ToolCallParser


class Stopped(Exception):
    """The answer has come to a text before which it ends."""


class Writing:
    """Collects the tokens of one answer, and tells of its text.

    Args:
        parser: reads token ids.
        asked: the request.
        told: is told of the text so far.
        decided: gives the decision, once there is a first token.
        begun: tokens with which the answer was begun for the model.

    Attributes:
        text: the answer so far.
        decision: the decision on its prompt.
    """

    def __init__(
        self,
        parser: ToolCallParser,
        asked: Asked,
        told: Told,
        decided: Callable[[], Decision | None],
        begun: Sequence[int] = (),
    ) -> None:
        self._parser, self._asked, self._told, self._decided = parser, asked, told, decided
        self._begun, self._ids = list(begun), list(begun)
        self._started = self._stopped = self._complete = False
        # What has to be a call is shown once it is known to be one.
        self._shows = asked.stream and not asked.must_call
        self.text = ""
        self.decision: Decision | None = None

    def put(self, value: Any) -> None:
        """Takes the prompt at first, then a token of the answer.

        Raises:
            Stopped: the answer ends here.
            Gone: nobody waits for it.
        """
        if not self._started:
            self._started = True
            return
        if len(self._ids) == len(self._begun):
            self.decision = self._decided()
        self._ids.append(int(value.flatten()[0]))
        if self._shows or self._asked.stops:
            self.text = self._parser.text(self._ids)
            self._stop()
        self._told(self.text if self._shows else "", self.decision)

    def end(self) -> None:
        """generate() has ended."""

    def _stop(self) -> None:
        ends = [at for stop in self._asked.stops if (at := self.text.find(stop)) >= 0]
        if ends:
            self.text, self._stopped = self.text[: min(ends)], True
            raise Stopped

    def ended(self, ends: Collection[int]) -> "Writing":
        """The same once generate() has ended, without the token that ended the text."""
        if not self._stopped:
            self._complete = bool(self._ids) and self._ids[-1] in ends
            self.text = self._parser.text(self._ids[:-1] if self._complete else self._ids)
        return self

    def answer(self, prompt_tokens: int, most: int) -> Answer:
        """The answer, which may have `most` tokens."""
        cut = not self._stopped and not self._complete and len(self._ids) >= most
        return Answer(self.text, prompt_tokens, len(self._ids), cut, self.decision, bool(self._begun))
