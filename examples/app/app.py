"""A page in the browser: one prompt, the bare model's answer beside the steered one, and what led to it.

python examples/app/app.py     (ASA_MODEL and ASA_ADAPTER in the environment; by default the tiny LFM2)

As it is, this folder is a Space for the Hub: its README says how. Needs `pip install ".[app]"` in the checkout. Agents
can use the page as a tool: it is an MCP server, too.
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
from asa_adapter.data import SAMPLE_PROMPTS
from asa_adapter.tool_calls import unwrapped

HERE = Path(__file__).resolve().parent
PROMPT = "how much is 48713 times 9264"
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
    """What the page shows: two answers, each with what its calls are worth, and the decision as a bar and a table."""

    base: str
    base_verdict: str
    steered: str
    steered_verdict: str
    bar: str
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
    drawn = bar(found["p_tool"], found["tau"])
    return Comparison(base["answer"], verdict(base), steered["answer"], verdict(steered), drawn, trace(found))


def verdict(answer: dict[str, Any]) -> str:
    """What an answer is, in a few words."""
    if not answer["triggered"]:
        return "no tool call"
    return "; ".join(answer["errors"]) or "a tool call that fits the tools"


def bar(p_tool: float, tau: float) -> str:
    """Where p(tool) stands between the zones in which the gate acts, as HTML; both are from 0 to 1."""
    away, towards = 100 * (1 - tau), 100 * tau
    zones = (
        f"linear-gradient(to right, #0072B2 {away:.1f}%, #DDDDDD {away:.1f}%, #DDDDDD {towards:.1f}%, "
        f"#D55E00 {towards:.1f}%)"
    )
    mark = f"left:calc({100 * p_tool:.1f}% - 3px);width:6px;height:28px;top:-5px;background:black;position:absolute"
    return (
        f'<div role="img" aria-label="p(tool) {p_tool:.3f}, tau {tau:g}">'
        f'<div style="position:relative;height:18px;background:{zones}"><div style="{mark}"></div></div>'
        f"<small>p(tool) {p_tool:.3f}: away from a call up to {1 - tau:.2f}, towards one from {tau:.2f}</small></div>"
    )


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

    def compare_answers(prompt: str, tools: str, alpha: float, tau: float) -> Comparison:
        """Answers a prompt by a language model alone and steered, and says whether the prompt needs a tool.

        Args:
            prompt: what a user says.
            tools: a JSON list of the tools to offer, each with a name and a schema of its parameters; none is run.
            alpha: length of the step; 0 leaves the model alone.
            tau: confidence from which it is steered, 0.5 to 1.

        Returns:
            The answer of the model alone, what it is, the steered answer, what it is, and the decision.
        """
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
                prompt = gr.Textbox(label="Prompt", value=PROMPT, lines=2)
                alpha = gr.Slider(0, max(2.0, 2 * config.alpha), config.alpha, label="alpha: length of the step")
                tau = gr.Slider(0.5, 1, config.tau, label="tau: confidence that opens the gate")
            tools = gr.Code(json.dumps(config.tools or TOOLS, indent=2), language="json", label="Tools", max_lines=14)
        button = gr.Button("Compare", variant="primary")
        gr.Examples([[text] for text in (PROMPT, *SAMPLE_PROMPTS)], [prompt], label="Prompts to try")
        with gr.Row():
            answers = [*answer("bare model"), *answer("steered")]
        drawn = gr.HTML(label="p(tool) and tau")
        rows = gr.Dataframe(headers=["what", "value"], label="The decision", wrap=True, column_widths=["35%", "65%"])
        # One at a time: each call attaches the adapter to the model and takes it off again.
        gr.on(
            [button.click, prompt.submit],
            compare_answers,
            inputs=[prompt, tools, alpha, tau],
            outputs=[*answers, drawn, rows],
            concurrency_limit=1,
            api_name="compare_answers",
        )
    return page


def main() -> None:
    """Serves the page; on a Space it is found by itself."""
    model = os.environ.get("ASA_MODEL", str(HERE.parent / "tiny_lfm2"))
    adapter = os.environ.get("ASA_ADAPTER", str(HERE.parent / "tiny_lfm2_asa"))
    if not ("ASA_ADAPTER" in os.environ or Path(adapter).is_dir()):
        sys.exit("there is no adapter here: set ASA_MODEL and ASA_ADAPTER to folders or Hub ids")
    build(load(model, adapter)).launch(mcp_server=True)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
