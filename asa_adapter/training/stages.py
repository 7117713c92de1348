"""Finished stages of a training run on disk, so that a run that was killed goes on where it stopped.

A stage is stored under a key of everything that its result depends on: a changed input has another key, and what
still holds is read back. Files are written in one piece or not at all.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors
from torch import nn

from asa_adapter.files import write_atomic
from asa_adapter.modeling.processes import Processes

STAGES_NAME = "stages"

# Raised whenever what a stage computes changes, so that results of an older version are not taken for this one's.
_VERSION = 2


class Stages:
    """A folder of finished stages.

    Args:
        folder: where they are kept; None keeps them in memory.
        depends: what every stage depends on.

    Attributes:
        reused: names of the stages that were read back and not computed.
    """

    def __init__(self, folder: Path | None, depends: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._depends = dict(depends or {})
        self._memory: dict[str, Any] = {}
        self.reused: list[str] = []

    def arrays(
        self, name: str, depends: Mapping[str, Any], compute: Callable[[], Mapping[str, NDArray[Any]]]
    ) -> dict[str, NDArray[Any]]:
        """The arrays of a stage, by name: read back, or computed and stored."""

        def read(content: bytes) -> dict[str, NDArray[Any]]:
            return dict(safetensors.load(content))

        def written(value: Mapping[str, NDArray[Any]]) -> bytes:
            return bytes(safetensors.save({key: np.ascontiguousarray(array) for key, array in value.items()}))

        file_name = f"{name}-{self._key(name, depends)}.safetensors"
        if (value := self._found(file_name, name, read)) is None:
            self._keep(file_name, name, value := compute(), written)
        return dict(value)

    def texts(
        self,
        name: str,
        depends: Mapping[str, Mapping[str, Any]],
        compute: Callable[[list[str]], Mapping[str, list[str]]],
    ) -> dict[str, list[str]]:
        """The texts of several stages of one name: read back, or computed together and stored each for itself.

        Args:
            name: of the stages.
            depends: what each of them depends on, by whatever they are called.
            compute: gives the texts of those that were not found.
        """

        def read(content: bytes) -> list[str]:
            value = json.loads(content)
            if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
                raise ValueError("not a list of texts")
            return value

        def written(value: list[str]) -> bytes:
            return json.dumps(value).encode()

        files = {key: f"{name}-{self._key(name, of_one)}.json" for key, of_one in depends.items()}
        found = {key: self._found(file_name, name, read) for key, file_name in files.items()}
        if missing := [key for key, value in found.items() if value is None]:
            for key, value in compute(missing).items():
                self._keep(files[key], name, value, written)
                found[key] = value
        return {key: list(value) for key, value in found.items()}

    def _found(self, file_name: str, name: str, read: Callable[[bytes], Any]) -> Any:
        """A finished stage, or None."""
        if self._folder is None:
            return self._memory.get(file_name)
        path = self._folder / file_name
        processes = Processes()  # all of them have to agree on what is there and what is not
        content = processes.from_main(lambda: path.read_bytes() if path.is_file() else None)
        with contextlib.suppress(ValueError, SafetensorError):  # a damaged file
            if content is not None:
                value = read(content)
                self.reused.append(name)
                return value
        return None

    def _keep(self, file_name: str, name: str, value: Any, written: Callable[[Any], bytes]) -> None:
        if self._folder is None:
            self._memory[file_name] = value
            return
        if not Processes().is_main:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / file_name, written(value))
        except OSError as error:
            raise OSError(
                f"cannot keep the stage {name!r} in {self._folder}: {error.strerror or error}. What was kept before "
                "is whole: make room or access, and run the same command again"
            ) from error

    def _key(self, name: str, depends: Mapping[str, Any]) -> str:
        everything = json.dumps([_VERSION, name, self._depends, depends], sort_keys=True, default=str)
        return hashlib.sha256(everything.encode()).hexdigest()[:20]


def digest(*parts: Any) -> str:
    """SHA-256 of arrays, bytes and JSON values, to name what a stage depends on."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content = f"{part.dtype} {part.shape} ".encode() + np.ascontiguousarray(part).tobytes()
        else:
            content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        found.update(f"{len(content)} ".encode() + content)
    return found.hexdigest()


def model_digest(model: nn.Module) -> str:
    """Names a model by its type, and by name, shape and a few numbers of each of its weights.

    Weights that are offloaded cannot be read cheaply; where the model was loaded from stands for them.
    """
    found = [type(model).__name__]
    for name, weight in model.state_dict().items():
        if weight.device.type == "meta":
            values = getattr(model, "name_or_path", "")
        else:
            values = weight.detach().flatten()[:: max(1, weight.numel() // 64)].float().cpu().tolist()
        found.append(f"{name} {tuple(weight.shape)} {weight.dtype} {values}")
    return digest(found)
