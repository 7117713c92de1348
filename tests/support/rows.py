"""Labelled rows, files of them, and where the rows of splits are."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("cal", "train", "valid", "test")


def words(seed: int) -> str:
    """A text of its own: two of them share next to nothing."""
    generator = np.random.default_rng(seed)
    return " ".join("".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), 7)) for _ in range(5))


def labelled(count: int, first: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Rows with both labels in each of two domains."""
    return [
        {"id": f"r{i}", "instruction": words(i), "label": i % 2, "domain": ("math", "code")[i // 2 % 2], **changes}
        for i in range(first, first + count)
    ]


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def folder_of(path: Path, **changed: list[dict[str, Any]]) -> Path:
    """A folder of four splits, some of them given."""
    for k, name in enumerate(SPLITS):
        write(path / f"{name}.jsonl", changed.get(name, labelled(4, first=10 * k)))
    return path


def by_id(splits: Mapping[str, Iterable[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for rows in splits.values() for row in rows}


def ids(splits: Mapping[str, Iterable[dict[str, Any]]]) -> dict[str, list[str]]:
    return {name: [row["id"] for row in rows] for name, rows in splits.items()}


def places(splits: Mapping[str, Iterable[dict[str, Any]]]) -> dict[str, str]:
    return {row["id"]: name for name, rows in splits.items() for row in rows}
