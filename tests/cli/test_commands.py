import argparse
import contextlib
import dataclasses
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import DATA, TINY_LFM2
from hub import LocalHub
from models import fitted_adapter

from asa_adapter import ASAAdapter, ASATrainingArguments, Decision, ToolCallParser
from asa_adapter.cli import commands, entrypoint
from asa_adapter.cli.entrypoint import main
from asa_adapter.cli.option_parser import command_parser
from asa_adapter.comparison.rules_table import ablated_metrics
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.report import Report
from asa_adapter.summary.verdict_in_words import verdict_in_words

FAST = ["--layers", "6", "--alphas", "1", "--taus", "0.5", "--betas", "1", "--finalists", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    output = tmp_path_factory.mktemp("out") / "adapter"
    words = ["train", "--model", str(TINY_LFM2), "--data", str(data), "--output", str(output), "--quiet", *FAST]
    assert main([*words, "--max-new-tokens", "64", "--seed", "5"]) == 0
    return output


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints to stderr when it ends with status 2."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_train_saves_an_adapter_with_test_numbers_in_its_card(trained: Path) -> None:
    adapter = ASAAdapter.from_pretrained(trained)
    assert adapter.config.layer == 6
    assert adapter.report is not None
    f1 = adapter.report["evaluations"]["test"]["asa"]["f1"]
    assert f"| {f1:.3f} (" in (trained / "README.md").read_text()


def test_train_ends_with_the_choice_the_calls_and_the_weak_spots_in_words(
    trained: Path, data: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages of the first run are there, so nothing is asked of the model again."""
    monkeypatch.setattr(ASAAdapter, "push_to_hub", lambda _, repo, private: f"{repo} {private}")
    words = ["train", "--model", str(TINY_LFM2), "--data", str(data), "--output", str(trained), *FAST]
    words += ["--max-new-tokens", "64", "--seed", "5", "--push", "user/a", "--private"]
    capsys.readouterr()
    assert main(words) == 0
    captured = capsys.readouterr()
    text = captured.out
    said = "\n\nThe choice, made on VALID without TEST: layer 6, a push of 1 x the norm, for or against a call on "
    said += "every prompt. Why: the gentlest"
    assert said in "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    changed = text.split("\n\nWHAT CHANGES ON TEST, with the first prompt of each kind\n")[1].split("\n\n")[0]
    assert "\nTEST\n| | precision |" in text
    assert "\n| calls | format | tool_name | arguments | success_precision | success_recall |" in text
    spots = text.split("WEAK SPOTS\n")[1].split("\n\n")[0]
    assert all(line.startswith(("- ", "  ")) for line in spots.splitlines())
    assert "expect its numbers to be some points off" in " ".join(spots.split())
    assert sum(line.startswith("- ") for line in spots.splitlines()) == 7
    assert re.search(r"\n- \d+ smaller ones are in its card$", spots)
    leads = "Worth using|Not sure yet|Better without it|Look at its calls first"
    assert re.match(rf"({leads}): of \d+ TEST prompts that need a tool", text)
    assert text.endswith(f"saved in {trained}; README.md there is its card\npushed to user/a True\n")
    told = captured.err.splitlines()
    assert told[0].startswith("asa-adapter: rows      ")
    assert [line.split()[1] for line in told if " of 7, " in line] == list("1234567")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["commit_url"] == "user/a True"
    assert found["weak_spots"]
    base, asa = found["test"]["base"], found["test"]["asa"]
    moved = {name: sum(one["label"] == 0 and one["calls"] == calls for one in found["changes"])
             for name, calls in (("new", True), ("gone", False))}  # fmt: skip
    assert asa["fp"] == base["fp"] + moved["new"] - moved["gone"]
    assert f"{moved['gone']} x needless calls are gone\n    asked  " in changed


@pytest.mark.parametrize("compare", [[], ["--compare"]], ids=["alone", "compared"])
def test_generate_says_what_the_calls_are_worth(
    trained: Path, compare: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = '<|tool_call_start|>[translator(text="a")]<|tool_call_end|>'
    (trained.parent / "tools.json").write_text(json.dumps([{"name": "lamp", "parameters": {"type": "object"}}]))
    load = commands.load_model

    def scripted(*given: Any) -> Any:
        model, tokenizer = load(*given)
        ids = tokenizer.encode(call, add_special_tokens=False, return_tensors="pt")
        model.generate = lambda prompt, **_: torch.cat([prompt, ids], dim=1)
        return model, tokenizer

    monkeypatch.setattr(commands, "load_model", scripted)
    monkeypatch.setattr(ASAAdapter, "attach", lambda *_, **__: Attached())
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "x"]
    assert main([*words, *compare, "--tools", str(trained.parent / "tools.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    fault = "a call with a fault (tool name): no such tool: translator"
    assert lines[-3:-1] == [f"base: {fault}", f"steered: {fault}"] if compare else lines[-2] == f"[{fault}]"


class Attached(contextlib.nullcontext[Any]):
    """A handle that steers nothing."""

    decisions = (Decision("general", 0.5, 0),)

    def __enter__(self) -> "Attached":
        return self

    def disabled(self) -> Any:
        return contextlib.nullcontext()


def test_diagnose_takes_a_format_and_a_template_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    words = ["diagnose", "--model", str(TINY_LFM2), "--max-new-tokens", "4", "--tool-call-format", "hermes"]
    assert main([*words, "--chat-template", str(tmp_path / "own.jinja")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "calls are written in the format 'hermes'" in text
    assert "not ready: the chat template ignores tools=" in text


def test_evaluate_prints_a_table_of_base_and_asa(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(trained), "--model", str(TINY_LFM2), "--data", str(data), "--split", "valid", "--quiet"]
    assert main([*words, "--max-new-tokens", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "VALID, 40 prompts (splits: as given)"
    assert [line.split("|")[1].strip() for line in lines[3:5]] == ["base", "asa"]
    assert [line.split("|")[1].strip() for line in lines[6:10]] == ["calls", "---", "base", "asa"]
    assert lines[10].startswith("Shares of the calls: format, can be read;")


def test_evaluate_as_json_has_every_metric(trained: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(trained), "--model", str(TINY_LFM2), "--data", str(data), "--split", "valid", "--json"]
    assert main([*words, "--max-new-tokens", "64"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert set(json.loads(captured.out)["valid"]["asa"]) >= {"n", "f1", "fpr", "per_domain", "validity"}


def test_evaluate_measures_ablations_where_asked(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answers(_self: Any, rows: Any, variants: Any, **_: Any) -> dict[str, list[str]]:
        asked.extend(variants)
        return {name: [""] * len(rows) for name in variants}

    def rules(measured: Any, adapter: Any, split: str, args: ASATrainingArguments) -> tuple[Any, dict[str, Any]]:
        assert (args.objective, args.max_new_tokens, measured.evaluation.max_new_tokens) == ("f1", 64, 64)
        row = {"metrics": measured.metrics(split, [""] * len(measured.rows(split)))}
        return ablated_metrics(measured, adapter, split, args), {"rows": {"base": row, "force": row, "steering": row}}

    monkeypatch.setattr(Evaluation, "answers_of_each", answers)
    monkeypatch.setattr(commands, "ablated_with_rules", rules)
    words = ["evaluate", str(trained), "--model", str(TINY_LFM2), "--data", str(data), "--ablations", "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    found = result["ablations"]
    assert set(found) == set(asked) - {"base", "asa", "full"}
    assert result["rules"]["rows"]["force"]["metrics"]["n"] == result["test"]["base"]["n"]
    assert main(words[:-1]) == 0
    text = capsys.readouterr().out
    table = text.split("ABLATIONS\n")[1].splitlines()
    assert table[0].endswith(" | fpr | change of F1 (95 %) |")
    assert [line.split("|")[1].strip() for line in table[2:4]] == ["asa", "no gate"]
    assert table[2].endswith(" | |")
    assert re.search(r" \| -0\.\d{3} to \+0\.\d{3} \|$", table[3])
    assert "SIMPLER RULES\n| rule | F1 |" in text
    assert {"no gate", "no router", "random direction (seed 0)"} <= set(found)


def test_ablations_of_an_abstaining_adapter_are_refused_before_any_work(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(*_: Any, **__: Any) -> dict[str, list[str]]:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(Evaluation, "answers_of_each", answers)
    fitted = ASAAdapter.from_pretrained(trained)
    config = dataclasses.replace(fitted.config, alpha=0.0)
    folder = ASAAdapter(config, fitted.vectors, fitted.router, fitted.probes).save_pretrained(tmp_path)
    words = ["evaluate", str(folder), "--model", str(TINY_LFM2), "--data", str(data), "--ablations", "--quiet"]
    assert "the adapter abstains (alpha 0)" in failure(words, capsys)


def test_inspect_shows_the_adapter_without_a_model(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(trained)]) == 0
    text = capsys.readouterr().out
    report = json.loads((trained / "report.json").read_text())
    width = json.loads((trained / "asa_config.json").read_text())["hidden_size"]
    verdict = verdict_in_words(Report.read(report), False)
    assert f"ASA adapter {trained} verdict {verdict} model tiny_lfm2 (lfm2, 8 blocks, width {width})" in " ".join(
        text.split()
    )
    assert f"| asa | {report['evaluations']['test']['asa']['precision']:.3f} |" in text
    assert "commit" not in text


def test_inspect_says_when_an_adapter_abstains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fitted_adapter(alpha=0.0).save_pretrained(tmp_path)
    assert main(["inspect", str(folder)]) == 0
    assert "steers     nothing: it abstains" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["abstains"] is True


def test_inspect_says_what_a_bias_acts_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fitted_adapter(action="bias", bias=math.inf, opening_ids=(7,)).save_pretrained(tmp_path)
    assert main(["inspect", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "steers the logits with which calls begin, by inf (read after block 2), with tau 0.5" in said
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["bias"] == "inf"


def test_inspect_obeys_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = fitted_adapter(base_model="\x1b[31mred\x07", tool_call_start="\x1b]0;title\x07")
    adapter.report = {"chosen": {"why": "\x1b[2J\u202e"}, "versions": {"\r": "\x9b"}}
    assert main(["inspect", str(adapter.save_pretrained(tmp_path))]) == 0
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().out)


@pytest.mark.parametrize("steering", [True, False])
def test_generate_answers_and_shows_the_decision(
    trained: Path, capsys: pytest.CaptureFixture[str], steering: bool
) -> None:
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "What is 4821 times 377?", "--json"]
    assert main(words if steering else [*words, "--no-steering"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"].endswith("<|im_end|>")
    if steering:
        assert set(result["decision"]) == {
            "domain",
            "p_tool",
            "gate",
            "position",
            "applied",
            "relative_step",
            "state",
            "reason",
            "action",
        }
    else:
        assert result["decision"] is None


def test_generate_compares_both_answers_where_asked(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "What is 4821 times 377?", "--compare"]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"answer", "calls", "verdict", "decision", "base"}
    assert set(result["base"]) == {"answer", "calls", "verdict"}
    assert main([*words[:-1], "--no-steering", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"].split() == result["base"]["answer"].split()


def test_generate_puts_the_answers_below_each_other_on_a_narrow_terminal(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "Hello!", "--compare"]
    monkeypatch.setenv("COLUMNS", "60")
    assert main(words) == 0
    narrow = capsys.readouterr().out.splitlines()
    assert [line for line in narrow if line in ("base", "steered")] == ["base", "steered"]
    assert max(map(len, narrow)) <= 60
    monkeypatch.setenv("COLUMNS", "100")
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["base", "|", "steered"]


def test_generate_in_words_ends_with_the_decision(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "Hello!"]
    assert main(words) == 0
    shown = capsys.readouterr().out.splitlines()[-1]
    assert main([*words, "--json"]) == 0
    assert shown == f"[{Decision(**json.loads(capsys.readouterr().out)['decision'])}]"


def test_generate_is_greedy_whatever_the_model_says(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "What is 4821 times 377?"]
    assert main(words) == 0
    greedy = capsys.readouterr().out
    model, tokenizer = commands.load_model(command_parser().parse_args([*words, "--quiet"]))
    model.generation_config.update(do_sample=True, temperature=50.0)
    monkeypatch.setattr(commands, "load_model", lambda *_: (model, tokenizer))
    assert main(words) == 0
    assert capsys.readouterr().out == greedy


def test_explain_prints_a_page_that_fits_the_terminal(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    words = ["explain", str(trained), "--model", str(TINY_LFM2), "--prompt", "What is 4821 times 377?"]
    assert main([*words, "--max-new-tokens", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("Answer, steered: ") for line in lines)


def test_explain_as_json_has_every_part(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", str(trained), "--model", str(TINY_LFM2), "--prompt", "What is 4821 times 377?", "--json"]
    assert main([*words, "--max-new-tokens", "64"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {
        *("prompt", "domain", "domains", "p_tool", "p_by_domain", "tau", "gate", "action", "step", "start"),
        *("abstains", "base", "steered"),
    }


def test_diagnose_prints_a_table_and_findings_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diagnose", "--model", str(TINY_LFM2), "--tools", str(DATA / "tools.json"), "--max-new-tokens", "8"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("!!  history") for line in lines)
    assert main([*words, "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {tuple(finding) for finding in findings} == {("name", "ok", "meaning", "cure", "checked", "blocks")}


@pytest.mark.slow
def test_prompts_of_ones_own_come_from_a_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = (TINY_LFM2 / "chat_template.jinja").read_text().replace("List of tools", "Available tools")
    (tmp_path / "own.jinja").write_text(template)
    output = tmp_path / "adapter"
    words = ["--model", str(TINY_LFM2), "--data", str(data), "--quiet", "--max-new-tokens", "64"]
    own = ["--chat-template", str(tmp_path / "own.jinja"), "--tool-call-format", "lfm2"]
    assert main(["train", "--output", str(output), *words, *own, *FAST]) == 0
    assert ASAAdapter.from_pretrained(output).config.chat_template == template
    assert main(["evaluate", str(output), "--split", "valid", *words]) == 0
    assert main(["generate", str(output), "--model", str(TINY_LFM2), "--prompt", "hi", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().err == ""


def test_a_missing_adapter_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(["generate", "nobody/nothing", "--model", str(TINY_LFM2), "--prompt", "x"], capsys)
    assert text.startswith("asa-adapter: error: cannot fetch the adapter 'nobody/nothing'")
    assert text.count("\n") == 1


def test_missing_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", str(TINY_LFM2), "--data", str(tmp_path), "--output", str(tmp_path / "o")]
    text = failure(words, capsys)
    assert "has no train.jsonl; expected cal, train, valid and test; train, validation and test; " in text
    assert text.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_missing_model_is_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(["generate", str(trained), "--model", str(tmp_path / "none"), "--prompt", "x"], capsys)
    assert text == f"asa-adapter: error: no model folder at {tmp_path / 'none'}\n"


def test_a_folder_that_holds_no_model_is_named(trained: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(["generate", str(trained), "--model", str(data), "--prompt", "x"], capsys)
    assert text.startswith(f"asa-adapter: error: cannot load the model '{data}': ")
    assert text.count("\n") == 1


def test_an_error_of_a_library_is_one_line_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(TINY_LFM2, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"short")
    text = failure(["generate", str(trained), "--model", str(broken), "--prompt", "x"], capsys)
    assert text.startswith("asa-adapter: error: SafetensorError: ")
    assert text.count("\n") == 1


def test_a_set_that_was_split_for_training_is_split_alike_for_testing(
    trained: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = []

    def splits(_source: str, seed: int) -> None:
        seeds.append(seed)
        raise ValueError("enough")

    monkeypatch.setattr(commands, "load_splits", splits)
    words = ["evaluate", str(trained), "--model", "m", "--data", "d"]
    failure(words, capsys)
    failure([*words, "--seed", "7"], capsys)
    report = json.loads((trained / "report.json").read_text())
    assert seeds == [report["arguments"]["seed"], 7] == [5, 7]


@pytest.mark.parametrize("arguments", [[], "x", {"seed": "5"}, {"seed": True}, {"seed": -1}, None], ids=repr)
def test_a_strangers_report_without_a_seed_gives_the_default(arguments: Any) -> None:
    adapter = fitted_adapter()
    adapter.report = {"arguments": arguments}
    assert commands._split_seed(argparse.Namespace(seed=None), adapter) == 42


def test_a_missing_tools_file_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(trained), "--model", str(TINY_LFM2), "--prompt", "x", "--tools", "none.json"]
    assert "no tools file at none.json" in failure(words, capsys)


def test_an_unknown_split_is_named(trained: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(trained), "--model", str(TINY_LFM2), "--data", str(data), "--split", "dev"]
    assert "split is 'dev'; expected one of cal, train, valid, test" in failure(words, capsys)


def test_a_wrong_setting_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", str(TINY_LFM2), "--data", str(DATA), "--output", str(tmp_path / "o")]
    assert "taus holds 0.2; expected 0.5 to 1" in failure([*words, "--taus", "0.2"], capsys)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "words", [["fly"], ["train"], ["generate", "a", "--model"], ["generate", "a", "--max-new-tokens", "0"]]
)
def test_bad_usage_ends_with_status_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: asa-adapter" in failure(words, capsys)


def test_debug_prints_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", "m", "--data", str(tmp_path), "--output", str(tmp_path / "o"), "--debug"]
    assert "Traceback" in failure(words, capsys)


def test_half_a_surrogate_pair_in_a_call_is_printed_as_json() -> None:
    [call] = ToolCallParser("hermes").parse('<tool_call>{"name": "say", "arguments": {"text": "\\ud800 ☔"}}')
    printed = entrypoint._json_text(call.arguments)
    assert printed == '{"text": "\\ud800 ☔"}'
    assert json.loads(printed) == call.arguments


def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "load_splits", interrupted)
    assert main(["train", "--model", "m", "--data", "d", "--output", "o"]) == 130
    assert capsys.readouterr().err == "asa-adapter: interrupted; nothing was saved\n"


@pytest.mark.parametrize(
    ("stop", "what", "status"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "stopped", 143)]
)
def test_a_signal_says_what_is_kept_and_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: signal.Signals,
    what: str,
    status: int,
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        (tmp_path / "stages").mkdir()
        signal.raise_signal(stop)

    monkeypatch.setattr(commands, "load_splits", stopped)
    before = signal.getsignal(stop)
    assert main(["train", "--model", "m", "--data", "d", "--output", str(tmp_path)]) == status
    kept = f"finished stages are kept in {tmp_path / 'stages'}: run the same command to go on"
    assert capsys.readouterr().err == f"asa-adapter: {what}; {kept}\n"
    assert signal.getsignal(stop) is before


def test_in_another_thread_no_signal_is_handled(capsys: pytest.CaptureFixture[str]) -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(main(["inspect", "no/such/folder/here"])))
    thread.start()
    thread.join()
    assert statuses == [2]
    assert "no/such/folder/here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["label"],
        ["train"],
        ["evaluate"],
        ["generate"],
        ["explain"],
        ["diagnose"],
        ["serve"],
        ["inspect"],
        ["push"],
    ],
)
def test_help_is_printed(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: asa-adapter")


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "asa_adapter.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "train" in done.stdout


@pytest.mark.parametrize(
    "chosen_by",
    [
        {"objective": "balanced_accuracy"},
        {"max_fpr": 0.1, "max_fpr_confidence": 0.9},
        {"cost": [1.0, 4.0]},
    ],
    ids=lambda chosen_by: next(reversed(chosen_by)),
)
def test_simpler_rules_choose_by_what_the_adapter_was_chosen_by(chosen_by: dict[str, Any]) -> None:
    adapter = fitted_adapter()
    adapter.report = {"arguments": chosen_by}
    options = argparse.Namespace(max_new_tokens=8, batch_size=2, quiet=True, json=False)
    found = dataclasses.asdict(commands._evaluation_arguments(options, adapter))
    expected = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen_by.items()}
    assert {name: found[name] for name in chosen_by} == expected
