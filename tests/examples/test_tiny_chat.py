"""tiny_lfm2_chat: it reads whether a call is due behind a result, and has the faults that it was made to have."""

import re
import sys
from typing import Any

import numpy as np
import pytest
from checkout import ROOT, TINY_LFM2, load_script
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import Probes, load_splits
from asa_adapter.states import collect_hidden_states

TINY_CHAT = ROOT / "examples" / "tiny_lfm2_chat"
SCRIPTS = ROOT / "examples" / "tiny_models"
LAYER = 5


@pytest.fixture(scope="module")
def measure() -> Any:
    return load_script(SCRIPTS / "measure_chat.py")


@pytest.fixture(scope="module")
def tiny_chat() -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(TINY_CHAT, dtype="float32"), AutoTokenizer.from_pretrained(TINY_CHAT)


def test_it_has_the_size_and_the_words_of_tiny_lfm2() -> None:
    for name in ("config.json", "chat_template.jinja", "tokenizer.json"):
        assert (TINY_CHAT / name).read_text("utf-8") == (TINY_LFM2 / name).read_text("utf-8"), name
    assert (TINY_CHAT / "model.safetensors").stat().st_size == (TINY_LFM2 / "model.safetensors").stat().st_size


def test_a_probe_reads_behind_a_result_whether_a_call_is_due(measure: Any, tiny_chat: Any) -> None:
    splits = load_splits(ROOT / "examples" / "data" / "conversations")
    fit, test = (measure.of_kind(list(splits[name]), "after_result") for name in ("train", "test"))
    states = [collect_hidden_states(*tiny_chat, rows, progress=False).states[LAYER] for rows in (fit, test)]
    labels = [np.array([row["label"] for row in rows]) for rows in (fit, test)]
    probes = Probes.fit(states[0], labels[0], [row["domain"] for row in fit], 0.01)
    assert measure.auc(labels[1], probes.p_tool(states[1])) >= 0.85


@pytest.mark.slow
def test_its_card_states_what_its_script_measures(
    measure: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure_chat.py", "--model", str(TINY_CHAT)])
    measure.main()
    measured, stated = table_rows(capsys.readouterr().out), table_rows((TINY_CHAT / "README.md").read_text("utf-8"))
    assert len(measured) == 8 + 5 + 8 + 1
    # Blocks before the first attention see a few tokens, which all prompts share: what probes read there is rounding.
    for name in (name for name in measured if name not in ("0", "1")):
        numbers = measured[name]
        # Another processor rounds differently, and a few of the answers sit on the edge.
        shares = [number for number in numbers if number <= 1]
        assert [number for number in stated[name] if number <= 1] == pytest.approx(shares, abs=0.07), name
    assert 0.15 <= measured["all"][0] <= 0.60
    for domain in ("math", "search"):
        assert measured[f"after_result {domain}"][0] < 0.3
    for domain in ("code", "translation"):
        assert measured[domain][-1] >= 10  # calls that were made before


def table_rows(text: str) -> dict[str, list[float]]:
    """The rows of Markdown tables that end with numbers: the texts of their first cells, and the numbers."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numbers = [float(cell) for cell in cells[1:] if re.fullmatch(r"\d+(\.\d+)?", cell)]
        if line.startswith("|") and numbers:
            texts = [cell for i, cell in enumerate(cells) if not i or not re.fullmatch(r"\d+(\.\d+)?", cell)]
            found[" ".join(texts)] = numbers
    return found
