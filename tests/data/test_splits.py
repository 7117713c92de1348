"""Where splits come from: a folder, one file, a data set in memory or on the Hub."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest
from rows import SPLITS, by_id, folder_of, ids, labelled, write

from asa_adapter import load_splits

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


@pytest.mark.parametrize("name", SPLITS[1:])
def test_missing_split_is_named(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path) / f"{name}.jsonl").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=f"has no {name}.jsonl; expected cal, train, valid and test; train, validation and test; ",
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


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^no data file at {tmp_path / 'gone.jsonl'}$"):
        load_splits(tmp_path / "gone.jsonl")


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        load_splits(tmp_path / "gone")


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


@pytest.mark.parametrize("name", [*SPLITS, "data"])
def test_one_set_is_split_whatever_it_is_called_and_no_row_is_in_two_splits(name: str) -> None:
    found = [row for rows in ids(load_splits({name: labelled(56)})).values() for row in rows]
    assert sorted(found) == sorted(row["id"] for row in labelled(56))


def test_dataset_and_file_give_the_same_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(56))
    assert ids(load_splits(datasets.Dataset.from_list(labelled(56)))) == ids(load_splits(path))


def test_other_splits_are_refused() -> None:
    rows = datasets.Dataset.from_list(labelled(4))
    message = (
        r"the data has splits \['test', 'unsupervised'\]; expected cal, train, valid and test; train, validation and"
    )
    with pytest.raises(ValueError, match=message):
        load_splits(datasets.DatasetDict(unsupervised=rows, test=rows))


def test_two_splits_of_one_kind_are_refused(tmp_path: Path) -> None:
    rows = labelled(4)
    with pytest.raises(ValueError, match=r"the data has splits \['test', 'train', 'val', 'validation'\]; expected"):
        load_splits({"train": rows, "test": rows, "val": rows, "validation": rows})
    for name in ("train.jsonl", "test.jsonl", "val.jsonl", "valid.jsonl"):
        write(tmp_path / name, rows)
    with pytest.raises(ValueError, match=r"has both val.jsonl and valid.jsonl; expected one file for valid$"):
        load_splits(tmp_path)


def test_train_validation_and_test_keep_two_and_take_cal_from_train() -> None:
    given = {"train": labelled(40), "validation": labelled(8, first=50), "test": labelled(12, first=60)}
    splits = load_splits(given)
    assert ids(splits)["valid"] == [row["id"] for row in given["validation"]]
    assert ids(splits)["test"] == [row["id"] for row in given["test"]]
    assert sorted([*ids(splits)["cal"], *ids(splits)["train"]]) == sorted(row["id"] for row in given["train"])
    assert {name: len(rows) for name, rows in splits.items()} == {"cal": 20, "train": 20, "valid": 8, "test": 12}
    told = splits["cal"].info.description
    assert told == "splits: valid and test as given; cal, train made here of train (seed 42)"


def test_train_and_test_in_a_folder_take_the_rest_from_train(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", labelled(40))
    write(tmp_path / "test.jsonl", labelled(12, first=60))
    splits = load_splits(tmp_path)
    assert list(splits) == list(SPLITS)
    assert {name: len(rows) for name, rows in splits.items()} == {"cal": 16, "train": 16, "valid": 8, "test": 12}
    assert ids(splits)["test"] == [f"r{60 + i}" for i in range(12)]


def test_a_folder_with_train_alone_is_split_like_one_file(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", labelled(56))
    assert ids(load_splits(tmp_path)) == ids(load_splits(tmp_path / "train.jsonl"))


def test_a_folder_with_just_one_file_of_any_name_is_that_file_with_its_tools(tmp_path: Path) -> None:
    write(tmp_path / "my rows.jsonl", labelled(56))
    (tmp_path / "tools.json").write_text(json.dumps([{"name": "clock"}]))
    splits = load_splits(tmp_path)
    assert ids(splits) == ids(load_splits(tmp_path / "my rows.jsonl"))
    assert splits["test"][0]["tools"] == [{"name": "clock"}]
    write(tmp_path / "more.jsonl", labelled(56))
    with pytest.raises(FileNotFoundError, match=r"has no train\.jsonl; expected cal, train"):
        load_splits(tmp_path)


def test_tools_beside_one_file_are_for_its_rows_without_tools(tmp_path: Path) -> None:
    tools = [{"name": "clock", "parameters": {"type": "object", "properties": {}}}]
    own = [{"name": "lamp", "parameters": {"type": "object", "properties": {}}}]
    rows = labelled(56)
    rows[0]["tools"] = own
    path = write(tmp_path / "all.jsonl", rows)
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    splits = load_splits(path)
    assert {name: row["tools"] for name, row in by_id(splits).items()} == {"r0": own} | {
        f"r{i}": tools for i in range(1, 56)
    }
    assert splits["test"].info.description.splitlines() == [
        "splits: made here of all.jsonl, by domain and label, near-duplicates together (seed 42)",
        f"tools: those of {tmp_path / 'tools.json'} for 55 rows, and 1 have their own",
    ]


def test_split_of_a_dataset_dict_is_checked() -> None:
    given = {name: labelled(4) for name in SPLITS} | {"test": []}
    with pytest.raises(ValueError, match=r"^test: there are no rows; expected labelled prompts$"):
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


@pytest.mark.parametrize("name", ["./gone", "gone/", "/gone/for/good", Path("gone")])
def test_missing_path_is_not_looked_for_on_the_hub(name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^no such file or folder: {name}$"):
        load_splits(name)


def test_a_name_that_is_neither_here_nor_to_be_had_on_the_hub_says_both() -> None:
    with pytest.raises(FileNotFoundError, match=r"^no file or folder 'out/gone' here, and from the Hub: .*'out/gone'"):
        load_splits("out/gone")


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("instruction,label\n")
    message = r"rows.xlsx: expected a folder of train.jsonl and other splits, or one .jsonl or .csv file$"
    with pytest.raises(ValueError, match=message):
        load_splits(tmp_path / "rows.xlsx")


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
