"""Whether a prompt is like those that an adapter was fitted with, told from its token ids.

Router and probes were measured on such prompts only. A prompt that offers no tools has none to call, so its row is
left alone; one that ends otherwise, or offers other tools, is steered and told of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.data.prompt_landmarks import tools_digest
from asa_adapter.errors import visible
from asa_adapter.matching.token_runs import beginning, first_place, last_place, packed, packed_rows
from asa_adapter.notations.tool_schemas import Tools, tool_names, tool_schemas, unwrapped

NO_TOOLS = "the prompt offers no tools"
_TAIL = 48


@dataclass(frozen=True)
class Resemblance:
    """What prompts are compared with. With a config of format version 1 there is nothing to compare with.

    Attributes:
        config: the adapter's config.
    """

    config: ASAConfig

    def offers_tools(self, prompts: Sequence[bytes]) -> list[bool] | None:
        """Whether each of B prompts has the template's words around the tools; None where that cannot be told.

        Args:
            prompts: their token ids, as `token_runs.packed_rows` gives them.
        """
        if not self.config.tools_marks:
            return None
        marks = [packed(mark) for mark in self.config.tools_marks]
        return [any(first_place(prompt, mark) >= 0 for mark in marks) for prompt in prompts]

    def first_other_end(self, tokens: torch.Tensor, last: NDArray[np.int64]) -> str:
        """A sentence about the first of (B, T) prompts with tools that does not end like those of the fit.

        Args:
            tokens: token ids.
            last: (B,) index of the last prompt token in each row.

        Returns:
            "" where all end alike.
        """
        if not self.config.prompt_end:
            return ""
        end = packed(self.config.prompt_end)
        for row, (ids, place) in enumerate(zip(packed_rows(tokens), last.tolist(), strict=True)):
            if not beginning(ids, place + 1).endswith(end) and self.offers_tools([ids]) != [False]:
                cause = self.other_end(tokens[row, : place + 1].tolist())
                return (
                    f"the prompt of row {row} does not end like those that the adapter was fitted with: {cause}. Its "
                    "gate was not measured on such prompts"
                )
        return ""

    def other_end(self, ids: Sequence[int]) -> str:
        """In which way a prompt ends otherwise than those of the fit; "" where it does not.

        Args:
            ids: the prompt's token ids; the last one is the last prompt token.
        """
        end, count = self.config.prompt_end, self.config.generation_tokens
        tail = tuple(ids[-_TAIL:])
        if not end or tail[-len(end) :] == end:
            return ""
        turn, header = end[: len(end) - count], end[len(end) - count :]
        if turn and header and tail[-len(turn) :] == turn:
            return "it has no generation prompt: render it with add_generation_prompt=True"
        places = [last_place(packed(tail), packed(header[:n])) for n in range(1, len(header) + 1)]
        begun = max((n for n, place in enumerate(places, 1) if place >= 0), default=0)
        if header and begun == len(header):
            behind = len(tail) - places[-1] - len(header)
            return f"{behind} more tokens stand behind the generation prompt: a blank, or an answer that has begun"
        if begun > 1:
            variables = self.config.chat_template_variables
            cure = f": render it with {variables}" if variables else ""
            return f"its generation prompt is another one{cure}"
        return "it is raw text, or another chat template rendered it: use tokenizer.apply_chat_template"

    def other_tools(self, tools: Tools | None) -> str:
        """In which way some tools differ from those of the fit; "" where they do not, or where that is not known."""
        config = self.config
        if not config.tool_lists or tools_digest(tools) in config.tool_lists:
            return ""
        found, fitted = tool_schemas(tools), config.tools
        if fitted is not None and _plain_tools(found) == _plain_tools(fitted):
            return "the tools are those that the adapter was fitted with, but wrapped or ordered otherwise"
        known = f" ({', '.join(tool_names(fitted))})" if fitted else ""
        names = ", ".join(tool_names(found)) or "none"
        return visible(f"the tools ({names}) are not those that the adapter was fitted with{known}")

    def notes(self, ids: Sequence[int], tools: Tools | None) -> list[str]:
        """What is unlike the prompts of the fit in one prompt with some tools, a sentence each."""
        offers = self.offers_tools([packed(ids)])
        if offers is not None and not all(offers):
            return [f"{NO_TOOLS}, so it is left alone"]
        end = self.other_end(ids)
        return [note for note in (self.other_tools(tools), end and f"the prompt's end is unlike: {end}") if note]


def _plain_tools(tools: Sequence[Any]) -> list[Any]:
    """Tools without their wrapping, in an order of their own."""
    return sorted((dict(unwrapped(tool)) for tool in tools), key=lambda tool: str(tool.get("name")))
