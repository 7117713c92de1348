"""The test Hub itself, through the real client: what the other tests rely on."""

from pathlib import Path

import huggingface_hub
import pytest
from card_rules import asks_the_endpoint
from hub import Fault, LocalHub
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

BIG = bytes(range(256)) * 4096 * 12  # 12 MiB: more than one of the client's chunks


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(token="hf_alice")


def test_regular_and_lfs_files_go_up_and_come_down(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("alice/x")
    files = {"a.txt": b"text", "b.safetensors": b"\x00\x01", "sub/c.json": b"{}"}
    info = api.create_commit("alice/x", [CommitOperationAdd(*item) for item in files.items()], commit_message="m")
    folder = Path(huggingface_hub.snapshot_download("alice/x", cache_dir=tmp_path))
    assert folder.name == info.oid == hub.repos["alice/x"].refs["main"]
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert [request.cdn for request in hub.log if request.method == "PUT"] == [True]
    assert len([request for request in hub.log if request.status == 302 and request.method == "HEAD"]) == 1


def test_an_unchanged_upload_makes_no_commit(hub: LocalHub, api: HfApi) -> None:
    hub.add("alice/x", {"a.txt": b"text", "b.skops": b"\x00"})
    before = hub.repos["alice/x"].refs["main"]
    operations = [CommitOperationAdd("a.txt", b"text"), CommitOperationAdd("b.skops", b"\x00")]
    assert api.create_commit("alice/x", operations, commit_message="m").oid == before


def test_a_large_download_goes_on_by_range(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    hub.add("alice/x", {"big.txt": BIG})
    hub.faults.append(Fault("GET", "big.txt", cut=11 * 2**20, times=1))
    path = huggingface_hub.hf_hub_download("alice/x", "big.txt", cache_dir=tmp_path)
    assert Path(path).read_bytes() == BIG
    assert [(r.range, r.status) for r in hub.log if r.method == "GET"] == [(None, 200), ("bytes=10485760-", 206)]


@pytest.mark.parametrize(
    ("error", "repo", "file", "revision"),
    [
        (RepositoryNotFoundError, "alice/none", "a.txt", "main"),
        (RepositoryNotFoundError, "alice/private", "a.txt", "main"),
        (GatedRepoError, "alice/gated", "a.txt", "main"),
        (RevisionNotFoundError, "alice/open", "a.txt", "v2"),
        (RemoteEntryNotFoundError, "alice/open", "b.txt", "main"),
    ],
)
def test_the_client_tells_its_errors_apart(
    hub: LocalHub, tmp_path: Path, error: type[Exception], repo: str, file: str, revision: str
) -> None:
    hub.add("alice/open", {"a.txt": b"text"})
    hub.add("alice/private", {"a.txt": b"text"}, private=True)
    hub.add("alice/gated", {"a.txt": b"text"}, gated=True)
    with pytest.raises(error):
        huggingface_hub.hf_hub_download(repo, file, revision=revision, cache_dir=tmp_path)


def test_a_gated_repository_lets_those_in_that_it_admits(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("alice/gated", {"a.txt": b"text"}, gated=True, admitted={"bob"})
    huggingface_hub.hf_hub_download("alice/gated", "a.txt", token="hf_bob", cache_dir=tmp_path)


@pytest.mark.parametrize(("token", "status"), [("hf_bob", 403), ("nonsense", 401), (False, 401)])
def test_only_the_owner_writes(hub: LocalHub, token: str | bool, status: int) -> None:
    repo = hub.add("alice/x", {"a.txt": b"text"})
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(token=token).upload_file(path_or_fileobj=b"mine", path_in_repo="a.txt", repo_id="alice/x")
    assert caught.value.response.status_code == status
    assert repo.files() == {"a.txt": b"text"}


def test_a_pull_request_leaves_main_alone(hub: LocalHub) -> None:
    repo = hub.add("alice/x", {"a.txt": b"text"})
    info = HfApi(token="hf_bob").upload_file(
        path_or_fileobj=b"mine", path_in_repo="a.txt", repo_id="alice/x", create_pr=True
    )
    assert info.pr_url == f"{hub.url}/alice/x/discussions/1"
    assert (repo.files("refs/pr/1"), repo.files()) == ({"a.txt": b"mine"}, {"a.txt": b"text"})


@pytest.mark.parametrize(
    "metadata",
    ["tags: [", "- a list", "license: 3", "tags: {a: b}", "model-index: [{name: x, results: [{task: {}}]}]",
     "model-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: [{value: .nan}]}]}]"],
)  # fmt: skip
def test_bad_metadata_is_refused(hub: LocalHub, api: HfApi, metadata: str) -> None:
    repo = hub.add("alice/x", {})
    card = f"---\n{metadata}\n---\n# Card\n".encode()
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/x")
    assert repo.files() == {}


@asks_the_endpoint
def test_good_metadata_is_accepted(hub: LocalHub) -> None:
    ModelCard("---\nlicense: mit\ntags: [a, b]\nlibrary_name: x\n---\n# Card\n").validate()


def test_a_hub_that_went_down_refuses_connections(hub: LocalHub, api: HfApi) -> None:
    hub.add("alice/x", {})
    hub.stop()
    with pytest.raises(Exception, match="Connection refused"):
        api.model_info("alice/x")
