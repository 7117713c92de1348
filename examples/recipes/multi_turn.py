"""Conversations of published benchmarks as states in which a call may be due, and how your model stands in them.

python examples/recipes/multi_turn.py bfcl --data bfcl_eval/data --output out/bfcl
python examples/recipes/multi_turn.py nestful --data NESTFUL/data --output out/nestful
python examples/recipes/multi_turn.py api_bank --data api-bank --output out/api_bank --model Qwen/Qwen2.5-Coder-0.5B
asa-adapter train --model MODEL --data out/nestful --output out/adapter

BFCL (github.com/ShishirPatil/gorilla) and NESTFUL (github.com/IBM/NESTFUL) have the right calls but no results: BFCL's
are made by its own package where that is installed, else each says "done"; NESTFUL's hold what later calls take from
them. API-Bank (github.com/AlibabaResearch/DAMO-ConvAI) has whole dialogues. All three: Apache-2.0.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bfcl_when2call import offered, schema
from common import rows_of_file, run, write_splits
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import Probes, ToolCallParser, load_splits
from asa_adapter.data import SPLITS, cut
from asa_adapter.evaluation import Evaluation, auc
from asa_adapter.states import collect_hidden_states

Row = dict[str, Any]
# The file of tools of each of BFCL's classes.
CLASSES = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
# "miss_func" takes tools away and gives them back, and a row has one list of them; "long_context" asks as "base".
CATEGORIES = ("base", "miss_param")
KINDS = {"user": "first", "tool": "after_result"}
_REFERENCE = re.compile(r"\$(\w+?)(?:\.([^$]+))?\$")


def said(role: str, text: str) -> Row:
    """A turn of words."""
    return {"role": role, "content": text}


def called(name: str, arguments: Mapping[str, Any], number: int, result: str) -> list[Row]:
    """A call and its result, in the OpenAI shape."""
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    calls = [{"id": f"call_{number}", "type": "function", "function": function}]
    return [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": f"call_{number}", "content": result},
    ]


# --- BFCL


def bfcl(folder: Path) -> Iterator[Row]:
    """BFCL's multi-turn entries as trajectories: the folder `bfcl_eval/data`."""
    files = [path for name in CATEGORIES for path in sorted(folder.glob(f"BFCL_v*_multi_turn_{name}.json"))]
    if not files:
        raise FileNotFoundError(f"no BFCL_v4_multi_turn_base.json in {folder}; expected BFCL's folder of data")
    for path in files:
        truth = {row["id"]: row["ground_truth"] for row in rows_of_file(folder / "possible_answer" / path.name)}
        for entry in rows_of_file(path):
            yield bfcl_trajectory(entry, truth[entry["id"]], folder)


def bfcl_trajectory(entry: Mapping[str, Any], truth: Sequence[Sequence[str]], folder: Path) -> Row:
    """One entry: behind each turn of the user the right calls, one at a time, and a word to end with."""
    docs = folder / "multi_turn_func_doc"
    files = [docs / f"{CLASSES[name]}.json" for name in entry["involved_classes"]]
    tools = offered(tool for path in files for tool in rows_of_file(path))
    names = {tool["name"]: list(tool["parameters"].get("properties", {})) for tool in tools}
    results = iter(bfcl_results(entry, truth))
    messages: list[Row] = []
    for turn, calls in zip(entry["question"], truth, strict=True):
        messages += turn
        for text in calls:
            name, arguments = python_call(text, names)
            messages += called(name, arguments, len(messages), next(results))
        messages.append(said("assistant", "Done." if calls else "Something that I need is missing. Can you tell me?"))
    return {
        "conversation": entry["id"],
        "domain": entry["involved_classes"][0],
        "tools": [{key: tool[key] for key in ("name", "description", "parameters")} for tool in tools],
        "messages": messages,
    }


def python_call(text: str, names: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call in Python; arguments without a name get the names of the tool's, in order.

    Raises:
        ValueError: no call of literals.
    """
    try:
        call: Any = ast.parse(text, mode="eval").body
        name = call.func.id
        arguments = {key: ast.literal_eval(value) for key, value in zip(names.get(name, ()), call.args, strict=False)}
        return name, arguments | {part.arg: ast.literal_eval(part.value) for part in call.keywords}
    except (SyntaxError, AttributeError, ValueError):
        raise ValueError(f"{text!r:.200} is no call with literal arguments") from None


def bfcl_results(entry: Mapping[str, Any], truth: Sequence[Sequence[str]]) -> list[str]:
    """What the tools say to all calls, by BFCL's own package; "done" each where it is not installed."""
    calls = [text for turn in truth for text in turn]
    try:
        from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call
    except ImportError:
        return ["done"] * len(calls)
    long = "long_context" in entry["id"]
    found, _ = execute_multi_turn_func_call(
        calls, entry["initial_config"], entry["involved_classes"], "gold", entry["id"], long_context=long
    )
    return [str(result) for result in found]


# --- NESTFUL


def nestful(folder: Path) -> Iterator[Row]:
    """NESTFUL's nested calls as trajectories: its folder `data`."""
    files = sorted(folder.rglob("*-data.json"))
    if not files:
        raise FileNotFoundError(f"no ...-data.json below {folder}; expected NESTFUL's folder data")
    for path in files:
        domain = path.stem.removesuffix("-data")
        specs = rows_of_file(path.with_name(f"{domain}-spec.json"))
        tools = {spec["name"]: nestful_tool(spec) for spec in specs}
        for i, row in enumerate(rows_of_file(path)):
            yield nestful_trajectory(row, tools) | {"conversation": f"{domain}-{i}", "domain": domain}


def nestful_tool(spec: Mapping[str, Any]) -> Row:
    """A tool of a specification, whose parameters each say whether they are required."""
    given = dict(spec.get("query_parameters") or spec.get("parameters") or {})
    kept = {name: {key: part[key] for key in part if key != "required"} for name, part in given.items()}
    required = [name for name, part in given.items() if part.get("required")]
    parameters = schema({"type": "object", "properties": kept, "required": required})
    return {"name": spec["name"], "description": spec.get("description", ""), "parameters": parameters}


def nestful_trajectory(row: Mapping[str, Any], tools: Mapping[str, Row]) -> Row:
    """One request: its calls in order; a result has the values that later calls refer to, made up."""
    calls = [call for call in row["output"] if call["name"] != "var_result"]
    wanted: dict[str, dict[str, str]] = {}
    for label, key in _REFERENCE.findall(json.dumps(row["output"])):
        wanted.setdefault(label, {})[key or "result"] = f"{key or 'result'} of {label}"
    messages = [said("user", row["input"])]
    for call in calls:
        result = json.dumps(wanted.get(call.get("label"), {"status": "done"}), ensure_ascii=False)
        messages += called(call["name"], filled(call["arguments"], wanted), len(messages), result)
    names = dict.fromkeys(call["name"] for call in calls)
    found = [tools.get(name, {"name": name, "parameters": {"type": "object"}}) for name in names]
    return {"messages": [*messages, said("assistant", "Here is what I found.")], "tools": found}


def filled(value: Any, wanted: Mapping[str, Mapping[str, str]]) -> Any:
    """Arguments with the values of earlier results in place of references to them."""
    if isinstance(value, Mapping):
        return {key: filled(part, wanted) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, wanted) for part in value]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: wanted[found[1]][found[2] or "result"], value)
    return value


# --- API-Bank


def api_bank(folder: Path) -> Iterator[Row]:
    """API-Bank's dialogues as trajectories: the folder `api-bank` of its repository."""
    files = sorted((folder / "lv1-lv2-samples" / "level-1-given-desc").glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"no lv1-lv2-samples/level-1-given-desc in {folder}; expected the folder api-bank")
    tools = {tool["name"]: tool for path in sorted((folder / "apis").glob("*.py")) for tool in api_bank_tools(path)}
    for path in files:
        messages: list[Row] = []
        names: dict[str, None] = {}
        for turn in rows_of_file(path):
            if turn["role"] == "API":
                result = turn.get("result") or {}
                told = json.dumps(result.get("output") or result.get("exception"), ensure_ascii=False)
                messages += called(turn["api_name"], turn["param_dict"], len(messages), told)
                names[turn["api_name"]] = None
            else:
                messages.append(said({"User": "user", "AI": "assistant"}[turn["role"]], turn["text"]))
        if names:
            found = [tools.get(name, {"name": name, "parameters": {"type": "object"}}) for name in names]
            yield {"conversation": path.stem, "messages": messages, "tools": found}


def api_bank_tools(path: Path) -> Iterator[Row]:
    """The tools of a file of API classes, which is read and not run."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            values = {
                part.targets[0].id: ast.literal_eval(part.value)
                for part in node.body
                if isinstance(part, ast.Assign)
                and isinstance(part.targets[0], ast.Name)
                and part.targets[0].id in ("description", "input_parameters")
            }
            if "input_parameters" in values:
                properties = values["input_parameters"]
                parameters = schema({"type": "dict", "properties": properties, "required": list(properties)})
                yield {"name": node.name, "description": values.get("description", ""), "parameters": parameters}


def labelled_states(folder: Path) -> dict[str, list[Row]]:
    """Rows that were cut already, in a folder of splits; those of one `dialogue` are of one conversation."""
    splits = {name: rows_of_file(folder / f"{name}.jsonl") for name in SPLITS}
    return {
        name: [{**row, "conversation": row.get("conversation") or row.get("dialogue")} for row in rows]
        for name, rows in splits.items()
    }


# --- What a model knows, and what it does


def measure(name: str, splits: Mapping[str, Sequence[Row]], kind: str, most: int, device: str) -> None:
    """Print, for one kind of state, how well a probe reads the label and how often the model calls.

    The probe is fitted on CAL and TRAIN, its layer is the best on VALID; TEST is looked at once.

    Args:
        name: the model's folder or id.
        splits: the states.
        kind: "first" or "after_result".
        most: rows to fit on, to choose on and to test on, each; up to half of them of the rarer label.
        device: where the model runs.
    """
    tokenizer = AutoTokenizer.from_pretrained(name)
    loaded: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
    model = loaded.to(device).eval()
    parts = [[*splits["cal"], *splits["train"]], splits["valid"], splits["test"]]
    parts = [some([row for row in rows if KINDS[row["messages"][-1]["role"]] == kind], most) for rows in parts]
    labels = [np.array([row["label"] for row in rows]) for rows in parts]
    if min(len(np.unique(found)) for found in labels) < 2:
        raise ValueError(f"the states of kind {kind} all have one label in a split; expected both in each")
    states = [collect_hidden_states(model, tokenizer, rows).states for rows in parts]
    domains = [str(row["domain"]) for row in parts[0]]
    probes = [Probes.fit(layer, labels[0], domains, 0.01) for layer in states[0]]
    valid, test = (
        [auc(labels[i], probe.p_tool(layer)) for probe, layer in zip(probes, states[i], strict=True)] for i in (1, 2)
    )
    best = int(np.argmax(valid))
    print(
        f"\n{name}, {kind}: fitted on {len(parts[0])} states, layer {best} of {len(test)} by VALID's {len(parts[1])}"
    )
    print(f"probe AUC on TEST's {len(parts[2])}: {test[best]:.3f} (on VALID {valid[best]:.3f})", flush=True)
    parser = ToolCallParser.from_model(model, tokenizer, parts[0])
    answers = Evaluation(model, tokenizer, parser, max_new_tokens=48).answers(parts[2], name="TEST")
    calls = [parser.triggered(answer, row["tools"]) for answer, row in zip(answers, parts[2], strict=True)]
    for label, told in ((1, "a call is due"), (0, "none is")):
        here = [call for call, found in zip(calls, labels[2], strict=True) if found == label]
        print(f"calls on TEST where {told}: {sum(here)} of {len(here)}")


def some(rows: Sequence[Row], most: int) -> list[Row]:
    """The first rows, at most so many, and up to half of them of the rarer label."""
    ones, zeros = ([row for row in rows if row["label"] == label] for label in (1, 0))
    few, many = sorted((ones, zeros), key=len)
    few = few[: max(1, most // 2)]
    return [*few, *many[: most - len(few)]]


SOURCES: dict[str, Callable[[Path], Iterator[Row]]] = {"bfcl": bfcl, "nestful": nestful, "api_bank": api_bank}


def main(words: Sequence[str] | None = None) -> None:
    """Write the conversations, and measure a model where one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=SOURCES, help="which benchmark")
    parser.add_argument("--data", type=Path, required=True, help="its folder, or one of splits that are cut already")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--model", help="measure this model in the states")
    parser.add_argument("--kind", choices=KINDS.values(), default="after_result", help="in states of this kind")
    parser.add_argument("--rows", type=int, default=10**9, help="states to fit, to choose and to test on, at most")
    parser.add_argument("--device", default="cpu", help="where the model runs (default: cpu)")
    options = parser.parse_args(words)
    if (options.data / "cal.jsonl").is_file():
        splits = labelled_states(options.data)
    else:
        trajectories = list(SOURCES[options.source](options.data))
        print(f"{len(trajectories)} conversations, {len(cut(trajectories))} states")
        splits = {name: list(rows) for name, rows in load_splits(trajectories).items()}
    write_splits(options.output, splits)
    if options.model:
        measure(options.model, splits, options.kind, options.rows, options.device)


if __name__ == "__main__":
    sys.exit(run(main))
