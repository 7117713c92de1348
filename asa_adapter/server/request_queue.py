"""`RequestQueue`: requests wait in a line, and one thread asks the engine for one answer at a time.

So no answer can get another's decision, and what is decided for a prompt does not depend on who else asks.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from asa_adapter.policy.decision import Decision
from asa_adapter.server.engine import Answer, Asked, Engine, Gone

WAITING_BYTES = 64 * 1024 * 1024  # of the bodies of all that wait


class Busy(Exception):
    """So many requests, or so large ones, wait already that there is no room for another."""


class Ticket:
    """A request's place in the line.

    Only the latest text is kept, so that an answer that is written faster than it is read takes no more memory.

    Args:
        asked: the request; it is forgotten where nobody waits any more before the answer has begun.

    Attributes:
        answer: the whole answer, in time.
        latest: the text so far and the decision; None where nothing was told yet.
    """

    answer: "asyncio.Future[Answer]"

    def __init__(self, asked: Asked) -> None:
        self._asked: Asked | None = asked
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.latest: tuple[str, Decision | None] | None = None
        self._gone = False

    async def growth(self) -> None:
        """Waits for more of the answer, or its end."""
        await self._news.wait()
        self._news.clear()

    def leave(self) -> None:
        """Nobody waits any more; an answer that is being written ends at its next token."""
        self._gone, self._asked = True, None  # the line keeps the ticket until its turn comes
        self.answer.cancel()

    def write(self, engine: Engine) -> Answer:
        """The answer, written in the engine's thread.

        Raises:
            Gone: nobody waits any more.
            RuntimeError: the engine raised StopIteration, which a future cannot hold: nobody would ever be told.
        """
        if (asked := self._asked) is None:
            raise Gone
        try:
            return engine.answer(asked, self._tell)
        except StopIteration as error:
            raise RuntimeError("the engine raised StopIteration") from error

    def _tell(self, text: str, decision: Decision | None) -> None:
        if self._gone:
            raise Gone
        self.latest = (text, decision)
        self._loop.call_soon_threadsafe(self._news.set)

    def wake(self, _: object = None) -> None:
        """Ends the waiting for more."""
        self._news.set()


class RequestQueue:
    """The line before an engine.

    Args:
        engine: answers the requests.
        most: so many may wait or be answered at once.
        largest: so many bytes their bodies may have together; a single one may have more.
    """

    def __init__(self, engine: Engine, most: int, largest: int = WAITING_BYTES) -> None:
        self.engine = engine
        self._most, self._largest, self._bytes = most, largest, 0
        self._open: set[Ticket] = set()
        self._thread = ThreadPoolExecutor(1, "asa-engine")

    def ask(self, asked: Asked, size: int = 0) -> Ticket:
        """Puts a request, whose body had `size` bytes, in the line.

        Raises:
            Busy: there is no room.
        """
        if len(self._open) >= self._most or (self._open and self._bytes + size > self._largest):
            raise Busy
        ticket = Ticket(asked)
        self._open.add(ticket)
        self._bytes += size
        ticket.answer = asyncio.get_running_loop().run_in_executor(self._thread, ticket.write, self.engine)
        ticket.answer.add_done_callback(ticket.wake)
        ticket.answer.add_done_callback(lambda _: self._ended(ticket, size))
        return ticket

    def _ended(self, ticket: Ticket, size: int) -> None:
        self._open.discard(ticket)
        self._bytes -= size

    def close(self) -> None:
        """Ends all answers."""
        for ticket in list(self._open):
            ticket.leave()
        self._thread.shutdown(wait=False, cancel_futures=True)
