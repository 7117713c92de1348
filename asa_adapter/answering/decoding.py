"""`Decoder`: greedy answers in rounds of generate(), between which rows that have ended make room for others.

A batch runs until its longest answer ends, and most answers are short. So a round ends as soon as a quarter of its
rows have, and the others wait with their cache until enough of them fill a batch again. The first round adds one token
and may be steered. Later ones are not, since steering acts on the prompt's last token only.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from asa_adapter.answering.forcing import Forcing
from asa_adapter.answering.guesses import confirmed_guesses
from asa_adapter.answering.leads import Lead
from asa_adapter.answering.prefill import Prefilled, alike_logits, joined_caches
from asa_adapter.answering.roomy_cache import give_room, take_room
from asa_adapter.engine.prefix_tree import Prompt
from asa_adapter.modeling.forward import CACHE, compiled_parts, forward, given_cache
from asa_adapter.modeling.prefix_cache import SharedPrefix, copied_cache

# A round ends when one row in so many has ended.
_ONE_IN = 4
# Settings whose effect depends on where generate() was called, or of which its rounds would not know.
_OF_ONE_CALL = (
    "min_length",
    "min_new_tokens",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "watermarking_config",
    "stop_strings",
    "max_time",
)


class DecodingBatch(NamedTuple):
    """Rows that are being answered, as one batch.

    Attributes:
        names: (B,) what each row is called.
        ids: (B, T) int64 token ids: the prompts, left-padded, and the answers so far.
        mask: (B, T) int64, 1 where there is a token.
        cache: the model's cache after all tokens but the last; None where generate() runs whole prompts.
        begins: (B,) column where each answer begins.
    """

    names: list[Any]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any
    begins: list[int]

    @classmethod
    def of(cls, prompt: Prefilled, names: Sequence[Any], one_token: bool = False) -> "DecodingBatch":
        """A batch of prompts without any answer yet, with a branch of their cache: for one more token, or for any."""
        rows, width = prompt.ids.shape
        cache = prompt.branch_of_one_token() if one_token else prompt.branch()
        return cls(list(names), prompt.ids, prompt.mask, cache, [width] * rows)

    @classmethod
    def together(cls, parts: Sequence["DecodingBatch"]) -> "DecodingBatch":
        """Several batches as one, as wide as their longest row. The batches are not to be used any more.

        Raises:
            TypeError: the caches cannot be joined.
        """
        parts = [part._without_padding() for part in parts]
        width = max(part.ids.shape[1] for part in parts)
        gaps = [width - part.ids.shape[1] for part in parts]
        ids, mask = (
            torch.cat([nn.functional.pad(rows, (gap, 0)) for rows, gap in zip(tensors, gaps, strict=True)])
            for tensors in ([part.ids for part in parts], [part.mask for part in parts])
        )
        begins = [begin + gap for part, gap in zip(parts, gaps, strict=True) for begin in part.begins]
        names = [name for part in parts for name in part.names]
        return cls(names, ids, mask, joined_caches([part.cache for part in parts]), begins)

    def _without_padding(self) -> "DecodingBatch":
        """The batch without the columns on the left in which no row has a token. Its cache is changed in place."""
        count = int(self.mask.any(dim=0).int().argmax())
        if count:
            for layer in self.cache.layers:
                _cut_decoded_cache(layer, count)
        return self._replace(
            ids=self.ids[:, count:], mask=self.mask[:, count:], begins=[begin - count for begin in self.begins]
        )

    def only(self, rows: Sequence[int]) -> "DecodingBatch":
        """Those of the rows with these indices. The cache of the batch is changed in place."""
        index = torch.tensor(list(rows), device=self.ids.device)
        self.cache.reorder_cache(index)
        names, begins = [self.names[row] for row in rows], [self.begins[row] for row in rows]
        return DecodingBatch(names, self.ids[index], self.mask[index], self.cache, begins)

    def divided(self, count: int) -> tuple["DecodingBatch", "DecodingBatch"]:
        """The first `count` rows, and the others. The batch is not to be used any more."""
        others = self._replace(cache=copied_cache(self.cache)).only(range(count, len(self.names)))
        return self.only(range(count)), others


class Decoder:
    """Answers batches of prompts greedily.

    Args:
        model: a causal language model in evaluation mode.
        settings: keywords of generate(), as `greedy_settings` returns them; `max_new_tokens` is the greatest length of
            an answer.
        batch_size: number of rows in a round, apart from the first one.
        stops: ids of the tokens that end an answer, beside those that end a text.
        complete: takes the tokens of an answer so far and tells whether it ends there; None if only tokens end it.
        deliver: called with the name of each row that has ended, the token ids of its answer, and whether it ended
            only because it was as long as an answer may be.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: dict[str, Any],
        batch_size: int,
        stops: Collection[int],
        complete: Callable[[list[int]], bool] | None,
        deliver: Callable[[Any, list[int], bool], None],
    ) -> None:
        self._model, self._settings, self._batch_size = model, settings, batch_size
        self._stops, self._complete, self._deliver = {*stops, *text_ends(model)}, complete, deliver
        self._has_room = not compiled_parts(model)  # a graph for each number of tokens would be compiled
        self._waiting: list[DecodingBatch] = []
        self._guessing: list[DecodingBatch] = []

    def begin(
        self,
        prompt: Prefilled,
        names: Sequence[Any],
        regroups: bool,
        forcing: Forcing | None = None,
        joined: Callable[[int, int], bool] | None = None,
    ) -> None:
        """The first round of a batch of prompts, which an adapter may steer; the rows that go on wait afterwards.

        Args:
            prompt: the batch.
            names: what its rows are called.
            regroups: whether rows may leave the batch (see `Regrouping`); if not, all of them are answered now.
            forcing: what happens to the first token of each row; None for nothing.
            joined: takes the index of a row that goes on, and its first token; tells whether another row does so in
                its place. None where none does.
        """
        running = DecodingBatch.of(prompt, names, one_token=regroups)
        self._round(running, tokens=1 if regroups else None, forcing=forcing, joined=joined)

    def go_on(self, to_the_end: bool = False) -> None:
        """Answers the waiting rows while they fill a batch, or all of them. No adapter may steer the model."""
        least = 1 if to_the_end else self._batch_size
        while self._confirms(least) or sum(len(part.names) for part in self._waiting) >= least:
            if self._waiting:
                running = self._taken()
                self._round(running, enough=max(1, len(running.names) // _ONE_IN))

    def _confirms(self, least: int) -> bool:
        """Looks whether answers are those that are guessed, if so many rows can be looked at."""
        ready = [part for part in self._guessing if all(name.guess for name in part.names)]
        if sum(len(part.names) for part in ready) < least:
            return False
        parts: list[DecodingBatch] = []
        while ready and sum(len(part.names) for part in parts) < self._batch_size:
            parts.append(ready.pop(0))
        self._guessing = [part for part in self._guessing if not any(part is one for one in parts)]
        running = DecodingBatch.together(parts)
        found = confirmed_guesses(self._model, running.mask, running.cache, [name.guess for name in running.names])
        for name, right in zip(running.names, found, strict=True):
            if right:
                name.confirm()
            else:
                name.refuse()
        if left := [row for row, right in enumerate(found) if not right]:
            self._keep(running.only(left))
        return True

    def _keep(self, running: DecodingBatch) -> None:
        """Rows that are to go on, in which those wait apart that have guesses."""
        rows = range(len(running.names))
        guessing = [row for row in rows if isinstance(running.names[row], Lead) and running.names[row].guesses]
        if guessing:
            self._guessing.append(running._replace(cache=copied_cache(running.cache)).only(guessing))
        if others := [row for row in rows if row not in guessing]:
            self._waiting.append(running.only(others) if guessing else running)

    def _taken(self) -> DecodingBatch:
        """As many of the waiting rows as make a batch, those first that have waited longest."""
        parts, room = [], self._batch_size
        while self._waiting and room:
            part = self._waiting.pop(0)
            if len(part.names) > room:
                part, others = part.divided(room)
                self._waiting.insert(0, others)
            parts.append(part)
            room -= len(part.names)
        return DecodingBatch.together(parts)

    def _round(
        self,
        running: DecodingBatch,
        *,
        tokens: int | None = None,
        enough: int | None = None,
        forcing: Forcing | None = None,
        joined: Callable[[int, int], bool] | None = None,
    ) -> None:
        """One call of generate(): delivers the rows that have ended, and lets the others wait.

        Args:
            running: the batch.
            tokens: greatest number of tokens to add; None for as many as an answer may have.
            enough: the round ends when so many rows have ended; None for all of them.
            forcing: what happens to the next token of each row.
            joined: as in `begin`.
        """
        limit, width = self._settings["max_new_tokens"], running.ids.shape[1]
        ends = _DecodingEnds(running.begins, limit, self._stops, self._complete, enough or len(running.names))
        most = tokens or limit - min(width - begin for begin in running.begins)
        if self._has_room:
            give_room(running.cache, most)
        settings = {
            **self._settings,
            "max_new_tokens": most,
            "return_dict_in_generate": True,
            **({} if running.cache is None else {CACHE: running.cache}),
            **({} if forcing is None else {"logits_processor": [forcing.processor(width)]}),
        }
        output = self._model.generate(  # type: ignore[operator]
            input_ids=running.ids, attention_mask=running.mask, stopping_criteria=[ends], **settings
        )
        ids = output.sequences
        # If all rows are to end in this round, another criterion of generate() than ours may have ended some.
        whole = tokens is None and enough is None
        for row, (name, begin) in enumerate(zip(running.names, running.begins, strict=True)):
            if whole or row in ends.found:
                self._deliver(name, ids[row, begin : ends.found.get(row)].tolist(), row in ends.cut)
        left = [] if whole else [row for row in range(len(ids)) if row not in ends.found]
        if joined is not None:
            left = [row for row in left if not joined(row, int(ids[row, width]))]
        if left:
            mask = nn.functional.pad(running.mask, (0, ids.shape[1] - width), value=1)
            take_room(cache := given_cache(output))
            self._keep(running._replace(ids=ids, mask=mask, cache=cache).only(left))


class _DecodingEnds(StoppingCriteria):
    """Ends rows, and the round when enough of them have ended.

    Attributes:
        found: for each row that has ended, the column behind its last token.
        cut: those of them that ended only because they were as long as an answer may be.
    """

    def __init__(
        self,
        begins: Sequence[int],
        limit: int,
        stops: Collection[int],
        complete: Callable[[list[int]], bool] | None,
        enough: int,
    ) -> None:
        self._begins, self._limit, self._stops = begins, limit, stops
        self._complete, self._enough = complete, enough
        self.found: dict[int, int] = {}
        self.cut: set[int] = set()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        width = input_ids.shape[1]
        for row, last in enumerate(input_ids[:, -1].tolist()):
            if row in self.found:
                continue
            ended = self._ended(input_ids[row], self._begins[row], last)
            full = width - self._begins[row] >= self._limit
            if ended or full:
                self.found[row] = width
            if full and not ended:
                self.cut.add(row)
        over = len(self.found) >= self._enough
        return torch.tensor([over or row in self.found for row in range(len(input_ids))], device=input_ids.device)

    def _ended(self, row: torch.Tensor, begin: int, last: int) -> bool:
        """Whether a row ends by itself."""
        return last in self._stops or (self._complete is not None and self._complete(row[begin:].tolist()))


class Regrouping:
    """Whether rows can leave a batch and join another without a change in their answers; tried once for a model."""

    def __init__(self) -> None:
        self._found: bool | None = None

    def holds(self, model: nn.Module, prompts: Sequence[Prompt], prefix: SharedPrefix, pad_id: int) -> bool:
        """Whether decoding may regroup a model's rows; tried with the shortest and the longest of the first prompts.

        Args:
            model: a causal language model.
            prompts: prompts as token ids.
            prefix: what they begin with, already run.
            pad_id: id of the token to pad with.
        """
        if any(getattr(getattr(model, "generation_config", None), name, None) for name in _OF_ONE_CALL):
            return False
        if self._found is None:
            self._found = _can_regroup(model, min(prompts, key=len), max(prompts, key=len), prefix, pad_id)
        return self._found


def _can_regroup(model: nn.Module, short: Prompt, long: Prompt, prefix: SharedPrefix, pad_id: int) -> bool:
    """Whether batches that are divided and joined while decoding give the logits of prompts that are run whole."""
    # These errors mean that a cache cannot be divided or joined. Whole batches are slower, not wrong.
    with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
        pair = DecodingBatch.of(Prefilled(model, [short, long], prefix, pad_id), [0, 1])
        alone = DecodingBatch.of(Prefilled(model, [short], prefix, pad_id), [2])
        padded, longer = pair.divided(1)
        both = DecodingBatch.together([DecodingBatch.together([padded, alone]), longer])
        logits = forward(model, both.ids[:, -1:], both.mask, both.cache, use_cache=True).logits[:, -1].float()
        return alike_logits(model, logits, Prefilled(model, [short, short, long], None, pad_id).logits(model))
    return False


def text_ends(model: nn.Module) -> list[int]:
    """Ids of the tokens that end a text in decoding by generate()."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = ends.tolist() if isinstance(ends, torch.Tensor) else ends
    return list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [int(ends)]


def _cut_decoded_cache(layer: Any, count: int) -> None:
    """Takes the first `count` tokens from a layer of the cache, if it keeps tokens; recurrent states have none."""
    keeps_tokens, counts_all = isinstance(layer, DynamicLayer), isinstance(layer, DynamicSlidingWindowLayer)
    if not keeps_tokens or not layer.is_initialized:
        return
    if counts_all:  # it keeps the last tokens only
        layer.cumulative_length -= count
        count = max(0, layer.keys.shape[-2] - layer.cumulative_length)
    layer.keys, layer.values = (x[..., count:, :] for x in (layer.keys, layer.values))
