"""Finished stages of a training run on disk, so that an interrupted run continues where it stopped.

A stage is stored under a hash of everything that its result depends on, so it is computed again if an input changed,
and read otherwise. Files are written atomically.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.files import write_atomic
from asa_adapter.modeling.processes import Processes
from asa_adapter.modeling.weight_digests import model_digest
from asa_adapter.tool_calls.outcomes import Answer

STAGES_NAME = "stages"

# Incremented whenever what a stage computes changes, so that results of older versions are not used.
_VERSION = 4


class Stages:
    """A folder of finished stages.

    Args:
        folder: where stages are stored; None keeps them in memory.
        depends: what every stage depends on, as JSON values.

    Attributes:
        reused: names of the stages that were read from the folder and not computed.
    """

    def __init__(self, folder: Path | None, depends: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._depends = dict(depends or {})
        self._memory: dict[str, Any] = {}
        self.reused: list[str] = []

    def arrays(
        self, name: str, depends: Mapping[str, Any], compute: Callable[[], Mapping[str, NDArray[Any]]]
    ) -> dict[str, NDArray[Any]]:
        """The arrays of a stage, by name: read, or computed and stored.

        Args:
            name: name of the stage, the beginning of its file's name.
            depends: what the stage depends on besides, as JSON values.
            compute: returns the arrays; called only if they are not stored.

        Raises:
            OSError: the result cannot be stored.
        """

        def read(content: bytes) -> dict[str, NDArray[Any]]:
            return dict(safetensors.load(content))

        def written(value: Mapping[str, NDArray[Any]]) -> bytes:
            return bytes(safetensors.save({key: np.ascontiguousarray(array) for key, array in value.items()}))

        file_name = f"{name}-{self._key(name, depends)}.safetensors"
        if (value := self._found(file_name, name, read)) is None:
            self._keep(file_name, name, value := compute(), written)
        return dict(value)

    def answers(
        self,
        name: str,
        depends: Mapping[str, Mapping[str, Any]],
        compute: Callable[[list[str]], Mapping[str, Sequence[Answer]]],
    ) -> dict[str, list[Answer]]:
        """The answers of several stages with one name: each read, or computed with the other missing ones and stored.

        Args:
            name: name of the stages, the beginning of their files' names.
            depends: for each stage, by a key of its own, what it depends on besides, as JSON values.
            compute: takes the keys of the stages that are not stored, and returns their answers by key.

        Returns:
            The answers of each stage, by key.

        Raises:
            OSError: a result cannot be stored.
        """

        def read(content: bytes) -> list[Answer]:
            value = json.loads(content)
            if not isinstance(value, list) or not all(map(_is_stored_answer, value)):
                raise ValueError("not a list of answers")
            return [Answer(text, cut) for text, cut in value]

        def written(value: Sequence[Answer]) -> bytes:
            return json.dumps([[answer, answer.cut] for answer in value]).encode()

        files = {key: f"{name}-{self._key(name, of_one)}.json" for key, of_one in depends.items()}
        found = {key: self._found(file_name, name, read) for key, file_name in files.items()}
        # Equal stages are computed once.
        missing = {files[key]: key for key, value in found.items() if value is None}
        computed = {}
        for key, value in (compute([*missing.values()]) if missing else {}).items():
            self._keep(files[key], name, value, written)
            computed[files[key]] = value
        return {key: list(computed[files[key]] if value is None else value) for key, value in found.items()}

    def _found(self, file_name: str, name: str, read: Callable[[bytes], Any]) -> Any:
        """The value of a stored stage; None if it is missing or damaged."""
        if self._folder is None:
            return self._memory.get(file_name)
        path = self._folder / file_name
        processes = Processes()  # all of them must agree on which stages are stored
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


def _is_stored_answer(value: Any) -> bool:
    """Whether a value in a stage's file is an answer: its text, and whether it was cut."""
    return isinstance(value, list) and list(map(type, value)) == [str, bool]


def stage_dependencies(model: Any, args: ASATrainingArguments) -> dict[str, Any]:
    """What every stage depends on besides its own inputs: the model, its settings and the versions, as plain values.

    Args:
        model: a causal language model, also one that another engine runs.
        args: of these, layer_path and batch_size are used.
    """
    silent = {"_name_or_path", "transformers_version"}
    configs = (getattr(model, name, None) for name in ("config", "generation_config"))
    return {
        "model": model.digest() if is_engine_model(model) else model_digest(model),
        "configs": [{k: v for k, v in getattr(c, "to_dict", dict)().items() if k not in silent} for c in configs],
        "peft": str(getattr(model, "active_adapters", None)),
        "layer_path": args.layer_path,
        "batch_size": args.batch_size,
        "versions": [torch.__version__, transformers.__version__],
    }


def stage_digest(*parts: Any) -> str:
    """Hexadecimal SHA-256 of arrays, bytes and JSON values, to identify what a stage depends on."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content = f"{part.dtype} {part.shape} ".encode() + np.ascontiguousarray(part).tobytes()
        else:
            content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        found.update(f"{len(content)} ".encode() + content)
    return found.hexdigest()
