"""Adapters on the Hub: the real client talks HTTP to that of support/hub.py, and nothing of either is replaced."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hub import Fault, LocalHub, Repo
from huggingface_hub import constants
from models import WIDTH, fitted_adapter

from asa_adapter import AdapterDownloadError, AdapterFormatError, ASAAdapter
from asa_adapter.hub.checked_files import SIZE_LIMITS

NAME = "alice/lfm-asa"
PAYLOAD = ("steering_vectors.safetensors", "router.skops", "probes.skops")


@pytest.fixture(scope="module")
def adapter() -> ASAAdapter:
    fitted = fitted_adapter()
    fitted.report = {"chosen": {"why": "a test"}}
    return fitted


@pytest.fixture(scope="module")
def files(adapter: ASAAdapter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = adapter.save_pretrained(tmp_path_factory.mktemp("adapter"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def repo(hub: LocalHub, files: dict[str, bytes]) -> Repo:
    """A public repository with an adapter."""
    return hub.add(NAME, files)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tries again at once instead of after a second."""
    clock = SimpleNamespace(**{**vars(time), "sleep": lambda _seconds: None})
    for module in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", clock)


def some_states() -> torch.Tensor:
    return 3 * torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(3))


# --- loading


def test_an_adapter_comes_from_the_hub_as_it_is(hub: LocalHub, repo: Repo, adapter: ASAAdapter) -> None:
    loaded = ASAAdapter.from_pretrained(NAME)
    assert loaded.decide(some_states()) == adapter.decide(some_states())
    assert loaded.config.alpha == adapter.config.alpha
    assert loaded.report == adapter.report


def test_the_resolved_commit_is_kept_and_shown(repo: Repo) -> None:
    loaded = ASAAdapter.from_pretrained(NAME)
    assert loaded.commit == repo.refs["main"]
    assert f"commit={loaded.commit[:8]!r}" in repr(loaded)


def test_a_folder_has_no_commit(adapter: ASAAdapter, tmp_path: Path) -> None:
    loaded = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    assert loaded.commit is None
    assert "commit" not in repr(loaded)


def test_nothing_but_our_own_files_is_fetched(hub: LocalHub, repo: Repo, files: dict[str, bytes]) -> None:
    strange = {"pytorch_model.bin": b"x", "modeling.py": b"x", "config.json": b"{}", "plots/auc.png": b"x"}
    strange |= {"sub/asa_config.json": b"{}", "asa_config.json.bak": b"x", "router.skops.py": b"x"}
    strange |= {"../../../asa_config.json": b"x", "/asa_config.json": b"x", "a\nb": b"x"}
    names = set(SIZE_LIMITS)
    repo.commit({name: hub.blob(name, content) for name, content in (files | strange).items()}, "more")
    ASAAdapter.from_pretrained(NAME)
    assert hub.requested("HEAD") == names
    assert hub.requested("GET") <= names
    objects = {request.path.rpartition("/")[2] for request in hub.log if request.cdn}
    assert objects == {hub.blob(name, files[name]).sha256 for name in PAYLOAD}
    snapshot = Path(constants.HF_HUB_CACHE) / "models--alice--lfm-asa" / "snapshots" / repo.refs["main"]
    assert {path.name for path in snapshot.iterdir()} == names


@pytest.mark.parametrize("revision", ["tuned", "commit"])
def test_a_revision_is_a_branch_or_a_commit(
    hub: LocalHub, repo: Repo, tmp_path: Path, adapter: ASAAdapter, revision: str
) -> None:
    folder = fitted_adapter(alpha=3.0).save_pretrained(tmp_path / "other")
    sha = repo.commit({p.name: hub.blob(p.name, p.read_bytes()) for p in folder.iterdir()}, "tuned", "tuned")
    loaded = ASAAdapter.from_pretrained(NAME, revision=sha if revision == "commit" else revision)
    assert (loaded.config.alpha, loaded.commit) == (3.0, sha)
    assert ASAAdapter.from_pretrained(NAME).config.alpha == adapter.config.alpha


def test_a_commit_that_was_fetched_needs_no_request_any_more(hub: LocalHub, repo: Repo) -> None:
    ASAAdapter.from_pretrained(NAME, revision=repo.refs["main"])
    hub.log.clear()
    ASAAdapter.from_pretrained(NAME, revision=repo.refs["main"])
    assert hub.log == []


def test_a_branch_that_moved_is_fetched_anew(hub: LocalHub, repo: Repo, tmp_path: Path) -> None:
    ASAAdapter.from_pretrained(NAME)
    folder = fitted_adapter(alpha=3.0).save_pretrained(tmp_path / "other")
    repo.commit({p.name: hub.blob(p.name, p.read_bytes()) for p in folder.iterdir()}, "moved")
    assert ASAAdapter.from_pretrained(NAME).config.alpha == 3.0


def test_cache_dir_holds_the_files(repo: Repo, tmp_path: Path) -> None:
    ASAAdapter.from_pretrained(NAME, cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").rglob("asa_config.json"))
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_force_download_fetches_again(hub: LocalHub, repo: Repo) -> None:
    ASAAdapter.from_pretrained(NAME)
    hub.log.clear()
    ASAAdapter.from_pretrained(NAME, force_download=True)
    assert {request.path for request in hub.log if request.cdn} == {
        f"/objects/{repo.commits[repo.refs['main']][name].sha256}" for name in PAYLOAD
    }


@pytest.mark.parametrize("settings", [{"private": True}, {"gated": True}], ids=["private", "gated"])
def test_a_token_opens_what_is_private_or_gated(hub: LocalHub, files: dict[str, bytes], settings: Any) -> None:
    hub.add(NAME, files, **settings)
    assert ASAAdapter.from_pretrained(NAME, token="hf_alice").config.layer == 2


def test_the_token_of_a_login_is_used_and_false_means_none(
    hub: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(NAME, files, private=True)
    Path(constants.HF_TOKEN_PATH).write_text("hf_alice")
    assert ASAAdapter.from_pretrained(NAME).config.layer == 2
    with pytest.raises(AdapterDownloadError, match="or it is private and you are not let in"):
        ASAAdapter.from_pretrained(NAME, token=False, cache_dir=tmp_path / "other")


def test_the_token_does_not_leave_the_hub(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add(NAME, files, private=True)
    ASAAdapter.from_pretrained(NAME, token="hf_alice")
    assert {request.token for request in hub.log if request.cdn} == {None}
    assert {request.token for request in hub.log if not request.cdn} == {"hf_alice"}


# --- what goes wrong


def private(hub: LocalHub) -> None:
    hub.repos[NAME].private = True


def gated(hub: LocalHub) -> None:
    hub.repos[NAME].gated = True


def gone(hub: LocalHub) -> None:
    del hub.repos[NAME]


def down(hub: LocalHub) -> None:
    hub.stop()


def without(name: str) -> Callable[[LocalHub], None]:
    def arrange(hub: LocalHub) -> None:
        repo = hub.repos[NAME]
        repo.commit({path: b for path, b in repo.commits[repo.refs["main"]].items() if path != name}, "less")

    return arrange


def faulty(path: str, method: str = "GET", **fault: Any) -> Callable[[LocalHub], None]:
    return lambda hub: hub.faults.append(Fault(method, path, **fault))


LOG_IN = "log in with `hf auth login`, or pass token="
NO_REPO = (
    f"there is no such folder here, and on the Hub no such repository, or it is private .*: check the name, {LOG_IN}"
)
BROKEN = "there is no such folder here, and the Hub was not reached, or the connection broke off: check it and try"
FAILURES: dict[str, tuple[Callable[[LocalHub], None] | None, dict[str, Any], str]] = {
    "private": (private, {}, NO_REPO),
    "private, another user": (private, {"token": "hf_bob"}, NO_REPO),
    "gated": (gated, {}, rf"the repository is gated: ask for access at http://.*/{NAME}, then {LOG_IN}"),
    "gated, another user": (gated, {"token": "hf_bob"}, rf"the repository is gated: ask for access at .*{LOG_IN}"),
    "missing repository": (gone, {}, NO_REPO),
    "invalid token": (None, {"token": "hf_old"}, f"you are not logged in, or the token is not valid: {LOG_IN}"),
    "no login": (None, {"token": True}, f"you are not logged in: {LOG_IN}"),
    "missing branch": (None, {"revision": "v9"}, rf"the repository has no such revision: see .*/{NAME}/commits/main"),
    "missing commit": (None, {"revision": "a" * 40}, "the repository has no such revision: see "),
    "no adapter": (without("asa_config.json"), {}, "the repository has no asa_config.json, so it holds no adapter"),
    "Hub down": (down, {}, f"{BROKEN} again; an adapter that is in the cache loads with local_files_only=True"),
    "error 500": (faulty("", status=500), {}, "the Hub answered with HTTP status 500: try again later"),
    "error 503": (faulty("", status=503), {}, "the Hub answered with HTTP status 503: try again later"),
    "too many requests": (faulty("", status=429), {}, "too many requests: wait some minutes"),
    "forbidden": (faulty("", status=403), {}, "your token does not allow this"),
    "interrupted": (faulty("resolve/.*/asa_config.json", cut=100), {}, BROKEN),
    "interrupted, LFS": (faulty("/objects/", cut=100), {}, BROKEN),
    "interrupted listing": (faulty("/tree/", cut=10), {}, BROKEN),
    "local files only": (
        None,
        {"local_files_only": True},
        "there is no such folder here; it is not, or not completely, in the cache, and the Hub may not be asked",
    ),
}


@pytest.mark.usefixtures("repo", "no_waiting")
@pytest.mark.parametrize(("arrange", "keywords", "words"), FAILURES.values(), ids=list(FAILURES))
def test_a_failure_names_repository_revision_cause_and_cure(
    hub: LocalHub, arrange: Callable[[LocalHub], None] | None, keywords: dict[str, Any], words: str
) -> None:
    if arrange is not None:
        arrange(hub)
    with pytest.raises(AdapterDownloadError) as caught:
        ASAAdapter.from_pretrained(NAME, **keywords)
    revision = keywords.get("revision", "main")
    assert re.match(rf"cannot fetch the adapter '{NAME}' \(revision '{revision}'\): {words}", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no such thing", "-a/b", "a..b", "a/b.git", "x" * 200])
def test_a_name_that_is_no_repository_is_refused_without_a_request(hub: LocalHub, name: str) -> None:
    with pytest.raises(AdapterDownloadError, match="that is neither a folder here nor a repository id such as"):
        ASAAdapter.from_pretrained(name)
    assert hub.log == []


def test_offline_mode_says_so(repo: Repo, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = r"the Hub may not be asked: load it once .* without HF_HUB_OFFLINE"
    with pytest.raises(AdapterDownloadError, match=message):
        ASAAdapter.from_pretrained(NAME)
    assert hub.log == []


def test_a_cache_that_cannot_be_written_is_named(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterDownloadError, match=rf"'{NAME}' .*{tmp_path}/file"):
        ASAAdapter.from_pretrained(NAME, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("name", PAYLOAD)
def test_a_payload_file_that_the_repository_lacks_is_named(hub: LocalHub, repo: Repo, name: str) -> None:
    without(name)(hub)
    with pytest.raises(
        AdapterDownloadError, match=rf"'{NAME}' \(revision 'main', commit .*\) cannot be used: {name}: mis"
    ):
        ASAAdapter.from_pretrained(NAME)


@pytest.mark.parametrize("name", [*PAYLOAD, "report.json", "asa_config.json"])
def test_one_flipped_bit_on_the_way_is_noticed_and_fetching_again_heals_it(
    hub: LocalHub, repo: Repo, name: str, adapter: ASAAdapter
) -> None:
    blob = repo.commits[repo.refs["main"]][name]
    hub.faults.append(Fault("GET", blob.sha256 if blob.lfs else name, flip=True, times=1))
    for _ in range(2):  # the client keeps the damaged file: without force_download it comes from the cache
        with pytest.raises(AdapterDownloadError) as caught:
            ASAAdapter.from_pretrained(NAME)
        assert re.match(
            rf"the adapter '{NAME}' \(revision 'main', commit ........\) cannot be used: ", str(caught.value)
        )
        assert f"{name}: " in str(caught.value)
        assert str(caught.value).endswith("damaged on the way, force_download=True fetches it again")
        assert isinstance(caught.value, AdapterFormatError)
    assert ASAAdapter.from_pretrained(NAME, force_download=True).decide(some_states()) == adapter.decide(some_states())


@pytest.mark.usefixtures("no_waiting")
def test_an_interrupted_download_goes_on_where_it_stopped(
    hub: LocalHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)
    hub.faults.append(Fault("GET", repo.commits[repo.refs["main"]]["router.skops"].sha256, cut=250, times=1))
    ASAAdapter.from_pretrained(NAME)
    assert [request.range for request in hub.log if request.range] == ["bytes=200-"]


@pytest.mark.usefixtures("no_waiting")
def test_after_an_interruption_the_next_call_completes_it(hub: LocalHub, repo: Repo, adapter: ASAAdapter) -> None:
    hub.faults.append(Fault("GET", repo.commits[repo.refs["main"]]["router.skops"].sha256, cut=10))
    with pytest.raises(AdapterDownloadError):
        ASAAdapter.from_pretrained(NAME)
    with pytest.raises(AdapterDownloadError, match=r"not completely, in the cache|router\.skops: missing"):
        ASAAdapter.from_pretrained(NAME, local_files_only=True)
    hub.faults.clear()
    assert ASAAdapter.from_pretrained(NAME).decide(some_states()) == adapter.decide(some_states())


@pytest.mark.parametrize("name", SIZE_LIMITS)
def test_a_file_that_is_too_large_is_not_even_downloaded(hub: LocalHub, repo: Repo, name: str) -> None:
    hub.size_lies[name] = 10**12
    with pytest.raises(AdapterFormatError, match=rf"{name} has {10**12} bytes; expected at most {SIZE_LIMITS[name]}"):
        ASAAdapter.from_pretrained(NAME)
    assert not [request for request in hub.log if request.method == "GET"]


@pytest.mark.parametrize(
    "arrange", [down, private, gated, faulty("", status=500), faulty("", status=429), faulty("", status=403)],
    ids=["down", "now private", "now gated", "500", "429", "403"],
)  # fmt: skip
def test_what_is_in_the_cache_is_used_when_the_hub_fails(
    hub: LocalHub, repo: Repo, adapter: ASAAdapter, arrange: Callable[[LocalHub], None]
) -> None:
    ASAAdapter.from_pretrained(NAME)
    arrange(hub)
    assert ASAAdapter.from_pretrained(NAME).commit == repo.refs["main"]


@pytest.mark.parametrize("arrange", [down, private, gone], ids=["down", "private", "gone"])
def test_a_forced_download_does_not_end_in_the_cache(
    hub: LocalHub, repo: Repo, arrange: Callable[[LocalHub], None]
) -> None:
    ASAAdapter.from_pretrained(NAME)
    arrange(hub)
    with pytest.raises(AdapterDownloadError, match=f"cannot fetch the adapter '{NAME}'"):
        ASAAdapter.from_pretrained(NAME, force_download=True)


@pytest.mark.parametrize("how", ["local_files_only", "HF_HUB_OFFLINE"])
def test_what_is_in_the_cache_is_used_without_asking(
    hub: LocalHub, repo: Repo, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    ASAAdapter.from_pretrained(NAME)
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "HF_HUB_OFFLINE")
    assert ASAAdapter.from_pretrained(NAME, local_files_only=how == "local_files_only").commit == repo.refs["main"]
    assert hub.log == []
