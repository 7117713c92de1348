"""What a run is given, checked: its splits, the model, and the layers to try."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.gain import MIN_GROUPS, groups_by_label
from asa_adapter.data.duplicates import group_summary, leak_summary, leaks
from asa_adapter.data.rows import Row, check_gold_tools, row_messages, row_names, row_tools
from asa_adapter.data.sources import SPLITS
from asa_adapter.data.splits import check_split, how_made, load_splits
from asa_adapter.diagnostics.checks import answers_reason, template_ignores, unseen_tools
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.matching.compatibility import refuse_learnt_prompts, refuse_other_kinds
from asa_adapter.modeling.block_check import verify_block
from asa_adapter.modeling.residual_stream import decoder_blocks, generating_model
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.parts.classifiers import MIN_ROWS_PER_CLASS
from asa_adapter.tool_calls.reasoning_and_code import reasons_first

Splits = Mapping[str, list[Row]]

_MOST_LEAKS = 1000  # in the report, whose size is limited


def checked_splits(source: Any, seed: int, tools: Tools | None = None) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """The rows of each split, checked.

    Args:
        source: the four splits, or anything that `load_splits` takes.
        seed: of the split of one set.
        tools: the tools of rows that have none of their own.

    Returns:
        The rows by split; and, where `load_splits` made them, how ("splits") and where tools are from ("tools").

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no splits can be made of it, one cannot be fitted or measured on, there are gold calls of tools
            that are not offered, or TRAIN has too few rows of a label.
    """
    splits = source
    if not isinstance(source, Mapping) or not set(SPLITS) <= set(source):
        splits = load_splits(source, seed=seed)
    found: dict[str, list[Row]] = {
        name: [{**row, "label": int(row["label"])} if type(row.get("label")) is bool else row for row in splits[name]]
        for name in SPLITS
    }
    for name, rows in found.items():
        check_split(rows, name)
        for number, row in enumerate(rows):
            offered = tools if row.get("tools") is None else row["tools"]
            check_gold_tools(row.get("gold_calls"), offered, f"{name}, row {number}")
    labels = [int(row["label"]) for row in found["train"]]
    for label in (0, 1):
        if (count := labels.count(label)) < MIN_ROWS_PER_CLASS:
            raise ValueError(
                f"train: {count} rows have label {label}; expected at least {MIN_ROWS_PER_CLASS} of each label, since "
                "router and probes are fitted on them and judged on others of them"
            )
    return found, how_made(splits)


def refuse_unseen_tools(splits: Splits, tokenizer: Any, tools: Tools | None, without_tools: bool) -> None:
    """Refuses rows that offer no tools, unless they are wanted, and prompts that do not show the tools.

    Raises:
        ValueError: some rows offer no tools, or the chat template never writes them.
    """
    bare, shown = [], None
    for split, rows in splits.items():
        for row, name in zip(rows, row_names(rows), strict=True):
            if not (tools if row.get("tools") is None else row["tools"]):
                bare.append(f"{split}:{name}")
            elif shown is None:
                shown = row
    if bare and not without_tools:
        raise ValueError(
            f"{len(bare)} of {sum(map(len, splits.values()))} rows offer no tools, such as {bare[0]}: no call is "
            "right there, and an adapter leaves such prompts alone. Put tools.json beside the data, or give tools= "
            "(--tools); to fit on such rows on purpose, set without_tools=True (--without-tools)"
        )
    if shown is not None and (first := unseen_tools(tokenizer, row_messages(shown), row_tools(shown, tools) or [])):
        raise ValueError("; ".join(template_ignores(first)))


def refuse_unsteerable(model: Any, layers: Sequence[int], layer_path: str | None) -> None:
    """Refuses a model that an adapter could not be attached to, before any work: by a run of two tokens, too.

    Raises:
        IncompatibleModelError: it is of another kind, PEFT puts learnt tokens before the prompt, or the output of one
            of the layers is not the residual stream.
    """
    if is_engine_model(model):
        return  # it was tried when it was opened
    refuse_learnt_prompts(model)
    bare = generating_model(model)
    refuse_other_kinds(bare)
    blocks = decoder_blocks(bare, layer_path)
    for layer in {type(blocks[layer]): layer for layer in layers}.values():
        verify_block(bare, blocks, layer)


def refuse_reasoning(answers: Sequence[str]) -> None:
    """Refuses a model that reasons before it decides on a call, by its answers to a few rows.

    Raises:
        ValueError: more than half of the answers begin with reasoning.
    """
    opened = [marker for marker in map(reasons_first, answers) if marker]
    if 2 * len(opened) > len(answers):
        meaning, cure = answers_reason(opened[0])
        raise ValueError(f"{len(opened)} of {len(answers)} answers of the bare model: {meaning}; {cure}")


def few_groups(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> str:
    """What to say of a VALID on which no gain can be sure, whatever is fitted; "" where it has enough rows.

    Args:
        labels: (N,) 1 where a tool is needed.
        groups: (N,) numbers; rows with the same number belong together.
    """
    counts = groups_by_label(labels, groups)
    if (fewest := min(counts)) >= MIN_GROUPS:
        return ""
    return (
        f"valid has {fewest} rows of label {counts.index(fewest)} that are unlike each other; with fewer than "
        f"{MIN_GROUPS} no gain can be sure, so the adapter will abstain. Give more, or more varied, rows"
    )


def layers_to_try(layers: str | Sequence[int], depth: int) -> list[int]:
    """Indices of the decoder blocks that the arguments name.

    Raises:
        ValueError: an index is not below `depth`, the model's number of blocks.
    """
    chosen = list(range(depth)) if isinstance(layers, str) else list(layers)
    if wrong := [layer for layer in chosen if not 0 <= layer < depth]:
        raise ValueError(f"layers holds {wrong[0]}; expected 0 to {depth - 1} in this model")
    return chosen


def check_leaks(
    splits: Mapping[str, Sequence[Row]], groups: Callable[[str], NDArray[np.int64]], report: dict[str, Any]
) -> None:
    """Warns of duplicates: in two splits metrics on them are too good, in one they tell less than they seem.

    Args:
        splits: rows by name of the split.
        groups: takes the name of a split, and returns the group of each of its rows.
        report: gets the `leaks` and the numbers of groups.
    """
    found = leaks(splits)
    report["leaks"] = [list(leak) for leak in found[:_MOST_LEAKS]]
    if found:
        warnings.warn(f"{leak_summary(found)}. Numbers measured on them are too good", stacklevel=3)
    counts = {split: len(set(groups(split).tolist())) for split in splits}
    for split, count in counts.items():
        report["splits"][split]["groups"] = count
    if told := group_summary({split: (count, len(splits[split])) for split, count in counts.items()}):
        warnings.warn(told, stacklevel=3)
