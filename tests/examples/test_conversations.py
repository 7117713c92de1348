"""The conversation set: it is what its script makes, its labels follow its rule, and words do not tell them."""

import itertools
import json
import re
from collections import Counter
from typing import Any

import pytest
from checkout import ROOT, load_script

from asa_adapter import load_splits
from asa_adapter.data import SPLITS, cut
from asa_adapter.data.duplicates import leaks
from asa_adapter.notations.tool_schemas import schema_errors

SCRIPTS = ROOT / "examples" / "tiny_models"
FOLDER = ROOT / "examples" / "data" / "conversations"
KINDS = {"user": "first", "tool": "after_result"}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def dialogues() -> Any:
    return load_script(SCRIPTS / "dialogues.py")


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Row]]:
    return {
        name: [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in SPLITS
    }


@pytest.fixture(scope="module")
def states(shipped: dict[str, list[Row]]) -> dict[str, list[Row]]:
    return {name: cut(rows) for name, rows in shipped.items()}


@pytest.fixture(scope="module")
def all_states(states: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in states.values() for row in rows]


def all_worded(lines: list[str]) -> set[str]:
    """What lines can say, all choices made, without politeness and punctuation."""
    parts = [re.split(r"\[([^\[\]]*)\]", some) for line in lines for some in re.split(r"\|(?![^\[]*\])", line.lower())]
    said = {
        "".join(choice)
        for some in parts
        for choice in itertools.product(*([part] if i % 2 == 0 else part.split("|") for i, part in enumerate(some)))
    }
    return {
        re.sub(r"[^a-z0-9{}]+", " ", re.sub(r"\b(please|thanks|hi|hello|hey)\b", "", text)).strip() for text in said
    }


def called(row: Row) -> list[dict[str, Any]]:
    """The calls before a state."""
    return [
        json.loads(turn["tool_calls"][0]["function"]["arguments"]) for turn in row["messages"] if "tool_calls" in turn
    ]


def failed(row: Row) -> list[bool]:
    """Which results before a state are errors."""
    texts = [turn["content"] for turn in row["messages"] if turn["role"] == "tool"]
    return [bool(re.match(r"(error|failed)\b", text)) for text in texts]


def test_the_script_makes_the_files_again(dialogues: Any, shipped: dict[str, list[Row]]) -> None:
    assert dialogues.make_files() == shipped


def test_there_are_as_many_conversations_of_each_kind_in_every_domain(shipped: dict[str, list[Row]]) -> None:
    assert sum(map(len, shipped.values())) >= 240
    for rows in shipped.values():
        counts = [
            Counter(row["kind"].partition("+")[0] for row in rows if row["domain"] == domain) for domain in DOMAINS
        ]
        assert counts == counts[:1] * 4


DOMAINS = ("math", "code", "search", "translation")


def test_the_readme_counts_what_is_there(shipped: dict[str, list[Row]], states: dict[str, list[Row]]) -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    for name, rows in states.items():
        counts = Counter((row["messages"][-1]["role"], row["label"]) for row in rows)
        sizes = [f"{counts[role, 1]}, {counts[role, 0]}" for role in KINDS]
        assert f"| `{name}.jsonl` | {len(shipped[name])} | {len(shipped[name]) // 4} | {' | '.join(sizes)} |" in readme
    kinds = Counter(part for rows in shipped.values() for row in rows for part in re.split(r"(?=\+)", row["kind"]))
    for line in re.findall(r"^\| ([a-z_+, ]+) \| (\d+) \|", readme, flags=re.MULTILINE):
        assert sum(kinds[kind] for kind in line[0].split(", ")) == int(line[1]), line


def test_load_splits_cuts_the_folder_and_finds_nothing_in_two_splits(states: dict[str, list[Row]]) -> None:
    splits = {name: list(rows) for name, rows in load_splits(FOLDER).items()}
    assert {name: [row["id"] for row in rows] for name, rows in splits.items()} == {
        name: [row["id"] for row in rows] for name, rows in states.items()
    }
    assert leaks(splits) == []


def test_every_call_is_of_a_tool_and_what_it_says_stands_in_a_users_turn(all_states: list[Row]) -> None:
    tools = {tool["name"]: tool for tool in json.loads((FOLDER / "tools.json").read_text("utf-8"))}
    for row in all_states:
        for call in row["gold_calls"]:
            assert schema_errors(call["arguments"], tools[call["name"]]) == []
            said = " ".join(turn["content"] for turn in row["messages"] if turn["role"] == "user")
            assert all(value in said for value in call["arguments"].values())


def test_what_failed_once_is_tried_again_and_what_failed_twice_is_not(all_states: list[Row]) -> None:
    seen = Counter()
    for row in all_states:
        errors = failed(row)
        if row["messages"][-1]["role"] == "tool" and errors[-1]:
            before = called(row)
            again = [call["arguments"] for call in row["gold_calls"]] == before[-1:]
            once = before.count(before[-1]) == 1
            assert again or row["label"] == 0
            assert once or row["label"] == 0
            seen[once, row["label"]] += 1
    assert set(seen) == {(True, 1), (True, 0), (False, 0)}
    assert seen[True, 1] <= seen[True, 0] + seen[False, 0] + 16


def test_a_call_that_worked_is_never_made_again(all_states: list[Row]) -> None:
    for row in all_states:
        worked = [call for call, error in zip(called(row), failed(row), strict=True) if not error]
        assert not any(call["arguments"] in worked for call in row["gold_calls"])


@pytest.mark.parametrize("kind", [None, "first", "after_result"])
def test_the_last_turns_words_do_not_tell_the_label(states: dict[str, list[Row]], kind: str | None) -> None:
    measure = load_script(SCRIPTS / "measure_chat.py")
    fit, test = (
        rows if kind is None else measure.of_kind(rows, kind)
        for rows in (states["cal"] + states["train"], states["test"])
    )
    assert measure.words_auc(fit, test) <= 0.65


@pytest.mark.parametrize("name", ["held", "unseen"])
def test_wordings_of_valid_and_test_are_nobody_elses(dialogues: Any, name: str) -> None:
    files = {"seen", "more", "held", "unseen"} - {name}
    mine, others = dialogues.read_wordings(name), dialogues.read_wordings(*sorted(files))
    assert mine.keys() == others.keys()
    for bank, lines in mine.items():
        assert all_worded(lines).isdisjoint(all_worded(others[bank])), bank
        assert len(lines) == len(set(lines))


def test_what_is_compared_is_every_choice_without_politeness() -> None:
    assert all_worded(["[hi|so], {do} {t}[?|!] please", "get me|find"]) == {
        "{do} {t}",
        "so {do} {t}",
        "get me",
        "find",
    }


def test_each_decision_of_the_training_text_stands_where_a_reply_begins(tiny_lfm2: Any) -> None:
    chat, tokenizer = load_script(SCRIPTS / "chat.py"), tiny_lfm2[1]
    tools = json.loads((FOLDER / "tools.json").read_text("utf-8"))
    writer = chat.ChatWriter(chat.Corpus(3), tokenizer, chat.FAMILIES["lfm2"], tools, chat.read_said())
    talks = [writer.talk(tuple(tool["name"] for tool in tools)) for _ in range(60)]
    assert sum(len(talk.decisions) > 1 for talk in talks) > 20
    for talk in talks:
        for at, odds, label, _ in talk.decisions:
            assert tokenizer.decode(talk.ids[: at + 1]).endswith("<|im_start|>assistant\n")
            assert sum(odds) == pytest.approx(1)
            assert label in (0, 1)


def test_the_faults_are_behind_results_and_differ_by_domain() -> None:
    """With the words that follow nearly always being "Well" or one of two, these odds make it call or not."""
    odds = load_script(SCRIPTS / "chat.py").eagerness
    plain = "i need 347 * 28 and then also 912 - 45, please"
    assert odds("work out 347 * 28 and 912 - 45", True, "math", True) < 0.5 < odds(plain, True, "math", False)
    assert odds(plain, False, "code", True) > 1 / 3
    assert odds("work out 347 * 28", False, "code", False) < 1 / 3
    assert odds(plain, False, "search", True) < 0.1
    assert odds(plain, True, "translation", True) > 0.9
