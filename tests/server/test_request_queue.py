"""The line before an engine: what waits in it takes a bounded amount of memory."""

import asyncio
import gc
import threading
import weakref

import pytest
from scripted import ScriptedEngine

from asa_adapter.server.engine import Asked
from asa_adapter.server.request_queue import Busy, RequestQueue


def asked() -> Asked:
    return Asked(messages=[{"role": "user", "content": "hi"}])


def test_a_request_whose_client_left_before_its_turn_is_forgotten_at_once() -> None:
    go = threading.Event()

    async def line() -> None:
        desk = RequestQueue(ScriptedEngine(lambda _: "Well.", pace=lambda: go.wait(20)), 8)
        first, second = desk.ask(asked()), desk.ask(waiting := asked())
        seen = weakref.ref(waiting)
        del waiting
        second.leave()
        gc.collect()
        assert seen() is None
        go.set()
        assert (await first.answer).text == "Well."
        desk.close()

    try:
        asyncio.run(line())
    finally:
        go.set()


def test_bodies_that_wait_have_no_more_bytes_together_than_they_may() -> None:
    go = threading.Event()

    async def line() -> None:
        desk = RequestQueue(ScriptedEngine(lambda _: "Well.", pace=lambda: go.wait(20)), 8, 100)
        first, second = desk.ask(asked(), 60), desk.ask(asked(), 40)
        with pytest.raises(Busy):
            desk.ask(asked(), 1)
        second.leave()
        await asyncio.sleep(0)  # the desk hears of its end
        third = desk.ask(asked(), 40)
        go.set()
        assert [(await ticket.answer).text for ticket in (first, third)] == ["Well."] * 2
        await asyncio.sleep(0)
        alone = desk.ask(asked(), 1000)
        assert (await alone.answer).text == "Well."
        desk.close()

    try:
        asyncio.run(line())
    finally:
        go.set()
