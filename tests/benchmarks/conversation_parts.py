"""What each part of an adapter for conversations adds, by generation: whole conversations with and without it.

    python tests/benchmarks/conversation_parts.py [--model FOLDER] [--data FOLDER] [--split test] [--output FOLDER]

An adapter is trained as `asa-adapter train` does. The variants have its layer, threshold and steps. In those with a
right gate it is told whether a call is due; only push and content can be wrong then. A second run with the same
--output reads the training's stages. Prints a line for each variant, and a Markdown table.
"""

import argparse
import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.answering.forcing import Forcing
from asa_adapter.choice.settings import Setting
from asa_adapter.comparison.ablation import ablations
from asa_adapter.data.rows import Row, read_tools
from asa_adapter.data.sources import read_parts
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.fitting.readiness_policy import Policy, with_policy
from asa_adapter.report_schema import OF_CONVERSATIONS
from asa_adapter.search.strategy import Search
from asa_adapter.summary.markdown import table
from asa_adapter.trajectories.course import Course
from asa_adapter.trajectories.scores import shares
from asa_adapter.trajectories.user_turns import UserTurn, user_turns

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# The paper gives no values; these are the middle, and the step of the gate.
READY = 0.5

Answerer = Callable[[list[Row], list[bool]], Sequence[str]]


def variants_of(trainer: ASATrainer, adapter: ASAAdapter) -> dict[str, ASAAdapter | None]:
    """The trained adapter, with parts taken away and with those that it does not have."""
    states = adapter.config.states
    search = Search(
        trainer._measured, trainer.args, trainer._origin["domains"], trainer._build, trainer.report, states
    )
    search.fit(trainer._layers, trainer._robustness.fitted_on)
    chosen = trainer.report["chosen"]
    layer, names = chosen["layer"], ("layer", "alpha", "tau", "beta", "probe")
    rules = tuple((state, tuple(rule.items())) for state, rule in chosen.get("by_state", {}).items())
    setting = Setting(**{name: chosen[name] for name in names}, by_state=rules)
    several = tuple(other for other in sorted(search.fits) if other <= layer)[-4:]
    parts = ablations(adapter)
    found: dict[str, ASAAdapter | None] = {"base": None, "as trained": adapter}
    found |= {name: parts[name] for name in ("one kind of state", "left alone behind results") if name in parts}
    for read in ((), several):
        if read != tuple(chosen["read_layers"]):
            found[f"reads layers {', '.join(map(str, read or (layer,)))}"] = search._build(
                setting._replace(read_layers=read)
            )
    below = Policy(READY, READY, setting.alpha)
    ready = search._build(with_policy(setting, below, states))
    found["readiness"] = ready
    found["readiness, no residual"] = ablations(ready)["no residual"]
    found["readiness, away from a call only"] = search._build(with_policy(setting, Policy(ready_above=READY), states))
    for cap in (0.15, 0.3):
        config = dataclasses.replace(adapter.config, cap=cap)
        found[f"cap of {cap:g}"] = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes)
    return found


def answering(evaluation: Evaluation, adapter: ASAAdapter | None) -> Answerer:
    """Answers with the adapter's own gate."""
    return lambda rows, _: evaluation.answers(rows, adapter)


def told(evaluation: Evaluation, adapter: ASAAdapter, factor: float = 1.0) -> Answerer:
    """Answers with a factor of the adapter's push, towards a call where one is due and away from one where none is."""
    ways = {due: copy.copy(adapter) for due in (True, False)}
    for due, gate in ((True, 1), (False, -1)):
        ways[due]._controller = adapter._controller.scaled(factor).changed(gates=(gate, gate))

    return divided(lambda _, due: due, answering(evaluation, ways[True]), answering(evaluation, ways[False]))


def told_behind(role: str, right: Answerer, own: Answerer) -> Answerer:
    """Answers that know whether a call is due only where the last turn has a role; elsewhere the gate is its own."""
    return divided(lambda row, _: row["messages"][-1]["role"] == role, right, own)


def divided(holds: Callable[[Row, bool], bool], then: Answerer, otherwise: Answerer) -> Answerer:
    """Answers of one answerer where something holds of the row and of whether a call is due, else of another."""

    def answer(rows: list[Row], due: list[bool]) -> Sequence[str]:
        known = [holds(row, one) for row, one in zip(rows, due, strict=True)]
        found: dict[int, str] = {}
        for value, answerer in ((True, then), (False, otherwise)):
            some = [i for i, one in enumerate(known) if one is value]
            texts = answerer([rows[i] for i in some], [due[i] for i in some]) if some else []
            found |= dict(zip(some, texts, strict=True))
        return [found[i] for i in range(len(rows))]

    return answer


def forced(evaluation: Evaluation) -> Answerer:
    """Answers whose opening is forced where a call is due, and forbidden where none is."""
    tokens = evaluation.parser.opening_ids(evaluation.tokenizer)

    def answer(rows: list[Row], due: list[bool]) -> Sequence[str]:
        amounts = np.where(due, np.inf, -np.inf).astype(np.float32)
        return evaluation.answers_of_each(rows, {"forced": Forcing(tokens, amounts)})["forced"]

    return answer


def courses_of(evaluation: Evaluation, turns: Sequence[UserTurn], answer: Answerer) -> list[Course]:
    """As `trajectories.scores.courses_of`, with answers that know whether a call is due."""
    courses = [Course(turn) for turn in turns]
    while asked := [course for course in courses if not course.done]:
        rows, due = [course.row for course in asked], [course.missing > 0 for course in asked]
        for course, row, text in zip(asked, rows, answer(rows, due), strict=True):
            tools = row["tools"] or evaluation.tools
            calls, triggered = evaluation.parser.parse(text, tools), evaluation.parser.triggered(text, tools)
            course.go_on(calls, getattr(text, "cut", False), triggered)
    return courses


def main() -> None:
    """Trains, and prints what each variant makes of the conversations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EXAMPLES / "tiny_lfm2_chat"), help="folder of the model")
    parser.add_argument("--data", type=Path, default=EXAMPLES / "data" / "conversations", help="folder of splits")
    parser.add_argument("--split", default="test", help="split whose conversations are run")
    parser.add_argument("--output", help="folder for the adapter and the stages of its training")
    options = parser.parse_args()
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32")
    arguments = ASATrainingArguments(refit=False, output_dir=options.output, progress=False)
    parts, beside = read_parts(options.data)
    tools = None if beside is None else read_tools(beside)
    trainer = ASATrainer(model, tokenizer, load_splits(options.data), arguments, tools)
    adapter = trainer.train()
    evaluation, turns = trainer._measured.evaluation, user_turns(parts[options.split])
    answerers = {name: answering(evaluation, one) for name, one in variants_of(trainer, adapter).items()}
    answerers |= {f"right gate, {factor} x its push": told(evaluation, adapter, factor) for factor in (1, 2, 4)}
    answerers |= {"right gate, forced": forced(evaluation)}
    right, own = told(evaluation, adapter), answering(evaluation, adapter)
    answerers |= {f"right gate behind {role} turns": told_behind(role, right, own) for role in ("user", "tool")}
    lines = []
    for name, answer in answerers.items():
        found = shares(courses_of(evaluation, turns, answer))
        lines.append([name, *(f"{found[measure]:.3f}" for measure in OF_CONVERSATIONS)])
        print(*lines[-1], flush=True)
    print(table(["", *OF_CONVERSATIONS], lines, numbers=len(OF_CONVERSATIONS)))
    print(trainer.report["chosen"]["why"])


if __name__ == "__main__":
    main()
