"""The command `diagnose --url`: what it says of a server, in words and as JSON."""

import json
import subprocess
import sys

import pytest
from chatty import chatty, good, words

from asa_adapter.cli.entrypoint import main


def test_it_says_that_nothing_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    with chatty(good) as url:
        assert main(["diagnose", "--url", url]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"made-up at {url}/v1: nothing found, by 16 questions\n"
    assert captured.err.splitlines()[0] == "asa-adapter: asks What is 48213 times 3779?"


def test_it_names_a_fault_with_evidence_cure_and_what_an_adapter_would_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with chatty(lambda _: words("Well.\x1b[31m")) as url:
        assert main(["diagnose", "--url", url, "--model", "mine", "--quiet"]) == 0
        text = capsys.readouterr().out
        assert main(["diagnose", "--url", url, "--model", "mine", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert (found["url"], found["model"], [fault["name"] for fault in found["faults"]]) == (
        f"{url}/v1",
        "mine",
        ["answers_instead_of_calling"],
    )
    assert text.startswith("answers_instead_of_calling\n  it answers by itself what it cannot know\n")
    flat = " ".join(text.split())
    assert "evidence: 3 of 3, such as: asked 'What is 48213 times 3779?', it said 'Well.\\u001b[31m'" in flat
    assert "cure: say in the system turn that it must not guess" in flat
    assert "an adapter: yes: whether to call is what an adapter decides" in flat
    assert f"mine at {url}/v1: 1 fault, by " in flat
    assert "Left out: repeats_a_call, since too few questions were answered with one call" in flat
    assert "\x1b" not in text + captured.out


def test_it_loads_no_model_and_no_torch() -> None:
    code = "import sys, asa_adapter.cli.diagnose_url_command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "diagnose what? --model names a model to load, --url a server to ask"),
        (["--url", "localhost"], "url is 'localhost'; expected one such as http://127.0.0.1:8000/v1"),
        (["--url", "http://127.0.0.1:9"], "http://127.0.0.1:9/v1/models did not answer: "),
    ],
)
def test_what_cannot_be_asked_is_one_line(more: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *more]) == 2
    assert capsys.readouterr().err.startswith(f"asa-adapter: error: {told}")
