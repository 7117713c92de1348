"""Many prompts at once: states, pushes and answers, behind shared beginnings that are read once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import torch

from asa_adapter.engine.prefix_tree import Beginning, Prompt, beginnings
from asa_adapter.engine.protocol import Answered, Answering, Facts, Pushed, Question
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.libllama.context import PASS, Context, Run, State, Visit
from asa_adapter.llamacpp.generate_settings import GenerateSettings
from asa_adapter.llamacpp.steering import AttachedAdapters, adapter_visits, biased_by_adapters

Make = Callable[..., Context]

# Sequences of a pass: rows whose states are read, prompts' last tokens that are pushed, answers that go on together.
_ROWS, _PUSHED, _ANSWERS = 16, 32, 8
_SHARED = 0  # the sequence that holds a shared beginning


class BegunPrompts(NamedTuple):
    """Prompts that begin with the same tokens.

    Attributes:
        rows: their indices.
        length: number of these tokens; each prompt has more.
    """

    rows: list[int]
    length: int


def begun_prompts(context: Context, prompts: Sequence[Prompt]) -> Iterator[BegunPrompts]:
    """The prompts by what they begin with, which the context's first sequence holds when its turn comes."""
    found = beginnings(prompts)
    continued = {id(beginning.parent) for beginning in found if beginning.parent}
    kept: list[tuple[Beginning, State]] = []  # those that the next one may continue
    for beginning in found:
        context.clear()
        kept = [(parent, state) for parent, state in kept if any(parent is one for one in beginning.lineage())]
        if beginning.parent:
            context.load(kept[-1][1], _SHARED)
        if beginning.length:
            begin = beginning.length - beginning.added
            tokens = prompts[beginning.prompt][begin : beginning.length]
            context.read([Run(_SHARED, tokens, begin, answers=False)])
        if id(beginning) in continued:
            kept.append((beginning, context.save(_SHARED).copy()))
        if beginning.rows:
            yield BegunPrompts(beginning.rows, beginning.length)


class BatchedStates:
    """The states behind all blocks at the prompts' last tokens.

    Args:
        make: makes a context.
        facts: what the model is.
        ordered: whether runs of different lengths are shown in their order; else those of one length are.
    """

    def __init__(self, make: Make, facts: Facts, ordered: bool) -> None:
        self._make, self._facts, self._ordered = make, facts, ordered

    def of(self, prompts: Sequence[Prompt], done: Callable[[int], Any]) -> torch.Tensor:
        """(L, N, D) float32."""
        states = torch.empty(self._facts.num_layers, len(prompts), self._facts.hidden_size)
        context = self._make(max(map(len, prompts)) + PASS, sequences=1 + _ROWS, watched=True)
        try:
            for rows, length in begun_prompts(context, prompts):
                for group in self._groups([len(prompts[row]) - length for row in rows]):
                    taken = [rows[number] for number in group]
                    runs = [Run(1 + i, prompts[row][length:], length) for i, row in enumerate(taken)]
                    states[:, taken] = self._last(context, runs)
                    done(len(taken))
        finally:
            context.close()
        return states

    def _last(self, context: Context, runs: Sequence[Run]) -> torch.Tensor:
        """(L, n, D) states behind the last tokens of n runs."""
        for run in runs:
            context.copy(_SHARED, run.sequence)
        found = torch.full((self._facts.num_layers, len(runs), self._facts.hidden_size), torch.nan)

        def keeping(layer: int) -> Visit:
            def visit(states: torch.Tensor) -> None:
                found[layer] = states

            return visit

        context.read(runs, {layer: keeping(layer) for layer in range(len(found))})
        if not_shown := [layer for layer, states in enumerate(found) if bool(states.isnan().any())]:
            raise IncompatibleModelError(
                f"llama.cpp shows no states, or NaN, behind the blocks {not_shown} of this "
                f"{self._facts.model_types[0]} model; expected those of all {len(found)}. It cannot be steered"
            )
        for run in runs:
            context.drop(run.sequence)
        return found

    def _groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Numbers of runs that are read together; a run that is longer than a pass is read alone."""
        groups: list[list[int]] = []
        for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
            last = groups[-1] if groups else []
            fits = 0 < len(last) < _ROWS and (len(last) + 1) * lengths[number] <= PASS
            if fits and (self._ordered or lengths[last[0]] == lengths[number]):
                last.append(number)
            else:
                groups.append([number])
        return groups


class BatchedPushes:
    """Logits of the first answer token, with pushes of the prompt's last token.

    Args:
        make: makes a context.
        pushes: the layer of each push, and what it adds.
        done: is told of logits that are computed.
    """

    def __init__(self, make: Make, pushes: Sequence[tuple[int, Pushed]], done: Callable[[int], Any]) -> None:
        self._make, self._pushes, self._done = make, pushes, done

    def of(self, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], int, torch.Tensor]]:
        """Numbers of pushes, the index of their prompt, and (M, V) logits."""
        context = self._make(max(map(len, prompts)) + PASS, sequences=2 + _PUSHED, watched=True)
        try:
            for rows, length in begun_prompts(context, prompts):
                for row in rows:
                    for numbers, logits in self._of_one_prompt(context, prompts[row], row, length):
                        yield numbers, row, logits
                        self._done(len(numbers))
        finally:
            context.close()

    def _of_one_prompt(
        self, context: Context, prompt: Prompt, row: int, length: int
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Numbers of pushes and (M, V) logits of one prompt whose beginning is read, several pushes in one batch."""
        context.copy(_SHARED, 1)
        if len(prompt) - 1 > length:
            context.read([Run(1, prompt[length:-1], length, answers=False)])
        steps = [(0, 0, None)] + [
            (number, layer, step)
            for number, (layer, pushed) in enumerate(self._pushes, start=1)
            if (step := pushed(row)) is not None
        ]
        for begin in range(0, len(steps), _PUSHED):
            some = steps[begin : begin + _PUSHED]
            places = range(2, 2 + len(some))
            for place in places:
                context.copy(1, place)
            added: dict[int, list[tuple[int, torch.Tensor]]] = {}
            for i, (_, layer, step) in enumerate(some):
                if step is not None:
                    added.setdefault(layer, []).append((i, step))
            context.read(
                [Run(place, prompt[-1:], len(prompt) - 1) for place in places],
                {layer: _add_steps_to_rows(steps_of_layer) for layer, steps_of_layer in added.items()},
            )
            yield [number for number, _, _ in some], torch.stack([context.logits(i) for i in range(len(some))])
            for place in places:
                context.drop(place)
        context.drop(1)


def _add_steps_to_rows(steps: Sequence[tuple[int, torch.Tensor]]) -> Visit:
    """Adds to some rows of the states."""

    def visit(states: torch.Tensor) -> torch.Tensor:
        for row, step in steps:
            states[row] += step
        return states

    return visit


class _GoingAnswer(NamedTuple):
    """An answer that goes on."""

    question: Question
    tokens: list[int]
    begin: int


class BatchedAnswers:
    """Answers, begun one by one and continued together.

    Args:
        make: makes a context.
        adapters: the adapters on the model.
        settings: how tokens are chosen.
        how: how answers end.
    """

    def __init__(self, make: Make, adapters: AttachedAdapters, settings: GenerateSettings, how: Answering) -> None:
        self._make, self._adapters, self._settings, self._how = make, adapters, settings, how
        self._going: dict[int, _GoingAnswer] = {}

    def of(self, prompts: Sequence[Prompt], asked: Callable[[int], Iterable[Question]]) -> Iterator[Answered]:
        """The answers to what is asked about each prompt, by its index, in the order in which they end."""
        longest = max(map(len, prompts))
        room = _ANSWERS * (longest + self._how.max_new_tokens + 1)
        with (
            closing(self._make(longest + PASS, sequences=3, watched=True)) as reader,
            closing(self._make(room, sequences=_ANSWERS)) as writer,
        ):
            for rows, length in begun_prompts(reader, prompts):
                for row in rows:
                    prompt = list(prompts[row])
                    reader.copy(_SHARED, 1)
                    if len(prompt) - 1 > length:
                        reader.read([Run(1, prompt[length:-1], length, answers=False)])
                    for question in asked(row):
                        if (ended := self._begin(reader, question, prompt)) is not None:
                            yield ended
                            continue
                        while len(self._going) == _ANSWERS:
                            yield from self._step(writer)
                        slot = next(slot for slot in range(_ANSWERS) if slot not in self._going)
                        writer.load(reader.save(2), slot)
                        self._going[slot] = self._new
            while self._going:
                yield from self._step(writer)

    def _begin(self, reader: Context, question: Question, prompt: list[int]) -> Answered | None:
        """Chooses the first token of an answer, which adapters may act on; an answer that has ended there."""
        last = len(prompt) - 1
        reader.copy(1, 2)
        with question.steers():
            rows = [handle.row(torch.tensor([prompt]), last) for handle in self._adapters.active()]
            reader.read([Run(2, prompt[-1:], last)], adapter_visits(rows))
            logits = biased_by_adapters(rows, reader.logits())
        if question.first is not None:
            logits = question.first(logits)
        self._new = _GoingAnswer(question, [self._settings.chosen(logits)], len(prompt))
        return self._ended(self._new)

    def _step(self, writer: Context) -> Iterator[Answered]:
        """One more token of each answer that goes on."""
        going = list(self._going.items())
        writer.read([Run(slot, one.tokens[-1:], one.begin + len(one.tokens) - 1) for slot, one in going])
        for number, (slot, one) in enumerate(going):
            one.tokens.append(self._settings.chosen(writer.logits(number)))
            if (ended := self._ended(one)) is not None:
                del self._going[slot]
                writer.drop(slot)
                yield ended

    def _ended(self, one: _GoingAnswer) -> Answered | None:
        ends = one.tokens[-1] in self._settings.ends or bool(self._how.complete and self._how.complete(one.tokens))
        full = len(one.tokens) >= self._how.max_new_tokens
        return Answered(one.question.name, one.tokens, full and not ends) if ends or full else None
