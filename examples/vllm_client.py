"""Asks a vLLM server the same with and without steering, and shows what the answers call.

ASA_ADAPTER=my_adapter vllm serve MODEL --enable-auto-tool-choice --tool-call-parser lfm2
python examples/vllm_client.py [--url http://localhost:8000/v1] [PROMPT ...]
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import OpenAI

TOOLS = Path(__file__).resolve().parent / "data" / "tools.json"
PROMPTS = ("What is 4821 times 377?", "What is a prime number?")


def answer(client: "OpenAI", model: str, prompt: str, tools: list[dict[str, Any]], asa: dict[str, float]) -> str:
    """The server's answer in one line: the calls in it, else its text."""
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        tools=tools,
        temperature=0,
        max_tokens=64,
        extra_body={"vllm_xargs": asa},
    )
    message = reply.choices[0].message
    calls = [f"{c.function.name}({c.function.arguments})" for c in message.tool_calls or [] if c.type == "function"]
    return "; ".join(calls) or f"no call: {(message.content or '').strip()}"


def main() -> None:
    """Asks each prompt with the adapter, with half of its step, and without it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="*", default=PROMPTS, help="what the user says")
    parser.add_argument("--url", default="http://localhost:8000/v1", help="the server's address")
    parser.add_argument("--tools", type=Path, default=TOOLS, help="JSON file with the tools to offer")
    options = parser.parse_args()
    from openai import OpenAI  # here, since --help needs none

    client = OpenAI(base_url=options.url, api_key="none")
    model = client.models.list().data[0].id
    # OpenAI's interface takes tools in this wrapping alone, and the server writes them so into the prompt.
    tools = [{"type": "function", "function": t.get("function", t)} for t in json.loads(options.tools.read_text())]
    for prompt in options.prompts:
        print(prompt)
        print(f"  steered    {answer(client, model, prompt, tools, {})}")
        print(f"  half step  {answer(client, model, prompt, tools, {'asa_factor': 0.5})}")
        print(f"  bare model {answer(client, model, prompt, tools, {'asa': 0})}")


if __name__ == "__main__":
    main()
