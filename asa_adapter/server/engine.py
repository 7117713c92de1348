"""`Engine`: what the server asks of a model. It knows no HTTP, and the server no model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from asa_adapter.policy.decision import Decision
from asa_adapter.tool_calls.parser import ToolCallParser

# Is told of an answer's text so far, and of the decision; raises `Gone` where nobody waits for the rest.
Told = Callable[[str, Decision | None], None]


class Gone(Exception):
    """Nobody waits for an answer any more, so that an engine stops writing it."""


@dataclass(frozen=True)
class Asked:
    """One request for an answer.

    Attributes:
        messages: the chat, in OpenAI's shape, contents as text.
        tools: JSON-schema tools to offer, in OpenAI's shape.
        must_call: whether the answer has to be a call (`tool_choice` "required", or a named tool, then the only one).
        one_call: whether calls behind the first are left out (`parallel_tool_calls` false).
        max_tokens: greatest length of the answer, in tokens; None for the server's.
        temperature: samples are drawn with it; 0 takes the likeliest token each time.
        top_p: share of the probability that samples are drawn from.
        seed: of the samples; None for any.
        stops: texts before which an answer ends.
        factor: what the adapter's step is multiplied by; 0 leaves the request to the bare model.
        without_tools: whether it is steered though it offers no tools.
        all_states: whether it is steered though it ends in a kind of state that was not fitted.
        stream: whether the answer is sent while it is written.
        usage: whether a stream ends with the numbers of tokens.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    must_call: bool = False
    one_call: bool = False
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    factor: float = 1.0
    without_tools: bool = False
    all_states: bool = False
    stream: bool = False
    usage: bool = False


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: as the model wrote it, with the markers of its calls and without those that end a text.
        prompt_tokens: number of tokens of the prompt.
        tokens: number of tokens of the answer.
        cut: whether it ended only because it was as long as it may be.
        decision: what was decided on the prompt; None where the bare model answered.
        forced: whether the model would not call, and was made to.
    """

    text: str
    prompt_tokens: int
    tokens: int
    cut: bool = False
    decision: Decision | None = None
    forced: bool = False


class Engine(Protocol):
    """A model with an adapter, asked by one thread, for one answer at a time.

    Attributes:
        name: what clients call the model.
        parser: reads the calls in its answers.
        hidden: texts of the model's own tokens that no client wants to see, such as the one that ends a turn.
    """

    name: str
    parser: ToolCallParser
    hidden: Sequence[str]

    def answer(self, asked: Asked, told: Told) -> Answer:
        """Answers one request, and tells of the text as it grows.

        Raises:
            ValueError: the request cannot be answered; nothing was told then.
            Gone: whoever was told raised it.
        """
