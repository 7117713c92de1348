"""Labels by trying: who fails k of n times needs a tool."""

import copy
from typing import Any

import pytest
import torch
from models import fitted_adapter, random_model

import asa_adapter
from asa_adapter import label_by_trying
from asa_adapter.evaluation.answers import Evaluation

TOOL = {"name": "calculator", "description": "Computes.", "parameters": {"type": "object", "properties": {}}}
CALL = {"name": "calculator", "arguments": {}}
ROWS: list[dict[str, Any]] = [
    {"instruction": "What is 2 + 3?", "answer": 5, "tools": [TOOL], "gold_calls": [CALL], "difficulty": 1},
    {"instruction": "What is 48713 times 9264?", "answer": "451277232", "tools": [TOOL], "gold_calls": [CALL]},
    {"messages": [{"role": "user", "content": "Which day follows Monday?"}], "answer": "Tuesday", "label": 1},
]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float | None, list[Any]]]:
    """A model with these answers, three a row; the list gets the temperature and the rows of each time it is asked."""
    greedy = ["It is 5.<|im_end|>", "451,277,232<|im_end|>", "Wednesday<|im_end|>"]
    sampled = [f"{text}<|im_end|>" for text in ("5", "450,000,000", "Tuesday", "6", "About 450 million.", "Sunday")]
    asked: list[tuple[float | None, list[Any]]] = []

    def answers(self: Evaluation, rows: Any, **_: Any) -> list[str]:
        asked.append((self.temperature, list(rows)))
        return greedy if self.temperature is None else sampled

    monkeypatch.setattr(Evaluation, "answers", answers)
    return asked


def test_the_label_is_1_where_the_model_alone_fails_k_of_n_times(scripted: Any, tiny_lfm2: Any) -> None:
    rows = label_by_trying(*tiny_lfm2, ROWS, n=3, k=2)
    assert [row["label"] for row in rows] == [0, 1, 1]
    assert [row["label"] for row in label_by_trying(*tiny_lfm2, ROWS, n=3, k=1)] == [1, 1, 1]
    assert [row["label"] for row in label_by_trying(*tiny_lfm2, ROWS, n=3, k=3)] == [0, 0, 0]
    assert label_by_trying(*tiny_lfm2, ROWS, n=3) == rows  # more than half


def test_a_row_keeps_its_columns_its_answers_and_the_share_of_failures(scripted: Any, tiny_lfm2: Any) -> None:
    before = copy.deepcopy(ROWS)
    first, second, _ = label_by_trying(*tiny_lfm2, ROWS, n=3)
    assert before == ROWS
    assert first["tried"] == {
        "failures": pytest.approx(1 / 3),
        "right": [True, True, False],
        "answers": ["It is 5.", "5", "6"],
    }
    assert {key: second[key] for key in ROWS[1]} == ROWS[1]
    assert (first["difficulty"], first["tools"], first["gold_calls"]) == (1, [TOOL], [])  # no call is right there


def test_the_model_is_asked_without_tools_first_greedily_then_by_sampling(scripted: Any, tiny_lfm2: Any) -> None:
    label_by_trying(*tiny_lfm2, ROWS, n=3, temperature=0.5)
    (greedy, once), (sampled, again) = scripted
    assert (greedy, len(once)) == (None, 3)
    assert (sampled, len(again)) == (0.5, 6)
    assert all(row["tools"] == [] for row in once + again)


def test_expected_answers_come_from_a_column_a_function_or_a_list(scripted: Any, tiny_lfm2: Any) -> None:
    rows = label_by_trying(*tiny_lfm2, ROWS, n=3)
    bare = [{key: value for key, value in row.items() if key != "answer"} for row in ROWS]
    renamed = [{**row, "truth": full["answer"]} for row, full in zip(bare, ROWS, strict=True)]
    by_text = {str(row): full["answer"] for row, full in zip(bare, ROWS, strict=True)}
    for found in (
        label_by_trying(*tiny_lfm2, renamed, answers="truth", n=3),
        label_by_trying(*tiny_lfm2, bare, answers=[row["answer"] for row in ROWS], n=3),
        label_by_trying(*tiny_lfm2, bare, answers=lambda row: by_text[str(row)], n=3),
    ):
        assert [row["tried"] for row in found] == [row["tried"] for row in rows]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [ROWS[0], {"instruction": "Hi"}],
            {},
            r"row 1: there is no 'answer'; expected a column .*found 'instruction'",
        ),
        ([ROWS[0], {"answer": 3}], {}, "row 1: no instruction and no messages"),
        ([ROWS[0], {"instruction": "Hi", "answer": True}], {}, "row 1: the answer is True; expected a number"),
        ([ROWS[0], "Hi"], {}, "row 1: found a str"),
        (ROWS, {"answers": [1, 2]}, "there are 2 answers for 3 rows; expected one for each"),
        (ROWS, {"n": 0}, "n, the number of answers to each row, is 0; expected 1 or more"),
        (ROWS, {"n": 3, "k": 4}, "k, the failures that make label 1, is 4; expected 1 to n = 3"),
        (ROWS, {"k": 0}, "k, the failures that make label 1, is 0; expected 1 to n = 5"),
        (ROWS, {"temperature": 0.0}, "temperature is 0.0; expected a number above 0"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_the_model_is_asked(
    scripted: Any, tiny_lfm2: Any, rows: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        label_by_trying(*tiny_lfm2, rows, **options)
    assert scripted == []


def test_an_answer_that_is_cut_off_fails_whatever_its_last_number_is(
    tiny_lfm2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["2 + 3 is 5<|im_end|>", "2 + 3 is 5", "5"]
    monkeypatch.setattr(Evaluation, "answers", lambda self, rows, **_: texts)
    rows = label_by_trying(*tiny_lfm2, [{"instruction": "What is 2 + 3?", "answer": 5}] * 3, n=1)
    assert [row["tried"]["right"] for row in rows] == [[True], [False], [False]]
    assert rows[0]["tried"]["answers"] == ["2 + 3 is 5"]


def test_no_rows_are_no_work(tiny_lfm2: Any) -> None:
    assert label_by_trying(*tiny_lfm2, []) == []


def test_a_seed_gives_the_same_answers_again_and_leaves_torchs_generator_alone(tiny_lfm2: Any) -> None:
    def tried(seed: int) -> list[Any]:
        rows = label_by_trying(*tiny_lfm2, ROWS, n=3, max_new_tokens=8, temperature=2.0, seed=seed, progress=False)
        return [row["tried"]["answers"] for row in rows]

    torch.manual_seed(1)
    first = tried(0)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    assert tried(0) == first
    other = tried(1)
    assert other != first
    assert [texts[0] for texts in other] == [texts[0] for texts in first]  # greedy
    assert len({text for texts in first for text in texts}) > len(ROWS)
    assert not any("<|" in text for texts in first for text in texts)


def test_a_steered_model_is_not_tried(tiny_lfm2: Any) -> None:
    model = random_model()
    with fitted_adapter().attach(model), pytest.raises(ValueError, match=r"an adapter attached; remove\(\) it first"):
        label_by_trying(model, tiny_lfm2[1], ROWS)


def test_it_is_exported() -> None:
    assert "label_by_trying" in asa_adapter.__all__
