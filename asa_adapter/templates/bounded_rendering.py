"""Chat templates that come with an adapter: whose are rendered, and within which bounds.

A chat template is a program. That of a tokenizer belongs to the model, which the user chose; that of an adapter may be
anyone's. It sees the chat and the tools alone, since transformers renders in Jinja's sandbox, but a loop in it could
run for ever and a product of texts fill the memory, and reading it does not tell. So it runs in a process of its own,
which can be ended.
"""

import atexit
import contextlib
import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from asa_adapter.errors import visible

SECONDS = 5  # for one chat; it bounds the steps as well
MEBIBYTES = 256
CHARACTERS = 2**20
_START_SECONDS = 120.0


def refuse_template_from_hub(template: str | None, commit: str | None, trusted: bool) -> None:
    """Refuses a chat template that came with an adapter from the Hub, unless the user trusts it.

    Args:
        template: the adapter's chat template, if it has one of its own.
        commit: the Hub's commit that the adapter was loaded from; None for a local folder.
        trusted: whether the user said so.

    Raises:
        ValueError: there is such a template, from the Hub, and it is not trusted.
    """
    if template is not None and commit is not None and not trusted:
        raise ValueError(
            "the adapter comes from the Hub with a chat template of its own, and a chat template is a program: read "
            "adapter.config.chat_template (`asa-adapter inspect --json`), and if you trust it, give "
            "trust_template=True, or --trust-template on the command line"
        )


def with_bounded_template(tokenizer: Any, template: str | None) -> Any:
    """A copy of the tokenizer that renders chats with an adapter's template, in 5 seconds and 256 MiB or not at all.

    Args:
        tokenizer: the model's tokenizer.
        template: the adapter's chat template; None for the tokenizer itself.
    """
    if template is None:
        return tokenizer
    changed = copy.copy(tokenizer)
    changed.chat_template = template
    changed.apply_chat_template = _BoundedTemplate(changed, template)
    return changed


class _BoundedTemplate:
    """`apply_chat_template` of a tokenizer, for the arguments that this package gives."""

    def __init__(self, tokenizer: Any, template: str) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._over = ""

    def __call__(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        **variables: Any,
    ) -> Any:
        """The rendered chat, as text or tokens.

        Raises:
            jinja2.TemplateError: the template does not render this chat.
            ValueError: it takes more time, memory or room than it may; it is not tried again.
        """
        if self._over:
            raise ValueError(self._over)
        answer = _rendered_in_process(
            {
                "template": self._template,
                "messages": list(conversation),
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
                "variables": {**self._tokenizer.special_tokens_map, **variables},
            }
        )
        if over := answer.get("over"):
            self._over = f"the adapter's chat template is not used: {over}"
            raise ValueError(self._over)
        if "text" not in answer:
            raise jinja2.TemplateError(visible(str(answer.get("failed"))))
        return type(self._tokenizer).apply_chat_template(
            self._tokenizer,
            [{"role": "user", "content": ""}],
            chat_template="{{ rendered }}",
            rendered=answer["text"],
            tokenize=tokenize,
            return_dict=return_dict,
        )


class _RenderingProcess:
    """A process that renders; it is started once, ended when it takes too long, and ends with this one."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        bounds = [str(SECONDS), str(MEBIBYTES), str(CHARACTERS)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("renderer_script.py")), *bounds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        atexit.register(self.end)
        if self._answer(_START_SECONDS) is None:
            self.end()
            raise RuntimeError(f"{sys.executable} could not be started to render the adapter's chat template")

    @property
    def ready(self) -> bool:
        """Whether it can be asked; not by a forked process, which would share its pipes."""
        return self._owner == os.getpid() and self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer: "text", what "failed", or which bound it went "over"."""
        line, answer = json.dumps(request, default=str), None
        try:
            with contextlib.suppress(BrokenPipeError):
                print(line, file=self._process.stdin, flush=True)
            answer = self._answer(SECONDS + 1.0)
        finally:
            if answer is None:  # nor must another chat get an answer for which nobody waited
                self.end()
        return answer or {"over": f"for one chat it takes more than {SECONDS} seconds or {MEBIBYTES} MiB of memory"}

    def end(self) -> None:
        """Ends the process."""
        atexit.unregister(self.end)
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """One line of answer; None where there is none in time."""
        clock = threading.Timer(seconds, self._process.kill)
        clock.start()
        try:
            line: str = self._process.stdout.readline()  # type: ignore[union-attr]
        finally:
            clock.cancel()
        return dict(json.loads(line)) if line.endswith("\n") else None


_shared: list[_RenderingProcess] = []
_lock = threading.Lock()


def _rendered_in_process(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of the one process, which is started where there is none."""
    with _lock:
        if not _shared or not _shared[0].ready:
            _shared[:] = [_RenderingProcess()]
        return _shared[0].ask(request)
