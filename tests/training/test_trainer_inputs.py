"""Splits, tokenizers and folders that a trainer takes or refuses."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, IncompatibleModelError, load_splits
from asa_adapter.data import SPLITS
from asa_adapter.data.duplicates import Leak
from asa_adapter.training.workload import Workload


@pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="needs a folder that not even root can write into")
def test_an_output_dir_that_cannot_be_written_is_refused_before_any_work(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "output_dir": "/proc/sys"})
    with pytest.raises(OSError, match="cannot write into /proc/sys"):
        ASATrainer(*tiny_lfm2, small, arguments).train()


def test_sample_rows_that_are_not_there_are_refused_before_any_work(
    tiny_lfm2: Any, small: Any, tmp_path: Path
) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "sample_rows": str(tmp_path / "none.jsonl")})
    with pytest.raises(FileNotFoundError, match=r"no file of sample rows at .*none\.jsonl"):
        ASATrainer(*tiny_lfm2, small, arguments)


@pytest.mark.slow
def test_output_dir_holds_the_adapter(tiny_lfm2: Any, small: Any, tmp_path: Path) -> None:
    arguments = ASATrainingArguments(
        **{**SMALL, "layers": (6,), "alphas": (1.0,), "finalists": 1, "output_dir": tmp_path / "out"}
    )
    adapter = ASATrainer(*tiny_lfm2, small, arguments).train()
    assert ASAAdapter.from_pretrained(tmp_path / "out").config.alpha == adapter.config.alpha


def test_only_blind_layers_are_refused(tiny_lfm2: Any, small: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**{**SMALL, "layers": (0, 1)}))
    with pytest.raises(ValueError, match=r"the same for every prompt at layers \[0, 1\]: these blocks cannot see"):
        trainer.train()


def test_a_layer_out_of_range_is_refused(tiny_lfm2: Any, small: Any) -> None:
    with pytest.raises(ValueError, match="layers holds 99; expected 0 to 7 in this model"):
        ASATrainer(*tiny_lfm2, small, ASATrainingArguments(layers=(1, 99)))


def test_a_missing_split_is_refused(tiny_lfm2: Any, small: Any) -> None:
    rest = {name: rows for name, rows in small.items() if name != "valid"}
    with pytest.raises(
        ValueError, match=r"the data has splits \['cal', 'test', 'train'\]; expected cal, train, valid"
    ):
        ASATrainer(*tiny_lfm2, rest)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "valid: there are no rows"),
        ([{"instruction": "a", "label": 1}, {"instruction": "b"}], "valid, row 1: label is None; expected 0"),
        ([{"instruction": "a", "label": 1}, {"instruction": "b", "label": 1}], "valid: every label is 1"),
        ([{"label": 1}], "valid, row 0: no instruction and no messages"),
    ],
)
def test_a_split_that_nothing_can_be_measured_on_is_refused(
    tiny_lfm2: Any, small: Any, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ASATrainer(*tiny_lfm2, {**small, "valid": rows})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
def test_a_model_that_attach_would_refuse_is_refused_before_any_work(tiny_lfm2: Any, small: Any) -> None:
    model = copy.deepcopy(tiny_lfm2[0])
    learnt = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(IncompatibleModelError, match="the PEFT model puts learnt tokens before the prompt"):
        ASATrainer(learnt, tiny_lfm2[1], small)
    model = copy.deepcopy(tiny_lfm2[0])
    model.model.layers[6] = Sequential(model.model.layers[6], model.model.layers[6])  # type: ignore[index]
    with pytest.raises(IncompatibleModelError):
        ASATrainer(model, tiny_lfm2[1], small, ASATrainingArguments(layers=(6,)))


class Sequential(torch.nn.Sequential):
    """A block whose output is none of its own."""

    def forward(self, state: Any, *_: Any, **__: Any) -> Any:
        return state[:, :1]


def test_a_tokenizer_without_a_chat_template_is_refused(tiny_lfm2: Any, small: Any) -> None:
    class Bare:
        chat_template = None
        name_or_path = "bare"

    with pytest.raises(ValueError, match="the tokenizer 'bare' has no chat template"):
        ASATrainer(tiny_lfm2[0], Bare(), small)


def test_tools_that_no_call_can_fit_are_refused(tiny_lfm2: Any, small: Any) -> None:
    tools = [{"name": "weather", "parameters": {"city": "string"}}]
    with pytest.raises(ValueError, match=r"^tools: 'weather' has parameters with 'city', but no word of JSON Schema"):
        ASATrainer(*tiny_lfm2, small, tools=tools)


def test_a_list_of_rows_is_split_by_the_seed_of_the_arguments(tiny_lfm2: Any, small: Any) -> None:
    rows = [row | {"label": bool(row["label"])} for row in small["cal"]]
    trainer = ASATrainer(*tiny_lfm2, rows, ASATrainingArguments(**{**SMALL, "seed": 3}))
    expected = load_splits(rows, seed=3)
    assert {name: [row["id"] for row in part] for name, part in trainer.splits.items()} == {
        name: part["id"][:] for name, part in expected.items()
    }


def test_a_folder_may_stand_for_its_splits(tiny_lfm2: Any, few_rows: Path) -> None:
    trainer = ASATrainer(*tiny_lfm2, few_rows, ASATrainingArguments(**SMALL))
    assert {name: len(rows) for name, rows in trainer.splits.items()} == dict.fromkeys(SPLITS, 24)
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: my_data/"):
        ASATrainer(*tiny_lfm2, "my_data/")


def test_labels_that_are_true_and_false_are_taken(tiny_lfm2: Any, small: Any) -> None:
    marked = {name: [row | {"label": bool(row["label"])} for row in rows] for name, rows in small.items()}
    trainer = ASATrainer(*tiny_lfm2, marked, ASATrainingArguments(**SMALL))
    assert trainer.splits == small
    assert {type(row["label"]) for row in trainer.splits["cal"]} == {int}


def test_rows_that_offer_no_tools_are_refused_unless_they_are_wanted(tiny_lfm2: Any, small: Any) -> None:
    without = [row | {"tools": [], "gold_calls": None} for row in small["valid"][:2]]
    bare = {**small, "valid": [*without, *small["valid"][2:]]}
    first = small["valid"][0]["id"]
    message = (
        rf"2 of \d+ rows offer no tools, such as valid:{first}: no call .* tools= \(--tools\); .*\(--without-tools\)$"
    )
    with pytest.raises(ValueError, match=message):
        ASATrainer(*tiny_lfm2, bare)
    ASATrainer(*tiny_lfm2, bare, ASATrainingArguments(without_tools=True))
    unsaid = {name: [row | {"tools": None, "gold_calls": None} for row in rows] for name, rows in small.items()}
    with pytest.raises(ValueError, match="rows offer no tools"):
        ASATrainer(*tiny_lfm2, unsaid)
    ASATrainer(*tiny_lfm2, unsaid, tools=small["cal"][0]["tools"])


IGNORING = "{% for m in messages %}{{ m.content }}{% endfor %}"


def test_a_template_that_never_writes_tools_is_refused_at_once(tiny_lfm2: Any, small: Any) -> None:
    named = {"chat_template": IGNORING, "tool_call_format": "lfm2"}
    with pytest.raises(
        ValueError, match=r"^the chat template ignores tools=: the model never sees '\w+' and .*; give a"
    ):
        ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**named))
    by_hand = {
        name: [
            row | {"messages": [{"role": "system", "content": str(row["tools"])}, {"role": "user", "content": "Hi."}]}
            for row in rows
        ]
        for name, rows in small.items()
    }
    ASATrainer(*tiny_lfm2, by_hand, ASATrainingArguments(**named))


def test_a_domain_name_that_no_config_takes_is_refused_at_once(tiny_lfm2: Any, small: Any) -> None:
    rows = [{**row, "domain": "math "} for row in small["train"]]
    with pytest.raises(ValueError, match="a domain is 'math '; expected 1 to 64 printable characters"):
        ASATrainer(*tiny_lfm2, {**small, "train": rows})


@pytest.mark.slow
def test_rows_that_stand_in_two_splits_are_named(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    leaked = {**small, "test": [*small["test"], {**small["train"][0], "id": "copied"}]}
    arguments = ASATrainingArguments(**{**shared, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, leaked, arguments)
    name = small["train"][0]["id"]
    with pytest.warns(UserWarning, match=f"1 exact and 0 near duplicates stand in two splits: train:{name} and test:"):
        trainer.train()
    assert trainer.report["leaks"] == [["exact", f"train:{name}", "test:copied"]]


def test_prompts_that_the_model_has_no_room_for_are_counted_and_named(tiny_lfm2: Any, small: Any) -> None:
    long = {**small["valid"][0], "id": "novel", "instruction": "word " * 5000}
    trainer = ASATrainer(*tiny_lfm2, {**small, "valid": [*small["valid"], long]}, ASATrainingArguments(**SMALL))
    with pytest.raises(ValueError, match=r"1 of \d+ prompts are too long: the model takes \d+ tokens.* valid:novel"):
        trainer.train()


def test_a_valid_split_on_which_no_gain_can_be_sure_is_told_before_the_work(
    tiny_lfm2: Any, small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = [row for row in small["valid"] if row["label"]]
    few = [*needed, *[row for row in small["valid"] if not row["label"]][:9]]
    trainer = ASATrainer(
        *tiny_lfm2, {**small, "valid": few}, ASATrainingArguments(**{**SMALL, "progress": True, "layers": (6,)})
    )
    prompts = trainer._measured.prompts("train")
    message = "valid has 9 rows of label 0 that are unlike each other; with fewer than 10 no gain can be sure, so"
    trainer._tell(prompts, Workload(100.0, 10.0))
    assert f"asa-adapter: {message}" in capsys.readouterr().err


def test_too_few_rows_of_a_label_are_refused(tiny_lfm2: Any, small: Any) -> None:
    needed = [row for row in small["train"] if row["label"]]
    rows = needed + [row for row in small["train"] if not row["label"]][:7]
    with pytest.raises(ValueError, match="train: 7 rows have label 0; expected at least 8 of each label"):
        ASATrainer(*tiny_lfm2, {**small, "train": rows})


def test_a_report_names_at_most_a_thousand_leaks(tiny_lfm2: Any, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a set with many duplicates would make a report that is too large to be saved, after the whole training."""
    from asa_adapter.training import input_checks as module

    monkeypatch.setattr(module, "leaks", lambda _: [Leak("exact", f"train:{i}", f"test:{i}") for i in range(1100)])
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))
    with pytest.warns(UserWarning, match="1100 exact and 0 near duplicates stand in two splits"):
        module.check_leaks(trainer.splits, trainer._measured.groups, trainer.report)
    assert len(trainer.report["leaks"]) == 1000
