"""Pushing adapters: the real client against the Hub of tests/support/hub.py."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Fault, LocalHub, Repo
from huggingface_hub import HfApi, constants
from models import WIDTH, fitted_adapter

from asa_adapter import ASAAdapter
from asa_adapter.cli.entrypoint import main
from asa_adapter.errors import AdapterUploadError
from asa_adapter.hub.folder import CARD_NAME

NAME = "alice/lfm-asa"
FILES = {
    ".gitattributes",
    "README.md",
    "asa_config.json",
    "probes.skops",
    "report.json",
    "router.skops",
    "steering_vectors.safetensors",
}


@pytest.fixture
def adapter() -> ASAAdapter:
    fitted = fitted_adapter()
    fitted.report = {"chosen": {"why": "a test"}, "evaluations": {"test": {"note": "any"}}}
    return fitted


def some_states() -> torch.Tensor:
    return 3 * torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(3))


def commits(hub: LocalHub) -> list[str]:
    return [request.path for request in hub.log if "/commit/" in request.path]


def test_one_commit_holds_everything(hub: LocalHub, adapter: ASAAdapter) -> None:
    url = adapter.push_to_hub(NAME, token="hf_alice")
    repo = hub.repos[NAME]
    assert url == f"{hub.url}/{NAME}/commit/{repo.refs['main']}"
    assert len(commits(hub)) == 1
    assert set(repo.files()) == FILES
    assert {path for path, blob in repo.commits[repo.refs["main"]].items() if blob.lfs} == {
        "probes.skops", "router.skops", "steering_vectors.safetensors",
    }  # fmt: skip


def test_what_was_pushed_loads_and_decides_alike(hub: LocalHub, adapter: ASAAdapter) -> None:
    adapter.push_to_hub(NAME, token="hf_alice")
    loaded = ASAAdapter.from_pretrained(NAME)
    assert loaded.decide(some_states()) == adapter.decide(some_states())


def test_files_that_the_hub_keeps_without_lfs_load_too(hub: LocalHub, adapter: ASAAdapter) -> None:
    hub.lfs_names = (".nothing",)
    adapter.push_to_hub(NAME, token="hf_alice")
    assert not any(request.method == "PUT" for request in hub.log)
    assert ASAAdapter.from_pretrained(NAME).decide(some_states()) == adapter.decide(some_states())


def test_loading_and_pushing_on_keeps_report_and_decisions(hub: LocalHub, adapter: ASAAdapter) -> None:
    adapter.push_to_hub(NAME, token="hf_alice")
    ASAAdapter.from_pretrained(NAME).push_to_hub("bob/copy", token="hf_bob")
    copy = ASAAdapter.from_pretrained("bob/copy")
    assert copy.report == adapter.report
    assert copy.decide(some_states()) == adapter.decide(some_states())
    first, second = (hub.repos[name].files() for name in (NAME, "bob/copy"))
    assert first["report.json"] == second["report.json"]
    cards = [files["README.md"].rpartition(b"\n<!--")[0] for files in (first, second)]
    assert cards[0].replace(b"alice/lfm-asa", b"bob/copy") == cards[1]


def test_plots_are_pushed_and_not_fetched(hub: LocalHub, adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    from asa_adapter import adapter as module

    write = module.write_folder

    def with_a_plot(folder: Path, *args: Any) -> None:
        (folder / "plots").mkdir()
        (folder / "plots" / "auc.png").write_bytes(b"\x89PNG")
        write(folder, *args)

    monkeypatch.setattr(module, "write_folder", with_a_plot)
    adapter.push_to_hub(NAME, token="hf_alice")
    assert hub.repos[NAME].files()["plots/auc.png"] == b"\x89PNG"
    assert b"plots/auc.png" in hub.repos[NAME].files()["README.md"]
    ASAAdapter.from_pretrained(NAME)
    assert not any("auc.png" in name for name in hub.requested("HEAD"))


def test_the_card_names_the_repository_that_it_is_in(hub: LocalHub, adapter: ASAAdapter) -> None:
    adapter.push_to_hub("lfm-asa", token="hf_alice")
    assert 'from_pretrained("alice/lfm-asa")' in hub.repos[NAME].files()[CARD_NAME].decode()


def test_a_name_alone_is_one_of_yours(hub: LocalHub, adapter: ASAAdapter) -> None:
    Path(constants.HF_TOKEN_PATH).write_text("hf_bob")
    adapter.push_to_hub("lfm-asa")
    assert list(hub.repos) == ["bob/lfm-asa"]


@pytest.mark.parametrize("private", [True, False, None])
def test_a_new_repository_is_as_private_as_asked(hub: LocalHub, adapter: ASAAdapter, private: bool | None) -> None:
    adapter.push_to_hub(NAME, token="hf_alice", private=private)
    assert hub.repos[NAME].private is bool(private)


@pytest.mark.parametrize(("private", "found"), [(True, "public"), (False, "private")])
def test_a_repository_that_is_there_keeps_its_visibility_and_says_so(
    hub: LocalHub, adapter: ASAAdapter, private: bool, found: str
) -> None:
    repo = hub.add(NAME, {}, private=not private)
    with pytest.raises(AdapterUploadError, match=f"it exists and is {found}, which private={private} does not change"):
        adapter.push_to_hub(NAME, token="hf_alice", private=private)
    assert repo.files() == {}
    adapter.push_to_hub(NAME, token="hf_alice")
    assert set(repo.files()) == FILES - {".gitattributes"}


def test_other_files_of_a_repository_stay(hub: LocalHub, adapter: ASAAdapter) -> None:
    repo = hub.add(NAME, {"notes.md": b"mine"})
    adapter.push_to_hub(NAME, token="hf_alice")
    assert repo.files()["notes.md"] == b"mine"


def test_a_card_that_was_edited_in_the_repository_stays_and_a_warning_says_so(
    hub: LocalHub, adapter: ASAAdapter
) -> None:
    repo = hub.add(NAME, {CARD_NAME: b"mine"})
    with pytest.warns(
        UserWarning, match=rf"README.md in '{NAME}' \(revision 'main'\) was edited there, .* stays as it is"
    ):
        adapter.push_to_hub(NAME, token="hf_alice")
    assert repo.files()[CARD_NAME] == b"mine"
    assert ASAAdapter.from_pretrained(NAME).decide(some_states()) == adapter.decide(some_states())


@pytest.mark.parametrize("signed", [True, False])
def test_a_card_that_was_not_edited_in_the_repository_is_written_anew(
    hub: LocalHub, adapter: ASAAdapter, signed: bool
) -> None:
    """Cards of older versions have no signature: such a one would be written so again from config and report."""
    adapter.push_to_hub(NAME, token="hf_alice")
    repo = hub.repos[NAME]
    if not signed:
        card = repo.files()[CARD_NAME].rpartition(b"\n<!--")[0]
        HfApi(token="hf_alice").upload_file(path_or_fileobj=card, path_in_repo=CARD_NAME, repo_id=NAME)
        assert b"<!--" not in repo.files()[CARD_NAME]
    adapter.report = {"chosen": {"why": "another reason"}}
    adapter.push_to_hub(NAME, token="hf_alice")
    assert b"another reason" in repo.files()[CARD_NAME]


def test_a_card_that_was_edited_in_the_folder_is_pushed(hub: LocalHub, adapter: ASAAdapter, tmp_path: Path) -> None:
    folder = adapter.save_pretrained(tmp_path)
    (folder / CARD_NAME).write_text("mine")
    with pytest.warns(UserWarning, match=r"README.md was edited, or .* stays as it is"):
        ASAAdapter.from_pretrained(folder).push_to_hub(NAME, token="hf_alice")
    assert hub.repos[NAME].files()[CARD_NAME] == b"mine"


def test_a_card_that_was_edited_after_saving_is_pushed(hub: LocalHub, adapter: ASAAdapter, tmp_path: Path) -> None:
    folder = adapter.save_pretrained(tmp_path)
    (folder / CARD_NAME).write_text("mine")
    with pytest.warns(UserWarning, match=r"README.md was edited, or .* stays as it is"):
        adapter.push_to_hub(NAME, token="hf_alice")
    assert hub.repos[NAME].files()[CARD_NAME] == b"mine"


def test_of_two_edited_cards_the_pushed_one_stays_and_a_warning_says_where_the_other_is(
    hub: LocalHub, adapter: ASAAdapter, tmp_path: Path
) -> None:
    repo = hub.add(NAME, {CARD_NAME: b"first"})
    folder = adapter.save_pretrained(tmp_path)
    (folder / CARD_NAME).write_text("second")
    message = "is replaced by your own edited one; the other stays in the repository's history"
    with pytest.warns(UserWarning, match=message), pytest.warns(UserWarning, match="README.md was edited, or"):
        ASAAdapter.from_pretrained(folder).push_to_hub(NAME, token="hf_alice")
    assert repo.files()[CARD_NAME] == b"second"


@pytest.mark.parametrize("exists", [True, False])
def test_a_branch_is_made_where_it_is_missing_and_main_stays(hub: LocalHub, adapter: ASAAdapter, exists: bool) -> None:
    repo = hub.add(NAME, {"notes.md": b"mine"})
    if exists:
        repo.refs["tuned"] = repo.refs["main"]
    url = adapter.push_to_hub(NAME, token="hf_alice", branch="tuned")
    assert url.endswith(repo.refs["tuned"])
    assert repo.files() == {"notes.md": b"mine"}
    assert ASAAdapter.from_pretrained(NAME, revision="tuned").commit == repo.refs["tuned"]


def test_a_pull_request_needs_no_rights_and_leaves_main_alone(hub: LocalHub, adapter: ASAAdapter) -> None:
    repo = hub.add(NAME, {"notes.md": b"mine"})
    url = adapter.push_to_hub(NAME, token="hf_bob", create_pr=True)
    assert url.endswith(repo.refs["refs/pr/1"])
    assert url.pr_url == f"{hub.url}/{NAME}/discussions/1"  # type: ignore[attr-defined]
    assert repo.files() == {"notes.md": b"mine"}
    assert ASAAdapter.from_pretrained(NAME, revision="refs/pr/1").commit == repo.refs["refs/pr/1"]


@pytest.mark.parametrize(
    ("given", "said"), [("Fitted on new data", "Fitted on new data"), (None, "Upload an ASA adapter")]
)
def test_the_commit_says_what_it_was_told_to(hub: LocalHub, adapter: ASAAdapter, given: str | None, said: str) -> None:
    adapter.push_to_hub(NAME, token="hf_alice", commit_message=given)
    repo = hub.repos[NAME]
    assert repo.messages[repo.refs["main"]] == said


# --- what goes wrong

LOG_IN = "log in with `hf auth login`, or pass token="
NO_LOGIN = f"you are not logged in, or the token is not valid: {LOG_IN}"
FORBIDDEN = "your token does not allow this: take one with the right to do it"
FAILURES: dict[str, tuple[Callable[[LocalHub], None] | None, dict[str, Any], str]] = {
    "no login": (None, {"token": None}, NO_LOGIN),
    "token=True without a login": (None, {"token": True}, f"you are not logged in: {LOG_IN}"),
    "no rights": (None, {"token": "hf_bob"}, FORBIDDEN),
    "no rights to a branch": (None, {"token": "hf_bob", "branch": "b"}, FORBIDDEN),
    "pull request without login": (None, {"token": None, "create_pr": True}, NO_LOGIN),
    "bad token": (None, {"token": "hf_old"}, NO_LOGIN),
    "bad repository id": (None, {"repo_id": "alice/a b"}, "that is no repository id; expected one such as"),
    "Hub down": (lambda hub: hub.stop(), {}, "the Hub was not reached, or the connection broke off"),
    "error while committing": (
        lambda hub: hub.faults.append(Fault("POST", "/commit/", status=500)), {}, "the Hub answered with HTTP status",
    ),
    "error while uploading": (
        lambda hub: hub.faults.append(Fault("PUT", "/objects/", status=403)), {}, FORBIDDEN,
    ),
    "too many requests": (
        lambda hub: hub.faults.append(Fault("POST", "/commit/", status=429)), {}, "too many requests: wait some minu",
    ),
}  # fmt: skip


@pytest.fixture
def repo(hub: LocalHub) -> Repo:
    return hub.add(NAME, {"notes.md": b"mine"})


@pytest.mark.parametrize(("arrange", "keywords", "words"), FAILURES.values(), ids=list(FAILURES))
def test_a_refused_push_says_why_and_changes_nothing(
    hub: LocalHub,
    repo: Repo,
    adapter: ASAAdapter,
    arrange: Callable[[LocalHub], None] | None,
    keywords: dict[str, Any],
    words: str,
) -> None:
    if arrange is not None:
        arrange(hub)
    settings: dict[str, Any] = {"repo_id": NAME, "token": "hf_alice", **keywords}
    with pytest.raises(AdapterUploadError) as caught:
        adapter.push_to_hub(**settings)
    assert re.match(rf"cannot push to '{settings['repo_id']}': {words}", str(caught.value))
    assert "\n" not in str(caught.value)
    assert list(hub.repos) == [NAME]
    assert len(repo.commits) == 1
    assert list(repo.refs) == ["main"]


def test_of_a_failed_push_no_repository_is_left(hub: LocalHub, adapter: ASAAdapter) -> None:
    hub.faults.append(Fault("POST", "/commit/", status=500))
    with pytest.raises(AdapterUploadError, match="the Hub answered with HTTP status 500"):
        adapter.push_to_hub(NAME, token="hf_alice")
    assert hub.repos == {}


def test_a_repository_that_a_failed_push_made_stays_where_something_is_in_it(
    hub: LocalHub, adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was made on a branch, and the answer was lost."""
    commit = HfApi.create_commit

    def lost(*given: Any, **more: Any) -> None:
        commit(*given, **more)
        raise ConnectionError("lost")

    monkeypatch.setattr(HfApi, "create_commit", lost)
    with pytest.raises(AdapterUploadError, match="'alice/lfm-asa' was made for this push and stays; delete it"):
        adapter.push_to_hub(NAME, token="hf_alice", branch="b")
    assert "asa_config.json" in hub.repos[NAME].commits[hub.repos[NAME].refs["b"]]


def test_a_push_that_changes_nothing_makes_no_commit(hub: LocalHub, adapter: ASAAdapter) -> None:
    first = adapter.push_to_hub(NAME, token="hf_alice")
    count = len(hub.repos[NAME].commits)
    again = ASAAdapter.from_pretrained(NAME, token="hf_alice").push_to_hub(NAME, token="hf_alice")
    assert len(hub.repos[NAME].commits) == count
    assert str(again).rsplit("/", 1)[1] == str(first).rsplit("/", 1)[1]


def test_metadata_that_the_hub_does_not_accept_is_named(hub: LocalHub, adapter: ASAAdapter) -> None:
    hub.faults.append(Fault("POST", "/api/validate-yaml", status=400))
    with pytest.raises(AdapterUploadError, match=r"does not accept what was sent.*Error: Invalid metadata in READ"):
        adapter.push_to_hub(NAME, token="hf_alice")


def test_offline_mode_says_so(hub: LocalHub, adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AdapterUploadError, match="offline mode is on: unset HF_HUB_OFFLINE to push"):
        adapter.push_to_hub(NAME, token="hf_alice")
    assert hub.log == []


def test_without_rights_no_repository_is_made(hub: LocalHub, adapter: ASAAdapter) -> None:
    with pytest.raises(AdapterUploadError, match=FORBIDDEN):
        adapter.push_to_hub(NAME, token="hf_bob")
    assert hub.repos == {}


def test_a_branch_and_a_pull_request_exclude_each_other(hub: LocalHub, adapter: ASAAdapter) -> None:
    with pytest.raises(ValueError, match="branch is 'b' and create_pr is True; expected one of them"):
        adapter.push_to_hub(NAME, token="hf_alice", branch="b", create_pr=True)
    assert hub.log == []


# --- the command line


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_push_pushes_a_folder_and_prints_where(
    hub: LocalHub, adapter: ASAAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(constants.HF_TOKEN_PATH).write_text("hf_alice")
    folder = str(adapter.save_pretrained(tmp_path / "adapter"))
    status, out, _ = run(["push", folder, NAME, "--private", "--json"], capsys)
    sha = hub.repos[NAME].refs["main"]
    assert status == 0
    assert json.loads(out) == {"repo": NAME, "commit_url": f"{hub.url}/{NAME}/commit/{sha}"}
    assert hub.repos[NAME].private
    assert run(["push", folder, NAME], capsys)[1].startswith(f"pushed to {hub.url}/{NAME}/commit/")


def test_push_without_login_is_one_line(
    hub: LocalHub, adapter: ASAAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(adapter.save_pretrained(tmp_path / "adapter"))
    status, out, err = run(["push", folder, NAME], capsys)
    assert (status, out) == (2, "")
    assert err.startswith(f"asa-adapter: error: cannot push to '{NAME}': {NO_LOGIN}")
    assert err.count("\n") == 1


def test_inspect_shows_an_adapter_on_the_hub(
    hub: LocalHub, adapter: ASAAdapter, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter.push_to_hub(NAME, token="hf_alice")
    status, out, _ = run(["inspect", NAME], capsys)
    assert status == 0
    assert out.startswith(f"ASA adapter {NAME}\n")
    assert re.search(rf"commit +{hub.repos[NAME].refs['main']}\n", out)
    assert re.search(r"steers +the output of block 2, by 20 times the mean residual norm", out)
    assert re.search(r"domains +code, math\n", out)


def test_inspect_as_json_has_config_commit_and_report(
    hub: LocalHub, adapter: ASAAdapter, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter.push_to_hub(NAME, token="hf_alice", branch="tuned")
    _, out, _ = run(["inspect", NAME, "--revision", "tuned", "--json"], capsys)
    found = json.loads(out)
    assert found["config"]["layer"] == 2
    assert found["commit"] == hub.repos[NAME].refs["tuned"]
    assert found["report"] == adapter.report
    assert found["abstains"] is False
    assert found["domains_with_own_probe"] == found["domains_with_own_direction"] == ["code", "math"]
