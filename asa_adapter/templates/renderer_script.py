"""Renders chat templates in a process of its own, within bounds; `bounded_rendering` runs this file as a script.

One line of JSON asks for one chat, one line answers. Nothing of the package is imported here.
"""

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any


def main(seconds: int, mebibytes: int, characters: int) -> None:
    """Renders the chat templates that it is asked for, until the input ends.

    Args:
        seconds: longest time for one chat; after it the process ends.
        mebibytes: memory that may be taken beyond what the libraries need, where the system can bound it.
        characters: longest text.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    with contextlib.suppress(ImportError, OSError, ValueError):
        _bound_memory(mebibytes)
    _write_answer({"ready": True})
    for line in sys.stdin:
        if hasattr(signal, "alarm"):
            signal.alarm(seconds)
        asked = json.loads(line)
        try:
            text = render_jinja_template(
                conversations=[asked["messages"]],
                tools=asked["tools"],
                chat_template=asked["template"],
                add_generation_prompt=asked["add_generation_prompt"],
                **asked["variables"],
            )[0][0]
            long = len(text) > characters
            answer = {"over": f"it writes more than {characters} characters"} if long else {"text": text}
        except MemoryError:
            answer = {"over": f"it takes more than {mebibytes} MiB of memory"}
        # A template is a program, which can fail in any way; it means a chat that it does not render.
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
        _write_answer(answer)
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _write_answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _bound_memory(mebibytes: int) -> None:
    import resource

    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + mebibytes * 2**20,) * 2)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
