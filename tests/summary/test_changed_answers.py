"""The prompts that get a call from one of two models alone, and how a terminal shows them."""

import pytest

from asa_adapter.summary.changed_answers import ChangedAnswer, changed_answers, changes_in_words

ROWS = [
    {"instruction": "add 2 and 3", "label": 1},
    {"instruction": "thanks", "label": 0},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "and now?"}], "label": 0},
]


def test_only_rows_whose_answers_differ_in_the_call_are_told() -> None:
    bare, steered = (["no", "[f()]", "[g()]"], ["[f()]", "[f()]", "well"])
    found = changed_answers(ROWS, (bare, steered), ([0, 1, 1], [1, 1, 0]))
    assert found == [
        ChangedAnswer("add 2 and 3", 1, "no", "[f()]", True),
        ChangedAnswer("and now?", 0, "[g()]", "well", False),
    ]


def test_what_is_better_comes_first_and_each_kind_is_counted() -> None:
    changes = [
        ChangedAnswer("a", 1, "[f()]", "no", False),
        ChangedAnswer("b", 1, "no", "[f()]", True),
        ChangedAnswer("c", 0, "[f()]", "no", False),
        ChangedAnswer("d", 0, "[f()]", "no", False),
    ]
    lines = changes_in_words(changes, "test", 80).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "WHAT CHANGES ON TEST, with the first prompt of each kind",
        "2 x needless calls are gone",
        "1 x missed calls are made",
        "1 x needed calls are lost",
    ]
    assert lines[2:5] == ["    asked  c", "    alone  [f()]", "    asa    no"]


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": [{"type": "text", "text": "weigh"}, {"type": "text", "text": "3 apples"}]}],
        [{"role": "user", "content": "weigh 3 apples"}, {"role": "tool", "content": "400 g"}],
    ],
    ids=["in parts", "before a result"],
)
def test_what_the_user_asked_last_is_told(turns: list[dict[str, object]]) -> None:
    found = changed_answers([{"messages": turns, "label": 1}], (["no"], ["[f()]"]), ([False], [True]))
    assert [one.prompt for one in found] == ["weigh 3 apples"]


@pytest.mark.parametrize(("equal", "told"), [(3, "; 3 of them get one and the same answer"), (2, "")])
def test_equal_words_in_place_of_several_calls_are_told(equal: int, told: str) -> None:
    words = ["I'm sorry,  but no."] + ["I'm sorry, but no."] * (equal - 1) + ["a", "b"]
    changes = [ChangedAnswer("x", 0, "[f()]", one, False) for one in words]
    assert changes_in_words(changes, "test", 80).splitlines()[1] == f"{len(words)} x needless calls are gone{told}"


def test_no_change_is_said() -> None:
    assert changes_in_words([], "valid", 80) == "WHAT CHANGES ON VALID: no prompt gets a call from one model alone"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("word " * 40, "word word word word word word word word word word word word word ..."),
        ("x" * 100, "x" * 65 + " ..."),
        ("two\n\n  lines<|im_end|>", "two lines"),
        ("</tool_call><|im_end|><|endoftext|>", "</tool_call>"),
    ],
    ids=["words", "no spaces", "line ends", "what ends a text goes"],
)
def test_an_answer_takes_one_line(answer: str, shown: str) -> None:
    line = changes_in_words([ChangedAnswer("a", 0, answer, "b", False)], "test", 80).splitlines()[3]
    assert line == f"    alone  {shown}"
    assert len(line) <= 80
