"""No character that a terminal obeys gets from a stranger's text into any output, whatever the command."""

import json
import logging
import re
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest
from checkout import TINY_LFM2
from models import fitted_adapter

from asa_adapter import AdapterFormatError, ASAAdapter, IncompatibleModelError
from asa_adapter.cli import commands, inspect_command, terminal
from asa_adapter.cli.entrypoint import main
from asa_adapter.diagnostics.explanation import Explanation
from asa_adapter.errors import AdapterDownloadError, AdapterUploadError, DamagedDownloadError, visible
from asa_adapter.matching.prompt_resemblance import Resemblance
from asa_adapter.templates import bounded_rendering

# An escape sequence, one of C1, one that turns the direction, a hidden one, a line separator, and a deletion.
NASTY = "a\x1b[31m\x9b2J\u202eb\u2066c\u200bd\u2028e\u2029f\x7f\x07\ufeff\U000e0041"


def harmless(text: str) -> bool:
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    adapter = fitted_adapter(
        base_model=NASTY,
        base_model_revision=NASTY,
        model_type=NASTY,
        tool_call_start=NASTY,
        tools=[{"name": NASTY, "description": NASTY, NASTY: [NASTY]}],
        chat_template=NASTY,
        chat_template_variables={NASTY: NASTY},
    )
    numbers = dict.fromkeys(("n", "tp", "fp", "fn", "tn"), 1) | dict.fromkeys(
        ("precision", "recall", "f1", "accuracy", "fpr"), 0.5
    )
    metrics = {**numbers, "per_domain": {NASTY: numbers}}
    adapter.report = {
        "chosen": {"why": NASTY},
        "versions": {NASTY: NASTY},
        "evaluations": {NASTY: {"base": metrics, "asa": metrics}},
        "metadata": {"labels": NASTY},
        NASTY: NASTY,
    }
    return str(adapter.save_pretrained(tmp_path / "adapter"))


def output(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    assert harmless(captured.out)
    assert harmless(captured.err)
    return status, captured.out, captured.err


def test_inspect_shows_none(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = output(["inspect", folder], capsys)
    assert status == 0
    assert "[31m" in out


def test_inspect_as_json_has_them_as_escapes(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = output(["inspect", folder, "--json"], capsys)
    assert status == 0
    found = json.loads(out)
    assert found["config"]["base_model"] == NASTY
    assert found["report"][NASTY] == NASTY


@pytest.mark.parametrize("command", ["generate", "explain"])
@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["plain", "debug"])
def test_a_refused_model_is_told_without_them(
    folder: str, command: str, debug: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, folder, "--model", str(TINY_LFM2), "--prompt", "What is 2 x 3?", *debug]
    status, _, err = output(words, capsys)
    assert status == 2
    assert "asa-adapter: error: " in err


@pytest.mark.parametrize("command", ["generate", "explain", "evaluate"])
def test_a_template_from_the_hub_is_refused_before_a_model_is_loaded_unless_trusted(
    folder: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ASAAdapter.from_pretrained

    def from_the_hub(name: str, revision: str | None) -> ASAAdapter:
        adapter = load(name, revision=revision)
        adapter.commit = "0" * 40
        return adapter

    monkeypatch.setattr(ASAAdapter, "from_pretrained", from_the_hub)
    more = ["--data", "./none"] if command == "evaluate" else ["--prompt", "hi"]
    words = [command, folder, "--model", "./none", *more]
    status, _, err = output(words, capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert "the adapter comes from the Hub with a chat template of its own" in err
    assert "--trust-template" in err
    assert "./none" not in err
    status, _, err = output([*words, "--trust-template"], capsys)
    assert status == 2
    assert "none" in err
    assert "from the Hub with" not in err


def test_generate_ends_with_a_reason_where_the_template_never_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_rendering, "SECONDS", 1)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    folder = fitted_adapter(width=160, num_layers=8, chat_template=loops).save_pretrained(tmp_path)
    words = ["generate", str(folder), "--model", str(TINY_LFM2), "--prompt", "hi"]
    status, _, err = output(words, capsys)
    assert status == 2
    assert "the adapter's chat template is not used: for one chat it takes more than 1 seconds" in err


@pytest.mark.parametrize(
    "words",
    [["inspect", "a", NASTY], ["inspect", "a", f"--{NASTY}"], [NASTY], ["push", NASTY], [f"-{NASTY}"]],
    ids=len,
)
def test_an_error_of_usage_shows_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A shell puts names of files in place of `*`, and they may be a stranger's."""
    status, _, err = output(words, capsys)
    assert status == 2
    assert "error: " in err


def test_an_interruption_shows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    place = tmp_path / NASTY
    (place / "stages").mkdir(parents=True)
    monkeypatch.setattr(commands, "train", interrupted)
    status, _, err = output(["train", "--model", "m", "--data", "d", "--output", str(place)], capsys)
    assert status == 130
    assert "finished stages are kept in " in err


@pytest.mark.parametrize("more", [[], ["--debug"], ["--json"]], ids=str)
@pytest.mark.parametrize("kind", [ValueError, OSError, KeyError, RuntimeError, AdapterFormatError])
def test_an_error_shows_none(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[Exception],
    more: list[str],
) -> None:
    def fail(_: Any) -> None:
        raise kind(NASTY)

    monkeypatch.setattr(inspect_command, "inspect", fail)
    status, _, err = output(["inspect", "a", *more], capsys)
    assert status == 2
    assert "\\u001b[31m" in err or "\\x1b[31m" in err  # a KeyError is shown with its repr


def test_a_warning_and_a_log_show_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(_: Any) -> tuple[dict[str, str], str]:
        handler = logging.StreamHandler(sys.stderr)
        logger = logging.getLogger("a.library")
        logger.addHandler(handler)
        logger.warning("a file is called %s", NASTY, exc_info=ValueError(NASTY))
        logger.removeHandler(handler)
        warnings.warn(NASTY, UserWarning, stacklevel=1)
        return {"answer": NASTY}, NASTY

    monkeypatch.setattr(inspect_command, "inspect", talk)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, out, err = output(["inspect", "a"], capsys)
    assert out.startswith("a\\u001b[31m\\u009b2J\\u202eb")
    assert len(re.findall(r"\\u001b\[31m", err)) == 3


def test_a_strangers_colour_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours = terminal.painted("error:", "red", Terminal())  # type: ignore[arg-type]
    shown = terminal.printable(f"{ours} \x1b[31mhis\x1b[0m", Terminal())  # type: ignore[arg-type]
    assert shown == "\x1b[31merror:\x1b[0m \\u001b[31mhis\\u001b[0m"


@pytest.mark.parametrize(
    "kind",
    [AdapterDownloadError, AdapterFormatError, AdapterUploadError, DamagedDownloadError, IncompatibleModelError],
)
def test_our_errors_show_none_in_python_either(kind: type[Exception]) -> None:
    error = kind(f"the file {NASTY} is damaged")
    assert harmless(str(error))
    assert str(error).startswith("the file a\\u001b[31m")


def test_what_python_prints_of_an_adapter_shows_none(folder: str) -> None:
    adapter = ASAAdapter.from_pretrained(folder)
    assert harmless(repr(adapter))
    answer = {
        "answer": NASTY,
        "triggered": True,
        "arguments": False,
        "format": True,
        "tool_name": False,
        "errors": [NASTY],
    }
    page = Explanation(
        prompt={"tail": NASTY, "tokens": 3, "position": 2, "tools": [NASTY], "notes": [NASTY]},
        domains={NASTY: 0.5},
        p_tool=0.5,
        tau=0.5,
        gate=1,
        abstains=False,
        step={"layer": 1, "absolute": 1.0, "relative": 0.1, "state_norm": 10.0},
        start={"token": NASTY, "before": 0.1, "after": 0.2, "bias": 0.0},
        base=answer,
        steered=answer,
    )
    assert harmless(str(page))
    resemblance = Resemblance(fitted_adapter(tools=adapter.config.tools, tool_lists=("0" * 64,)).config)
    assert harmless(resemblance.other_tools([{"name": NASTY}]))


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "Wörter ☔\n\tnext",
        "自然\u3000語",
        "\U0001f468\u200d\U0001f469",
        "\u0645\u06cc\u200c\u062e",
        "no\u00a0break",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_escapes_are_those_of_json() -> None:
    text = NASTY + "\ud800\r\x00"
    assert harmless(visible(json.dumps(text, ensure_ascii=False)))
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text
