"""A trainer asks the bare model in which formats its calls come, whatever its chat template shows."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from answers import LFM2_START, lfm2
from templates import showing_hermes
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.tool_calls.call_habits import habit_of_answers
from asa_adapter.tool_calls.outcomes import Answer
from asa_adapter.tool_calls.reasoning_and_code import reasons_first
from asa_adapter.training.input_checks import refuse_reasoning

ONE: dict[str, Any] = {**SMALL, "layers": (6,), "alphas": (1.0,), "finalists": 1}
ANSWER = lfm2('[calculator(expression="1 + 1")]')


def trainer_of(model: Any, tokenizer: Any, rows: Any, **changes: Any) -> ASATrainer:
    return ASATrainer(model, tokenizer, rows, ASATrainingArguments(**ONE | changes))


def told(trainer: ASATrainer) -> list[str]:
    """What the trainer warns of when it asks the model."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer._learn_habit()
    return [str(warning.message) for warning in caught if "format" in str(warning.message)]


def test_calls_in_another_format_than_the_templates_are_read_and_warned_of_once(tiny_lfm2: Any, small: Any) -> None:
    model, tokenizer = tiny_lfm2[0], showing_hermes(tiny_lfm2[1])
    trainer = trainer_of(model, tokenizer, small)
    assert trainer.parser.format == "hermes"
    [warning] = told(trainer)
    assert "shows the format 'hermes', but the model's calls come as lfm2 100 % of" in warning
    assert "the adapter reads lfm2 and hermes. What serves it must read these calls too" in warning
    habit = trainer.report["habit"]
    assert (habit["shown"], habit["differs"], habit["shares"]) == ("hermes", True, {"lfm2": 1.0})
    assert 0 < habit["calls"] <= habit["answers"] == 8
    assert trainer.report["tool_call_format"] == "lfm2"
    assert trainer.parser.forms == ("lfm2", "hermes")
    assert trainer.parser.triggered(ANSWER, small["train"][0]["tools"])
    assert trainer._origin["forms"] == ("lfm2", "hermes")
    assert (trainer._origin["tool_call_format"], trainer._origin["tool_call_start"]) == ("lfm2", LFM2_START)
    assert trainer._measured.triggered("valid", [ANSWER] * len(small["valid"])).all()


@pytest.mark.parametrize(("named", "count"), [({}, 1), ({"tool_call_format": "json", "tool_call_start": "<call>"}, 0)])
def test_a_marker_of_no_known_format_is_warned_of_unless_it_was_named(
    tiny_lfm2: Any, small: Any, named: dict[str, Any], count: int
) -> None:
    trainer = trainer_of(*tiny_lfm2, small, **named)
    answers = ["<call>clock</call>"] * 3 + ["Fine."]
    trainer._measured.habit = lambda split: (habit_of_answers(answers, [None] * 4), answers)  # type: ignore[method-assign]
    warned = told(trainer)
    assert len(warned) == count
    assert all("3 of 4 answers begin with <call>, which no known format does" in one for one in warned)
    assert trainer.report["habit"]["calls"] == 0


def test_a_template_that_is_right_warns_of_nothing_and_changes_nothing(tiny_lfm2: Any, small: Any) -> None:
    trainer = trainer_of(*tiny_lfm2, small)
    assert told(trainer) == []
    assert trainer.report["habit"]["shares"] == {"lfm2": 1.0}
    assert trainer.report["habit"]["differs"] is False
    assert (trainer.parser.format, trainer.parser.forms) == ("lfm2", ("lfm2",))
    assert trainer._origin["forms"] == ()


def test_a_model_that_reasons_first_is_refused_with_the_cure(tiny_lfm2: Any, small: Any) -> None:
    trainer = trainer_of(*tiny_lfm2, small)
    thought = [Answer("<think>\nThey want a sum."), Answer("<think>Well"), Answer("Hello.")]
    trainer._measured.habit = lambda split: (habit_of_answers(thought, [None] * 3), thought)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="2 of 3 answers of the bare model: the answer begins with") as error:
        trainer.train()
    assert "switch thinking off, by the model's own switch or a chat template that" in str(error.value)
    refuse_reasoning(thought[1:])


@pytest.mark.parametrize(
    ("answer", "marker"),
    [
        ("<think>\n\n</think>\n\nYes.", "<think>"),
        ("<|channel|>analysis<|message|>They", "<|channel|>analysis<|message|>"),
        ("Write <think> here", "<think>"),
        ("A tag such as " + "x" * 60 + "<think>", ""),
        ("[calculator()]", ""),
        ("", ""),
    ],
)
def test_reasoning_is_looked_for_at_the_beginning(answer: str, marker: str) -> None:
    assert reasons_first(answer) == marker


def test_a_format_that_was_named_by_hand_stays(tiny_lfm2: Any, small: Any) -> None:
    trainer = trainer_of(*tiny_lfm2, small, tool_call_format="hermes")
    named = trainer.parser
    assert told(trainer) == []
    assert trainer.parser is named
    assert (named.format, named.forms) == ("hermes", ("hermes",))
    assert trainer.report["habit"]["differs"] is True
    assert "forms" not in trainer._origin
    assert trainer.report["tool_call_format"] == "hermes"


@pytest.mark.slow
def test_an_adapter_reads_all_formats_of_its_model_after_loading(tiny_lfm2: Any, small: Any, tmp_path: Path) -> None:
    model, tokenizer = tiny_lfm2[0], showing_hermes(tiny_lfm2[1])
    with pytest.warns(UserWarning, match="the chat template shows the format 'hermes'"):
        trained = trainer_of(model, tokenizer, small, output_dir=tmp_path).train()
    adapter = ASAAdapter.from_pretrained(tmp_path)
    assert adapter.config.forms == trained.config.forms == ("lfm2", "hermes")
    assert adapter.config.format_version == 2
    assert adapter.report is not None
    assert adapter.report["valid"]["base"]["recall"] > 0
    parser = adapter.parser(tokenizer)
    assert (parser.forms, parser.openings) == (("lfm2", "hermes"), adapter.config.openings)
    hermes = '<tool_call>{"name": "calculator", "arguments": {"expression": "1 + 1"}}</tool_call>'
    assert [parser.parse(answer)[0].name for answer in (ANSWER, hermes)] == ["calculator"] * 2
    assert "must read `lfm2` and `hermes` too" in (tmp_path / "README.md").read_text(encoding="utf-8")
