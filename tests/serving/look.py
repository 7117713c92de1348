"""Does a vLLM have what the plug-in leans on? python tests/serving/look.py PACKAGE [...]

A package is a wheel or a source package as pip downloads it, or a folder that holds `vllm`. It is read, not installed
or run, so it needs neither a GPU nor its libraries. Prints what differs; the exit code is 1 where something does.
"""

import argparse
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from asa_adapter.vllm.source_check import POINTS, source_differences


def unpacked(package: Path, folder: Path) -> Path:
    """The folder `vllm` of a package, unpacked into a folder where it has to be."""
    if package.is_dir():
        return package / "vllm"
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
        return folder / "vllm"
    with tarfile.open(package) as archive:
        archive.extractall(folder, [part for part in archive if part.name.endswith(".py")], filter="data")
    return next(folder.glob("*/vllm"))


def main() -> int:
    """Looks at what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", type=Path, metavar="PACKAGE")
    differ = False
    for package in parser.parse_args().packages:
        with tempfile.TemporaryDirectory() as folder:
            found = source_differences(unpacked(package, Path(folder)))
        differ = differ or bool(found)
        print(f"{package.name}: {len(POINTS)} points, " + (f"{len(found)} differ" if found else "all as expected"))
        print(*(f"  {told}" for told in found), sep="\n", end="\n" if found else "")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
