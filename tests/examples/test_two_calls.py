"""The example of two calls: the model alone stops early, the adapter sees that another call is due."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, load_script
from models import traces
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors, load_splits
from asa_adapter.config.value_checks import STATES
from asa_adapter.matching.state_kinds import with_state_marks
from asa_adapter.states import collect_hidden_states

example = load_script(ROOT / "examples" / "two_calls.py")
CONVERSATIONS = ROOT / "examples" / "data" / "conversations"
LAYER = 6
ALONE = [
    "",
    "The model alone: work out 347 * 28 and 912 - 45",
    "  [not steered]",
    "  calculator(expression='347 * 28') -> 9716",
    "  [not steered]",
    "Well, that is 9716.",
]


@pytest.fixture(scope="module")
def tiny_chat() -> tuple[Any, Any]:
    folder = ROOT / "examples" / "tiny_lfm2_chat"
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def by_hand(tiny_chat: tuple[Any, Any]) -> ASAAdapter:
    """An adapter for both kinds of state, with one probe, of the conversations about sums."""
    rows = [row for row in load_splits(CONVERSATIONS)["train"] if row["domain"] == "math"]
    states = collect_hidden_states(*tiny_chat, rows, progress=False).states[LAYER].numpy()
    labels, domains = [row["label"] for row in rows], [row["domain"] for row in rows]
    settings: dict[str, Any] = {"hidden_size": states.shape[1], "num_layers": 8, "layer": LAYER, "domains": ("math",)}
    tools = json.loads((CONVERSATIONS / "tools.json").read_text("utf-8"))
    config = ASAConfig(**settings, alpha=80.0, tool_call_start="<|tool_call_start|>", tools=tools)
    marks = with_state_marks(config, tiny_chat[1]).state_marks
    config = ASAConfig(**config.to_dict() | {"format_version": 2, "states": STATES, "state_marks": marks})
    vectors = SteeringVectors.fit(states, labels, domains, ("math",))
    return ASAAdapter(config, vectors, Router.fit(states, domains), Probes.fit(states, labels, domains, C=0.01))


def test_the_model_alone_stops_after_one_call_and_with_the_adapter_each_decision_is_shown(
    by_hand: ASAAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand.save_pretrained(tmp_path)
    example.main(["--adapter", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == ALONE
    assert lines[7] == "With the adapter: work out 347 * 28 and 912 - 45"
    decided = [line.partition("gate ")[2].partition(",")[0] for line in lines[8:] if line.startswith("  [")]
    assert decided == ["+1", "+1", "-1"]
    assert [line for line in lines[8:] if "->" in line] == [ALONE[3], "  calculator(expression='912 - 45') -> 867"]


def test_an_adapter_of_first_turns_leaves_results_to_the_model(
    by_hand: ASAAdapter, tiny_chat: tuple[Any, Any]
) -> None:
    config = ASAConfig(**by_hand.config.to_dict() | {"states": STATES[:1]})
    first = ASAAdapter(config, by_hand.vectors, by_hand.router, by_hand.probes)
    lines = list(example.shown(*tiny_chat, first, example.REQUEST))
    assert lines[-2:] == ["  [not steered: it reads results]", ALONE[-1]]
    assert traces(tiny_chat[0]) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default:cal has")
def test_without_an_adapter_one_is_fitted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    example.main(["--output", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert "the gain over the bare model" in lines[0]
    assert lines[1:7] == ALONE
    assert lines[-2].startswith("  [")
    assert lines[-3] == "  calculator(expression='912 - 45') -> 867"


def test_a_folder_without_an_adapter_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: "):
        example.main(["--adapter", str(tmp_path / "missing")])
