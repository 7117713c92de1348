"""Where there is no terminal: one line a stage and minute, and one estimate of the whole."""

import io
import sys
from collections.abc import Callable

import pytest
from huggingface_hub import constants

from asa_adapter.modeling import progress
from asa_adapter.modeling.progress import Forecast, ProgressLines, progress_bar, say_progress, time_in_words


class Clock:
    """Says what time it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_says_each_minute_what_is_done_how_fast_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ProgressLines(800, "answers (base)", clock) as lines:
        for _ in range(8):
            clock.now += 25
            lines.update(100)
    assert capsys.readouterr().err == (
        "asa-adapter: answers (base): 300 of 800, 4 a second, about 2 min 5 s left\n"
        "asa-adapter: answers (base): 600 of 800, 4 a second, about 50 s left\n"
        "asa-adapter: answers (base): 800 of 800, in 3 min 20 s\n"
    )


def test_the_first_step_alone_foretells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ProgressLines(1000, "screen", clock) as lines:
        for seconds in (80, 70):
            clock.now += seconds
            lines.update(10)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "asa-adapter: screen: 10 of 1000, 0.125 a second",
        "asa-adapter: screen: 20 of 1000, 0.133 a second, about 2 h 2 min left",
    ]


def test_a_stage_below_a_minute_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ProgressLines(10, "fits", clock) as lines:
        clock.now += 59
        lines.update(10)
    assert capsys.readouterr().err == ""


def test_a_stage_that_is_broken_off_does_not_say_that_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = ProgressLines(10, "fits", clock)
    clock.now += 90
    lines.__exit__(KeyboardInterrupt)
    assert capsys.readouterr().err == ""


def test_the_first_minute_estimates_the_whole_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    whole = Forecast(1000, clock)
    for _ in range(5):
        clock.now += 30
        whole.worked(50)
    whole.say()
    assert capsys.readouterr().err == (
        "asa-adapter: estimated anew, at the speed of these rows: 10 min 0 s for the training; TEST comes on top\n"
    )


@pytest.mark.parametrize(("whole", "said"), [(100, ""), (900, "1 min 30 s")])
def test_a_short_first_stage_estimates_at_its_end_if_the_run_is_long(
    capsys: pytest.CaptureFixture[str], whole: float, said: str
) -> None:
    clock = Clock()
    forecast = Forecast(whole, clock)
    clock.now += 10
    forecast.worked(100)
    assert capsys.readouterr().err == ""
    forecast.say()
    assert said in capsys.readouterr().err if said else not capsys.readouterr().err


def test_times_in_words() -> None:
    assert [time_in_words(s) for s in (0.2, 59.4, 59.6, 3599.4, 3600, 90000)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "25 h 0 min",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "show", "disabled", "rank", "lines"),
    [
        (io.StringIO, True, None, "0", True),
        (io.StringIO, True, False, "0", True),
        (Terminal, True, None, "0", False),
        (io.StringIO, False, None, "0", False),
        (io.StringIO, True, True, "0", False),
        (io.StringIO, True, None, "1", False),
    ],
)
def test_lines_take_the_place_of_bars_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
    stream: Callable[[], io.StringIO],
    show: bool,
    disabled: bool | None,
    rank: str,
    lines: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", disabled)
    monkeypatch.setenv("RANK", rank)
    assert isinstance(progress_bar(3, "fits", show), progress.ProgressLines) == lines


def test_a_line_about_a_run_shows_no_strangers_text_raw(capsys: pytest.CaptureFixture[str]) -> None:
    say_progress("domains   1: \x1b[31mred\u202e 3")
    assert capsys.readouterr().err == "asa-adapter: domains   1: \\u001b[31mred\\u202e 3\n"
