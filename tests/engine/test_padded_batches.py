"""Prompts of several lengths as batches."""

from types import SimpleNamespace

import pytest
import torch

from asa_adapter.engine.padded_batches import batches_by_length, batches_by_tokens, pad_batch, pad_token_id


@pytest.mark.parametrize(
    ("pad", "eos", "expected"),
    [(5, 7, 5), (0, 7, 0), (None, 7, 7), (None, 0, 0), (None, None, 0)],
    ids=["pad", "pad is zero", "end", "end is zero", "neither"],
)
def test_padding_token(pad: int | None, eos: int | None, expected: int) -> None:
    assert pad_token_id(SimpleNamespace(pad_token_id=pad, eos_token_id=eos)) == expected


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[1, 2, 3], [4, 9, 9]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[1, 2, 3], [9, 9, 4]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_prompts_are_padded_on_one_side(side: str, ids: list[list[int]], mask: list[list[int]]) -> None:
    batch = pad_batch([[1, 2, 3], [4]], pad_id=9, side=side)
    assert [part.tolist() for part in batch] == [ids, mask]


def test_padded_batch_is_int64_on_the_device_asked_for() -> None:
    ids, mask = pad_batch([[1]], 0, "left", device="meta")
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.int64)
    assert (ids.device.type, mask.device.type) == ("meta", "meta")


def test_token_that_equals_the_padding_is_not_masked() -> None:
    _, mask = pad_batch([[9, 9], [9]], pad_id=9, side="left")
    assert mask.tolist() == [[1, 1], [0, 1]]


def test_batches_hold_similar_lengths_the_longest_first() -> None:
    prompts = [[0] * length for length in (2, 9, 4, 9, 1)]
    assert batches_by_length(prompts, 2) == [[1, 3], [2, 0], [4]]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_every_prompt_is_in_one_batch(size: int) -> None:
    prompts = [[0] * (i * 7 % 13 + 1) for i in range(30)]
    batches = batches_by_length(prompts, size)
    assert sorted(i for batch in batches for i in batch) == list(range(30))
    assert max(map(len, batches)) <= size


def test_no_prompts_make_no_batches() -> None:
    assert batches_by_length([], 4) == []


@pytest.mark.parametrize(
    ("lengths", "rows", "tokens", "batches"),
    [
        ([3, 9, 5], 8, 1000, [[1, 2, 0]]),
        ([3, 9, 5], 2, 1000, [[1, 2], [0]]),
        ([3, 9, 5], 8, 18, [[1, 2], [0]]),
        ([100, 100, 100, 99, 20, 20], 8, 10_000, [[0, 1, 2, 3], [4, 5]]),
        ([50, 5], 8, 10, [[0], [1]]),
        ([], 8, 10, []),
    ],
)
def test_batches_keep_to_rows_and_tokens_and_pad_little(
    lengths: list[int], rows: int, tokens: int, batches: list[list[int]]
) -> None:
    assert batches_by_tokens(lengths, rows, tokens) == batches
