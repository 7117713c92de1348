"""The source of a made-up vLLM that has what the plug-in leans on, and nothing else."""

from collections import defaultdict
from pathlib import Path

from asa_adapter.vllm.source_check import POINTS


def write_vllm(folder: Path) -> Path:
    """Writes it.

    Args:
        folder: where; the package is a folder in it.

    Returns:
        The package's folder.
    """
    package = folder / "vllm"
    for module in {point.module for point in POINTS}:
        path = package.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_module(module))
    (package / "__init__.py").touch()
    return package


def _module(module: str) -> str:
    """The text of a module."""
    names: list[str] = []
    functions: dict[str, str] = {}
    attributes: dict[str, list[str]] = defaultdict(list)
    methods: dict[str, dict[str, str]] = defaultdict(dict)
    for point in (point for point in POINTS if point.module == module):
        owner, _, last = point.name.rpartition(".")
        parameters = [*(point.takes or ()), *(() if last.lstrip("_")[:1].isupper() else point.also)]
        body = " ".join(f"{name}();" for name in point.calls) or "pass"
        if not point.name:
            names += point.also
        elif last.lstrip("_")[:1].isupper():
            attributes[last] += point.also
        elif owner:
            methods[owner][last] = f"    def {last}({', '.join(['self', *parameters])}): {body}"
        else:
            functions[last] = f"def {last}({', '.join(parameters)}): {body}"
    lines = [f"{name} = None" for name in names] + list(functions.values())
    for name in {*attributes, *methods}:
        lines += [f"class {name}:", "    pass"]
        lines += [f"    {attribute}: int" for attribute in attributes[name]]
        lines += methods[name].values()
    return "\n".join(lines) + "\n"
