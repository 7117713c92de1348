"""The Hugging Face Hub: an adapter's files fetched into the cache, and a folder pushed as one commit.

An error on the way becomes one of ours, which names the repository, the revision, the cause and a way out.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from asa_adapter.config.asa_config import CONFIG_NAME
from asa_adapter.errors import AdapterDownloadError, AdapterFormatError, AdapterUploadError
from asa_adapter.hub.card_signature import is_unedited
from asa_adapter.hub.checked_files import REPORT_NAME, SIZE_LIMITS
from asa_adapter.hub.folder import CARD_LIMIT, CARD_NAME, edited_card

# What tells whether a repository's card was edited, and how large each may be.
_CARD_FILES = {CARD_NAME: CARD_LIMIT, CONFIG_NAME: SIZE_LIMITS[CONFIG_NAME], REPORT_NAME: SIZE_LIMITS[REPORT_NAME]}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOG_IN = "log in with `hf auth login`, or pass token="
_CONNECTION = "the Hub was not reached, or the connection broke off: check it and try again"
_NOT_ACCEPTED = "the Hub does not accept what was sent; it says why in brackets"
_BY_STATUS = {
    400: _NOT_ACCEPTED,
    401: f"you are not logged in, or the token is not valid: {_LOG_IN}",
    403: "your token does not allow this: take one with the right to do it (and to write, where you push)",
    422: _NOT_ACCEPTED,
    429: "too many requests: wait some minutes, or log in for a higher limit",
}


class _Words(NamedTuple):
    """Causes and cures that are worded differently for a fetch and a push."""

    missing: str
    no_id: str
    offline: str
    connection: str


_FETCHING = _Words(
    missing="there is no such folder here, and on the Hub no such repository, or it is private and you are not let in",
    no_id="that is neither a folder here nor a repository id such as 'user/name'",
    offline="there is no such folder here; it is not, or not completely, in the cache, and the Hub may not be asked: "
    "load it once without local_files_only and without HF_HUB_OFFLINE",
    connection=f"there is no such folder here, and {_CONNECTION}; an adapter that is in the cache loads with "
    "local_files_only=True",
)
_PUSHING = _Words(
    missing="there is no such repository, or it is private and you are not let in",
    no_id="that is no repository id; expected one such as 'user/name'",
    offline="offline mode is on: unset HF_HUB_OFFLINE to push",
    connection=_CONNECTION,
)


def fetch(
    repo_id: str,
    limits: Mapping[str, int],
    *,
    required: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Fetches the named files of a repository, and no others.

    Args:
        repo_id: such as "user/name".
        limits: the largest size in bytes of each file, by name; sizes are asked for before anything is downloaded.
        required: the file that the repository must have.
        revision: branch, tag or commit; None for "main".
        token: access token; None takes the one you logged in with, False none.
        cache_dir: where downloads are kept.
        force_download: fetch again what is already in the cache.
        local_files_only: use the cache alone.

    Returns:
        The folder in the cache; its name is the commit.

    Raises:
        AdapterDownloadError: the files could not be fetched; the message says why and what to do.
        AdapterFormatError: a file is larger than its limit; nothing was downloaded.
    """
    if not local_files_only and (force_download or not _is_cached(repo_id, required, revision, cache_dir)):
        _check_sizes(repo_id, limits, required, revision, token, force_download)
    try:
        folder = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            allow_patterns=list(limits),
        )
    # The client's network errors have other bases in each of its versions; only this one call is wrapped.
    except Exception as error:
        raise AdapterDownloadError(
            f"{_cannot_fetch(repo_id, revision)}: {_failure(error, repo_id, _FETCHING)}"
        ) from error
    return Path(folder)


def commit_of(folder: Path) -> str | None:
    """The commit that a folder in the cache holds; None if its name is not a commit."""
    return folder.name if _COMMIT.fullmatch(folder.name) else None


def full_repo_id(repo_id: str, token: str | bool | None = None) -> str:
    """A repository id with its owner: "name" alone means one of yours.

    Raises:
        AdapterUploadError: not a valid id, or you are not logged in.
    """
    try:
        validate_repo_id(repo_id)
        return repo_id if "/" in repo_id else f"{HfApi(token=token).whoami()['name']}/{repo_id}"
    except Exception as error:
        raise AdapterUploadError(
            f"cannot push to {repo_id!r:.120}: {_failure(error, str(repo_id), _PUSHING)}"
        ) from error


class PushOptions(TypedDict, total=False):
    """Options of a push to the Hub.

    Attributes:
        private: whether a new repository is private; None for the Hub's default.
        token: access token; None takes the one you logged in with.
        commit_message: what the commit says.
        branch: where the commit goes; None for "main".
        create_pr: open a pull request against "main" instead.
    """

    private: bool | None
    token: str | bool | None
    commit_message: str | None
    branch: str | None
    create_pr: bool


def push(folder: Path, repo_id: str, **options: Unpack[PushOptions]) -> str:
    """Pushes all files of a folder in one commit; the repository and the branch are created if missing.

    Args:
        folder: what to push.
        repo_id: such as "user/name".
        **options: see `PushOptions`.

    Returns:
        The commit's URL (a `CommitInfo`, whose `pr_url` names the pull request).

    Raises:
        ValueError: both a branch and a pull request.
        AdapterUploadError: the Hub refused, or was not reached; no file was changed, and no new repository is left.
    """
    private, branch, create_pr = options.get("private"), options.get("branch"), options.get("create_pr", False)
    if branch is not None and create_pr:
        raise ValueError(
            f"branch is {branch!r} and create_pr is True; expected one of them: a pull request goes to main"
        )
    additions = [
        CommitOperationAdd(path.relative_to(folder).as_posix(), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    api, made = HfApi(token=options.get("token")), False
    try:
        made = _create_repository(api, repo_id, private)
        if private is not None:
            _check_visibility(api, repo_id, private)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        if _keeps_edited_card(api, repo_id, branch, folder):
            additions = [addition for addition in additions if addition.path_in_repo != CARD_NAME]
        return api.create_commit(
            repo_id,
            additions,
            commit_message=options.get("commit_message") or "Upload an ASA adapter",
            revision=branch,
            create_pr=create_pr,
        )
    except AdapterUploadError:
        raise
    except Exception as error:
        left = _delete_created_repository(api, repo_id) if made else ""
        raise AdapterUploadError(f"cannot push to {repo_id!r}: {_failure(error, repo_id, _PUSHING)}{left}") from error


def _create_repository(api: HfApi, repo_id: str, private: bool | None) -> bool:
    """Makes the repository where it is missing; whether it was."""
    try:
        api.create_repo(repo_id, private=private)
        return True
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403, 409):
            raise
    api.create_repo(repo_id, private=private, exist_ok=True)  # it may be there
    return False


def _delete_created_repository(api: HfApi, repo_id: str) -> str:
    """Deletes a repository that a failed push made, unless anything is in it; what to say where it stays."""
    with contextlib.suppress(Exception):  # whatever is wrong now, the user is told of the push
        refs = api.list_repo_refs(repo_id, include_pull_requests=True)
        names = [*(ref.name for ref in refs.branches), *(ref.ref for ref in refs.pull_requests or [])]
        if {path for name in names for path in api.list_repo_files(repo_id, revision=name)} <= {".gitattributes"}:
            api.delete_repo(repo_id)
            return ""
    return f". The repository {repo_id!r} was made for this push and stays; delete it if you do not push again"


def _check_visibility(api: HfApi, repo_id: str, private: bool) -> None:
    """Refuses an existing repository whose visibility is not the one asked for."""
    if bool(api.model_info(repo_id).private) != private:
        found = "public" if private else "private"
        raise AdapterUploadError(
            f"cannot push to {repo_id!r}: it exists and is {found}, which private={private} does not change. Change "
            "its visibility on the Hub, or leave private out"
        )


def _keeps_edited_card(api: HfApi, repo_id: str, revision: str | None, folder: Path) -> bool:
    """Whether the repository's card stays, as it was edited there and the folder's was not. What is lost is told."""
    sizes = {
        entry.path: getattr(entry, "size", 0)
        for entry in api.get_paths_info(repo_id, [*_CARD_FILES], revision=revision)
    }
    if CARD_NAME not in sizes:
        return False
    own = (folder / CARD_NAME).read_text(encoding="utf-8")
    if any(size > _CARD_FILES[name] for name, size in sizes.items()):
        there: str | None = ""
    else:
        there = edited_card(Path(api.snapshot_download(repo_id, revision=revision, allow_patterns=[*_CARD_FILES])))
    if there in (None, own):
        return False
    page = (
        f"{CARD_NAME} in {repo_id!r} (revision {revision or 'main'!r}) was edited there, or another version wrote it,"
    )
    if is_unedited(own):
        warnings.warn(
            f"{page} and stays as it is; to have it written anew, delete it there and push again", stacklevel=4
        )
        return True
    warnings.warn(
        f"{page} and is replaced by your own edited one; the other stays in the repository's history", stacklevel=4
    )
    return False


def _is_cached(repo_id: str, name: str, revision: str | None, cache_dir: str | Path | None) -> bool:
    """Whether a commit is in the cache; only the Hub knows which commit a branch or tag is now."""
    if revision is None or not _COMMIT.fullmatch(revision):
        return False
    return isinstance(huggingface_hub.try_to_load_from_cache(repo_id, name, cache_dir, revision), str)


def _check_sizes(
    repo_id: str,
    limits: Mapping[str, int],
    required: str,
    revision: str | None,
    token: str | bool | None,
    force_download: bool,
) -> None:
    """Refuses what is missing on the Hub or too large before it is downloaded."""
    try:
        found = HfApi(token=token).get_paths_info(repo_id, list(limits), revision=revision)
    except Exception as error:
        # The client would return what is in the cache, even where a fresh download was asked for.
        if force_download:
            raise AdapterDownloadError(
                f"{_cannot_fetch(repo_id, revision)}: {_failure(error, repo_id, _FETCHING)}"
            ) from error
        # Whatever is wrong, the download meets it too, or finds all it needs in the cache.
        return
    sizes = {entry.path: getattr(entry, "size", None) for entry in found}
    if required not in sizes:
        raise AdapterDownloadError(
            f"{_cannot_fetch(repo_id, revision)}: the repository has no {required}, so it holds no adapter. Check "
            "its name and the revision"
        )
    for name, limit in limits.items():
        if (size := sizes.get(name)) is not None and size > limit:
            raise AdapterFormatError(
                f"{_cannot_fetch(repo_id, revision)}: {name} has {size} bytes; expected at most {limit}"
            )


def _cannot_fetch(repo_id: str, revision: str | None) -> str:
    return f"cannot fetch the adapter {repo_id!r:.120} (revision {revision or 'main'!r:.60})"


def _failure(error: BaseException, repo_id: str, words: _Words) -> str:
    """Cause and cure of a failed fetch or push in words, then the client's own error, shortened."""
    found = next(filter(None, (_known_cause(each, repo_id, words) for each in _error_chain(error))), words.connection)
    text = " ".join(str(error).split())
    return f"{found} [{type(error).__name__}: {text:.200}]"


def _error_chain(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from, the first cause first, then the error itself."""
    if error.__cause__ is not None:
        yield from _error_chain(error.__cause__)
    yield error


def _known_cause(error: BaseException, repo_id: str, words: _Words) -> str | None:
    """One of the known causes of the Hub client's errors with its cure; None for any other error."""
    page = f"{huggingface_hub.constants.ENDPOINT}/{repo_id}"
    # The first that fits: a gated repository's error is one of a missing repository too.
    causes: tuple[tuple[type[BaseException], str], ...] = (
        (GatedRepoError, f"the repository is gated: ask for access at {page}, then {_LOG_IN}"),
        (RepositoryNotFoundError, f"{words.missing}: check the name, {_LOG_IN}"),
        (RevisionNotFoundError, f"the repository has no such revision: see {page}/commits/main"),
        (HFValidationError, words.no_id),
        (LocalTokenNotFoundError, f"you are not logged in: {_LOG_IN}"),
        (OfflineModeIsEnabled, words.offline),
    )
    for kind, text in causes:
        if isinstance(error, kind):
            return text
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return _BY_STATUS.get(status, f"the Hub answered with HTTP status {status}: try again later")
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is None:
        return words.offline
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
