"""Gold conversations run again: which calls are right, missing, needless, repeated, and how sure the shares are."""

import json
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from checkout import TINY_LFM2

from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.report import Report
from asa_adapter.summary.conversations_table import conversations_section, conversations_table
from asa_adapter.tool_calls.outcomes import Answer
from asa_adapter.tool_calls.parser import ToolCallParser
from asa_adapter.trajectories import of_conversations, shares
from asa_adapter.trajectories.course import NO_RESULT, Course, courses_of
from asa_adapter.trajectories.user_turns import user_turns

TOOLS = [
    {"name": name, "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}} for name in ("f", "g")
]


def call(name: str, x: int, key: str | None = None) -> dict[str, Any]:
    # A string of JSON, as OpenAI has it.
    return {"type": "function", "function": {"name": name, "arguments": json.dumps({"x": x})}} | (
        {"id": key} if key else {}
    )


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def tool(content: str, key: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": content} | ({"tool_call_id": key} if key else {})


USER, SAID = {"role": "user", "content": "do f and g"}, {"role": "assistant", "content": "Done."}
THANKS = {"role": "user", "content": "thanks"}
TWO = [USER, calling(call("f", 1)), tool("one"), calling(call("g", 2)), tool("two"), SAID, THANKS, SAID]


def conversation(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages), "tools": TOOLS}


def text(*calls: tuple[str, int]) -> str:
    return (
        "".join(f'<tool_call>{{"name": "{name}", "arguments": {{"x": {x}}}}}</tool_call>' for name, x in calls)
        or "It is done."
    )


class Scripted:
    """Answers by what was called in the chat so far; keeps what it was asked."""

    parser = ToolCallParser("hermes")
    tools = None
    max_new_tokens = 7
    warn_of_cut = Evaluation.warn_of_cut

    def __init__(self, answers: dict[tuple[str, ...], str], cut: bool = False) -> None:
        self._answers, self._cut = answers, cut
        self.asked: list[list[Any]] = []

    def answers(self, rows: Any, adapter: Any = None, name: str = "base") -> list[Answer]:
        found = []
        for row in rows:
            self.asked.append(row["messages"])
            behind = row["messages"][max(i for i, m in enumerate(row["messages"]) if m["role"] == "user") :]
            begun = (behind[0]["content"], *(m["content"] for m in behind if m["role"] == "tool"))
            answers = adapter.answers_of if adapter else self._answers
            found.append(Answer(answers.get(begun, text()), self._cut))
        return found


def gone(answers: dict[tuple[str, ...], str], *messages: dict[str, Any], cut: bool = False) -> list[Course]:
    evaluation: Any = Scripted(answers, cut)
    return courses_of(evaluation, user_turns([conversation(*(messages or TWO))]))


ASKED = USER["content"]
RIGHT = {(ASKED,): text(("f", 1)), (ASKED, "one"): text(("g", 2))}


def test_turns_of_a_conversation_know_what_is_said_before_and_needed_behind() -> None:
    first, second = user_turns([conversation(*TWO)])
    assert list(first.history) == [USER]
    assert [(one.call.name, one.call.arguments, one.result) for one in first.needed] == [
        ("f", {"x": 1}, "one"),
        ("g", {"x": 2}, "two"),
    ]
    assert ([one.step for one in first.needed], second.needed) == ([0, 2], ())
    assert list(second.history) == TWO[:7]


def test_results_of_parallel_calls_are_found_by_their_ids() -> None:
    together = calling(call("f", 1, "a"), call("g", 2, "b"))
    [turn] = user_turns([conversation(USER, together, tool("of g", "b"), tool("of f", "a"), SAID)])
    assert [(one.call.name, one.result, one.step) for one in turn.needed] == [("f", "of f", 0), ("g", "of g", 0)]


def test_calls_in_their_order_with_their_results_and_then_an_answer_are_a_whole_sequence() -> None:
    found = shares(gone(RIGHT))
    assert found == {
        "first_call": 1.0,
        "sequence": 1.0,
        "missing": 0.0,
        "needless": 0.0,
        "repeated": 0.0,
        "finished": 1.0,
    }


def test_the_model_is_shown_its_own_calls_with_the_gold_results() -> None:
    evaluation: Any = Scripted(RIGHT)
    courses_of(evaluation, user_turns([conversation(*TWO)]))
    assert TWO[:7] in evaluation.asked  # the next turn begins as the gold conversation has it
    behind = next(m for m in evaluation.asked if len(m) == 5)
    assert [m["content"] for m in behind if m["role"] == "tool"] == ["one", "two"]
    assert behind[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({(ASKED,): text(("f", 1))}, {"missing": 0.5}),  # stops early
        ({}, {"missing": 1.0, "first_call": 0.0}),  # answers from its head
        (RIGHT | {(ASKED, "one", "two"): text(("g", 2))}, {"repeated": 0.5}),
        (RIGHT | {(ASKED, "one", "two"): text(("g", 3))}, {"needless": 0.5}),
        ({(ASKED,): text(("g", 2)), (ASKED, "two"): text(("f", 1))}, {"first_call": 0.0}),  # the other way round
        (RIGHT | {(THANKS["content"],): text(("f", 1))}, {"needless": 0.5}),
    ],
)
def test_each_fault_is_counted_by_itself_and_breaks_the_sequence(
    answers: dict[tuple[str, ...], str], wrong: dict[str, float]
) -> None:
    right = shares(gone(RIGHT))
    assert shares(gone(answers)) == right | wrong | {"sequence": 0.0}


def test_a_model_that_never_stops_calling_is_asked_no_more_than_two_times_too_often() -> None:
    ever = {(ASKED, *["one"] * n): text(("f", 1)) for n in range(9)}
    [first, _] = gone(ever)
    assert (first.answers, first.finished, first.repeated, first.missing) == (4, False, 3, 1)


def test_a_call_that_is_needed_again_after_it_failed_is_no_repeat() -> None:
    again = [USER, calling(call("f", 1)), tool("failed"), calling(call("f", 1)), tool("one"), SAID]
    [course] = gone({(ASKED,): text(("f", 1)), (ASKED, "failed"): text(("f", 1))}, *again)
    assert course.right
    assert (course.repeated, course.made) == (0, [0, 1])


def test_calls_that_may_run_together_have_no_order() -> None:
    together = [USER, calling(call("f", 1), call("g", 2)), tool("one"), tool("two"), SAID]
    [course] = gone({(ASKED,): text(("g", 2), ("f", 1))}, *together)
    assert course.right
    assert course.first


def test_an_answer_that_was_cut_finishes_nothing_and_an_unknown_call_gets_an_error() -> None:
    assert [course.finished for course in gone(RIGHT, cut=True)] == [False, False]
    [first, _] = gone({(ASKED,): text(("g", 9))})
    assert first.said[-1]["content"] == NO_RESULT


@pytest.mark.parametrize(
    ("talk", "cut", "warned"),
    [([THANKS, SAID], True, "100 % of them"), ([THANKS, SAID], False, ""), (TWO[:6], True, "33 % of them")],
)
def test_answers_that_were_cut_are_warned_of_as_by_evaluate(talk: Any, cut: bool, warned: str) -> None:
    """Of two calls and an answer in words only the words were cut: a call that can be read is whole."""
    evaluation: Any = Scripted(RIGHT, cut)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        of_conversations(evaluation, [conversation(*talk)] * 2, {"base": None}, draws=100)
    told = [str(one.message) for one in caught]
    assert bool(told) == bool(warned)
    assert all(warned.replace("them", "the answers") in one and "'base' on these conversations" in one for one in told)
    assert all("give a greater one, such as 14" in one for one in told)


def test_a_call_that_cannot_be_read_is_needless_and_ends_the_turn_unfinished() -> None:
    broken = '<tool_call>{"name": "f", "arguments": {"x": </tool_call>'
    [course] = gone({(ASKED,): broken}, USER, SAID)
    assert (course.needless, course.done, course.finished, course.right) == (1, True, False, False)


def test_parallel_calls_may_be_made_one_after_the_other() -> None:
    results = ("one", "two", "three")
    at_once = calling(*(call("f", x) for x in range(3)))
    answers = {(ASKED, *results[:x]): text(("f", x)) for x in range(3)}
    [course] = gone(answers, USER, at_once, *map(tool, results), SAID)
    assert (course.missing, course.finished, course.right) == (0, True, True)


def test_calls_that_are_made_have_other_ids_than_those_before_them() -> None:
    [_, second] = gone(RIGHT | {("thanks",): text(("g", 2))})
    [made] = [turn["tool_calls"][0]["id"] for turn in second.said if turn["role"] == "assistant"]
    assert made not in json.dumps(second.turn.history)
    assert len(made) == 9  # as Mistral's templates want them


def test_whole_conversations_are_drawn_for_the_intervals_and_variants_compared() -> None:
    better = SimpleNamespace(answers_of=RIGHT)
    evaluation: Any = Scripted({(ASKED,): text(("f", 1))})
    found = of_conversations(
        evaluation,
        [conversation(*TWO)] * 20,
        {"base": None, "asa": better},
        draws=200,  # type: ignore[dict-item]
    )
    assert {key: found[key] for key in ("conversations", "turns", "needed")} == {
        "conversations": 20,
        "turns": 40,
        "needed": 40,
    }
    assert (found["base"]["sequence"], found["asa"]["sequence"]) == (0.0, 1.0)
    assert found["intervals"]["gain"]["missing"] == [-0.5, -0.5]
    assert "| asa | 1.000 | 1.000 | 0.000 | 0.000 | 0.000 | 1.000 |" in conversations_table(found)
    read = Report.read({"conversations": {"test": found}})
    assert read.conversations["test"]["asa"] == found["asa"]
    section = conversations_section(read.conversations)
    assert section is not None
    assert section["counts"] == "20 conversations with 40 turns of the user, which need 40 calls"
    assert "gain, 95 % interval | +0.000 to +0.000 | +1.000 to +1.000 | -0.500 to -0.500" in section["table"]
    assert conversations_section({}) is None


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [USER, calling(call("f", 1)), SAID],
            "conversation 0 has 1 calls and 0 results between two turns of the user",
        ),
        ([USER, calling({"function": {"arguments": {}}})], "conversation 0 has the call .*; expected a name"),
        ([USER], "there are no conversations in which an assistant answers a user"),
        ("hello", "conversation 0 has no messages; expected a list of turns"),
    ],
)
def test_what_is_no_gold_conversation_is_refused(messages: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        user_turns([{"messages": messages}])


@pytest.mark.filterwarnings("default:100 % of the answers")
def test_a_model_goes_through_conversations_and_the_command_shows_it(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from asa_adapter.cli.entrypoint import main

    model, tokenizer = tiny_lfm2
    given = {"messages": [*TWO[:2], tool("one"), SAID], "tools": TOOLS}
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps(given) + "\n" + json.dumps(given) + "\n")
    evaluation = Evaluation(model, tokenizer, ToolCallParser("lfm2"), max_new_tokens=4, progress=False)
    with pytest.warns(UserWarning, match=r"'base' on these conversations ended because max_new_tokens \(4\) ran out"):
        expected = of_conversations(evaluation, [given] * 2, {"base": None, "asa": tiny_adapter})
    folder = tiny_adapter.save_pretrained(tmp_path / "adapter")
    where = ["--model", str(TINY_LFM2), "--max-new-tokens", "4", "--quiet", "--json"]
    assert main(["evaluate", str(folder), "--conversations", str(file), *where]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["conversations"] == expected
    assert "give a greater one, such as 8" in shown.err
    assert main(["evaluate", str(folder), "--conversations", str(file), "--ablations", *where]) == 2
    assert "--ablations is of labelled data" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:100 % of the answers")
def test_the_command_measures_conversations_of_valid_with_the_fit_that_was_judged_there(
    tiny_adapter: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asa_adapter.cli.entrypoint import main

    asked = []
    monkeypatch.setattr(type(tiny_adapter), "for_split", lambda self, split: asked.append(split) or self)
    folder = tiny_adapter.save_pretrained(tmp_path / "adapter")
    for name in ("dev.jsonl", "talks.jsonl"):
        (tmp_path / name).write_text(json.dumps({"messages": [*TWO[:2], tool("one"), SAID], "tools": TOOLS}) + "\n")
        where = [
            "--conversations",
            str(tmp_path / name),
            "--model",
            str(TINY_LFM2),
            "--max-new-tokens",
            "4",
            "--quiet",
        ]
        assert main(["evaluate", str(folder), *where]) == 0
    assert asked == ["valid", "talks.jsonl"]
