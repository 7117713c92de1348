from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asa_adapter.measurement.stage_files import Stages, stage_digest
from asa_adapter.tool_calls.outcomes import Answer


class Counting:
    """Something to compute, and how often it was."""

    def __init__(self, value: Any) -> None:
        self.value, self.times = value, 0

    def __call__(self, keys: list[str] | None = None) -> Any:
        self.times += 1
        return self.value if keys is None else dict.fromkeys(keys, self.value)


def answers_of(stages: Stages, name: str, compute: Any) -> Any:
    """The answers of one stage."""
    return stages.answers(name, {"one": {}}, compute)["one"]


ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}


def test_a_stage_is_computed_once_and_read_back_exactly(tmp_path: Path) -> None:
    compute = Counting(ARRAYS)
    for stages in (Stages(tmp_path, {"model": "m"}), Stages(tmp_path, {"model": "m"})):
        found = stages.arrays("states", {"prompts": "p"}, compute)
        assert all(np.array_equal(found[name], value) for name, value in ARRAYS.items())
        assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in ARRAYS.items()}
    assert compute.times == 1
    assert stages.reused == ["states"]


def test_answers_come_back_as_written_and_know_whether_they_were_cut(tmp_path: Path) -> None:
    compute = Counting([Answer(""), Answer("a\nb", cut=True), Answer("ü <|x|>"), Answer("\ud83d", cut=True)])
    for _ in range(2):
        found = answers_of(Stages(tmp_path), "answers", compute)
        assert found == compute.value
        assert [answer.cut for answer in found] == [False, True, False, True]
    assert compute.times == 1


def test_answers_that_are_missing_are_computed_together(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def compute(keys: list[str]) -> dict[str, list[Answer]]:
        asked.append(keys)
        return {key: [Answer(key)] for key in keys}

    a, b, c = ({"adapter": name} for name in "abc")
    Stages(tmp_path).answers("t", {"b": b}, compute)
    found = Stages(tmp_path).answers("t", {"a": a, "b": b, "c": c}, compute)
    assert found == {"a": ["a"], "b": ["b"], "c": ["c"]}
    assert list(found) == ["a", "b", "c"]
    assert asked == [["b"], ["a", "c"]]


@pytest.mark.parametrize(
    ("name", "model", "depends"),
    [("states", "m", {"prompts": "q"}), ("states", "n", {"prompts": "p"}), ("others", "m", {"prompts": "p"})],
)
def test_a_changed_input_is_another_stage(tmp_path: Path, name: str, model: str, depends: dict[str, str]) -> None:
    first, second = Counting(ARRAYS), Counting(ARRAYS)
    Stages(tmp_path, {"model": "m"}).arrays("states", {"prompts": "p"}, first)
    Stages(tmp_path, {"model": model}).arrays(name, depends, second)
    Stages(tmp_path, {"model": "m"}).arrays("states", {"prompts": "p"}, first)
    assert (first.times, second.times) == (1, 1)


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"{", b'{"a": 1}', b"[1]", b'["x"]'])
def test_a_damaged_stage_is_computed_again(tmp_path: Path, content: bytes) -> None:
    arrays, texts = Counting(ARRAYS), Counting([Answer("x")])
    stages = Stages(tmp_path)
    stages.arrays("a", {}, arrays)
    answers_of(stages, "t", texts)
    for path in tmp_path.iterdir():
        path.write_bytes(content)
    assert answers_of(stages, "t", texts) == ["x"]
    assert np.array_equal(stages.arrays("a", {}, arrays)["a"], ARRAYS["a"])
    assert (arrays.times, texts.times) == (2, 2)


def test_a_break_while_computing_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(_keys: list[str]) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers_of(Stages(tmp_path / "stages"), "t", interrupted)
    assert not (tmp_path / "stages").exists()


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, _content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot keep the stage 't' in .*No space left on device.*run the same command"):
        answers_of(Stages(tmp_path), "t", Counting([Answer("x")]))
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_a_stage_is_kept_in_memory() -> None:
    compute, stages = Counting([Answer("x")]), Stages(None)
    assert answers_of(stages, "t", compute) == answers_of(stages, "t", compute) == ["x"]
    assert compute.times == 1
    assert answers_of(Stages(None), "t", compute) == ["x"]
    assert compute.times == 2


def test_a_digest_tells_values_types_and_cuts_apart() -> None:
    zeros = np.zeros(4, dtype=np.float32)
    found = {
        stage_digest(zeros),
        stage_digest(zeros.reshape(2, 2)),
        stage_digest(zeros.view(np.int32)),
        stage_digest(b"ab", b"c"),
        stage_digest(b"a", b"bc"),
        stage_digest([1, 2]),
        stage_digest([2, 1]),
    }
    assert len(found) == 7
    assert stage_digest(zeros) == stage_digest(np.zeros(4, dtype=np.float32))
