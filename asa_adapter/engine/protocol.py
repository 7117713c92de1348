"""`EngineModel`: what is asked of a model of any engine. A `torch.nn.Module` is asked through transformers instead."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch

from asa_adapter.config.asa_config import ASAConfig

# Takes the (V,) logits of an answer's first token and returns those to choose it by.
First = Callable[[torch.Tensor], torch.Tensor]
# Takes the index of a prompt and returns the (D,) vector that is added to its state; None for none.
Pushed = Callable[[int], torch.Tensor | None]


class Facts(NamedTuple):
    """What an adapter must know of a model to fit it.

    Attributes:
        name: what the model is called; no path.
        model_types: what transformers calls its type, the likeliest first.
        hidden_size: width D of the residual stream.
        num_layers: number of decoder blocks L.
        length: most tokens that a prompt and its answer may have.
        quantised: how the weights are packed, such as "Q4_0"; "" where they are plain numbers.
        longest: what `length` could be if the model was opened for it; 0 where that is not known.
    """

    name: str
    model_types: tuple[str, ...]
    hidden_size: int
    num_layers: int
    length: int
    quantised: str
    longest: int = 0


@dataclass(frozen=True)
class Answering:
    """How answers are made.

    Attributes:
        max_new_tokens: greatest number of tokens.
        stops: ids of the tokens that end an answer, beside those that end a text; they belong to it.
        complete: tells of the tokens so far whether an answer ends there.
        temperature: answers are sampled with it; None takes the likeliest token each time.
    """

    max_new_tokens: int
    stops: frozenset[int] = frozenset()
    complete: Callable[[list[int]], bool] | None = None
    temperature: float | None = None


class Question(NamedTuple):
    """An answer that is asked for.

    Attributes:
        name: what the answer is called.
        steers: whether adapters that are attached when its turn comes act on it.
        first: changes the logits of its first token; None where nothing does.
    """

    name: Any
    steers: Callable[[], Any]
    first: First | None = None


class Answered(NamedTuple):
    """An answer.

    Attributes:
        name: that of the question.
        tokens: token ids.
        cut: whether it ended only because it was as long as it may be.
    """

    name: Any
    tokens: list[int]
    cut: bool


@runtime_checkable
class EngineModel(Protocol):
    """A causal language model that reads token ids, with decoder blocks whose states can be read and changed."""

    @property
    def facts(self) -> Facts:
        """What the model is."""

    @property
    def is_steered(self) -> bool:
        """Whether an adapter is attached."""

    def fingerprint(self) -> str:
        """Tells the model's weights, as they are stored, from others."""

    def digest(self) -> str:
        """Of all that the model's results depend on."""

    def attach(
        self, controller: Any, config: ASAConfig, *, steer_without_tools: bool = False, every_state: bool = False
    ) -> Any:
        """Steers `generate` and `answers` until the `SteeringHandle` that is returned is removed."""

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **settings: Any) -> Any:
        """Answers (B, T) prompts, as `generate()` of transformers does for the settings that it knows."""

    def last_states(self, prompts: Sequence[Sequence[int]], done: Callable[[int], Any]) -> torch.Tensor:
        """(L, N, D) states behind all blocks at each prompt's last token; `done` is told of prompts that are run."""

    def pushed_logits(
        self, prompts: Sequence[Sequence[int]], pushes: Sequence[tuple[int, Pushed]], done: Callable[[int], Any]
    ) -> Iterator[tuple[list[int], int, torch.Tensor]]:
        """Logits of the first answer token without and under pushes.

        Args:
            prompts: N prompts as token ids.
            pushes: for each push the block to whose output it adds, and what it adds.
            done: is told of logits that are computed.

        Yields:
            Numbers of pushes (0 for none, 1 for the first), the index of a prompt, and (M, V) logits, a row for each
            number.
        """

    def answers(
        self, prompts: Sequence[Sequence[int]], asked: Callable[[int], Iterable[Question]], how: Answering
    ) -> Iterator[Answered]:
        """The answers to the questions that are `asked` about each prompt, by its index, in the order they end."""


def is_engine_model(model: Any) -> TypeGuard[EngineModel]:
    """Whether a model is asked through `EngineModel`, and not through transformers."""
    return not isinstance(model, torch.nn.Module) and isinstance(model, EngineModel)


def or_opened_for_more(facts: Facts) -> str:
    """The other cure of a prompt that is too long, behind "Shorten it"; "" where the model cannot be longer."""
    if facts.longest and facts.length >= facts.longest:
        return "; it was made for no more"
    most = f", of {facts.longest} at most" if facts.longest else ""
    return f", or open it with a greater n_ctx (--n-ctx){most}"
