"""Check the data of this folder and print what its README states: ``python check.py`` (``--sample 40`` prints rows).

The process ends with status 1 if a bound is broken: counts, ids, gold calls that do not fit their tools, alike rows in
two splits, or a label that words, first words, lengths or tool names give away.
"""

import argparse
import ast
import json
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
SAMPLE_SEED = 20261122
MAX_COSINE = 0.8
# Largest value allowed for each printed measure; a length AUC may be on either side of one half.
BOUNDS = {
    "text": 0.85,
    "text, own fit": 0.85,
    "text, 5 folds of all rows": 0.85,
    "text + tools": 0.85,
    "length": 0.65,
    "first word": 0.65,
}

Row = dict[str, Any]
Splits = dict[str, list[Row]]
View = Callable[[Row], str]


def read_rows(folder: Path) -> Splits:
    """Read the five files.

    Args:
        folder: where they lie.

    Returns:
        File stem to its rows.
    """
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in EACH
    }


def offered(row: Row, common: list[Row]) -> dict[str, Row]:
    """Name the tools that a row offers.

    Args:
        row: one row.
        common: the folder's tools, for rows without a list of their own.

    Returns:
        Tool name to its schema.
    """
    return {tool["name"]: tool for tool in row.get("tools", common)}


def count_faults(splits: Splits) -> Iterator[str]:
    """Look for unbalanced files, odd kinds and repeated ids or texts.

    Args:
        splits: all rows.

    Yields:
        What is wrong.
    """
    for name, rows in splits.items():
        counts = Counter((row["domain"], row["label"]) for row in rows)
        if counts != {(domain, label): EACH[name] for domain in KINDS for label in (0, 1)}:
            yield f"{name}: expected {EACH[name]} rows per domain and label, found {dict(counts)}"
        for row in rows:
            if row["kind"] not in KINDS[row["domain"]][row["label"]]:
                yield f"{row['id']}: no kind of {row['domain']} with label {row['label']} is called {row['kind']!r}"
            if row["language"] != ("de" if name == "german" else "en"):
                yield f"{row['id']}: language {row['language']!r} in {name}.jsonl"
        for pair, labels in labels_by_pair(rows).items():
            if labels != [0, 1]:
                yield f"{name}: pair {pair} has the labels {labels}, expected one row of each here"
    every = [row for rows in splits.values() for row in rows]
    for key in ("id", "instruction"):
        for value, times in Counter(row[key].strip().lower() for row in every).items():
            if times > 1:
                yield f"{key} {value!r} stands {times} times"


def labels_by_pair(rows: list[Row]) -> dict[str, list[int]]:
    """Gather the labels of each pair of matched wordings.

    Args:
        rows: rows of one file.

    Returns:
        Pair to its sorted labels.
    """
    labels = defaultdict(list)
    for row in rows:
        labels[row["pair"]].append(row["label"])
    return {pair: sorted(found) for pair, found in labels.items()}


def tool_faults(row: Row, common: list[Row]) -> Iterator[str]:
    """Look for a label that contradicts the offered tools, and for wrong gold calls.

    Args:
        row: one row.
        common: the folder's tools.

    Yields:
        What is wrong.
    """
    tools, needed = offered(row, common), TOOL_OF[row["domain"]]
    if row["kind"] == "not_offered":
        if needed in tools or ALSO_DOES.get(row["domain"]) in tools:
            yield f"{row['id']}: a tool for it is offered: {sorted(tools)}"
    elif needed not in tools:
        yield f"{row['id']}: {needed} is not offered"
    if len(row["gold_calls"]) != row["label"]:
        yield f"{row['id']}: {len(row['gold_calls'])} gold calls for label {row['label']}"
    for call in row["gold_calls"]:
        if call["name"] != needed:
            yield f"{row['id']}: the gold call is {call['name']}, expected {needed}"
            continue
        try:
            jsonschema.validate(call["arguments"], tools[needed]["parameters"])
            check_arguments(row, call["arguments"])
        except (jsonschema.ValidationError, SyntaxError, ArithmeticError, ValueError) as error:
            yield f"{row['id']}: {call['arguments']}: {error}"


def check_arguments(row: Row, arguments: dict[str, str]) -> None:
    """Check what a gold call says: sums evaluate, code compiles, the text to translate is in the prompt.

    Args:
        row: the call's row.
        arguments: the call's arguments.

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
    if row["domain"] == "translation" and arguments["text"] not in row["instruction"]:
        raise ValueError(f"the text is not in {row['instruction']!r}")


def evaluate(node: ast.expr) -> float:
    """Evaluate an arithmetic expression without ``eval``.

    Args:
        node: parsed expression of numbers, + - * / ** % and signs.

    Returns:
        Its value.

    Raises:
        ValueError: anything else stands in it.
    """
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            return OPERATORS[type(operator)](evaluate(left), evaluate(right))
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")


OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
}


def near_duplicates(splits: Splits) -> Iterator[tuple[float, str, str]]:
    """Find alike rows of different files by character 3-5-gram TF-IDF, within words and across them.

    Args:
        splits: all rows.

    Yields:
        Cosine and the two ids.
    """
    flat = [(name, row) for name, rows in splits.items() for row in rows]
    for analyzer in ("char", "char_wb"):
        vectors = TfidfVectorizer(analyzer=analyzer, ngram_range=(3, 5)).fit_transform(
            [row["instruction"] for _, row in flat]
        )
        pairs = (vectors @ vectors.T).tocoo()
        for i, j, cosine in zip(pairs.row, pairs.col, pairs.data, strict=True):
            if i < j and cosine > MAX_COSINE and flat[i][0] != flat[j][0]:
                yield float(cosine), flat[i][1]["id"], flat[j][1]["id"]


def word_scores(fit: list[Row], test: list[Row], view: View) -> np.ndarray:
    """Score rows by their words: 1-2-gram TF-IDF and logistic regression.

    Args:
        fit: rows to fit on.
        test: rows to score.
        view: the text of a row.

    Returns:
        p(label 1), shape (len(test),).
    """
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([view(row) for row in fit], [row["label"] for row in fit])
    return np.asarray(model.predict_proba([view(row) for row in test])[:, 1])


def auc(rows: list[Row], scores: np.ndarray) -> float:
    """Area under the ROC curve.

    Args:
        rows: labelled rows.
        scores: one number a row.

    Returns:
        The area.
    """
    return float(roc_auc_score([row["label"] for row in rows], scores))


def by_domain(rows: list[Row], scores: np.ndarray) -> list[float]:
    """The AUC over all rows, then within each domain.

    Args:
        rows: labelled rows.
        scores: one number a row.

    Returns:
        One number for all, and one per domain.
    """
    masks = [np.array([row["domain"] == domain for row in rows]) for domain in TOOL_OF]
    return [auc(rows, scores)] + [
        auc([row for row, m in zip(rows, mask, strict=True) if m], scores[mask]) for mask in masks
    ]


def first_word_accuracy(fit: list[Row], test: list[Row]) -> list[float]:
    """Score the guess "the label that this first word mostly has"; a word never met counts as label 0.

    Args:
        fit: rows to count on.
        test: rows to score.

    Returns:
        Accuracy on all of ``test``, and per domain.
    """
    votes: Counter[str] = Counter()
    for row in fit:
        votes[row["instruction"].lower().split()[0]] += 1 if row["label"] else -1
    hits = np.array([(votes[row["instruction"].lower().split()[0]] > 0) == bool(row["label"]) for row in test])
    masks = [np.array([row["domain"] == domain for row in test]) for domain in TOOL_OF]
    return [float(hits.mean())] + [float(hits[mask].mean()) for mask in masks]


def own_fit(fit: list[Row], test: list[Row], view: View) -> list[float]:
    """Bag-of-words AUC where every domain has a model of its own.

    Args:
        fit: rows to fit on.
        test: rows to score.
        view: the text of a row.

    Returns:
        The mean over domains, and each domain's.
    """
    values = []
    for domain in TOOL_OF:
        mine = [row for row in test if row["domain"] == domain]
        values.append(auc(mine, word_scores([row for row in fit if row["domain"] == domain], mine, view)))
    return [float(np.mean(values)), *values]


def folded_scores(rows: list[Row], view: View, folds: int = 5) -> np.ndarray:
    """Score every row by words of the other folds; both rows of a pair are in one fold.

    Args:
        rows: all rows.
        view: the text of a row.
        folds: how many.

    Returns:
        p(label 1), shape (len(rows),).
    """
    scores = np.zeros(len(rows))
    for fit, test in GroupKFold(folds).split(rows, groups=[row["pair"] for row in rows]):
        scores[test] = word_scores([rows[i] for i in fit], [rows[i] for i in test], view)
    return scores


def measure(splits: Splits, common: list[Row]) -> dict[str, list[float]]:
    """Measure what shallow features give away on TEST, having seen CAL and TRAIN.

    Args:
        splits: all rows.
        common: the folder's tools.

    Returns:
        Name of the measure to its values: all rows, then each domain.
    """
    cal, train, valid, test = (splits[name] for name in ("cal", "train", "valid", "test"))
    every = cal + train + valid + test

    def text(row: Row) -> str:
        return str(row["instruction"])

    def text_and_tools(row: Row) -> str:
        return " ".join([text(row), *offered(row, common)])

    return {
        "text": by_domain(test, word_scores(cal + train, test, text)),
        "text, own fit": own_fit(cal + train, test, text),
        "text, fitted on CAL": by_domain(test, word_scores(cal, test, text)),
        "text, fitted on TRAIN": by_domain(test, word_scores(train, test, text)),
        "text, 5 folds of all rows": by_domain(every, folded_scores(every, text)),
        "text + tools": by_domain(test, word_scores(cal + train, test, text_and_tools)),
        "length": by_domain(test, np.array([len(text(row)) for row in test], dtype=float)),
        "first word": first_word_accuracy(cal + train, test),
    }


def print_counts(splits: Splits) -> None:
    """Print how many rows of each kind every file has.

    Args:
        splits: all rows.
    """
    print("| domain | label | kind | " + " | ".join(splits) + " |\n|" + " --- |" * (3 + len(splits)))
    for domain, labels in KINDS.items():
        for label, kinds in labels.items():
            for kind in sorted(kinds):
                cell = [
                    sum((row["domain"], row["label"], row["kind"]) == (domain, label, kind) for row in rows)
                    for rows in splits.values()
                ]
                print(f"| {domain} | {label} | {kind} | " + " | ".join(map(str, cell)) + " |")


def print_measures(measures: dict[str, list[float]]) -> None:
    """Print the table of the README.

    Args:
        measures: as returned by :func:`measure`.
    """
    print("\n| TEST | all | " + " | ".join(TOOL_OF) + " |\n|" + " --- |" * 6)
    for name, values in measures.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def faults(splits: Splits, common: list[Row], measures: dict[str, list[float]]) -> Iterator[str]:
    """Go through all bounds.

    Args:
        splits: all rows.
        common: the folder's tools.
        measures: as returned by :func:`measure`.

    Yields:
        What is wrong.
    """
    yield from count_faults(splits)
    for rows in splits.values():
        for row in rows:
            yield from tool_faults(row, common)
    for cosine, one, two in near_duplicates(splits):
        yield f"{one} and {two} are alike: cosine {cosine:.2f}, at most {MAX_COSINE} is allowed between files"
    for name, bound in BOUNDS.items():
        for where, value in zip(("all", *TOOL_OF), measures[name], strict=True):
            if value > bound or (name == "length" and value < 1 - bound):
                yield f"{name}, {where}: {value:.3f} is beyond the bound {bound}"


def print_sample(splits: Splits, common: list[Row], count: int) -> None:
    """Print random rows without their labels, for a reader who gives labels of their own.

    Args:
        splits: all rows.
        common: the folder's tools.
        count: how many.
    """
    rows = [row for name in splits if name != "german" for row in splits[name]]
    for row in random.Random(SAMPLE_SEED).sample(rows, count):
        print(f"{row['id']} [{', '.join(offered(row, common))}] {row['instruction']}")


def main() -> None:
    """Print counts and measures, or a sample; end with status 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files lie (default: beside this script)")
    parser.add_argument("--sample", type=int, metavar="N", help="print N random rows without labels instead")
    options = parser.parse_args()
    splits = read_rows(options.folder)
    common = json.loads((options.folder / "tools.json").read_text(encoding="utf-8"))
    if options.sample is not None:
        print_sample(splits, common, options.sample)
        return
    measures = measure(splits, common)
    print_counts(splits)
    print_measures(measures)
    found = list(faults(splits, common, measures))
    print(f"\nbroken bounds: {len(found)}")
    for fault in found:
        print(f"  {fault}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
