"""A sound adapter's files, for tests to damage."""

from pathlib import Path

import pytest
from strangers import sound_files, write


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return sound_files(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: dict[str, bytes], tmp_path: Path) -> Path:
    write(tmp_path, sound)
    return tmp_path
