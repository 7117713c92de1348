"""The command `serve`: an adapter and its model behind OpenAI's interface."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asa_adapter.cli.loading import GGUF, load_adapter, load_model
from asa_adapter.cli.terminal import printable
from asa_adapter.server.steered import SteeredEngine

_KEY = "ASA_API_KEY"


def serve(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Serves until it is told to stop."""
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise ModuleNotFoundError('serve needs starlette and uvicorn: pip install "asa-adapter[serve]"')
    from asa_adapter.server.application import application
    from asa_adapter.server.listener import is_open, listening, own_names, run

    _check_engine(options)
    key = os.environ.get(_KEY) if options.api_key is None else options.api_key
    if key is not None and not (key and key.isascii() and key.isprintable()):
        raise ValueError(f"the API key is {'empty' if not key else 'not plain ASCII'}; expected printable ASCII")
    # Before the model is loaded, which takes long.
    with listening(options.host, options.port) as listener:
        engine = _engine(options)
        host, port = listener.getsockname()[:2]
        place = f"[{host}]" if ":" in host else host
        if is_open(options.host) and key is None:
            _say(f"whoever reaches {place} port {port} may use this server; --api-key asks for a key")
        _say(f"serving {engine.name!r} at http://{place}:{port}/v1; Ctrl-C stops it")
        try:
            run(application(engine, key=key, hosts=own_names(options.host)), listener)
        finally:
            engine.close()
    return {"stopped": True}, "stopped"


def _engine(options: argparse.Namespace) -> SteeredEngine:
    """The model with its adapter."""
    adapter, _ = load_adapter(options)
    model, tokenizer = load_model(options, adapter.config, adapter.config.chat_template)
    name = options.name or Path(options.model).name
    how = {"allow_mismatch": options.allow_mismatch, "max_new_tokens": options.max_new_tokens}
    return SteeredEngine(name, model, tokenizer, adapter, **how)


def _check_engine(options: argparse.Namespace) -> None:
    """Refuses an engine that cannot run the model."""
    if options.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {options.max_new_tokens}; expected 1 or more")
    is_file = options.model.endswith(GGUF)
    if options.engine is not None and is_file != (options.engine == "gguf"):
        right = "a .gguf file is run by gguf" if is_file else "gguf runs .gguf files"
        raise ValueError(f"engine is {options.engine!r} and the model {options.model!r}; {right}")


def _say(text: str) -> None:
    sys.stderr.write(printable(f"asa-adapter: {text}\n", sys.stderr))
    sys.stderr.flush()
