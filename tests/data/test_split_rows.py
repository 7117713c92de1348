"""One labelled set that is split here: by shares in each stratum, near-duplicates on one side."""

from collections import Counter
from pathlib import Path

import datasets
import pytest
from rows import SPLITS, ids, labelled, places, words, write

from asa_adapter import load_splits


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


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(84, (24, 24, 12, 24)), (120, (28, 28, 36, 28)), (240, (64, 64, 48, 64)), (336, (96, 96, 48, 96))],
    ids=["a seventh of very few", "three tenths", "48 rows", "a seventh of many"],
)
def test_valid_has_the_rows_that_a_sure_gain_takes(rows: int, sizes: tuple[int, ...]) -> None:
    splits = load_splits(datasets.Dataset.from_list(labelled(rows)))
    assert [len(splits[name]) for name in SPLITS] == pytest.approx(sizes, abs=3)


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


@pytest.mark.parametrize("seed", range(3))
def test_turns_of_one_conversation_are_on_one_side(seed: int) -> None:
    rows = labelled(28)
    for i in range(7):
        chat = [{"role": ("user", "assistant")[k % 2], "content": words(1000 + 10 * i + k)} for k in range(7)]
        rows += [{"id": f"{i}-{n}", "messages": chat[:n], "label": n // 2 % 2, "domain": "x"} for n in (1, 3, 5, 7)]
    where = places(load_splits({"train": rows}, seed=seed))
    assert {i for i in range(7) if len({where[f"{i}-{n}"] for n in (1, 3, 5, 7)}) > 1} == set()


def test_different_texts_are_not_taken_for_duplicates() -> None:
    rows = [
        {"id": str(i), "instruction": f"What is {words(i)}?", "label": i % 2, "domain": "math"} for i in range(1, 57)
    ]
    assert {name: len(rows) for name, rows in load_splits(datasets.Dataset.from_list(rows)).items()} == {
        "cal": 16, "train": 16, "valid": 8, "test": 16,
    }  # fmt: skip


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").touch()
    with pytest.raises(ValueError, match=r"all\.jsonl: there are no rows; expected labelled prompts$"):
        load_splits(tmp_path / "all.jsonl")


def test_file_of_one_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^all\.jsonl: every label is 1; expected rows of both labels$"):
        load_splits(write(tmp_path / "all.jsonl", labelled(40, label=1)))


def test_file_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^train: there are no rows; expected labelled prompts; the set was split here"
    ):
        load_splits(write(tmp_path / "all.jsonl", labelled(2)))


def test_rows_that_are_alike_but_for_a_number_are_refused_with_the_reason(tmp_path: Path) -> None:
    rows = [{"instruction": f"What is {i} times 23?", "label": 1, "domain": "math"} for i in range(60)]
    rows += [
        {"instruction": f"Please explain topic number {i} to me", "label": 0, "domain": "math"} for i in range(60)
    ]
    path = write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError, match="rows that are alike but for a number count as such: give more varied rows"):
        load_splits(path)
