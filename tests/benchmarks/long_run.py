"""What a whole training costs, how well its first stage foretells that, and what a stop costs; for `speed.py`.

The training is stopped behind its screen, as Ctrl-C would, and called again: what it had finished is read from the
folder. The time of both calls together is that of one training without a stop, and a little more.
"""

import contextlib
import io
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

from asa_adapter import ASATrainer, ASATrainingArguments
from asa_adapter.modeling import progress
from asa_adapter.search.strategy import Search

_UNITS = {"h": 3600, "min": 60, "s": 1}


def measured(
    model: Any, tokenizer: Any, splits: Mapping[str, Sequence[Any]], settings: Mapping[str, Any], every: float
) -> dict[str, Any]:
    """One training.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        splits: the rows.
        settings: training arguments.
        every: seconds between two lines of progress, and until the forecast.
    """
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(progress, "_EVERY", every),
        contextlib.redirect_stderr(said),
    ):
        trainer = ASATrainer(model, tokenizer, splits, ASATrainingArguments(output_dir=folder, **settings))
        with mock.patch.object(Search, "decide", side_effect=KeyboardInterrupt):
            first = _called(trainer)
        before = dict(trainer.report["seconds"])
        second = _called(trainer)
    seconds = trainer.report["seconds"]
    again = {name: seconds[name] for name in before if name != "fit"}  # nothing of the fit is kept
    whole = {key: first[key] + second[key] - (0 if key == "cpu" else sum(again.values())) for key in first}
    lines = said.getvalue().splitlines()
    forecast = next((_seconds(line) for line in lines if "rough estimate" in line), None)
    return {
        "cpu_seconds": whole["cpu"],
        "wall_seconds": whole["wall"],
        "stages": {**before, **{name: seconds[name] for name in seconds if name not in before}},
        "forecast_over_wall": forecast and forecast / whole["wall"],
        "read_again_over_computed": sum(again.values()) / sum(before[name] for name in again),
        "every": every,
        "lines": lines,
    }


def _called(trainer: ASATrainer) -> dict[str, float]:
    """CPU and wall time of a training, which may be interrupted."""
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _seconds(line: str) -> int:
    """The time in words that a line holds, as `progress.span` writes it, in seconds."""
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+) (h|min|s)\b", line))
