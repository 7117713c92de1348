"""Runs the notebook's cells and saves what they print and draw in it; a test says when that is due.

python tests/benchmarks/notebook.py     (three minutes on one core; the tiny models and the package's own data)
"""

import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "asa_adapter.ipynb"


def digest(cells: list[dict[str, Any]]) -> str:
    """SHA-256 of the code of all cells."""
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def pictures() -> list[dict[str, Any]]:
    """The figures that are open, as outputs; they are closed."""
    from matplotlib import pyplot

    found = []
    for number in pyplot.get_fignums():
        file = io.BytesIO()
        pyplot.figure(number).savefig(file, format="png", dpi=72, bbox_inches="tight")
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["<Figure>"]}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return found


def main() -> None:
    """Runs the cells and writes the notebook."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    matplotlib.use("agg")
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        examples = ROOT / "examples"
        os.environ |= {"ASA_MODEL": str(examples / "tiny_lfm2"), "ASA_CHAT_MODEL": str(examples / "tiny_lfm2_chat")}
        os.environ["ASA_OUTPUT"] = f"{folder}/my-asa-adapter"
        count = 0
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            count += 1
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("".join(cell["source"]), f"cell {count}", "exec"), names)
            text = printed.getvalue().splitlines(keepends=True)
            told = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
            cell |= {"execution_count": count, "outputs": [*told, *pictures()]}
    notebook["metadata"]["asa_adapter"] = {"code_sha256": digest(notebook["cells"])}
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
