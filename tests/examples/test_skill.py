"""examples/SKILL.md, step by step as an agent would follow it, and the page on the extension of `hf`."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chatty import chatty, good, words
from checkout import ROOT, TINY_LFM2
from hub import LocalHub

from asa_adapter import ASAAdapter
from asa_adapter.cli.entrypoint import main

SKILL = (ROOT / "examples" / "SKILL.md").read_text("utf-8")
EXTENSION = (ROOT / "examples" / "hf_extension.md").read_text("utf-8")
INSTEAD = {
    "LiquidAI/LFM2.5-1.2B-Instruct": str(TINY_LFM2),
    "--output my_adapter": "--output my_adapter --layers 6 --alphas 1 --taus 0.5 --betas 1 --finalists 1",
}


def steps() -> list[str]:
    """The commands, in order."""
    found = re.findall(r"^ *```bash\n(.*?)^ *```", SKILL, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block).strip() for block in found]


def follow(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a step prints."""
    for here, instead in INSTEAD.items():
        command = command.replace(here, instead)
    program, *given = shlex.split(command)
    assert program == "asa-adapter"
    assert main(given) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_the_skill_has_a_name_and_says_when_it_is_of_use() -> None:
    head = SKILL.split("---\n")[1]
    assert re.search(r"^name: [a-z0-9-]{1,64}$", head, flags=re.MULTILINE)
    described = re.search(r"^description: (.+)$", head, flags=re.MULTILINE)
    assert described is not None
    assert len(described[1]) <= 1024
    assert [step.split()[1] for step in steps()] == [
        *("diagnose", "diagnose", "train", "evaluate", "generate", "serve", "push"),
    ]


@pytest.mark.slow
def test_each_step_of_the_skill_does_what_it_says(
    few_rows: Path, tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(few_rows, tmp_path / "my_data")
    monkeypatch.chdir(tmp_path)
    ask, check, train, evaluate, generate, serve, push = steps()
    with chatty(lambda _: words("About 12.")) as url:
        told = follow(ask.replace("http://127.0.0.1:8000", url), capsys)
    assert "an adapter: yes" in told
    with chatty(good) as url:
        assert "nothing found" in follow(ask.replace("http://127.0.0.1:8000", url), capsys)
    assert "not ready" not in follow(check, capsys)
    assert "WEAK SPOTS" in follow(train, capsys)
    measured = json.loads(follow(evaluate, capsys))["test"]
    assert {"precision", "recall", "fpr"} <= measured["base"].keys() & measured["asa"].keys()
    assert "steered" in follow(generate, capsys)
    _serves(serve, monkeypatch, capsys)
    hub.users["hf_user"] = "user"
    monkeypatch.setenv("HF_TOKEN", "hf_user")
    assert "pushed to " in follow(push, capsys)
    assert hub.repos["user/adapter"].private
    assert ASAAdapter.from_pretrained("user/adapter").digest() == ASAAdapter.from_pretrained("my_adapter").digest()


def _serves(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The step that serves gets as far as its last act, where there is the extra for it."""
    pytest.importorskip("starlette", reason="the extra [serve] is not installed")
    pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
    from asa_adapter.server import listener

    served: list[Any] = []
    monkeypatch.setattr(listener, "serve_until_stopped", lambda app, socket: served.append(app))
    follow(f"{command} --port 0", capsys)
    assert len(served) == 1


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_hf_runs_the_extension_as_the_page_has_it(tmp_path: Path) -> None:
    script = re.search(r"```sh\n(#!.*?)```", EXTENSION, flags=re.DOTALL)
    assert script is not None
    place = tmp_path / ".local/share/hf/extensions/hf-asa"
    place.mkdir(parents=True)
    (place / "hf-asa").write_text(script[1].replace("python3", sys.executable))
    (place / "hf-asa").chmod(0o755)
    manifest = {"owner": "user", "repo": "hf-asa", "repo_id": "user/hf-asa", "short_name": "asa", "type": "binary"}
    manifest |= {"executable_path": str(place / "hf-asa"), "installed_at": datetime.now(UTC).isoformat()}
    (place / "manifest.json").write_text(json.dumps(manifest))
    hf = Path(sys.executable).with_name("hf")
    if not hf.exists():
        pytest.skip("the hf command is not installed here")
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    adapter = str(ROOT / "examples" / "tiny_lfm2_asa")
    done = subprocess.run([hf, "asa", "inspect", adapter, "--json"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["model_type"] == "lfm2"
