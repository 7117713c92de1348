"""The whole way in processes of their own, which know the Hub by their environment alone, as users' do."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from hub import LocalHub
from models import fitted_adapter


def users_python(
    hub: LocalHub, tmp_path: Path, *words: str, token: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """What a user's own Python says, with `more` in its environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environment = kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
        **({"HF_TOKEN": token} if token else {}),
        **more,
    }
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, cwd=tmp_path)


@pytest.mark.slow
def test_an_adapter_goes_up_and_comes_down_by_xet(tmp_path: Path) -> None:
    adapter = fitted_adapter()
    folder = adapter.save_pretrained(tmp_path / "adapter")
    load = "from asa_adapter import ASAAdapter; print(ASAAdapter.from_pretrained('alice/lfm-asa').digest())"
    with LocalHub() as hub:
        hub.xet_store = tmp_path / "store"
        contents = [path.read_bytes() for path in folder.iterdir() if path.is_file()]
        hub.xet_files = {hashlib.sha256(content).hexdigest(): content for content in contents}
        push = ("-m", "asa_adapter.cli", "push", str(folder), "lfm-asa")
        pushed = users_python(hub, tmp_path, *push, token="hf_alice")  # the client takes Xet wherever it is offered
        assert pushed.returncode == 0, pushed.stderr
        loaded = users_python(hub, tmp_path, "-c", load, token="hf_alice")
        assert loaded.stdout.strip() == adapter.digest(), loaded.stderr
        tokens = [kind for kind in ("write", "read") if any(f"xet-{kind}-token" in r.path for r in hub.log)]
        assert tokens == ["write", "read"]
        assert not [request for request in hub.log if request.method == "PUT" or "/objects/" in request.path]


@pytest.mark.slow
def test_push_and_inspect_from_the_shell(tmp_path: Path) -> None:
    folder = fitted_adapter().save_pretrained(tmp_path / "adapter")

    def shell(*words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ("-m", "asa_adapter.cli", *words)
        return users_python(hub, tmp_path, *command, token=token, HF_HUB_DISABLE_XET="1")

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
