"""Where an adapter is loaded from: a folder here, or a repository on the Hub."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from asa_adapter.config.asa_config import CONFIG_NAME
from asa_adapter.errors import AdapterFormatError, DamagedDownloadError
from asa_adapter.files import looks_like_path
from asa_adapter.hub.checked_files import SIZE_LIMITS
from asa_adapter.hub.client import commit_of, fetch
from asa_adapter.hub.folder import Parts, read_folder


class Loaded(NamedTuple):
    """An adapter that was loaded.

    Attributes:
        adapter: what was made of its parts.
        folder: the folder that was named; None for a repository.
        commit: the commit that was fetched; None for a folder.
    """

    adapter: Any
    folder: Path | None = None
    commit: str | None = None


def load_from_source(name: str | Path, make: Callable[[Parts], Any], **download: Any) -> Loaded:
    """Loads an adapter from a folder or from the Hub.

    Args:
        name: a local folder, or else a repository id.
        make: makes the adapter of its parts; raises a ValueError where they do not fit together.
        **download: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only` of `fetch`.

    Raises:
        FileNotFoundError: there is no such folder, and the name cannot be a repository id.
        AdapterDownloadError: the repository could not be fetched.
        DamagedDownloadError: the fetched files are not a valid adapter.
        AdapterFormatError: a file is missing, damaged or invalid.
    """
    if Path(name).is_dir():
        return Loaded(_load_from_folder(Path(name), make), folder=Path(name).absolute())
    if isinstance(name, Path) or looks_like_path(name):
        raise FileNotFoundError(f"no adapter folder at {name}")
    folder = fetch(name, SIZE_LIMITS, required=CONFIG_NAME, **download)
    try:
        return Loaded(_load_from_folder(folder, make), commit=commit_of(folder))
    except AdapterFormatError as error:
        raise DamagedDownloadError(
            f"the adapter {name!r} (revision {download.get('revision') or 'main'!r}, commit {folder.name:.8}) cannot "
            f"be used: {error}. In case it was damaged on the way, force_download=True fetches it again"
        ) from error


def refuse_model_and_path(source: object, others: Sequence[object]) -> None:
    """Refuses `from_pretrained(model, path)`, as PEFT has it.

    Raises:
        TypeError: the source is a model, or something stands behind it.
    """
    if others or hasattr(source, "parameters"):
        if not hasattr(source, "parameters") and not any(hasattr(one, "parameters") for one in others):
            raise TypeError(
                f"from_pretrained takes a folder or a repository alone, and {others[0]!r:.80} stands behind it; "
                "options go by name, such as revision='main'"
            )
        path = next(repr(str(one)) for one in (*others, source, "path") if not hasattr(one, "parameters"))
        raise TypeError(
            "from_pretrained takes a folder or a repository alone, and gives an adapter, then .attach(model): "
            f"ASAAdapter.from_pretrained({path:.80}).attach(model)"
        )


def _load_from_folder(folder: Path, make: Callable[[Parts], Any]) -> Any:
    """The adapter that is made of a folder's parts."""
    parts = read_folder(folder)
    try:
        return make(parts)
    except ValueError as error:
        raise AdapterFormatError(f"{folder.name}: {error}") from error
