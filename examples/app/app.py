"""A page in the browser: one prompt, the bare model's answer beside the steered one, and what led to it.

python examples/app/app.py     (ASA_MODEL and ASA_ADAPTER in the environment; by default the tiny LFM2)

As it is, this folder is a Space for the Hub: its README says how. Needs `pip install ".[app]"` in the checkout.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter
from asa_adapter.tool_calls import unwrapped

HERE = Path(__file__).resolve().parent
MAX_PROMPT, MAX_TOOLS = 4000, 20_000  # characters: a page on the Hub is open to everybody
TOOLS = [
    {
        "name": "calculator",
        "description": "Compute an expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
    {
        "name": "web_search",
        "description": "Search the web.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
]


class Loaded(NamedTuple):
    """What the page works with."""

    model: Any
    tokenizer: Any
    adapter: ASAAdapter


class Comparison(NamedTuple):
    """What the page shows: two answers, each with what its calls are worth, and the trace of the decision."""

    base: str
    base_verdict: str
    steered: str
    steered_verdict: str
    trace: list[list[str]]


def load(model: str, adapter: str) -> Loaded:
    """Model, tokenizer and adapter, from folders or from the Hub."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto" if device == "cuda" else torch.float32)
    return Loaded(loaded.to(device), AutoTokenizer.from_pretrained(model), ASAAdapter.from_pretrained(adapter))


def read_tools(text: str) -> list[dict[str, Any]]:
    """The tools that somebody typed.

    Raises:
        ValueError: too long, not JSON, or not a list of tools with names.
    """
    if len(text) > MAX_TOOLS:
        raise ValueError(f"The tools have {len(text)} characters; at most {MAX_TOOLS} are read.")
    try:
        tools = json.loads(text or "[]")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The tools are not valid JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(t, dict) and unwrapped(t).get("name") for t in tools):
        raise ValueError("The tools must be a JSON list of objects, each with a name.")
    return tools


def compare(loaded: Loaded, prompt: str, tools: str, alpha: float, tau: float) -> Comparison:
    """Answers a prompt without and with the adapter, at the given step and confidence.

    Raises:
        ValueError: no prompt, one that is too long, or tools that cannot be read.
    """
    if not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise ValueError(f"Write a prompt of at most {MAX_PROMPT} characters.")
    model, tokenizer, adapter = loaded
    config = dataclasses.replace(adapter.config, alpha=alpha, tau=tau)
    adjusted = ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes)
    found = adjusted.explain(model, tokenizer, prompt, tools=read_tools(tools), max_new_tokens=128)
    base, steered = found["base"], found["steered"]
    return Comparison(base["answer"], verdict(base), steered["answer"], verdict(steered), trace(found))


def verdict(answer: dict[str, Any]) -> str:
    """What an answer is, in a few words."""
    if not answer["triggered"]:
        return "no tool call"
    return "; ".join(answer["errors"]) or "a tool call that fits the tools"


def trace(found: dict[str, Any]) -> list[list[str]]:
    """How the decision came about, as rows of a table: what, and its value."""
    step, start = found["step"], found["start"]
    ranked = sorted(found["domains"].items(), key=lambda item: -item[1])
    gate = {1: "+1: towards a call", 0: "0: left alone", -1: "-1: away from a call"}[found["gate"]]
    return [
        ["read at", f"token {found['prompt']['position']}, after block {step['layer']}"],
        ["domain", ", ".join(f"{name} {p:.2f}" for name, p in ranked)],
        ["p(tool needed)", f"{found['p_tool']:.3f}"],
        ["gate", f"{gate} (tau {found['tau']:g})"],
        ["step", f"{step['relative']:+.0%} of the state's length" if found["gate"] else "none"],
        [f"p({start['token']})", f"{start['before']:.3f} → {start['after']:.3f}"],
    ]


def build(loaded: Loaded) -> Any:
    """The page, as gradio Blocks."""
    import gradio as gr

    config = loaded.adapter.config

    def run(prompt: str, tools: str, alpha: float, tau: float) -> Comparison:
        try:
            return compare(loaded, prompt, tools, alpha, tau)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def answer(name: str) -> list[Any]:
        with gr.Column():
            return [gr.Textbox(label=f"Answer, {name}", lines=4), gr.Textbox(label="that is", max_lines=1)]

    with gr.Blocks(title="ASA: tool calls when they are needed") as page:
        gr.Markdown(
            "# Tool calls when they are needed, and only then\n"
            f"{config.base_model or 'A model'} alone, and steered by an Activation Steering Adapter: one vector is "
            "added to one state of the prompt, and no weight is changed."
        )
        with gr.Row():
            with gr.Column():
                prompt = gr.Textbox(label="Prompt", value="how much is 48713 times 9264", lines=2)
                alpha = gr.Slider(0, max(2.0, 2 * config.alpha), config.alpha, label="alpha: length of the step")
                tau = gr.Slider(0.5, 1, config.tau, label="tau: confidence that opens the gate")
            tools = gr.Code(json.dumps(config.tools or TOOLS, indent=2), language="json", label="Tools", max_lines=14)
        button = gr.Button("Compare", variant="primary")
        with gr.Row():
            answers = [*answer("bare model"), *answer("steered")]
        rows = gr.Dataframe(headers=["what", "value"], label="The decision", wrap=True, column_widths=["35%", "65%"])
        # One at a time: each call attaches the adapter to the model and takes it off again.
        gr.on(
            [button.click, prompt.submit],
            run,
            inputs=[prompt, tools, alpha, tau],
            outputs=[*answers, rows],
            concurrency_limit=1,
        )
    return page


def main() -> None:
    """Serves the page; on a Space it is found by itself."""
    model = os.environ.get("ASA_MODEL", str(HERE.parent / "tiny_lfm2"))
    adapter = os.environ.get("ASA_ADAPTER", str(HERE.parent / "tiny_lfm2_asa"))
    if not ("ASA_ADAPTER" in os.environ or Path(adapter).is_dir()):
        sys.exit("there is no adapter here: set ASA_MODEL and ASA_ADAPTER to folders or Hub ids")
    build(load(model, adapter)).launch()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
