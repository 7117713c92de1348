import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from asa_adapter import load_splits

SPLITS = ("cal", "train", "valid", "test")
ADD = {
    "name": "add",
    "description": "Adds two numbers. Für immer ☔",
    "parameters": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "default": None, "enum": [1, 2.5, "three", None, True, {"deep": []}]},
            "b": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {}]},
        },
        "required": [],
    },
}
NOW = {"type": "function", "function": {"name": "now", "parameters": {}}}
CHAT = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Add one and two, then wait."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": ["2"]}}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
]


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


# --- a folder


def test_folder_gives_its_four_files_in_order(tmp_path: Path) -> None:
    splits = load_splits(folder_of(tmp_path))
    assert isinstance(splits, datasets.DatasetDict)
    assert ids(splits) == {name: [f"r{10 * k + i}" for i in range(4)] for k, name in enumerate(SPLITS)}


def test_folder_may_be_named_by_a_text(tmp_path: Path) -> None:
    assert set(load_splits(str(folder_of(tmp_path)))) == set(SPLITS)


def test_other_files_of_a_folder_are_ignored(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "more.jsonl").write_text("not JSON")
    (tmp_path / "README.md").write_text("not data")
    assert ids(load_splits(tmp_path)) == {name: [f"r{10 * k + i}" for i in range(4)] for k, name in enumerate(SPLITS)}


def test_empty_lines_are_skipped(tmp_path: Path) -> None:
    folder_of(tmp_path)
    path = tmp_path / "cal.jsonl"
    path.write_text("\n" + path.read_text().replace("\n", "\n \n"))
    assert len(load_splits(tmp_path)["cal"]) == 4


@pytest.mark.parametrize("name", SPLITS)
def test_missing_split_is_named(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path) / f"{name}.jsonl").unlink()
    with pytest.raises(
        FileNotFoundError, match=f"has no {name}.jsonl; expected cal.jsonl, train.jsonl, valid.jsonl, test"
    ):
        load_splits(tmp_path)


@pytest.mark.parametrize("name", SPLITS)
def test_empty_split_is_named(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path) / f"{name}.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match=f"{name}.jsonl: there are no rows; expected labelled prompts"):
        load_splits(tmp_path)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", SPLITS)
def test_split_with_one_label_is_named(tmp_path: Path, name: str, label: int) -> None:
    folder_of(tmp_path, **{name: labelled(4, first=90, label=label)})
    with pytest.raises(ValueError, match=f"^{name}: every label is {label}; expected rows of both labels$"):
        load_splits(tmp_path)


def test_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = folder_of(tmp_path) / "valid.jsonl"
    path.write_text(path.read_text() + '\n{"instruction": "x", "label": 1\n')
    with pytest.raises(ValueError, match=f"^{path}, line 6: not valid JSON"):
        load_splits(tmp_path)


def test_line_that_is_not_an_object_is_named(tmp_path: Path) -> None:
    path = folder_of(tmp_path) / "test.jsonl"
    path.write_text(path.read_text() + "[1]\n")
    with pytest.raises(ValueError, match=f"^{path}, line 5: expected a JSON object, found a list$"):
        load_splits(tmp_path)


# --- rows


def test_missing_columns_are_none(tmp_path: Path) -> None:
    row = load_splits(folder_of(tmp_path))["cal"][0]
    assert row == {
        "id": "r0", "instruction": words(0), "messages": None, "label": 0, "domain": "math", "tools": None,
        "gold_calls": None,
    }  # fmt: skip


def test_missing_id_is_the_split_and_the_row(tmp_path: Path) -> None:
    rows = labelled(4)
    del rows[2]["id"]
    assert ids(load_splits(folder_of(tmp_path, train=rows)))["train"] == ["r0", "r1", "train-2", "r3"]


@pytest.mark.parametrize("given", [0, 7], ids=str)
def test_id_that_is_a_number_becomes_a_text(tmp_path: Path, given: int) -> None:
    rows = labelled(4)
    rows[2]["id"] = given
    assert ids(load_splits(folder_of(tmp_path, train=rows)))["train"] == ["r0", "r1", str(given), "r3"]


@pytest.mark.parametrize(
    ("tools", "domain"),
    [
        ([ADD], "add"),
        ([NOW], "now"),
        ([ADD, NOW], "general"),
        ([], "general"),
        (None, "general"),
        ([{"description": "nameless"}], "general"),
        ([{"name": "x" * 100}], "x" * 64),
    ],
    ids=["bare tool", "wrapped tool", "two tools", "no tool", "no list", "nameless tool", "long name"],
)
def test_missing_domain_is_derived_from_the_offered_tools(tmp_path: Path, tools: Any, domain: str) -> None:
    rows = labelled(4, tools=tools)
    del rows[1]["domain"]
    rows[2]["domain"] = None
    assert load_splits(folder_of(tmp_path, cal=rows))["cal"]["domain"][:] == ["math", domain, domain, "code"]


def test_missing_domain_is_derived_from_tools_json_too(tmp_path: Path) -> None:
    rows = labelled(4)
    del rows[1]["domain"]
    folder_of(tmp_path, cal=rows)
    (tmp_path / "tools.json").write_text(json.dumps([ADD]))
    assert load_splits(tmp_path)["cal"]["domain"][:] == ["math", "add", "code", "code"]


@pytest.mark.parametrize("label", [None, True, False, "1", "", 2, -1, 0.5, [1], {}], ids=repr)
@pytest.mark.parametrize("kind", ["folder", "one file"])
def test_row_with_another_label_is_refused(tmp_path: Path, kind: str, label: Any) -> None:
    rows = labelled(40)
    rows[2]["label"] = label
    source = folder_of(tmp_path, cal=rows) if kind == "folder" else write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError) as caught:
        load_splits(source)
    assert f"label is {label!r}; expected 0 (no tool needed) or 1 (tool needed)" in str(caught.value)


def test_unlabelled_row_is_named(tmp_path: Path) -> None:
    rows = labelled(4)
    del rows[3]["label"]
    with pytest.raises(
        ValueError, match=r"^valid, row 3: label is None; expected 0 \(no tool needed\) or 1 \(tool needed\)$"
    ):
        load_splits(folder_of(tmp_path, valid=rows))


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"instruction": None},
        {"instruction": ""},
        {"instruction": " \n"},
        {"messages": []},
        {"messages": None, "instruction": ""},
        {"messages": [{"role": "user", "content": ""}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["folder", "one file"])
def test_row_without_a_prompt_is_refused(tmp_path: Path, kind: str, prompt: dict[str, Any]) -> None:
    rows = labelled(40)
    rows[2] = {"label": 0, "domain": "math", **prompt}
    source = folder_of(tmp_path, cal=rows) if kind == "folder" else write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError, match=r"^[\w.]+, row \d+: no instruction and no messages; expected one of them$"):
        load_splits(source)


def test_file_without_any_prompt_is_refused_as_such(tmp_path: Path) -> None:
    rows = [{"prompt": words(i), "label": i % 2} for i in range(40)]
    with pytest.raises(ValueError, match="no instruction and no messages; expected one of them"):
        load_splits(write(tmp_path / "all.jsonl", rows))


@pytest.mark.parametrize("messages", ["hello", {"role": "user", "content": "hello"}, ["hello"], [["hello"]]], ids=repr)
@pytest.mark.parametrize("kind", ["folder", "one file"])
def test_messages_that_are_no_chat_turns_are_refused(tmp_path: Path, kind: str, messages: Any) -> None:
    rows = labelled(40)
    rows[2]["messages"] = messages
    source = folder_of(tmp_path, cal=rows) if kind == "folder" else write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError, match="messages"):
        load_splits(source)


# --- nested columns


NESTED = {
    "whole": [{"name": "add", "parameters": {"x": [0, -7, 2**63 - 1, -(2**63), 2**64 - 1]}}],
    "beyond 64 bits": [{"name": "add", "parameters": {"x": [2**64, -(2**63) - 1, 10**30]}}],
    "halves": [{"name": "add", "parameters": {"x": [0.5, -2.25, 1.0, 1e22, 100000.0]}}],
    "fractions": [{"name": "add", "parameters": {"x": [1 / 3, 0.1 + 0.2, 48.8566969, -4.68737736882076]}}],
    "small and large": [{"name": "add", "parameters": {"x": [2.5e-10, 1e-15, 1e-300, 1.7976931348623157e308]}}],
    "texts": [{"name": "add", "x": ["é☔😀\u2028\0</a>\"\\", "", "12", "null", '{"a": 1}', "[1]", "NaN"]}],
    "words": [{"name": "add", "parameters": {"x": [True, False, None]}}],
    "empty": [{"name": "add", "parameters": {"x": [{}, [], [{}], [[]], ""]}}],
    "order": [{"z": 1, "name": "add", "a": {"z": 2, "b": 3}}],
    "mixed": [{"name": "add", "parameters": {"x": [1, "a", None, [1, ["b"]], {"k": {"l": [None]}}]}}],
    "uneven": [{"name": "add"}, {"name": "sub", "more": [1]}, {"name": "mul", "more": {"k": 1}}],
    "a real schema": [ADD, NOW],
}  # fmt: skip


@pytest.mark.parametrize("column", ["tools", "gold_calls"])
@pytest.mark.parametrize("name", NESTED)
def test_nested_column_comes_back_as_written(tmp_path: Path, name: str, column: str) -> None:
    rows = labelled(4)
    rows[1][column] = NESTED[name]
    cal = list(load_splits(folder_of(tmp_path, cal=rows))["cal"])
    assert json.dumps(cal[1][column]) == json.dumps(NESTED[name])
    assert [cal[i][column] for i in (0, 2, 3)] == [None, None, None]


def test_messages_with_tool_calls_come_back_as_written(tmp_path: Path) -> None:
    rows = labelled(4)
    rows[1] = {"messages": CHAT, "label": 1}
    rows[2]["messages"] = [{"role": "user", "content": "Short."}]
    cal = list(load_splits(folder_of(tmp_path, cal=rows))["cal"])
    assert json.dumps(cal[1]["messages"]) == json.dumps(CHAT)
    assert cal[1]["instruction"] is None
    assert cal[2]["messages"] == [{"role": "user", "content": "Short."}]
    assert cal[3]["messages"] is None


def test_empty_tools_stay_empty(tmp_path: Path) -> None:
    cal = load_splits(folder_of(tmp_path, cal=labelled(4, tools=[])))["cal"]
    assert cal["tools"][:] == [[], [], [], []]


def test_nested_columns_survive_a_second_reading(tmp_path: Path) -> None:
    first = load_splits(folder_of(tmp_path, cal=labelled(4, tools=[ADD, NOW], messages=CHAT)))
    second = load_splits(first)
    assert {name: list(rows) for name, rows in second.items()} == {name: list(rows) for name, rows in first.items()}


# --- tools.json


def test_tools_json_fills_rows_that_have_no_tools(tmp_path: Path) -> None:
    rows = labelled(4)
    rows[1]["tools"], rows[2]["tools"], rows[3]["tools"] = [NOW], [], None
    folder_of(tmp_path, cal=rows)
    (tmp_path / "tools.json").write_text(json.dumps([ADD]))
    assert load_splits(tmp_path)["cal"]["tools"][:] == [[ADD], [NOW], [], [ADD]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "tools.json: not valid JSON: "),
        ("", "tools.json: not valid JSON: "),
        ("{}", "tools.json: expected a list of JSON-schema tools, each with a name"),
        ('["add"]', "tools.json: expected a list of JSON-schema tools, each with a name"),
        ('[{"description": "x"}]', "tools.json: expected a list of JSON-schema tools, each with a name"),
        (
            '[{"type": "function", "function": {}}]',
            "tools.json: expected a list of JSON-schema tools, each with a name",
        ),
    ],
)
def test_other_tools_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (folder_of(tmp_path) / "tools.json").write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/{message}"):
        load_splits(tmp_path)


# --- one labelled set


def test_one_file_is_split_by_the_shares_in_every_stratum(tmp_path: Path) -> None:
    splits = load_splits(write(tmp_path / "all.jsonl", labelled(56)))
    counts = {name: Counter((row["domain"], row["label"]) for row in rows) for name, rows in splits.items()}
    strata = [(domain, label) for domain in ("math", "code") for label in (0, 1)]
    assert counts == {
        name: {stratum: size for stratum in strata} for name, size in zip(SPLITS, (4, 4, 2, 4), strict=True)
    }


def test_uneven_strata_are_split_by_the_same_shares() -> None:
    sizes = {("math", 0): 42, ("math", 1): 14, ("code", 0): 7, ("code", 1): 21}
    strata = [stratum for stratum, size in sizes.items() for _ in range(size)]
    rows = [{"id": f"r{i}", "instruction": words(i), "domain": d, "label": y} for i, (d, y) in enumerate(strata)]
    splits = load_splits(datasets.Dataset.from_list(rows))
    for name, share in zip(SPLITS, (2 / 7, 2 / 7, 1 / 7, 2 / 7), strict=True):
        counts = Counter((row["domain"], row["label"]) for row in splits[name])
        assert counts == {stratum: round(size * share) for stratum, size in sizes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_derived_domains_are_strata_too(seed: int) -> None:
    tools = [[{"name": "rare"}] if i % 5 == 0 else [{"name": "common"}] for i in range(70)]
    rows = [{"instruction": words(i), "label": i % 2, "tools": offered} for i, offered in enumerate(tools)]
    splits = load_splits(datasets.DatasetDict(all=datasets.Dataset.from_list(rows)), seed=seed)
    assert {name: Counter(rows["domain"])["rare"] for name, rows in splits.items()} == {
        "cal": 4, "train": 4, "valid": 2, "test": 4,
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 42])
def test_splits_are_disjoint_and_complete(seed: int) -> None:
    splits = ids(load_splits(datasets.Dataset.from_list(labelled(61)), seed=seed))
    assert sorted(i for rows in splits.values() for i in rows) == sorted(f"r{i}" for i in range(61))


def test_rows_of_a_split_keep_their_order() -> None:
    splits = ids(load_splits(datasets.Dataset.from_list(labelled(56))))
    assert all(rows == sorted(rows, key=lambda name: int(name[1:])) for rows in splits.values())


def test_same_seed_gives_the_same_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(56))
    assert ids(load_splits(path, seed=3)) == ids(load_splits(path, seed=3))


def test_another_seed_gives_other_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(56))
    assert ids(load_splits(path, seed=3)) != ids(load_splits(path, seed=4))


def test_default_seed_is_42(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(56))
    assert ids(load_splits(path)) == ids(load_splits(path, seed=42))


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_on_one_side(seed: int) -> None:
    rows = labelled(56)
    rows += [
        {
            "id": f"near-{row['id']}",
            "instruction": f"{row['instruction'].upper()}!",
            "label": 1 - row["label"],
            "domain": "x",
        }
        for row in rows[::4]
    ]
    where = places(load_splits(datasets.Dataset.from_list(rows), seed=seed))
    assert {row["id"] for row in rows if where[row["id"]] != where.get(f"near-{row['id']}", where[row["id"]])} == set()


def test_same_question_in_a_chat_is_a_near_duplicate_too() -> None:
    rows = labelled(28)
    chats = [{"role": "user", "content": row["instruction"]} for row in rows[::2]]
    rows += [{"id": f"near-r{2 * i}", "messages": [turn], "label": 0, "domain": "x"} for i, turn in enumerate(chats)]
    where = places(load_splits({"train": rows}))
    assert {f"r{i}" for i in range(0, 28, 2) if where[f"r{i}"] != where[f"near-r{i}"]} == set()


@pytest.mark.parametrize("seed", range(3))
def test_chain_of_near_duplicates_is_on_one_side(seed: int) -> None:
    tokens = [words(1000 + i).split()[0] for i in range(40)]
    rows = labelled(28)
    # Neighbours share 18 of 20 words, the ends of the chain share none.
    rows += [
        {"id": f"link-{k}", "instruction": " ".join(tokens[2 * k : 2 * k + 20]), "label": k % 2, "domain": "math"}
        for k in range(11)
    ]
    where = places(load_splits(datasets.Dataset.from_list(rows), seed=seed))
    assert len({where[f"link-{k}"] for k in range(11)}) == 1


def test_different_texts_are_not_taken_for_duplicates() -> None:
    rows = [
        {"id": str(i), "instruction": f"What is {words(i)}?", "label": i % 2, "domain": "math"} for i in range(1, 57)
    ]
    assert {name: len(rows) for name, rows in load_splits(datasets.Dataset.from_list(rows)).items()} == {
        "cal": 16, "train": 16, "valid": 8, "test": 16,
    }  # fmt: skip


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^no data file at {tmp_path / 'gone.jsonl'}$"):
        load_splits(tmp_path / "gone.jsonl")


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        load_splits(tmp_path / "gone")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").touch()
    with pytest.raises(ValueError, match="all.jsonl: there are no rows; expected labelled prompts$"):
        load_splits(tmp_path / "all.jsonl")


def test_file_of_one_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^all.jsonl: every label is 1; expected rows of both labels$"):
        load_splits(write(tmp_path / "all.jsonl", labelled(40, label=1)))


def test_file_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="^train: there are no rows; expected labelled prompts; the set was split here"
    ):
        load_splits(write(tmp_path / "all.jsonl", labelled(2)))


def test_malformed_line_of_one_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(3))
    path.write_text(path.read_text() + "{oops}\n")
    with pytest.raises(ValueError, match=f"^{path}, line 4: not valid JSON"):
        load_splits(path)


# --- data sets in memory and on the Hub


def test_dataset_dict_is_taken_as_it_is_split() -> None:
    given = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(labelled(4, first=10 * k)) for k, name in enumerate([*SPLITS, "extra"])}
    )
    assert ids(load_splits(given)) == {name: [f"r{10 * k + i}" for i in range(4)] for k, name in enumerate(SPLITS)}


def test_dataset_dict_of_one_split_is_split_here() -> None:
    one = datasets.Dataset.from_list(labelled(56))
    assert ids(load_splits(datasets.DatasetDict(train=one))) == ids(load_splits(one))


def test_dataset_and_file_give_the_same_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(56))
    assert ids(load_splits(datasets.Dataset.from_list(labelled(56)))) == ids(load_splits(path))


def test_other_splits_are_refused() -> None:
    rows = datasets.Dataset.from_list(labelled(4))
    with pytest.raises(
        ValueError, match=r"the data has splits \['test', 'train'\]; expected cal, train, valid, test, or one"
    ):
        load_splits(datasets.DatasetDict(train=rows, test=rows))


def test_split_of_a_dataset_dict_is_checked() -> None:
    given = {name: labelled(4) for name in SPLITS} | {"test": []}
    with pytest.raises(ValueError, match="^test: there are no rows; expected labelled prompts$"):
        load_splits(given)


@pytest.mark.parametrize("source", [None, 5, 2.5], ids=repr)
def test_something_without_rows_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match=f"^cannot read rows from a {type(source).__name__}$"):
        load_splits(source)


def test_any_other_name_is_a_data_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load_dataset(name: str) -> datasets.DatasetDict:
        asked.append(name)
        return datasets.DatasetDict(train=datasets.Dataset.from_list(labelled(56)))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = load_splits("someone/tool-calls")
    assert asked == ["someone/tool-calls"]
    assert {name: len(rows) for name, rows in splits.items()} == {"cal": 16, "train": 16, "valid": 8, "test": 16}


# --- the data sets that the developers share


def shared(name: str) -> Path:
    folder = os.environ.get("ASA_SHARED_DATA")
    if not folder:
        pytest.skip("ASA_SHARED_DATA does not name the folder of shared data sets")
    return Path(folder) / name


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["liquid_asa", "bfcl", "bfcl_pairs", "metatool", "api_bank"])
def test_shared_splits_come_back_as_written(name: str) -> None:
    folder = shared(name)
    splits = load_splits(folder)
    common = json.loads((folder / "tools.json").read_text()) if (folder / "tools.json").exists() else None
    for split in SPLITS:
        expected = [
            {
                "id": row["id"],
                "instruction": row.get("instruction"),
                "messages": row.get("messages"),
                "label": row["label"],
                "domain": row["domain"],
                "tools": row.get("tools", common),
                "gold_calls": row.get("gold_calls"),
            }
            for row in lines(folder / f"{split}.jsonl")
        ]
        assert list(splits[split]) == expected


def test_shared_single_file_is_split() -> None:
    path = shared("self_instruct") / "all.jsonl"
    assert sorted(by_id(load_splits(path))) == sorted(row["id"] for row in lines(path))


@pytest.mark.parametrize("name", ["./gone", "gone/", "/gone/for/good", Path("gone")])
def test_missing_path_is_not_looked_for_on_the_hub(name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^no such file or folder: {name}$"):
        load_splits(name)


def test_a_name_that_is_neither_here_nor_to_be_had_on_the_hub_says_both() -> None:
    with pytest.raises(FileNotFoundError, match="^no file or folder 'out/gone' here, and from the Hub: .*'out/gone'"):
        load_splits("out/gone")


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("instruction,label\n")
    with pytest.raises(ValueError, match=r"rows.csv: expected a folder of cal/train/valid/test.jsonl, or one .jsonl"):
        load_splits(tmp_path / "rows.csv")


def test_rows_that_are_alike_but_for_a_number_are_refused_with_the_reason(tmp_path: Path) -> None:
    rows = [{"instruction": f"What is {i} times 23?", "label": 1, "domain": "math"} for i in range(60)]
    rows += [
        {"instruction": f"Please explain topic number {i} to me", "label": 0, "domain": "math"} for i in range(60)
    ]
    path = write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError, match="rows that are alike but for a number count as such: give more varied rows"):
        load_splits(path)
