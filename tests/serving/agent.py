"""What an adapter does inside an agent: python tests/serving/agent.py MODEL ADAPTER [--prompts N] [serve's options]

Needs the extra [serve], the openai client and smolagents, whose ToolCallingAgent works on prompts of examples/data
with their four tools, by `asa-adapter serve`: with the bare model (`"asa": 0`) and with the adapter. The tools give a
fixed text: what counts is whether one is called. Prints a row for each; a call of `final_answer` ends a task.
"""

import os

if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import sys
from pathlib import Path
from typing import Any

import decisions

from asa_adapter import load_splits
from asa_adapter.summary.markdown import table

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
STEPS = 4


def calculator(expression: str) -> str:
    """Compute an expression.

    Args:
        expression: what to compute.
    """
    return f"the value of {expression} is 42"


def python_interpreter(code: str) -> str:
    """Run Python code.

    Args:
        code: the code.
    """
    return "it printed 42"


def web_search(query: str) -> str:
    """Search the web.

    Args:
        query: what to look for.
    """
    return f"the best page about {query} says: 42"


def translator(text: str, target_language: str) -> str:
    """Translate a text.

    Args:
        text: what to translate.
        target_language: into which language.
    """
    return f"{text}, in {target_language}"


TOOLS = [calculator, python_interpreter, web_search, translator]


def task(url: str, row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What the agent does with one prompt: whether it calls, whether it came to an end, and the first decision."""
    import smolagents
    from smolagents.memory import ActionStep

    tools = [smolagents.tool(function) for function in TOOLS]
    model = smolagents.OpenAIModel("served", api_base=url, api_key="none", max_tokens=128, extra_body=fields)
    agent = smolagents.ToolCallingAgent(tools, model, max_steps=STEPS, verbosity_level=0)
    agent.run(row["instruction"])
    steps = [step for step in agent.memory.steps if isinstance(step, ActionStep)]
    calls = [call.name for step in steps for call in step.tool_calls or []]
    message = steps[0].model_output_message
    decision = message.raw.asa["decision"] if message is not None and fields.get("asa") != 0 else None
    return {
        "called": any(name in {tool.name for tool in tools} for name in calls),
        "ended": "final_answer" in calls,
        "gate": decision["gate"] if decision and decision["applied"] else 0,
        "steps": len(steps),
    }


def row(name: str, rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """Shares and means of one variant."""
    needed = [one["called"] for row, one in zip(rows, found, strict=True) if row["label"] == 1]
    other = [one["called"] for row, one in zip(rows, found, strict=True) if row["label"] == 0]
    gates = [one["gate"] for one in found]
    return [
        name,
        f"{sum(needed)} of {len(needed)}",
        f"{sum(other)} of {len(other)}",
        f"{sum(one['ended'] for one in found)} of {len(found)}",
        f"{sum(one['steps'] for one in found) / len(found):.1f}",
        f"{gates.count(1)}, {gates.count(-1)}, {gates.count(0)}",
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--prompts", type=int, default=24, help="number of prompts, half of each label (default: 24)")
    options, more = parser.parse_known_args()
    test = list(load_splits(DATA)["test"])
    halves = [[row for row in test if row["label"] == label] for label in (0, 1)]
    rows = [half[i * len(half) * 2 // options.prompts] for half in halves for i in range(options.prompts // 2)]
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "steered": []}
    with decisions.served(options.model, *more, adapter=options.adapter, name="served") as (url, _):
        for number, one in enumerate(rows, start=1):
            print(f"{number} of {len(rows)}: {one['instruction']}", file=sys.stderr, flush=True)
            found["bare"].append(task(url, one, asa=0))
            found["steered"].append(task(url, one))
    names = ["", "a tool is needed: called one", "none is: called one", "came to an end", "steps", "gates +1, -1, 0"]
    print(table(names, [row(name, rows, some) for name, some in found.items()], len(names) - 1))


if __name__ == "__main__":
    main()
