"""The small data set: what its page says of its rows."""

import json
from collections import Counter

from checkout import ROOT

from asa_adapter import load_splits
from asa_adapter.data.rows import check_tools

FOLDER = ROOT / "examples" / "kitchen"


def test_it_has_25_prompts_of_each_tool_and_label_and_is_split_as_the_page_says() -> None:
    splits = load_splits(FOLDER)
    assert {name: len(rows) for name, rows in splits.items()} == {"cal": 36, "train": 36, "valid": 42, "test": 36}
    rows = [row for part in splits.values() for row in part]
    assert Counter((row["domain"], row["label"]) for row in rows) == {
        (domain, label): 25 for domain in ("timer", "shopping", "recipes") for label in (0, 1)
    }
    assert len({row["instruction"] for row in rows}) == 150
    assert sum(row["label"] for row in splits["test"]) == 18
    tools = json.loads((FOLDER / "tools.json").read_text("utf-8"))
    check_tools(tools, "tools.json")
    assert all(row["tools"] == tools for row in rows)
