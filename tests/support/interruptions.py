"""A process that is interrupted or killed at one of the calls with which it changes a folder."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest

CALLS = ("mkdir", "rename", "replace", "rmdir", "unlink", "fsync")


class Killed(BaseException):
    """What is raised in place of a signal."""


def break_off(patch: pytest.MonkeyPatch, at: int, *, dead: bool = False, done_first: bool = False) -> None:
    """Makes one of the following calls raise.

    Args:
        patch: undoes it.
        at: which call, counted from 1.
        dead: whether all later calls raise too, since a dead process cleans up nothing.
        done_first: whether the call does its work before it raises.
    """
    count = 0

    def breaking(call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and done_first:
            with contextlib.suppress(OSError):
                call(*given, **more)
        if count == at or (dead and count > at):
            raise Killed
        return call(*given, **more)

    for name in CALLS:
        real = getattr(os, name)
        patch.setattr(os, name, lambda *given, real=real, **more: breaking(real, *given, **more))
