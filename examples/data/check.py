"""Check the data of this folder and print what its README states: ``python check.py`` (``--sample 40`` prints rows).

The process ends with status 1 if a bound is broken: counts, ids, gold calls that do not fit their tools, alike rows in
two files, or a label that words, first words, lengths or tool names give away.
"""

import argparse
import ast
import json
import operator
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

HERE = Path(__file__).resolve().parent
# Rows per domain and label.
EACH = {"cal": 40, "train": 40, "valid": 20, "test": 40, "german": 20}
TOOL_OF = {"math": "calculator", "code": "python_interpreter", "search": "web_search", "translation": "translator"}
KINDS = {
    "math": {1: {"exact", "story"}, 0: {"trivial", "mention", "done", "concept", "not_offered"}},
    "code": {1: {"output", "task"}, 0: {"explain", "given", "about", "write", "not_offered"}},
    "search": {1: {"recent", "volatile"}, 0: {"stable", "mention", "done", "not_offered"}},
    "translation": {
        1: {"into_other", "into_own"},
        0: {"edit", "language", "there", "mention", "not_offered"},
    },
}
# Without a calculator, Python can still do the sum.
ALSO_DOES = {"math": "python_interpreter"}
MAX_COSINE = 0.8
SAMPLE_SEED = 20261122
# Largest value allowed; a length AUC must be as far above one minus its bound.
BOUNDS = {
    "text": 0.85,
    "text, own fit": 0.85,
    "text, 5 folds of all rows": 0.85,
    "text + tools": 0.85,
    "length": 0.65,
    "first word": 0.65,
}
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}

Row = dict[str, Any]
Splits = dict[str, list[Row]]
View = Callable[[Row], str]


def read_rows(folder: Path) -> Splits:
    """Read the five files of a folder: stem to rows."""
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in EACH
    }


def offered(row: Row, common: list[Row]) -> dict[str, Row]:
    """The tools that a row offers by name: its own list, or else the folder's."""
    return {tool["name"]: tool for tool in row.get("tools", common)}


def text_of(row: Row) -> str:
    """What the user types."""
    return str(row["instruction"])


def first_word(row: Row) -> str:
    """The first word of what the user types, in lower case."""
    return text_of(row).lower().split()[0]


# --- Counts, pairs, tools, gold calls, alike rows: what is wrong, one line each


def count_faults(name: str, rows: list[Row]) -> Iterator[str]:
    """Look for an unbalanced file, kinds and languages that do not belong in it, and parted pairs."""
    counts = Counter((row["domain"], row["label"]) for row in rows)
    if counts != {(domain, label): EACH[name] for domain in KINDS for label in (0, 1)}:
        yield f"{name}: expected {EACH[name]} rows per domain and label, found {dict(counts)}"
    pairs = defaultdict(list)
    for row in rows:
        pairs[row["pair"]].append(row["label"])
        if row["kind"] not in KINDS[row["domain"]][row["label"]]:
            yield f"{row['id']}: no kind of {row['domain']} with label {row['label']} is called {row['kind']!r}"
        if row["language"] != ("de" if name == "german" else "en"):
            yield f"{row['id']}: language {row['language']!r} in {name}.jsonl"
    for pair, labels in pairs.items():
        if sorted(labels) != [0, 1]:
            yield f"{name}: pair {pair} has the labels {labels}, expected one row of each in this file"


def repeated(splits: Splits) -> Iterator[str]:
    """Look for ids and instructions that stand twice, whatever their case."""
    for key in ("id", "instruction"):
        for value, times in Counter(row[key].strip().lower() for rows in splits.values() for row in rows).items():
            if times > 1:
                yield f"{key} {value!r} stands {times} times"


def near_duplicates(splits: Splits) -> Iterator[str]:
    """Look for alike rows in two files: cosine of character 3-5-gram TF-IDF, within words and across them."""
    flat = [(name, row) for name, rows in splits.items() for row in rows]
    for analyzer in ("char", "char_wb"):
        vectors = TfidfVectorizer(analyzer=analyzer, ngram_range=(3, 5)).fit_transform(text_of(row) for _, row in flat)
        pairs = (vectors @ vectors.T).tocoo()
        for i, j, cosine in zip(pairs.row, pairs.col, pairs.data, strict=True):
            if i < j and cosine > MAX_COSINE and flat[i][0] != flat[j][0]:
                one, two = flat[i][1]["id"], flat[j][1]["id"]
                yield f"{one} and {two} are alike: cosine {cosine:.2f}, between files at most {MAX_COSINE}"


def tool_faults(row: Row, common: list[Row]) -> Iterator[str]:
    """Look for a kind that contradicts the offered tools, and for wrong gold calls."""
    tools, needed = offered(row, common), TOOL_OF[row["domain"]]
    if row["kind"] == "not_offered":
        if needed in tools or ALSO_DOES.get(row["domain"]) in tools:
            yield f"{row['id']}: is called not_offered, but a tool for it is offered: {sorted(tools)}"
    elif needed not in tools:
        yield f"{row['id']}: {needed} is not offered"
    if any(tool not in common for tool in row.get("tools", [])):
        yield f"{row['id']}: its tools are not those of tools.json"
    if len(row["gold_calls"]) != row["label"]:
        yield f"{row['id']}: {len(row['gold_calls'])} gold calls for label {row['label']}"
    for call in row["gold_calls"]:
        if call["name"] != needed:
            yield f"{row['id']}: the gold call is {call['name']}, expected {needed}"
            continue
        try:
            jsonschema.validate(call["arguments"], closed_schema(call["name"], common))
            check_arguments(row, call["arguments"])
        except (jsonschema.ValidationError, SyntaxError, ArithmeticError, ValueError) as error:
            yield f"{row['id']}: {call['arguments']}: {error}"


def closed_schema(name: str, common: list[Row]) -> Row:
    """The schema of a tool's arguments, closed: an argument that it does not name is a mistake."""
    (tool,) = (tool for tool in common if tool["name"] == name)
    return {**tool["parameters"], "additionalProperties": False}


def check_arguments(row: Row, arguments: dict[str, str]) -> None:
    """Check what a gold call says: sums evaluate, code compiles, the text to translate is in the prompt.

    Raises:
        ValueError: not arithmetic, a text that is not in the prompt, or an empty argument.
        SyntaxError: code or an expression that does not compile.
    """
    if not all(value.strip() for value in arguments.values()):
        raise ValueError("an argument is empty")
    if row["domain"] == "math":
        evaluate(ast.parse(arguments["expression"], mode="eval").body)
    if row["domain"] == "code":
        compile(arguments["code"], row["id"], "exec")
    if row["domain"] == "translation" and arguments["text"] not in text_of(row):
        raise ValueError(f"the text is not in {text_of(row)!r}")


def evaluate(node: ast.expr) -> float:
    """Evaluate numbers, + - * / ** % and signs without ``eval``.

    Raises:
        ValueError: anything else stands in it.
    """
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](evaluate(left), evaluate(right))
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")


# --- What shallow features give away


def word_scores(fit: list[Row], test: list[Row], view: View) -> np.ndarray:
    """p(label 1) of the test rows, shape (len(test),): 1-2-gram TF-IDF and logistic regression."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([view(row) for row in fit], [row["label"] for row in fit])
    return np.asarray(model.predict_proba([view(row) for row in test])[:, 1])


def folded_scores(rows: list[Row], view: View, folds: int = 5) -> np.ndarray:
    """p(label 1) of every row by the words of the other folds; both rows of a pair are in one fold."""
    scores = np.zeros(len(rows))
    for fit, test in GroupKFold(folds).split(rows, groups=[row["pair"] for row in rows]):
        scores[test] = word_scores([rows[i] for i in fit], [rows[i] for i in test], view)
    return scores


def own_scores(fit: list[Row], test: list[Row], view: View) -> np.ndarray:
    """p(label 1) of the test rows where every domain has a model of its own."""
    scores = np.zeros(len(test))
    for domain in TOOL_OF:
        mine = [i for i, row in enumerate(test) if row["domain"] == domain]
        own = [row for row in fit if row["domain"] == domain]
        scores[mine] = word_scores(own, [test[i] for i in mine], view)
    return scores


def by_domain(rows: list[Row], scores: np.ndarray, value: Callable[[Any, Any], float] = roc_auc_score) -> list[float]:
    """A value of labels and scores (the AUC) over all rows, then over each domain's."""
    labels = np.array([row["label"] for row in rows])
    domains = np.array([row["domain"] for row in rows])
    parts = [slice(None), *(domains == domain for domain in TOOL_OF)]
    return [float(value(labels[part], scores[part])) for part in parts]


def first_word_guesses(fit: list[Row], test: list[Row]) -> np.ndarray:
    """The label that each test row's first word mostly has in ``fit``; 0 for a word never met or undecided."""
    votes: Counter[str] = Counter()
    for row in fit:
        votes[first_word(row)] += 1 if row["label"] else -1
    return np.array([votes[first_word(row)] > 0 for row in test])


def measure(splits: Splits, common: list[Row]) -> dict[str, list[float]]:
    """Name of each measure to its values over all rows and each domain; on TEST, after CAL and TRAIN, if not said."""
    cal, train, valid, test = (splits[name] for name in ("cal", "train", "valid", "test"))
    fit, every = cal + train, cal + train + valid + test

    def text_and_tools(row: Row) -> str:
        return " ".join([text_of(row), *offered(row, common)])

    lengths = np.array([len(text_of(row)) for row in test])
    return {
        "text": by_domain(test, word_scores(fit, test, text_of)),
        "text, own fit": by_domain(test, own_scores(fit, test, text_of)),
        "text, fitted on CAL": by_domain(test, word_scores(cal, test, text_of)),
        "text, fitted on TRAIN": by_domain(test, word_scores(train, test, text_of)),
        "text, 5 folds of all rows": by_domain(every, folded_scores(every, text_of)),
        "text + tools": by_domain(test, word_scores(fit, test, text_and_tools)),
        "length": by_domain(test, lengths),
        "first word": by_domain(
            test, first_word_guesses(fit, test), lambda labels, guesses: (labels == guesses).mean()
        ),
    }


# --- The command


def row_faults(splits: Splits, common: list[Row]) -> Iterator[str]:
    """Say what is wrong with single rows, files and repeated values."""
    for name, rows in splits.items():
        yield from count_faults(name, rows)
        for row in rows:
            yield from tool_faults(row, common)
    yield from repeated(splits)


def bound_faults(measures: dict[str, list[float]]) -> Iterator[str]:
    """Say which measures are beyond their bounds."""
    for name, bound in BOUNDS.items():
        for where, value in zip(("all", *TOOL_OF), measures[name], strict=True):
            if value > bound or (name == "length" and value < 1 - bound):
                yield f"{name}, {where}: {value:.3f} is beyond the bound {bound}"


def print_counts(splits: Splits) -> None:
    """Print how many rows of each kind every file has."""
    print("| domain | label | kind | " + " | ".join(splits) + " |\n|" + " --- |" * (3 + len(splits)))
    for domain, labels in KINDS.items():
        for label, kinds in labels.items():
            for kind in sorted(kinds):
                counts = [
                    sum((row["domain"], row["label"], row["kind"]) == (domain, label, kind) for row in rows)
                    for rows in splits.values()
                ]
                print(f"| {domain} | {label} | {kind} | " + " | ".join(map(str, counts)) + " |")


def print_measures(measures: dict[str, list[float]]) -> None:
    """Print the table of the README."""
    print("\n| | all | " + " | ".join(TOOL_OF) + " |\n|" + " --- |" * 6)
    for name, values in measures.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def sample(splits: Splits, count: int) -> list[Row]:
    """Draw English rows, the same at every call."""
    rows = [row for name in splits if name != "german" for row in splits[name]]
    return random.Random(SAMPLE_SEED).sample(rows, count)


def main() -> None:
    """Print counts and measures, or a sample without labels; end with status 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files lie (default: beside this script)")
    parser.add_argument("--sample", type=int, metavar="N", help="print N random rows without their labels instead")
    options = parser.parse_args()
    splits = read_rows(options.folder)
    common = json.loads((options.folder / "tools.json").read_text(encoding="utf-8"))
    if options.sample is not None:
        for row in sample(splits, options.sample):
            print(f"{row['id']} [{', '.join(offered(row, common))}] {text_of(row)}")
        return
    measures = measure(splits, common)
    print_counts(splits)
    print_measures(measures)
    found = [*row_faults(splits, common), *near_duplicates(splits), *bound_faults(measures)]
    print(f"\nbroken bounds: {len(found)}", *found, sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
