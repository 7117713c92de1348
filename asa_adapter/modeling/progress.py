"""`ProgressLines`: progress as text where no terminal shows a bar: in a log, a notebook's shell, a batch system."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from asa_adapter.errors import visible

# Seconds between two lines; work that takes less prints nothing.
_EVERY = 60.0


class ProgressLines:
    """A line a minute on stderr about one stage of work; a context manager with tqdm's `update`.

    Args:
        total: number of steps.
        name: what the lines begin with.
        clock: returns the time in seconds.
    """

    def __init__(self, total: int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._name, self._clock = total, name, clock
        self._done = self._updates = 0
        self._began = self._said = clock()

    def update(self, n: int = 1) -> None:
        """Notes that `n` more steps are done."""
        self._done += n
        self._updates += 1
        if (whole := _FORECAST.get()) is not None:
            whole.worked(n)
        now = self._clock()
        if now - self._said >= _EVERY and self._done < self._total:
            self._said = now
            rate = self._done / (now - self._began)
            # The first step has more to do than those that follow: what all prompts begin with is run in it.
            left = f", about {time_in_words((self._total - self._done) / rate)} left" if self._updates > 1 else ""
            say_progress(f"{self._name}: {self._done} of {self._total}, {rate:.3g} a second{left}")

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        took = self._clock() - self._began
        if kind is None and took >= _EVERY:
            say_progress(f"{self._name}: {self._done} of {self._total}, in {time_in_words(took)}")


def progress_bar(total: int, name: str, show: bool) -> Any:
    """A tqdm bar with count and ETA, or `ProgressLines` where stderr is no terminal, to be used as a context manager.

    It is hidden if `show` is False or `HF_HUB_DISABLE_PROGRESS_BARS` is set, and in all processes but the main one.

    Args:
        total: number of steps.
        name: text in front of the bar.
        show: whether to show it.
    """
    shown = show and os.environ.get("RANK", "0") == "0"
    if shown and not sys.stderr.isatty() and not constants.HF_HUB_DISABLE_PROGRESS_BARS:
        return ProgressLines(total, name)
    return tqdm(total=total, desc=name, disable=None if shown else True, smoothing=0.1)


class Forecast:
    """Says once how long a whole run will take: after a minute of its first stage, or at its end if it is shorter.

    Args:
        whole: all work of the run, in steps of its first stage.
        clock: returns the time in seconds.
    """

    def __init__(self, whole: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._whole, self._clock = whole, clock
        self._done, self._said = 0, False
        self._began = clock()

    def worked(self, n: int) -> None:
        """Notes that `n` more steps are done."""
        self._done += n
        if self._clock() - self._began >= _EVERY:
            self.say()

    def say(self) -> None:
        """Says it, if it was not said, some work was done, and the run will take more than a minute."""
        if self._said or not self._done:
            return
        seconds = (self._clock() - self._began) * self._whole / self._done
        if seconds >= _EVERY:
            self._said = True
            whole = f"{time_in_words(seconds)} for the training; TEST comes on top"
            say_progress(f"estimated anew, at the speed of these rows: {whole}")


_FORECAST: ContextVar[Forecast | None] = ContextVar("forecast", default=None)


@contextlib.contextmanager
def forecast(whole: float) -> Iterator[None]:
    """Inside the `with` block, a run's first stage, its lines say how long all of it will take; see `Forecast`."""
    found = Forecast(whole)
    token = _FORECAST.set(found)
    try:
        yield
        found.say()
    finally:
        _FORECAST.reset(token)


def time_in_words(seconds: float) -> str:
    """A time in words, for a line of progress.

    Example:
        >>> time_in_words(42), time_in_words(150), time_in_words(9000)
        ('42 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def say_progress(text: str) -> None:
    """Prints a line about a run on stderr, in which no text of a stranger acts on the terminal."""
    sys.stderr.write(f"asa-adapter: {visible(text)}\n")
    sys.stderr.flush()
