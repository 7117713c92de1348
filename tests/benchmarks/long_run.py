"""What a whole training costs, how well its first stage foretells that, and what a second call costs; for `speed.py`.

The second call finds all stages in the folder, as one does that follows a stop at the very end.
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

_UNITS = {"h": 3600, "min": 60, "s": 1}


def measured(
    model: Any, tokenizer: Any, splits: Mapping[str, Sequence[Any]], settings: Mapping[str, Any], every: float
) -> dict[str, Any]:
    """One training, called twice.

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
        first, stages = _called(trainer), dict(trainer.report["seconds"])
        lines = said.getvalue().splitlines()
        again = _called(trainer)
    forecast = next((_seconds(line) for line in lines if "estimated anew" in line), None)
    return {
        "cpu_seconds": first["cpu"],
        "wall_seconds": first["wall"],
        "stages": stages,
        "forecast_over_wall": forecast and forecast / first["wall"],
        "again_over_first": again["cpu"] / first["cpu"],
        "every": every,
        "lines": lines,
    }


def _called(trainer: ASATrainer) -> dict[str, float]:
    """CPU and wall time of a training."""
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.train()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _seconds(line: str) -> int:
    """The time in words that a line holds, as `progress.time_in_words` writes it, in seconds."""
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+) (h|min|s)\b", line))
