"""The notebook: sound as a file, and run from its first cell to its last on the tiny LFM2."""

import ast
import contextlib
import io
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, TINY_LFM2, load_script
from models import traces

import asa_adapter
from asa_adapter.data import sample_data

saving = load_script(ROOT / "tests" / "benchmarks" / "notebook.py")
CHAT_MODEL = ROOT / "examples" / "tiny_lfm2_chat"
NOTEBOOK = json.loads((ROOT / "examples" / "asa_adapter.ipynb").read_text("utf-8"))
STEPS = ["Set-up", "Data", "Model", "States", "Layer sweep", "Vectors", "Router and probes", "Controller", "Tuning",
         "Evaluation", "Upload", "Demo", "Conversations"]  # fmt: skip


def sources(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def test_it_is_a_notebook_with_the_outputs_of_its_present_code() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == keys | ({"execution_count", "outputs"} if cell["cell_type"] == "code" else set())
        for output in cell.get("outputs", []):
            assert output["output_type"] in ("stream", "display_data")
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, 14)]
    assert all(cell["outputs"] for cell in code[1:])
    assert [number for number, cell in enumerate(code, 1) if len(cell["outputs"]) > 1] == [5]  # it draws
    due = "the code is another: python tests/benchmarks/notebook.py"
    assert NOTEBOOK["metadata"]["asa_adapter"]["code_sha256"] == saving.digest(NOTEBOOK["cells"]), due


def test_its_outputs_say_nothing_of_the_machine_that_made_them() -> None:
    outputs = json.dumps([cell.get("outputs") for cell in NOTEBOOK["cells"]])
    assert str(Path.home()) not in outputs
    assert not re.search(r"/tmp|/home|/root|Traceback", outputs)


def test_without_a_name_the_data_is_the_packages_own() -> None:
    assert sample_data() == ROOT / "examples" / "data"
    assert sample_data(conversations=True) == ROOT / "examples" / "data" / "conversations"


def test_each_of_the_thirteen_steps_is_explained_and_then_done() -> None:
    kinds = [cell["cell_type"] for cell in NOTEBOOK["cells"]]
    assert kinds == ["markdown", *["markdown", "code"] * 13]
    headings = [re.findall(r"^## (\d+)\. (.+)$", text, flags=re.MULTILINE) for text in sources("markdown")[1:]]
    assert headings == [[(str(number), step)] for number, step in enumerate(STEPS, 1)]
    for text in sources("markdown")[1:]:
        assert 2 <= len(re.findall(r"[.:] |\.$", text.split("\n", 2)[2], flags=re.MULTILINE)) <= 12, text


def test_it_uses_the_public_names_only() -> None:
    imports = [node for text in sources("code") for node in ast.walk(ast.parse(text))]
    ours = {
        (node.module, alias.name)
        for node in imports
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("asa_adapter")
        for alias in node.names
    }
    public = {("asa_adapter", name) for name in asa_adapter.__all__}
    assert ours <= public | {("asa_adapter.states", "collect_hidden_states"), ("asa_adapter.data", "sample_data")}
    assert ("asa_adapter", "ASATrainer") in ours


def test_on_colab_it_would_take_lfm25() -> None:
    assert '"LiquidAI/LFM2.5-1.2B-Instruct"' in sources("code")[0]
    assert not any("tiny" in text for text in sources("code"))


def few_conversations(folder: Path) -> Path:
    """A folder with sixteen conversations of each split."""
    for name in ("cal", "train", "valid", "test"):
        lines = (sample_data(conversations=True) / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:16]), "utf-8")
    shutil.copy(sample_data(conversations=True) / "tools.json", folder)
    return folder


@pytest.fixture(scope="module")
def run(few_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """The names that the cells leave, and what each cell prints."""
    names: dict[str, Any] = {}
    printed = []
    output = tmp_path_factory.mktemp("notebook") / "adapter"
    given = {"MODEL": TINY_LFM2, "DATA": few_rows, "OUTPUT": output, "REPO": "", "CHAT_MODEL": CHAT_MODEL}
    given["CHAT_DATA"] = few_conversations(tmp_path_factory.mktemp("conversations"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(f"ASA_{name}", str(value))
        for number, source in enumerate(sources("code"), 1):
            with contextlib.redirect_stdout(io.StringIO()) as text, warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".* rows in .* groups")  # sixteen conversations are few
                exec(compile(source.replace('LAYERS = "all"', "LAYERS = [6]"), f"cell {number}", "exec"), names)
            printed.append(text.getvalue())
    names["plt"].close("all")
    return names, printed


def test_the_data_and_the_model_are_in_order(run: Any) -> None:
    assert [line.split()[:2] for line in run[1][1].splitlines()[:4]] == [
        ["cal", "24"], ["train", "24"], ["valid", "24"], ["test", "24"],
    ]  # fmt: skip
    findings = re.findall(r"^(ok |NOT) (\w+)", run[1][2], flags=re.MULTILINE)
    assert len(findings) >= 5
    assert {name for state, name in findings if state == "NOT"} == {"history"}  # as in LFM2.5: see the cell's text


def test_the_parts_made_by_hand_fit_together(run: Any) -> None:
    names, printed = run
    assert len(names["sweep"]) == 8
    assert names["sweep"][names["layer"]] == max(names["sweep"]) >= 0.5
    assert len(names["gates"]) == 24
    assert set(names["gates"]) <= {-1, 0, 1}
    assert sum(int(count) for count in re.findall(r": (\d+) rows", printed[7])) == 24
    assert re.search(r"^steered: .+\ntoken \d+: ", printed[7], flags=re.MULTILINE)


def test_the_blind_layers_read_nothing(run: Any) -> None:
    blind = run[0]["trainer"].report["blind_layers"]
    assert all(run[0]["sweep"][layer] == 0.5 for layer in blind)


def test_the_trainer_chooses_and_test_is_measured(run: Any) -> None:
    names, printed = run
    assert names["trainer"].report["chosen"]["why"] in printed[8]
    for name in ("base", "asa"):
        assert names["results"][name]["n"] == 24
        assert f"{name:5} precision {names['results'][name]['precision']:.3f}" in printed[9]


def test_the_adapter_is_saved_and_loaded_again(run: Any) -> None:
    names, printed = run
    assert "asa_config.json" in printed[10]
    assert "README.md" in os.listdir(names["OUTPUT"])
    assert names["loaded"].digest() == names["adapter"].digest()


def test_the_demo_shows_both_answers_and_leaves_the_model_alone(run: Any) -> None:
    names, printed = run
    assert printed[11].count("  base:   ") == printed[11].count("  steered:") == 4
    assert "Answer, steered: " in printed[11]
    assert traces(names["model"]) == []


def test_a_request_of_two_calls_is_shown_decision_by_decision(run: Any) -> None:
    names, printed = run
    assert names["of_talks"].config.states == ("first", "after_result")
    alone, steered = printed[12].split("the model alone:")[1].split("with the adapter:")
    assert "p(tool)" not in alone
    assert steered.count("p(tool)") == steered.count("the tool says") + 1


def test_the_saved_run_makes_the_second_call_only_with_the_adapter() -> None:
    (output,) = NOTEBOOK["cells"][-1]["outputs"]
    alone, steered = "".join(output["text"]).split("with the adapter:")
    assert 'expression="912 - 45"' not in alone
    assert 'expression="912 - 45"' in steered
