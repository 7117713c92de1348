"""Print what tiny_lfm2_chat knows and how it acts in conversations, on TEST: ``python measure_chat.py [--model DIR]``.

Every state stands behind what should have been said before it. So a conversation goes right as a whole if the greedy
answer is right in each of its states.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dialogues import DATA
from measure import STRENGTHS, share
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from train import HERE
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import Probes, ToolCallParser, load_splits
from asa_adapter.evaluation import Evaluation, auc
from asa_adapter.states import collect_hidden_states
from asa_adapter.tool_calls import matches_gold

KINDS = {"user": "first", "tool": "after_result"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """What the model did in one state.

    Attributes:
        row: the state.
        called: whether it called a tool.
        right: whether that was due, with the right arguments, or whether words were due and came.
        repeated: whether it made a call, of those before in the conversation, that was not due again.
    """

    row: Row
    called: bool
    right: bool
    repeated: bool


def kind_of(row: Row) -> str:
    """The kind of state.

    Args:
        row: with messages.

    Returns:
        "first" after a user's turn, "after_result" after a tool's.
    """
    return KINDS[row["messages"][-1]["role"]]


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """The states of one kind.

    Args:
        rows: states.
        kind: "first" or "after_result".

    Returns:
        Those of this kind.
    """
    return [row for row in rows if kind_of(row) == kind]


def acts(model: Any, tokenizer: Any, rows: Sequence[Row]) -> list[Act]:
    """Answer every state greedily.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        rows: the states.

    Returns:
        What it did, in the rows' order.
    """
    parser = ToolCallParser.from_tokenizer(tokenizer)
    answers = Evaluation(model, tokenizer, parser, max_new_tokens=64).answers(rows, name="states")
    found = []
    for row, answer in zip(rows, answers, strict=True):
        called, calls = parser.triggered(answer), parser.parse(answer)
        right = matches_gold(calls, row["gold_calls"]) if row["label"] else not called
        before = [call["function"] for turn in row["messages"] for call in turn.get("tool_calls") or []]
        repeated = called and not right and any(matches_gold(calls, [call]) for call in before)
        found.append(Act(row, called, right, repeated))
    return found


def print_acts(done: Sequence[Act]) -> None:
    """Print how often it calls, by kind of state and domain, and how conversations go.

    Args:
        done: what it did in the states of whole conversations.
    """
    print("\n| state | domain | calls where due | of these right | calls where not due |\n|---|---|---:|---:|---:|")
    domains = sorted({act.row["domain"] for act in done})
    for kind in KINDS.values():
        for domain in domains:
            here = [act for act in done if kind_of(act.row) == kind and act.row["domain"] == domain]
            due, not_due = ([act for act in here if act.row["label"] == label] for label in (1, 0))
            shares = [
                share([act.called for act in due]),
                share([act.right for act in due if act.called]),
                share([act.called for act in not_due]),
            ]
            print(f"| {kind} | {domain} | " + " | ".join(f"{value:.2f}" for value in shares) + " |")
    print("\n| domain | whole sequences | all due calls right | missing calls | needless calls | of these repeated |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, some in {"all": domains, **{domain: [domain] for domain in domains}}.items():
        chats = defaultdict(list)
        for act in done:
            if act.row["domain"] in some:
                chats[act.row["conversation"]].append(act)
        every = [act for chat in chats.values() for act in chat]
        whole = share([all(act.right for act in chat) for chat in chats.values()])
        made = share([all(act.right for act in chat if act.row["label"]) for chat in chats.values()])
        missing = sum(act.row["label"] and not act.called for act in every)
        needless = sum(act.called and not act.row["label"] for act in every)
        repeated = sum(act.repeated for act in every)
        print(f"| {name} | {whole:.2f} | {made:.2f} | {missing} | {needless} | {repeated} |")


def last_words(row: Row) -> str:
    """The words of a state's last turn.

    Args:
        row: the state.

    Returns:
        Its text.
    """
    return str(row["messages"][-1]["content"])


def words_auc(fit: Sequence[Row], test: Sequence[Row], view: Callable[[Row], str] = last_words) -> float:
    """How well words tell the label: AUC of logistic regression on TF-IDF of 1-2-grams.

    Args:
        fit: rows to fit on.
        test: rows to score.
        view: the words of a row.

    Returns:
        The AUC on the rows to score.
    """
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([view(row) for row in fit], [row["label"] for row in fit])
    return float(auc([row["label"] for row in test], model.predict_proba([view(row) for row in test])[:, 1]))


def print_readings(model: Any, tokenizer: Any, splits: dict[str, list[Row]]) -> None:
    """Print how well a probe of each kind reads the label, layer by layer; its strength is the best on VALID.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        splits: the states of each split.
    """
    names = ("cal", "train", "valid", "test")
    states = {name: collect_hidden_states(model, tokenizer, splits[name]).states for name in names}
    print("\n| layer | AUC at first | AUC at after_result |\n|---|---:|---:|")
    table: list[list[float]] = [[] for _ in states["test"]]
    for kind in KINDS.values():
        at = {name: [i for i, row in enumerate(splits[name]) if kind_of(row) == kind] for name in names}
        labels = {name: np.array([splits[name][i]["label"] for i in at[name]]) for name in names}
        fitted = np.concatenate([labels["cal"], labels["train"]])
        domains = [splits[name][i]["domain"] for name in ("cal", "train") for i in at[name]]
        for layer, line in enumerate(table):
            here = {name: states[name][layer][at[name]] for name in names}
            probes = [Probes.fit(np.concatenate([here["cal"], here["train"]]), fitted, domains, C) for C in STRENGTHS]
            best = max(probes, key=lambda probe: auc(labels["valid"], probe.p_tool(here["valid"])))
            line.append(auc(labels["test"], best.p_tool(here["test"])))
    for layer, line in enumerate(table):
        print(f"| {layer} | " + " | ".join(f"{value:.3f}" for value in line) + " |")
    fit = splits["cal"] + splits["train"]
    told = [words_auc(of_kind(fit, kind), of_kind(splits["test"], kind)) for kind in KINDS.values()]
    print(f"| words of the last turn | {told[0]:.3f} | {told[1]:.3f} |")


def main() -> None:
    """Measure and print the tables of the model card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE.parent / "tiny_lfm2_chat", help="folder of the model")
    folder = parser.parse_args().model
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    splits = {name: list(rows) for name, rows in load_splits(DATA).items()}
    print_acts(acts(model, tokenizer, splits["test"]))
    print_readings(model, tokenizer, splits)


if __name__ == "__main__":
    main()
