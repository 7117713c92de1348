"""`LabelledFolder`: labelled splits, written one by one, so that the same command goes on after a break."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asa_adapter.data.rows import read_tools, row_domain
from asa_adapter.data.sources import SPLITS, read_parts
from asa_adapter.data.splits import split_rows
from asa_adapter.errors import visible
from asa_adapter.files import make_writable_folder, read_jsonl, sha256, write_atomic
from asa_adapter.labelling.trial import prompts_and_results
from asa_adapter.strict_json import strict_json
from asa_adapter.summary.markdown import escaped, table

NAME = "labels.json"


class LabelledFolder:
    """The splits of a data set on their way to their labels.

    `labels.json` in the folder says what they were made from and how, so that a second run goes on with the splits
    that are missing, and never mixes labels of two kinds.

    Args:
        source: the data, as `load_splits` takes it, but without labels.
        settings: what the labels depend on besides the data, as JSON has it.
        folder: where to write.

    Attributes:
        parts: the rows of each split by name, or of one set that is yet to be split.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: no rows can be read, or JSON cannot hold one.
    """

    def __init__(self, source: Any, settings: Mapping[str, Any], folder: str | Path) -> None:
        self._folder = Path(folder)
        self.parts, tools_file = read_parts(source)
        self._tools = None if tools_file is None else read_tools(tools_file)
        lines = [_labelled_line(row, rows.place(i)) for rows in self.parts.values() for i, row in enumerate(rows)]
        self._made = {**settings, "data_sha256": sha256("\n".join(lines).encode())}

    def check(self, answers: str) -> None:
        """Refuses rows that cannot be tried, before any model is loaded.

        Args:
            answers: the name of the column with the expected answers.

        Raises:
            ValueError: as `label_by_trying` raises it, with the name of the split.
        """
        for rows in self.parts.values():
            prompts_and_results(rows, answers, rows.place)

    def open(self) -> list[str]:
        """Makes the folder, or finds it as an earlier run left it.

        Returns:
            The names of the splits that are there already.

        Raises:
            ValueError: the folder holds rows that are not this run's, which are not overwritten.
            OSError: it cannot be written to.
        """
        there = [name for name in SPLITS if self._file(name).is_file()]
        if (self._folder / NAME).is_file():
            self._refuse_others()
        elif there:
            raise ValueError(
                f"{self._folder} holds {there[0]}.jsonl, but no {NAME} that says how it was made; expected a folder "
                "of this command, or a new one: give another output"
            )
        make_writable_folder(self._folder)
        write_atomic(self._folder / NAME, json.dumps(self._made, indent=2, ensure_ascii=False) + "\n")
        if self._tools is not None:
            write_atomic(self._folder / "tools.json", json.dumps(self._tools, indent=2, ensure_ascii=False) + "\n")
        return there

    def _refuse_others(self) -> None:
        """Refuses a folder of labels that were made from other data or in another way."""
        path = self._folder / NAME
        try:
            found = strict_json(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not valid JSON: {error}; give another output") from error
        found = found if isinstance(found, dict) else {}
        if others := [name for name, value in self._made.items() if found.get(name) != value]:
            name = others[0]
            raise ValueError(
                f"{self._folder} holds labels made with {name} {visible(repr(found.get(name)))}, this run has "
                f"{self._made[name]!r}; give another output, or remove the folder"
            )

    def missing(self, done: Sequence[str]) -> list[str]:
        """The names of the parts that have no labels yet, where the splits `done` have."""
        return [name for name in self.parts if not set(done) >= ({name} if name in SPLITS else set(SPLITS))]

    def counts(self) -> dict[str, dict[str, list[int]]]:
        """For each split and each domain the number of rows with label 0 and with label 1."""
        counts: dict[str, dict[str, list[int]]] = {}
        for split in filter(lambda name: self._file(name).is_file(), SPLITS):
            domains = counts.setdefault(split, {})
            for _, row in read_jsonl(self._file(split)):
                domains.setdefault(row_domain(row), [0, 0])[row["label"]] += 1
        return counts

    def write(self, name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
        """Writes the labelled rows of a part: a split of that name, or four where one set was given.

        Args:
            name: of the part.
            rows: its rows, with labels.
            seed: of the split of one set.
        """
        splits = {name: rows} if name in SPLITS else split_rows(rows, seed)
        for split, part in splits.items():
            write_atomic(self._file(split), "".join(_labelled_line(row, split) + "\n" for row in part))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"


def labels_table(counts: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    """The `counts` of a `LabelledFolder` as a Markdown table by domain, and which splits have one label only.

    Example:
        >>> print(labels_table({"cal": {"math": [3, 1]}, "test": {"math": [4, 0], "text": [0, 2]}}))
        | domain | rows | need a tool | share |
        |---|---:|---:|---:|
        | math | 8 | 1 | 0.125 |
        | text | 2 | 2 | 1.000 |
        | all | 10 | 3 | 0.300 |
    """
    domains: dict[str, list[int]] = {}
    for found in counts.values():
        for domain, numbers in found.items():
            domains[domain] = [a + b for a, b in zip(domains.get(domain, [0, 0]), numbers, strict=True)]
    domains = dict(sorted(domains.items()))
    lines = [*domains.items(), ("all", [sum(column) for column in zip(*domains.values(), strict=True)])]
    cells = [[escaped(name), str(a + b), str(b), f"{b / (a + b):.3f}"] for name, (a, b) in lines]
    text = table(["domain", "rows", "need a tool", "share"], cells, numbers=3)
    for split, found in counts.items():
        totals = [sum(column) for column in zip(*found.values(), strict=True)]
        if 0 in totals:
            text += (
                f"\n\n{split}: every label is {totals.index(0) ^ 1}; training expects rows of both labels: add easier "
                "or harder rows, or change how many failures make a label"
            )
    return text


def _labelled_line(row: Any, where: str) -> str:
    """A labelled row as a line of its file."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}; expected what JSON can hold") from error
