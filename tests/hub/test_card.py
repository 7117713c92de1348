import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from card_rules import asks_the_endpoint, metadata_errors
from hub import LocalHub
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from asa_adapter import ASAConfig, ASATrainingArguments
from asa_adapter.evaluation.metrics import trigger_metrics
from asa_adapter.hub.card import model_card
from asa_adapter.report import Report
from asa_adapter.summary.markdown import escaped, metrics_table
from asa_adapter.summary.verdict_in_words import verdict_in_words

RATIOS = ("precision", "recall", "f1", "accuracy", "fpr")
SHA = "0123456789ab" + "c" * 52


def config(**changes: Any) -> ASAConfig:
    fields: dict[str, Any] = {
        "hidden_size": 8,
        "num_layers": 4,
        "layer": 2,
        "domains": ("code", "math"),
        "alpha": 0.5,
        "residual_norm": 4.0,
        "tau": 0.8,
        "beta": 0.25,
        "base_model": "LiquidAI/LFM2.5-1.2B-Instruct",
        "model_type": "lfm2",
        "tool_call_start": "<|tool_call_start|>",
        "tool_call_end": "<|tool_call_end|>",
        "chat_template_sha256": SHA,
        "tools": [
            {"name": "calculator", "description": "Computes."},
            {"type": "function", "function": {"name": "run_code"}},
        ],
        **changes,
    }
    return ASAConfig(**fields)


# label, domain, whether the model alone began a call, whether the steered one did; 12 prompts
ROWS = [
    (1, "math", 0, 1), (1, "math", 0, 1), (1, "math", 1, 1), (0, "math", 1, 0), (0, "math", 1, 1), (0, "math", 0, 0),
    (1, "code", 1, 0), (1, "code", 1, 1), (1, "code", 1, 1), (0, "code", 0, 0), (0, "code", 0, 1), (0, "code", 0, 0),
]  # fmt: skip
CHECKS = [{"format": i % 2 == 0, "tool_name": i % 3 != 0, "arguments": i % 4 < 3} for i in range(len(ROWS))]
INTERVALS = {
    "base": {ratio: [0.01 * i, 0.5 + 0.01 * i] for i, ratio in enumerate(RATIOS, start=1)},
    "asa": {ratio: [0.02 * i, 0.6 + 0.02 * i] for i, ratio in enumerate(RATIOS, start=1)},
    "gain": {ratio: [-0.03 * i, 0.3 + 0.03 * i] for i, ratio in enumerate(RATIOS, start=1)},
}


def report(**changes: Any) -> dict[str, Any]:
    labels, domains, base, asa = (list(column) for column in zip(*ROWS, strict=True))
    arguments = {"layers": [1, 2], "alphas": [0.5, 1.0], "seed": 7, "output_dir": "somewhere", "progress": False}
    return {
        "splits": {"train": {"rows": 320, "tool_needed": 150}},
        "layers": {"2": {"probe_auc": 0.7123, "shuffled_auc": 0.3877}, "3": {"probe_auc": 0.9}},
        "chosen": {"why": "the best of 4 finalists"},
        "evaluations": {
            "test": {
                "base": trigger_metrics(labels, base, domains, CHECKS),
                "asa": trigger_metrics(labels, asa, domains, CHECKS),
                "intervals": INTERVALS,
                "mcnemar_p": 0.0412,
            }
        },
        "ablations": {"no gate": trigger_metrics(labels, [1] * 12), "random": trigger_metrics(labels, base)},
        "arguments": arguments,
        "versions": {"torch": "2.13.0"},
        "metadata": {
            "license": "apache-2.0", "datasets": ["user/prompts"], "language": "en", "labels": "keyword rules",
            "data_license": "CC BY-NC 4.0",
        },
        **changes,
    }  # fmt: skip


def card(config: ASAConfig, report: Any, repo_id: str | None = None, plots: Sequence[str] = ()) -> str:
    return model_card(config, Report.read(report), repo_id, plots)


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, its head first."""
    found: list[list[list[str]]] = [[]]
    for line in body(text).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [[rows[0], *rows[2:]] for rows in found if rows]


def table_of(text: str, *head: str) -> dict[str, list[str]]:
    """Cells by the first of each row, of the table whose head begins so."""
    [found] = [rows for rows in tables(text) if rows[0][: len(head)] == list(head)]
    return {row[0]: row[1:] for row in found[1:]}


# --- every number, recomputed from the rows


def ratios(which: int, domain: str | None = None) -> list[float]:
    """Precision, recall, F1, accuracy and FPR of a column of ROWS, written out once more."""
    rows = [(row[0], row[which]) for row in ROWS if domain in (None, row[1])]
    tp, fp, fn, tn = (rows.count(pair) for pair in ((1, 1), (0, 1), (1, 0), (0, 0)))
    return [tp / (tp + fp), tp / (tp + fn), tp / (tp + (fp + fn) / 2), (tp + tn) / len(rows), fp / (fp + tn)]


def cells(numbers: list[float]) -> list[str]:
    return [f"{number:.3f}" for number in numbers]


def with_intervals(numbers: list[float], key: str, sign: str = "") -> list[str]:
    pairs = [INTERVALS[key][ratio] for ratio in RATIOS]
    return [
        f"{number:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
        for number, (low, high) in zip(numbers, pairs, strict=True)
    ]


def test_its_overall_numbers_are_those_of_the_rows_with_intervals() -> None:
    gain = [asa - base for base, asa in zip(ratios(2), ratios(3), strict=True)]
    assert table_of(card(config(), report()), "", "precision", "recall") == {
        "the model alone": with_intervals(ratios(2), "base"),
        "with ASA": with_intervals(ratios(3), "asa"),
        "gain": with_intervals(gain, "gain", sign="+"),
    }


def test_without_intervals_the_numbers_stand_alone() -> None:
    plain = report()
    del plain["evaluations"]["test"]["intervals"], plain["evaluations"]["test"]["mcnemar_p"]
    text = card(config(), plain)
    assert table_of(text, "", "precision", "recall") == {
        "the model alone": cells(ratios(2)),
        "with ASA": cells(ratios(3)),
    }
    assert "95 % intervals" not in text
    assert "McNemar" not in text


def test_its_numbers_by_domain_are_those_of_the_rows() -> None:
    expected = {}
    for domain in ("code", "math"):
        base, asa = ratios(2, domain), ratios(3, domain)
        expected[domain] = ["6", *cells([base[2], asa[2], base[4], asa[4]])]
    assert table_of(card(config(), report()), "domain") == expected


def test_its_numbers_on_calls_are_those_of_the_rows() -> None:
    expected = {}
    for name, which in (("the model alone", 2), ("with ASA", 3)):
        called = [(row[0], check) for row, check in zip(ROWS, CHECKS, strict=True) if row[which]]
        good = sum(label and all(check.values()) for label, check in called)
        shares = [sum(check[key] for _, check in called) for key in ("format", "tool_name", "arguments")]
        expected[name] = cells([*(n / len(called) for n in shares), good / len(called), good / 6])
    assert table_of(card(config(), report()), "", "can be read") == expected


def test_gold_calls_have_a_column_where_both_were_measured() -> None:
    test = report()["evaluations"]["test"]
    gold = {"n": 6, "match": 0.1667, "in_order": 0.1}
    both = {"base": {**test["base"], "gold": {**gold, "match": 0.0}}, "asa": {**test["asa"], "gold": gold}}
    found = table_of(card(config(), report(evaluations={"test": both})), "", "can be read")
    assert [row[-1] for row in found.values()] == ["0.000", "0.167"]
    half = {"base": test["base"], "asa": both["asa"]}
    assert "the gold calls" not in card(config(), report(evaluations={"test": half}))


def test_prompts_of_another_template_say_how_to_attach() -> None:
    text = card(config(chat_template="{{ messages }}"), report())
    assert "set `tokenizer.chat_template = adapter.config.chat_template`" in text
    assert "the model's own chat template" not in text


def test_its_ablations_are_those_of_the_report() -> None:
    sure = {"intervals": {"gain": {"f1": [-0.1, 0.05]}}}
    variants = {"full": {}, "no gate": {"against_full": sure}, "random": {}}
    labels, _, base, asa = (list(column) for column in zip(*ROWS, strict=True))
    called = {"full": asa, "no gate": [1] * 12, "random": base}
    found = {name: trigger_metrics(labels, called[name]) | more for name, more in variants.items()}
    text = card(config(), report(ablations={"base": trigger_metrics(labels, base), **found}))
    assert table_of(text, "variant") == {
        "with ASA": [*cells(ratios(3)), ""],
        "no gate": [*cells([0.5, 1.0, 2 / 3, 0.5, 1.0]), "-0.100 to +0.050"],
        "random": [*cells(ratios(2)), ""],
    }


def test_it_says_whether_steering_is_worth_it_beside_simpler_rules() -> None:
    test = report()["evaluations"]["test"]
    sure = {"intervals": INTERVALS, "mcnemar_p": 0.0412}
    rows = {name: {"metrics": test[part]} for name, part in (("force", "base"), ("steering", "asa"))}
    found = {"rows": rows, "best": "force", "steering_against_best": sure}
    text = card(config(), report(rules=found))
    assert "### Against simpler rules\n\n**Steering and a simpler rule are not told apart here: F1 is" in text
    assert list(table_of(text, "rule")) == ["`force`", "with ASA"]
    assert "simpler rules" not in card(config(), report())


def test_its_settings_are_those_of_the_config() -> None:
    assert list(table_of(card(config(), report()), "setting").values()) == [
        ["2, of 0 to 3"], ["0.5"], ["2"], ["0.8"], ["0.25"], ["one for each domain"],
    ]  # fmt: skip


def test_its_metadata_has_the_results() -> None:
    data = ModelCard(card(config(), report(), "user/x")).data
    assert {result.metric_type: result.metric_value for result in data.eval_results or []} == {
        ratio: round(value, 4) for ratio, value in zip(RATIOS, ratios(3), strict=True)
    }
    [result, *_] = data.eval_results or []
    assert (result.dataset_type, result.dataset_split, data.model_name) == ("user/prompts", "test", "x")


@pytest.mark.parametrize(
    ("base_model", "name"), [("tiny_lfm2", "ASA for tiny_lfm2"), (None, "ASA for an unnamed model")]
)
def test_without_a_repository_its_results_carry_the_base_models_name(base_model: str | None, name: str) -> None:
    assert ModelCard(card(config(base_model=base_model), report())).data.model_name == name


def test_its_headline_is_the_verdict_on_test() -> None:
    verdict = verdict_in_words(Report.read(report()), False)
    assert verdict is not None
    assert f"\n**{verdict}**\n" in card(config(), report())
    assert verdict not in card(config(alpha=0.0), report())


SAMPLE = {"prompt": "What is 2 | 3?", "base": "It is\n<b>6</b>. " + "x" * 300, "asa": ""}


@pytest.mark.parametrize(
    ("changed", "which"),
    [(3, "changed for 3 whether a call begins; this is the first of those where it did."),
     (0, "changed for 0 whether a call begins; this is the first of them.")],
)  # fmt: skip
def test_it_opens_with_a_sample_prompt_before_and_after(changed: int, which: str) -> None:
    text = card(config(), report(demonstration={"asked": 12, "changed": changed, "shown": SAMPLE}))
    assert table_of(text, "", "What is 2 \\| 3?") == {
        "the model alone": [f"`It is <b>6</b>. {'x' * 184}…`"],
        "with ASA": ["(nothing)"],
    }
    assert "Of 12 sample prompts that come with the package, whatever the tools are, it " + which in text
    assert text.index("What is 2") < text.index("## Use")


def test_an_adapter_without_samples_or_that_abstains_shows_none() -> None:
    assert "sample prompts" not in card(config(), report())
    found = report(demonstration={"asked": 12, "changed": 0, "shown": SAMPLE})
    assert "sample prompts" not in card(config(alpha=0), found)


def test_no_other_number_stands_in_it() -> None:
    prose = [line for line in body(card(config(base_model="user/model"), report())).splitlines() if line[:1] != "|"]
    text = re.sub(r"```.*?```|`[^`]*`|\(http[^)]*\)", "", "\n".join(prose), flags=re.DOTALL)
    expected = {
        "2602.04935": "the paper", "12": "TEST prompts",
        "6": "prompts that need a tool, and that need none", "2": "of these got a call", "95": "percent",
        f"{upper_bound(2, 6):.3f}": "what their share may be", "0.0412": "McNemar", "4": "finalists", "4.0": "CC BY",
        "0.712": "AUC", "0.388": "AUC of the control", "0.5": "what the control should be", "320": "TRAIN prompts",
        f"{ratios(2)[2]:.3f}": "F1 alone", f"{ratios(3)[2]:.3f}": "F1 with ASA",
        "5": "of 6 that get a call with ASA", "0.090": "F1's gain", "0.390": "at most",
        f"{ratios(2, 'code')[2]:.3f}": "F1 in code, alone", f"{ratios(3, 'code')[2]:.3f}": "F1 in code, with ASA",
        f"{good_calls():.3f}": "success precision", "2.13.0": "torch",
    }  # fmt: skip
    assert set(re.findall(r"(?<![A-Za-z_\d.])\d+(?:\.\d+)*(?![A-Za-z\d])", text)) == set(expected)


def upper_bound(successes: int, trials: int) -> float:
    """Wilson's one-sided 95 % bound, written out once more."""
    z, p, n = 1.6448536269514722, successes / trials, trials
    return (p + z * z / (2 * n) + z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5) / (1 + z * z / n)


def good_calls() -> float:
    """Share of the steered calls that were needed and passed every check."""
    called = [row[0] and all(check.values()) for row, check in zip(ROWS, CHECKS, strict=True) if row[3]]
    return sum(called) / len(called)


# --- its parts


def test_the_hub_client_reads_its_metadata() -> None:
    data = ModelCard(card(config(), report())).data.to_dict()
    assert data["base_model"] == "LiquidAI/LFM2.5-1.2B-Instruct"
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "asa-adapter"
    assert data["pipeline_tag"] == "text-generation"
    assert {"activation-steering", "tool-calling"} <= set(data["tags"])
    assert (data["license"], data["datasets"], data["language"]) == ("apache-2.0", ["user/prompts"], ["en"])


@asks_the_endpoint
def test_the_hub_client_loads_and_the_hub_accepts_it(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card(config(), report()))
    ModelCard.load(tmp_path / "README.md").validate()
    hub.add("alice/x", {"README.md": (tmp_path / "README.md").read_bytes()})
    ModelCard.load("alice/x").validate()
    assert [request.path for request in hub.log if request.method == "POST"] == 2 * ["/api/validate-yaml"]


def test_what_is_not_known_is_not_in_its_metadata() -> None:
    data = ModelCard(card(config(base_model=None), None)).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}


@pytest.mark.parametrize("name", ["/home/me/model", "model", "a/b/c", "a/b\n", "-x/y"])
def test_a_local_path_is_not_given_out_as_a_base_model(name: str) -> None:
    data = ModelCard(card(config(base_model=name), None)).data.to_dict()
    assert "base_model" not in data
    assert "base_model_relation" not in data


def test_without_a_report_it_says_that_nothing_was_measured() -> None:
    text = card(config(), None)
    assert "Nothing was measured: the adapter came without a report." in text
    assert "How these were chosen is not recorded." in text
    assert "How it was fitted is not recorded." in text


def test_an_adapter_that_biases_logits_says_so() -> None:
    assert "adds\none vector to that state; the model" in card(config(), report())
    text = card(config(action="bias", bias=math.inf, opening_ids=(7,)), report())
    assert "adds\na bias to the logits of the tokens with which calls begin; the model" in text
    assert "| bias of the logits with which calls begin | inf |" in text
    assert "| length of the step | 0 |" in text


def test_an_abstaining_adapter_says_so_first() -> None:
    lines = body(card(config(alpha=0), report())).strip().splitlines()
    assert lines[0].endswith("(abstains: it changes nothing)")
    assert lines[2].startswith("**This adapter abstains:")
    opening = next(line for line in lines if line.startswith("An Activation Steering Adapter"))
    assert opening.endswith(", fitted so")
    text = "\n".join(lines)
    assert "that the model would call tools when they are needed, and only then. No gain was sure, so it reads" in text
    assert "it makes\nthe model call tools" not in text
    assert "abstains" not in card(config(), report())
    assert "it makes\nthe model call tools" in card(config(), report())


def test_triggers_that_gain_without_calls_that_succeed_are_said_first() -> None:
    note = "With this adapter the model calls tools better, but no gain in calls that succeed is sure: F1 | 0"
    lines = body(card(config(), report(valid={"success_note": note}))).strip().splitlines()
    assert lines[2] == "**{}**".format(note.replace("|", r"\|"))
    assert "With this adapter the model calls" not in card(config(), report())


def test_answers_that_were_cut_have_a_column_and_are_a_weak_spot_above_five_percent() -> None:
    comparison = report()["evaluations"]["test"]
    for share, named in ((0.05, False), (0.0833, True)):
        parts = {name: {**comparison[name], "cut": 1, "cut_share": share} for name in ("base", "asa")}
        text = card(config(), report(evaluations={"test": {**comparison, **parts}}))
        assert f"| {share:.3f} |" in text
        assert "cut short: of all answers, those that ran out of tokens before a call was complete" in text
        assert ("- Up to 8 % of the answers on TEST ran out of tokens" in text) is named
    assert "cut short" not in card(config(), report())


def test_what_to_copy_names_model_and_repository() -> None:
    text = card(config(), report(), "user/my_adapter")
    assert 'ASAAdapter.from_pretrained("user/my_adapter")' in text
    assert 'AutoModelForCausalLM.from_pretrained("LiquidAI/LFM2.5-1.2B-Instruct")' in text


def test_what_to_copy_is_python() -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", card(config(), None), re.DOTALL)
    compile(snippet, "card", "exec")


def test_tools_and_prompt_format_are_named() -> None:
    text = card(config(), report())
    assert "- `calculator`: Computes.\n- `run_code`\n" in text
    fitted = table_of(text, "", "")
    assert fitted["a call is written as"] == [r"`<\|tool_call_start\|>` … `<\|tool_call_end\|>`"]
    assert fitted["prompts"][0].startswith("the model's own chat template (SHA-256 0123456789ab…")


HABIT = {"answers": 8, "calls": 5, "shares": {"json": 0.8, "hermes": 0.2}, "shown": "hermes", "differs": False}


def test_the_formats_of_the_models_calls_are_named_with_their_shares() -> None:
    text = card(config(tool_call_format="json", forms=("json", "hermes")), report(habit=HABIT))
    formats = table_of(text, "", "")["formats of its calls"]
    assert formats == ["`json` 80%, `hermes` 20% of 5 calls of the model alone"]
    assert "where a call begins anywhere in the answer" in text
    assert "What serves it" not in text
    without = table_of(card(config(forms=("json", "hermes")), None), "", "")
    assert without["formats of its calls"] == ["`json`, `hermes`"]
    assert "formats of its calls" not in table_of(card(config(), report(habit={**HABIT, "calls": 0})), "", "")


def test_what_serves_the_model_is_told_to_read_calls_that_its_template_does_not_show() -> None:
    made = config(tool_call_format="json", tool_call_start=None, tool_call_end=None)
    habit = {**HABIT, "shares": {"json": 1.0}, "differs": True}
    text = card(made, report(habit=habit))
    assert table_of(text, "", "")["a call is written as"] == ["JSON"]
    assert (
        "**The model's calls hardly ever come in the format that its chat template shows (`hermes`). What serves it "
        "must read `json` too; `adapter.parser(tokenizer)` does.**"
    ) in text
    assert "What serves it" not in card(config(tool_call_format="hermes"), report(habit=habit))


@pytest.mark.parametrize(
    "habit", [{"calls": "5"}, {"calls": 5, "shares": []}, {"calls": 5, "shares": {"json": 2}}, [], {"calls": -1}]
)
def test_a_habit_that_is_not_sound_is_left_out(habit: Any) -> None:
    assert Report.read(report(habit=habit)).habit == {}


def test_many_tools_are_shortened() -> None:
    text = card(config(tools=[{"name": f"tool{i}"} for i in range(25)]), None)
    assert "- `tool19`\n- and 5 more, in `asa_config.json`\n" in text


def test_tools_that_differ_are_said_to() -> None:
    text = card(config(tools=None), None)
    assert "Each prompt offered its own tools." in text
    assert "tools=tools,  # your JSON-schema tools" in text


def test_plots_are_shown_where_they_are() -> None:
    text = card(config(), report(), plots=["auc_per_layer.png", "a b](x).png", "../../x.png"])
    assert re.findall(r"!\[.*", text) == ["![auc per layer](plots/auc_per_layer.png)"]


def test_it_says_how_to_fit_it_again() -> None:
    expected = (
        "asa-adapter train --model LiquidAI/LFM2.5-1.2B-Instruct --data my_data --output my_adapter "
        "--alphas 0.5 1.0 --layers 1 2 --seed 7\n"
    )
    assert expected in card(config(), report())


def test_the_command_to_fit_it_again_gives_the_same_arguments() -> None:
    from asa_adapter.cli.option_parser import command_parser

    text = card(config(), report())
    [words] = re.findall(r"^asa-adapter (train .*)$", text, re.MULTILINE)
    options = vars(command_parser().parse_args(words.split()))
    given = ASATrainingArguments(**report()["arguments"])
    assert {name: tuple(options[name]) for name in ("layers", "alphas")} == {
        "layers": given.layers,
        "alphas": given.alphas,
    }
    assert options["seed"] == given.seed


@pytest.mark.parametrize(
    "arguments", [{"success_required": True, "cost": [1.0, 4.0]}, {"max_fpr": 0.1, "max_fpr_confidence": 0.9}]
)
def test_flags_without_a_value_or_with_two_are_given_again(arguments: dict[str, Any]) -> None:
    from asa_adapter.cli.option_parser import command_parser

    [words] = re.findall(r"^asa-adapter (train .*)$", card(config(), report(arguments=arguments)), re.MULTILINE)
    options = vars(command_parser().parse_args(words.split()))
    assert {name: options[name] for name in arguments} == arguments


@pytest.mark.parametrize(("given", "word"), [(True, "--vary-tools"), (False, "--no-vary-tools"), (None, "")])
def test_a_switch_is_written_as_the_command_line_takes_it(given: bool | None, word: str) -> None:
    from asa_adapter.cli.option_parser import command_parser

    text = card(config(), report(arguments={"seed": 7, "vary_tools": given}))
    [words] = re.findall(r"^asa-adapter (train .*)$", text, re.MULTILINE)
    assert words.endswith(f"--seed 7 {word}".strip())
    assert command_parser().parse_args(words.split()).vary_tools is given


def test_arguments_that_the_command_line_lacks_are_given_in_python() -> None:
    text = card(config(), report(arguments={"Cs": [0.1], "objective": "balanced_accuracy"}))
    assert "ASATrainingArguments(Cs=(0.1,), objective='balanced_accuracy'))" in text
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(snippet, "card", "exec")


@pytest.mark.parametrize("arguments", [{}, {"alphas": "x"}, {"seed": -1}, {"layers": {"a": 1}}, []])
def test_arguments_that_are_none_are_left_out(arguments: Any) -> None:
    assert "How it was fitted is not recorded." in card(config(), report(arguments=arguments))


# --- weak spots


@pytest.mark.parametrize(
    "sentence",
    [
        "In the domain code it does worse than the model alone: F1 0.667 against 1.000.",
        "Its weakest domain is code, with F1 0.667.",
        "Few TEST prompts stand behind the numbers of these domains: code (6), math (6).",
        "TEST has 12 prompts only: expect its numbers to be some points off.",
        "2 of the 6 TEST prompts that need no tool still got a call; with so many prompts, the true rate is below "
        f"{upper_bound(2, 6):.3f} with 95 % confidence.",
        f"A call that begins is not yet a good call: {good_calls():.3f} of those on TEST were needed",
        "The need for a tool is hard to read at its layer: the probe's AUC on VALID is 0.712.",
        "A probe for shuffled labels has an AUC of 0.388 there, which should be 0.5",
        "are fitted on 320 labelled prompts (labelled by keyword rules)",
        "The data's licence: CC BY-NC 4.0.",
    ],
)
def test_a_weak_spot_is_named(sentence: str) -> None:
    assert sentence in card(config(), report()).partition("## Limits and weak spots")[2]


def test_the_rows_of_cal_count_where_probes_are_fitted_on_them_too() -> None:
    splits = {name: {"rows": rows, "tool_needed": 21} for name, rows in (("cal", 42), ("train", 43), ("valid", 24))}
    assert "are fitted on 43 labelled prompts" in card(config(), report(splits=splits))
    told = {"fitted": False, "why": "asked for"}
    assert "are fitted on 85 labelled prompts" in card(config(), report(splits=splits, vary_tools=told))
    again = {"rows": 109, "judged": "0" * 64}
    assert "are fitted on 109 labelled prompts" in card(config(), report(splits=splits, vary_tools=told, refit=again))


def test_it_is_told_which_fit_the_figures_on_valid_are_of() -> None:
    told = (
        "fitted once more, with VALID's rows too: figures on VALID are of the fit before, those on TEST of this one."
    )
    assert told in card(config(), report(refit={"rows": 109, "judged": "0" * 64}))
    assert "once more" not in card(config(), report())


def test_a_loss_is_named() -> None:
    swapped = report()
    test = swapped["evaluations"]["test"]
    test["base"], test["asa"] = test["asa"], test["base"]
    text = card(config(), swapped)
    (_, good_recall, good_f1, *_), (_, bad_recall, bad_f1, *_) = cells(ratios(3)), cells(ratios(2))
    assert f"On TEST it does worse than the model alone: F1 {bad_f1} against {good_f1}." in text
    assert f"needed than the model alone: recall {bad_recall} against {good_recall} on TEST." in text


def test_a_strong_adapter_is_not_talked_down() -> None:
    labels = [1, 0] * 150
    good = trigger_metrics(labels, labels, ["a", "b"] * 150)
    strong = report(layers={"2": {"probe_auc": 0.99, "shuffled_auc": 0.51}})
    strong["evaluations"]["test"] = {"base": trigger_metrics(labels, [1] * 300, ["a", "b"] * 150), "asa": good}
    text = card(config(), strong)
    for words in ("worse than", "misses more", "Few TEST", "prompts only", "hard to read", "shuffled labels has"):
        assert words not in text


# --- other lists of tools


def gates(right: float = 0.8, lost: int = 2, won: int = 1, **changes: Any) -> dict[str, Any]:
    shares = {"right": right, "given_right": 0.85, "called": 0.4, "given_called": 0.45}
    return {"rows": 120, "left_out": 0, "lost": lost, "won": won, **shares, **changes}


def test_gates_with_other_lists_of_tools_are_shown_for_test_and_else_for_valid() -> None:
    valid, test = {"wrapped": gates(0.7)}, {"wrapped": gates(), "without": gates(0.75), "other": gates()}
    text = card(config(), report(variations={"valid": valid, "test": test}))
    section = text.partition("### With other lists of tools")[2].partition("\n#")[0]
    assert "Its gate on TEST," in section
    assert "were fitted on" not in section
    [table] = [found for found in tables(text) if "gate right" in found[0]]
    assert table[1:] == [
        ["wrapped otherwise", "120", "0.800", "0.850", "0.400", "0.450"],
        ["without the needed one", "120", "0.750", "0.850", "0.400", "0.450"],
    ]
    fitted = {"fitted": True, "rows": 320, "taken_away": 86}
    text = card(config(), report(variations={"valid": valid}, vary_tools=fitted))
    assert "Its gate on VALID," in text
    assert "fitted on 320 prompts with varied tools too, 86 of them without the one that is needed." in text
    assert "With other lists" not in card(config(), report(variations={"valid": {"wrapped": {"rows": 3}}}))


def test_lists_by_which_the_gate_falls_by_more_than_noise_are_weak_spots() -> None:
    def weak(**varied: Any) -> str:
        return card(config(), report(variations={"test": varied})).partition("## Limits and weak spots")[2]

    falls = weak(wrapped=gates(0.77, lost=12, won=3), shuffled=gates(lost=8, won=3), thinned=gates(lost=0, won=0))
    assert (
        "With tools that are wrapped otherwise (such as servers render them) its gate is right on 0.770 of 120 TEST "
        "prompts, against 0.850 with the tools as they were given."
    ) in falls
    assert "another order" not in falls
    assert "hardly more" not in falls
    blind = weak(without=gates(0.3, lost=60, won=5, called=0.7, given_called=0.82))
    assert (
        "without the tool that is needed its gate is still +1 on 0.700 of 120 TEST prompts (0.820 with it)." in blind
    )


# --- strangers' strings

HOSTILE = [
    "<script>alert(1)</script>", "a|b", "[x](http://y)", "`{{ config }}`", "{% for x in y %}", "![x](http://y/z.png)",
    "http://evil.example", "www.evil.example", "&#x202e;txt", "**bold**", "@everyone", "$$x$$", "# not a title",
    "- item", "+ item", "1. item", "-", "---", "=",
]  # fmt: skip


MARKDOWN = MarkdownIt("commonmark").enable("table")


def structure(text: str) -> list[str]:
    """Every block, cell, link, image, tag and emphasis of a card, without its texts."""
    found = []
    for token in MARKDOWN.parse(body(text)):
        found.append(f"{token.type} {token.info}")
        found += [child.type for child in token.children or [] if child.type not in ("text", "code_inline")]
    return found


def card_of(domain: str, model: str, marker: str, tool: str, why: str, split: str, plot: str) -> str:
    """A card with such strings wherever somebody else's can stand."""
    metrics = trigger_metrics([1, 0], [1, 1], [domain] * 2)
    found = report(chosen={"why": why}, versions={tool: why}, ablations={split: metrics})
    found["evaluations"] = {split: {"base": metrics, "asa": metrics}}
    found["metadata"] = {"labels": why, "data_license": tool, "license": model, "datasets": [model]}
    tools = [{"name": tool, "description": why}]
    settings = config(domains=(domain,), base_model=model, tool_call_start=marker, tools=tools)
    return card(settings, found, plots=[plot])


PLAIN = structure(card_of("math", "a model", "<call>", "calculator", "because", "dev", "no plot"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_string_stays_text(text: str) -> None:
    assert structure(card_of(text, text, text, text, text, text, text)) == PLAIN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://evil.example", r"https\://evil.example"),
        ("see WWW.evil.example", r"see WWW\.evil.example"),
        ("me@evil.example", r"me\@evil.example"),
        ("$$x$$", r"\$\$x\$\$"),
        ("&#x202e;", r"&amp;\#x202e;"),
        ("a\n---\nb\u202ec", "a --- b c"),
        ("- item", r"\- item"),
        ("12) item", r"12\) item"),
        ("1. item", r"1\. item"),
        ("     code", "code"),
        ("2.13.0", "2.13.0"),
    ],
)
def test_what_richer_markdown_would_make_something_of_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


anything = st.text(min_size=1, max_size=40)
names = anything.filter(lambda text: text.isprintable() and text == text.strip())


paths_only = anything.filter(lambda text: "/" not in text)  # "user/model" becomes a link, as it should


@given(domain=names, model=paths_only, marker=anything, tool=anything, why=anything, split=anything, plot=anything)
@settings(max_examples=100, deadline=None)
def test_no_string_changes_the_cards_structure(**strings: str) -> None:
    card = card_of(**strings)
    assert metadata_errors(card) == []
    assert structure(card) == PLAIN


def test_no_line_of_a_template_is_left() -> None:
    text = card(config(), report())
    assert "{{" not in text
    assert "{%" not in text


# --- a report may hold anything

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
paths = [
    ("splits",), ("splits", "train"), ("splits", "train", "rows"), ("layers",), ("layers", "2"),
    ("layers", "2", "probe_auc"), ("chosen",), ("chosen", "why"), ("evaluations",), ("evaluations", "test"),
    ("evaluations", "test", "base"), ("evaluations", "test", "asa", "f1"),
    ("evaluations", "test", "asa", "per_domain"),
    ("evaluations", "test", "asa", "per_domain", "math"), ("evaluations", "test", "asa", "validity"),
    ("evaluations", "test", "asa", "n"), ("evaluations", "test", "intervals"), ("evaluations", "test", "mcnemar_p"),
    ("evaluations", "test", "intervals", "asa"), ("evaluations", "test", "intervals", "gain", "f1"), ("ablations",),
    ("rules",), ("ablations", "no gate"), ("arguments",), ("arguments", "layers"), ("arguments", "seed"),
    ("versions",), ("versions", "torch"), ("metadata",), ("metadata", "license"), ("metadata", "datasets"),
    ("metadata", "labels"),
]  # fmt: skip


@given(path=st.sampled_from(paths), value=json_values)
@settings(max_examples=150, deadline=None)
def test_whatever_a_report_holds_a_card_is_written(path: tuple[str, ...], value: Any) -> None:
    found = json.loads(json.dumps(report()))
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    text = card(config(), found)
    assert metadata_errors(text) == []
    assert "## Limits and weak spots" in text


def test_a_table_has_one_row_for_each_result() -> None:
    metrics = trigger_metrics([1, 0], [1, 0])
    assert metrics_table({"x": metrics, "y": metrics}).count("\n") == 3


def test_a_text_in_place_of_the_domains_is_left_out_and_one_data_set_is_a_list_of_one() -> None:
    found = Report.read({"domains": "math", "metadata": {"datasets": "user/data"}})
    assert found.domains == ()
    assert found.metadata == {"datasets": ["user/data"]}


def test_an_adapter_of_a_model_file_shows_how_to_open_that() -> None:
    text = model_card(config(base_model_fingerprint="gguf:Q4_0:0123456789abcdef"), Report())
    assert 'model = GGUFModel("path/to/the/model.gguf")  # the one in Q4_0 that it was fitted on' in text
    assert 'pip install "asa-adapter[gguf]"' in text
    assert "AutoModelForCausalLM" not in text
    of_torch = model_card(config(base_model_fingerprint="bfloat16:0123456789abcdef:-"), Report())
    assert "GGUFModel" not in of_torch
    assert 'AutoModelForCausalLM.from_pretrained("LiquidAI/LFM2.5-1.2B-Instruct")' in of_torch


def test_the_dtype_of_the_fit_is_a_part_of_how_it_is_fitted_again() -> None:
    fitted = {"samples": {"engine": "transformers", "device": "cpu", "dtype": "bfloat16", "quantised": "", "rows": []}}
    assert "--layers 1 2 --seed 7 --dtype bfloat16\n" in card(config(), report(**fitted))
    own = {**report()["arguments"], "layer_path": "model.layers"}
    assert "# the model was loaded with dtype='bfloat16'\ntrainer = " in card(
        config(), report(**fitted, arguments=own)
    )
