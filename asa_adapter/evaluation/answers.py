"""`Evaluation`: answers to every row, greedy or sampled, with and without an adapter, and their trigger metrics."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asa_adapter.adapter import ASAAdapter
from asa_adapter.answering.decoding import Decoder
from asa_adapter.answering.forcing import Forcing
from asa_adapter.answering.leads import Lead, Leads, Variant
from asa_adapter.answering.prompt_batches import PromptBatches
from asa_adapter.data.prompts import encode_rows
from asa_adapter.data.rows import Row, row_domain, row_tools
from asa_adapter.engine.protocol import Answering, EngineModel, Question, is_engine_model
from asa_adapter.evaluation.metrics import gold_metrics, ratio, trigger_metrics
from asa_adapter.evaluation.paired_answers import paired_validity
from asa_adapter.modeling.forward import compiled_parts, evaluation_mode, greedy_settings
from asa_adapter.modeling.processes import Processes
from asa_adapter.modeling.progress import progress_bar
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.steering.hook import is_steered
from asa_adapter.tool_calls.gold_calls import matches_gold
from asa_adapter.tool_calls.outcomes import Answer, Outcome, cut_note
from asa_adapter.tool_calls.parser import ToolCallParser


@dataclass(frozen=True)
class Evaluation:
    """Generates answers with a model and scores them.

    Attributes:
        model: a causal language model, also one that another engine runs.
        tokenizer: its tokenizer, with a chat template.
        parser: reads the model's tool calls.
        tools: JSON-schema tools for rows that have none of their own.
        max_new_tokens: greatest length of an answer, in tokens.
        batch_size: number of prompts in a batch. Answers that go on behind their first token do so in batches of twice
            as many, whatever batch they began in; if the model's cache does not allow that, in the one they began in.
        progress: whether to show a progress bar.
        temperature: answers are sampled with it, by torch's own generator; None takes the likeliest token each time.

    Raises:
        ValueError: an adapter is attached to the model.
    """

    model: Any
    tokenizer: Any
    parser: ToolCallParser
    tools: Tools | None = None
    max_new_tokens: int = 64
    batch_size: int = 16
    progress: bool = True
    temperature: float | None = None

    def __post_init__(self) -> None:
        self._refuse_steered()

    def _refuse_steered(self) -> None:
        if is_steered(self.model):
            raise ValueError(
                "the model has an adapter attached; remove() it first: the base would be measured steered"
            )

    def answers(
        self,
        rows: Sequence[Row],
        adapter: ASAAdapter | None = None,
        name: str = "base",
        *,
        until_call: bool = False,
    ) -> list[Answer]:
        """The model's answer to each row, with special tokens, steered if an adapter is given.

        It ends with the token that ends the text. A complete call does not end it: in every format another one may
        follow, which `metrics` would read, check and compare with the gold calls.

        Args:
            rows: rows with `instruction` or `messages`.
            adapter: steers the model; None runs the bare model.
            name: label of the progress bar.
            until_call: whether to end an answer where a tool call begins, if only the trigger is of interest.

        Returns:
            One text for each row, in the order of the rows, each with `cut`: whether it ended only because
            `max_new_tokens` ran out.

        Raises:
            ValueError: an adapter is attached already, or a row has no prompt or cannot be rendered.
            IncompatibleModelError: the adapter does not fit the model.
        """
        return self.answers_of_each(rows, {name: adapter}, until_call=until_call)[name]

    def answers_of_each(
        self,
        rows: Sequence[Row],
        variants: Mapping[str, Variant],
        *,
        until_call: bool = False,
        part: str = "",
        begun: Sequence[str] | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, list[Answer]]:
        """The `answers` for each of several adapters, by name; the prompts are run once for all of them.

        Args:
            rows: rows with `instruction` or `messages`.
            variants: adapters by name, or what happens to the first token of each row; None is the bare model.
            until_call: as in `answers`.
            part: text after the label of the progress bar, which says which rows these are.
            begun: for each row the text with which its answer begins, before the model's own; None for nothing.
            prompts: what `prompts` returns for rows and `begun`, if it is known.
        """
        self._refuse_steered()
        if len(variants) > 1 and compiled_parts(self.model):  # attaching and removing discards compiled graphs
            how: dict[str, Any] = {"until_call": until_call, "part": part, "begun": begun, "prompts": prompts}
            return {name: self.answers_of_each(rows, {name: one}, **how)[name] for name, one in variants.items()}
        processes = Processes()
        mine = processes.part(len(rows))
        if prompts is None:
            own = self.prompts([rows[i] for i in mine], begun and [begun[i] for i in mine])
        else:
            own = [list(prompts[i]) for i in mine]
        variants = {name: variant_of_rows(variant, mine) for name, variant in variants.items()}
        label = ", ".join(variants) if len(variants) < 3 else f"{len(variants)} variants"
        total = len(own) * len(variants)
        with evaluation_mode(self.model), progress_bar(total, f"answers ({label}{part})", self.progress) as bar:
            texts = self._answered(own, variants, until_call, bar.update)
        starts = begun or [""] * len(rows)
        whole = {name: _gathered_answers(processes, found, len(rows)) for name, found in texts.items()}
        return {
            name: [Answer(start + answer, answer.cut) for start, answer in zip(starts, found, strict=True)]
            for name, found in whole.items()
        }

    def prompts(self, rows: Sequence[Row], begun: Sequence[str] | None = None) -> list[list[int]]:
        """Prompt ids of each row, and the text with which its answer begins."""
        prompts = encode_rows(self.tokenizer, rows, self.tools, self.parser)
        if begun is None:
            return prompts
        starts = [self.tokenizer.encode(text, add_special_tokens=False) for text in begun]
        return [[*prompt, *start] for prompt, start in zip(prompts, starts, strict=True)]

    def _answered(
        self,
        prompts: Sequence[Sequence[int]],
        variants: Mapping[str, Variant],
        until_call: bool,
        count: Callable[[], Any],
    ) -> dict[str, list[Answer]]:
        """The answers of this process by variant, which calls `count` for each of them."""
        texts = {name: [Answer("")] * len(prompts) for name in variants}

        def deliver(place: tuple[str, int], answer: list[int], cut: bool) -> None:
            name, i = place
            texts[name][i] = Answer(self._text(answer), cut)
            count()

        if is_engine_model(self.model):
            self._answered_by_engine(self.model, prompts, variants, until_call, deliver)
            return texts
        compiled = bool(compiled_parts(self.model))
        several = not compiled and len(prompts) * len(variants) > self.batch_size
        decoder = self._decoder(until_call)
        attaching = {name: self._attaching(variant) for name, variant in variants.items()}
        with attaching[next(iter(variants))]() if compiled else contextlib.nullcontext():
            for taken, prompt, regroups, guesses in self._batches(prompts, several):
                leads = Leads(taken, deliver, self.temperature is None, guesses)
                for begun in leads.rounds(
                    {name: variant_of_rows(variant, taken) for name, variant in variants.items()}
                ):
                    with contextlib.nullcontext() if compiled else attaching[begun.name]() as handle:
                        joined = functools.partial(leads.joined, begun, handle)
                        decoder.begin(prompt.chosen(begun.rows), begun.leads, regroups, begun.forcing, joined)
                    decoder.go_on()
            decoder.go_on(to_the_end=True)
        return texts

    def _answered_by_engine(
        self,
        model: EngineModel,
        prompts: Sequence[Sequence[int]],
        variants: Mapping[str, Variant],
        until_call: bool,
        deliver: Callable[[tuple[str, int], list[int], bool], None],
    ) -> None:
        attaching = {name: self._attaching(variant) for name, variant in variants.items()}

        def asked(i: int) -> Iterator[Question]:
            for name, variant in variants.items():
                one = variant_of_rows(variant, [i])
                first = one.of_one if isinstance(one, Forcing) else None
                yield Question((name, i), attaching[name], first)

        how = Answering(self.max_new_tokens, self._stops(until_call), self._complete(until_call), self.temperature)
        for answer in model.answers(prompts, asked, how):
            deliver(*answer)

    def metrics(self, rows: Sequence[Row], answers: Sequence[str]) -> dict[str, Any]:
        """Trigger metrics of the answers, overall and per domain, and the validity of their calls.

        Args:
            rows: N labelled rows.
            answers: N texts, as `answers` returns them.

        Returns:
            The dict of `trigger_metrics`; under "gold" that of `gold_metrics` if any row has `gold_calls`; and, if
            the answers are those of `answers`, how many ended because `max_new_tokens` ran out before a call was
            complete ("cut"), and which share of all they are ("cut_share").

        Raises:
            ValueError: the lengths differ, a label is neither 0 nor 1, or gold calls have an unknown shape.
        """
        checks = self._checks(rows, answers)
        triggered = [check["triggered"] for check in checks]
        domains = [row_domain(row) for row in rows]
        metrics = trigger_metrics([int(row["label"]) for row in rows], triggered, domains, checks)
        if all(isinstance(answer, Answer) for answer in answers):
            cut = int(Outcome.of(answers, checks).cut.sum())
            metrics |= {"cut": cut, "cut_share": ratio(cut, len(rows))}
        matches = [
            self._gold_matches(row, answer) for row, answer in zip(rows, answers, strict=True) if row.get("gold_calls")
        ]
        return {**metrics, "gold": gold_metrics(matches)} if matches else metrics

    def _checks(self, rows: Sequence[Row], answers: Sequence[str]) -> list[dict[str, Any]]:
        """`ToolCallParser.check` of each answer against the tools of its row."""
        return [
            self.parser.check(answer, row_tools(row, self.tools) or [])
            for row, answer in zip(rows, answers, strict=True)
        ]

    def outcome(self, rows: Sequence[Row], answers: Sequence[str]) -> Outcome:
        """What came of the answers to the rows."""
        return Outcome.of(answers, self._checks(rows, answers))

    def warn_of_cut(self, results: Mapping[str, Mapping[str, Any]], split: str = "these rows") -> None:
        """Warns where more than 5 % of the answers behind one of these `metrics` were cut."""
        shares = {f"{name!r} on {split}": metrics.get("cut_share", 0.0) for name, metrics in results.items()}
        if note := cut_note(shares, self.max_new_tokens):
            warnings.warn(note, stacklevel=3)

    def _gold_matches(self, row: Row, answer: str) -> tuple[bool, bool]:
        """Whether an answer's calls are the row's gold calls: in any order, and in the same order."""
        calls = self.parser.parse(answer, row_tools(row, self.tools))
        try:
            return matches_gold(calls, row["gold_calls"]), matches_gold(calls, row["gold_calls"], ordered=True)
        except ValueError as error:
            raise ValueError(f"row {row.get('id', '?')!r}: {error}") from error

    def compare(self, rows: Sequence[Row], adapter: ASAAdapter) -> dict[str, Mapping[str, Any]]:
        """Metrics of the bare model ("base") and of the steered model ("asa") on the same rows.

        Where more than 5 % of the answers were cut by `max_new_tokens`, a warning says so.

        Raises:
            ValueError: a row cannot be scored or rendered, or an adapter is attached already.
            IncompatibleModelError: the adapter does not fit the model.
        """
        self.metrics(rows, [""] * len(rows))  # refuses rows that cannot be scored before anything is generated
        answers = self.answers_of_each(rows, {"base": None, "asa": adapter})
        results = self.paired_metrics(rows, answers["base"], answers["asa"])
        self.warn_of_cut(results)
        return results

    def paired_metrics(
        self, rows: Sequence[Row], base: Sequence[str], asa: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        """`metrics` of the bare model's answers ("base") and of the steered ones ("asa") to the same rows.

        A push may do more than decide: "validity" of the latter has the shares of `paired_validity`, too.
        """
        found = {"base": self.metrics(rows, base), "asa": self.metrics(rows, asa)}
        found["asa"]["validity"] |= paired_validity(rows, base, asa, self.parser, self.tools)
        return dict(found)

    def steered(self, variant: Variant) -> contextlib.AbstractContextManager[Any]:
        """Steers the model inside the `with` block, if the variant is an adapter."""
        return self._attaching(variant)()

    def _attaching(self, variant: Variant) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        """What `steered` returns, each time it is called; the model is compared with the adapter's once."""
        if isinstance(variant, ASAAdapter):
            return variant._attaching(self.model, mismatch=True)
        return contextlib.nullcontext

    @functools.cached_property
    def _batches(self) -> PromptBatches:
        return PromptBatches(self.model, self.tokenizer, self.batch_size)

    def _decoder(self, until_call: bool) -> Decoder:
        return Decoder(
            self.model,
            self._settings,
            2 * self.batch_size,  # as in the screen: one token of a row takes little room
            self._stops(until_call),
            self._complete(until_call),
            Lead.end,
        )

    def _stops(self, until_call: bool) -> frozenset[int]:
        """Ids of the tokens that end an answer, beside those that end a text."""
        start = self.parser.call_token if until_call else None
        return frozenset() if start is None else frozenset({start})

    @property
    def _settings(self) -> dict[str, Any]:
        """Keywords of generate()."""
        greedy = greedy_settings(self.tokenizer, self.max_new_tokens)
        if self.temperature is None:
            return greedy
        return {**greedy, "do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}

    def _complete(self, until_call: bool) -> Callable[[list[int]], bool] | None:
        """Tells whether an answer may end where it is, where no token of its own says so."""
        if not until_call or self.parser.call_token is not None:
            return None
        return lambda answer: self.parser.triggered(self._text(answer))

    def _text(self, answer: Sequence[int]) -> str:
        """The text of an answer, with special tokens."""
        if self.parser.knows_tokens:
            return self.parser.text(answer)
        return str(self.tokenizer.decode(answer, skip_special_tokens=False))


def variant_of_rows(variant: Variant, rows: Sequence[int]) -> Variant:
    """The same variant for some of the rows; an adapter is the same for all."""
    return variant.of(rows) if isinstance(variant, Forcing) else variant


def _gathered_answers(processes: Processes, mine: list[Answer], rows: int) -> list[Answer]:
    """The answers to all rows; `mine` are those of this process's part."""
    cut = processes.arrays(np.array([[answer.cut for answer in mine]], dtype=bool), rows)[0]
    texts = processes.texts(list(mine), rows)
    return [Answer(text, bool(one)) for text, one in zip(texts, cut, strict=True)]
