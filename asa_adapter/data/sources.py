"""Where labelled rows come from: folders, files, data sets, tables and the Hub, each read as plain rows."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asa_adapter.data.csv_tables import read_csv
from asa_adapter.files import looks_like_path, read_jsonl

SPLITS = ("cal", "train", "valid", "test")

# What the splits are called elsewhere.
_NAMES = (
    {name: name for name in SPLITS} | {"calibration": "cal"} | dict.fromkeys(("validation", "val", "dev"), "valid")
)
_READERS: dict[str, Callable[[Path], list[tuple[int, Any]]]] = {".jsonl": read_jsonl, ".csv": read_csv}
_EXPECTED = "cal, train, valid and test; train, validation and test; train and test; or one to be split here"

_YES = {"1", "true", "yes", "y", "positive", "pos"}
_NO = {"0", "false", "no", "n", "negative", "neg"}
_NEED = {"tool", "call", "function", "need", "needed", "required", "necessary"}
_NEGATION = re.compile(r"\b(?:not|no|non|none|never|without|don t)\b|\b(?:un|non)(?=need|necess|requir)")
_FILLER = {"a", "an", "any", "are", "be", "do", "does", "is", "s", "the", "to"}


class SourcePart(list[Any]):
    """The rows of one split or set, and where each of them stands.

    Args:
        rows: the rows.
        name: of the split, the set or the file.
        lines: the line of each row, from 1, where they are from a file.
    """

    def __init__(self, rows: Iterable[Any], name: str, lines: Sequence[int] = ()) -> None:
        super().__init__(rows)
        self._name, self._lines = name, lines

    def place(self, i: int) -> str:
        """How errors name row `i`: by its line, which is counted from 1, else by its number, which is from 0."""
        return f"{self._name}, line {self._lines[i]}" if self._lines else f"{self._name}, row {i}"


def split_of(name: str) -> str:
    """Our name for a split that a file, or a part of a data set, is named after; its own name if there is none."""
    return _NAMES.get(Path(name).stem, name)


def read_parts(source: Any) -> tuple[dict[str, SourcePart], Path | None]:
    """The rows of the splits, or of one set to be split, and the file of tools beside them, if there is one.

    Args:
        source: what `load_splits` takes.

    Returns:
        Rows by split, under our names for them ("valid" for "validation"): all of `SPLITS`, or "train" with some of
        the others but without "cal", or one set under any name; and the path of tools.json.

    Raises:
        FileNotFoundError: no such file, folder or data set on the Hub, or a split's file is missing.
        ValueError: no rows can be read from it, it has other splits, or the names of its classes do not say which of
            them needs a tool.
    """
    import datasets

    if not isinstance(source, str | Path):
        return _parts_of_data(source), None
    path = Path(source)
    if path.is_dir() and (only := _only_file(path)):
        path = only
    if path.is_dir():
        return {name: _part_of_file(file, file.name) for name, file in _split_files(path).items()}, _tools_file(path)
    if path.suffix in _READERS:
        return {path.name: _part_of_file(path, path.name)}, _tools_file(path.parent)
    if path.exists():
        raise ValueError(f"{source}: expected a folder of train.jsonl and other splits, or one .jsonl or .csv file")
    if isinstance(source, Path) or looks_like_path(source):
        raise FileNotFoundError(f"no such file or folder: {source}")
    try:
        return _parts_of_data(datasets.load_dataset(source)), None
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(f"no file or folder {source!r} here, and from the Hub: {error}") from error


def labels_of_classes(names: Sequence[str], where: str) -> list[int]:
    """The label of each of two classes of a data set by their names: 1 for the one that needs a tool.

    `class_encode_column` sorts names, so that "needed" comes before "not needed": their order says nothing.

    Raises:
        ValueError: not two names, or they do not say which of them needs a tool.

    Example:
        >>> labels_of_classes(["needed", "not needed"], "train")
        [1, 0]
    """
    plain = [" ".join(re.findall(r"[a-z0-9]+", name.lower())) for name in names]
    if len(plain) == 2:
        for yes in (0, 1):
            if _is_opposite(plain[yes], plain[1 - yes]):
                return [int(i == yes) for i in (0, 1)]
    raise ValueError(
        f"{where}: the classes of label are {list(names)}, which do not say which of them needs a tool; expected "
        "['0', '1'], or names such as 'needed' and 'not needed'"
    )


def _is_opposite(yes: str, no: str) -> bool:
    """Whether the first class name says that a tool is needed, and the second that none is."""
    if yes in _YES and no in _NO:
        return True
    if _NEGATION.search(yes) or not _NEGATION.search(no):
        return False
    words, others = (
        {word.rstrip("s") for word in name.split() if word not in _FILLER} for name in (yes, _NEGATION.sub(" ", no))
    )
    return bool(_NEED & words) and others <= words


def _tools_file(folder: Path) -> Path | None:
    return folder / "tools.json" if (folder / "tools.json").is_file() else None


def _only_file(folder: Path) -> Path | None:
    """The one file of rows in a folder, if it is not named as a split."""
    found = [path for path in folder.iterdir() if path.suffix in _READERS]
    return found[0] if len(found) == 1 and found[0].stem not in _NAMES else None


def _split_files(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder, by our name for it."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix in _READERS and path.stem in _NAMES):
        name = _NAMES[path.stem]
        if name in found:
            raise ValueError(f"{folder} has both {found[name].name} and {path.name}; expected one file for {name}")
        found[name] = path
    if not _is_complete(found):
        missing = next(name for name in SPLITS if name not in found)
        raise FileNotFoundError(
            f"{folder} has no {'train' if 'cal' not in found and 'train' not in found else missing}.jsonl; expected "
            f"{_EXPECTED}, each as .jsonl or .csv"
        )
    return {name: found[name] for name in SPLITS if name in found}


def _is_complete(names: Iterable[str]) -> bool:
    """Whether these are splits to train with: all of ours, or train, of which those that are missing are taken."""
    given = {*names}
    return given == {*SPLITS} or (given < {*SPLITS} and "train" in given and "cal" not in given)


def _part_of_file(path: Path, name: str) -> SourcePart:
    """The rows of one data file, with their lines."""
    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}")
    rows = _READERS[path.suffix](path)
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found a {type(row).__name__}")
    if not rows:
        raise ValueError(f"{path}: there are no rows; expected labelled prompts")
    return SourcePart([row for _, row in rows], name, [number for number, _ in rows])


def _parts_of_data(loaded: Any) -> dict[str, SourcePart]:
    """The splits of a DatasetDict, or the one set to be split."""
    if not isinstance(loaded, Mapping):
        return {"data": SourcePart(_rows_of_source(loaded, "data"), "data")}
    if set(SPLITS) <= set(loaded):
        given = {name: loaded[name] for name in SPLITS}
    elif len(loaded) == 1:  # one set to be split, whatever it is called
        given = {"data" if name in ("cal", "valid", "test") else name: rows for name, rows in loaded.items()}
    else:
        given = {_NAMES.get(str(name), str(name)): rows for name, rows in loaded.items()}
        if len(given) < len(loaded) or not _is_complete(given):
            raise ValueError(f"the data has splits {sorted(map(str, loaded))}; expected {_EXPECTED}")
        given = {name: given[name] for name in SPLITS if name in given}
    return {str(name): SourcePart(_rows_of_source(rows, str(name)), str(name)) for name, rows in given.items()}


def _rows_of_source(data: Any, name: str) -> list[Any]:
    """The rows of a data set, a table or any series of rows, without what its storage added to them.

    Columns of Arrow give each object the keys of all objects in the column, None where they were absent; those keys
    are left out again. So is a key whose value was None before it was stored.
    """
    import datasets
    import pandas
    import pyarrow

    if isinstance(data, datasets.Dataset | datasets.IterableDataset):
        return _rows_of_dataset_source(data, name)
    if isinstance(data, pandas.Series):
        raise ValueError(f"{name}: found a pandas Series, which is one column; expected a DataFrame with all columns")
    columns = list(data.columns) if isinstance(data, pandas.DataFrame) else getattr(data, "column_names", None) or []
    if double := next((column for i, column in enumerate(columns) if column in columns[:i]), None):
        raise ValueError(f"{name}: there are two columns {double!r:.80}; expected each column once")
    if isinstance(data, pandas.DataFrame):
        rows = [{column: _present_cell(cell) for column, cell in row.items()} for row in data.to_dict("records")]
        return [_without_absent(row) for row in rows]
    if hasattr(data, "__arrow_c_stream__"):  # tables of Arrow, polars and others
        return [_without_absent(row) for row in pyarrow.table(data).to_pylist()]
    if isinstance(data, str | bytes | Mapping):
        raise ValueError(f"cannot read rows from a {type(data).__name__}")
    try:
        return list(data)
    except TypeError as error:
        raise ValueError(f"cannot read rows from a {type(data).__name__}") from error


def _present_cell(cell: Any) -> Any:
    """A cell of a DataFrame; None where it is one of the values that pandas has for a missing one."""
    import pandas

    return None if pandas.api.types.is_scalar(cell) and pandas.isna(cell) else cell


def _rows_of_dataset_source(data: Any, name: str) -> list[Any]:
    """Rows with plain values, whatever the format; classes are given as their names, those of label as 0 and 1."""
    import datasets

    if (getattr(data, "format", None) or {}).get("type") != "custom":  # a transform of the user's makes the rows
        data = data.with_format(None)
    readers: dict[str, Callable[[Any], Any]] = {}
    for column, feature in (data.features or {}).items():
        if isinstance(feature, datasets.ClassLabel):
            named: list[Any] = list(feature.names)
            readers[column] = _class_reader(labels_of_classes(named, name) if column == "label" else named)
        else:
            readers[column] = functools.partial(_without_absent, feature=feature)
    return [
        {column: readers.get(column, _as_it_is)(value) for column, value in row.items()}
        if isinstance(row, Mapping)
        else row
        for row in data
    ]


def _as_it_is(value: Any) -> Any:
    return value


def _class_reader(names: Sequence[Any]) -> Callable[[Any], Any]:
    """Reads the number of a class; None where it is -1, which data sets have for no class."""
    known: dict[Any, Any] = dict(enumerate(names)) | {-1: None}
    return lambda value: known.get(value, value) if isinstance(value, int) else value


def _without_absent(value: Any, feature: Any = None) -> Any:
    """A value of an Arrow column of a data set, without the keys that are None; `feature` is its type, where known."""
    if isinstance(value, Mapping) and (feature is None or isinstance(feature, Mapping)):
        inner = feature or {}
        return {k: _without_absent(part, inner.get(k)) for k, part in value.items() if part is not None}
    if isinstance(value, list | tuple) or type(value).__name__ == "ndarray":
        of_items = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        if feature is None or of_items is not None:
            return [_without_absent(part, of_items) for part in value]
    return value
