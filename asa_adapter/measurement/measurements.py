"""`Measurements`: everything that is run on the model while an adapter is fitted.

Results can be stored in a folder, from which a run that was interrupted reads them again.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.answering.leads import Variant
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.duplicates import row_groups
from asa_adapter.data.prompts import encode_rows
from asa_adapter.data.rows import Row, row_domain, row_labels, row_names, row_tools
from asa_adapter.engine.padded_batches import pad_token_id
from asa_adapter.engine.protocol import is_engine_model, or_opened_for_more
from asa_adapter.evaluation.answers import Evaluation, variant_of_rows
from asa_adapter.evaluation.first_tokens import Push, Screened, first_token_probabilities, first_tokens, push_parts
from asa_adapter.matching.state_kinds import kind_of
from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.measurement.prompt_lengths import check_lengths, room_for_prompt, usable_prompts
from asa_adapter.measurement.stage_files import Stages, stage_dependencies, stage_digest
from asa_adapter.modeling.processes import Processes
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.states import HiddenStates, collect_hidden_states
from asa_adapter.tool_calls.call_habits import Habit, few_of_each_label, habit_of_answers
from asa_adapter.tool_calls.outcomes import Answer, Outcome
from asa_adapter.tool_calls.parser import ToolCallParser

# Rows that each process answers in one stage: at most so many are answered again after an interruption.
_ROWS_OF_A_STAGE = 128


class _Prompts(NamedTuple):
    """The prompts of a split as token ids, and their digest."""

    ids: list[list[int]]
    digest: str


class Measurements:
    """What one model does on the rows of each split.

    Args:
        model: a causal language model, also one that another engine runs.
        tokenizer: its tokenizer, with a chat template.
        splits: rows by name of the split.
        args: of these, batch_size, max_new_tokens, layer_path and progress are used.
        parser: reads the model's tool calls.
        tools: JSON-schema tools for rows that have none of their own.

    Attributes:
        tells_kinds: whether rows of each kind of state are fitted by themselves.

    Raises:
        ValueError: an adapter is attached to the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        splits: Mapping[str, Sequence[Row]],
        args: ASATrainingArguments,
        parser: ToolCallParser,
        tools: Tools | None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._given = {name: list(rows) for name, rows in splits.items()}  # a data set makes a row anew at each look
        self._args, self._parser, self._tools = args, parser, tools
        self._evaluation = Evaluation(
            model,
            tokenizer,
            parser,
            tools,
            max_new_tokens=args.max_new_tokens,
            batch_size=args.batch_size,
            progress=args.progress,
        )
        self._splits: dict[str, list[Row]] = dict(self._given)
        self._sources: dict[str, NDArray[np.int64]] = {}
        self._encoded: dict[str, _Prompts] = {}
        self._states: dict[str, HiddenStates] = {}
        self._alike: dict[str, NDArray[np.int64]] = {}
        self._begun: dict[str, Sequence[str]] = {}
        self._one_domain: str | None = None
        self.tells_kinds = False
        self._stages = Stages(None)

    def begin(self, folder: Path | None) -> None:
        """Forgets results and added rows. With a folder, results that still hold are read there, new ones stored."""
        self._splits, self._sources = dict(self._given), {}
        self._encoded, self._states, self._one_domain = {}, {}, None
        self._stages = Stages(folder, stage_dependencies(self._model, self._args) if folder is not None else None)

    @property
    def evaluation(self) -> Evaluation:
        """What answers and scores the rows."""
        return self._evaluation

    def changed(
        self, change: Callable[[Row], Row], begun: Mapping[str, Sequence[str]] | None = None
    ) -> "Measurements":
        """The same for changed rows; results are kept in the same place.

        Args:
            change: returns the row to ask in place of a row.
            begun: by split, the text with which each row's answer begins, before the model's own.
        """
        other = copy.copy(self)
        other._splits = {split: [change(row) for row in rows] for split, rows in self._splits.items()}
        other._encoded, other._states, other._alike, other._begun = {}, {}, {}, dict(begun or {})
        return other

    def rows(self, split: str) -> list[Row]:
        """The rows of a split."""
        return list(self._splits[split])

    def prompts(self, split: str) -> list[list[int]]:
        """The prompt of each row as token ids."""
        return self._prompts(split).ids

    @property
    def reused(self) -> list[str]:
        """Names of the stages that were read from the folder and not computed."""
        return self._stages.reused

    def check_lengths(self) -> None:
        """Refuses prompts that are too long for the model; see `prompt_lengths.check_lengths`."""
        lengths = {
            f"{split}:{name}": len(ids)
            for split, rows in self._splits.items()
            for name, ids in zip(row_names(rows), self._prompts(split).ids, strict=True)
        }
        cure = or_opened_for_more(self._model.facts) if is_engine_model(self._model) else ""
        check_lengths(lengths, room_for_prompt(self._model, self._tokenizer), self._args.max_new_tokens, cure)

    def add(self, name: str, split: str, rows: Sequence[Row], of: Sequence[int]) -> None:
        """Adds rows that were made from those of a split, as a split of its own, with the groups of their sources.

        Rows that cannot be rendered or are too long are left out. `of` has the index of the row each was made from.
        """
        most = room_for_prompt(self._model, self._tokenizer, self._args.max_new_tokens)
        prompts = usable_prompts(self._tokenizer, rows, self._tools, self._parser, most)
        self._splits[name] = [rows[i] for i in prompts]
        self._sources[name] = np.array([of[i] for i in prompts], dtype=np.int64)
        self._encoded[name] = _Prompts([*prompts.values()], stage_digest([*prompts.values()]))
        self._alike[name] = self.groups(split)[self._sources[name]]

    def sources(self, name: str) -> NDArray[np.int64]:
        """(N,) int64: for each row of a split that was added, the index of the row it was made from."""
        return self._sources[name]

    def labels(self, split: str) -> NDArray[np.int64]:
        """(N,) int64, 1 where a row needs a tool, else 0."""
        return row_labels(self._splits[split])

    def domains(self, split: str) -> list[str]:
        """The domain of each row."""
        return [row_domain(row) for row in self._splits[split]]

    def fit_one_domain(self, name: str) -> None:
        """From now on all rows are of one domain in what is fitted."""
        self._one_domain = name

    def groups(self, split: str) -> NDArray[np.int64]:
        """(N,) int64 number of each row's group: near-duplicates and turns of one conversation belong together.

        CAL and TRAIN, on which probes are fitted together, have one numbering.
        """
        if split not in self._alike:
            together = ("cal", "train") if split in ("cal", "train") else (split,)
            numbers = row_groups([row for name in together for row in self._splits[name]])
            ends = np.cumsum([len(self._splits[name]) for name in together])[:-1]
            self._alike |= dict(zip(together, np.split(numbers, ends), strict=True))
        return self._alike[split]

    def states(self, split: str) -> HiddenStates:
        """The states of all layers at each row's last prompt token; collected once for each split."""

        def compute() -> dict[str, NDArray[np.float32]]:
            rows, processes = self._splits[split], Processes()
            found = collect_hidden_states(
                self._model,
                self._tokenizer,
                [rows[i] for i in processes.part(len(rows))],
                tools=self._tools,
                batch_size=self._args.batch_size,
                progress=self._args.progress,
                layer_path=self._args.layer_path,
                parser=self._parser,
            )
            return {"states": processes.arrays(found.states.numpy(), len(rows))}

        if split not in self._states:
            arrays = self._stages.arrays(f"states-{split}", {"prompts": self._prompts(split).digest}, compute)
            self._states[split] = HiddenStates(torch.from_numpy(arrays["states"]))
        return self._states[split]

    def labelled(self, split: str, layer: int) -> LabelledStates:
        """The states of a split at one layer, with labels, domains to fit and groups."""
        states, one = self.states(split).states[layer].numpy(), self._one_domain
        domains = self.domains(split) if one is None else [one] * len(states)
        kinds = [kind_of(row) for row in self._splits[split]] if self.tells_kinds else None
        made = np.full(len(domains), split in self._sources)
        return LabelledStates(states, self.labels(split), domains, self.groups(split), kinds, made)

    def first_tokens(
        self,
        split: str,
        pushes: Sequence[Push],
        rows: NDArray[np.int64] | None = None,
    ) -> Screened:
        """The first token of each row's answer, by the bare model and under each push.

        Args:
            split: name of the split.
            pushes: pushes for all of its rows.
            rows: indices of the rows to run; None for all.
        """
        prompts = self._prompts(split)
        chosen = np.arange(len(prompts.ids)) if rows is None else rows
        openings = list(self._parser.opening_ids(self._tokenizer))

        def compute() -> dict[str, NDArray[Any]]:
            processes = Processes()
            mine = chosen[processes.part(len(chosen))].tolist()
            how = {**self._screening, "prompts": [prompts.ids[i] for i in mine], "openings": openings}
            screened = first_tokens(self._model, pushes=[push.of(mine) for push in pushes], **how)
            return {name: processes.arrays(found, len(chosen)) for name, found in screened._asdict().items()}

        pushed = stage_digest(*push_parts(pushes))
        depends = {"prompts": prompts.digest, "rows": stage_digest(chosen), "pushes": pushed, "openings": openings}
        return Screened(**self._stages.arrays(f"first-tokens-{split}", depends, compute))

    def probabilities(self, split: str, sets: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(S, N) probabilities that the bare model's answer to each row begins with a token of each of S sets."""
        prompts = self._prompts(split)

        def compute() -> dict[str, NDArray[Any]]:
            processes = Processes()
            some = [prompts.ids[i] for i in processes.part(len(prompts.ids))]
            found = first_token_probabilities(self._model, prompts=some, sets=sets, **self._screening)
            return {"probabilities": processes.arrays(found, len(prompts.ids))}

        depends = {"prompts": prompts.digest, "sets": [list(tokens) for tokens in sets]}
        return self._stages.arrays(f"probabilities-{split}", depends, compute)["probabilities"]

    @property
    def _screening(self) -> dict[str, Any]:
        """How first tokens are computed."""
        size, pad_id = 2 * self._args.batch_size, pad_token_id(self._tokenizer)
        blocks = None if is_engine_model(self._model) else decoder_blocks(self._model, self._args.layer_path)
        return {"blocks": blocks, "pad_id": pad_id, "batch_size": size, "progress": self._args.progress}

    def answers(
        self, split: str, variants: Mapping[str, Variant], *, until_call: bool = False
    ) -> dict[str, list[Answer]]:
        """Each variant's answer to each row, by name of the variant; see `Evaluation.answers_of_each`."""
        rows = self._splits[split]
        answers: dict[str, list[Answer]] = {name: [] for name in variants}
        of_a_stage = _ROWS_OF_A_STAGE * Processes().count
        for begin in range(0, len(rows), of_a_stage):
            part = range(begin, min(begin + of_a_stage, len(rows)))
            some = {name: variant_of_rows(variant, part) for name, variant in variants.items()}
            for name, texts in self._some_answers(split, part, some, until_call).items():
                answers[name] += texts
        return answers

    def _some_answers(
        self, split: str, part: range, variants: Mapping[str, Variant], until_call: bool
    ) -> dict[str, list[Answer]]:
        """The answers to the rows of one stage."""
        rows, prompts = self._splits[split], [self._prompts(split).ids[i] for i in part]
        depends = {
            "prompts": stage_digest(prompts),
            "max_new_tokens": self._args.max_new_tokens,
            "until_call": until_call,
            "markers": [*self._parser.forms, self._parser.start, self._parser.end],
        }
        of_each = {name: {**depends, "adapter": one and one.digest()} for name, one in variants.items()}
        begun = self._begun.get(split)

        def compute(missing: list[str]) -> dict[str, list[Answer]]:
            return self._evaluation.answers_of_each(
                [rows[i] for i in part],
                {name: variants[name] for name in missing},
                until_call=until_call,
                begun=None if begun is None else [begun[i] for i in part],
                prompts=prompts,
                part=f"; {split} {part.start + 1} to {part.stop} of {len(rows)}",
            )

        return self._stages.answers(f"answers-{split}", of_each, compute)

    def triggers(self, split: str, variants: Mapping[str, Variant]) -> dict[str, NDArray[np.bool_]]:
        """By variant, (N,) bool: whether each row's answer calls a tool; answers end where a call begins."""
        answers = self.answers(split, variants, until_call=True)
        return {name: self.triggered(split, texts) for name, texts in answers.items()}

    def outcomes(self, split: str, variants: Mapping[str, Variant]) -> dict[str, Outcome]:
        """What came of each variant's answers, by name; see `answers`."""
        answers = self.answers(split, variants)
        return {name: self._evaluation.outcome(self._splits[split], texts) for name, texts in answers.items()}

    def triggered(self, split: str, answers: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) bool: whether the answer to each row of a split calls a tool."""
        rows = self._splits[split]
        found = [
            self._parser.triggered(answer, row_tools(row, self._tools))
            for row, answer in zip(rows, answers, strict=True)
        ]
        return np.array(found, dtype=bool)

    def habit(self, split: str) -> tuple[Habit, list[Answer]]:
        """The formats in which the bare model's calls come, in its answers to a few rows of each label; and these."""
        rows = few_of_each_label(self._splits[split])
        prompts = encode_rows(self._tokenizer, rows, self._tools, self._parser)
        depends = {"prompts": stage_digest(prompts), "max_new_tokens": self._args.max_new_tokens}

        def compute(_: list[str]) -> dict[str, list[Answer]]:
            return {"base": self._evaluation.answers(rows)}

        answers = self._stages.answers("habit", {"base": depends}, compute)["base"]
        return habit_of_answers(answers, [row_tools(row, self._tools) for row in rows], self._parser.format), answers

    def read_with(self, parser: ToolCallParser) -> None:
        """Reads the model's calls with another parser from now on."""
        self._parser, self._evaluation = parser, replace(self._evaluation, parser=parser)

    def metrics(self, split: str, answers: Sequence[str]) -> dict[str, Any]:
        """Metrics of a split's answers; see `Evaluation.metrics`."""
        return self._evaluation.metrics(self._splits[split], answers)

    def warn_of_cut(self, results: Mapping[str, Mapping[str, Any]], split: str) -> None:
        """Warns where more than 5 % of the answers behind one of these metrics of a split were cut."""
        self._evaluation.warn_of_cut(results, split.upper())

    def _prompts(self, split: str) -> _Prompts:
        if split not in self._encoded:
            ids = self._evaluation.prompts(self._splits[split], self._begun.get(split))
            self._encoded[split] = _Prompts(ids, stage_digest(ids))
        return self._encoded[split]
