"""Places of this checkout, and its scripts as modules."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TINY_LFM2 = ROOT / "examples" / "tiny_lfm2"
DATA = ROOT / "examples" / "data"


def load_script(path: Path) -> Any:
    """A script as a module, with its neighbours importable as when it is run."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
