"""Rows of a .csv file, whose cells are all texts."""

import csv
import io
from pathlib import Path
from typing import Any

from asa_adapter.files import read_data_text

_DELIMITERS = ",;\t"
_LABELS = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}


def read_csv(path: Path) -> list[tuple[int, Any]]:
    """The rows of a .csv file with the line on which each ends, its first line naming the columns.

    Commas, semicolons and tabs part cells. An empty cell is missing; a label may be 0 or 1, true or false, yes or no.
    Columns of lists hold JSON.

    Raises:
        ValueError: not UTF-8, a Git LFS pointer, a column without a name or named twice, more cells than columns in a
            line, or a cell that is too long.
    """
    try:
        text = read_data_text(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count), strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or []]
        if "" in columns or len(set(columns)) < len(columns):
            raise ValueError(f"{path}, line 1: the columns are {columns}; expected a name for each, and each once")
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        hint = "; rows with longer cells can be given as .jsonl" if "field limit" in str(error) else ""
        raise ValueError(f"{path}, line {reader.line_num + 1}: not valid CSV: {error}{hint}") from error
    for number, row in rows:
        if None in row:
            raise ValueError(
                f"{path}, line {number}: {len(columns) + len(row[None])} cells; expected {len(columns)}, one for each "
                'column (a text with commas stands in double quotes: "a, b")'
            )
    return [(number, _typed_cells(row)) for number, row in rows]


def _typed_cells(row: dict[str, str | None]) -> dict[str, Any]:
    """The cells of a row of a table: None where one is empty, and the label as a number."""
    cells: dict[str, Any] = {column: cell if cell and cell.strip() else None for column, cell in row.items()}
    if label := cells.get("label"):
        cells["label"] = _LABELS.get(label.strip().lower(), label)
    return cells
