"""The whole way in processes of their own, which know the Hub by their environment alone, as users' do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from hub import LocalHub
from models import fitted_adapter


@pytest.mark.slow
def test_push_and_inspect_from_the_shell(tmp_path: Path) -> None:
    folder = fitted_adapter().save_pretrained(tmp_path / "adapter")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}

    def shell(*words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = kept | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(ROOT),
            **({"HF_TOKEN": token} if token else {}),
        }
        command = [sys.executable, "-m", "asa_adapter.cli", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)

    with LocalHub() as hub:
        pushed = shell("push", str(folder), "lfm-asa", "--private", "--json", token="hf_alice")
        assert pushed.returncode == 0, pushed.stderr
        sha = hub.repos["alice/lfm-asa"].refs["main"]
        assert json.loads(pushed.stdout)["commit_url"] == f"{hub.url}/alice/lfm-asa/commit/{sha}"
        shown = shell("inspect", "alice/lfm-asa", "--json", token="hf_alice")
        assert json.loads(shown.stdout)["commit"] == sha
        refused = shell("inspect", "alice/lfm-asa", "--revision", "v2", token="hf_bob")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(
            "asa-adapter: error: cannot fetch the adapter 'alice/lfm-asa' (revision 'v2')"
        )
        assert refused.stderr.count("\n") == 1
