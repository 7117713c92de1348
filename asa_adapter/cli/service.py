"""The command `serve`: an adapter and its model behind OpenAI's interface."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from asa_adapter.cli.loading import GGUF, load_adapter, load_model
from asa_adapter.cli.terminal import say
from asa_adapter.interview.client import check_key
from asa_adapter.server.launch import vllm_environment, vllm_words
from asa_adapter.server.steered import SteeredEngine

_KEY = "ASA_API_KEY"


def serve(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Serves until it is told to stop."""
    _check_engine(options)
    key = os.environ.get(_KEY) if options.api_key is None else options.api_key
    if key is not None:
        check_key(key)
    if options.engine == "vllm":
        _become_vllm(options, key)
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise ModuleNotFoundError('serve needs starlette and uvicorn: pip install "asa-adapter[serve]"')
    from asa_adapter.server.application import application
    from asa_adapter.server.listener import is_open, listening, own_names, run

    # Before the model is loaded, which takes long.
    with listening(options.host, options.port) as listener:
        engine = _engine(options)
        host, port = listener.getsockname()[:2]
        place = f"[{host}]" if ":" in host else host
        if is_open(options.host) and key is None:
            say(f"whoever reaches {place} port {port} may use this server; --api-key asks for a key")
        say(f"serving {engine.name!r} at http://{place}:{port}/v1; Ctrl-C stops it")
        try:
            run(application(engine, key=key, hosts=own_names(options.host)), listener)
        finally:
            engine.close()
    return {"stopped": True}, "stopped"


def _name(options: argparse.Namespace) -> str:
    return options.name or Path(options.model).name


def _engine(options: argparse.Namespace) -> SteeredEngine:
    """The model with its adapter."""
    adapter, _ = load_adapter(options)
    model, tokenizer = load_model(options, adapter.config, adapter.config.chat_template)
    how = {"allow_mismatch": options.allow_mismatch, "max_new_tokens": options.max_new_tokens or 512}
    return SteeredEngine(_name(options), model, tokenizer, adapter, **how)


def _become_vllm(options: argparse.Namespace, key: str | None) -> NoReturn:
    """Becomes vLLM's own server, with the adapter in its plug-in, which makes its own checks."""
    names = ("device", "threads", "n_ctx", "max_new_tokens", "allow_mismatch", "trust_template")
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]:
        raise ValueError(f"{' and '.join(given)}: not of vLLM; leave it out, or start vllm serve by hand")
    if find_spec("vllm") is None:
        raise ModuleNotFoundError("vLLM is not installed here: see asa_adapter/vllm/README.md")
    adapter, _ = load_adapter(options)
    more = {name: getattr(options, name) for name in ("tokenizer", "revision", "dtype")}
    words = vllm_words(options.model, _name(options), options.host, options.port, adapter.config, more)
    environment = vllm_environment(options.adapter, adapter.commit or options.adapter_revision, key)
    say(f"starts {' '.join(words[1:])}")
    os.execve(words[0], words, environment)


def _check_engine(options: argparse.Namespace) -> None:
    """Refuses an engine that cannot run the model."""
    if options.max_new_tokens is not None and options.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {options.max_new_tokens}; expected 1 or more")
    is_file = options.model.endswith(GGUF)
    if options.engine is not None and is_file != (options.engine == "gguf"):
        right = "a .gguf file is run by gguf" if is_file else "gguf runs .gguf files"
        raise ValueError(f"engine is {options.engine!r} and the model {options.model!r}; {right}")
