"""Where runs of token ids stand among others."""

import pytest
import torch

from asa_adapter.matching.token_runs import first_place, last_place, packed, packed_rows


@pytest.mark.parametrize(
    ("ids", "run", "first", "last"),
    [
        ([5, 1, 2, 3, 1, 2], [1, 2], 1, 4),
        ([1, 2], [1, 2], 0, 0),
        ([1, 1, 1], [1, 1], 0, 1),
        ([1, 2], [2, 1], -1, -1),
        ([1], [1, 2], -1, -1),
        ([], [1], -1, -1),
    ],
)
def test_a_run_is_found_where_it_stands(ids: list[int], run: list[int], first: int, last: int) -> None:
    assert (first_place(packed(ids), packed(run)), last_place(packed(ids), packed(run))) == (first, last)


# The bytes of 256 hold those of 1, one byte later; so the first and the last place of the bytes are across tokens.
def test_the_bytes_of_a_run_across_two_tokens_are_no_run() -> None:
    ids = packed([256, 0, 3, 256, 0])
    assert ids.find(packed([1])) > 0
    assert (first_place(ids, packed([1])), last_place(ids, packed([1]))) == (-1, -1)
    both = packed([256, 0, 1, 256, 0])
    assert (first_place(both, packed([1])), last_place(both, packed([1]))) == (2, 2)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_rows_of_a_batch_are_searched_whatever_their_dtype_and_layout(dtype: torch.dtype) -> None:
    tokens = torch.tensor([[1, 4], [2, 5], [3, 6]], dtype=dtype).T
    assert packed_rows(tokens) == [packed([1, 2, 3]), packed([4, 5, 6])]
