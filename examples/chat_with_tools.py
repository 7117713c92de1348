"""A chat in the terminal whose model has real tools and an adapter; every decision is shown.

python examples/chat_with_tools.py [--model M] [--adapter A] [--folder F] [--picture FILE]

The model is offered the tools that the adapter was fitted with, for which its decisions were measured. Those that
chat_tools.py has are run: a calculator, units, and a search, whose web is the text files of FOLDER; a call of another
one is answered with an error. Any model will do whose chat template takes tools.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from chat_tools import calculator, convert_units, search_in
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, Decision, SteeringHandle, ToolCall, ToolCallParser
from asa_adapter.data import encode_prompt
from asa_adapter.pictures import conversation, save
from asa_adapter.tool_calls import tool_schemas, unwrapped

HERE = Path(__file__).resolve().parent


class Chat:
    """One conversation.

    Args:
        model: a causal language model with an adapter attached.
        tokenizer: its tokenizer, with a chat template.
        steering: the adapter's handle.
        parser: reads the model's tool calls.
        tools: functions that can be run, with type hints and docstrings; they return text.
        offered: schemas of the tools that the model sees; those of `tools` where None.
        rounds: how often the model may call tools before it must answer.
        max_new_tokens: longest answer.
        behind_results: whether the adapter was fitted on prompts that end behind a tool's result, too.
        steered: whether the adapter acts at all.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        steering: SteeringHandle,
        parser: ToolCallParser,
        tools: Sequence[Callable[..., str]],
        offered: Sequence[dict[str, Any]] | None = None,
        rounds: int = 4,
        max_new_tokens: int = 256,
        behind_results: bool = False,
        steered: bool = True,
    ) -> None:
        self.model, self.tokenizer, self.steering, self.parser = model, tokenizer, steering, parser
        self.functions = {tool.__name__: tool for tool in tools}
        self.tools: list[Any] = list(offered or tools)
        self.decided: list[tuple[str, Decision]] = []
        self.rounds = rounds
        self.max_new_tokens = max_new_tokens
        self.behind_results, self.steered = behind_results, steered
        self.messages: list[dict[str, Any]] = []

    def turn(self, request: str) -> Iterator[str]:
        """Answers one request; yields the lines to show: the decision, the calls with their results, the answer."""
        self.messages.append({"role": "user", "content": request})
        for round in range(self.rounds):
            acts = self.steered and (round == 0 or self.behind_results)
            ids = self.answer(steered=acts)
            if acts and round == 0:
                self.decided.append((request, self.steering.decisions[0]))
            alone = "not steered: it reads results" if self.steered else "not steered"
            yield f"  [{self.steering.decisions[0] if acts else alone}]"
            text = self.parser.text(ids)
            calls = self.parser.parse(text, self.tools)
            if not calls:
                words = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
                self.messages.append({"role": "assistant", "content": words})
                yield words
                return
            asked = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]
            self.messages.append({"role": "assistant", "content": "", "tool_calls": asked})
            errors = self.parser.check(text, self.tools)["errors"]
            for call in calls:
                result = f"error: {'; '.join(errors)}" if errors else self.run(call)
                self.messages.append({"role": "tool", "name": call.name, "content": result})
                yield f"  {call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())}) -> {result}"
        self.messages.append({"role": "assistant", "content": "I could not finish this."})
        yield f"stopped: {self.rounds} rounds of tool calls, and no answer"

    def answer(self, steered: bool) -> list[int]:
        """The model's answer to the conversation so far, as token ids."""
        prompt = encode_prompt(self.tokenizer, self.messages, self.tools, self.parser)
        ids = torch.tensor([prompt], device=self.model.device)
        # Many adapters learnt from prompts that end with a request. What their probes say behind a tool's result is
        # anybody's guess, so the model goes on by itself there.
        with contextlib.nullcontext() if steered else self.steering.disabled():
            output = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=self.max_new_tokens, do_sample=False
            )
        return [int(token) for token in output[0, len(prompt) :]]

    def run(self, call: ToolCall) -> str:
        """The result of a call whose name and arguments have been checked."""
        if call.name not in self.functions:
            return f"error: {call.name} is not run in this demo"
        try:
            result = self.functions[call.name](**call.arguments)
        except (ValueError, ArithmeticError, OSError) as error:
            return f"error: {error}"
        for token in self.tokenizer.all_special_tokens:  # a file must not end the turn and write the next
            result = result.replace(token, "")
        return result


def talk(chat: Chat) -> None:
    """Reads requests until the user has enough: Ctrl-C, Ctrl-D, or an empty line."""
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        while request := input("\nyou> ").strip():
            if request == "/new":
                chat.messages.clear()
                continue
            for line in chat.turn(request):
                print(line, flush=True)
    print("\nbye")


def draw(chat: Chat, file: Path) -> None:
    """Draws the decisions of a conversation, where there are any."""
    if chat.decided:
        requests, decisions = zip(*chat.decided, strict=True)
        p_tool, gates = zip(*((decision.p_tool, decision.gate) for decision in decisions), strict=True)
        save(conversation(requests, p_tool, gates, chat.steering.tau), file)
        print(f"the decisions are drawn in {file}")


def main(words: Sequence[str] | None = None) -> None:
    """Loads everything and talks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(HERE / "tiny_lfm2"), help="folder or Hub id (default: the tiny LFM2)")
    parser.add_argument("--adapter", default=HERE / "tiny_lfm2_asa", help="folder or Hub id (default: ours for it)")
    parser.add_argument("--folder", type=Path, default=HERE / "data", help="text files to search (default: our data)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of calls per request (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="PNG file for a picture of the decisions")
    options = parser.parse_args(words)
    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    if options.picture and not (find_spec("matplotlib") and options.picture.parent.is_dir()):
        parser.error(f'--picture {options.picture} needs that folder, and matplotlib: pip install ".[plots]"')

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        adapter = ASAAdapter.from_pretrained(options.adapter)
        tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    model.to(device)
    searches = [search_in(options.folder, name) for name in ("search_files", "web_search")]
    tools: list[Callable[..., str]] = [calculator, convert_units, *searches]
    with adapter.attach(model, tokenizer=tokenizer) as steering:
        parser_of_calls, offered = adapter.parser(tokenizer), adapter.config.tools
        behind = "after_result" in adapter.config.states
        how: dict[str, Any] = {"rounds": options.rounds, "behind_results": behind}
        chat = Chat(model, tokenizer, steering, parser_of_calls, tools, offered, **how)
        names = ", ".join(unwrapped(schema)["name"] for schema in tool_schemas(chat.tools))
        print(f"Tools: {names}. /new forgets; an empty line or Ctrl-C ends.")
        talk(chat)
        if options.picture:
            draw(chat, options.picture)


if __name__ == "__main__":
    main()
