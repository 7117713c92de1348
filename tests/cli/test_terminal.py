"""What the command line looks like: help, colours, narrow terminals, streams, and how little it imports."""

import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from checkout import DATA, ROOT, TINY_LFM2
from models import fitted_adapter

import asa_adapter
from asa_adapter import ASATrainingArguments
from asa_adapter.cli import inspect_command, terminal
from asa_adapter.cli.entrypoint import main
from asa_adapter.cli.option_parser import command_parser
from asa_adapter.errors import AnswerWrapper

COMMANDS = ["label", "train", "evaluate", "generate", "explain", "diagnose", "serve", "inspect", "push"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fitted_adapter(base_model="someone/" + "long-name-" * 9).save_pretrained(tmp_path / "adapter")


# --- Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_the_parser_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.replace("\\\n", " ").splitlines()
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("  asa-adapter ")]
    assert examples
    for words in examples:
        assert command_parser().parse_args(words).command == command


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert alone == capsys.readouterr().out


def test_the_options_of_train_stand_in_groups_and_every_argument_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    heads = ["options:", "what to try:", "what to choose by:", "prompts and calls:", "how to run it:"]
    places = [text.index(f"\n{head}\n") for head in heads]
    assert places == sorted(places)
    flags = [f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(ASATrainingArguments) if f.metadata]
    assert [flag for flag in flags if not re.search(rf"\n  {flag}[ ,]", text)] == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("inspect", "push")])
def test_every_command_with_a_model_says_where_and_how_it_runs(command: str) -> None:
    given = {"label": ["m", "d"], "train": ["--model", "m", "--data", "d"], "evaluate": ["a", "--data", "d"]}
    given |= {"generate": ["a", "--prompt", "p"], "explain": ["a", "--prompt", "p"], "diagnose": ["--model", "m"]}
    given |= {"serve": ["m", "--adapter", "a"]}
    output = ["--output", "o"] if command in ("label", "train") else []
    words = [command, *given[command], *output, "--device", "cpu", "--dtype", "bfloat16", "--revision", "r"]
    options = command_parser().parse_args(words)
    assert (options.device, options.dtype, options.revision) == ("cpu", "bfloat16", "r")


def test_help_explains_exit_status_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("exit status: 0 done; 2", "130", "141", "HF_HUB_OFFLINE", "NO_COLOR", *COMMANDS):
        assert word in text


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_fits_a_terminal_of_sixty_columns(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main([*command, "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"asa-adapter {asa_adapter.__version__}\n"


def test_the_version_stands_in_one_place() -> None:
    places = [
        path.relative_to(ROOT).as_posix()
        for path in [ROOT / "pyproject.toml", *(ROOT / "asa_adapter").rglob("*.py")]
        if f'"{asa_adapter.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert places == ["asa_adapter/__init__.py"]


def test_steering_and_comparing_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a", "--model", "m", "--prompt", "p", "--compare", "--no-steering"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_command_line_alone_imports_nothing_heavy() -> None:
    """As it is where `import asa_adapter` itself is light: the package is an empty one here."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('asa_adapter')\n"
        f"package.__path__, package.__version__ = [{str(Path(asa_adapter.__file__).parent)!r}], '0'\n"
        "sys.modules['asa_adapter'] = package\n"
        "from asa_adapter.cli.entrypoint import main\n"
        "assert main(['train', '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'datasets', 'skops', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- Colours


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    painted = terminal.printable(terminal.painted("x", "red", Terminal()), Terminal())
    assert painted == ("\x1b[31mx\x1b[0m" if coloured else "x")
    assert terminal.painted("x", "red", io.StringIO()) == "x"


def test_an_error_is_red_on_a_terminal_and_plain_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", str(tmp_path / "none")]
    assert main(words) == 2
    plain = capsys.readouterr().err
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    assert main(words) == 2
    assert stream.getvalue() == plain.replace("error:", "\x1b[31merror:\x1b[0m")


# --- Texts beside each other


def test_wide_terminals_show_two_columns() -> None:
    text = terminal.compared("one two " * 10, "three", ("base", "steered"), 83)
    lines = text.splitlines()
    assert lines[0] == f"{'base':<40} | steered"
    assert lines[2] == f"{'one two one two one two one two one two':<40} | three"
    assert max(map(len, lines)) <= 83


def test_markers_of_calls_are_not_broken_in_two() -> None:
    call = '<|tool_call_start|>[calculator(expression="48713 * 9264")]<|tool_call_end|><|im_end|>'
    for columns in (60, 80, 90):
        shown = terminal.compared(call, call, ("base", "steered"), columns)
        for marker in ("<|tool_call_start|>", "<|tool_call_end|>", "<|im_end|>"):
            assert shown.count(marker) == 2
        assert max(map(len, shown.splitlines())) <= columns
    assert AnswerWrapper(12).wrap("a" * 30) == ["a" * 12, "a" * 12, "a" * 6]


def test_control_characters_of_an_answer_stay_off_the_terminal() -> None:
    for columns in (60, 120):
        shown = terminal.compared("a\x1b[31m\nb", "", ("base", "steered"), columns)
        assert "\x1b" not in shown
        assert "(nothing)" in shown


def test_inspect_answers_within_a_second_and_a_half_of_cpu() -> None:
    shipped = str(ROOT / "examples" / "tiny_lfm2_asa")
    code = (
        "import os, sys\n"
        "from asa_adapter.cli.entrypoint import main\n"
        f"assert main(['inspect', {shipped!r}]) == 0\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert sum(os.times()[:2]) < 1.5, os.times()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"ASA adapter {shipped}\n")


def test_inspect_sees_damage_without_reading_the_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "probes.skops").write_bytes(b"damaged")
    assert main(["inspect", str(folder)]) == 2
    assert "probes.skops: its SHA-256 is not the one in asa_config.json" in capsys.readouterr().err


def test_inspect_folds_its_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["inspect", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 60
    assert any(line.startswith("             ") for line in lines)


# --- Streams


def test_long_work_shows_bars_on_a_terminal(few_rows: Path) -> None:
    termios = pytest.importorskip("termios", reason="there are no pseudo-terminals here")
    words = ["evaluate", str(ROOT / "examples" / "tiny_lfm2_asa"), "--model", str(TINY_LFM2), "--data", str(few_rows)]
    command = [sys.executable, "-m", "asa_adapter.cli", *words, "--max-new-tokens", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"}
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 60))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, text=True, env=environment)
    shown = os.read(reader, 1 << 20).decode()
    os.close(reader)
    os.close(writer)
    assert done.returncode == 0
    assert re.match(r"TEST, \d+ prompts \(splits: (as given|made here of .*)\)\n", done.stdout)
    for name in ("Loading weights", "answers (base, asa)"):
        assert f"{name}: 100%" in shown


def test_what_the_encoding_does_not_have_is_escaped() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert terminal.printable("\u2192 \ud800", stream) == "\\u2192 \\ud800"
    text = terminal.printable(json.dumps({"é\U0001f600": "ü"}, ensure_ascii=False), stream)
    assert text.isascii()
    assert json.loads(text) == {"é\U0001f600": "ü"}


def test_warnings_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def inspect(_: Any) -> tuple[dict[str, Any], str]:
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        return {}, "done"

    monkeypatch.setattr(inspect_command, "inspect", inspect)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["inspect", str(folder)]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("done\n", "asa-adapter: warning: two lines\n")


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    command = [sys.executable, "-m", "asa_adapter.cli", "inspect", str(folder), "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_folder_that_cannot_be_made_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    assert main(["train", "--model", "m", "--data", str(DATA), "--output", str(output)]) == 2
    assert capsys.readouterr().err == f"asa-adapter: error: cannot write into {output}: Not a directory\n"


def test_a_model_that_cannot_be_had_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "--model", "nobody/model", "--prompt", "x"]) == 2
    text = capsys.readouterr().err
    here = "there is no such folder here, and from the Hub: "
    assert text.startswith(f"asa-adapter: error: cannot load the model 'nobody/model': {here}")
    assert text.count("\n") == 1


def test_inspect_as_json_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == str(folder)


def test_the_help_of_diagnose_says_that_findings_are_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--help"]) == 0
    assert "Findings marked !! are no errors: the exit status is 0." in capsys.readouterr().out
