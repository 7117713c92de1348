"""What a command is given: a model by name, by an adapter or not at all, where it runs, and what is asked."""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkout import ROOT, TINY_LFM2
from hub import LocalHub
from models import fitted_adapter

from asa_adapter import ASAAdapter
from asa_adapter.cli import commands, loading
from asa_adapter.cli.entrypoint import main
from asa_adapter.cli.option_parser import command_parser

SHIPPED = ROOT / "examples" / "tiny_lfm2_asa"


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def options(*more: str) -> argparse.Namespace:
    return command_parser().parse_args(["generate", "a", "--prompt", "p", "--quiet", *more])


# --- The model


@pytest.mark.parametrize(
    ("changes", "more", "expected"),
    [
        ({"base_model": "user/m", "base_model_revision": "abc"}, [], ("user/m", "abc")),
        ({"base_model": "user/m", "base_model_revision": "abc"}, ["--revision", "main"], ("user/m", "main")),
        ({"base_model": "user/m", "base_model_revision": "abc"}, ["--model", "other"], ("other", None)),
        ({}, ["--model", "other", "--revision", "r"], ("other", "r")),
    ],
)
def test_the_adapter_names_its_model_where_the_user_does_not(
    changes: dict[str, Any], more: list[str], expected: tuple[str, str | None]
) -> None:
    assert loading.named_model(options(*more), fitted_adapter(**changes).config) == expected


def test_an_adapter_of_a_folder_cannot_name_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(["generate", str(SHIPPED), "--prompt", "Hello!"], capsys)
    assert message == (
        "asa-adapter: error: which model? The adapter was fitted with a folder called 'tiny_lfm2', which is no id on "
        "the Hub; give --model\n"
    )
    with pytest.raises(ValueError, match="The adapter names none, which is no id"):
        loading.named_model(options(), fitted_adapter().config)


@pytest.mark.parametrize("command", ["generate", "explain", "evaluate"])
def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_loaded(
    command: str, tmp_path: Path, few_rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded")
    )
    folder = fitted_adapter(base_model="user/m").save_pretrained(tmp_path)
    more = ["--data", str(few_rows)] if command == "evaluate" else ["--prompt", "Hello!"]
    message = failure([command, str(folder), "--model", str(TINY_LFM2), *more], capsys)
    assert message == (
        "asa-adapter: error: the model's hidden size is 160, but the adapter was fitted for 32 (user/m)\n"
    )


def test_device_and_precision_are_the_users() -> None:
    model, _ = loading.load_model(options("--model", str(TINY_LFM2), "--dtype", "bfloat16", "--device", "cpu"))
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    with pytest.raises(ValueError, match=r"device is 'gpu'; expected one such as cpu, cuda:0 or mps: "):
        loading.load_model(options("--model", str(TINY_LFM2), "--device", "gpu"))


def test_options_of_the_other_engine_are_refused() -> None:
    message = r"--n-ctx: for model files of llama.cpp \(.gguf\), and .*tiny_lfm2 is another kind; leave out what does"
    with pytest.raises(ValueError, match=message):
        loading.load_model(options("--model", str(TINY_LFM2), "--n-ctx", "512"))
    message = r"--device and --dtype: for models of transformers, and a.gguf is another kind"
    with pytest.raises(ValueError, match=message):
        loading.load_model(options("--model", "a.gguf", "--dtype", "bfloat16", "--device", "cpu"))


def test_a_revision_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(name: str, revision: str | None) -> Any:
        asked.append((name, revision))
        raise OSError("enough")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(OSError, match=r"cannot load the model 'user/m': there is no such folder here, .*: enough"):
        loading.load_model(options("--model", "user/m", "--revision", "v2"))
    assert asked == [("user/m", "v2")]


# --- What is asked


def test_a_prompt_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is\n2 x 3?\n"))
    asked = argparse.Namespace(prompt="-", messages=None)
    assert loading.given_chat(asked) == [{"role": "user", "content": "What is\n2 x 3?"}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(ValueError, match=r"^the prompt is empty; expected what the user says$"):
        loading.given_chat(asked)


def test_generate_and_explain_answer_a_chat_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = [{"role": "user", "content": "What is 48713 times 9264?"}]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(chat))
    words = [str(SHIPPED), "--model", str(TINY_LFM2), "--json", "--max-new-tokens", "8"]
    answers = []
    for said in (["--messages", str(path)], ["--prompt", chat[0]["content"]]):
        assert main(["generate", *words, *said]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert main(["explain", *words, "--messages", str(path)]) == 0
    assert "48713" in json.loads(capsys.readouterr().out)["prompt"]["tail"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "chat.json: not valid JSON: "),
        ("version https://git-lfs.github.com/spec/v1\n", "chat.json: not valid JSON: a Git LFS pointer, in place of"),
        ('"Hello"', "chat.json, messages: 'Hello' is not valid JSON"),
        (
            '[{"content": "Hello"}]',
            "chat.json: turn 0 of messages is {'content': 'Hello'}; expected a role and",
        ),
        ("[]", "chat.json: no instruction and no messages; expected one of them"),
        (
            '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]',
            "chat.json: messages ends with an assistant's turn, which is what the model shall say; expected a user's",
        ),
    ],
)
def test_what_is_no_chat_is_refused(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chat.json").write_text(content)
    words = ["generate", "adapter", "--messages", str(tmp_path / "chat.json")]
    assert f"asa-adapter: error: {tmp_path}/{message}" in failure(words, capsys)


def test_a_missing_file_of_messages_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(["generate", "adapter", "--messages", "none.json"], capsys)
    assert message == "asa-adapter: error: no file of messages at none.json\n"


def test_prompt_and_messages_exclude_each_other_and_one_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not allowed with argument" in failure(["generate", "a", "--prompt", "p", "--messages", "m"], capsys)
    assert "one of the arguments --prompt --messages is required" in failure(["explain", "a"], capsys)


# --- What is pushed


def test_push_says_where_and_what(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(ASAAdapter, "push_to_hub", lambda _, repo, **how: asked.append((repo, how)) or "URL")
    assert main(["push", str(SHIPPED), "user/a", "--branch", "next", "--message", "More rows"]) == 0
    assert main(["push", str(SHIPPED), "user/a", "--create-pr"]) == 0
    plain = {"private": None, "commit_message": None, "branch": None, "create_pr": False}
    assert asked == [
        ("user/a", plain | {"branch": "next", "commit_message": "More rows"}),
        ("user/a", plain | {"create_pr": True}),
    ]
    assert "not allowed with argument" in failure_of_usage(["push", "a", "b", "--branch", "x", "--create-pr"], capsys)


def failure_of_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    return failure(words, capsys)


def test_push_of_a_revision_takes_it_from_the_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, revision: str | None) -> Any:
        asked.append((name, revision))
        raise OSError("enough")

    monkeypatch.setattr(commands.ASAAdapter, "from_pretrained", load)
    assert main(["push", "user/a", "user/b", "--revision", "v2"]) == 2
    assert asked == [("user/a", "v2")]
