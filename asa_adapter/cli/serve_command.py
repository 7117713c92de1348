"""The command `serve`: an adapter and its model behind OpenAI's interface."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from asa_adapter.cli.diagnose_url_command import given_key
from asa_adapter.cli.loading import engine_of, load_adapter, load_model
from asa_adapter.cli.terminal import say
from asa_adapter.server.steered_engine import SteeredEngine
from asa_adapter.server.vllm_launch import vllm_arguments, vllm_environment, vllm_words


def serve(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Serves until it is told to stop."""
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {options.max_new_tokens}; expected 1 or more")
    key = given_key(options)
    if engine_of(options, options.model) == "vllm":
        _become_vllm(options, key)
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise ModuleNotFoundError('serve needs starlette and uvicorn: pip install "asa-adapter[serve]"')
    from asa_adapter.server.application import application
    from asa_adapter.server.listener import is_open, listening, own_names, serve_until_stopped

    # Before the model is loaded, which takes long.
    with listening(options.host, options.port) as listener:
        engine = _served_engine(options)
        host, port = listener.getsockname()[:2]
        place = f"[{host}]" if ":" in host else host
        if is_open(options.host) and key is None:
            say(f"whoever reaches {place} port {port} may use this server; --api-key asks for a key")
        say(f"serving {engine.name!r} at http://{place}:{port}/v1; Ctrl-C stops it")
        try:
            serve_until_stopped(application(engine, key=key, hosts=own_names(options.host)), listener)
        finally:
            engine.close()
    return {"stopped": True}, "stopped"


def _served_name(options: argparse.Namespace) -> str:
    return options.name or Path(options.model).name


def _served_engine(options: argparse.Namespace) -> SteeredEngine:
    """The model with its adapter."""
    adapter, _ = load_adapter(options)
    model, tokenizer = load_model(options, adapter.config, adapter.config.chat_template)
    how = {"allow_mismatch": options.allow_mismatch, "max_new_tokens": options.max_new_tokens or 512}
    return SteeredEngine(_served_name(options), model, tokenizer, adapter, **how)


def _become_vllm(options: argparse.Namespace, key: str | None) -> NoReturn:
    """Becomes vLLM's own server, with the adapter in its plug-in, which makes its own checks."""
    adapter, _ = load_adapter(options)
    arguments = vllm_arguments(options.model, options.revision, options.tokenizer, options.dtype, options.engine_args)
    words = vllm_words(_served_name(options), options.host, options.port, adapter.config, arguments)
    environment = vllm_environment(options.adapter, adapter.commit or options.adapter_revision, key)
    say(f"starts {' '.join(words[1:])}")
    os.execve(words[0], words, environment)
