"""vLLM's own server with our plug-in: the command that starts it, and what its requests lack."""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import torch

from asa_adapter.config.asa_config import ASAConfig

# Our formats, and vLLM's parsers of them.
PARSERS = {
    "lfm2": "lfm2",
    "hermes": "hermes",
    "qwen3_coder": "qwen3_coder",
    "llama3": "llama3_json",
    "llama4": "llama4_pythonic",
    "mistral": "mistral",
    "gemma4": "gemma4",
    "functiongemma": "functiongemma",
    "granite": "granite",
    "deepseek_v3": "deepseek_v3",
    "phi4": "phi4_mini_json",
    "glm4": "glm45",
    "kimi_k2": "kimi_k2",
    "gpt_oss": "openai",
}
_MOST = 4 * 1024 * 1024  # bytes of a body that is looked into

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def vllm_arguments(
    model: str, revision: str | None, tokenizer: str | None, dtype: str | None, more: str | None
) -> dict[str, Any]:
    """What vLLM is launched with for a model: arguments of `vllm.LLM`.

    Args:
        model: folder or Hub id of the model.
        revision: its branch, tag or commit.
        tokenizer: folder or Hub id; None for the model's own.
        dtype: precision; None for the checkpoint's on a GPU, else float32.
        more: the user's own, as JSON; they come before all others.

    Raises:
        ValueError: these are no object of JSON.
    """
    try:
        own = json.loads(more or "{}")
    except ValueError as error:
        raise ValueError(f"--engine-args is not valid JSON: {error}") from error
    if not isinstance(own, dict):
        raise ValueError(f'--engine-args is {more!r:.80}; expected an object, as {{"block_size": 32}}')
    # vLLM would look for the model's revision in another repository, too.
    names = {"tokenizer": tokenizer or model, "tokenizer_revision": "main" if tokenizer else revision}
    dtype = dtype or ("auto" if torch.cuda.is_available() else "float32")
    return {"model": model, "revision": revision, **names, "dtype": dtype, **own}


def vllm_words(name: str, host: str, port: int, config: ASAConfig, arguments: Mapping[str, Any]) -> list[str]:
    """The command that starts vLLM's server; the adapter and the key are told by the environment.

    Args:
        name: what clients call it.
        host: where it listens.
        port: likewise.
        config: the adapter's.
        arguments: those of `vllm.LLM`, among them `model`; what is None is left out.

    Raises:
        ValueError: vLLM has no parser for the format of the model's calls, or the adapter has a chat template.
    """
    if config.chat_template is not None:
        raise ValueError(
            "the adapter has a chat template of its own, which vLLM takes from a file: start vllm serve by hand, with "
            "--chat-template FILE"
        )
    if config.tool_call_format not in PARSERS:
        raise ValueError(
            f"the adapter's format of calls is {config.tool_call_format!r}, and vLLM's parsers are known for "
            f"{', '.join(PARSERS)}: start vllm serve by hand, with --tool-call-parser"
        )
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", host]
    words += ["--port", str(port), "--served-model-name", name, "--enable-auto-tool-choice"]
    middleware = f"{VLLMFields.__module__}.{VLLMFields.__qualname__}"
    words += ["--tool-call-parser", PARSERS[config.tool_call_format], "--middleware", middleware]
    given = {option: value for option, value in arguments.items() if value is not None}
    return words + [
        word for option, value in given.items() for word in _server_option(option.replace("_", "-"), value)
    ]


def _server_option(name: str, value: Any) -> list[str]:
    """An argument of `vllm.LLM` as an option of its server."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def vllm_environment(adapter: str, revision: str | None, key: str | None) -> dict[str, str]:
    """The environment of vLLM's server: this one, the adapter for the plug-in, and the key, which no list shows."""
    told = {"ASA_ADAPTER": adapter, "ASA_ADAPTER_REVISION": revision, "VLLM_API_KEY": key}
    return {**os.environ, **{name: value for name, value in told.items() if value is not None}}


class VLLMFields:
    """Puts `asa`, `asa_factor` and the like where vLLM takes them from: into `vllm_xargs`.

    Args:
        app: vLLM's application.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, its body changed where it has such fields at the top."""
        if scope["type"] != "http" or scope.get("method") != "POST" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        read: list[MutableMapping[str, Any]] = []
        body = b""
        while len(body) <= _MOST and (not read or read[-1].get("more_body")):
            read.append(await receive())
            body += read[-1].get("body", b"")
        changed = _as_launched_vllm_reads(body) if len(body) <= _MOST else body
        if changed != body:
            read = [{"type": "http.request", "body": changed, "more_body": False}]
            headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(changed)).encode())]}

        async def again() -> MutableMapping[str, Any]:
            return read.pop(0) if read else await receive()

        await self._app(scope, again, send)


def _as_launched_vllm_reads(body: bytes) -> bytes:
    """A request's body with our fields where the launched vLLM reads them; any other body stays as it is."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(given, dict) or not isinstance(extra := given.get("vllm_xargs") or {}, dict):
        return body
    own = {name: value for name, value in given.items() if name.startswith("asa")}
    if not own:
        return body
    rest = {name: value for name, value in given.items() if name not in own}
    return json.dumps({**rest, "vllm_xargs": {**extra, **own}}).encode()
