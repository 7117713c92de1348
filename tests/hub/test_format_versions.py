"""Adapters as every format so far was written; `decisions.json` beside each is what it decided then."""

import json
from pathlib import Path

import pytest
import torch

from asa_adapter import ASAAdapter
from asa_adapter.config.asa_config import FORMAT_VERSION

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("format_*"))


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)
def test_a_stored_adapter_still_loads_and_decides_as_it_did(folder: Path) -> None:
    adapter = ASAAdapter.from_pretrained(folder)
    expected = json.loads((folder / "decisions.json").read_text())
    decisions = adapter.decide(torch.tensor(expected["states"]))
    assert [(d.domain, d.gate) for d in decisions] == [(d["domain"], d["gate"]) for d in expected["decisions"]]
    assert [d.p_tool for d in decisions] == pytest.approx([d["p_tool"] for d in expected["decisions"]], abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*another version wrote it")  # some of their cards
@pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)
def test_a_stored_adapter_can_be_saved_again(folder: Path, tmp_path: Path) -> None:
    loaded = ASAAdapter.from_pretrained(folder)
    again = ASAAdapter.from_pretrained(loaded.save_pretrained(tmp_path))
    assert again.report == loaded.report
    assert again.config.sealed({}) == loaded.config.sealed({})


def test_there_is_a_stored_adapter_of_every_format_version() -> None:
    versions = {json.loads((folder / "asa_config.json").read_text())["format_version"] for folder in FIXTURES}
    assert versions == set(range(1, FORMAT_VERSION + 1))
