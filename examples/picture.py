"""Draws what adapters change, from their reports: recall against needless calls, an arrow for each.

python examples/picture.py [ADAPTER ...] [--output FILE]     (without arguments it draws the README's picture again)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from asa_adapter import ASAAdapter
from asa_adapter.pictures import before_and_after, save
from asa_adapter.report import Report

HERE = Path(__file__).resolve().parent
SHIPPED = [str(HERE / "qwen25_coder_asa"), str(HERE / "tiny_lfm2_asa")]


def main(words: Sequence[str] | None = None) -> Path:
    """Returns where the picture is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapters", nargs="*", default=SHIPPED, help="folders or Hub ids (default: the two shipped)")
    parser.add_argument("--output", type=Path, default=HERE / "before_and_after.png", help="the PNG file")
    options = parser.parse_args(words)
    try:
        loaded = [ASAAdapter.from_pretrained(name) for name in options.adapters]
        names = [(adapter.config.base_model or "a model").rpartition("/")[2] for adapter in loaded]
        reports = {name: Report.read(adapter.report) for name, adapter in zip(names, loaded, strict=True)}
        save(before_and_after(reports), options.output)
    except ImportError:
        raise SystemExit('error: pictures need matplotlib: pip install ".[plots]"') from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"the picture is in {options.output}")
    return Path(options.output)


if __name__ == "__main__":
    main()
