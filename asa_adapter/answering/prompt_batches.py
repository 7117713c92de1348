"""`PromptBatches`: prompts in batches of similar length, run up to their last token, ready to be answered."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from asa_adapter.answering.decoding import Regrouping
from asa_adapter.answering.guesses import can_guess
from asa_adapter.answering.prefill import Prefilled, can_branch, prefill_sharing, takes_a_cache
from asa_adapter.engine.padded_batches import batches_by_length, pad_token_id
from asa_adapter.modeling.prefix_cache import PrefixSharing, SharedPrefix


class PromptBatch(NamedTuple):
    """Prompts that are ready to be answered.

    Attributes:
        rows: their indices.
        prompt: the prompts, run up to their last token.
        regroups: whether rows may leave the batch.
        guesses: whether their answers may be guessed.
    """

    rows: list[int]
    prompt: Prefilled
    regroups: bool
    guesses: bool


@dataclass(frozen=True)
class PromptBatches:
    """Batches of prompts for a model; what its cache allows is found out once.

    Attributes:
        model: a causal language model.
        tokenizer: its tokenizer.
        batch_size: number of prompts in a batch.
    """

    model: Any
    tokenizer: Any
    batch_size: int

    def __call__(self, prompts: Sequence[Sequence[int]], several: bool) -> Iterator[PromptBatch]:
        """All prompts in batches of similar length.

        Args:
            prompts: the prompts.
            several: whether more answers are asked for than make a batch.

        Yields:
            The batches, ready to be answered.
        """
        pad_id = pad_token_id(self.tokenizer)
        for prefix, members in self._prefixes(prompts):
            alike = [prompts[i] for i in members]
            begun = prefix if prefix.length or self._can_branch(alike) else None
            regroups = several and begun is not None and self._regrouping.holds(self.model, alike, begun, pad_id)
            for batch in batches_by_length(alike, self.batch_size):
                prompt = Prefilled(self.model, [alike[i] for i in batch], begun, pad_id)
                may = regroups and prompt.cache is not None
                yield PromptBatch([members[i] for i in batch], prompt, may, may and self._guesses(alike, begun))

    def _prefixes(self, prompts: Sequence[Sequence[int]]) -> Iterable[tuple[SharedPrefix, Sequence[int]]]:
        """Each shared prefix with the indices of its prompts; none is shared where generate() takes no cache."""
        return self._sharing.prefixes(prompts) if takes_a_cache(self.model) else self._sharing.whole(prompts)

    def _can_branch(self, prompts: Sequence[Sequence[int]]) -> bool:
        """Whether several answers can start from copies of one cache, for prompts without a shared prefix."""
        pad_id = pad_token_id(self.tokenizer)
        return takes_a_cache(self.model) and can_branch(self.model, prompts, SharedPrefix(), pad_id)

    def _guesses(self, prompts: Sequence[Sequence[int]], begun: SharedPrefix | None) -> bool:
        """Whether answers may be guessed; found out with the shortest and the longest of the first prompts."""
        if not self._tried and begun is not None:
            shortest, longest = min(prompts, key=len), max(prompts, key=len)
            self._tried.append(can_guess(self.model, shortest, longest, begun, pad_token_id(self.tokenizer)))
        return self._tried == [True]

    @functools.cached_property
    def _tried(self) -> list[bool]:
        return []

    @functools.cached_property
    def _sharing(self) -> PrefixSharing:
        return prefill_sharing(self.model, pad_token_id(self.tokenizer))

    @functools.cached_property
    def _regrouping(self) -> Regrouping:
        return Regrouping()
