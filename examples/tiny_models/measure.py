"""Print what a tiny model knows and how it acts, on TEST: ``python measure.py [--model DIR]``."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import Probes, ToolCallParser, load_splits
from asa_adapter.evaluation import Evaluation, auc
from asa_adapter.hub import metrics_table
from asa_adapter.measurement import bag_of_words
from asa_adapter.states import collect_hidden_states

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
FIRST_RESULT = 1_234

Row = dict[str, Any]


def normal(value: Any) -> str:
    """Bring an argument to the form in which two count as the same.

    Args:
        value: an argument.

    Returns:
        Lower case, one kind of quote, without spaces, final marks and an outer ``print()``.
    """
    text = re.sub(r"\s", "", str(value).lower().replace('"', "'")).rstrip(".!?")
    inside = re.fullmatch(r"print\((.*)\)", text)
    return inside[1] if inside else text


def share(hits: Sequence[bool]) -> float:
    """Share of True.

    Args:
        hits: one per case.

    Returns:
        Between 0 and 1; 0 where there is no case.
    """
    return sum(hits) / max(1, len(hits))


@dataclass(frozen=True)
class Reading:
    """What a probe reads from one layer.

    Attributes:
        layer: its number.
        kind: of the layer.
        valid: AUC on VALID.
        test: AUC on TEST.
        scores: (N,) of the rows of TEST.
    """

    layer: int
    kind: str
    valid: float
    test: float
    scores: NDArray[np.float32]


class Measure:
    """Answers of one model to what is asked of it here.

    Attributes:
        model: the model in float32.
        tokenizer: its tokenizer.
        parser: reads its calls.
        splits: the data.
        evaluation: generates answers.
    """

    def __init__(self, folder: Path) -> None:
        """Load the model and the data.

        Args:
            folder: of the model.
        """
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.parser = ToolCallParser.from_tokenizer(self.tokenizer)
        self.splits = {name: list(rows) for name, rows in load_splits(DATA).items()}
        self.evaluation = Evaluation(self.model, self.tokenizer, self.parser)

    def behaviour(self, rows: Sequence[Row], name: str, whole: bool = False) -> dict[str, Any]:
        """Trigger metrics of the greedy answers.

        Args:
            rows: labelled rows.
            name: shown beside the progress bar.
            whole: whether answers are needed to their end, so that calls can be checked; else their start will do.

        Returns:
            As `trigger_metrics`.
        """
        longest = self.evaluation.max_new_tokens if whole else 2
        evaluation = Evaluation(self.model, self.tokenizer, self.parser, max_new_tokens=longest)
        return evaluation.metrics(rows, evaluation.answers(rows, name=name))

    def second_turns(self) -> list[Row]:
        """TEST rows, each asked after another row's request, call, result and answer.

        Returns:
            Rows with ``messages``; the earlier request is the needed one of the row two thirds on.
        """
        rows = self.splits["test"]
        earlier = [row for row in rows if row["label"]]
        return [
            {**row, "messages": [*self.with_result(earlier[(i + 100) % len(earlier)], i), _user(row)]}
            for i, row in enumerate(rows)
        ]

    def with_result(self, row: Row, number: int) -> list[dict[str, Any]]:
        """A request, its gold call, a made-up result, and an answer that reports it.

        Args:
            row: with a gold call.
            number: makes the result differ from row to row.

        Returns:
            Four messages.
        """
        result = str(FIRST_RESULT + 37 * number)
        call = {"role": "assistant", "content": self.written(row["gold_calls"][0])}
        answer = {"role": "assistant", "content": f"The result is {result}."}
        return [_user(row), call, {"role": "tool", "content": result}, answer]

    def written(self, call: dict[str, Any]) -> str:
        """Write a call as the model's family does.

        Args:
            call: name and arguments.

        Returns:
            The text with its markers.
        """
        if self.parser.format == "hermes":
            return f"{self.parser.start}\n{json.dumps(call, ensure_ascii=False)}\n{self.parser.end}"
        inside = ", ".join(
            f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in call["arguments"].items()
        )
        return f"{self.parser.start}[{call['name']}({inside})]{self.parser.end}"

    def results_reported(self) -> dict[str, float]:
        """What it says after a tool's result.

        Returns:
            Shares of the answers that are words, and that hold the result.
        """
        rows = [row for row in self.splits["test"] if row["label"] and row["domain"] == "math"]
        asked = [{**row, "messages": self.with_result(row, i)[:3]} for i, row in enumerate(rows)]
        answers = self.evaluation.answers(asked, name="after a result")
        return {
            "in words": share([not self.parser.triggered(answer) for answer in answers]),
            "with the result": share(
                [row["messages"][2]["content"] in a for row, a in zip(asked, answers, strict=True)]
            ),
        }

    def copying(self) -> dict[str, float]:
        """How far the arguments of calls are right, when each needed call is begun for the model.

        Returns:
            Shares: ``exact`` is every argument equal to the gold one (`normal`), for the queries of a search one of
            several right ways; ``numbers`` of the gold expressions' numbers that are in the model's.
        """
        rows = [row for row in self.splits["test"] if row["label"]]
        begun = _Begun(self.evaluation.tokenizer, self.parser.start)
        answers = Evaluation(self.model, begun, self.parser).answers(rows, name="begun calls")
        found = [next(iter(self.parser.parse(self.parser.start + answer)), None) for answer in answers]
        pairs = [(row, row["gold_calls"][0], call) for row, call in zip(rows, found, strict=True)]
        same = [
            (row["domain"], call is not None and call.name == gold["name"], _same(gold, call))
            for row, gold, call in pairs
        ]
        table = {"tool": share([name for _, name, _ in same])}
        for domain in ("math", "code", "search", "translation"):
            table[f"exact, {domain}"] = share([exact for where, _, exact in same if where == domain])
        table["numbers, math"] = share(
            [
                number in re.findall(r"\d+(?:\.\d+)?", str(call and call.arguments))
                for row, gold, call in pairs
                if row["domain"] == "math"
                for number in re.findall(r"\d+(?:\.\d+)?", str(gold["arguments"]))
            ]
        )
        for name in ("text", "target_language"):
            table[f"{name}, translation"] = share(
                [
                    call is not None and normal(gold["arguments"][name]) == normal(call.arguments.get(name))
                    for row, gold, call in pairs
                    if row["domain"] == "translation"
                ]
            )
        return table

    def readings(self) -> list[Reading]:
        """How well a linear probe reads "a tool is needed", layer by layer; its strength is the best on VALID.

        Returns:
            One reading for each layer.
        """
        names = ("train", "valid", "test")
        states = {name: collect_hidden_states(self.model, self.tokenizer, self.splits[name]).states for name in names}
        labels = {name: np.array([row["label"] for row in self.splits[name]]) for name in names}
        domains = [row["domain"] for row in self.splits["train"]]
        kinds = getattr(self.model.config, "layer_types", None) or ["full_attention"] * len(states["test"])
        found = []
        for layer, kind in enumerate(kinds):
            at = {name: tensor[layer] for name, tensor in states.items()}
            probes = [Probes.fit(at["train"], labels["train"], domains, C) for C in STRENGTHS]
            on_valid = [auc(labels["valid"], probe.p_tool(at["valid"])) for probe in probes]
            best = int(np.argmax(on_valid))
            scores = probes[best].p_tool(at["test"])
            found.append(Reading(layer, kind, on_valid[best], auc(labels["test"], scores), scores))
        return found

    def parts(self, scores: NDArray[np.float32]) -> dict[str, float]:
        """Which requests are read well.

        Args:
            scores: of the rows of TEST.

        Returns:
            AUC of each domain, and of each of its kinds against the rows of the other label in the domain.
        """
        rows = [json.loads(line) for line in (DATA / "test.jsonl").read_text("utf-8").splitlines()]
        table = {}
        for domain in sorted({row["domain"] for row in rows}):
            here = [(row, score) for row, score in zip(rows, scores, strict=True) if row["domain"] == domain]
            table[f"{domain}, all"] = auc([row["label"] for row, _ in here], [score for _, score in here])
            for label, kind in sorted({(1 - row["label"], row["kind"]) for row, _ in here}):
                some = [(row, score) for row, score in here if row["kind"] == kind or row["label"] == label]
                table[f"{domain}, {kind} ({1 - label})"] = auc(
                    [row["label"] for row, _ in some], [score for _, score in some]
                )
        return table

    def words_auc(self) -> float:
        """How well the words alone tell the label.

        Returns:
            AUC on TEST of logistic regression on TF-IDF of 1-2-grams, fitted on CAL and TRAIN.
        """
        fitted = self.splits["cal"] + self.splits["train"]
        return float(bag_of_words(fitted, self.splits["test"])["auc"])


class _Begun:
    """A tokenizer whose prompts end with the marker that begins a call."""

    def __init__(self, tokenizer: Any, marker: str) -> None:
        self.tokenizer, self.ids = tokenizer, tokenizer.encode(marker, add_special_tokens=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def apply_chat_template(self, *arguments: Any, **keywords: Any) -> Any:
        encoded = self.tokenizer.apply_chat_template(*arguments, **keywords)
        return {**encoded, "input_ids": [*encoded["input_ids"], *self.ids]}


def _user(row: Row) -> dict[str, Any]:
    return {"role": "user", "content": row["instruction"]}


def _same(gold: dict[str, Any], call: Any) -> bool:
    """Whether a call is the gold one."""
    if call is None or call.name != gold["name"] or call.arguments.keys() != gold["arguments"].keys():
        return False
    return all(normal(value) == normal(call.arguments[name]) for name, value in gold["arguments"].items())


def print_shares(title: str, shares: dict[str, float]) -> None:
    """Print a table of two columns.

    Args:
        title: head of the first column.
        shares: name to number.
    """
    print(f"\n| {title} | share |\n|---|---:|")
    for name, value in shares.items():
        print(f"| {name} | {value:.3f} |")


def main() -> None:
    """Measure and print the tables of the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "tiny_lfm2", help="folder of the model")
    torch.set_num_threads(1)
    measure = Measure(parser.parse_args().model)
    tools = json.loads((DATA / "tools.json").read_text("utf-8"))
    german = [json.loads(line) for line in (DATA / "german.jsonl").read_text("utf-8").splitlines()]
    found = {
        "all": measure.behaviour(measure.splits["test"], "all", whole=True),
        "second turns": measure.behaviour(measure.second_turns(), "second turns"),
        "german": measure.behaviour([{"tools": tools, **row} for row in german], "german"),
    }
    print(metrics_table({"all": found["all"], **found["all"]["per_domain"], **found}))
    print_shares("calls of the model on TEST", found["all"]["validity"])
    print_shares("begun calls on TEST", measure.copying())
    print_shares("answers after a result", measure.results_reported())
    readings = measure.readings()
    print("\n| layer | kind | AUC on TEST |\n|---|---|---:|")
    for reading in readings:
        print(f"| {reading.layer} | {reading.kind} | {reading.test:.3f} |")
    print(f"| words | TF-IDF | {measure.words_auc():.3f} |")
    best = max(readings, key=lambda reading: reading.valid)
    print_shares(f"AUC at layer {best.layer} (the best on VALID)", measure.parts(best.scores))


if __name__ == "__main__":
    main()
