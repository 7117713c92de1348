"""The shipped data: its script finds nothing wrong, finds what is wrong, and its card states what is measured."""

import ast
import copy
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import DATA, TINY_LFM2, load_script

from asa_adapter import load_splits
from asa_adapter.measurement.word_classifier import bag_of_words

Row = dict[str, Any]
Splits = dict[str, list[Row]]
ENGLISH = ("cal", "train", "valid", "test")


@pytest.fixture(scope="module")
def check() -> Any:
    return load_script(DATA / "check.py")


@pytest.fixture(scope="module")
def shipped(check: Any) -> Splits:
    return check.read_rows(DATA)


TOOLS = json.loads((DATA / "tools.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tools() -> list[Row]:
    return copy.deepcopy(TOOLS)


@pytest.fixture(scope="module")
def measures(check: Any, shipped: Splits, tools: list[Row]) -> dict[str, list[float]]:
    return check.measure(shipped, tools)


@pytest.fixture(scope="module")
def card() -> list[list[str]]:
    """The rows of the README's tables, cut into cells."""
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


# --- What is shipped


def test_nothing_is_wrong_with_a_row(check: Any, shipped: Splits, tools: list[Row]) -> None:
    assert list(check.row_faults(shipped, tools)) == []
    assert sum(len(shipped[name]) for name in ENGLISH) == 1120


def test_no_bound_is_broken(check: Any, measures: dict[str, list[float]]) -> None:
    assert list(check.bound_faults(measures)) == []


def test_the_card_states_the_measures(card: list[list[str]], measures: dict[str, list[float]]) -> None:
    stated = {cells[0]: cells[1:] for cells in card}
    for name, values in measures.items():
        # Another version of scikit-learn may rank a few rows differently.
        assert [float(cell) for cell in stated[name]] == pytest.approx(values, abs=0.01), name


def test_the_words_are_judged_as_the_package_judges_them(shipped: Splits, measures: dict[str, list[float]]) -> None:
    words = bag_of_words(shipped["cal"] + shipped["train"], shipped["test"])
    assert measures["text"][0] == pytest.approx(words["auc"], abs=1e-3)


def test_the_gap_to_the_probe_is_that_of_the_models_card(card: list[list[str]]) -> None:
    lines = (TINY_LFM2 / "README.md").read_text(encoding="utf-8").splitlines()
    model = dict(re.findall(r"^\| (\w+) \| [\w-]+ \| (\d\.\d{3}) \|$", "\n".join(lines), flags=re.MULTILINE))
    stated = {cells[0]: cells[1] for cells in card}
    assert model["words"] == stated["text"]
    text = " ".join((DATA / "README.md").read_text(encoding="utf-8").split())
    probe, words, best = (float(number) for number in (model["6"], stated["text"], stated["text, own fit"]))
    assert f"with an AUC of {probe:.3f} on TEST".replace(" 0.", " .") in text
    assert f'{probe - words:.2f} above "text"'.lstrip("0") in text
    assert f'{probe - best:.2f} above "text, own fit"'.lstrip("0") in text


def test_the_card_counts_the_kinds_and_quotes_rows(card: list[list[str]], shipped: Splits) -> None:
    rows = [row for name in ENGLISH for row in shipped[name]]
    counts = Counter((row["domain"], str(row["label"]), row["kind"]) for row in rows)
    texts = {(row["kind"], row["instruction"]) for row in rows}
    families = [cells for cells in card if len(cells) == 5 and cells[1] in ("0", "1")]
    for domain, label, kind, count, example in families:
        if domain == "every":
            found = [counts.pop((each, "0", kind)) for each in ("math", "code", "search", "translation")]
            assert (count, found) == ("14 each", [14] * 4)
            example = example.partition(" (offered:")[0]
        else:
            assert counts.pop((domain, label, kind)) == int(count)
        assert (kind, example) in texts
    assert not counts


def test_a_short_list_of_tools_does_not_tell_the_label(shipped: Splits) -> None:
    for name, rows in shipped.items():
        lists: dict[int, list[tuple[str, ...]]] = {0: [], 1: []}
        for row in rows:
            if "tools" in row:
                lists[row["label"]].append(tuple(tool["name"] for tool in row["tools"]))
        assert sorted(lists[0]) == sorted(lists[1]), name
        assert len(lists[0]) == sum(row["kind"] == "not_offered" for row in rows)


def test_load_splits_gives_the_rows_as_written(shipped: Splits, tools: list[Row]) -> None:
    splits = load_splits(DATA)
    assert set(splits) == set(ENGLISH)
    for name in ENGLISH:
        for loaded, written in zip(splits[name], shipped[name], strict=True):
            written = {"tools": tools, "messages": None, **written}
            assert loaded == {column: written[column] for column in loaded}


@pytest.mark.parametrize(("config", "files"), [("default", ENGLISH), ("german", ("german",))])
def test_load_dataset_gives_the_rows_as_written(
    config: str, files: tuple[str, ...], shipped: Splits, tmp_path: Path
) -> None:
    import datasets

    loaded = datasets.load_dataset(str(DATA), config, cache_dir=str(tmp_path))
    assert list(loaded) == (["test"] if config == "german" else list(ENGLISH))
    for split, name in zip(loaded.values(), files, strict=True):
        assert list(split) == [{"tools": None, **row} for row in shipped[name]]


# --- What the script finds


def edit(**changes: Any) -> Callable[[Row], None]:
    return lambda row: row.update(changes)


def call(**changes: Any) -> Callable[[Row], None]:
    return lambda row: row["gold_calls"][0].update(changes)


def argue(**arguments: Any) -> Callable[[Row], None]:
    return call(arguments=arguments)


FAULTS: dict[str, tuple[str, int, Callable[[Row], None], str]] = {
    "kind": ("math", 1, edit(kind="trivial"), "no kind of math with label 1 is called 'trivial'"),
    "language": ("math", 0, edit(language="de"), "language 'de' in test.jsonl"),
    "domain": ("math", 0, edit(domain="code", kind="about"), "expected 40 rows per domain and label"),
    "pair": ("code", 0, edit(pair="code-999"), "pair code-999 has the labels [0], expected one row of each"),
    "id": ("code", 0, edit(id="test-319"), "id 'test-319' stands 2 times"),
    "no tool": ("search", 1, edit(tools=[]), "web_search is not offered"),
    "a tool": (
        "search",
        0,
        edit(kind="not_offered"),
        "is called not_offered, but a tool for it is offered",
    ),
    "python": ("math", 0, edit(kind="not_offered", tools=TOOLS[1:]), "a tool for it is offered"),
    "strange tool": ("search", 0, edit(tools=[{"name": "oven"}]), "its tools are not those of tools.json"),
    "no call": ("math", 1, edit(gold_calls=[]), "0 gold calls for label 1"),
    "other call": ("math", 1, call(name="web_search"), "the gold call is web_search, expected calculator"),
    "missing argument": ("math", 1, argue(), "'expression' is a required property"),
    "unknown argument": ("math", 1, argue(expression="1", digits="2"), "('digits' was unexpected)"),
    "number": ("search", 1, argue(query=3), "3 is not of type 'string'"),
    "empty": ("search", 1, argue(query=" "), "an argument is empty"),
    "not arithmetic": ("math", 1, argue(expression="exit()"), "not arithmetic: exit()"),
    "no sum": ("math", 1, argue(expression="3 +"), "invalid syntax"),
    "by zero": ("math", 1, argue(expression="3 / 0"), "division by zero"),
    "no code": ("code", 1, argue(code="print(1"), "was never closed"),
    "other text": ("translation", 1, argue(text="not there", target_language="Dutch"), "the text is not in"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str, check: Any, shipped: Splits, tools: list[Row]) -> None:
    domain, label, spoil, message = FAULTS[name]
    rows = copy.deepcopy(shipped["test"])
    spoil(next(r for r in rows if (r["domain"], r["label"]) == (domain, label) and "tools" not in r))
    found = list(check.row_faults({"test": rows}, tools))
    assert any(message in fault for fault in found), found


def test_a_row_of_another_file_is_found_if_alike(check: Any, shipped: Splits) -> None:
    splits = copy.deepcopy(shipped)
    splits["test"][0]["instruction"] = splits["german"][0]["instruction"] + "!"
    (fault, _) = check.near_duplicates(splits)
    assert fault.startswith("test-000 and german-000 are alike: cosine ")


def test_an_instruction_that_stands_twice_is_found(check: Any, shipped: Splits) -> None:
    splits = copy.deepcopy(shipped)
    splits["test"][0]["instruction"] = splits["test"][1]["instruction"].upper()
    (fault,) = check.repeated(splits)
    assert fault.endswith("stands 2 times")


@pytest.mark.parametrize(
    ("name", "value", "bound"), [("text", 0.86, 0.85), ("length", 0.66, 0.65), ("length", 0.34, 0.65)]
)
def test_a_measure_beyond_its_bound_is_found(
    name: str, value: float, bound: float, check: Any, measures: dict[str, list[float]]
) -> None:
    spoilt = measures | {name: [measures[name][0], value, *measures[name][2:]]}
    assert list(check.bound_faults(spoilt)) == [f"{name}, math: {value:.3f} is beyond the bound {bound}"]


def test_a_label_that_the_words_tell_is_measured(check: Any, shipped: Splits, tools: list[Row]) -> None:
    splits = copy.deepcopy(shipped)
    for row in [row for name in ENGLISH for row in splits[name] if row["label"]]:
        row["instruction"] = "please " + row["instruction"]
    found = check.measure(splits, tools)
    assert found["text"][0] > 0.9
    assert found["first word"][0] > 0.9


@pytest.mark.parametrize(
    ("text", "value"), [("2 ** 3 - -4", 12), ("(1 + 2) * 3.5", 10.5), ("7 % 4 / 2", 1.5), ("1.5 * 2", 3)]
)
def test_sums_are_evaluated(check: Any, text: str, value: float) -> None:
    assert check.evaluate(ast.parse(text, mode="eval").body) == value


@pytest.mark.parametrize("text", ["x", "f(1)", "'a'", "1 << 2", "[1]", "(1).real", "1 < 2"])
def test_other_expressions_are_refused(check: Any, text: str) -> None:
    with pytest.raises(ValueError, match="not arithmetic: "):
        check.evaluate(ast.parse(text, mode="eval").body)


# --- The command


def run(check: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["check.py", *words])
    return check.main()


def test_the_sample_is_always_the_same_and_has_no_labels(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shipped: Splits
) -> None:
    run(check, monkeypatch, "--sample", "40")
    first = capsys.readouterr().out
    run(check, monkeypatch, "--sample", "40")
    assert capsys.readouterr().out == first
    texts = {row["id"]: row["instruction"] for name in ENGLISH for row in shipped[name]}
    lines = first.splitlines()
    assert len(lines) == 40
    for line in lines:
        name, _, rest = line.partition(" [")
        assert rest.partition("] ")[2] == texts[name]


def test_the_script_ends_well_on_the_shipped_data(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(check, monkeypatch)
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "| math | 1 | exact |" in printed
    assert printed.endswith("broken bounds: 0\n")


def test_the_script_ends_badly_on_broken_data(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in [*DATA.glob("*.jsonl"), DATA / "tools.json"]:
        shutil.copy(path, tmp_path)
    lines = (tmp_path / "german.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "german.jsonl").write_text("".join([*lines[:-1], lines[0]]), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        run(check, monkeypatch, "--folder", str(tmp_path))
    assert end.value.code == 1
    assert "id 'german-000' stands 2 times\n" in capsys.readouterr().out
