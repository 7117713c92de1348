"""The tree of what prompts begin with: which beginnings there are, and how many tokens are run."""

import itertools
import random

import pytest

from asa_adapter.engine.prefix_tree import Beginning, beginnings, common_tokens, tokens_run


def shape(rows: list[list[int]]) -> list[tuple[int, int, list[int]]]:
    """Length, parent's length and rows of each beginning."""
    return [(one.length, one.length - one.added, sorted(one.rows)) for one in beginnings(rows)]


def smallest_tree(rows: list[list[int]]) -> int:
    """The tokens of the tree of all prompts, each with a last token of its own."""
    ordered = sorted(rows)
    pairs = itertools.pairwise(ordered)
    return len(ordered[0]) + sum(len(b) - min(common_tokens(a, b), len(b) - 1) for a, b in pairs)


def test_prompts_of_two_beginnings_share_each_of_them() -> None:
    one, other = list(range(40)), list(range(3)) + [9] * 40
    rows = [[*one, 50], [*other, 51], [*one, 52], [*other, 53, 54], [*one, 55], [*other, 56]]
    assert shape(rows) == [(40, 0, [0, 2, 4]), (43, 0, [1, 3, 5])]


def test_a_beginning_continues_the_one_that_more_prompts_share() -> None:
    system, first, second = [1] * 50, [2] * 60, [3] * 70
    rows = [[*system, *tools, 10 + i] for tools in (first, second) for i in range(3)] + [[*system, 9, 9]]
    found = beginnings(rows)
    assert shape(rows) == [(50, 0, [6]), (110, 50, [0, 1, 2]), (120, 50, [3, 4, 5])]
    assert [one.parent for one in found] == [None, found[0], found[0]]
    assert [one.length for one in found[2].lineage()] == [50, 120]
    assert tokens_run(rows) == 50 + 60 + 70 + 3 + 3 + 2


def test_a_beginning_may_have_no_prompts_of_its_own() -> None:
    rows = [[1] * 50 + [tools] * 60 + [10 + i] for tools in (2, 3) for i in range(3)]
    assert shape(rows) == [(50, 0, []), (110, 50, [0, 1, 2]), (110, 50, [3, 4, 5])]


def test_a_few_more_shared_tokens_make_no_beginning() -> None:
    shared = list(range(100))
    rows = [[*shared, 1, 2, 3, i] for i in range(3)] + [[*shared, 4, 5, 6, i] for i in range(3)]
    assert shape(rows) == [(100, 0, [0, 1, 2, 3, 4, 5])]


def test_every_prompt_keeps_its_last_token() -> None:
    shared = list(range(70))
    assert shape([shared, shared, [*shared, 5]]) == [(69, 0, [0, 1, 2])]


@pytest.mark.parametrize("rows", [[], [[1, 2]], [[1] * 15 + [2], [1] * 15 + [3]], [[1] * 30, [2] * 30]])
def test_prompts_that_share_too_little_are_run_whole(rows: list[list[int]]) -> None:
    assert shape(rows) == ([(0, 0, list(range(len(rows))))] if rows else [])


def test_a_long_chain_of_prompts_is_followed_to_its_end() -> None:
    rows = [list(range(i)) for i in range(20, 1500)]
    found = beginnings(rows)
    assert sorted(row for one in found for row in one.rows) == list(range(1480))
    assert all(one.length < len(rows[row]) for one in found for row in one.rows)


def grown(seed: int) -> list[list[int]]:
    """Prompts of a random tree, whose beginnings have 20 to 200 tokens and go on up to four times."""
    draw = random.Random(seed)

    def below(beginning: list[int], depth: int) -> list[list[int]]:
        longer = [*beginning, *(draw.randrange(50) for _ in range(draw.randrange(20, 200)))]
        ends = [draw.randrange(4, 40) for _ in range(draw.randrange(4))]
        here = [[*longer, *(draw.randrange(50) for _ in range(length))] for length in ends]
        children = [row for _ in range(draw.randrange(1, 4)) for row in below(longer, depth - 1)] if depth else []
        return [*here, *children]

    rows = below([7], 4)
    draw.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_at_most_a_tenth_more_tokens_are_run_than_the_tree_has(seed: int) -> None:
    rows = grown(seed)
    assert len(rows) > 5
    assert smallest_tree(rows) <= tokens_run(rows) <= 1.1 * smallest_tree(rows)


@pytest.mark.parametrize("seed", range(8))
def test_a_beginning_comes_behind_its_parent_and_before_what_does_not_continue_that(seed: int) -> None:
    rows, open_ones = grown(seed), []
    for one in beginnings(rows):
        assert all(rows[row][: one.length] == rows[one.prompt][: one.length] for row in one.rows)
        lineage: list[Beginning] = one.lineage()
        assert lineage[:-1] == open_ones[: len(lineage) - 1]
        open_ones = lineage
