"""What the recipes share: rows from wherever they are, a model, tables, errors of one line."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter.hub import metrics_table

RATIOS = ("precision", "recall", "f1", "accuracy", "fpr")


def load_model(name: str) -> tuple[Any, Any]:
    """Model and tokenizer by folder or Hub id: on the GPU in the checkpoint's precision, else in float32."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cuda = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(name)
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto" if cuda else torch.float32)
    return model.to("cuda" if cuda else "cpu").eval(), tokenizer


def rows_of_file(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list or of JSON lines; parquet as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else than objects is in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    if path.suffix == ".parquet":
        import datasets

        return list(datasets.Dataset.from_parquet(str(path)))
    text = path.read_text(encoding="utf-8")
    try:
        listed = text.lstrip().startswith("[")
        rows = json.loads(text) if listed else [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path}: neither a JSON list nor JSON lines: {error}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected JSON objects, one for each row")
    return list(rows)


def rows_of(source: str, split: str, config: str | None = None) -> list[dict[str, Any]]:
    """The rows of a local file, or of one split of a data set on the Hub.

    Raises:
        FileNotFoundError: it looks like a file, and there is none.
    """
    path = Path(source)
    if path.suffix in (".json", ".jsonl", ".parquet"):
        return rows_of_file(path)
    if path.exists():
        raise ValueError(f"{path}: expected a .json, .jsonl or .parquet file, or the id of a data set on the Hub")
    import datasets

    try:
        return list(datasets.load_dataset(source, config, split=split))
    except (OSError, ValueError) as error:
        raise OSError(
            f"cannot load {source!r} from the Hub ({type(error).__name__}); without network give a local file"
        ) from error


def write_splits(
    folder: Path, splits: Mapping[str, Iterable[Mapping[str, Any]]], tools: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Writes a folder that `load_splits` and `asa-adapter train --data` read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    if tools is not None:
        (folder / "tools.json").write_text(json.dumps(tools, indent=2) + "\n", encoding="utf-8")


def ratios(values: Sequence[float]) -> dict[str, float]:
    """Published precision, recall, F1, accuracy and FPR, in this order, by name."""
    return dict(zip(RATIOS, values, strict=True))


def show(title: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a heading and a table of one row each."""
    print(f"\n## {title}\n\n{metrics_table(results)}", flush=True)


def run(main: Callable[[], None]) -> int:
    """Runs a recipe; what the user can put right is said in one line, with exit status 2."""
    try:
        main()
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())[:600]}", file=sys.stderr)
        return 2
    return 0
