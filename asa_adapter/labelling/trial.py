"""`label_by_trying`: a tool is needed where the model alone fails."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from asa_adapter.answering.decoding import text_ends
from asa_adapter.data.rows import Row, complete_row, row_text
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.labelling.answer_checker import Result, expected_results, is_right
from asa_adapter.modeling.forward import input_device
from asa_adapter.tool_calls.format_detection import detected_format
from asa_adapter.tool_calls.parser import ToolCallParser

# How a row's expected answer is found: by its column, by a function of the row, or by its place in a list.
Answers = str | Callable[[Row], Any] | Sequence[Any]

TRIED = "tried"


def label_by_trying(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    answers: Answers = "answer",
    n: int = 5,
    k: int | None = None,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    batch_size: int = 16,
    seed: int = 42,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Labels rows by what the model can do alone: 1, a tool is needed, where it fails at least k of n times.

    The model answers each row n times without any tools, first greedily, then by sampling. Its final result, not any
    number in the working, is compared with the one that is expected: numbers within a tolerance, whatever their
    thousands separators and units, dates in any spelling, and other texts without capitals and punctuation. English
    spelling of numbers and dates is assumed. Labels hold for this model and this way of asking.

    Args:
        model: a causal language model without an adapter.
        tokenizer: its tokenizer, with a chat template.
        rows: rows with `instruction` or `messages`; a label is not needed, and one that is there is replaced.
        answers: how the expected answer of a row is found: the name of its column, a function that takes the row, or
            a list with one for each row. An answer is a number or a text that is one (right to its last written
            digit: 4.83 is met by 4.828), a date as 2031-05-14, another text, {"value": number, "tolerance": number,
            "unit": text or list of texts}, or a list of these, any of which is right.
        n: number of answers to each row, at least 1.
        k: number of failures that makes label 1, from 1 to n; more than half of n where None.
        temperature: of the sampled answers.
        max_new_tokens: greatest length of an answer; one that is cut off there fails.
        batch_size: number of prompts in a batch.
        seed: of the sampled answers, which also depend on rows and batch size. The state of torch's generators is
            left as it was.
        progress: whether to show progress bars.

    Returns:
        A copy of each row, in their order, with `label` and `tried`: {"failures": share of the n answers that were
        wrong, "right": n bools, "answers": n texts, the greedy one first}. `gold_calls` are emptied where the label
        is 0: no call is right there.

    Raises:
        ValueError: a number out of its range, a row without a prompt or with an answer that cannot be checked (rows
            are named by number), or an adapter is attached to the model.
    """
    k = failures_that_count(n, k, temperature)
    prompts, results = prompts_and_results(rows, answers)
    parser = ToolCallParser.from_tokenizer(tokenizer, detected_format(tokenizer) or "json")
    ask = functools.partial(Evaluation, model, tokenizer, parser, None, max_new_tokens, batch_size, progress)
    texts = ask().answers(prompts, name="greedy") if rows else []
    if rows and n > 1:
        device = input_device(model)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            texts = texts + ask(temperature=temperature).answers(prompts * (n - 1), name="sampled")
    texts_and_ends = _texts_and_ends(model, tokenizer, texts)
    return [_labelled_by_trial(row, texts_and_ends[i :: len(rows)], results[i], k) for i, row in enumerate(rows)]


def failures_that_count(n: int, k: int | None, temperature: float) -> int:
    """The number of failures that makes label 1: `k`, or more than half of n where it is None.

    Raises:
        ValueError: a number out of its range.
    """
    if type(n) is not int or n < 1:
        raise ValueError(f"n, the number of answers to each row, is {n!r}; expected 1 or more")
    k = n // 2 + 1 if k is None else k
    if type(k) is not int or not 1 <= k <= n:
        raise ValueError(f"k, the failures that make label 1, is {k!r}; expected 1 to n = {n}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature!r}; expected a number above 0")
    return k


def prompts_and_results(
    rows: Sequence[Mapping[str, Any]], answers: Answers, place: Callable[[int], str] = "row {}".format
) -> tuple[list[dict[str, Any]], list[list[Result]]]:
    """The rows to try, without any tools, and for each the results of which any makes an answer right.

    Args:
        rows: as `label_by_trying` takes them.
        answers: likewise.
        place: how errors name a row by its index.

    Raises:
        ValueError: a row without a prompt, or with an answer that cannot be checked.
    """
    prompts = [_prompt_without_tools(row, place(i)) for i, row in enumerate(rows)]
    results = [expected_results(answer, place(i)) for i, answer in enumerate(_given_answers(rows, answers, place))]
    return prompts, results


def _prompt_without_tools(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row that offers no tools."""
    labelled = {**row, "label": 0} if isinstance(row, Mapping) else row  # complete_row() refuses what is no row
    return {**complete_row(labelled, where, where, None), "tools": []}


def _given_answers(rows: Sequence[Mapping[str, Any]], answers: Answers, place: Callable[[int], str]) -> list[Any]:
    """The expected answer to each row that is tried: from a column, a function or a list."""
    if callable(answers):
        return [answers(row) for row in rows]
    if not isinstance(answers, str):
        if len(answers) != len(rows):
            raise ValueError(f"there are {len(answers)} answers for {len(rows)} rows; expected one for each")
        return list(answers)
    for i, row in enumerate(rows):
        if row.get(answers) is None:
            others = ", ".join(map(repr, row))
            raise ValueError(
                f"{place(i)}: there is no {answers!r}; expected a column with the right answer, found {others}"
            )
    return [row[answers] for row in rows]


def _texts_and_ends(model: Any, tokenizer: Any, answers: Sequence[str]) -> list[tuple[str, bool]]:
    """Answers that were tried, without special tokens, and whether each came to its end."""
    ends = {tokenizer.decode([token], skip_special_tokens=False) for token in text_ends(model)}
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | ends
    pattern = re.compile("|".join(map(re.escape, filter(None, special))) or r"\Z")
    return [(pattern.sub("", text).strip(), not ends or text.endswith(tuple(ends))) for text in answers]


def _labelled_by_trial(
    row: Mapping[str, Any], texts_and_ends: Sequence[tuple[str, bool]], results: Sequence[Result], k: int
) -> dict[str, Any]:
    """A row with the label that its failures make, and how it was tried."""
    question = row_text(row)
    # Of an answer that was cut off the last number is one of the working.
    right = [ended and is_right(text, results, question) for text, ended in texts_and_ends]
    failures = right.count(False)
    label = int(failures >= k)
    tried = {"failures": failures / len(right), "right": right, "answers": [text for text, _ in texts_and_ends]}
    labelled = {**row, "label": label, TRIED: tried}
    return labelled if label or row.get("gold_calls") is None else {**labelled, "gold_calls": []}
